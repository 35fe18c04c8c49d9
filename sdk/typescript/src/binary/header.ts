/** The 12 bytes before each frame's body, and the numbers of the frames. */

import { Fault } from "../json.js";
import { viewOf } from "./row.js";

export const HEADER_BYTES = 12;
export const FRAME_BYTES_MAX = 1 << 20;
const OPTIONAL = 1;

/** Number, name, and the message of the body; none for bodies that are empty or laid by hand. */
const FRAMES: readonly (readonly [number: number, op: string, message?: string])[] = [
  [0x01, "HELLO", "Hello"],
  [0x02, "WELCOME", "Welcome"],
  [0x03, "AUTH", "Auth"],
  [0x04, "BYE", "Bye"],
  [0x05, "GOAWAY", "Goaway"],
  [0x06, "OPEN"],
  [0x07, "OK"],
  [0x08, "ERROR", "Error"],
  [0x09, "RESUME", "Resume"],
  [0x10, "SUBSCRIBE", "Subscribe"],
  [0x11, "ATTACH", "Attach"],
  [0x12, "UNSUBSCRIBE", "Unsubscribe"],
  [0x13, "FETCH", "Fetch"],
  [0x14, "PAGE"],
  [0x15, "MESSAGES_PAGE", "MessagesPage"],
  [0x16, "EVENT"],
  [0x17, "SKIP"],
  [0x18, "BEHIND"],
  [0x19, "DETACH", "Detach"],
  [0x1a, "CURSOR", "Cursor"],
  [0x1b, "CURSORS", "MemberCursor"],
  [0x1c, "HEAD", "Head"],
  [0x1d, "SYNC", "Sync"],
  [0x20, "SEND"],
  [0x21, "ACK"],
  [0x22, "SEND_BATCH"],
  [0x23, "BATCH_ACK", "BatchAck"],
  [0x24, "HIDE", "Hide"],
  [0x25, "IMPORT"],
  [0x30, "CONVERSATION_CREATE", "ConversationCreate"],
  [0x31, "CONVERSATION_GET", "ConversationGet"],
  [0x33, "CONVERSATION_UPDATE", "ConversationUpdate"],
  [0x34, "CONVERSATION_DELETE", "ConversationDelete"],
  [0x35, "MEMBER_ADD", "MemberAdd"],
  [0x36, "MEMBER_REMOVE", "MemberRemove"],
  [0x37, "MEMBER_SET_ROLE", "MemberSetRole"],
  [0x38, "JOIN", "Join"],
  [0x39, "LEAVE", "Leave"],
  [0x3a, "PREFERENCES", "Preferences"],
  [0x3b, "BLOCK", "Block"],
  [0x40, "SIGNAL", "Signal"],
  [0x41, "SIGNALED", "Signaled"],
  [0x42, "PRESENCE_SET", "PresenceSet"],
  [0x43, "PRESENCE", "Presence"],
  [0x44, "PRESENCE_SUBSCRIBE", "PresenceSubscribe"],
  [0x50, "REVOKE", "Revoke"],
];

export interface FrameType {
  readonly number: number;
  readonly op: string;
  readonly message: string | undefined;
}

const TYPES: readonly FrameType[] = FRAMES.map(([number, op, message]) => ({ number, op, message }));
export const BY_OP = new Map(TYPES.map((type) => [type.op, type]));
export const BY_NUMBER = new Map(TYPES.map((type) => [type.number, type]));

/** Frames whose header's id is the handle of a log. */
export const OF_HANDLE: ReadonlySet<string> = new Set(["EVENT", "SKIP", "BEHIND", "DETACH", "CURSORS", "SIGNALED"]);

export interface Header {
  readonly length: number;
  readonly type: number;
  readonly optional: boolean;
  readonly id: number;
}

export function readHeader(bytes: Uint8Array): Header {
  if (bytes.length < HEADER_BYTES) throw new Fault("a header is cut off");
  const view = viewOf(bytes);
  const length = view.getUint32(0, true);
  if (view.getUint16(6, true) !== 0) throw new Fault("a header's zero is not 0");
  if (length > FRAME_BYTES_MAX - HEADER_BYTES) throw new Fault("a frame is too large");
  const optional = (view.getUint8(5) & OPTIONAL) !== 0;
  return { length, type: view.getUint8(4), optional, id: view.getUint32(8, true) };
}

export function writeFrame(type: number, id: number, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(HEADER_BYTES + body.length);
  const view = viewOf(frame);
  view.setUint32(0, body.length, true);
  view.setUint8(4, type);
  view.setUint32(8, id, true);
  frame.set(body, HEADER_BYTES);
  return frame;
}
