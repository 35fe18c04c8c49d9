/**
 * The messages of a conversation as they stand, for showing: pages of history, live events folded into them, and own
 * sends that are not acknowledged yet. Pure: no client, no time.
 *
 * A page and live events overlap: events that come while a page is awaited are kept, and folded into the page's messages
 * too, which does no harm where the page has them already.
 */

import type { AntiphonError } from "./core/error.js";
import {
  type Attachment,
  type Content,
  EMPTY,
  type Event,
  type EventRef,
  movesCursor,
  readAttributes,
  readContent,
  readEvent,
  textOf,
} from "./core/event.js";
import { foldView, newView, relation } from "./core/fold.js";
import type { Mark, MessageView, Reaction, ReplyPreview } from "./core/message.js";
import type { NewMessage } from "./core/newMessage.js";
import type { Cursor, Messages, Receipt, SendState } from "./core/output.js";
import { readRow } from "./json.js";

/** Messages that a timeline keeps; for one more the oldest goes, and can be paged in again. */
export const MESSAGES_KEPT_MAX = 2_000;

/** `received` = of somebody else; the rest is of one's own. */
export type MessageStatus = "received" | "queued" | "sending" | "sent" | "delivered" | "read" | "failed";

/** A message as it stands. A new object whenever anything of it changes. */
export interface Message extends EventRef {
  /** The same from the first attempt to send it on, for lists. */
  readonly key: string;
  readonly sender: string;
  readonly via: string | undefined;
  /** One's own. */
  readonly mine: boolean;
  readonly status: MessageStatus;
  /** Why it is `failed`. */
  readonly error: AntiphonError | undefined;
  /** By the broker's clock; of an unacknowledged message by one's own. */
  readonly timeMs: number;
  /** The text as it stands; empty if it was redacted, or is no text. */
  readonly text: string;
  readonly content: Content;
  /** When it was last edited; 0 = never. */
  readonly editedMs: number;
  readonly redacted: boolean;
  /** It was brought in from another system: nobody is notified of it. */
  readonly imported: boolean;
  readonly pinned: Mark | undefined;
  readonly reactions: readonly Reaction[];
  /** The beginning of the message that this one answers. */
  readonly reply: ReplyPreview | undefined;
  readonly replyTo: EventRef | undefined;
  readonly thread: EventRef | undefined;
  readonly mentions: readonly string[];
  readonly attachments: readonly Attachment[];
  readonly properties: { readonly [key: string]: string };
  readonly expiresAtMs: number;
}

/** An own message on its way. `seq` is 0 until it is acknowledged. */
interface Outgoing {
  readonly id: number;
  readonly key: string;
  readonly message: NewMessage;
  readonly timeMs: number;
  readonly status: MessageStatus;
  readonly error?: AntiphonError;
}

export class Timeline {
  /** The session's user. */
  reader = "";
  #epoch = 0;
  readonly #views = new Map<number, MessageView>();
  /** Positions of the views, ascending. */
  #order: number[] = [];
  readonly #outgoing = new Map<number, Outgoing>();
  /** Keys under which own messages were shown before they had a position. */
  readonly #keys = new Map<string, string>();
  readonly #hidden = new Set<number>();
  /** Where the next older page ends; undefined before the first page, 0 = there is nothing older. */
  #older: number | undefined;
  #awaited = 0;
  /** Counts the resets: a page that was asked for before one is of no use after it. */
  #generation = 0;
  /** What came while a page was awaited. */
  #recent: Event[] = [];
  /** How far the others have come. */
  #reached = { delivered: 0, read: 0 };
  #shown: readonly Message[] | undefined;
  #shownBefore = new Map<string, { readonly of: unknown; readonly status: MessageStatus; readonly message: Message }>();

  /** What is shown, oldest first; the same array until something changes. */
  messages(): readonly Message[] {
    this.#shown ??= this.#show();
    return this.#shown;
  }

  /** Where the next older page ends; 0 = there is nothing older, undefined = no page has come yet. */
  get older(): number | undefined {
    return this.#older;
  }

  /** Position of the newest message that has come; 0 if there is none. */
  get newest(): number {
    return this.#order.at(-1) ?? 0;
  }

  /** Messages up to a position, as far as it is known. */
  msgnoAt(seq: number): number {
    return this.#views.get(seq)?.event.msgno ?? 0;
  }

  // ---- what comes from the broker ----

