/** An open conversation: who it is with, what is said, and where one writes. */

import type { Conversation, Message } from "../../../sdk/typescript/src/index.js";
import { avatar, STATUS_NAMES, showAvatar } from "./avatar.js";
import { Composer } from "./composer.js";
import { confirmThat, conversationDetails } from "./dialog.js";
import { button, fill, h } from "./dom.js";
import { count, list } from "./format.js";
import { type MenuItem, openMenu } from "./menu.js";
import type { MessageActions } from "./message.js";
import { orSay, toast } from "./notify.js";
import { Pending, withOwn } from "./pending.js";
import { contentText, previewText } from "./preview.js";
import { LOBBY, type Session } from "./session.js";
import { TimelineView } from "./timeline.js";

const QUICK = ["👍", "❤️", "😂", "😮", "🙏"];

export class Pane {
  readonly element: HTMLElement;
  readonly #session: Session;
  readonly #id: string;
  readonly #conversation: Conversation;
  readonly #pending = new Pending(() => this.#timeline.render());
  readonly #timeline: TimelineView;
  readonly #composer: Composer;
  readonly #face = avatar(true);
  readonly #title = h("h2", {});
  readonly #subtitle = h("p", { class: "subtitle" });
  readonly #pinned = h("div", { class: "pinned-bar", hidden: true });
  readonly #typing = h("p", { class: "typing", role: "status" });
  readonly #over = h("div", { class: "over", hidden: true });
  readonly #off: () => void;

