/**
 * Against a real broker: the program that ANTIPHON_BIN names. Without it these tests are skipped; with one that has no
 * gateway they fail, and say so.
 */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { WebSocket } from "ws";
import { binary } from "../src/binary/index.js";
import { type Client, type ConnectOptions, type Conversation, connect, RefusedError } from "../src/index.js";
import { startTestBroker, type TestBroker } from "../src/server/testBroker.js";
import { readmeCode, readmeFile } from "./readme.js";

const options = process.env.ANTIPHON_BIN ? {} : { skip: "ANTIPHON_BIN names no broker" };
const ALL = ["read", "send", "signal", "manage"] as const;
const WAIT_MS = 10_000;

let broker: TestBroker;
const open: Client[] = [];

before(async () => {
  if (process.env.ANTIPHON_BIN) broker = await startTestBroker();
});

after(async () => {
  await Promise.all(open.map((client) => client.close()));
  await broker?.stop();
});

/** Sockets that a test can cut. */
const sockets: WebSocket[] = [];
class CutSocket extends WebSocket {
  constructor(url: string, protocols?: string[]) {
    super(url, protocols);
    sockets.push(this);
  }
}

async function start(user: string, more: Partial<ConnectOptions> = {}): Promise<Client> {
  const token = () => broker.mint(user, [{ on: "c:*", can: ALL }]);
  const client = connect({ url: broker.url, token, WebSocket: CutSocket, device: `${user}-test`, ...more });
  open.push(client);
  await client.ready();
  return client;
}

