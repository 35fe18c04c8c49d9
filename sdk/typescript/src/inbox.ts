/**
 * The list of one's own conversations, for whoever shows many of them without following each one.
 *
 *     follow the log of the inbox from its head -> list the conversations page by page -> HEADs move the entries on
 *
 * The list is made anew after each reconnect, for what came in between is not known. What another device has read is
 * known from then on, and at once for conversations that are followed.
 */

import type { DetachReason, RefusedError } from "./core/error.js";
import { type Event, movesCursor } from "./core/event.js";
import { type LastMessage, readLastMessage } from "./core/message.js";
import type { Cursor, Digest, Item } from "./core/output.js";
import { Emitter, type Listener } from "./emitter.js";
import { type ConversationKind, oneOf, readable } from "./info.js";
import { readSynced, type SyncedLogMembers } from "./json.js";
import { keptBack, type Session } from "./session.js";

export interface InboxEntry {
  /** The conversation. */
  readonly id: string;
  readonly kind: ConversationKind;
  readonly title: string;
  readonly pinned: boolean;
  readonly muted: boolean;
  readonly deleted: boolean;
  readonly epoch: number;
  readonly head: number;
  readonly headMsgno: number;
  /** When its newest event was stored. */
  readonly timeMs: number;
  /** The newest message as it stands. */
  readonly last: LastMessage | undefined;
  readonly read: number;
  readonly readMsgno: number;
  /** Messages that one has not read. */
  readonly unread: number;
  /** Positions that one hid. */
  readonly hidden: readonly number[];
  /** Why the broker could not say what the conversation is like; then ask again later. */
  readonly error: RefusedError | undefined;
}

export interface InboxEvents {
  /** `entries()` has changed. */
  change: readonly InboxEntry[];
  /** The inbox is not followed any more. */
  detached: DetachReason;
}

export class Inbox {
  readonly #session: Session;
  readonly #hide: (log: string, seq: number) => void;
  readonly #emitter = new Emitter<InboxEvents>();
  readonly #entries = new Map<string, InboxEntry>();
  readonly #blocked = new Set<string>();
  #shown: readonly InboxEntry[] | undefined;
  #listing: Promise<void> | undefined;
  #isFollowed = false;

  /** @internal */
  constructor(session: Session, hide: (log: string, seq: number) => void) {
    this.#session = session;
    this.#hide = hide;
  }

