// The same room on uWebSockets.js. Its package's own entry would go on without the native code if there is none for this
// version of Node.
import { createRequire } from "node:module";
import { address, event } from "./room.mjs";

const { platform, arch, versions } = process;
const native = `@trufflesuite/uws-js-unofficial/binaries/uws_${platform}_${arch}_${versions.modules}.node`;
const uws = createRequire(import.meta.url)(native);
const text = new TextDecoder();
const app = uws.App();
app.ws("/*", {
  compression: uws.DISABLED,
  // Messages to a socket where more waits are dropped; the other rooms drop none.
  maxBackpressure: 64 << 20,
  message: (socket, bytes) => {
    const message = JSON.parse(text.decode(bytes));
    if (message.op === "JOIN") {
      socket.subscribe("room");
      socket.send('{"op":"JOINED"}');
      return;
    }
    app.publish("room", JSON.stringify({ op: "EVENT", ...event(message.text) }));
  },
});
app.listen(address.host, address.port, (socket) => {
  if (!socket) throw new Error(`port ${address.port} is taken`);
});
