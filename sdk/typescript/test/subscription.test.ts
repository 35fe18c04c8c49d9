/** One followed log: hand-over, gaps, BEHIND, resets, the end. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { brief, event, Harness, refusal, row } from "./harness.js";

function page(id: number, rows: number[], more: object = {}) {
  return { op: "PAGE", id, next: 0, head: 100, floor: 1, epoch: 1, rows: rows.map((seq) => row(seq)), ...more };
}

/** A client that follows c:lobby from position 10 on. */
function following(): Harness {
  const harness = new Harness();
  harness.connect();
  harness.subscribe(1, "c:lobby", { live_from: 11, head: 10 });
  for (const seq of [11, 12]) harness.frame(event(5, seq));
  assert.deepEqual(brief(harness.items(1)), ["attached", 11, 12]);
  harness.take();
  return harness;
}

test("live events come once and in order, and old ones are dropped", () => {
  const harness = following();
  for (const seq of [12, 11, 13]) harness.frame(event(5, seq));
  harness.frame({ op: "SKIP", handle: 5, from: 14, to: 20 }).frame(event(5, 21));
  assert.deepEqual(brief(harness.items(1)), [13, "skip 14-20", 21]);
  assert.equal(harness.written().length, 0);
});

test("a gap: unsubscribe, and subscribe again after the last position", () => {
  const harness = following();
  harness.frame(event(5, 14));
  assert.equal(harness.one("UNSUBSCRIBE").handle, 5);
  assert.deepEqual(brief(harness.items(1)), []);
  // What the old handle still brings is nobody's.
  harness.frame(event(5, 15)).frame({ op: "DETACH", handle: 5 });
  const subscribe = harness.attach({ handle: 6, live_from: 15, replay_from: 13, inlined: true });
  assert.equal(subscribe.after, "1-12");
  for (const seq of [13, 14, 15]) harness.frame(event(6, seq));
  assert.deepEqual(brief(harness.items(1)), ["attached", 13, 14, 15]);
});

test("a gap in a SKIP is a gap", () => {
  const harness = following();
  harness.frame({ op: "SKIP", handle: 5, from: 14, to: 20 });
  assert.equal(harness.one("SUBSCRIBE").after, "1-12");
});

test("a repair that brings nothing is repeated with growing waits", () => {
  const harness = following();
  harness.frame(event(5, 14));
  for (let round = 0; round < 6; round++) {
    harness.attach({ live_from: 13, replay_from: 13 });
    harness.frame(event(5, 20));
    for (const { id } of harness.written("UNSUBSCRIBE")) harness.frame({ op: "OK", id });
    const wait = harness.sleepToTimeout();
    assert.ok(wait >= 100 * 2 ** round && wait <= 200 * 2 ** round, `round ${round}: ${wait}`);
  }
  harness.attach({ live_from: 13, replay_from: 13 });
  harness.frame(event(5, 13));
  harness.frame(event(5, 15));
  assert.equal(harness.one("SUBSCRIBE").after, "1-13");
});

test("BEHIND: subscribe again after the last position", () => {
  const harness = following();
  harness.frame({ op: "BEHIND", handle: 5 });
  assert.equal(harness.written("UNSUBSCRIBE").length, 0);
  assert.equal(harness.attach({ live_from: 13 }).after, "1-12");
  harness.frame(event(5, 13));
  assert.deepEqual(brief(harness.items(1)), ["attached", 13]);
});

test("a lost connection: subscribe again after the last position", () => {
  const harness = following();
  harness.sleep(20_000);
  harness.reconnect({ resumed: true });
  assert.equal(harness.one("SUBSCRIBE").after, "1-12");
});

test("owed rows are pulled page by page while live events are held", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "subscribe", id: 1, log: "c:lobby", from: { at: "last", count: 5 } });
  harness.attach({ live_from: 11, replay_from: 6, head: 10 });
  const first = harness.one("FETCH");
  assert.deepEqual([first.from, first.to, first.backward, first.view], [6, 11, undefined, undefined]);
  harness.frame(event(5, 11)).frame(event(5, 12));
  assert.deepEqual(brief(harness.items(1)), ["attached"]);
  harness.frame(page(first.id, [6, 7], { next: 8 }));
  const second = harness.one("FETCH");
  assert.deepEqual([second.from, second.to], [8, 11]);
  harness.frame(event(5, 13));
  harness.frame(page(second.id, [8, 9, 10]));
  assert.deepEqual(brief(harness.items(1)), [6, 7, 8, 9, 10, 11, 12, 13]);
  harness.frame(event(5, 14));
  assert.deepEqual(brief(harness.items(1)), [14]);
});

test("256 live events are held; one more drops them, and the log is subscribed again after the pull", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "subscribe", id: 1, log: "c:lobby", from: { at: "start" } });
  assert.equal(harness.attach({ live_from: 3, replay_from: 1 }).last, 0xffff_ffff);
  const fetch = harness.one("FETCH");
  for (let seq = 3; seq < 3 + 256; seq++) harness.frame(event(5, seq));
  assert.equal(harness.written("UNSUBSCRIBE").length, 0);
  harness.frame(event(5, 259));
  assert.equal(harness.one("UNSUBSCRIBE").handle, 5);
  harness.frame(page(fetch.id, [1, 2]));
  assert.deepEqual(brief(harness.items(1)), ["attached", 1, 2]);
  assert.equal(harness.one("SUBSCRIBE").after, "1-2");
});

