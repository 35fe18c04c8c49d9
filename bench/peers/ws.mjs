// One room on `ws`: writes an event once and sends it to everybody who joined.
import { WebSocketServer } from "ws";
import { address, event } from "./room.mjs";

const room = new Set();
const server = new WebSocketServer({ ...address, perMessageDeflate: false });
server.on("connection", (socket) => {
  socket.on("close", () => room.delete(socket));
  socket.on("message", (bytes) => {
    const { op, text } = JSON.parse(bytes.toString());
    if (op === "JOIN") {
      room.add(socket);
      socket.send('{"op":"JOINED"}');
      return;
    }
    const line = Buffer.from(JSON.stringify({ op: "EVENT", ...event(text) }));
    for (const reader of room) reader.send(line, { binary: false });
  });
});