  constructor(session: Session, id: string) {
    this.#session = session;
    this.#id = id;
    this.#conversation = session.follow(id);
    if (id === LOBBY) session.enterLobby().catch(() => {});
    this.#timeline = new TimelineView(session, this.#conversation, this.#pending, this.#actions());
    this.#composer = new Composer(this.#conversation, this.#pending, session.title(id), {
      sent: () => this.#timeline.answered(),
      editLast: () => this.#editLast(),
    });
    this.element = h(
      "section",
      { class: "pane", "aria-label": "Conversation" },
      this.#header(),
      this.#pinned,
      this.#timeline.element,
      this.#typing,
      this.#over,
      this.#composer.element,
    );
    this.#off = session.onChange(() => this.#render());
    this.#render();
    this.#timeline.render();
  }

  close(): void {
    this.#off();
    this.#timeline.close();
  }

  focus(): void {
    this.#composer.focus();
  }

  #header(): HTMLElement {
    const back = h("a", { class: "icon-button back", href: "#/", "aria-label": "Back to the list" });
    back.append(button({ label: "", icon: "back", press: () => {} }).firstElementChild ?? "");
    const about = button({
      label: "Members and name",
      icon: "group",
      press: () => conversationDetails(this.#session, this.#id),
    });
    const more = button({
      ...{ label: "Pin, mute and more", icon: "more", attributes: { "aria-haspopup": "menu" } },
      press: (event) => this.#more(event.currentTarget as HTMLElement),
    });
    return h(
      "header",
      { class: "pane-header" },
      back,
      this.#face,
      h("div", { class: "titles" }, this.#title, this.#subtitle),
      about,
      more,
    );
  }

  #more(at: HTMLElement): void {
    const entry = this.#session.entry(this.#id);
    const prefer = (preferences: { pinned?: boolean; muted?: boolean }) => () =>
      void this.#conversation.setPreferences(preferences).catch(orSay("change that"));
    const items: MenuItem[] = [];
    if (entry) {
      const { pinned, muted } = entry;
      items.push({
        text: pinned ? "Unpin from the list" : "Pin to the list",
        icon: "pin",
        act: prefer({ pinned: !pinned }),
      });
      items.push({ text: muted ? "Unmute" : "Mute", icon: "mute", act: prefer({ muted: !muted }) });
    }
    items.push({ text: "Members and name", icon: "group", act: () => conversationDetails(this.#session, this.#id) });
    openMenu(at, "Conversation", items);
  }

  // ---- what is shown ----

  #render(): void {
    const { messages, typing, detached } = this.#conversation.snapshot();
    const title = this.#session.title(this.#id);
    const peer = this.#session.peer(this.#id);
    const isDirect = this.#session.isDirect(this.#id);
    const status = this.#session.status(peer);
    showAvatar(this.#face, title, isDirect ? status : this.#id === LOBBY ? "lobby" : "group");
    if (this.#title.textContent !== title) fill(this.#title, title);
    const subtitle = isDirect ? STATUS_NAMES[status] : this.#about();
    if (this.#subtitle.textContent !== subtitle) fill(this.#subtitle, subtitle);
    const words = typing.length === 0 ? "" : `${list(typing)} ${typing.length > 1 ? "are" : "is"} typing…`;
    if (this.#typing.textContent !== words) fill(this.#typing, words);
    this.#showPinned(messages.findLast((message) => message.pinned && !message.redacted));
    this.#showOver(detached && detached.why !== "stopped" && detached.why !== "alreadySubscribed" ? detached.why : "");
  }

  #about(): string {
    const members = this.#session.info(this.#id)?.members;
    if (!members) return this.#id === LOBBY ? "Open to everybody" : "";
    const there = members.filter(({ user }) => !["offline", "unknown"].includes(this.#session.status(user))).length;
    return `${count(members.length, "member")}${there > 0 ? `, ${there} online` : ""}`;
  }

  #showPinned(message: Message | undefined): void {
    const text = message ? `${message.sender}: ${previewText(message.content, false)}` : "";
    this.#pinned.hidden = !message;
    if (!message || this.#pinned.textContent === text) return;
    const press = () => void this.#timeline.showSeq(message.seq);
    fill(this.#pinned, button({ label: `Pinned: ${text}`, icon: "pin", text, class: "pinned-link", press }));
  }

  /** The broker has ended this: nothing can be said here. */
  #showOver(why: string): void {
    const isOver = why !== "" && why !== "unsubscribed";
    this.#over.hidden = !isOver;
    this.#composer.element.hidden = isOver;
    const texts: { readonly [why: string]: string } = {
      removed: "You are not a member of this conversation any more.",
      deleted: "This conversation was deleted.",
    };
    const text = texts[why] ?? "This conversation cannot be followed.";
    if (isOver && this.#over.textContent !== text) fill(this.#over, text);
  }

  // ---- what can be done with a message ----

  #actions(): MessageActions {
    return {
      user: this.#session.user,
      react: (message, key) => this.#react(message, key),
      reply: (message) => this.#composer.reply(message),
      menu: (message, at) => this.#menu(message, at),
      show: (seq) => void this.#timeline.showSeq(seq),
      retry: (message) => void this.#conversation.retry(message),
      discard: (message) => this.#conversation.discard(message),
    };
  }

  #isMine(message: Message, key: string): boolean {
    const reactions = withOwn(message.reactions, this.#pending.of(message), this.#session.user);
    return reactions.some((reaction) => reaction.key === key && reaction.mine);
  }

  #react(message: Message, key: string): void {
    const on = !this.#isMine(message, key);
    const done = on ? this.#conversation.react(message, key) : this.#conversation.unreact(message, key);
    this.#pending.react(message, key, on, done);
    done.catch(orSay("react"));
  }

  #menu(message: Message, at: HTMLElement | { readonly x: number; readonly y: number }): void {
    const isDeleted = message.redacted || this.#pending.of(message)?.isDeleted === true;
    const copy: MenuItem = { text: "Copy text", icon: "copy", act: () => void this.#copy(message) };
    if (message.seq === 0) {
      const items: MenuItem[] = [copy];
      if (message.status === "failed") {
        items.unshift({ text: "Try again", icon: "retry", act: () => void this.#conversation.retry(message) });
        items.push({ text: "Discard", icon: "bin", isDangerous: true, act: () => this.#conversation.discard(message) });
      }
      return openMenu(at, "Message", items);
    }
    const hide: MenuItem = { text: "Delete for me", icon: "eyeOff", act: () => this.#hide(message) };
    if (isDeleted) return openMenu(at, "Message", [hide]);
    const quick = QUICK.map((key) => ({
      ...{ text: key, label: `React with ${key}`, isChosen: this.#isMine(message, key) },
      act: () => this.#react(message, key),
    }));
    openMenu(at, "Message", [...this.#items(message, copy), hide, ...this.#deleteForAll(message)], quick);
  }

  #items(message: Message, copy: MenuItem): MenuItem[] {
    const pin = () => {
      const done = message.pinned ? this.#conversation.unpin(message) : this.#conversation.pin(message);
      done.catch(orSay("pin the message"));
    };
    const isText = message.content.type === "text";
    return [
      { text: "Reply", icon: "reply", act: () => this.#composer.reply(message) },
      ...(message.mine && isText
        ? [{ text: "Edit", icon: "edit", act: () => this.#composer.edit(message) } as const]
        : []),
      copy,
      { text: message.pinned ? "Unpin" : "Pin", icon: "pin", act: pin },
    ];
  }

  #deleteForAll(message: Message): MenuItem[] {
    const role = this.#session.info(this.#id)?.members.find(({ user }) => user === this.#session.user)?.role;
    if (!message.mine && role !== "owner" && role !== "admin") return [];
    const go = () => {
      const done = this.#conversation.redact(message);
      this.#pending.remove(message, done);
      done.catch(orSay("delete the message"));
    };
    const ask = () => confirmThat("Delete for everyone?", "The text goes away for everybody, for good.", "Delete", go);
    return [{ text: "Delete for everyone", icon: "bin", isDangerous: true, act: ask }];
  }

  #hide(message: Message): void {
    this.#conversation.hide(message).catch(orSay("hide the message"));
  }

  async #copy(message: Message): Promise<void> {
    try {
      await navigator.clipboard.writeText(contentText(message.content));
      toast("Copied.");
    } catch (error) {
      orSay("copy")(error);
    }
  }

  #editLast(): void {
    const last = this.#conversation
      .snapshot()
      .messages.findLast(({ mine, seq, redacted }) => mine && seq > 0 && !redacted);
    if (last && last.content.type === "text") this.#composer.edit(last);
  }
}
