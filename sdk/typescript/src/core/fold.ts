/**
 * What later events make of a message (SPEC section 7): a page as of a head, then every event above it in order, is the
 * page as of a later head. Pure: a view that an event changes is a new object, any other is returned as it is.
 *
 * An event at or below the state's `through` is in it already, so events may be folded again.
 */

import { fromUtf8, utf8 } from "../bytes.js";
import { type Content, EMPTY, type Event, NO_ATTRIBUTES, type Relation } from "./event.js";
import { REACTION_USERS_SHOWN_MAX, REPLY_PREVIEW_BYTES_MAX } from "./limits.js";
import {
  type Mark,
  type MessageState,
  type MessageView,
  type Reaction,
  type ReplyPreview,
  UNCHANGED,
} from "./message.js";

const CHANGES: ReadonlySet<string | number> = new Set(["message.edit", "message.redact", "reaction", "pin"]);

/** What an event is about; undefined for other events, and for an edit that a later redaction has emptied. */
export function relation(event: Event): Relation | undefined {
  return CHANGES.has(event.kind) ? event.relatesTo : undefined;
}

/** Folds any event of the log into a message as `reader` sees it. */
export function foldView(view: MessageView, event: Event, reader: string): MessageView {
  const about = relation(event);
  if (!about) return view;
  let folded = view;
  if (about.seq === view.event.seq) {
    const state = foldState(view.state ?? UNCHANGED, event, about, reader);
    if (state !== (view.state ?? UNCHANGED)) folded = { ...folded, state };
    if (event.kind === "message.redact" && !view.event.redacted) {
      folded = { ...folded, event: withoutContent(view.event), reply: undefined };
    }
  }
  if (folded.reply?.seq === about.seq) {
    const reply = foldPreview(folded.reply, event);
    if (reply !== folded.reply) folded = { ...folded, reply };
  }
  return folded;
}

/** A view of a message that has just come. `find` gives the message at a position, if the client has it. */
export function newView(event: Event, find: (seq: number) => MessageView | undefined): MessageView {
  const { replyTo } = event;
  const answered = replyTo && find(replyTo.seq);
  const reply = answered && answered.event.eventId === replyTo.eventId ? preview(answered) : undefined;
  return { event, state: undefined, reply };
}

/** Folds an event into messages in the order of the log: a message is added, anything else changes what is there. */
export function foldPage(messages: readonly MessageView[], event: Event, reader: string): readonly MessageView[] {
  if (event.kind !== "message") return messages.map((view) => foldView(view, event, reader));
  return [...messages, newView(event, (seq) => messages.find((view) => view.event.seq === seq))];
}

function foldState(state: MessageState, event: Event, about: Relation, reader: string): MessageState {
  if (event.seq <= state.through || event.unchanged || state.redacted) return state;
  const through = event.seq;
  switch (event.kind) {
    case "message.edit": {
      const { content, seq, timeMs } = event;
      const edit = { seq, timeMs, content, attributes: { ...NO_ATTRIBUTES, ...attributesOf(event) } };
      return { ...state, through, edit, edits: [...state.edits, seq] };
    }
    case "message.redact":
      return { ...UNCHANGED, through, redacted: mark(event) };
    case "reaction": {
      const change = about.remove ? takeBack : react;
      return { ...state, through, reactions: change(state.reactions, about.key, event.sender, reader) };
    }
    default:
      return { ...state, through, pinned: about.remove ? undefined : mark(event) };
  }
}

function react(all: readonly Reaction[], key: string, user: string, reader: string): readonly Reaction[] {
  const before = all.find((reaction) => reaction.key === key) ?? { key, count: 0, mine: false, users: [] };
  const after = {
    key,
    count: before.count + 1,
    mine: before.mine || user === reader,
    users: before.users.length < REACTION_USERS_SHOWN_MAX ? [...before.users, user] : before.users,
  };
  return before.count === 0 ? [...all, after] : all.map((reaction) => (reaction === before ? after : reaction));
}

function takeBack(all: readonly Reaction[], key: string, user: string, reader: string): readonly Reaction[] {
  return all.flatMap((reaction) => {
    if (reaction.key !== key) return [reaction];
    if (reaction.count <= 1) return [];
    const users = reaction.users.filter((other) => other !== user);
    return [{ key, count: reaction.count - 1, mine: reaction.mine && user !== reader, users }];
  });
}

function foldPreview(reply: ReplyPreview, event: Event): ReplyPreview {
  if (event.seq <= reply.through || event.unchanged || reply.redacted) return reply;
  const through = event.seq;
  if (event.kind === "message.edit") return { ...reply, through, ...beginning(event.content) };
  if (event.kind !== "message.redact") return { ...reply, through };
  return { ...reply, content: EMPTY, cut: false, redacted: true, through: 0 };
}

function preview({ event, state }: MessageView): ReplyPreview {
  const { seq, eventId, sender } = event;
  const redacted = event.redacted || state?.redacted !== undefined;
  // Nothing changes a redacted message any more, so its preview says nothing else.
  if (redacted) return { seq, eventId, sender, content: EMPTY, cut: false, redacted, through: 0 };
  const content = state?.edit?.content ?? event.content;
  return { seq, eventId, sender, redacted, through: state?.through ?? 0, ...beginning(content) };
}

/** The first bytes of a content. Those of JSON are counted as this client would write it. */
function beginning(content: Content): { readonly content: Content; readonly cut: boolean } {
  if (content.type === "notice") return { content: EMPTY, cut: true };
  const bytes =
    content.type === "bytes"
      ? content.bytes
      : utf8(content.type === "text" ? content.text : JSON.stringify(content.data));
  if (bytes.length <= REPLY_PREVIEW_BYTES_MAX) return { content, cut: false };
  let end = REPLY_PREVIEW_BYTES_MAX;
  if (content.type !== "text") {
    const contentType = content.type === "bytes" ? content.contentType : "application/json";
    return { content: { type: "bytes", contentType, bytes: bytes.slice(0, end) }, cut: true };
  }
  // A byte that continues a character begins with the bits 10.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return { content: { type: "text", text: fromUtf8(bytes.subarray(0, end)) }, cut: true };
}

function attributesOf(event: Event) {
  const { relatesTo, replyTo, thread, mentions, attachments, properties, silent, expiresAtMs } = event;
  return { relatesTo, replyTo, thread, mentions, attachments, properties, silent, expiresAtMs };
}

function withoutContent(event: Event): Event {
  return { ...event, ...NO_ATTRIBUTES, redacted: true, content: EMPTY };
}

function mark(event: Event): Mark {
  return { seq: event.seq, timeMs: event.timeMs, user: event.sender };
}
