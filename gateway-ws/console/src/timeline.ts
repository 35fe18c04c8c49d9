/**
 * The messages of a conversation: rows by key, older ones on scrolling up, and how far one has read.
 *
 * Scrolling: whoever is at the end stays at the end; otherwise the first row in sight stays where it is, whatever comes
 * above or below it.
 */

import type { Conversation, Message, Snapshot } from "../../../sdk/typescript/src/index.js";
import { button, fill, h, Keyed, set } from "./dom.js";
import { count, dayName, dayOf } from "./format.js";
import { type MessageActions, type MessageRow, updateMessage } from "./message.js";
import { speak } from "./notify.js";
import type { Pending } from "./pending.js";
import { previewText } from "./preview.js";
import type { Session } from "./session.js";

type Row =
  | MessageRow
  | { readonly type: "day"; readonly key: string; readonly name: string }
  | { readonly type: "new"; readonly key: string }
  | { readonly type: "beginning"; readonly key: string };

/** Messages of one sender that are closer together than this belong together. */
const TOGETHER_MS = 5 * 60_000;
/** How near the end counts as at the end. */
const END_PX = 48;
/** How near the beginning older messages are asked for. */
const OLDER_PX = 400;
const FLASH_MS = 1_600;

export class TimelineView {
  readonly element: HTMLElement;
  readonly #session: Session;
  readonly #conversation: Conversation;
  readonly #pending: Pending;
  readonly #actions: MessageActions;
  readonly #scroller: HTMLElement;
  readonly #list: HTMLElement;
  readonly #rows: Keyed<Row>;
  readonly #note: HTMLElement;
  readonly #jump: HTMLButtonElement;
  readonly #off: (() => void)[] = [];
  #snapshot: Snapshot;
  #byKey = new Map<string, Message>();
  /** Key of the message that has the focus, or would get it. */
  #current = "";
  #isAtEnd = true;
  /** Where the scroller was when that was known. */
  #top = 0;
  #hasOpened = false;
  #isLoading = false;
  /** Messages after `after`, up to `upTo`, were unread when they were first to be seen. */
  #unread: { readonly after: number; readonly upTo: number } | undefined;
  #missed = 0;
  #spokenSeq: number | undefined;

