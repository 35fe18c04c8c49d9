/** One event of a log, as applications see it, and its content. */

import { fromBase64Url } from "../bytes.js";
import { Fault, noticeReaders, type Position, type ReadContent, type ReadEnvelope, type RowMembers } from "../json.js";

/** Names another event of the same log. */
export interface EventRef {
  readonly seq: number;
  readonly eventId: string;
}

/** What an edit, redaction, reaction or pin is about. */
export interface Relation extends EventRef {
  /** Which reaction. */
  readonly key: string;
  /** Takes the reaction or the pin back. */
  readonly remove: boolean;
}

export interface Attachment {
  readonly url: string;
  readonly name?: string;
  readonly mime?: string;
  readonly size?: number;
  readonly width?: number;
  readonly height?: number;
  readonly durationMs?: number;
  readonly thumbnailUrl?: string;
}

/** What the broker says with an event of its own: `type` is the kind of the event, the rest as in SPEC section 5. */
export type Notice = {
  [Kind in keyof typeof noticeReaders]: { readonly type: Kind } & ReturnType<(typeof noticeReaders)[Kind]>;
}[keyof typeof noticeReaders];

/** The body of an event. */
export type Content =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "json"; readonly data: unknown }
  | { readonly type: "bytes"; readonly contentType: string | number; readonly bytes: Uint8Array }
  | { readonly type: "notice"; readonly notice: Notice };

/** Attributes of an event beside its body. */
export interface Attributes {
  readonly relatesTo: Relation | undefined;
  readonly replyTo: EventRef | undefined;
  readonly thread: EventRef | undefined;
  readonly mentions: readonly string[];
  readonly attachments: readonly Attachment[];
  readonly properties: { readonly [key: string]: string };
  readonly silent: boolean;
  readonly expiresAtMs: number;
}

/** An immutable record of a log. */
export interface Event extends EventRef, Attributes {
  readonly epoch: number;
  /** Messages up to and including this event; unread = head's number - one's own. */
  readonly msgno: number;
  /** The broker's clock; for display, never for order. */
  readonly timeMs: number;
  /** The sender's own id of the send; undefined for events of the broker. */
  readonly clientMessageId: string | undefined;
  /** Name of the kind, such as `message`; the number of a kind that this version does not know. */
  readonly kind: string | number;
  readonly redacted: boolean;
  /** The event had no effect, as a reaction that was there. */
  readonly unchanged: boolean;
  /** The event was brought in from another system, where it happened at `timeMs`: nobody is notified of it. */
  readonly imported: boolean;
  readonly sender: string;
  /** The service that acted for the sender. */
  readonly via: string | undefined;
  readonly content: Content;
}

export const EMPTY: Content = { type: "text", text: "" };
const NOTHING: readonly never[] = [];
const NO_PROPERTIES = {};

export const NO_ATTRIBUTES: Attributes = {
  relatesTo: undefined,
  replyTo: undefined,
  thread: undefined,
  mentions: NOTHING,
  attachments: NOTHING,
  properties: NO_PROPERTIES,
  silent: false,
  expiresAtMs: 0,
};

export function readEvent(epoch: number, row: RowMembers): Event {
  return {
    epoch,
    seq: row.seq,
    msgno: row.msgno,
    timeMs: row.time_ms,
    eventId: row.event_id,
    clientMessageId: row.client_message_id,
    kind: row.kind,
    redacted: row.redacted,
    unchanged: row.unchanged,
    imported: row.imported,
    sender: row.sender,
    via: row.via,
    content: readContent(row, row.kind),
    ...readAttributes(row),
  };
}

export function readAttributes(envelope: ReadEnvelope): Attributes {
  const { relates_to, reply_to, thread } = envelope;
  return {
    relatesTo: relates_to && { ...readRef(relates_to), key: relates_to.key ?? "", remove: relates_to.remove },
    replyTo: reply_to && readRef(reply_to),
    thread: thread && readRef(thread),
    mentions: envelope.mentions,
    attachments: envelope.attachments.map(readAttachment),
    properties: envelope.properties ?? NO_PROPERTIES,
    silent: envelope.silent,
    expiresAtMs: envelope.expires_at_ms,
  };
}

function readRef(from: { readonly seq: number; readonly event_id: string }): EventRef {
  return { seq: from.seq, eventId: from.event_id };
}

function readAttachment({ duration_ms, thumbnail_url, ...rest }: ReadEnvelope["attachments"][number]): Attachment {
  const given = { ...rest, durationMs: duration_ms, thumbnailUrl: thumbnail_url };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as unknown as Attachment;
}

/** `kind` is that of the row, which decides how a body of the broker is read. */
export function readContent(content: ReadContent, kind?: string | number): Content {
  const { text, data, body_b64, body, content_type } = content;
  if (body !== undefined) return readNotice(kind, body);
  if (data !== undefined) return { type: "json", data };
  if (text !== undefined) return { type: "text", text };
  if (body_b64 === undefined && (content_type === undefined || content_type === "text/plain")) return EMPTY;
  return { type: "bytes", contentType: content_type ?? "application/octet-stream", bytes: readBytes(body_b64 ?? "") };
}

function readNotice(kind: string | number | undefined, body: unknown): Content {
  const reader = Object.hasOwn(noticeReaders, kind ?? "") && noticeReaders[kind as keyof typeof noticeReaders];
  // A kind of a later version: its body is shown as what it is in JSON.
  if (!reader) return { type: "json", data: body };
  return { type: "notice", notice: { ...reader(body, `${kind}`), type: kind } as Notice };
}

export function readBytes(base64: string): Uint8Array {
  try {
    return fromBase64Url(base64);
  } catch {
    throw new Fault("body_b64 is not base64url");
  }
}

/** Text of a content; empty if it is none. */
export function textOf(content: Content): string {
  return content.type === "text" ? content.text : "";
}

/** Whether the sender of an event has read up to it: a service says nothing about the user for whom it sends. */
export function movesCursor(row: { readonly kind: string | number; readonly via: string | undefined }): boolean {
  return row.kind === "message" && !row.via;
}

export function formatPosition({ epoch, seq }: Position): string {
  return `${epoch}-${seq}`;
}