/** Waits until something is so, and says what was instead. */
async function until<T>(read: () => T, isSo: (value: T) => boolean): Promise<T> {
  const end = Date.now() + WAIT_MS;
  while (!isSo(read())) {
    assert.ok(Date.now() < end, `still ${JSON.stringify(read())}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return read();
}

function texts(conversation: Conversation): string[] {
  return conversation.messages().map(({ text }) => text);
}

async function attached(conversation: Conversation): Promise<void> {
  await until(
    () => conversation.snapshot().loaded,
    (loaded) => loaded,
  );
}

for (const [name, wire] of [
  ["JSON", undefined],
  ["binary", binary],
] as const) {
  test(`${name}: a message arrives, is changed, and its sender is told that it was read`, options, async () => {
    const id = `story-${name.toLowerCase()}`;
    const ann = await start(`ann-${name}`, wire && { wire });
    await ann.createConversation({ id, title: "Story", members: [`bob-${name}`] });
    const bob = await start(`bob-${name}`, wire && { wire });
    const [hers, his] = [ann.conversation(id), bob.conversation(id)];
    await Promise.all([attached(hers), attached(his)]);
    await hers.send({ text: "tea?", mentions: [`bob-${name}`], properties: { mood: "good" } });
    const [message] = await until(
      () => his.messages(),
      (messages) => messages.length === 1,
    );
    assert.ok(message);
    assert.deepEqual([message.text, message.mentions, message.properties.mood], ["tea?", [`bob-${name}`], "good"]);
    await his.react(message, "+1");
    await hers.edit(message, "tea at six?");
    await his.send({ data: { answer: 42 }, replyTo: message });
    his.markRead();
    const [first, second] = await until(
      () => hers.messages(),
      ([tea]) => tea?.status === "read" && tea.text === "tea at six?" && tea.reactions.length === 1,
    );
    assert.deepEqual(second?.content, { type: "json", data: { answer: 42 } });
    assert.equal(second.reply?.content.type === "text" && second.reply.content.text, "tea at six?");
    await hers.redact(first ?? message);
    await until(
      () => his.messages()[0]?.redacted,
      (redacted) => redacted === true,
    );
  });

  test(`${name}: nothing is lost or repeated when sockets are cut`, options, async () => {
    const id = `cut-${name.toLowerCase()}`;
    const ann = await start(`cut-ann-${name}`, wire && { wire });
    const bob = await start(`cut-bob-${name}`, wire && { wire });
    const [hers, his] = [ann.conversation(id), bob.conversation(id)];
    await Promise.all([attached(hers), attached(his)]);
    const sent: Promise<unknown>[] = [];
    for (let count = 0; count < 60; count++) {
      sent.push(hers.send(`message ${count}`));
      if (count % 20 === 10) for (const socket of sockets.splice(0)) socket.terminate();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await Promise.all(sent);
    const expected = Array.from({ length: 60 }, (_, count) => `message ${count}`);
    await until(
      () => texts(his),
      (shown) => shown.length >= 60,
    );
    assert.deepEqual(texts(his), expected);
    assert.deepEqual(texts(hers), expected);
  });
}

test("a conversation that is closed and opened again before there is a session is followed", options, async () => {
  const token = () => broker.mint("hasty", [{ on: "c:*", can: ALL }]);
  const client = connect({ url: broker.url, token, WebSocket: CutSocket, device: "hasty-test" });
  open.push(client);
  const hasty = client.conversation("hasty").open();
  hasty.close();
  hasty.open();
  await attached(hasty);
  assert.equal(hasty.snapshot().detached, undefined);
  hasty.close();
  await until(
    () => hasty.snapshot().detached?.why,
    (why) => why === "unsubscribed",
  );
});

test("a refusal is a typed error, and the session goes on", options, async () => {
  const eve = await start("eve", { token: () => broker.mint("eve") });
  await assert.rejects(eve.conversation("nowhere").info(), (error) => error instanceof RefusedError);
  assert.equal(eve.state.is, "ready");
});

test("the history is read from a date on, or before it", options, async () => {
  for (const [form, wire] of [
    ["json", undefined],
    ["binary", binary],
  ] as const) {
    const pat = await start("pat", wire && { wire });
    const id = `dated-${form}`;
    await pat.createConversation({ id });
    const dated = pat.conversation(id);
    for (const text of ["one", "two", "three"]) await dated.send(text);
    const { events } = await dated.history();
    const atMs = events[2]?.timeMs ?? 0;
    const seqs = async (range: Parameters<Conversation["history"]>[0]) =>
      (await dated.history(range)).events.map(({ seq }) => seq);
    const since = events.filter(({ timeMs }) => timeMs >= atMs).map(({ seq }) => seq);
    const before = events.filter(({ timeMs }) => timeMs < atMs).map(({ seq }) => seq);
    assert.deepEqual(await seqs({ atMs }), since);
    assert.deepEqual(await seqs({ atMs, backward: true }), before.reverse());
    assert.deepEqual(await seqs({ atMs, from: 4 }), [4]);
    await pat.close();
  }
});

test("the inbox lists what one is a member of, and counts what is unread", options, async () => {
  const [zoe, max] = [await start("zoe"), await start("max")];
  const inbox = max.inbox();
  await zoe.createConversation({ id: "counted", members: ["max"] });
  await zoe.conversation("counted").send("one");
  const [entry] = await until(
    () => inbox.entries(),
    ([first]) => first?.unread === 1,
  );
  assert.equal(entry?.id, "counted");
});

test("the inbox tells the other one of a direct conversation that a message has arrived", options, async () => {
  const [joe, sue] = [await start("joe"), await start("sue")];
  const his = await joe.direct("sue");
  await his.send("before she looks");
  const delivered = (count: number) => {
    return until(
      () => his.messages().filter(({ status }) => status === "delivered"),
      (messages) => messages.length === count,
    );
  };
  await attached(his);
  const inbox = sue.inbox();
  await delivered(1);
  await his.send("while she looks");
  await until(
    () => inbox.entries(),
    ([entry]) => entry?.unread === 2,
  );
  await delivered(2);
});

test("the fifteen lines of the README are a chat", { ...options, timeout: 30_000 }, async (context) => {
  assert.ok(readmeCode("js chat.mjs").trim().split("\n").length <= 15);
  const program = readmeFile("js", "chat.mjs");
  const chats = await Promise.all(["ann", "bob"].map((user) => chat(program, user)));
  const [ann, bob] = chats;
  context.after(() => {
    for (const { end } of chats) end();
  });
  // A chat that does not end would keep the test's own process.
  context.signal.addEventListener("abort", () => {
    for (const { end } of chats) end();
  });
  for (const { said } of chats) await until(said, (all) => all.includes("in the lobby"));
  ann?.say("hello");
  bob?.say("hi");
  for (const { said } of chats) await until(said, (all) => all.includes("ann: hello") && all.includes("bob: hi"));
  for (const { leave, ended } of chats) {
    leave();
    assert.equal(await ended, 0);
  }
});

async function chat(program: string, user: string) {
  const CHAT_TOKEN = await broker.mint(user);
  const env = { ...process.env, CHAT_URL: broker.url, CHAT_TOKEN };
  const child: ChildProcess = spawn(process.execPath, [program], { env, stdio: "pipe" });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk) => {
      output += chunk;
    });
  }
  return {
    say: (line: string) => child.stdin?.write(`${line}\n`),
    said: () => output,
    leave: () => child.stdin?.end(),
    end: () => child.kill(),
    ended: new Promise((resolve) => child.once("close", resolve)),
  };
}
