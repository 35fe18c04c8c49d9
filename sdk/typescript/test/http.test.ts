/** The HTTP client against a real broker; skipped like the tests in e2e.test.ts. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { WebSocket } from "ws";
import { connect, type Event } from "../src/index.js";
import {
  type Followed,
  HttpClient,
  type HttpOptions,
  RefusedError,
  startTestBroker,
  type TestBroker,
} from "../src/server.js";
import { readmeFile } from "./readme.js";
import { Relay } from "./relay.js";

const options = process.env.ANTIPHON_BIN ? {} : { skip: "ANTIPHON_BIN names no broker" };
const ALL = [{ on: "c:*", can: ["read", "send", "signal", "manage"] }] as const;
const SERVICE = { service: true, scopes: ["act_as", "admin:write"] } as const;

let broker: TestBroker;
let shop: HttpClient;

before(async () => {
  if (!process.env.ANTIPHON_BIN) return;
  broker = await startTestBroker();
  shop = new HttpClient({ url: broker.url, token: () => broker.mint("shop", ALL, SERVICE) });
});

after(() => broker?.stop());

function of(user: string, more: Partial<HttpOptions> = {}): HttpClient {
  return new HttpClient({
    url: broker.url,
    token: () => broker.mint(user, [{ on: "c:none", can: ["read"] }]),
    ...more,
  });
}

function refusedAs(code: string) {
  // Whatever was refused here is refused with a number, and no fault of the broker.
  return (error: unknown) => error instanceof RefusedError && error.code === code && error.action !== "stop";
}

/** Reads texts of messages, up to so many. */
class Reading {
  readonly texts: string[] = [];
  readonly ended: Promise<void>;
  #wake = () => {};

  constructor(followed: AsyncIterable<Followed>, count: number) {
    this.ended = this.#read(followed, count);
  }