  /** The log is followed, in this epoch. */
  attached(epoch: number, cursors: readonly Cursor[]): void {
    if (epoch !== this.#epoch) this.#reached = { delivered: 0, read: 0 };
    this.#epoch = epoch;
    for (const cursor of cursors) this.cursor(cursor);
  }

  /** Positions begin anew: everything but one's own unacknowledged messages is forgotten. */
  reset(): void {
    this.#views.clear();
    this.#order = [];
    this.#hidden.clear();
    this.#older = undefined;
    this.#recent = [];
    this.#awaited = 0;
    this.#generation += 1;
    this.#changed();
  }

  /** The next event of the log. */
  event(event: Event): void {
    if (this.#awaited > 0) this.#recent.push(event);
    if (movesCursor(event)) {
      const { sender: user, seq } = event;
      this.cursor({ user, delivered: seq, read: seq, readMsgno: event.msgno });
    }
    if (event.kind === "message") this.#add(event);
    else if (relation(event)) this.#fold([event]);
  }

  #add(event: Event): void {
    const { clientMessageId } = event;
    // The echo of what was sent here may come before its ACK.
    if (clientMessageId && event.sender === this.reader) this.#forgetOutgoing(clientMessageId);
    this.#put(
      event.seq,
      newView(event, (seq) => this.#views.get(seq)),
    );
    if (this.#order.length > MESSAGES_KEPT_MAX) {
      this.#views.delete(this.#order.shift() ?? 0);
      this.#older = this.#order[0] ?? 0;
    }
  }

  #forgetOutgoing(clientMessageId: string): void {
    for (const [id, { key, message }] of this.#outgoing) {
      if (message.clientMessageId !== clientMessageId) continue;
      this.#keys.set(clientMessageId, key);
      this.#outgoing.delete(id);
    }
  }

