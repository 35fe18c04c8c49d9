/** The binary codec against the vectors of the protocol. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { contentMembers } from "../src/binary/content.js";
import { readEnvelope, writeEnvelope } from "../src/binary/envelope.js";
import { decodeFrames, encodeFrame } from "../src/binary/frame.js";
import { BY_NUMBER, readHeader, writeFrame } from "../src/binary/header.js";
import { binary } from "../src/binary/index.js";
import { ENUMERATIONS, fieldsOf } from "../src/binary/messages.js";
import { readMessage, writeMessage } from "../src/binary/protobuf.js";
import { readRow, writeRow } from "../src/binary/row.js";
import { Fault, type Members } from "../src/json.js";
import { formatUuid } from "../src/uuid.js";
import { base64, hex, unhex, type Vector, vectors } from "./vectors.js";

test("headers are those of the vectors", () => {
  for (const { name, hex: bytes, length, type, flags, id } of vectors("header")) {
    const header = readHeader(unhex(bytes));
    assert.deepEqual(header, { length, type, optional: (flags & 1) === 1, id }, name);
    if (flags === 0 && length === 0) assert.equal(hex(writeFrame(type, id, new Uint8Array())), bytes, name);
  }
});

/** The JSON form of what a vector says in the types of the .proto: hexadecimal bytes, numbers for enumerations. */
function expectedMessage(message: string, fields: Vector): Members {
  const members: Record<string, unknown> = {};
  let content: { type: number; envelope: string; body: string } | undefined;
  for (const field of fieldsOf(message)) {
    if (field.type === "body") {
      const { content_type = 0, envelope = "", body = "" } = fields;
      content = { type: content_type, envelope, body };
    }
    const value = fields[field.name];
    if (value === undefined || field.type === "type" || field.type === "envelope" || field.type === "body") continue;
    const one = (item: Vector): unknown => {
      if (field.enumeration) return field.enumeration[item] ?? item;
      if (field.type === "bytes") return base64(item);
      if (field.type === "uuid") return formatUuid(unhex(item));
      if (field.type === "row") return readRow(unhex(item));
      if (field.type === "Position") return `${item.epoch ?? 0}-${item.seq ?? 0}`;
      return ["uint", "bool", "string"].includes(field.type) ? item : expectedMessage(field.type, item);
    };
    members[field.name] = field.repeated ? value.map(one) : one(value);
  }
  if (!content) return members;
  return { ...members, ...contentMembers(content.type, unhex(content.envelope), unhex(content.body)) };
}

test("Protobuf bodies are those of the vectors, in both directions", () => {
  let checked = 0;
  for (const { name, message, body, fields } of vectors("control_frames")) {
    const expected = expectedMessage(message, fields);
    assert.deepEqual(readMessage(message, unhex(body)), expected, name);
    assert.equal(hex(writeMessage(message, expected)), body, name);
    checked += 1;
  }
  assert.ok(checked >= 60);
});

test("frames of Protobuf bodies have the type and the id of the vectors", () => {
  const requests: { readonly [message: string]: string } = {
    Authenticated: "AUTH",
    Conversation: "CONVERSATION_GET",
    Synced: "SYNC",
  };
  for (const { name, frame, type, id, message, body } of vectors("control_frames")) {
    if (frame === "") continue;
    const bytes = writeFrame(type, id, unhex(body));
    const [decoded] = decodeFrames(bytes, () => requests[message]);
    assert.equal(decoded?.op, frame, name);
    assert.equal(BY_NUMBER.get(type)?.op, frame, name);
    assert.equal(hex(encodeFrame(decoded ?? {})), hex(bytes), name);
  }
});

test("hot frames are those of the vectors, in both directions", () => {
  for (const vector of vectors("hot_frames")) {
    const { name, frame, hex: bytes } = vector;
    const [decoded] = decodeFrames(unhex(bytes), () => undefined);
    assert.deepEqual(decoded, expectedHot(vector), name);
    // An envelope that is none is left out of the JSON form, so it does not come back.
    if (!/aabbcc/.test(bytes)) assert.equal(hex(encodeFrame(decoded ?? {})), bytes, `${frame} ${name}`);
  }
});

