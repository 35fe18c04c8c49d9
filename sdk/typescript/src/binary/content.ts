/** Content of an event: its three binary parts <-> the members of its JSON form (SPEC section 13). */

import { fromBase64Url, toBase64Url, utf8 } from "../bytes.js";
import { type ContentMembers, Fault, type Members } from "../json.js";
import { readEnvelope, writeEnvelope } from "./envelope.js";
import { readMessage, writeMessage } from "./protobuf.js";

const TYPES = ["text/plain", "application/json", "application/octet-stream", "protobuf"];
const [TEXT, JSON_TYPE, OCTETS, PROTOBUF] = [0, 1, 2, 3];

/** Bodies of the broker's events, by the name of their kind. */
const BODIES: { readonly [kind: string]: string } = {
  member: "MemberEvent",
  conversation: "ConversationEvent",
  "conversation.added": "ConversationAdded",
  "conversation.removed": "ConversationRemoved",
  preferences: "Preferences",
  block: "Block",
  hide: "Hide",
  revoked: "Revoked",
};

const DEPTH_MAX = 32;
const LONE_SURROGATE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export interface ContentBytes {
  readonly type: number;
  readonly envelope: Uint8Array;
  readonly body: Uint8Array;
}

/** `kind` is the name of a row's kind, which says how a body of the broker is read. */
export function contentMembers(
  type: number,
  envelope: Uint8Array,
  body: Uint8Array,
  kind?: string | number,
): ContentMembers & { body?: Members } {
  return { ...bodyMembers(type, body, kind), ...readEnvelope(envelope) };
}

function bodyMembers(type: number, body: Uint8Array, kind?: string | number): ContentMembers & { body?: Members } {
  const said = readBody(type, body, kind);
  if (said) return said;
  const base64 = body.length > 0 ? { body_b64: toBase64Url(body) } : {};
  const isSaid = type === OCTETS && body.length > 0;
  return { ...base64, ...(!isSaid && { content_type: TYPES[type] ?? type }) };
}

/** A body that is what its type says; undefined where only its bytes can be told. */
function readBody(type: number, body: Uint8Array, kind?: string | number) {
  const message = BODIES[kind ?? ""];
  if (type === PROTOBUF && message) return readNotice(message, body);
  const text = type === TEXT || type === JSON_TYPE ? strictUtf8(body) : undefined;
  if (text === undefined) return undefined;
  if (type === TEXT) return text === "" ? {} : { text };
  const data = parse(text);
  return data === undefined ? undefined : { data };
}

function readNotice(message: string, body: Uint8Array): { body: Members } | undefined {
  try {
    return { body: readMessage(message, body) };
  } catch (fault) {
    if (fault instanceof Fault) return undefined;
    throw fault;
  }
}

function strictUtf8(bytes: Uint8Array): string | undefined {
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

/**
 * What a line of JSON can hold as `data`: on one line, without white space around it, well-formed, nested 32 deep, no
 * member named twice.
 */
function parse(text: string): unknown {
  if (/^\s|[\r\n]|\s$/.test(text)) return undefined;
  try {
    const data: unknown = JSON.parse(text);
    return isCarried(data, DEPTH_MAX) && namesIn(data) === namesWritten(text) ? data : undefined;
  } catch {
    return undefined;
  }
}

function isCarried(value: unknown, depth: number): boolean {
  if (typeof value === "string") return !LONE_SURROGATE.test(value);
  if (typeof value !== "object" || value === null) return true;
  const inside = Object.entries(value);
  return depth > 0 && inside.every(([key, item]) => isCarried(key, depth) && isCarried(item, depth - 1));
}

/** Of members that are named the same a parser keeps one. */
function namesIn(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  const inside = Object.values(value);
  return inside.reduce((sum, item) => sum + namesIn(item), Array.isArray(value) ? 0 : inside.length);
}

/** `text` is JSON, where only names have a colon behind them. */
function namesWritten(text: string): number {
  let names = 0;
  for (const [, colon] of text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?/g)) if (colon) names += 1;
  return names;
}

export function contentBytes(members: ContentMembers & { body?: unknown }, kind: string | number = ""): ContentBytes {
  const { text, data, body_b64, body, content_type } = members;
  const envelope = writeEnvelope(members, kind);
  const said = typeof content_type === "string" ? TYPES.indexOf(content_type) : content_type;
  if (body !== undefined) {
    return { type: PROTOBUF, envelope, body: writeMessage(BODIES[kind] ?? "", body as Members) };
  }
  if (data !== undefined) return { type: JSON_TYPE, envelope, body: utf8(JSON.stringify(data)) };
  if (body_b64 !== undefined) return { type: said ?? OCTETS, envelope, body: fromBase64Url(body_b64) };
  return { type: said ?? TEXT, envelope, body: utf8(text ?? "") };
}
