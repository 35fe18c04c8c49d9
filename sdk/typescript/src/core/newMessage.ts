/** What an application sends: messages, and what changes an earlier one. */

import { toBase64Url, utf8 } from "../bytes.js";
import type { AttachmentMembers, ContentMembers, SendMembers } from "../json.js";
import type { Attachment, EventRef } from "./event.js";

/** A message to send, or an event that changes an earlier message. Plain data, so that a store can keep it. */
export interface NewMessage {
  readonly log: string;
  readonly kind: "message" | "message.edit" | "message.redact" | "reaction" | "pin";
  readonly content: ContentMembers;
  /** The user for whom a service acts. */
  readonly actAs?: string | undefined;
  /** The id of an earlier attempt, as from a store that outlives the process. Otherwise the client makes one. */
  readonly clientMessageId?: string | undefined;
}

/** Content of a new message: one of `text`, `data` (anything that JSON can say) and `bytes`, and attributes. */
export interface NewContent extends NewAttributes {
  readonly text?: string;
  readonly data?: unknown;
  readonly bytes?: Uint8Array;
}

export interface NewAttributes {
  readonly replyTo?: EventRef;
  readonly thread?: EventRef;
  readonly mentions?: readonly string[];
  readonly attachments?: readonly Attachment[];
  readonly properties?: { readonly [key: string]: string };
  /** Notifies nobody. */
  readonly silent?: boolean;
  readonly expiresAtMs?: number;
  /** Services: the user for whom to send. */
  readonly actAs?: string;
}

export function newMessage(log: string, content: string | NewContent): NewMessage {
  const given = typeof content === "string" ? { text: content } : content;
  return { log, kind: "message", content: writeContent(given), actAs: given.actAs };
}

export function newEdit(log: string, of: EventRef, content: string | NewContent): NewMessage {
  const given = typeof content === "string" ? { text: content } : content;
  return change(log, "message.edit", of, { ...writeContent(given) }, given.actAs);
}

export function newRedaction(log: string, of: EventRef): NewMessage {
  return change(log, "message.redact", of);
}

/** `key` has 1 to 64 bytes, mostly an emoji. */
export function newReaction(log: string, to: EventRef, key: string, remove: boolean): NewMessage {
  const message = change(log, "reaction", to);
  return { ...message, content: { relates_to: { ...ref(to), key, ...(remove && { remove }) } } };
}

export function newPin(log: string, of: EventRef, remove: boolean): NewMessage {
  const message = change(log, "pin", of);
  return { ...message, content: { relates_to: { ...ref(of), ...(remove && { remove }) } } };
}

function change(log: string, kind: NewMessage["kind"], to: EventRef, content: ContentMembers = {}, actAs?: string) {
  return { log, kind, content: { ...content, relates_to: ref(to) }, actAs };
}

/** The members of the SEND that carries a message. */
export function sendMembers(message: NewMessage, clientMessageId: string, dseq: number): SendMembers {
  return {
    log: message.log,
    client_message_id: clientMessageId,
    ...(dseq > 0 && { dseq }),
    ...(message.kind !== "message" && { kind: message.kind }),
    ...(message.actAs && { act_as: message.actAs }),
    ...message.content,
  };
}

/** Bytes of the body. */
export function bodyBytes({ text, data, body_b64 }: ContentMembers): number {
  if (data !== undefined) return utf8(JSON.stringify(data)).length;
  if (body_b64 !== undefined) return Math.floor((body_b64.length * 3) / 4);
  return utf8(text ?? "").length;
}

/** What a message counts for in the outbox. */
export function weight(message: NewMessage): number {
  return utf8(JSON.stringify(message.content)).length;
}

/** Whether its sender has read up to it: a service says nothing about the user for whom it sends. */
export function newMovesCursor(message: NewMessage): boolean {
  return message.kind === "message" && !message.actAs;
}

function writeContent(given: NewContent): ContentMembers {
  const { text, data, bytes, replyTo, thread, mentions, attachments, properties, silent, expiresAtMs } = given;
  return {
    // A lone surrogate cannot be sent: it becomes what TextEncoder makes of it.
    ...(text && { text: wellFormed(text) }),
    // What is sent again has to be the same bytes, so later changes of the object do not count.
    ...(data !== undefined && { data: JSON.parse(JSON.stringify(data), (_, value) => wellFormed(value)) }),
    ...(bytes && (bytes.length > 0 ? { body_b64: toBase64Url(bytes) } : { content_type: "application/octet-stream" })),
    ...(replyTo && { reply_to: ref(replyTo) }),
    ...(thread && { thread: ref(thread) }),
    ...(mentions?.length && { mentions }),
    ...(attachments?.length && { attachments: attachments.map(writeAttachment) }),
    ...(properties && Object.keys(properties).length > 0 && { properties }),
    ...(silent && { silent }),
    ...(expiresAtMs && { expires_at_ms: expiresAtMs }),
  };
}

function wellFormed<T>(value: T): T {
  const lone = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
  return typeof value === "string" ? (value.replace(lone, "\ufffd") as T) : value;
}

function writeAttachment({ durationMs, thumbnailUrl, ...rest }: Attachment): AttachmentMembers {
  return {
    ...rest,
    ...(durationMs !== undefined && { duration_ms: durationMs }),
    ...(thumbnailUrl !== undefined && { thumbnail_url: thumbnailUrl }),
  };
}

function ref({ seq, eventId }: EventRef) {
  return { seq, event_id: eventId };
}