function expectedHot(vector: Vector): Members {
  const { name: _, hex: __, frame, ...fields } = vector;
  switch (frame) {
    case "SEND":
      return { op: frame, id: fields.id, ...expectedSend(fields) };
    case "SEND_BATCH":
      return { op: frame, id: fields.id, records: fields.records.map(expectedSend) };
    case "IMPORT":
      return {
        op: frame,
        id: fields.id,
        records: fields.records.map((record: Vector) => ({ time_ms: record.time_ms, ...expectedSend(record) })),
      };
    case "ACK": {
      const { seq, epoch, duplicate, ...rest } = fields;
      return { op: frame, ...rest, position: `${epoch}-${seq}`, ...(duplicate && { duplicate }) };
    }
    case "EVENT":
      return { op: frame, handle: fields.handle, ...readRow(unhex(fields.row)) };
    case "PAGE":
      return { op: frame, ...fields, rows: fields.rows.map((row: string) => readRow(unhex(row))) };
    default:
      return { op: frame, ...fields };
  }
}

function expectedSend(fields: Vector): Members {
  const { client_message_id, dseq = 0, content_type, log, act_as, envelope, body } = fields;
  return {
    log,
    client_message_id,
    ...(dseq > 0 && { dseq }),
    ...(act_as && { act_as }),
    ...contentMembers(content_type, unhex(envelope), unhex(body)),
  };
}

test("rows are those of the vectors, in both directions", () => {
  for (const vector of vectors("rows")) {
    const { name, hex: bytes, content_type, body } = vector;
    const row = readRow(unhex(bytes));
    assert.equal(row.seq, vector.seq, name);
    assert.equal(row.time_ms, vector.time_ms, name);
    assert.equal(row.event_id, vector.event_id, name);
    assert.equal(BigInt(`0x${row.content_hash}`), BigInt(vector.content_hash), name);
    assert.equal(row.sender, vector.sender, name);
    assert.equal(row.via ?? "", vector.via, name);
    assert.equal(row.redacted ?? false, vector.redacted, name);
    if (content_type === 0) assert.equal(row.text ?? "", Buffer.from(body, "hex").toString(), name);
    if (content_type === 1) assert.deepEqual(row.data, JSON.parse(Buffer.from(body, "hex").toString()), name);
    if (content_type === 2) assert.equal(row.body_b64 ?? "", base64(body), name);
    if (content_type === 3) assert.deepEqual(row.body, { change: "joined", members: [{ user: "bob" }] }, name);
    // Its body is JSON with a space and its envelope none, which a writer lays out in its own way.
    if (content_type !== 1) assert.equal(hex(writeRow(row)), bytes, name);
  }
});

test("an envelope has the bytes that common libraries lay out", () => {
  let checked = 0;
  for (const { name, events } of vectors("fold")) {
    for (const event of events) {
      const bytes = unhex(event);
      const at = 76 + (bytes[67] ?? 0) + (bytes[68] ?? 0);
      const envelope = bytes.subarray(at, at + new DataView(bytes.buffer).getUint16(70, true));
      const { kind, relates_to } = readRow(bytes);
      // These two flags lie the other way round in the vectors, which another library wrote.
      if (envelope.length === 0 || (relates_to as Members | undefined)?.remove) continue;
      assert.equal(hex(writeEnvelope(readEnvelope(envelope), kind as string)), hex(envelope), name);
      checked += 1;
    }
  }
  assert.ok(checked > 20);
});

test("every attribute of an envelope comes back", () => {
  const ref = { seq: 2 ** 53 - 1, event_id: "01900000-0000-7000-8000-000000000001" };
  const all = {
    reply_to: ref,
    thread: { ...ref, seq: 1 },
    mentions: ["ann", "bob"],
    attachments: [
      {
        url: "https://x/y",
        name: "y",
        mime: "image/png",
        size: 5,
        width: 1,
        height: 2,
        duration_ms: 3,
        thumbnail_url: "t",
      },
      { url: "z" },
    ],
    properties: { color: "grün", empty: "" },
    silent: true,
    expires_at_ms: 1_731_000_000_000,
  };
  assert.deepEqual(readEnvelope(writeEnvelope(all, "message")), all);
  const reaction = { relates_to: { ...ref, key: "👍", remove: true } };
  assert.deepEqual(readEnvelope(writeEnvelope(reaction, "reaction")), reaction);
});

