/** A message as it stands: its event, and what later events made of it. */

import type { LastMessageMembers, MessageViewMembers } from "../json.js";
import {
  type Attributes,
  type Content,
  type Event,
  type EventRef,
  readAttributes,
  readContent,
  readEvent,
} from "./event.js";

/** Who did something to a message, when, and with which event. */
export interface Mark {
  readonly seq: number;
  readonly timeMs: number;
  readonly user: string;
}

/** All reactions to a message with one key. */
export interface Reaction {
  /** Mostly an emoji. */
  readonly key: string;
  readonly count: number;
  /** The reader is among them. */
  readonly mine: boolean;
  /** Some of them, at most 8. */
  readonly users: readonly string[];
}

/** The latest edit: its content and attributes take the place of the message's. */
export interface Edit {
  readonly seq: number;
  readonly timeMs: number;
  readonly content: Content;
  readonly attributes: Attributes;
}

/** What later events have made of a message. */
export interface MessageState {
  /** Position of the last event that is folded in. */
  readonly through: number;
  readonly edit: Edit | undefined;
  readonly redacted: Mark | undefined;
  readonly pinned: Mark | undefined;
  /** By key, in the order in which the keys appeared. */
  readonly reactions: readonly Reaction[];
  /** Positions of all edits, oldest first. */
  readonly edits: readonly number[];
}

/** The beginning of the message that another one answers, as it stands. */
export interface ReplyPreview extends EventRef {
  readonly sender: string;
  /** At most 128 bytes of it; text is cut between characters. */
  readonly content: Content;
  /** There is more. */
  readonly cut: boolean;
  readonly redacted: boolean;
  readonly through: number;
}

export interface MessageView {
  readonly event: Event;
  readonly state: MessageState | undefined;
  readonly reply: ReplyPreview | undefined;
}

/** The beginning of the newest message of a log, as it stands. */
export interface LastMessage {
  readonly seq: number;
  readonly timeMs: number;
  readonly sender: string;
  readonly content: Content;
  readonly redacted: boolean;
  /** It was brought in from another system: nobody is notified of it. */
  readonly imported: boolean;
}

export const UNCHANGED: MessageState = {
  through: 0,
  edit: undefined,
  redacted: undefined,
  pinned: undefined,
  reactions: [],
  edits: [],
};

export function readView(epoch: number, view: MessageViewMembers): MessageView {
  const { row, state, reply } = view;
  return {
    event: readEvent(epoch, row),
    state: state && {
      through: state.through,
      edit: state.edit && {
        seq: state.edit.seq,
        timeMs: state.edit.time_ms,
        content: readContent(state.edit),
        attributes: readAttributes(state.edit),
      },
      redacted: readMark(state.redacted),
      pinned: readMark(state.pinned),
      reactions: state.reactions,
      edits: state.edits,
    },
    reply: reply && {
      seq: reply.seq,
      eventId: reply.event_id,
      sender: reply.sender,
      content: readContent(reply),
      cut: reply.cut,
      redacted: reply.redacted,
      through: reply.through,
    },
  };
}

export function readLastMessage(last: LastMessageMembers): LastMessage {
  const { seq, time_ms, sender, redacted, imported } = last;
  return { seq, timeMs: time_ms, sender, content: readContent(last), redacted, imported };
}

function readMark(mark: { seq: number; time_ms: number; user: string } | undefined): Mark | undefined {
  return mark && { seq: mark.seq, timeMs: mark.time_ms, user: mark.user };
}