  async #read(followed: AsyncIterable<Followed>, count: number): Promise<void> {
    for await (const item of followed) {
      if (item.type === "event" && item.event.kind === "message") this.texts.push(textOf(item.event));
      this.#wake();
      if (this.texts.length === count) break;
    }
  }

  async reached(count: number): Promise<void> {
    while (this.texts.length < count) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

function textOf({ content }: Event): string {
  return content.type === "text" ? content.text : content.type;
}

test("a service talks for itself and for a user", options, async () => {
  const created = await shop.createConversation({ id: "order-1", title: "Order 1", members: ["ann", { user: "bob" }] });
  assert.deepEqual([created.created, created.title, created.members.length], [true, "Order 1", 3]);
  const order = shop.conversation("order-1");
  const first = await order.send("shipped", { idempotencyKey: "order-1 shipped" });
  const again = await order.send("shipped", { idempotencyKey: "order-1 shipped" });
  assert.deepEqual([first.duplicate, again], [false, { ...first, duplicate: true }]);
  const question = await order.send({ text: "when?", actAs: "ann", mentions: ["shop"], properties: { from: "mail" } });
  await order.edit(first, "shipped today");
  await order.react(question, "👍");
  const page = await order.history({ from: first.seq, limit: 2 });
  const [shipped, asked] = page.events;
  assert.deepEqual([shipped?.sender, shipped && textOf(shipped), shipped?.via], ["shop", "shipped", undefined]);
  assert.deepEqual(
    [asked?.sender, asked?.via, asked?.mentions, asked?.properties],
    ["ann", "shop", ["shop"], { from: "mail" }],
  );
  assert.equal(page.next, question.seq + 1);
  const everything = (await order.history()).events;
  const since = everything.filter(({ timeMs }) => timeMs >= question.timeMs).map(({ seq }) => seq);
  const atDate = await order.history({ atMs: question.timeMs });
  assert.deepEqual(
    atDate.events.map(({ seq }) => seq),
    since,
  );
  const before = await order.history({ atMs: question.timeMs, backward: true, limit: 1 });
  assert.equal(before.events[0]?.seq, (since[0] ?? 0) - 1);
  const { messages, head } = await order.messages({ backward: true });
  assert.equal(head.epoch, first.epoch);
  const edited = messages.find(({ event }) => event.seq === first.seq)?.state?.edit?.content;
  assert.deepEqual(edited, { type: "text", text: "shipped today" });
  await order.redact(first);
  await assert.rejects(order.send("x", { idempotencyKey: "ключ" }), TypeError);
});

test("members come and go, and what they may not do is a typed error", options, async () => {
  await shop.createConversation({ id: "order-2", members: ["ann"] });
  const order = shop.conversation("order-2");
  await order.addMembers(["bob"]);
  await order.setRole("bob", "admin");
  await order.update({ title: "Second" });
  const { title, members } = await order.info();
  assert.equal(title, "Second");
  assert.deepEqual(members.map(({ user, role }) => `${user} ${role}`).sort(), [
    "ann member",
    "bob admin",
    "shop owner",
  ]);
  const bob = of("bob").conversation("order-2");
  await bob.send("here");
  await order.removeMember("bob");
  await assert.rejects(bob.send("still here?"), (error) => {
    assert.ok(error instanceof RefusedError);
    assert.deepEqual([error.code, error.action, error.removedAt > 0], ["removed", "forbidden", true]);
    return true;
  });
  await assert.rejects(of("eve").conversation("order-2").info(), refusedAs("not_found"));
  await assert.rejects(of("ann").conversation("order-2").update({ title: "Mine" }), refusedAs("forbidden"));
  await assert.rejects(order.send({ text: "x", actAs: "" + "?" }), refusedAs("invalid_field"));
  await order.delete();
  await assert.rejects(order.info(), refusedAs("not_found"));
});

test("a service says what a user has read", options, async () => {
  await shop.createConversation({ id: "read", members: ["reader"] });
  const sent = await shop.conversation("read").send("by mail as well");
  await shop.conversation("read").markRead(sent, { actAs: "reader" });
  await assert.rejects(of("eve").conversation("read").markRead(sent, { actAs: "reader" }), refusedAs("forbidden"));
  // What it says at its start is what the broker knows.
  const reader = connect({ url: broker.url, token: () => broker.mint("reader"), WebSocket, device: "reader" });
  await reader.ready();
  const [entry] = await reader.inbox().loaded();
  assert.deepEqual([entry?.id, entry?.read, entry?.unread], ["read", sent.seq, 0]);
  await reader.close();
});

test("presence is that of a user with a session, and a revoked one has none", options, async () => {
  await shop.createConversation({ id: "seen", members: ["kim"] });
  assert.deepEqual(await shop.presence("kim"), { user: "kim", status: "offline", text: "" });
  const token = await broker.mint("kim");
  const kim = connect({ url: broker.url, token, WebSocket, device: "kim" });
  await kim.ready();
  await kim.setPresence("busy", "at tea");
  assert.deepEqual(await shop.presence("kim"), { user: "kim", status: "busy", text: "at tea" });
  await assert.rejects(of("kim").revoke("shop"), refusedAs("forbidden"));
  const stopped = new Promise((resolve) => kim.on("state", (state) => state.is === "stopped" && resolve(state.reason)));
  await shop.revoke("kim");
  const reason = (await stopped) as { why: string; refusal: RefusedError };
  assert.deepEqual([reason.why, reason.refusal.code], ["sameToken", "token_revoked"]);
  await assert.rejects(new HttpClient({ url: broker.url, token }).presence("shop"), refusedAs("token_revoked"));
});

test("a log is followed over every cut, each event once and in order", options, async () => {
  const relay = await Relay.start(new URL(broker.url).port);
  await shop.createConversation({ id: "followed" });
  const conversation = shop.conversation("followed");
  const begin = await conversation.send("begin");
  const reader = new HttpClient({ url: relay.url, token: () => broker.mint("shop", ALL, SERVICE) });
  const wanted = Array.from({ length: 60 }, (_, n) => `event ${n}`);
  const reading = new Reading(reader.conversation("followed").follow({ after: begin }), wanted.length);
  for (const [n, text] of wanted.entries()) {
    await conversation.send(text);
    if (n % 12 !== 5) continue;
    // To be cut while it is not connected is nothing.
    await reading.reached(n);
    await relay.cut();
  }
  await reading.ended;
  assert.deepEqual(reading.texts, wanted);
  assert.ok(relay.cuts >= 5);
  await relay.stop();
});

test("following begins with what comes, and ends with a signal or with the right to read", options, async () => {
  await shop.createConversation({ id: "ended", members: ["lea"] });
  const conversation = shop.conversation("ended");
  await conversation.send("before");
  const abort = new AbortController();
  const [items, others] = [{ signal: abort.signal }, {}].map((more) => of("lea").conversation("ended").follow(more));
  assert.ok(items && others);
  const firsts = Promise.all([items.next(), others.next()]);
  // Each begins where the log ends when it asks, so somebody has to go on talking until both have heard something.
  let isHeard = false;
  void firsts.finally(() => {
    isHeard = true;
  });
  while (!isHeard) await conversation.send("now");
  for (const { value } of await firsts) assert.equal(value?.type === "event" && textOf(value.event), "now");
  const waiting = items.next();
  abort.abort();
  await waiting;
  assert.equal((await items.next()).done, true);
  await conversation.removeMember("lea");
  await assert.rejects(async () => {
    for await (const _ of others);
  }, refusedAs("removed"));
});

test("a position of another epoch is a reset, and events begin anew", options, async () => {
  await shop.createConversation({ id: "anew" });
  const conversation = shop.conversation("anew");
  const { epoch } = await conversation.send("kept");
  const items = conversation.follow({ after: { epoch: epoch + 1, seq: 1 } });
  assert.deepEqual((await items.next()).value, { type: "reset", reason: "epochChanged", floor: 1 });
  const { value } = await items.next();
  assert.equal(value?.type === "event" && value.event.seq, 1);
  await items.return();
});

test("a ticket reads one log, and no other", options, async () => {
  await shop.createConversation({ id: "shown" });
  const conversation = shop.conversation("shown");
  const { seq, epoch } = await conversation.send("first");
  await conversation.send("second");
  const { ticket, url } = await conversation.ticket();
  const response = await fetch(`${url}&after=${epoch}-${seq}`);
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const reader = response.body?.getReader();
  assert.match(new TextDecoder().decode((await reader?.read())?.value), /"text":"second"/);
  await reader?.cancel();
  const other = await fetch(url.replace("c%3Ashown", "c%3Aorder-1"));
  assert.deepEqual([other.status, (await other.json()).code], [403, "forbidden"]);
  assert.ok(ticket.length > 0);
});

test("the lines of the README are a back end", { ...options, timeout: 30_000 }, async () => {
  const SERVICE_TOKEN = await broker.mint("shop", ALL, SERVICE);
  const env = { ...process.env, CHAT_URL: broker.url, SERVICE_TOKEN };
  const child = spawn(process.execPath, [readmeFile("js", "service.mjs")], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ann = of("ann").conversation("order-17");
  for (let isThere = false; !isThere; ) {
    isThere = await ann.messages().then(
      ({ messages }) => messages.length > 0,
      () => false,
    );
  }
  await ann.send("thank you");
  let said = "";
  for await (const chunk of child.stdout) said += chunk;
  if (child.exitCode === null) await once(child, "close");
  assert.deepEqual([child.exitCode, said], [0, "ann: thank you\n"]);
});
