/** Bodies that are laid by hand (SPEC section 6) <-> their members. */

import { fromUtf8, utf8 } from "../bytes.js";
import { type ContentMembers, Fault, type Members, parsePosition, type SendMembers } from "../json.js";
import { formatUuid, parseUuid } from "../uuid.js";
import { contentBytes, contentMembers } from "./content.js";
import { kindName, kindNumber, readRow, readUint64, rowLength, viewOf, writeRow, writeUint64 } from "./row.js";

const SEND_BYTES = 32;
const ACK_BYTES = 48;
const PAGE_BYTES = 32;
const SKIP_BYTES = 16;

/** Whether the body of this frame is laid by hand. */
export function isHot(op: string): op is keyof typeof HOT {
  return Object.hasOwn(HOT, op);
}

interface Codec {
  readonly read: (body: Uint8Array) => Members;
  readonly write: (members: Members) => Uint8Array;
}

export const HOT = {
  SEND: { read: readSend, write: writeSend },
  SEND_BATCH: { read: (body) => readRecords(body, readSend), write: (batch) => writeRecords(batch, writeSend) },
  IMPORT: { read: (body) => readRecords(body, readImported), write: (batch) => writeRecords(batch, writeImported) },
  ACK: { read: readAck, write: writeAck },
  PAGE: { read: readPage, write: writePage },
  EVENT: { read: readRow, write: writeRow },
  SKIP: { read: readSkip, write: writeSkip },
} satisfies { readonly [op: string]: Codec };

function checked(body: Uint8Array, bytes: number): DataView {
  if (body.length < bytes) throw new Fault("a body is cut off");
  return viewOf(body);
}

function readSend(body: Uint8Array): Members {
  const view = checked(body, SEND_BYTES);
  let at = SEND_BYTES;
  const take = (length: number) => {
    if (at + length > body.length) throw new Fault("a body is cut off");
    at += length;
    return body.subarray(at - length, at);
  };
  const [dseq, kind] = [readUint64(view, 16), kindName(view.getUint8(24))];
  const [log, actAs] = [fromUtf8(take(view.getUint8(26))), fromUtf8(take(view.getUint8(27)))];
  const envelope = take(view.getUint16(28, true));
  return {
    log,
    client_message_id: formatUuid(body.subarray(0, 16)),
    ...(dseq > 0 && { dseq }),
    ...(kind !== "message" && { kind }),
    ...(actAs && { act_as: actAs }),
    ...contentMembers(view.getUint8(25), envelope, body.subarray(at)),
  };
}

function writeSend(members: Members): Uint8Array {
  const send = members as unknown as SendMembers;
  const kind = send.kind ?? "message";
  const content = contentBytes(send as ContentMembers, kind);
  const [log, actAs] = [utf8(send.log), utf8(send.act_as ?? "")];
  const parts = [log, actAs, content.envelope, content.body];
  const bytes = new Uint8Array(SEND_BYTES + parts.reduce((sum, part) => sum + part.length, 0));
  const view = viewOf(bytes);
  bytes.set(parseUuid(send.client_message_id), 0);
  writeUint64(view, 16, send.dseq ?? 0);
  view.setUint8(24, kindNumber(kind));
  view.setUint8(25, content.type);
  view.setUint8(26, log.length);
  view.setUint8(27, actAs.length);
  view.setUint16(28, content.envelope.length, true);
  let at = SEND_BYTES;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function readRecords(body: Uint8Array, read: (record: Uint8Array) => Members): Members {
  const records: Members[] = [];
  for (let at = 0; at < body.length; ) {
    const rest = body.subarray(at);
    const length = checked(rest, 4).getUint32(0, true);
    if (4 + length > rest.length) throw new Fault("a record is cut off");
    records.push(read(rest.subarray(4, 4 + length)));
    at += 4 + length;
  }
  return { records };
}

function writeRecords({ records }: Members, write: (record: Members) => Uint8Array): Uint8Array {
  return join(
    (records as readonly Members[]).flatMap((record) => {
      const body = write(record);
      const length = new Uint8Array(4);
      viewOf(length).setUint32(0, body.length, true);
      return [length, body];
    }),
  );
}

function readImported(record: Uint8Array): Members {
  return { time_ms: readUint64(checked(record, 8), 0), ...readSend(record.subarray(8)) };
}

function writeImported(record: Members): Uint8Array {
  const time = new Uint8Array(8);
  writeUint64(viewOf(time), 0, Number(record.time_ms));
  return join([time, writeSend(record)]);
}

function readAck(body: Uint8Array): Members {
  const view = checked(body, ACK_BYTES);
  return {
    position: `${view.getUint32(40, true)}-${readUint64(view, 0)}`,
    msgno: readUint64(view, 8),
    time_ms: readUint64(view, 16),
    event_id: formatUuid(body.subarray(24, 40)),
    ...((view.getUint32(44, true) & 1) !== 0 && { duplicate: true }),
  };
}

function writeAck(ack: Members): Uint8Array {
  const bytes = new Uint8Array(ACK_BYTES);
  const view = viewOf(bytes);
  const { epoch, seq } = parsePosition(String(ack.position));
  writeUint64(view, 0, seq);
  writeUint64(view, 8, Number(ack.msgno ?? 0));
  writeUint64(view, 16, Number(ack.time_ms ?? 0));
  bytes.set(parseUuid(String(ack.event_id)), 24);
  view.setUint32(40, epoch, true);
  view.setUint32(44, Number(ack.duplicate === true), true);
  return bytes;
}

function readPage(body: Uint8Array): Members {
  const view = checked(body, PAGE_BYTES);
  const rows: Members[] = [];
  let at = PAGE_BYTES;
  for (let left = view.getUint32(28, true); left > 0; left--) {
    const rest = body.subarray(at);
    const length = rowLength(rest);
    if (length > rest.length) throw new Fault("a row is cut off");
    rows.push(readRow(rest.subarray(0, length)));
    at += length;
  }
  const [next, head, floor] = [readUint64(view, 0), readUint64(view, 8), readUint64(view, 16)];
  return { next, head, floor, epoch: view.getUint32(24, true), rows };
}

function writePage(page: Members): Uint8Array {
  const rows = (page.rows as readonly Members[] | undefined) ?? [];
  const fixed = new Uint8Array(PAGE_BYTES);
  const view = viewOf(fixed);
  writeUint64(view, 0, Number(page.next ?? 0));
  writeUint64(view, 8, Number(page.head ?? 0));
  writeUint64(view, 16, Number(page.floor ?? 0));
  view.setUint32(24, Number(page.epoch ?? 0), true);
  view.setUint32(28, rows.length, true);
  return join([fixed, ...rows.map(writeRow)]);
}

function readSkip(body: Uint8Array): Members {
  const view = checked(body, SKIP_BYTES);
  return { from: readUint64(view, 0), to: readUint64(view, 8) };
}

function writeSkip({ from, to }: Members): Uint8Array {
  const bytes = new Uint8Array(SKIP_BYTES);
  writeUint64(viewOf(bytes), 0, Number(from));
  writeUint64(viewOf(bytes), 8, Number(to));
  return bytes;
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
