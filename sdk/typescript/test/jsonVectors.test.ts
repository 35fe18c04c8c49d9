/** Both forms of every frame: the exact lines and bytes of the vectors. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { decodeFrames, encodeFrame } from "../src/binary/frame.js";
import { type Members, readFrame } from "../src/json.js";
import { json } from "../src/wire.js";
import { hex, unhex, vectors } from "./vectors.js";

const both = vectors("json");

test("binary frames have the JSON form of the vectors", () => {
  for (const { name, hex: bytes, json: line, to } of both) {
    const [frame] = decodeFrames(unhex(bytes), () => to);
    assert.deepEqual(frame, JSON.parse(line), name);
  }
  assert.ok(both.length > 150);
});

test("the JSON form has the bytes of the vectors", () => {
  let written = 0;
  for (const { name, hex: bytes, json: line } of both) {
    const [frame] = json.open().decode(line);
    // Data whose bytes JavaScript would not write itself has other bytes once it has been parsed.
    if (JSON.stringify(frame) !== line) continue;
    assert.equal(hex(encodeFrame(frame as Members)), bytes, name);
    written += 1;
  }
  assert.ok(written > 140, `${written}`);
});

test("other lines that brokers read are the same frames", () => {
  const { also_read } = JSON.parse(readFileSync("../../protocol/vectors/json.json", "utf8"));
  // A client that imports makes its ids itself.
  const read = also_read.filter(({ json }: { json: string }) => !json.includes('"external_id"'));
  for (const { name, hex: bytes, json: line } of read) {
    assert.equal(hex(encodeFrame(JSON.parse(line))), bytes, name);
  }
});

test("every frame of a broker can be read, and nothing of it is lost", () => {
  let read = 0;
  for (const { name, json: line } of both) {
    const frame = JSON.parse(line);
    const answer = readFrame(frame);
    if (!answer) continue;
    read += 1;
    // Empty texts of events and such have no member to compare.
    for (const [member, value] of Object.entries(frame)) {
      if (typeof value === "object" || member === "op" || answer.op === "OK") continue;
      if (member === "position") continue;
      assert.equal((answer as unknown as Members)[member], value, `${name}: ${member}`);
    }
  }
  assert.ok(read > 70);
});
