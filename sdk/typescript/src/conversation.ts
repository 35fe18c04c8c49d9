/** One conversation, as an application uses it: what is said, who is typing, and what can be done. */

import { type AntiphonError, DetachedError, type DetachReason, TooSlowError } from "./core/error.js";
import type { Event, EventRef } from "./core/event.js";
import type { From, Range } from "./core/input.js";
import {
  type NewContent,
  type NewMessage,
  newEdit,
  newMessage,
  newPin,
  newReaction,
  newRedaction,
} from "./core/newMessage.js";
import type { Attached, Cursor, Item, Page, Receipt, ResetReason, SendState, Signal } from "./core/output.js";
import { Emitter, type Listener } from "./emitter.js";
import { Following } from "./following.js";
import type { Inbox } from "./inbox.js";
import {
  type ConversationInfo,
  type ConversationUpdate,
  changes,
  type NewMember,
  newMembers,
  type Role,
  readInfo,
} from "./info.js";
import type { Session } from "./session.js";
import { type Message, Timeline } from "./timeline.js";

/** Messages that one page of a timeline asks for. */
const PAGE_MESSAGES = 50;
/** Items that one iterator keeps for a slow reader; with one more it ends with an error. */
const ITERATED_MAX = 1_024;
/** Least time between two signals of typing, and how long one counts where it does not say. */
const TYPING_EVERY_MS = 3_000;
const TYPING_TTL_MS = 6_000;
/** Members of a conversation that pushes receipts: in larger ones nobody is told that a message has arrived. */
const RECEIPTS_MEMBERS_MAX = 100;

export interface ConversationEvents {
  /** Every event of the log, once and in order. */
  event: Event;
  /** A message that has just come; see `messages()` for how it stands later. */
  message: Event;
  /** `snapshot()` has changed. */
  change: Snapshot;
  cursor: Cursor;
  signal: Signal;
  attached: Attached;
  /** Events between were lost to this client; the timeline begins anew. */
  reset: ResetReason;
  /** The conversation is not followed any more. */
  detached: DetachReason;
}

/** What there is to show. A new object whenever anything of it changes. */
export interface Snapshot {
  /** Oldest first. */
  readonly messages: readonly Message[];
  /** Who is typing. */
  readonly typing: readonly string[];
  /** Whether `loadOlder()` may bring something. */
  readonly hasOlder: boolean;
  /** The newest messages are here. */
  readonly loaded: boolean;
  /** Why the conversation is not followed. */
  readonly detached: DetachReason | undefined;
}

export interface ConversationOptions {
  /** Where events begin; messages are shown from the newest on whatever this says. */
  readonly from?: From;
}

interface Reader {
  readonly items: Item[];
  wake: (() => void) | undefined;
  error: AntiphonError | undefined;
}

export class Conversation {
  readonly id: string;
  /** Name of its log. */
  readonly log: string;
  readonly #session: Session;
  /** The list of conversations, if the application uses it: no digests come of what is followed. */
  readonly #inbox: () => Inbox | undefined;
  readonly #from: From;
  readonly #emitter = new Emitter<ConversationEvents>();
  readonly #timeline = new Timeline();
  readonly #typing = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #readers = new Set<Reader>();
  readonly #following: Following;
  #attached: Attached | undefined;
  #loaded = false;
  #loading: Promise<void> | undefined;
  #typedAt = Number.NEGATIVE_INFINITY;
  #snapshot: Snapshot | undefined;
  #changeIsDue = false;

