/** The API over a socket that is driven by hand. */

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, test } from "node:test";
import { type Client, type Conversation, connect, RefusedError, StoppedError, TooSlowError } from "../src/index.js";
import { fileStorage } from "../src/node.js";
import type { QueueStorage } from "../src/storage/storage.js";
import { event, eventId, type Frame, refusal, row } from "./harness.js";
import { HandSocket, nextSocket, settle } from "./socket.js";

const open: Client[] = [];

afterEach(async () => {
  for (const client of open.splice(0)) void client.close();
  await settle();
  HandSocket.all = [];
});

function start(more: { storage?: QueueStorage; token?: string | (() => string) } = {}): Client {
  const client = connect({ url: "https://chat.test", token: "a.b.c", WebSocket: HandSocket, follow: false, ...more });
  open.push(client);
  return client;
}

/** A client with a session that follows a conversation, whose first page has been asked for. */
async function following(more: { storage?: QueueStorage } = {}) {
  const client = start(more);
  const lobby = client.conversation("lobby");
  lobby.open();
  const socket = await nextSocket();
  await socket.welcome();
  const subscribe = await socket.next("SUBSCRIBE");
  const cursors = ["ann", "bob"].map((user) => ({ user }));
  const attach = { op: "ATTACH", id: subscribe.id, handle: 5, log: "c:lobby", epoch: 1, live_from: 3, replay_from: 3 };
  socket.say({ ...attach, head: 2, floor: 1, cursors });
  const fetch = await socket.next("FETCH");
  const page = (messages: Frame[], next = 0, head = 2) =>
    socket.say({ op: "MESSAGES_PAGE", id: fetch.id, next, head, floor: 1, epoch: 1, messages });
  return { client, lobby, socket, fetch, page };
}

function texts(lobby: Conversation): string[] {
  return lobby.messages().map(({ text, status }) => `${text}:${status}`);
}

test("the address gets a scheme, a path and the sub-protocol of JSON", async () => {
  start();
  const socket = await nextSocket();
  assert.equal(socket.url, "wss://chat.test/api/v1/socket");
  assert.deepEqual(socket.protocols, ["antiphon.json.v1"]);
  assert.throws(() => connect({ url: "ftp://x", token: "", WebSocket: HandSocket }), TypeError);
});

test("history and live events make one view, in whatever order they come", async () => {
  const { lobby, socket, fetch, page } = await following();
  assert.deepEqual([fetch.view, fetch.backward], ["messages", true]);
  // Live before the page: an edit of a message that only the page has.
  socket.say(event(5, 3), { ...event(5, 4, { kind: "message.edit", text: "new" }), relates_to: ref(1) });
  page([{ row: row(2) }, { row: row(1) }]);
  await settle();
  assert.deepEqual(texts(lobby), ["new:received", "message 2:received", "message 3:received"]);
  assert.equal(lobby.messages()[0]?.editedMs, 1_004);
});

test("a page that holds a live event already does not count it twice", async () => {
  const { lobby, socket, page } = await following();
  socket.say({ ...event(5, 3, { kind: "reaction", text: undefined, msgno: 2 }), relates_to: { ...ref(1), key: "+1" } });
  const reactions = [{ key: "+1", count: 1, users: ["bob"] }];
  page([{ row: row(1), state: { through: 3, reactions } }], 0, 3);
  await settle();
  assert.equal(lobby.messages()[0]?.reactions[0]?.count, 1);
});

function ref(seq: number) {
  return { seq, event_id: eventId(seq) };
}