  /** Pinned ones first, then by the time of their newest event; the same array until something changes. */
  entries(): readonly InboxEntry[] {
    this.#shown ??= [...this.#entries.values()].sort(
      (a, b) => Number(b.pinned) - Number(a.pinned) || b.timeMs - a.timeMs || (a.id < b.id ? -1 : 1),
    );
    return this.#shown;
  }

  /** Users whom one blocked. */
  get blocked(): ReadonlySet<string> {
    return this.#blocked;
  }

  on<Name extends keyof InboxEvents>(name: Name, listener: Listener<InboxEvents[Name]>): () => void {
    return this.#emitter.on(name, listener);
  }

  /** Waits until the list is here. */
  async loaded(): Promise<readonly InboxEntry[]> {
    await this.#listing;
    return this.entries();
  }

  // ---- what the client tells ----

  /** @internal A session stands. */
  began(): void {
    if (!this.#isFollowed) {
      this.#isFollowed = true;
      this.#session.subscribe(`u:${this.#session.user}`, { at: "tail" }, (item) => this.#take(item));
    }
    this.#refresh();
  }

  /** @internal */
  digest({ log, head, headMsgno, last }: Digest): void {
    const entry = this.#entries.get(log.slice(2));
    if (!entry) {
      // It became known before its `conversation.added` did.
      this.#refresh();
      return;
    }
    if (head.epoch === entry.epoch && head.seq < entry.head) return;
    const isOwn = last?.sender === this.#session.user && last.seq > entry.read;
    this.#set({
      ...entry,
      epoch: head.epoch,
      head: head.seq,
      headMsgno,
      last,
      timeMs: Math.max(entry.timeMs, last?.timeMs ?? 0),
      // Whoever sends has read up to it, and no message is newer than this one.
      ...(isOwn && { read: last.seq, readMsgno: headMsgno }),
    });
    this.#arrived(log, entry.kind, last);
  }

  /**
   * Tells the other one that a message is here. Not in groups: nobody is told of it in large ones, and an entry does not say
   * how large one is; there it takes following the conversation.
   */
  #arrived(log: string, kind: ConversationKind, last: LastMessage | undefined, delivered = 0): void {
    if (kind !== "direct" || !last || last.sender === this.#session.user || last.seq <= delivered) return;
    this.#session.cursor(log, last.seq, 0);
  }

  /** @internal An event of a conversation that is followed, of which no digest comes. */
  event(id: string, event: Event): void {
    const entry = this.#entries.get(id);
    if (!entry || event.seq <= entry.head) return;
    const { seq, msgno, timeMs, sender, content, imported } = event;
    const isMessage = event.kind === "message";
    const isOwn = sender === this.#session.user && movesCursor(event);
    const last = isMessage ? { seq, timeMs, sender, content, redacted: false, imported } : entry.last;
    const changed = !isMessage && event.relatesTo?.seq === last?.seq ? changedLast(last, event) : last;
    const isAbout = content.type === "notice" && content.notice.type === "conversation";
    const title = isAbout ? content.notice.title : entry.title;
    const moved = { head: seq, headMsgno: msgno, timeMs, last: changed, title };
    this.#set({ ...entry, ...moved, ...(isOwn && { read: seq, readMsgno: msgno }) });
  }

  /** @internal One's own cursor moved, by this device or another. */
  cursor(id: string, { read, readMsgno }: Pick<Cursor, "read" | "readMsgno">): void {
    const entry = this.#entries.get(id);
    if (entry && read > entry.read && readMsgno >= entry.readMsgno) this.#set({ ...entry, read, readMsgno });
  }

  // ---- the log of the inbox ----

  #take(item: Item): void {
    if (item.type === "event") this.#event(item.event);
    else if (item.type === "reset") this.#refresh();
    else if (item.type === "detached") {
      this.#isFollowed = false;
      this.#emitter.emit("detached", item.reason);
    }
  }

  #event({ content }: Event): void {
    if (content.type !== "notice") return;
    const { notice } = content;
    switch (notice.type) {
      case "conversation.added":
        return this.#refresh();
      case "conversation.removed":
        this.#entries.delete(notice.conversation);
        return this.#changed();
      case "preferences": {
        const entry = this.#entries.get(notice.conversation);
        const { pinned = entry?.pinned, muted = entry?.muted } = notice;
        if (entry) this.#set({ ...entry, pinned: pinned ?? false, muted: muted ?? false });
        return;
      }
      case "block":
        if (notice.blocked) this.#blocked.add(notice.user);
        else this.#blocked.delete(notice.user);
        return this.#changed();
      case "hide": {
        const entry = this.#entries.get(notice.log.slice(2));
        if (entry) this.#set({ ...entry, hidden: [...entry.hidden, notice.seq] });
        return this.#hide(notice.log, notice.seq);
      }
    }
  }

  // ---- the list ----

  #isStale = false;

  /** Makes the list anew; once more if that is asked for meanwhile. */
  #refresh(): void {
    this.#isStale = true;
    this.#listing ??= this.#list()
      // The next session lists again.
      .catch(() => {})
      .finally(() => {
        this.#listing = undefined;
      });
  }

  async #list(): Promise<void> {
    while (this.#isStale) {
      this.#isStale = false;
      const listed = new Set<string>();
      let after = "";
      do {
        const body = await this.#session.request({ op: "SYNC", ...(after && { after }) });
        const page = readable(() => readSynced(body));
        if (after === "") this.#setBlocked(page.blocked);
        for (const log of page.entries) {
          const entry = readEntry(log);
          listed.add(entry.id);
          this.#entries.set(entry.id, newer(this.#entries.get(entry.id), entry));
          for (const seq of entry.hidden) this.#hide(log.log, seq);
          this.#arrived(log.log, entry.kind, entry.last, log.delivered);
        }
        after = page.next;
      } while (after !== "");
      for (const id of [...this.#entries.keys()]) if (!listed.has(id)) this.#entries.delete(id);
      this.#changed();
    }
  }

  #setBlocked(users: readonly string[]): void {
    this.#blocked.clear();
    for (const user of users) this.#blocked.add(user);
  }

  #set(entry: InboxEntry): void {
    this.#entries.set(entry.id, { ...entry, unread: Math.max(entry.headMsgno - entry.readMsgno, 0) });
    this.#changed();
  }

  #changed(): void {
    this.#shown = undefined;
    this.#emitter.emit("change", this.entries());
  }
}

function readEntry(log: SyncedLogMembers): InboxEntry {
  return {
    id: log.log.slice(2),
    kind: oneOf(["group", "direct", "channel"], log.kind),
    title: log.title,
    pinned: log.pinned,
    muted: log.muted,
    deleted: log.deleted,
    epoch: log.epoch,
    head: log.head,
    headMsgno: log.head_msgno,
    timeMs: log.time_ms,
    last: log.last && readLastMessage(log.last),
    read: log.read,
    readMsgno: log.read_msgno,
    unread: Math.max(log.head_msgno - log.read_msgno, 0),
    hidden: log.hidden,
    error: keptBack(log.error),
  };
}

/** What a listing says of an entry, unless something newer came while it was on its way. */
function newer(known: InboxEntry | undefined, listed: InboxEntry): InboxEntry {
  if (!known || known.epoch !== listed.epoch || known.head <= listed.head) return listed;
  const { head, headMsgno, timeMs, last } = known;
  return { ...listed, head, headMsgno, timeMs, last, unread: Math.max(headMsgno - listed.readMsgno, 0) };
}

function changedLast(last: LastMessage | undefined, event: Event): LastMessage | undefined {
  if (!last) return undefined;
  if (event.kind === "message.edit") return { ...last, content: event.content };
  if (event.kind === "message.redact") return { ...last, redacted: true, content: { type: "text", text: "" } };
  return last;
}