test("an envelope that is cut or broken anywhere is no envelope, and never hangs", () => {
  const whole = writeEnvelope({ mentions: ["ann"], properties: { a: "b" } }, "message");
  for (let length = 1; length < whole.length; length++) readEnvelope(whole.subarray(0, length));
  for (let at = 0; at < whole.length; at++) {
    const broken = whole.slice();
    broken[at] = 0xff;
    readEnvelope(broken);
  }
  assert.deepEqual(readEnvelope(unhex("aabbcc")), {});
});

test("what cannot be cut off or read is a fault", () => {
  const faults = vectors("refused").filter(({ what }) => what === "stream");
  assert.ok(faults.length > 5);
  for (const { name, hex: bytes, frame_bytes_max } of faults) {
    // Only brokers have a smaller limit before WELCOME.
    if (frame_bytes_max === undefined) assert.throws(() => decodeFrames(unhex(bytes), () => undefined), Fault, name);
  }
  const page = unhex(vectors("hot_frames").find(({ frame }) => frame === "PAGE")?.hex);
  for (let length = 12; length < page.length; length++) {
    const cut = page.slice(0, length);
    new DataView(cut.buffer).setUint32(0, length - 12, true);
    assert.throws(() => decodeFrames(cut, () => undefined), Fault, `a page of ${length} bytes`);
  }
});

test("answers are read leniently: unknown fields, values and optional frames", () => {
  assert.deepEqual(readMessage("Authenticated", unhex("088001" + "9a0103616263" + "f801ffffffffffffffffff01")), {
    expires_at_ms: 128,
  });
  assert.deepEqual(readMessage("Presence", unhex("0a03616e6e1009")), { user: "ann", status: 9 });
  assert.deepEqual(
    decodeFrames(unhex("03000000fe01000000000000616263"), () => undefined),
    [],
  );
});

test("an OK is read by the request that it answers", () => {
  const codec = binary.open();
  codec.encode({ op: "SYNC", id: 9 });
  const { body } = vectors("control_frames").find(({ name }) => name === "synced");
  const message = writeFrame(7, 9, unhex(body)).buffer;
  assert.equal((codec.decode(message)[0] as Members).next, "zen");
  // The answer has been had: the same bytes again answer nothing that is known.
  assert.deepEqual(codec.decode(message), [{ op: "OK", id: 9 }]);
});

test("the table of messages is that of the .proto", async () => {
  const { readFileSync } = await import("node:fs");
  const proto = readFileSync("../../protocol/proto/antiphon.proto", "utf8").replace(/\/\/.*/g, "");
  const renamed: { readonly [name: string]: string } = { Change: "", Reason: "" };
  let checked = 0;
  for (const [, name = "", body = ""] of proto.matchAll(/message (\w+) \{((?:[^{}]|\{[^{}]*\})*)\}/g)) {
    if (name === "ChannelOpen") continue;
    const flat = body.replace(/enum \w+ \{[^}]*\}/g, "").replace(/oneof \w+ \{([^}]*)\}/g, "$1");
    const inOneof = /oneof \w+ \{([^}]*)\}/.exec(body)?.[1] ?? "";
    const fields = [...flat.matchAll(/(repeated |optional )?(\w+) (\w+) = (\d+);/g)];
    assert.equal(fieldsOf(name).length, fields.length, name);
    fields.forEach(([, label = "", type = "", field = "", number], index) => {
      const known = fieldsOf(name)[index];
      assert.equal(known?.name, field, `${name}.${field}`);
      assert.equal(known?.number, Number(number), `${name}.${field}`);
      assert.equal(known?.repeated, label === "repeated ", `${name}.${field}`);
      assert.equal(known?.optional, label === "optional " || inOneof.includes(` ${field} =`), `${name}.${field}`);
      const isScalar = ["uint32", "uint64", "bool", "string", "bytes"].includes(type);
      if (!isScalar && !(type in renamed) && known?.enumeration) assert.equal(known.type, type, `${name}.${field}`);
      checked += 1;
    });
  }
  assert.ok(checked > 150);
  const values = (name: string) => ENUMERATIONS[name]?.map((value) => value.toUpperCase());
  for (const [, name = "", body = ""] of proto.matchAll(/^enum (\w+) \{([^}]*)\}/gm)) {
    const named = [...body.matchAll(/(\w+) = \d+;/g)].map(([, value]) => value);
    assert.deepEqual(values(name), named, name);
  }
});
