// The same room on Socket.IO, over WebSocket only.
import { createServer } from "node:http";
import { Server } from "socket.io";
import { address, event } from "./room.mjs";

const http = createServer();
const server = new Server(http, { transports: ["websocket"], perMessageDeflate: false });
server.on("connection", (socket) => {
  socket.on("JOIN", () => {
    socket.join("room");
    socket.emit("JOINED");
  });
  socket.on("SEND", ({ text }) => server.to("room").emit("EVENT", event(text)));
});
http.listen(address);
