/** The reader of JSON: lenient where answers are, and no further. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { toBase64Url } from "../src/bytes.js";
import { readEvent } from "../src/core/event.js";
import { Fault, readFrame, readRow } from "../src/json.js";
import { formatUuid, parseUuid, uuidV4, uuidV7 } from "../src/uuid.js";
import { json } from "../src/wire.js";
import { row } from "./harness.js";

test("what is left out has its default, what is not known is left aside", () => {
  const frame = readFrame({ op: "ATTACH", id: 3, handle: 7, log: "c:a", brand_new: { deep: [1] } });
  assert.ok(frame?.op === "ATTACH");
  assert.deepEqual([frame.epoch, frame.inlined, frame.cursors, frame.reset], [0, false, [], ""]);
  assert.ok(!("brand_new" in frame));
  assert.equal(readFrame({ op: "BRAND_NEW", id: 3 }), undefined);
});

test("a wrong type is a fault of the broker", () => {
  for (const frame of [
    [],
    "HELLO",
    null,
    { id: 1 },
    { op: 7 },
    { op: "EVENT", handle: 1, ...row(1), seq: "1" },
    { op: "EVENT", handle: 1, ...row(1), seq: 1.5 },
    { op: "EVENT", handle: 1, ...row(1), seq: -1 },
    { op: "EVENT", handle: 1, ...row(1), seq: 2 ** 53 },
    { op: "EVENT", handle: 1, ...row(1), mentions: "bob" },
    { op: "EVENT", handle: 1, ...row(1), relates_to: [] },
    { op: "ACK", id: 1, position: "1" },
    { op: "ACK", id: 1, position: "1-2-3" },
    { op: "PAGE", id: 1, rows: {} },
    { op: "OK", id: "1" },
  ]) {
    assert.throws(() => readFrame(frame), Fault, JSON.stringify(frame));
  }
});

test("content in all its forms", () => {
  const content = (members: object) => readEvent(1, readRow({ ...row(1), text: undefined, ...members })).content;
  assert.deepEqual(content({ text: "hi" }), { type: "text", text: "hi" });
  assert.deepEqual(content({}), { type: "text", text: "" });
  assert.deepEqual(content({ data: null }), { type: "json", data: null });
  assert.deepEqual(content({ body_b64: "AAE" }), {
    type: "bytes",
    contentType: "application/octet-stream",
    bytes: Uint8Array.of(0, 1),
  });
  assert.deepEqual(content({ content_type: "application/octet-stream" }), {
    type: "bytes",
    contentType: "application/octet-stream",
    bytes: new Uint8Array(),
  });
  assert.deepEqual(content({ body_b64: "ew", content_type: "application/json" }), {
    type: "bytes",
    contentType: "application/json",
    bytes: Uint8Array.of(0x7b),
  });
  assert.deepEqual(content({ kind: "block", body: { user: "eve", blocked: true } }), {
    type: "notice",
    notice: { type: "block", user: "eve", blocked: true },
  });
  assert.deepEqual(content({ kind: 99, body: { any: 1 } }), { type: "json", data: { any: 1 } });
  assert.throws(() => content({ body_b64: "!" }), Fault);
});

test("a message holds one frame a line", () => {
  const codec = json.open();
  assert.deepEqual(codec.decode('{"op":"A"}\n{"op":"B"}\n'), [{ op: "A" }, { op: "B" }]);
  assert.throws(() => codec.decode("{"));
  assert.throws(() => codec.decode(new ArrayBuffer(2)));
  assert.equal(codec.encode({ op: "AUTH", id: 1, token: "a\nb" }), '{"op":"AUTH","id":1,"token":"a\\nb"}');
});

test("UUIDs", () => {
  const ones = new Uint8Array(16).fill(0xff);
  assert.equal(uuidV7(1_731_000_000_000, ones), "019307a3-de00-7fff-bfff-ffffffffffff");
  assert.equal(uuidV4(ones), "ffffffff-ffff-4fff-bfff-ffffffffffff");
  assert.equal(formatUuid(parseUuid("0192f3a1-4c00-7abc-8def-0123456789ab")), "0192f3a1-4c00-7abc-8def-0123456789ab");
  assert.throws(() => parseUuid("0192f3a1"));
});

test("base64url has no padding and takes long input", () => {
  assert.equal(toBase64Url(Uint8Array.of(0xfb, 0xff, 0xfe)), "-__-");
  assert.equal(toBase64Url(new Uint8Array(65_536)).length, Math.ceil((65_536 * 4) / 3));
});