test("an own message is shown from the call on, keeps its key, and takes its place", async () => {
  const { lobby, socket, page } = await following();
  page([{ row: row(2) }, { row: row(1) }]);
  const sent = lobby.send("mine");
  assert.equal(texts(lobby).at(-1), "mine:sending");
  const key = lobby.messages().at(-1)?.key;
  const send = await socket.next("SEND");
  socket.say({ op: "ACK", id: send.id, position: "1-4", msgno: 4, time_ms: 9, event_id: eventId(4) });
  assert.equal((await sent).seq, 4);
  assert.equal(texts(lobby).at(-1), "mine:sent");
  // Somebody else's came before it, and is heard of after its ACK.
  socket.say(event(5, 3), event(5, 4, { sender: "ann", text: "mine", client_message_id: send.client_message_id }));
  assert.deepEqual(texts(lobby).slice(2), ["message 3:received", "mine:sent"]);
  assert.equal(lobby.messages().at(-1)?.key, key);
  socket.say({ op: "CURSORS", handle: 5, user: "bob", delivered: 4 });
  assert.equal(texts(lobby).at(-1), "mine:delivered");
  socket.say({ op: "CURSORS", handle: 5, user: "bob", delivered: 4, read: 4 });
  assert.equal(texts(lobby).at(-1), "mine:read");
});

test("the echo of a message may come before its ACK, and is shown once", async () => {
  const { lobby, socket, page } = await following();
  page([]);
  const sent = lobby.send("mine");
  const send = await socket.next("SEND");
  socket.say(event(5, 3, { sender: "ann", text: "mine", client_message_id: send.client_message_id }));
  assert.deepEqual(texts(lobby), ["mine:sent"]);
  socket.say({ op: "ACK", id: send.id, position: "1-3", msgno: 3, time_ms: 9, event_id: eventId(3) });
  await sent;
  assert.deepEqual(texts(lobby), ["mine:sent"]);
});

test("a page may hold a message that waits for its ACK, and it is shown once", async () => {
  const { lobby, socket, page } = await following();
  lobby.send("hello");
  const { client_message_id } = await socket.next("SEND");
  page([{ row: { ...row(2), sender: "ann", text: "hello", client_message_id } }, { row: row(1) }]);
  await settle();
  assert.deepEqual(texts(lobby), ["message 1:received", "hello:sent"]);
});

test("a refused message is shown as failed, and can be sent again or discarded", async () => {
  const { lobby, socket, page } = await following();
  page([]);
  const sent = lobby.send("mine");
  const send = await socket.next("SEND");
  socket.say(refusal(send.id, 4003, "blocked"));
  await assert.rejects(sent, RefusedError);
  const [failed] = lobby.messages();
  assert.ok(failed?.status === "failed" && failed.error instanceof RefusedError);
  void lobby.retry(failed);
  const again = await socket.next("SEND");
  assert.equal(again.text, "mine");
  assert.notEqual(again.client_message_id, send.client_message_id);
  socket.say(refusal(again.id, 4003, "blocked"));
  const [refused] = lobby.messages();
  assert.ok(refused);
  lobby.discard(refused);
  assert.deepEqual(lobby.messages(), []);
});

test("a snapshot stays the same object until something changes, and messages that did not change stay theirs", async () => {
  const { lobby, socket, page } = await following();
  page([{ row: row(2) }, { row: row(1) }]);
  await settle();
  const changes: unknown[] = [];
  lobby.on("change", (snapshot) => changes.push(snapshot));
  const before = lobby.snapshot();
  assert.equal(lobby.snapshot(), before);
  socket.say(event(5, 3), event(5, 4));
  await settle();
  assert.equal(changes.length, 1);
  assert.equal(lobby.snapshot(), changes[0]);
  assert.notEqual(lobby.snapshot(), before);
  assert.equal(lobby.messages()[0], before.messages[0]);
});

test("older messages are paged in until there are none", async () => {
  const { lobby, socket, page } = await following();
  page([{ row: row(9) }, { row: row(8) }], 8, 9);
  await settle();
  assert.equal(lobby.snapshot().hasOlder, true);
  const older = lobby.loadOlder();
  const empty = await socket.next("FETCH");
  assert.equal(empty.to, 8);
  // A page may hold nothing although there is more.
  socket.say({ op: "MESSAGES_PAGE", id: empty.id, next: 4, head: 9, epoch: 1 });
  const last = await socket.next("FETCH");
  assert.equal(last.to, 4);
  socket.say({ op: "MESSAGES_PAGE", id: last.id, next: 0, head: 9, epoch: 1, messages: [{ row: row(2) }] });
  assert.equal(await older, true);
  assert.deepEqual(
    lobby.messages().map(({ seq }) => seq),
    [2, 8, 9],
  );
  assert.equal(await lobby.loadOlder(), false);
});

