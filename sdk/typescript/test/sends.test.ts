/** The outbox: order, retries, ids, batches, receipts. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { LimitError, RefusedError } from "../src/core/error.js";
import { newMessage } from "../src/core/newMessage.js";
import { event, Harness, refusal, SERVER_TIME_MS } from "./harness.js";

function send(harness: Harness, id: number, log = "c:a"): void {
  harness.command({ type: "send", id, message: newMessage(log, `text ${id}`) });
}

function sending(harness: Harness) {
  return harness
    .written("SEND")
    .map(({ id, text, dseq, client_message_id }) => ({ id, text, dseq, client_message_id }));
}

test("messages are written in order, with a UUIDv7 of the broker's clock and a dseq per log", () => {
  const harness = new Harness();
  harness.connect();
  harness.sleep(5_000);
  send(harness, 1);
  send(harness, 2);
  send(harness, 3, "c:b");
  const sent = sending(harness);
  assert.deepEqual(
    sent.map(({ text, dseq }) => [text, dseq]),
    [
      ["text 1", 1],
      ["text 2", 2],
      ["text 3", 1],
    ],
  );
  const id = sent[0]?.client_message_id ?? "";
  assert.match(id, /^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab]/);
  assert.equal(Number.parseInt(id.replace("-", "").slice(0, 12), 16), SERVER_TIME_MS + 5_000);
});

test("what is sent without a session waits for one, and gets its id then", () => {
  const harness = new Harness();
  send(harness, 1);
  assert.deepEqual(
    harness.sendStates(1).map(({ is }) => is),
    ["queued"],
  );
  harness.connect();
  assert.equal(sending(harness).length, 1);
  assert.deepEqual(
    harness.sendStates(1).map(({ is }) => is),
    ["sending"],
  );
});

test("an ACK says where the message is; delivered and read follow", () => {
  const harness = new Harness();
  harness.connect();
  harness.subscribe(9, "c:a");
  send(harness, 1);
  const [first] = sending(harness);
  harness.take();
  harness.ack(first?.id ?? 0, 4, { duplicate: true });
  const [sent] = harness.sendStates(1);
  assert.ok(sent?.is === "sent");
  assert.equal(sent.receipt.seq, 4);
  assert.equal(sent.receipt.duplicate, true);
  assert.equal(sent.receipt.clientMessageId, first?.client_message_id);
  harness.frame({ op: "CURSORS", handle: 5, user: "ann", delivered: 4, read: 4 });
  harness.frame({ op: "CURSORS", handle: 5, user: "bob", delivered: 4, read: 2 });
  harness.frame({ op: "CURSORS", handle: 5, user: "bob", delivered: 4, read: 4 });
  harness.frame({ op: "CURSORS", handle: 5, user: "eve", delivered: 4, read: 4 });
  assert.deepEqual(
    harness.sendStates(1).map(({ is }) => is),
    ["delivered", "read"],
  );
});

test("whoever answers with a message has read up to it", () => {
  const harness = new Harness();
  harness.connect();
  harness.subscribe(9, "c:a");
  send(harness, 1);
  harness.ack(sending(harness)[0]?.id ?? 0, 1);
  harness.frame(event(5, 1, { sender: "ann" })).frame(event(5, 2));
  assert.equal(harness.sendStates(1).at(-1)?.is, "read");
});

test("after a lost connection everything unacknowledged is sent again, in order, with its ids", () => {
  const harness = new Harness();
  harness.connect();
  for (let id = 1; id <= 4; id++) send(harness, id);
  const before = sending(harness);
  harness.ack(before[0]?.id ?? 0, 1);
  harness.sleep(20_000);
  harness.reconnect();
  const after = sending(harness);
  assert.deepEqual(
    after.map(({ client_message_id, dseq }) => [client_message_id, dseq]),
    before.slice(1).map(({ client_message_id, dseq }) => [client_message_id, dseq]),
  );
  send(harness, 5);
  assert.equal(sending(harness)[0]?.dseq, 5);
});

test("a refusal for a while stops the lane until all are answered, then all go again in order", () => {
  const harness = new Harness();
  harness.connect();
  for (let id = 1; id <= 3; id++) send(harness, id);
  const [first, second, third] = sending(harness);
  harness.frame(refusal(first?.id ?? 0, 1001, "overloaded", { retry_after_ms: 2_000 }));
  send(harness, 4);
  harness.frame(refusal(second?.id ?? 0, 1007, "out_of_order"));
  harness.sleep(2_000);
  assert.equal(sending(harness).length, 0, "the third one is not answered yet");
  harness.frame(refusal(third?.id ?? 0, 1007, "out_of_order"));
  assert.deepEqual(
    sending(harness).map(({ text, dseq }) => [text, dseq]),
    [
      ["text 1", 1],
      ["text 2", 2],
      ["text 3", 3],
      ["text 4", 4],
    ],
  );
});

test("other logs are not stopped by a refusal", () => {
  const harness = new Harness();
  harness.connect();
  send(harness, 1);
  harness.frame(refusal(sending(harness)[0]?.id ?? 0, 1001, "overloaded"));
  send(harness, 2, "c:b");
  assert.equal(sending(harness).length, 1);
});

test("waits grow with each refusal, and are short again after an ACK", () => {
  const harness = new Harness();
  harness.connect();
  send(harness, 1);
  for (let round = 0; round < 6; round++) {
    const [sent] = sending(harness);
    harness.frame(refusal(sent?.id ?? 0, 1001, "overloaded"));
    const wait = harness.sleepToTimeout();
    assert.ok(wait >= 100 * 2 ** round && wait <= 200 * 2 ** round, `round ${round}: ${wait}`);
  }
  harness.ack(sending(harness)[0]?.id ?? 0, 1);
  send(harness, 2);
  harness.frame(refusal(sending(harness)[0]?.id ?? 0, 1001, "overloaded"));
  assert.ok(harness.sleepToTimeout() <= 200);
});

test("a final refusal fails one message, and leaves no hole in what is sent again", () => {
  const harness = new Harness();
  harness.connect();
  for (let id = 1; id <= 3; id++) send(harness, id);
  const [, second] = sending(harness);
  harness.frame(refusal(second?.id ?? 0, 3012, "invalid_relation"));
  const [failed] = harness.sendStates(2).filter(({ is }) => is === "failed");
  assert.ok(failed?.is === "failed" && failed.error instanceof RefusedError && !failed.error.outcomeUnknown);
  harness.sleep(20_000);
  harness.reconnect();
  assert.deepEqual(
    sending(harness).map(({ text, dseq }) => [text, dseq]),
    [
      ["text 1", 1],
      ["text 3", 2],
    ],
  );
});

test("a final refusal of what may have been stored before says that it may have been", () => {
  const harness = new Harness();
  harness.connect();
  send(harness, 1);
  harness.sleep(20_000);
  harness.reconnect();
  harness.frame(refusal(sending(harness).at(-1)?.id ?? 0, 3009, "dedupe_expired"));
  const failed = harness.sendStates(1).at(-1);
  assert.ok(failed?.is === "failed" && failed.error instanceof RefusedError && failed.error.outcomeUnknown);
});

test("a broker that keeps refusing the oldest as out of order gets a new connection", () => {
  const harness = new Harness();
  harness.connect();
  send(harness, 1);
  for (let round = 0; round < 4; round++) {
    assert.equal(harness.of("close").length, 0);
    harness.frame(refusal(sending(harness)[0]?.id ?? 0, 1007, "out_of_order"));
    if (round < 3) harness.sleepToTimeout();
  }
  assert.equal(harness.of("close").length, 1);
});

test("what an earlier process left is sent with the id that it had", () => {
  const harness = new Harness();
  const clientMessageId = "0192f3a1-4c00-7abc-8def-0123456789ab";
  harness.command({ type: "send", id: 1, message: { ...newMessage("c:a", "x"), clientMessageId } });
  harness.connect();
  assert.equal(sending(harness)[0]?.client_message_id, clientMessageId);
});

test("a batch is written together where the broker takes batches, and each message has a fate of its own", () => {
  const harness = new Harness();
  harness.connect({ capabilities: ["batch"] });
  const messages = [1, 2, 3].map((id) => ({ id, message: newMessage("c:a", `text ${id}`) }));
  harness.command({ type: "sendBatch", messages });
  const batch = harness.one("SEND_BATCH");
  assert.deepEqual(
    batch.records.map(({ dseq }) => dseq),
    [1, undefined, undefined],
  );
  const ack = { position: "1-1", event_id: "x", msgno: 1, time_ms: 1 };
  const [failed, waits] = [
    { error: { number: 3012, code: "invalid_relation" } },
    { error: { number: 1008, code: "not_applied" } },
  ];
  harness.frame({ op: "BATCH_ACK", id: batch.id, results: [ack, failed, waits] });
  assert.equal(harness.sendStates(1).at(-1)?.is, "sent");
  assert.equal(harness.sendStates(2).at(-1)?.is, "failed");
  harness.sleep(1_000);
  assert.deepEqual(
    sending(harness).map(({ text }) => text),
    ["text 3"],
  );
});

test("without the capability a batch is written one by one", () => {
  const harness = new Harness();
  harness.connect();
  harness.command({ type: "sendBatch", messages: [1, 2].map((id) => ({ id, message: newMessage("c:a", "x") })) });
  assert.equal(sending(harness).length, 2);
});

test("what exceeds a limit fails at once", () => {
  const harness = new Harness();
  harness.command({ type: "send", id: 1, message: newMessage("c:a", "ü".repeat(32_769)) });
  const [state] = harness.sendStates(1);
  assert.ok(state?.is === "failed" && state.error instanceof LimitError);
  for (let id = 2; id <= 4_097; id++) send(harness, id);
  harness.take();
  send(harness, 5_000);
  const [full] = harness.sendStates(5_000);
  assert.ok(full?.is === "failed" && full.error instanceof LimitError);
});

test("content that is sent: text, data, bytes, attributes", () => {
  const replyTo = { seq: 3, eventId: "01900000-0000-7000-8000-000000000001" };
  const shared: { at?: Date; later?: number } = { at: new Date(0) };
  const message = newMessage("c:a", { data: shared, replyTo, mentions: ["bob"] });
  // Later changes of the object do not change what is sent again.
  shared.later = 1;
  assert.deepEqual(message.content, {
    data: { at: "1970-01-01T00:00:00.000Z" },
    reply_to: { seq: 3, event_id: replyTo.eventId },
    mentions: ["bob"],
  });
  assert.deepEqual(newMessage("c:a", { bytes: Uint8Array.of(0xfb, 0xff) }).content, { body_b64: "-_8" });
  assert.deepEqual(newMessage("c:a", "a\ud800b\ud83d\ude00").content, { text: "a\ufffdb\ud83d\ude00" });
  assert.deepEqual(newMessage("c:a", "").content, {});
});
