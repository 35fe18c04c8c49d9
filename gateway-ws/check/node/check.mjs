// A chat of two on the gateway, with nothing but `ws` and protocol/SPEC.md: check.mjs GATEWAY TOKEN TOKEN

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import WebSocket from "ws";

const [gateway, ...tokens] = process.argv.slice(2);
const url = `${gateway.replace("http", "ws")}/api/v1/socket`;
const MESSAGES = 50;

/** A session on the JSON sub-protocol. */
async function connect(token) {
  const socket = new WebSocket(url, "antiphon.json.v1", { headers: { Authorization: `Bearer ${token}` } });
  const [waiting, arrived] = [[], []];
  socket.on("message", (data) => {
    for (const line of data.toString().split("\n")) {
      const frame = JSON.parse(line);
      const at = waiting.findIndex(({ is }) => is(frame));
      if (at >= 0) waiting.splice(at, 1)[0].done(frame);
      else arrived.push(frame);
    }
  });
  await once(socket, "open");
  const next = (is) => {
    const at = arrived.findIndex(is);
    if (at >= 0) return Promise.resolve(arrived.splice(at, 1)[0]);
    return new Promise((done) => waiting.push({ is, done }));
  };
  let last = 0;
  const ask = async (op, members) => {
    const id = ++last;
    const answer = next((frame) => frame.id === id);
    socket.send(JSON.stringify({ op, id, ...members }));
    const frame = await answer;
    assert.notEqual(frame.op, "ERROR", JSON.stringify(frame));
    return frame;
  };
  await ask("HELLO", { versions: [1], device: randomUUID() });
  return { socket, ask, event: () => next((frame) => frame.op === "EVENT") };
}

/** RFC 9562, version 8: any bytes will do. */
function messageId() {
  const id = [...randomUUID()];
  id[14] = "8";
  return id.join("");
}

const [ann, bob] = await Promise.all(tokens.map(connect));
const { head } = await bob.ask("SUBSCRIBE", { log: "c:lobby", tail: true });
const texts = Array.from({ length: MESSAGES }, (_, n) => `message ${n} \u{1f600}`);
const sends = texts.map((text) => ann.ask("SEND", { log: "c:lobby", client_message_id: messageId(), text }));
const acks = await Promise.all(sends);
for (const [n, text] of texts.entries()) {
  const event = await bob.event();
  assert.equal(event.text, text);
  assert.equal(acks[n].position.split("-")[1], String(event.seq));
  if (n > 0) assert.ok(event.seq > Number(acks[n - 1].position.split("-")[1]));
}
const id = messageId();
const twice = [];
for (let n = 0; n < 2; n++) twice.push(await ann.ask("SEND", { log: "c:lobby", client_message_id: id, text: "once" }));
assert.equal(twice[0].position, twice[1].position);
assert.equal(twice[1].duplicate, true);
assert.equal((await bob.event()).text, "once");

// Positions stay what they are: a session that begins after the head it knew gets what came since.
await bob.ask("BYE", {});
const [code] = await once(bob.socket, "close");
assert.equal(code, 1000);
const again = await connect(tokens[1]);
const page = await again.ask("FETCH", { log: "c:lobby", from: (head ?? 0) + 1, view: "events" });
assert.deepEqual(page.rows.map(({ text }) => text).slice(0, MESSAGES), texts);

const refused = new WebSocket(url, "antiphon.json.v1");
await once(refused, "open");
refused.send("not JSON");
const [refusal] = await once(refused, "close");
assert.ok(refusal >= 4200 && refusal < 4300, `closed with ${refusal}`);
for (const { socket } of [ann, again]) socket.close();
console.log(`ws: ${MESSAGES + 1} messages, each once and in order; a repetition, a page and a refusal as they have to be`);
