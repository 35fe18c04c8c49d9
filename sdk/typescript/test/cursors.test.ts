/** Cursors, signals, presence and plain requests. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionLostError, LimitError, NotConnectedError, RefusedError } from "../src/core/error.js";
import { event, Harness, refusal } from "./harness.js";

function cursor(harness: Harness, read: number, delivered = 0): void {
  harness.command({ type: "cursor", log: "c:a", delivered, read });
}

test("cursors are merged, never go back, and are sent at most once a second", () => {
  const harness = new Harness();
  harness.connect();
  for (const read of [3, 5, 4, 9]) cursor(harness, read);
  const first = harness.one("CURSOR");
  assert.deepEqual([first.delivered, first.read], [3, 3]);
  harness.sleep(999);
  assert.equal(harness.written("CURSOR").length, 0);
  harness.sleep(1);
  assert.equal(harness.one("CURSOR").read, 9);
  cursor(harness, 8);
  harness.sleep(10_000);
  assert.equal(harness.written("CURSOR").length, 0);
});

test("what the broker knows by itself is not told to it", () => {
  const harness = new Harness();
  harness.connect();
  harness.subscribe(1, "c:a");
  harness.frame(event(5, 1, { sender: "ann" }));
  cursor(harness, 1);
  harness.frame({ op: "CURSORS", handle: 5, user: "ann", delivered: 4, read: 4 });
  cursor(harness, 4);
  assert.equal(harness.written("CURSOR").length, 0);
});

test("after a reconnect a moved cursor is restated once the log is attached, unless its epoch changed", () => {
  const harness = new Harness();
  harness.connect();
  harness.subscribe(1, "c:a", { live_from: 10 });
  cursor(harness, 7);
  harness.sleep(20_000);
  harness.reconnect();
  assert.equal(harness.written("CURSOR").length, 0);
  harness.attach({ live_from: 10 });
  assert.equal(harness.one("CURSOR").read, 7);
  harness.sleep(20_000);
  harness.reconnect();
  harness.attach({ epoch: 2, reset: "epoch_changed", live_from: 3, replay_from: 1, inlined: true });
  harness.sleep(10_000);
  assert.equal(harness.written("CURSOR").length, 0);
});

test("a cursor that is refused for a while is sent again; one that is refused is forgotten", () => {
  const harness = new Harness();
  harness.connect();
  cursor(harness, 3);
  harness.frame(refusal(harness.one("CURSOR").id, 1001, "overloaded", { retry_after_ms: 4_000 }));
  harness.sleep(3_999);
  assert.equal(harness.written("CURSOR").length, 0);
  harness.sleep(1);
  harness.frame(refusal(harness.one("CURSOR").id, 3005, "invalid_field"));
  harness.sleep(20_000);
  harness.reconnect();
  assert.equal(harness.written("CURSOR").length, 0);
});

test("a signal is written now, or fails now", () => {
  const harness = new Harness();
  const signal = (id: number, bytes: number) =>
    harness.command({ type: "signal", id, log: "c:a", kind: "typing", data: new Uint8Array(bytes), ttlMs: 0 });
  harness.connect();
  signal(2, 1_025);
  signal(3, 2);
  const results = harness.of("done").map(({ result }) => ("error" in result ? result.error.constructor : "done"));
  assert.deepEqual(results, [LimitError, "done"]);
  const [written] = harness.written("SIGNAL");
  assert.deepEqual(written, { op: "SIGNAL", log: "c:a", kind: "typing", data: "AAA" });
  const early = new Harness();
  early.command({ type: "signal", id: 1, log: "c:a", kind: "typing", data: new Uint8Array(), ttlMs: 0 });
  const [failed] = early.of("done");
  assert.ok(failed && "error" in failed.result && failed.result.error instanceof NotConnectedError);
});

test("signals and cursors of others reach the subscription", () => {
  const harness = new Harness();
  harness.connect();
  harness.subscribe(1, "c:a");
  harness.frame({ op: "SIGNALED", handle: 5, user: "bob", kind: "typing", data: "AAE", ttl_ms: 6_000 });
  harness.frame({ op: "CURSORS", handle: 5, user: "bob", delivered: 2, read: 1, read_msgno: 1 });
  const [, signal, moved] = harness.items(1);
  assert.ok(signal?.type === "signal" && signal.signal.data.length === 2);
  assert.deepEqual(moved, { type: "cursor", cursor: { user: "bob", delivered: 2, read: 1, readMsgno: 1 } });
});

test("watched users are told to each session, and only they are shown", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "watchPresence", id: 1, users: new Set(["bob"]) });
  const subscribe = harness.one("PRESENCE_SUBSCRIBE");
  assert.deepEqual(subscribe.users, ["bob"]);
  harness.command({ type: "watchPresence", id: 2, users: new Set(["bob", "eve"]) });
  assert.equal(harness.written("PRESENCE_SUBSCRIBE").length, 0);
  harness.frame({ op: "OK", id: subscribe.id });
  assert.equal(harness.of("done").length, 0);
  harness.frame({ op: "OK", id: harness.one("PRESENCE_SUBSCRIBE").id });
  assert.deepEqual(
    harness.of("done").map(({ id }) => id),
    [1, 2],
  );
  harness.frame({ op: "PRESENCE", user: "bob", status: "away", text: "tea" });
  harness.frame({ op: "PRESENCE", user: "eve" }).frame({ op: "PRESENCE", user: "eve", status: 9 });
  harness.frame({ op: "PRESENCE", user: "zoe", status: "online" });
  assert.deepEqual(
    harness.of("presence").map(({ presence }) => [presence.user, presence.status, presence.text]),
    [
      ["bob", "away", "tea"],
      ["eve", "offline", ""],
      ["eve", "online", ""],
    ],
  );
  harness.sleep(20_000);
  harness.reconnect();
  assert.deepEqual(harness.one("PRESENCE_SUBSCRIBE").users, ["bob", "eve"]);
});

test("a request whose answer was lost fails, unless it only reads", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "request", id: 1, request: { op: "JOIN", conversation: "a" } });
  harness.command({ type: "request", id: 2, request: { op: "CONVERSATION_GET", conversation: "a" } });
  harness.sleep(20_000);
  harness.written();
  harness.input({ type: "disconnected", cause: "lost" });
  const [failed] = harness.of("answer");
  assert.ok(failed?.id === 1 && "error" in failed.result && failed.result.error instanceof ConnectionLostError);
  while (harness.of("connect").length === 0) harness.sleepToTimeout();
  harness.input({ type: "connected" });
  harness.greet();
  assert.deepEqual(
    harness.written().map(({ op }) => op),
    ["CONVERSATION_GET"],
  );
});

test("a request is sent six times at most, and not again if it may have taken effect", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "request", id: 1, request: { op: "JOIN", conversation: "a" } });
  for (let attempt = 1; attempt <= 6; attempt++) {
    assert.equal(harness.of("answer").length, 0);
    harness.frame(refusal(harness.one("JOIN").id, 1001, "overloaded"));
    if (attempt < 6) harness.sleepToTimeout();
  }
  const [answer] = harness.of("answer");
  assert.ok(answer && "error" in answer.result && answer.result.error instanceof RefusedError);
  harness.command({ type: "request", id: 2, request: { op: "JOIN", conversation: "b" } });
  harness.frame(refusal(harness.one("JOIN").id, 1004, "store_unavailable", { outcome: "unknown" }));
  assert.equal(harness.of("answer").length, 1);
});

test("a digest is told as it comes", () => {
  const harness = new Harness();
  harness.connect();
  harness.frame({ op: "HEAD", log: "c:a", epoch: 1, seq: 4, msgno: 3, last: { seq: 4, sender: "bob", text: "hi" } });
  const [{ digest } = { digest: undefined }] = harness.of("digest");
  assert.equal(digest?.last?.content.type, "text");
  assert.deepEqual(digest?.head, { epoch: 1, seq: 4 });
});
