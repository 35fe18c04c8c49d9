/** Whole frames: bytes <-> their JSON form. */

import { Fault, type Members } from "../json.js";
import { BY_NUMBER, BY_OP, HEADER_BYTES, OF_HANDLE, readHeader, writeFrame } from "./header.js";
import { HOT, isHot } from "./hot.js";
import { readMessage, writeMessage } from "./protobuf.js";

/** Messages in the OK of a request, by its name; those of other requests are empty. */
const OK_BODIES: { readonly [op: string]: string } = {
  AUTH: "Authenticated",
  SYNC: "Synced",
  CONVERSATION_CREATE: "Conversation",
  CONVERSATION_GET: "Conversation",
  CONVERSATION_UPDATE: "Conversation",
  CONVERSATION_DELETE: "Conversation",
  MEMBER_ADD: "Conversation",
  MEMBER_REMOVE: "Conversation",
  MEMBER_SET_ROLE: "Conversation",
  JOIN: "Conversation",
};

export function encodeFrame(frame: Members): Uint8Array<ArrayBuffer> {
  const { op, id = 0, handle = 0, ...members } = frame;
  const type = BY_OP.get(String(op));
  if (!type) throw new Error(`there is no frame ${op}`);
  // ATTACH and UNSUBSCRIBE name a handle in their body.
  const body = isHot(type.op) ? HOT[type.op].write(members) : encodeBody(type.op, { ...members, handle });
  const number = OF_HANDLE.has(type.op) ? handle : type.op === "OPEN" ? (frame.class ?? 0) : id;
  return writeFrame(type.number, Number(number), body);
}

function encodeBody(op: string, members: Members): Uint8Array {
  const message = op === "OK" ? OK_BODIES[String(members.to)] : BY_OP.get(op)?.message;
  return message === undefined ? new Uint8Array() : writeMessage(message, members);
}

/**
 * The frames in a message, in their JSON form. `requestOf` gives the name of the request that an OK answers, for only
 * that says what its body is.
 */
export function decodeFrames(message: Uint8Array, requestOf: (id: number) => string | undefined): Members[] {
  const frames: Members[] = [];
  for (let at = 0; at < message.length; ) {
    const rest = message.subarray(at);
    const header = readHeader(rest);
    const end = HEADER_BYTES + header.length;
    if (end > rest.length) throw new Fault("a frame is cut off");
    const body = rest.subarray(HEADER_BYTES, end);
    at += end;
    const type = BY_NUMBER.get(header.type);
    if (type) frames.push(decodeFrame(type.op, header.id, body, requestOf));
    else if (!header.optional) throw new Fault(`there is no frame ${header.type}`);
  }
  return frames;
}

function decodeFrame(op: string, id: number, body: Uint8Array, requestOf: (id: number) => string | undefined): Members {
  const named = OF_HANDLE.has(op) ? { handle: id } : op === "OPEN" ? { class: id } : id === 0 ? {} : { id };
  if (op === "OK") {
    const to = requestOf(id);
    const message = OK_BODIES[to ?? ""];
    return message ? { op, to, ...readMessage(message, body), ...named } : { op, ...named };
  }
  const message = BY_OP.get(op)?.message;
  const members = isHot(op) ? HOT[op].read(body) : message === undefined ? {} : readMessage(message, body);
  return { op, ...members, ...named };
}
