// One room on `ws`: reads a message, gives it a place, an id and a time, writes it once and sends it to everybody. Nothing
// is stored.
import { randomUUID } from "node:crypto";
import { WebSocketServer } from "ws";

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
let seq = 0;
server.on("connection", (socket) => {
  socket.on("message", (bytes) => {
    const { text } = JSON.parse(bytes.toString());
    const event = { op: "EVENT", seq: ++seq, time_ms: Date.now(), event_id: randomUUID(), sender: "ann", text };
    const line = JSON.stringify(event);
    for (const reader of server.clients) reader.send(line);
  });
});
server.on("listening", () => console.log(`listening ${server.address().port}`));
