/**
 * Generated frames of every type, through both codecs: the program that ANTIPHON_FRAMES names (the example
 * `generated_frames` of gateway-ws) writes each one in binary and as the line that the gateway makes of it. Without it
 * this test is skipped. ANTIPHON_JSON_FRAMES says how many frames, ANTIPHON_JSON_SEED which ones.
 *
 * The binary codec reads and writes the frames of both sides, so each one goes both ways. JSON is parsed and printed by
 * the engine; what the SDK does with it is to check what a broker says, and that is done with all that brokers say.
 */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { decodeFrames, encodeFrame } from "../src/binary/frame.js";
import { BY_NUMBER } from "../src/binary/header.js";
import { readEvent } from "../src/core/event.js";
import { readView } from "../src/core/message.js";
import {
  type Answer,
  Fault,
  type Members,
  readAuthenticated,
  readConversation,
  readFrame,
  readSynced,
} from "../src/json.js";
import { json } from "../src/wire.js";

const program = process.env.ANTIPHON_FRAMES;
const options = program ? {} : { skip: "ANTIPHON_FRAMES names no program" };
/** Frames after which every type has certainly come. */
const ALL_TYPES = 10_000;

interface Generated {
  readonly bytes: Uint8Array;
  readonly line: string;
  /** What the frame answers, if it is an OK. */
  readonly request: string | undefined;
}

async function* generated(path: string): AsyncGenerator<Generated> {
  const child = spawn(path, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.once("close", resolve));
  let rest = Buffer.alloc(0);
  try {
    for await (const chunk of child.stdout) {
      rest = Buffer.concat([rest, chunk]);
      let at = 0;
      for (let record = cut(rest, at); record; record = cut(rest, at)) {
        yield record.generated;
        at = record.end;
      }
      rest = rest.subarray(at);
    }
  } finally {
    child.kill();
  }
  assert.equal(await ended, 0);
  assert.equal(rest.length, 0, "the last record is cut off");
}

function cut(buffer: Buffer, at: number): { readonly generated: Generated; readonly end: number } | undefined {
  const begin = at + 9;
  if (begin > buffer.length) return undefined;
  const behind = begin + buffer.readUInt32LE(at);
  const end = behind + buffer.readUInt32LE(at + 4);
  if (end > buffer.length) return undefined;
  const request = BY_NUMBER.get(buffer.readUInt8(at + 8))?.op;
  return {
    generated: { bytes: buffer.subarray(begin, behind), line: buffer.toString("utf8", behind, end), request },
    end,
  };
}

/** Where `read` does not have what `said` has. */
function lost(said: unknown, read: unknown, path: string): string | undefined {
  if (path.endsWith(".position")) {
    const { epoch, seq } = read as { epoch: number; seq: number };
    return said === `${epoch}-${seq}` ? undefined : path;
  }
  if (typeof said !== "object" || said === null) return Object.is(said, read) ? undefined : path;
  if (typeof read !== "object" || read === null) return path;
  for (const [name, value] of Object.entries(said)) {
    const found = lost(value, (read as Members)[name], `${path}.${name}`);
    if (found) return found;
  }
  return undefined;
}

/** What the core makes of it on its way to an application must not be a fault either. */
function readOn(answer: Answer): void {
  if (answer.op === "EVENT") readEvent(1, answer);
  if (answer.op === "PAGE") for (const row of answer.rows) readEvent(1, row);
  if (answer.op === "MESSAGES_PAGE") for (const view of answer.messages) readView(1, view);
}

const okReaders: { readonly [message: string]: (body: unknown) => unknown } = {
  AUTH: readAuthenticated,
  SYNC: readSynced,
};

/** A view of no row is no view of anything, and the only thing generated that a reader refuses. */
function hasViewOfNothing({ op, messages }: Members): boolean {
  return op === "MESSAGES_PAGE" && ((messages ?? []) as readonly Members[]).some(({ row }) => row === undefined);
}

/** Reads what a broker says; false if it is said by clients. */
function readAnswer(frame: Members, request: string | undefined): boolean {
  if (hasViewOfNothing(frame)) {
    assert.throws(() => readFrame(frame), Fault);
    return true;
  }
  const answer = readFrame(frame);
  if (!answer) return false;
  readOn(answer);
  if (answer.op !== "OK") {
    // What a broker says by itself has no id that would be read.
    const { id, ...said } = frame;
    assert.equal(lost("id" in answer ? frame : said, answer, answer.op), undefined);
    return true;
  }
  const { op: _, id: __, to, ...body } = answer.body;
  if (to === undefined) return true;
  assert.equal(to, request);
  const read = (okReaders[String(to)] ?? readConversation)(body);
  assert.equal(lost(body, read, "OK"), undefined);
  return true;
}

/** Whether the bytes could be told to the last: not where data is written otherwise than JavaScript does. */
function check({ bytes, line, request }: Generated): { readonly exact: boolean; readonly answer: boolean } {
  const [parsed] = json.open().decode(line) as Members[];
  assert.ok(parsed);
  const frames = decodeFrames(bytes, () => request);
  if (!isDeepStrictEqual(frames, [parsed])) assert.deepEqual(frames, [parsed]);
  const answer = readAnswer(parsed, request);
  const written = encodeFrame(parsed);
  const respelled = json.open().encode(parsed as never) as string;
  const exact = respelled === line;
  if (exact) assert.equal(Buffer.compare(written, bytes), 0, Buffer.from(written).toString("hex"));
  else
    assert.deepEqual(
      decodeFrames(written, () => request),
      json.open().decode(respelled),
    );
  return { exact, answer };
}

test("both codecs say the same of generated frames, and write them as the gateway does", options, async (t) => {
  const counts = { frames: 0, fromBrokers: 0, fromClients: 0, respelled: 0 };
  const seen = new Set<unknown>();
  for await (const one of generated(program ?? "")) {
    try {
      const { exact, answer } = check(one);
      counts[answer ? "fromBrokers" : "fromClients"] += 1;
      counts.respelled += Number(!exact);
    } catch (error) {
      const what = `frame ${counts.frames}: ${one.line}\n${Buffer.from(one.bytes).toString("hex")}`;
      throw new Error(`${what}\n${(error as Error).message}`, { cause: error });
    }
    counts.frames += 1;
    seen.add(one.bytes[4]);
  }
  t.diagnostic(`${JSON.stringify(counts)}, ${seen.size} types, 0 differences`);
  assert.ok(counts.frames > 0);
  if (counts.frames >= ALL_TYPES)
    assert.deepEqual(
      [...BY_NUMBER.keys()].filter((number) => !seen.has(number)),
      [],
    );
});