test("a reset begins the view anew, without a page from before it", async () => {
  const { lobby, socket, page } = await following();
  socket.say({ op: "BEHIND", handle: 5 });
  const { id } = await socket.next("SUBSCRIBE");
  const attach = { op: "ATTACH", id, handle: 5, log: "c:lobby", epoch: 1, reset: "history_gone" };
  socket.say({ ...attach, live_from: 9, replay_from: 9, head: 8, floor: 9 });
  page([{ row: row(2) }]);
  await settle();
  assert.deepEqual(lobby.messages(), []);
  const fetch = await socket.next("FETCH");
  assert.equal(fetch.to, undefined);
  socket.say({ op: "MESSAGES_PAGE", id: fetch.id, head: 9, epoch: 1, messages: [{ row: row(9, { text: "new" }) }] });
  await settle();
  assert.deepEqual(texts(lobby), ["new:received"]);
});

test("an iterator gives every event once, and ends with the subscription", async () => {
  const { lobby, socket } = await following();
  const seen: number[] = [];
  const reading = (async () => {
    for await (const { seq } of lobby) seen.push(seq);
  })();
  await settle();
  socket.say(event(5, 3), event(5, 4));
  await settle();
  socket.say(event(5, 5));
  await settle();
  lobby.close();
  await reading;
  assert.deepEqual(seen, [3, 4, 5]);
});

test("an iterator that does not keep up ends with an error instead of losing events silently", async () => {
  const { lobby, socket } = await following();
  const iterator = lobby[Symbol.asyncIterator]();
  const first = iterator.next();
  await settle();
  for (let seq = 3; seq < 3 + 1_026; seq++) socket.say(event(5, seq));
  assert.equal((await first).value?.seq, 3);
  await assert.rejects(async () => {
    for (;;) await iterator.next();
  }, TooSlowError);
});

test("typing is told at most every three seconds, and heard until its time or a message", async () => {
  const { lobby, socket } = await following();
  lobby.typing();
  lobby.typing();
  const signal = await socket.next("SIGNAL");
  assert.deepEqual(signal, { op: "SIGNAL", log: "c:lobby", kind: "typing" });
  await assert.rejects(socket.next("SIGNAL"));
  socket.say({ op: "SIGNALED", handle: 5, user: "bob", kind: "typing", ttl_ms: 30 });
  assert.deepEqual(lobby.snapshot().typing, ["bob"]);
  await new Promise((resolve) => setTimeout(resolve, 40));
  assert.deepEqual(lobby.snapshot().typing, []);
  socket.say({ op: "SIGNALED", handle: 5, user: "bob", kind: "typing", ttl_ms: 60_000 });
  socket.say(event(5, 3));
  assert.deepEqual(lobby.snapshot().typing, []);
});

test("in a small conversation the sender is told that a message has arrived", async () => {
  const { lobby, socket } = await following();
  socket.say(event(5, 3));
  const arrived = await socket.next("CURSOR");
  assert.deepEqual([arrived.delivered, arrived.read], [3, undefined]);
  lobby.markRead();
});

test("what came before the conversation was followed has arrived with the page", async () => {
  const { socket, page } = await following();
  page([{ row: row(2) }, { row: row(1) }]);
  assert.equal((await socket.next("CURSOR")).delivered, 2);
});

test("a conversation that is gone is not asked for again by itself", async () => {
  const { lobby, socket } = await following();
  socket.say({ op: "DETACH", handle: 5, reason: "removed", seq: 2 });
  assert.equal(lobby.snapshot().detached?.why, "removed");
  lobby.messages();
  await assert.rejects(socket.next("SUBSCRIBE"));
  lobby.open();
  assert.equal((await socket.next("SUBSCRIBE")).after, "1-2");
});

