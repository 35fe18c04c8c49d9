/** One message as it is shown. */

import type { Message, MessageStatus, ReplyPreview } from "../../../sdk/typescript/src/index.js";
import { button, fill, h, icon, set, unseen } from "./dom.js";
import { clock, exactly, list } from "./format.js";
import { reason } from "./notify.js";
import { type Pending, withOwn } from "./pending.js";
import { contentText, previewText } from "./preview.js";

export interface MessageRow {
  readonly type: "message";
  readonly key: string;
  readonly message: Message;
  readonly change: ReturnType<Pending["of"]>;
  /** The one that it answers, where the message itself does not say it yet. */
  readonly answered: Message | undefined;
  /** First and last of what one sender says in a row. */
  readonly begins: boolean;
  readonly ends: boolean;
  /** Whether it says who sent it. */
  readonly named: boolean;
}

export interface MessageActions {
  readonly user: string;
  react(message: Message, key: string): void;
  reply(message: Message): void;
  menu(message: Message, at: HTMLElement | { readonly x: number; readonly y: number }): void;
  show(seq: number): void;
  retry(message: Message): void;
  discard(message: Message): void;
}

export function updateMessage(element: HTMLElement, row: MessageRow, actions: MessageActions): void {
  const { message } = row;
  const isDeleted = message.redacted || row.change?.isDeleted === true;
  const side = message.mine ? "mine" : "theirs";
  set(
    element,
    "class",
    `message ${side}${row.begins ? " begins" : ""}${row.ends ? " ends" : ""}${isDeleted ? " deleted" : ""}`,
  );
  set(element, "data-seq", message.seq || undefined);
  set(element, "data-status", message.status);
  const reactions = isDeleted ? [] : withOwn(message.reactions, row.change, actions.user);
  fill(
    element,
    row.named && row.begins
      ? h("p", { class: "sender" }, message.sender)
      : unseen(message.mine ? "You:" : `${message.sender}:`),
    h(
      "div",
      { class: "line" },
      bubble(row, isDeleted, actions),
      message.seq > 0 && !isDeleted && tools(message, actions),
    ),
    reactions.length > 0 &&
      h("div", { class: "reactions" }, ...reactions.map((reaction) => chip(message, reaction, actions))),
    message.status === "failed" && failure(message, actions),
  );
}

function bubble(row: MessageRow, isDeleted: boolean, actions: MessageActions): HTMLElement {
  const { message, change } = row;
  const isEdited = change?.text !== undefined || message.editedMs > 0;
  const text = change?.text ?? contentText(message.content);
  return h(
    "div",
    { class: "bubble" },
    !isDeleted && quote(row, actions),
    isDeleted
      ? h("p", { class: "text" }, "This message was deleted")
      : h("p", { class: message.content.type === "text" ? "text" : "text code" }, ...linked(text)),
    h(
      "span",
      { class: "about" },
      message.pinned && !isDeleted && h("span", { class: "pinned" }, icon("pin"), unseen("pinned")),
      isEdited && !isDeleted && h("span", { class: "edited" }, "edited"),
      h(
        "time",
        { datetime: new Date(message.timeMs).toISOString(), title: exactly(message.timeMs) },
        clock(message.timeMs),
      ),
      message.mine && tick(message.status),
    ),
  );
}

const TICKS: { readonly [status in MessageStatus]: readonly [Parameters<typeof icon>[0], string] | undefined } = {
  queued: ["clock", "Waiting to be sent"],
  sending: ["clock", "Being sent"],
  sent: ["sent", "Sent"],
  delivered: ["both", "Delivered"],
  read: ["both", "Read"],
  failed: undefined,
  received: undefined,
};

function tick(status: MessageStatus): HTMLElement | undefined {
  const [name, text] = TICKS[status] ?? [];
  return name && h("span", { class: `tick ${status}`, role: "img", "aria-label": text, title: text }, icon(name));
}

function quote({ message, answered }: MessageRow, actions: MessageActions): HTMLElement | undefined {
  const { replyTo, reply } = message;
  if (!replyTo) return undefined;
  const shown = reply ?? (answered && { ...answered, cut: false });
  const press = () => actions.show(replyTo.seq);
  return h(
    "button",
    {
      type: "button",
      class: "quote",
      tabindex: -1,
      on: { click: press },
    },
    unseen("Show what this answers: "),
    h("span", { class: "sender" }, shown?.sender ?? ""),
    h("span", { class: "quoted" }, shown ? quoted(shown) : "A message that is not here any more"),
  );
}

function quoted({ content, redacted, cut }: Pick<ReplyPreview, "content" | "redacted" | "cut">): string {
  return `${previewText(content, redacted)}${cut ? "…" : ""}`;
}

function chip(message: Message, reaction: Message["reactions"][number], actions: MessageActions): HTMLElement {
  const { key, count, mine, users } = reaction;
  const about = { tabindex: -1, "aria-pressed": String(mine), title: list(users) };
  const press = () => actions.react(message, key);
  return h(
    "button",
    { type: "button", class: "reaction", ...about, on: { click: press } },
    h("span", {}, key),
    ` ${count}`,
    unseen(`, ${list(users)}`),
  );
}

function tools(message: Message, actions: MessageActions): HTMLElement {
  const attributes = { tabindex: -1 };
  const more = (event: MouseEvent) => actions.menu(message, event.currentTarget as HTMLElement);
  return h(
    "div",
    { class: "tools" },
    button({ label: "Reply", icon: "reply", attributes, press: () => actions.reply(message) }),
    button({ label: "React and more", icon: "more", attributes, press: more }),
  );
}

function failure(message: Message, actions: MessageActions): HTMLElement {
  return h(
    "p",
    { class: "failure" },
    h("span", {}, `Not sent: ${reason(message.error)}`),
    button({ label: "Try again", text: "Try again", class: "link", press: () => actions.retry(message) }),
    button({ label: "Discard", text: "Discard", class: "link", press: () => actions.discard(message) }),
  );
}

const LINK = /https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]}']/g;

/** Text with its addresses as links. */
function linked(text: string): (string | HTMLElement)[] {
  const parts: (string | HTMLElement)[] = [];
  let end = 0;
  for (const { 0: url, index } of text.matchAll(LINK)) {
    parts.push(text.slice(end, index), h("a", { href: url, target: "_blank", rel: "noreferrer" }, url));
    end = index + url.length;
  }
  return [...parts, text.slice(end)];
}