  /** @internal */
  constructor(session: Session, id: string, options: ConversationOptions, inbox: () => Inbox | undefined) {
    this.id = id;
    this.log = `c:${id}`;
    this.#session = session;
    this.#inbox = inbox;
    this.#from = options.from ?? { at: "tail" };
    this.#following = new Following(
      session,
      this.log,
      () => this.#position(),
      (item) => this.#take(item),
    );
    this.#timeline.reader = session.user;
  }

  // ---- reading ----

  /** Follows the conversation from now on; everything that reads it does so by itself. */
  open(): this {
    this.#following.open();
    return this;
  }

  /** Where to go on after a `close`. */
  #position(): From {
    const last = this.#attached?.after;
    return last ? { at: "position", position: last } : this.#from;
  }

  /** Follows the conversation no more. What is on its way is still sent. */
  close(): void {
    this.#following.close();
  }

  /** @internal Follows the conversation for as long as it is shown, and says when there is something else to show. */
  watch(changed: () => void): () => void {
    const ends = [this.#emitter.on("change", changed), this.#following.watch()];
    return () => {
      for (const end of ends) end();
    };
  }

  /** @internal What there is to show, without following it. */
  peek(): Snapshot {
    this.#snapshot ??= {
      messages: this.#timeline.messages(),
      typing: [...this.#typing.keys()],
      hasOlder: this.#timeline.older !== 0,
      loaded: this.#loaded,
      detached: this.#following.detached,
    };
    return this.#snapshot;
  }

  /** Calls `listener` for each such event from now on. Returns what ends that. */
  on<Name extends keyof ConversationEvents>(name: Name, listener: Listener<ConversationEvents[Name]>): () => void {
    this.#following.ensure();
    return this.#emitter.on(name, listener);
  }

  /** Messages as they stand, oldest first: history, live ones, and one's own on their way. */
  messages(): readonly Message[] {
    return this.snapshot().messages;
  }

  /** Everything that there is to show; the same object until something changes. */
  snapshot(): Snapshot {
    this.#following.ensureShown();
    return this.peek();
  }

  /** Pages in older messages. False if there are none. */
  async loadOlder(): Promise<boolean> {
    this.#following.ensureShown();
    if (this.#loading) await this.#loading;
    if (this.#timeline.older === 0) return false;
    const before = this.#timeline.messages().length;
    // A page may hold nothing although there are more.
    do await this.#load();
    while (this.#timeline.messages().length === before && this.#timeline.older !== 0);
    return this.#timeline.messages().length > before;
  }

  /**
   * Events of the log as they are, by position, or from a date on (`atMs`, Unix milliseconds; backward: before it): for
   * programs that keep their own state.
   */
  history(range: Partial<Omit<Range, "log">> = {}): Promise<Page> {
    return this.#session.fetch({ log: this.log, from: 0, to: 0, limit: 0, backward: false, ...range });
  }

  /** Every event from now on, once and in order; see `items` for what comes between them. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Event, void, undefined> {
    for await (const item of this.items()) if (item.type === "event") yield item.event;
  }

  /** Everything that the subscription brings. Ends with the subscription, with an error unless one ended it oneself. */
  async *items(): AsyncGenerator<Item, void, undefined> {
    this.open();
    const reader: Reader = { items: [], wake: undefined, error: undefined };
    this.#readers.add(reader);
    try {
      for (;;) {
        const item = reader.items.shift();
        if (item) {
          yield item;
          if (item.type !== "detached") continue;
          if (item.reason.why === "unsubscribed") return;
          throw new DetachedError(item.reason);
        }
        if (reader.error) throw reader.error;
        await new Promise<void>((wake) => {
          reader.wake = wake;
        });
      }
    } finally {
      this.#readers.delete(reader);
    }
  }

  // ---- sending ----

  /**
   * Sends a message. It is shown at once, waits for a connection if there is none, and the promise is kept when it is
   * durable. A failure is also shown by `messages()`, so the promise may be left alone.
   */
  send(content: string | NewContent): Promise<Receipt> {
    return this.#send(newMessage(this.log, content));
  }

  /** Gives an own message new content. */
  edit(message: EventRef, content: string | NewContent): Promise<Receipt> {
    return this.#send(newEdit(this.log, message, content));
  }

  /** Removes the content of a message for everyone, for good. */
  redact(message: EventRef): Promise<Receipt> {
    return this.#send(newRedaction(this.log, message));
  }

  react(message: EventRef, key: string): Promise<Receipt> {
    return this.#send(newReaction(this.log, message, key, false));
  }

  unreact(message: EventRef, key: string): Promise<Receipt> {
    return this.#send(newReaction(this.log, message, key, true));
  }

  pin(message: EventRef): Promise<Receipt> {
    return this.#send(newPin(this.log, message, false));
  }

  unpin(message: EventRef): Promise<Receipt> {
    return this.#send(newPin(this.log, message, true));
  }

  /** Sends a failed message again, as a new one. */
  retry({ key }: Message): Promise<Receipt> | undefined {
    const message = this.#timeline.takeFailed(key);
    this.#change();
    return message && this.#send({ ...message, clientMessageId: undefined });
  }

  /** Takes a failed message out of what is shown. */
  discard({ key }: Message): void {
    this.#timeline.takeFailed(key);
    this.#change();
  }

  #send(message: NewMessage): Promise<Receipt> {
    return this.#session.send(message);
  }

  /** Tells the others that one is typing: call it with every key. */
  typing(): void {
    const now = performance.now();
    if (now - this.#typedAt < TYPING_EVERY_MS) return;
    this.#typedAt = now;
    // Lost without harm if there is no session.
    this.signal("typing").catch(() => {});
  }

  /** Sends something to those who follow the conversation now. It is never stored, and may be lost. */
  signal(kind: string, data: Uint8Array = new Uint8Array(), ttlMs = 0): Promise<void> {
    return this.#session.signal(this.log, kind, data, ttlMs);
  }

  /** Everything up to a message, by default the newest, has been read. */
  markRead(message?: EventRef): void {
    const read = message?.seq ?? this.#timeline.newest;
    if (read === 0) return;
    this.#session.cursor(this.log, 0, read);
    this.#inbox()?.cursor(this.id, { read, readMsgno: this.#timeline.msgnoAt(read) });
  }

  /** Hides an event from one's own view, on all devices. */
  async hide({ seq, eventId }: EventRef): Promise<void> {
    await this.#session.request({ op: "HIDE", log: this.log, event_id: eventId, seq });
    this.hidden(seq);
  }

  // ---- the conversation itself ----

  /** Its properties and members. */
  async info(): Promise<ConversationInfo> {
    return readInfo(await this.#session.request({ op: "CONVERSATION_GET", conversation: this.id }));
  }

  /** Changes what is named. */
  async update(update: ConversationUpdate): Promise<void> {
    await this.#session.request({ op: "CONVERSATION_UPDATE", conversation: this.id, ...changes(update) });
  }

  async delete(): Promise<void> {
    await this.#session.request({ op: "CONVERSATION_DELETE", conversation: this.id });
  }

  async addMembers(members: readonly (string | NewMember)[]): Promise<void> {
    await this.#session.request({ op: "MEMBER_ADD", conversation: this.id, members: newMembers(members) });
  }

  async removeMember(user: string): Promise<void> {
    await this.#session.request({ op: "MEMBER_REMOVE", conversation: this.id, user });
  }

  async setRole(user: string, role: Role): Promise<void> {
    await this.#session.request({ op: "MEMBER_SET_ROLE", conversation: this.id, user, role });
  }

  async join(): Promise<void> {
    await this.#session.request({ op: "JOIN", conversation: this.id });
  }

  async leave(): Promise<void> {
    await this.#session.request({ op: "LEAVE", conversation: this.id });
  }

  /** How one sees the conversation oneself; what is not named stays. */
  async setPreferences(preferences: { pinned?: boolean; muted?: boolean }): Promise<void> {
    await this.#session.request({ op: "PREFERENCES", conversation: this.id, ...preferences });
  }

  // ---- what the client tells ----

  /** @internal A session of this user stands. */
  began(user: string): void {
    this.#timeline.reader = user;
    // A page that was refused is asked for again.
    if (this.#attached && !this.#loaded) this.#begin();
  }

  /** @internal */
  sending(id: number, key: string, message: NewMessage): void {
    this.#timeline.sending(id, key, message, Date.now());
    this.#change();
  }

  /** @internal */
  sent(id: number, state: SendState): void {
    this.#timeline.sent(id, state);
    this.#change();
  }

  /** @internal */
  hidden(seq: number): void {
    this.#timeline.hide(seq);
    this.#change();
  }

  #take(item: Item): void {
    switch (item.type) {
      case "attached":
        this.#timeline.attached(item.attached.after.epoch, item.attached.cursors);
        this.#attached = item.attached;
        if (!this.#loaded) this.#begin();
        this.#emitter.emit("attached", item.attached);
        break;
      case "event":
        this.#event(item.event);
        break;
      case "reset":
        this.#timeline.reset();
        this.#loaded = false;
        this.#begin();
        this.#emitter.emit("reset", item.reason);
        break;
      case "skipped":
        this.#moveTo(item.last);
        break;
      case "cursor":
        this.#timeline.cursor(item.cursor);
        if (item.cursor.user === this.#session.user) this.#inbox()?.cursor(this.id, item.cursor);
        this.#emitter.emit("cursor", item.cursor);
        break;
      case "signal":
        this.#signal(item.signal);
        break;
      case "detached":
        this.#emitter.emit("detached", item.reason);
    }
    for (const reader of this.#readers) tellReader(reader, item);
    this.#change();
  }

  #event(event: Event): void {
    const { seq, sender } = event;
    this.#timeline.event(event);
    this.#inbox()?.event(this.id, event);
    this.#moveTo(seq);
    this.#emitter.emit("event", event);
    if (event.kind !== "message") return;
    this.#stopTyping(sender);
    this.#emitter.emit("message", event);
    if (sender !== this.#timeline.reader) this.#arrived(seq);
  }

  /** Tells the others that everything up to a message is here. */
  #arrived(seq: number): void {
    if (!this.#attached || seq === 0) return;
    const { cursors, headMsgno } = this.#attached;
    // Of a conversation in which nobody has said anything there are no cursors yet; of a large one there never are.
    const isSmall = cursors.length > 0 ? cursors.length <= RECEIPTS_MEMBERS_MAX : headMsgno === 0;
    if (isSmall) this.#session.cursor(this.log, seq, 0);
  }

  #moveTo(seq: number): void {
    if (this.#attached) this.#attached = { ...this.#attached, after: { epoch: this.#attached.after.epoch, seq } };
  }

  #signal(signal: Signal): void {
    if (signal.kind === "typing" && signal.user !== this.#timeline.reader) {
      const { user } = signal;
      clearTimeout(this.#typing.get(user));
      this.#typing.set(
        user,
        setTimeout(() => this.#stopTyping(user), signal.ttlMs || TYPING_TTL_MS),
      );
    }
    this.#emitter.emit("signal", signal);
  }

  #stopTyping(user: string): void {
    clearTimeout(this.#typing.get(user));
    if (this.#typing.delete(user)) this.#change();
  }

  // ---- pages ----

  /** Asks for the newest messages; what goes wrong is asked again with the next session. */
  #begin(): void {
    const again = () => {
      if (!this.#loaded) this.#load().catch(() => {});
    };
    // A page from before a reset is of no use after it.
    if (this.#loading) this.#loading.then(again, again);
    else again();
  }

  #load(): Promise<void> {
    this.#loading ??= this.#page().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  async #page(): Promise<void> {
    const { log } = this;
    const to = this.#timeline.older ?? 0;
    const generation = this.#timeline.awaitPage();
    try {
      const page = await this.#session.fetchMessages({ log, from: 0, to, limit: PAGE_MESSAGES, backward: true });
      this.#timeline.page(generation, page);
      this.#loaded = this.#timeline.older !== undefined;
      // What came before this client followed the conversation has arrived with the page.
      if (to === 0 && this.#loaded) this.#arrived(this.#timeline.newest);
    } catch (error) {
      this.#timeline.page(generation, undefined);
      throw error;
    } finally {
      this.#change();
    }
  }

  /** Something to show has changed; told once for everything that one message of the broker brings. */
  #change(): void {
    this.#snapshot = undefined;
    if (this.#changeIsDue) return;
    this.#changeIsDue = true;
    queueMicrotask(() => {
      this.#changeIsDue = false;
      this.#emitter.emit("change", this.peek());
    });
  }
}

function tellReader(reader: Reader, item: Item): void {
  if (reader.items.length < ITERATED_MAX) reader.items.push(item);
  else reader.error ??= new TooSlowError(ITERATED_MAX);
  reader.wake?.();
  reader.wake = undefined;
}