test("requests: a conversation is created, and a refusal is a typed error", async () => {
  const client = start();
  const socket = await nextSocket();
  await socket.welcome();
  const created = client.createConversation({ title: "Tea", members: ["bob", { user: "eve", role: "admin" }] });
  const { id, ...members } = await socket.next("CONVERSATION_CREATE");
  assert.deepEqual(members, {
    op: "CONVERSATION_CREATE",
    title: "Tea",
    members: [{ user: "bob" }, { user: "eve", role: "admin" }],
  });
  const owner = { user: "ann", role: "owner", joined_seq: 1 };
  socket.say({ op: "OK", id, to: "CONVERSATION_CREATE", conversation: "~1", created: true, members: [owner] });
  const info = await created;
  assert.deepEqual([info.id, info.kind, info.created, info.members[0]?.role], ["~1", "group", true, "owner"]);
  const left = client.conversation("tea").leave();
  socket.say(refusal((await socket.next("LEAVE")).id, 4001, "forbidden", { field: "x" }));
  await assert.rejects(left, (error) => error instanceof RefusedError && error.code === "forbidden");
});

test("the inbox lists conversations, and digests and its own log move them on", async () => {
  const client = start();
  const socket = await nextSocket();
  await socket.welcome();
  const inbox = client.inbox();
  const subscribe = await socket.next("SUBSCRIBE");
  assert.equal(subscribe.log, "u:ann");
  socket.say({ op: "ATTACH", id: subscribe.id, handle: 9, log: "u:ann", epoch: 1, live_from: 1, replay_from: 1 });
  const entry = (id: string, more: Frame = {}) => ({ log: `c:${id}`, epoch: 1, head: 5, head_msgno: 4, ...more });
  const first = await socket.next("SYNC");
  socket.say({ op: "OK", id: first.id, to: "SYNC", entries: [entry("a")], next: "a", blocked: ["eve"] });
  const second = await socket.next("SYNC");
  assert.equal(second.after, "a");
  socket.say({ op: "OK", id: second.id, to: "SYNC", entries: [entry("b", { read_msgno: 4, time_ms: 7 })] });
  const ids = () => inbox.entries().map(({ id, unread }) => `${id}:${unread}`);
  await inbox.loaded();
  assert.deepEqual(ids(), ["b:0", "a:4"]);
  assert.deepEqual([...inbox.blocked], ["eve"]);
  const last = { seq: 6, time_ms: 9, sender: "bob", text: "hi" };
  socket.say({ op: "HEAD", log: "c:a", epoch: 1, seq: 6, msgno: 5, last });
  assert.deepEqual(ids(), ["a:5", "b:0"]);
  const notice = (seq: number, kind: string, body: Frame) => event(9, seq, { kind, body, text: undefined });
  socket.say(notice(1, "preferences", { conversation: "b", pinned: true }));
  assert.deepEqual(ids(), ["b:0", "a:5"]);
  socket.say(notice(2, "conversation.removed", { conversation: "a", seq: 7 }));
  assert.deepEqual(ids(), ["b:0"]);
  socket.say(notice(3, "conversation.added", { conversation: "c", joined_seq: 1 }));
  const again = await socket.next("SYNC");
  socket.say({ op: "OK", id: again.id, to: "SYNC", entries: [entry("b", { pinned: true }), entry("c")] });
  await inbox.loaded();
  assert.deepEqual(ids(), ["b:4", "c:4"]);
});

test("ready waits for the first session, and fails when the client stops for good", async () => {
  const client = start();
  const ready = client.ready();
  const socket = await nextSocket();
  await socket.welcome();
  assert.equal((await ready).user, "ann");
  socket.say(refusal(0, 5003, "replaced"));
  await assert.rejects(client.ready(), StoppedError);
  assert.ok(socket.isClosed);
});