test("a page that begins later than it was asked for is a reset", () => {
  const harness = following();
  harness.frame({ op: "BEHIND", handle: 5 });
  harness.attach({ live_from: 20, replay_from: 13 });
  harness.frame(page(harness.one("FETCH").id, [17, 18, 19], { floor: 17 }));
  assert.deepEqual(brief(harness.items(1)), ["attached", "reset historyGone 1-16", 17, 18, 19]);
});

test("an epoch that changed resets, and what was known is not asked for again", () => {
  const harness = following();
  harness.frame({ op: "BEHIND", handle: 5 });
  harness.attach({ epoch: 2, reset: "epoch_changed", live_from: 4, replay_from: 1, floor: 1, inlined: true });
  for (const seq of [1, 2, 3]) harness.frame(event(5, seq));
  assert.deepEqual(brief(harness.items(1)), ["attached", "reset epochChanged 2-0", 1, 2, 3]);
  harness.frame({ op: "BEHIND", handle: 5 });
  assert.equal(harness.one("SUBSCRIBE").after, "2-3");
});

test("history that is gone resets; so does what the broker does not call a reset", () => {
  for (const reset of [{ reset: "history_gone" }, { reset: 2 }, {}]) {
    const harness = following();
    harness.frame({ op: "BEHIND", handle: 5 });
    harness.attach({ ...reset, live_from: 31, replay_from: 30, floor: 30, inlined: true });
    harness.frame(event(5, 30));
    assert.deepEqual(brief(harness.items(1)), ["attached", "reset historyGone 1-29", 30]);
  }
});

test("whoever is removed gets the last event, then the end", () => {
  const harness = following();
  harness.frame(event(5, 13, { kind: "member", text: undefined, body: { change: "removed", members: [] } }));
  harness.frame({ op: "DETACH", handle: 5, reason: "removed", seq: 13 });
  assert.deepEqual(brief(harness.items(1)), [13, "detached removed"]);
  harness.sleep(20_000);
  harness.reconnect();
  assert.equal(harness.written("SUBSCRIBE").length, 0);
});

test("whoever is removed during a pull still gets what came live", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "subscribe", id: 1, log: "c:lobby", from: { at: "start" } });
  harness.attach({ live_from: 3, replay_from: 1 });
  const fetch = harness.one("FETCH");
  harness.frame(event(5, 3)).frame({ op: "DETACH", handle: 5, reason: "removed", seq: 3 });
  harness.frame(refusal(fetch.id, 4002, "removed", { removed_at: 3 }));
  assert.deepEqual(brief(harness.items(1)), ["attached", "skip 1-2", 3, "detached removed"]);
});

test("a refused subscription ends, unless it is refused for a while", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "subscribe", id: 1, log: "c:a", from: { at: "tail" } });
  harness.frame(refusal(harness.one("SUBSCRIBE").id, 1001, "overloaded", { retry_after_ms: 3_000 }));
  harness.sleep(2_999);
  assert.equal(harness.written().length, 0);
  harness.sleep(1);
  harness.frame(refusal(harness.one("SUBSCRIBE").id, 4004, "not_found"));
  assert.deepEqual(brief(harness.items(1)), ["detached refused"]);
});

test("a log that is left while its SUBSCRIBE is unanswered is let go of, and can be followed again", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "subscribe", id: 1, log: "c:a", from: { at: "tail" } });
  const first = harness.one("SUBSCRIBE");
  harness.command({ type: "unsubscribe", id: 1 });
  harness.command({ type: "subscribe", id: 2, log: "c:a", from: { at: "tail" } });
  assert.equal(harness.written().length, 0);
  harness.frame({ op: "ATTACH", id: first.id, handle: 5, log: "c:a", epoch: 1, live_from: 1, replay_from: 1 });
  assert.equal(harness.one("UNSUBSCRIBE").handle, 5);
  harness.attach({ handle: 5 });
  harness.frame(event(5, 1));
  assert.deepEqual(brief(harness.items(1)), ["detached unsubscribed"]);
  assert.deepEqual(brief(harness.items(2)), ["attached", 1]);
});

test("a log is followed once", () => {
  const harness = following();
  harness.command({ type: "subscribe", id: 2, log: "c:lobby", from: { at: "tail" } });
  assert.deepEqual(brief(harness.items(2)), ["detached alreadySubscribed"]);
});

test("at most four pages are in flight", () => {
  const harness = new Harness();
  harness.connect();
  for (let id = 1; id <= 6; id++) {
    harness.command({ type: "fetchMessages", id, range: { log: "c:a", from: 0, to: 0, limit: 10, backward: true } });
  }
  const [first, ...rest] = harness.written("FETCH");
  assert.equal(rest.length, 3);
  assert.equal(first?.view, "messages");
  harness.frame({ op: "MESSAGES_PAGE", id: first?.id, head: 3, floor: 1, epoch: 1, messages: [{ row: row(3) }] });
  assert.equal(harness.written("FETCH").length, 1);
  const [answer] = harness.of("messages");
  assert.ok(answer && "value" in answer.result && answer.result.value.messages[0]?.event.seq === 3);
});

test("a page is asked for again after a lost connection, and when it is refused for a while", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "fetch", id: 1, range: { log: "c:a", from: 4, to: 0, limit: 0, backward: false } });
  harness.one("FETCH");
  harness.sleep(20_000);
  harness.reconnect();
  const again = harness.one("FETCH");
  assert.equal(again.from, 4);
  harness.frame(refusal(again.id, 1006, "rate_limited")).sleep(500);
  harness.frame(page(harness.one("FETCH").id, [4, 5]));
  const [answer] = harness.of("page");
  assert.ok(answer && "value" in answer.result && answer.result.value.events.length === 2);
});
