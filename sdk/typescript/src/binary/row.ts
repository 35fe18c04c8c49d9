/** Rows: the bytes of SPEC section 5 <-> their JSON form. */

import { fromHex, fromUtf8, toHex, utf8 } from "../bytes.js";
import { type ContentMembers, Fault, type Members } from "../json.js";
import { formatUuid, parseUuid } from "../uuid.js";
import { contentBytes, contentMembers } from "./content.js";

const FIXED_BYTES = 76;
const NO_ID = "00000000-0000-0000-0000-000000000000";

/** Names of the kinds, by number. */
const KINDS = new Map<number, string>([
  [1, "message"],
  [2, "message.edit"],
  [3, "message.redact"],
  [4, "reaction"],
  [5, "pin"],
  [16, "member"],
  [17, "conversation"],
  [32, "conversation.added"],
  [33, "conversation.removed"],
  [34, "preferences"],
  [35, "block"],
  [36, "hide"],
  [37, "revoked"],
]);
const NUMBERS = new Map([...KINDS].map(([number, name]) => [name, number]));

export function kindName(number: number): string | number {
  return KINDS.get(number) ?? number;
}

export function kindNumber(kind: string | number): number {
  const number = typeof kind === "number" ? kind : NUMBERS.get(kind);
  if (number === undefined) throw new Error(`there is no kind ${kind}`);
  return number;
}

/** Length of the row at the beginning of these bytes. */
export function rowLength(bytes: Uint8Array): number {
  if (bytes.length < FIXED_BYTES) throw new Fault("a row is cut off");
  const view = viewOf(bytes);
  return FIXED_BYTES + view.getUint8(67) + view.getUint8(68) + view.getUint16(70, true) + view.getUint32(72, true);
}

export function readRow(bytes: Uint8Array): Members {
  if (rowLength(bytes) !== bytes.length) throw new Fault("a row has another length than it says");
  const view = viewOf(bytes);
  const kind = kindName(view.getUint8(64));
  const flags = view.getUint8(65);
  const clientMessageId = formatUuid(bytes.subarray(40, 56));
  let at = FIXED_BYTES;
  const take = (length: number) => {
    at += length;
    return bytes.subarray(at - length, at);
  };
  const sender = fromUtf8(take(view.getUint8(67)));
  const via = fromUtf8(take(view.getUint8(68)));
  const envelope = take(view.getUint16(70, true));
  const body = take(view.getUint32(72, true));
  return {
    seq: readUint64(view, 0),
    msgno: readUint64(view, 8),
    time_ms: readUint64(view, 16),
    event_id: formatUuid(bytes.subarray(24, 40)),
    ...(clientMessageId !== NO_ID && { client_message_id: clientMessageId }),
    // A Buffer's slice is no copy, and what was read is to stay as it is.
    content_hash: toHex(Uint8Array.from(bytes.subarray(56, 64)).reverse()),
    kind,
    ...((flags & 1) !== 0 && { redacted: true }),
    ...((flags & 2) !== 0 && { unchanged: true }),
    ...((flags & 4) !== 0 && { imported: true }),
    sender,
    ...(via && { via }),
    ...contentMembers(view.getUint8(66), envelope, body, kind),
  };
}

export function writeRow(row: Members): Uint8Array {
  const kind = row.kind as string | number;
  const content = contentBytes(row as ContentMembers, kind);
  const [sender, via] = [utf8(String(row.sender)), utf8(String(row.via ?? ""))];
  const bytes = new Uint8Array(
    FIXED_BYTES + sender.length + via.length + content.envelope.length + content.body.length,
  );
  const view = viewOf(bytes);
  writeUint64(view, 0, Number(row.seq));
  writeUint64(view, 8, Number(row.msgno ?? 0));
  writeUint64(view, 16, Number(row.time_ms ?? 0));
  bytes.set(parseUuid(String(row.event_id)), 24);
  bytes.set(parseUuid(String(row.client_message_id ?? NO_ID)), 40);
  bytes.set(fromHex(String(row.content_hash)).reverse(), 56);
  view.setUint8(64, kindNumber(kind));
  const flags = [row.redacted, row.unchanged, row.imported].map((flag, bit) => Number(flag === true) << bit);
  view.setUint8(
    65,
    flags.reduce((all, flag) => all | flag),
  );
  view.setUint8(66, content.type);
  view.setUint8(67, sender.length);
  view.setUint8(68, via.length);
  view.setUint16(70, content.envelope.length, true);
  view.setUint32(72, content.body.length, true);
  let at = FIXED_BYTES;
  for (const part of [sender, via, content.envelope, content.body]) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function readUint64(view: DataView, at: number): number {
  const value = Number(view.getBigUint64(at, true));
  if (!Number.isSafeInteger(value)) throw new Fault("a counter is 2^53 or more");
  return value;
}

export function writeUint64(view: DataView, at: number, value: number): void {
  view.setBigUint64(at, BigInt(value), true);
}