  constructor(session: Session, conversation: Conversation, pending: Pending, actions: MessageActions) {
    this.#session = session;
    this.#conversation = conversation;
    this.#pending = pending;
    this.#actions = actions;
    this.#snapshot = conversation.snapshot();
    const label = "Messages. Arrow keys move, Enter opens what can be done.";
    this.#list = h("ol", { class: "messages", "aria-label": label });
    this.#note = h("p", { class: "note" });
    this.#scroller = h("div", { class: "scroller", tabindex: -1 }, this.#note, this.#list);
    this.#jump = button({ label: "Newest messages", icon: "down", class: "jump", text: "", press: () => this.toEnd() });
    this.element = h("div", { class: "timeline" }, this.#scroller, this.#jump);
    this.#rows = new Keyed<Row>(
      this.#list,
      (row) => this.#make(row),
      (element, row) => this.#update(element, row),
    );
    this.#scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#list.addEventListener("keydown", (event) => this.#key(event));
    this.#list.addEventListener("focusin", (event) => this.#focused(event));
    this.#list.addEventListener("contextmenu", (event) => this.#contextMenu(event));
    this.#off.push(
      conversation.on("change", () => this.render()),
      session.onChange(() => this.render()),
    );
    const seen = () => this.#visibility();
    document.addEventListener("visibilitychange", seen);
    const resized = new ResizeObserver(() => this.#resized());
    resized.observe(this.#scroller);
    resized.observe(this.#list);
    this.#off.push(
      () => document.removeEventListener("visibilitychange", seen),
      () => resized.disconnect(),
    );
  }

  close(): void {
    for (const off of this.#off) off();
  }

  // ---- what is shown ----

  render(): void {
    // Whoever has scrolled since is told so a moment later.
    if (this.#scroller.scrollTop !== this.#top) this.#measure();
    this.#snapshot = this.#conversation.snapshot();
    const { messages, loaded, hasOlder } = this.#snapshot;
    this.#noteUnread();
    const anchor = this.#isAtEnd ? undefined : this.#anchor();
    const before = this.#byKey;
    this.#byKey = new Map(messages.map((message) => [message.key, message]));
    this.#announce(messages);
    this.#rows.show(this.#rowsOf(messages), ({ key }) => key, isSame);
    this.#setCurrent(this.#byKey.has(this.#current) ? this.#current : (messages.at(-1)?.key ?? ""));
    fill(this.#note, !loaded ? "Loading…" : messages.length === 0 && !hasOlder && "Nothing has been said here yet.");
    this.#note.hidden = this.#note.textContent === "";
    if (loaded && !this.#hasOpened) this.#open();
    else if (this.#isAtEnd) this.#scrollTo(this.#scroller.scrollHeight);
    else if (anchor) this.#keep(anchor);
    if (this.#hasOpened && !this.#isAtEnd) this.#missed += newOnes(messages, before);
    this.#after();
  }

  #rowsOf(messages: readonly Message[]): Row[] {
    const rows: Row[] = [];
    const { hasOlder, loaded } = this.#snapshot;
    if (loaded && !hasOlder && messages.length > 0) rows.push({ type: "beginning", key: "beginning" });
    const named = !this.#session.isDirect(this.#conversation.id);
    const firstUnread = messages.find((message) => this.#isUnread(message))?.key;
    const bySeq = new Map(messages.map((message) => [message.seq, message]));
    let day = 0;
    messages.forEach((message, at) => {
      const before = messages[at - 1];
      const after = messages[at + 1];
      const today = dayOf(message.timeMs);
      const breaks = today !== day || message.key === firstUnread;
      if (today !== day) rows.push({ type: "day", key: `day ${today}`, name: dayName(today, Date.now()) });
      day = today;
      if (message.key === firstUnread) rows.push({ type: "new", key: "new" });
      rows.push({
        ...{ type: "message", key: message.key, message, change: this.#pending.of(message) },
        answered: message.replyTo && !message.reply ? bySeq.get(message.replyTo.seq) : undefined,
        begins: breaks || !before || !isTogether(before, message),
        ends: !after || !isTogether(message, after) || after.key === firstUnread,
        named: named && !message.mine,
      });
    });
    return rows;
  }

  #make(row: Row): HTMLElement {
    switch (row.type) {
      case "message":
        return h("li", { "data-key": row.key, tabindex: row.key === this.#current ? 0 : -1 });
      case "day":
        return h("li", { class: "day" }, h("span", {}, row.name));
      case "new":
        return h("li", { class: "new" }, h("span", {}, "New messages"));
      case "beginning":
        return h("li", { class: "beginning" }, "The beginning of this conversation");
    }
  }

  #update(element: HTMLElement, row: Row): void {
    if (row.type !== "message") return;
    const hadFocus = element.contains(document.activeElement) && document.activeElement !== element;
    updateMessage(element, row, this.#actions);
    if (hadFocus) element.focus({ preventScroll: true });
  }

  /** Says what has come, to those who listen. */
  #announce(messages: readonly Message[]): void {
    if (!this.#snapshot.loaded) return;
    const newest = messages.findLast(({ seq }) => seq > 0)?.seq ?? 0;
    const spoken = this.#spokenSeq;
    this.#spokenSeq = Math.max(newest, spoken ?? 0);
    if (spoken === undefined || document.hidden) return;
    for (const { seq, mine, sender, content, redacted, imported } of messages.slice(-5)) {
      if (seq > spoken && !mine && !imported) speak(`${sender}: ${previewText(content, redacted)}`);
    }
  }

  // ---- what has been read ----

  /** Remembers once what was unread when the conversation was opened. */
  #noteUnread(): void {
    if (this.#unread || !this.#session.isListed) return;
    const entry = this.#session.entry(this.#conversation.id);
    this.#unread = { after: entry?.read ?? Number.MAX_SAFE_INTEGER, upTo: entry?.head ?? 0 };
  }

  #isUnread({ seq, mine }: Message): boolean {
    return this.#unread !== undefined && !mine && seq > this.#unread.after && seq <= this.#unread.upTo;
  }

  /** One has answered: nothing is new any more. */
  answered(): void {
    this.#unread = { after: Number.MAX_SAFE_INTEGER, upTo: 0 };
    this.toEnd();
  }

  #visibility(): void {
    const newest = this.#snapshot.messages.findLast(({ seq }) => seq > 0)?.seq ?? 0;
    // What comes while nobody looks is new, and only that.
    if (document.hidden) this.#unread = { after: newest, upTo: Number.MAX_SAFE_INTEGER };
    else if (this.#unread) this.#unread = { ...this.#unread, upTo: Math.min(this.#unread.upTo, newest) };
    this.render();
  }

  #markRead(): void {
    if (document.hidden || !this.#hasOpened || !this.#unread || this.element.offsetParent === null) return;
    const seen = this.#lastSeen();
    const entry = this.#session.entry(this.#conversation.id);
    if (seen && entry && seen.seq > entry.read) this.#conversation.markRead(seen);
  }

  /** The newest message of which the end is in sight. */
  #lastSeen(): Message | undefined {
    const { messages } = this.#snapshot;
    const end = this.#scroller.getBoundingClientRect().bottom + END_PX;
    return messages.findLast(({ key, seq }) => {
      return seq > 0 && (this.#isAtEnd || (this.#rows.get(key)?.getBoundingClientRect().bottom ?? Infinity) <= end);
    });
  }

  // ---- scrolling ----

  #open(): void {
    this.#hasOpened = true;
    const mark = this.#rows.get("new");
    if (!mark) return this.toEnd();
    this.#scrollTo(mark.offsetTop - this.#scroller.clientHeight / 4);
    this.#scrolled();
  }

  toEnd(): void {
    this.#isAtEnd = true;
    this.#missed = 0;
    this.#scrollTo(this.#scroller.scrollHeight);
    this.render();
  }

  #scrolled(): void {
    this.#measure();
    this.#after();
  }

  #measure(): void {
    const { scrollTop, clientHeight, scrollHeight } = this.#scroller;
    this.#top = scrollTop;
    this.#isAtEnd = scrollHeight - scrollTop - clientHeight <= END_PX;
    if (this.#isAtEnd) this.#missed = 0;
  }

  #scrollTo(top: number): void {
    this.#scroller.scrollTop = top;
    this.#top = this.#scroller.scrollTop;
  }

  #resized(): void {
    if (this.#isAtEnd) this.#scrollTo(this.#scroller.scrollHeight);
    this.#after();
  }

  #after(): void {
    this.#markRead();
    const text = this.#missed > 0 ? count(this.#missed, "new message") : "Newest";
    const label = this.#jump.lastElementChild;
    if (label && label.textContent !== text) fill(label, text);
    this.#jump.hidden = this.#isAtEnd;
    if (this.#hasOpened && this.#snapshot.hasOlder && this.#scroller.scrollTop < OLDER_PX) void this.#loadOlder();
  }

  async #loadOlder(): Promise<void> {
    if (this.#isLoading) return;
    this.#isLoading = true;
    set(this.#list, "aria-busy", "true");
    try {
      await this.#conversation.loadOlder();
      this.render();
    } catch {
      // Scrolling asks again.
    } finally {
      this.#isLoading = false;
      set(this.#list, "aria-busy", undefined);
    }
  }

  /** The first message in sight, and where it stands. */
  #anchor(): { readonly key: string; readonly top: number } | undefined {
    const { top } = this.#scroller.getBoundingClientRect();
    for (const { key } of this.#snapshot.messages) {
      const box = this.#rows.get(key)?.getBoundingClientRect();
      if (box && box.bottom > top) return { key, top: box.top };
    }
    return undefined;
  }

  #keep({ key, top }: { readonly key: string; readonly top: number }): void {
    const now = this.#rows.get(key)?.getBoundingClientRect().top;
    if (now !== undefined && now !== top) this.#scrollTo(this.#scroller.scrollTop + now - top);
  }

  /** Shows a message, which may be older than what is here. */
  async showSeq(seq: number): Promise<void> {
    const find = () => this.#snapshot.messages.find((message) => message.seq === seq);
    while (!find() && this.#snapshot.hasOlder && (this.#snapshot.messages[0]?.seq ?? 0) > seq) {
      if (!(await this.#conversation.loadOlder().catch(() => false))) break;
      this.render();
    }
    const element = this.#rows.get(find()?.key ?? "");
    if (!element) return;
    this.#isAtEnd = false;
    element.scrollIntoView({ block: "center" });
    element.focus({ preventScroll: true });
    element.classList.add("flash");
    setTimeout(() => element.classList.remove("flash"), FLASH_MS);
  }

  // ---- keys ----

  #setCurrent(key: string): void {
    if (key === this.#current) return;
    set(this.#rows.get(this.#current) ?? this.#list, "tabindex", this.#rows.get(this.#current) ? -1 : undefined);
    this.#current = key;
    const element = this.#rows.get(key);
    if (element) set(element, "tabindex", 0);
  }

  focusLast(): void {
    this.#rows.get(this.#snapshot.messages.at(-1)?.key ?? "")?.focus();
  }

  #messageAt(target: EventTarget | null): Message | undefined {
    const element = target instanceof Element ? target.closest<HTMLElement>("[data-key]") : null;
    return this.#byKey.get(element?.dataset.key ?? "");
  }

  #focused({ target }: FocusEvent): void {
    const message = this.#messageAt(target);
    if (message) this.#setCurrent(message.key);
  }

  #contextMenu(event: MouseEvent): void {
    const message = this.#messageAt(event.target);
    if (!message || (event.target as Element).closest("a")) return;
    event.preventDefault();
    const element = this.#rows.get(message.key);
    // Without a pointer it belongs to the message.
    const isKey = event.button !== 2 || (event.clientX === 0 && event.clientY === 0);
    if (isKey && element) this.#actions.menu(message, bubbleOf(element));
    else this.#actions.menu(message, { x: event.clientX, y: event.clientY });
  }

  #key(event: KeyboardEvent): void {
    const element = event.target as HTMLElement;
    const message = this.#messageAt(element);
    if (!message || !element.matches("li")) return;
    const { messages } = this.#snapshot;
    const at = messages.indexOf(message);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: messages.length - 1 }[event.key];
    if (to !== undefined) {
      const next = messages[Math.max(0, Math.min(to, messages.length - 1))];
      const row = this.#rows.get(next?.key ?? "");
      row?.focus({ preventScroll: true });
      row?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" || event.key === " ") this.#actions.menu(message, bubbleOf(element));
    else return;
    event.preventDefault();
  }
}

function bubbleOf(element: HTMLElement): HTMLElement {
  return element.querySelector<HTMLElement>(".bubble") ?? element;
}

function isTogether(a: Message, b: Message): boolean {
  return a.sender === b.sender && b.timeMs - a.timeMs < TOGETHER_MS && dayOf(a.timeMs) === dayOf(b.timeMs);
}

function isSame(a: Row, b: Row): boolean {
  return (Object.keys(a) as (keyof Row)[]).every((name) => a[name] === b[name]);
}

/** Messages of others that have come at the end. */
function newOnes(messages: readonly Message[], before: ReadonlyMap<string, Message>): number {
  let found = 0;
  for (const { key, mine } of [...messages].reverse()) {
    if (before.has(key)) break;
    if (!mine) found += 1;
  }
  return found;
}