test("a message that cannot be read ends the socket, and another is made", async () => {
  const client = start();
  const socket = await nextSocket();
  await socket.welcome();
  socket.onmessage?.({ data: "{" });
  assert.ok(socket.isClosed);
  assert.equal(client.state.is, "waiting");
  await (await nextSocket()).welcome();
  assert.equal(client.state.is, "ready");
});

test("a listener that throws is told of, and does not break the client", async (context) => {
  const { lobby, socket } = await following();
  const uncaught: unknown[] = [];
  const before = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", (error) => uncaught.push(error));
  context.after(() => {
    process.removeAllListeners("uncaughtException");
    for (const listener of before) process.on("uncaughtException", listener);
  });
  lobby.on("event", () => {
    throw new Error("the application's fault");
  });
  socket.say(event(5, 3), event(5, 4));
  await settle();
  assert.ok(uncaught.length > 0);
  assert.deepEqual(texts(lobby), ["message 3:received", "message 4:received"]);
});

// ---- the offline queue ----

test("a message is not written before a store has its id", async () => {
  const kept: string[] = [];
  let release = () => {};
  const storage: QueueStorage = {
    load: async () => [],
    put: ({ message }) => {
      kept.push(message.clientMessageId ?? "none");
      return new Promise((resolve) => {
        release = resolve;
      });
    },
    remove: (key) => {
      kept.push(`removed ${typeof key}`);
      return undefined;
    },
  };
  const { lobby, socket } = await following({ storage });
  void lobby.send("mine");
  await settle();
  assert.equal(socket.sent.length, 0);
  release();
  const send = await socket.next("SEND");
  assert.deepEqual(kept, ["none", send.client_message_id]);
  socket.say({ op: "ACK", id: send.id, position: "1-3", msgno: 3, time_ms: 9, event_id: eventId(3) });
  await settle();
  assert.equal(kept.at(-1), "removed string");
});

test("what one client did not send, the next one with the same file does, once and in order", async (context) => {
  const folder = await mkdtemp(join(tmpdir(), "antiphon-"));
  context.after(() => rm(folder, { recursive: true }));
  const path = join(folder, "queue");
  const first = start({ storage: fileStorage(path) });
  const lobby = first.conversation("lobby");
  const lost = [lobby.send("one"), lobby.send("two"), lobby.send("three")];
  const socket = await nextSocket();
  await socket.welcome();
  const one = await socket.next("SEND");
  const two = await socket.next("SEND");
  socket.say({ op: "ACK", id: one.id, position: "1-1", msgno: 1, time_ms: 9, event_id: eventId(1) });
  await lost[0];
  // The process ends here, so to speak: the socket is gone, and nothing more is heard.
  socket.say(refusal(0, 5003, "replaced"));
  await assert.rejects(lost[1] ?? Promise.resolve(), StoppedError);
  await new Promise((resolve) => setTimeout(resolve, 50));

  const second = start({ storage: fileStorage(path) });
  const shown = second.conversation("lobby");
  const next = await nextSocket();
  await next.welcome();
  void shown.send("four");
  const again = [await next.next("SEND"), await next.next("SEND"), await next.next("SEND")];
  assert.deepEqual(
    again.map(({ text }) => text),
    ["two", "three", "four"],
  );
  assert.equal(again[0]?.client_message_id, two.client_message_id);
});

test("a store that fails is told of, and nothing else fails", async () => {
  const failing: QueueStorage = {
    load: () => Promise.reject(new Error("no load")),
    put: () => Promise.reject(new Error("no put")),
    remove: () => Promise.reject(new Error("no remove")),
  };
  const client = start({ storage: failing });
  const errors: unknown[] = [];
  client.on("storageError", (error) => errors.push(error));
  const sent = client.conversation("a").send("x");
  const socket = await nextSocket();
  await socket.welcome();
  const { id } = await socket.next("SEND");
  socket.say({ op: "ACK", id, position: "1-1", msgno: 1, time_ms: 9, event_id: eventId(1) });
  await sent;
  await settle();
  assert.ok(errors.length >= 3);
});
