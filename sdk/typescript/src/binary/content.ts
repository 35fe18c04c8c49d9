/** Content of an event: its three binary parts <-> the members of its JSON form (SPEC section 13). */

import { fromBase64Url, fromUtf8, toBase64Url, utf8 } from "../bytes.js";
import type { ContentMembers, Members } from "../json.js";
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
  const message = BODIES[kind ?? ""];
  if (type === PROTOBUF && message && body.length > 0) return { body: readMessage(message, body) };
  if (type === TEXT) return body.length > 0 ? { text: fromUtf8(body) } : {};
  const data = type === JSON_TYPE ? parse(body) : undefined;
  if (data !== undefined) return { data };
  const base64 = body.length > 0 ? { body_b64: toBase64Url(body) } : {};
  const isSaid = type === OCTETS && body.length > 0;
  return { ...base64, ...(!isSaid && { content_type: TYPES[type] ?? type }) };
}

function parse(body: Uint8Array): unknown {
  try {
    return JSON.parse(fromUtf8(body));
  } catch {
    return undefined;
  }
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
