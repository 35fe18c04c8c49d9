// The same room on Socket.IO, over WebSocket only.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const server = new Server(http, { transports: ["websocket"], perMessageDeflate: false });
let seq = 0;
server.on("connection", (socket) => {
  socket.join("room");
  socket.on("send", ({ text }) => {
    const event = { seq: ++seq, time_ms: Date.now(), event_id: randomUUID(), sender: "ann", text };
    server.to("room").emit("EVENT", event);
  });
});
http.listen(0, "127.0.0.1", () => console.log(`listening ${http.address().port}`));
