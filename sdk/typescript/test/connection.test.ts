/** Token, handshake, GOAWAY, RESUME, errors of the connection, reconnecting. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { RefusedError } from "../src/core/error.js";
import type { ConnectionState } from "../src/core/output.js";
import { Harness, refusal, SERVER_TIME_MS } from "./harness.js";

function states(harness: Harness): ConnectionState["is"][] {
  return harness.of("state").map(({ state }) => state.is);
}

test("a client asks for a token, connects, greets and is ready", () => {
  const harness = new Harness();
  assert.equal(harness.of("needToken").length, 1);
  assert.equal(harness.written().length, 0);
  harness.input({ type: "token", token: "a.b.c" }).input({ type: "connected" });
  const hello = harness.greet();
  assert.deepEqual(hello.versions, [1]);
  assert.equal(hello.token, "a.b.c");
  assert.equal(hello.device, "tab");
  assert.equal(hello.attempt, 1);
  assert.equal(hello.follow_mine, true);
  assert.equal(hello.resume_token, undefined);
  assert.match(hello.sender_instance ?? "", /^[\da-f]{8}-[\da-f]{4}-4/);
  assert.deepEqual(states(harness), ["connecting", "connecting", "ready"]);
});

test("after a lost connection the next HELLO offers the newest resume token and the next attempt", () => {
  const harness = new Harness();
  const first = harness.connect();
  harness.sleep(20_000);
  const second = harness.reconnect();
  assert.equal(second.resume_token, "resume-1");
  assert.equal(second.attempt, 2);
  assert.equal(second.sender_instance, first.sender_instance);
  assert.equal(harness.reconnect().resume_token, "resume-2");
});

test("the first attempt after a stable connection lies within the broker's jitter, further ones back off", () => {
  const waits: number[] = [];
  for (let seed = 1; seed <= 30; seed++) {
    const harness = new Harness(seed);
    harness.connect();
    harness.sleep(20_000);
    harness.input({ type: "disconnected", cause: "lost" });
    waits.push(harness.sleepToTimeout());
    assert.equal(harness.of("connect").length, 1);
    for (let attempt = 1; attempt < 12; attempt++) {
      harness.input({ type: "disconnected", cause: "refused" });
      const wait = harness.sleepToTimeout();
      const whole = Math.min(200 * 2 ** attempt, 30_000);
      assert.ok(wait >= whole / 2 && wait <= whole + 2_000, `attempt ${attempt}: ${wait}`);
    }
  }
  assert.ok(Math.max(...waits) <= 2_000);
  assert.ok(Math.max(...waits) - Math.min(...waits) > 500, "the waits are spread");
});

test("RESUME: HELLO again on the same socket, after a part of the jitter", () => {
  const harness = new Harness();
  harness.connect();
  harness.subscribe(1, "c:lobby");
  harness.command({ type: "send", id: 2, message: { log: "c:lobby", kind: "message", content: { text: "a" } } });
  const [sent] = harness.written("SEND");
  harness.take();
  harness.frame({ op: "RESUME", jitter_ms: 1_000 });
  assert.equal(harness.of("close").length, 0);
  // What still comes on the socket is of the connection that is over.
  harness.ack(sent?.id ?? 0, 1);
  assert.deepEqual(harness.sendStates(2), []);
  assert.ok(harness.sleepToTimeout() <= 1_000);
  assert.equal(harness.of("connect").length, 0);
  const hello = harness.greet({ resumed: true });
  assert.equal(hello.attempt, 2);
  assert.equal(hello.resume_token, "resume-1");
  assert.equal(harness.one("SUBSCRIBE").after, "1-0");
  assert.equal(harness.one("SEND").client_message_id, sent?.client_message_id);
});

test("a socket that ends while RESUME waits is made anew", () => {
  const harness = new Harness();
  harness.connect();
  harness.frame({ op: "RESUME", jitter_ms: 1_000 }).input({ type: "disconnected", cause: "gone", closeCode: 1001 });
  harness.take();
  harness.sleep(1_000);
  assert.equal(harness.connect().attempt, 2);
});

test("RESUME with a token that has ended asks for another before HELLO", () => {
  const harness = new Harness();
  harness.connect({ expires_at_ms: SERVER_TIME_MS + 30_000 });
  harness.sleep(29_999);
  harness.frame({ op: "RESUME", jitter_ms: 5_000 });
  harness.take();
  harness.sleep(5_000);
  assert.equal(harness.written().length, 0);
  harness.input({ type: "token", token: "d.e.f" });
  assert.equal(harness.of("connect").length, 0);
  assert.equal(harness.greet().token, "d.e.f");
});

test("GOAWAY: no new requests, the last answers are taken, then connect again", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "request", id: 1, request: { op: "SYNC" } });
  const sync = harness.one("SYNC");
  harness.take();
  harness.frame({ op: "GOAWAY", code: 1005, deadline_ms: 5_000, jitter_ms: 3_000 });
  harness.command({ type: "request", id: 2, request: { op: "SYNC" } });
  assert.equal(harness.written().length, 0);
  harness.frame({ op: "OK", id: sync.id, to: "SYNC", next: "x" });
  const [answer] = harness.of("answer");
  assert.ok(answer && "value" in answer.result);
  assert.equal(harness.of("close").length, 1);
  harness.take();
  harness.sleep(3_000);
  harness.connect();
  assert.equal(harness.one("SYNC").op, "SYNC");
});

test("GOAWAY: an answer that does not come is waited for until the deadline only", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "request", id: 1, request: { op: "SYNC" } });
  harness.frame({ op: "GOAWAY", deadline_ms: 5_000, jitter_ms: 0 });
  harness.sleep(4_999);
  assert.equal(harness.of("close").length, 0);
  harness.sleep(1);
  assert.equal(harness.of("close").length, 1);
});

for (const [closeCode, number] of [
  [4006, 1006],
  [4101, 2001],
  [4204, 3004],
  [4241, 4001],
  [4273, 5003],
] as const) {
  test(`close code ${closeCode} stands for ${number}`, () => {
    assert.equal(RefusedError.fromCloseCode(closeCode, "")?.number, number);
  });
}

test("close codes of the transport stand for nothing", () => {
  for (const code of [1000, 1001, 1006, 3999, 4300]) assert.equal(RefusedError.fromCloseCode(code, ""), undefined);
});

test("replaced stops the client, by ERROR and by close code", () => {
  for (const end of [
    (harness: Harness) => harness.frame(refusal(0, 5003, "replaced")),
    (harness: Harness) => harness.input({ type: "disconnected", cause: "", closeCode: 4273 }),
  ]) {
    const harness = new Harness();
    harness.connect();
    harness.command({ type: "send", id: 1, message: { log: "c:a", kind: "message", content: { text: "x" } } });
    harness.command({ type: "subscribe", id: 2, log: "c:a", from: { at: "tail" } });
    harness.command({ type: "fetch", id: 3, range: { log: "c:a", from: 0, to: 0, limit: 0, backward: false } });
    harness.command({ type: "request", id: 4, request: { op: "SYNC" } });
    end(harness);
    assert.ok(harness.core.isStopped);
    assert.equal(harness.sendStates(1).at(-1)?.is, "failed");
    assert.deepEqual(
      harness.items(2).map((item) => item.type),
      ["detached"],
    );
    assert.ok("error" in (harness.of("page")[0]?.result ?? {}));
    assert.ok("error" in (harness.of("answer")[0]?.result ?? {}));
    assert.equal(harness.core.pollTimeout(), undefined);
    harness.command({ type: "request", id: 5, request: { op: "SYNC" } });
    assert.ok("error" in (harness.of("answer")[0]?.result ?? {}));
    assert.equal(harness.of("connect").length, 0);
  }
});

test("a refusal for a while is waited out at least as long as the broker says", () => {
  const harness = new Harness();
  harness.connect();
  harness.frame(refusal(0, 1001, "overloaded", { retry_after_ms: 9_000 }));
  assert.equal(harness.of("close").length, 1);
  assert.ok(harness.sleepToTimeout() >= 9_000);
  assert.equal(harness.of("connect").length, 1);
});

test("a refused HELLO with a bad token asks for another; the very same one stops", () => {
  const harness = new Harness();
  harness.input({ type: "token", token: "old" }).input({ type: "connected" });
  harness.take();
  harness.frame(refusal(0, 2002, "token_expired"));
  harness.sleep(3_000);
  assert.equal(harness.of("needToken").length, 1);
  harness.take();
  const other = new Harness();
  other.input({ type: "token", token: "old" }).input({ type: "connected" });
  other
    .frame(refusal(0, 2002, "token_expired"))
    .sleep(3_000)
    .input({ type: "token", token: "old" });
  assert.ok(other.core.isStopped);
  harness.input({ type: "token", token: "new" });
  assert.equal(harness.of("connect").length, 1);
});

test("a token is renewed a minute before it ends, by AUTH on the running session", () => {
  const harness = new Harness();
  harness.connect({ expires_at_ms: SERVER_TIME_MS + 600_000 });
  harness.sleep(539_999);
  assert.equal(harness.of("needToken").length, 0);
  harness.sleep(1);
  assert.equal(harness.of("needToken").length, 1);
  harness.input({ type: "token", token: "newer" });
  const auth = harness.one("AUTH");
  assert.equal(auth.token, "newer");
  harness.frame({ op: "OK", id: auth.id, to: "AUTH", expires_at_ms: SERVER_TIME_MS + 1_200_000 });
  harness.sleep(599_999);
  assert.equal(harness.of("needToken").length, 0);
  harness.sleep(2);
  assert.equal(harness.of("needToken").length, 1);
});

test("a short-lived token is renewed half-way", () => {
  const harness = new Harness();
  harness.connect({ expires_at_ms: SERVER_TIME_MS + 60_000 });
  harness.sleep(29_999);
  assert.equal(harness.of("needToken").length, 0);
  harness.sleep(1);
  assert.equal(harness.of("needToken").length, 1);
});

test("a request that is refused for the token's sake gets a new token, and is repeated", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "request", id: 1, request: { op: "SYNC" } });
  harness.frame(refusal(harness.one("SYNC").id, 2003, "token_revoked"));
  assert.equal(harness.of("needToken").length, 1);
  harness.input({ type: "token", token: "newer" });
  assert.equal(harness.one("AUTH").token, "newer");
  harness.sleep(1_000);
  assert.equal(harness.written("SYNC").length, 1);
});

test("a token provider that fails is asked again with growing waits", () => {
  const harness = new Harness();
  harness.take();
  const waits: number[] = [];
  for (let attempt = 0; attempt < 5; attempt++) {
    harness.input({ type: "tokenFailed", cause: "offline" });
    waits.push(harness.sleepToTimeout());
    assert.equal(harness.of("needToken").length, 1);
  }
  waits.forEach((wait, attempt) => {
    assert.ok(wait >= 100 * 2 ** attempt && wait <= 200 * 2 ** attempt, `${wait}`);
  });
});

test("a broker that does not answer HELLO in time is given up", () => {
  const harness = new Harness();
  harness.input({ type: "token", token: "t" });
  harness.take();
  harness.sleep(14_999);
  assert.equal(harness.of("close").length, 0);
  harness.sleep(1);
  assert.equal(harness.of("close").length, 1);
});

test("a broker that falls silent while an answer is awaited is given up; without one, silence is fine", () => {
  const harness = new Harness();
  harness.connect();
  harness.sleep(600_000);
  assert.equal(harness.of("close").length, 0);
  harness.command({ type: "request", id: 1, request: { op: "SYNC" } });
  harness.sleep(59_000);
  harness.frame({ op: "PRESENCE", user: "bob" });
  harness.sleep(59_000);
  assert.equal(harness.of("close").length, 0);
  harness.sleep(1_000);
  assert.equal(harness.of("close").length, 1);
});

test("a check finds a dead connection within seconds, and begins a waiting attempt at once", () => {
  const harness = new Harness();
  harness.connect();
  harness.input({ type: "check" });
  const probe = harness.one("UNSUBSCRIBE");
  harness.frame({ op: "OK", id: probe.id }).sleep(30_000);
  assert.equal(harness.of("close").length, 0);
  harness.input({ type: "check" }).sleep(5_000);
  assert.equal(harness.of("close").length, 1);
  harness.of("connect");
  const lost = new Harness();
  lost.connect();
  lost.input({ type: "disconnected", cause: "lost" }).input({ type: "check" });
  assert.equal(lost.of("connect").length, 1);
  const told = new Harness();
  told.connect();
  told.frame({ op: "RESUME", jitter_ms: 60_000 });
  told.take();
  told.input({ type: "check" });
  assert.equal(told.written().length, 0);
});

test("close says BYE and waits for its answer, but not for long", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "close" });
  harness.frame({ op: "OK", id: harness.one("BYE").id });
  assert.deepEqual(harness.of("state").at(-1)?.state, { is: "stopped", reason: { why: "closed" } });
  const unheard = new Harness();
  unheard.connect();
  unheard.command({ type: "close" }).sleep(1_000);
  assert.ok(unheard.core.isStopped);
  const early = new Harness();
  early.command({ type: "close" });
  assert.ok(early.core.isStopped);
});

test("a frame that breaks the protocol ends the connection, not the client", () => {
  for (const frame of [
    { op: "ATTACH", id: 99, handle: 1, log: "c:a" },
    { op: "WELCOME", id: 1 },
  ]) {
    const harness = new Harness();
    harness.connect();
    harness.frame(frame);
    assert.equal(harness.of("close").length, 1, frame.op);
    assert.ok(!harness.core.isStopped);
    harness.sleep(5_000);
    harness.connect();
  }
});

test("a client of an unknown frame goes on", () => {
  const harness = new Harness();
  harness.connect();
  harness.frame({ op: "NEW_THING", id: 3, anything: [1] });
  assert.equal(harness.of("close").length, 0);
});