  #fold(events: readonly Event[]): void {
    for (const [seq, view] of this.#views) {
      const folded = events.reduce((before, event) => foldView(before, event, this.reader), view);
      if (folded !== view) this.#put(seq, folded);
    }
  }

  #put(seq: number, view: MessageView): void {
    if (!this.#views.has(seq)) {
      let at = this.#order.length;
      while (at > 0 && (this.#order[at - 1] ?? 0) > seq) at -= 1;
      this.#order.splice(at, 0, seq);
    }
    this.#views.set(seq, view);
    this.#changed();
  }

  /** A page of messages has been asked for. Returns what to pass in with it. */
  awaitPage(): number {
    this.#awaited += 1;
    return this.#generation;
  }

  /** The page that was awaited; undefined if it does not come. */
  page(generation: number, page: Messages | undefined): void {
    if (generation !== this.#generation) return;
    this.#awaited -= 1;
    // Of an earlier epoch its positions mean other events.
    if (page && page.head.epoch === this.#epoch) {
      for (const view of page.messages) this.#merge(view);
      this.#older = page.next;
      this.#changed();
    }
    if (this.#awaited === 0) this.#recent = [];
  }

  #merge(view: MessageView): void {
    // What was stored before this page was made may still be awaiting its ACK here.
    if (view.event.clientMessageId && view.event.sender === this.reader)
      this.#forgetOutgoing(view.event.clientMessageId);
    const known = this.#views.get(view.event.seq);
    const isNewer = !known || (view.state?.through ?? 0) >= (known.state?.through ?? 0);
    const folded = this.#recent.reduce((before, event) => foldView(before, event, this.reader), isNewer ? view : known);
    this.#put(view.event.seq, folded);
  }

  /** Somebody's cursor moved. */
  cursor({ user, delivered, read }: Cursor): void {
    if (user === this.reader) return;
    const before = this.#reached;
    this.#reached = {
      delivered: Math.max(before.delivered, delivered, read),
      read: Math.max(before.read, read),
    };
    this.#changed();
  }

  /** The reader has hidden an event from their own view. */
  hide(seq: number): void {
    this.#hidden.add(seq);
    this.#changed();
  }

  // ---- own messages on their way ----

  /** A message that the application sends, or that an earlier page left unsent. */
  sending(id: number, key: string, message: NewMessage, timeMs: number): void {
    if (message.kind !== "message" || message.actAs) return;
    this.#outgoing.set(id, { id, key, message, timeMs, status: "queued" });
    this.#changed();
  }

  /** What became of it. */
  sent(id: number, state: SendState): void {
    const outgoing = this.#outgoing.get(id);
    if (!outgoing) return;
    switch (state.is) {
      case "sending": {
        const message = { ...outgoing.message, clientMessageId: state.clientMessageId };
        this.#outgoing.set(id, { ...outgoing, message, status: "sending" });
        break;
      }
      case "sent":
        this.#outgoing.delete(id);
        this.#keys.set(state.receipt.clientMessageId, outgoing.key);
        this.#acknowledged(outgoing.message, state.receipt);
        break;
      case "failed":
        this.#outgoing.set(id, { ...outgoing, status: "failed", error: state.error });
        break;
      default:
        return;
    }
    this.#changed();
  }

  /** The ACK came before the event: it is shown in its place already. */
  #acknowledged(message: NewMessage, receipt: Receipt): void {
    const { seq, epoch } = receipt;
    if (this.#views.has(seq) || epoch !== this.#epoch) return;
    const row = readRow({
      ...message.content,
      seq,
      msgno: receipt.msgno,
      time_ms: receipt.timeMs,
      event_id: receipt.eventId,
      client_message_id: receipt.clientMessageId,
      kind: "message",
      sender: this.reader,
    });
    const event = readEvent(epoch, row);
    this.#put(
      seq,
      newView(event, (at) => this.#views.get(at)),
    );
  }

  /** The failed message with this key, which is taken out: to be sent again, or not. */
  takeFailed(key: string): NewMessage | undefined {
    for (const [id, outgoing] of this.#outgoing) {
      if (outgoing.key !== key || outgoing.status !== "failed") continue;
      this.#outgoing.delete(id);
      this.#changed();
      return outgoing.message;
    }
    return undefined;
  }

  // ---- what is shown ----

  #changed(): void {
    this.#shown = undefined;
  }

  #show(): readonly Message[] {
    const before = this.#shownBefore;
    const after: typeof before = new Map();
    const shown: Message[] = [];
    const show = (of: object, key: string, status: MessageStatus, make: () => Message): void => {
      const known = before.get(key);
      const message = known && known.of === of && known.status === status ? known.message : make();
      after.set(key, { of, status, message });
      shown.push(message);
    };
    for (const seq of this.#order) {
      const view = this.#views.get(seq);
      if (!view || this.#hidden.has(seq)) continue;
      const { event } = view;
      const status = this.#status(event);
      const key = this.#keys.get(event.clientMessageId ?? "") ?? event.eventId;
      show(view, key, status, () => fromView(view, key, status));
    }
    for (const outgoing of this.#outgoing.values()) {
      show(outgoing, outgoing.key, outgoing.status, () => fromOutgoing(outgoing, this.reader));
    }
    this.#shownBefore = after;
    return shown;
  }

  #status({ sender, seq }: Event): MessageStatus {
    if (sender !== this.reader) return "received";
    if (seq <= this.#reached.read) return "read";
    return seq <= this.#reached.delivered ? "delivered" : "sent";
  }
}

function fromView(view: MessageView, key: string, status: MessageStatus): Message {
  const { event, state, reply } = view;
  const content = event.redacted ? EMPTY : (state?.edit?.content ?? event.content);
  const { mentions, attachments, properties } = state?.edit?.attributes ?? event;
  const { seq, eventId, sender, via, timeMs, redacted, imported, replyTo, thread, expiresAtMs } = event;
  return {
    ...{ key, seq, eventId, sender, via, mine: status !== "received", status, error: undefined, timeMs },
    ...{ text: textOf(content), content, editedMs: state?.edit?.timeMs ?? 0, redacted, imported },
    ...{ pinned: state?.pinned, reactions: state?.reactions ?? [], reply, replyTo, thread },
    ...{ mentions, attachments, properties, expiresAtMs },
  };
}

function fromOutgoing({ key, message, timeMs, status, error }: Outgoing, sender: string): Message {
  const row = readRow(message.content);
  const content = readContent(row);
  const { replyTo, thread, mentions, attachments, properties, expiresAtMs } = readAttributes(row);
  return {
    ...{ key, seq: 0, eventId: "", sender, via: undefined, mine: true, status, error, timeMs },
    ...{ text: textOf(content), content, editedMs: 0, redacted: false, imported: false },
    ...{ pinned: undefined, reactions: [], reply: undefined, replyTo, thread },
    ...{ mentions, attachments, properties, expiresAtMs },
  };
}
