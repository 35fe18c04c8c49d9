/** Where one writes: a new message, an answer, or an earlier message anew. */

import type { Conversation, Message } from "../../../sdk/typescript/src/index.js";
import { button, fill, h } from "./dom.js";
import { orSay } from "./notify.js";
import type { Pending } from "./pending.js";
import { contentText, previewText } from "./preview.js";

const BORDERS_PX = 2;

type Mode = { readonly is: "new" } | { readonly is: "reply" | "edit"; readonly message: Message };

/** What was not sent yet, by conversation: it is there when one comes back. */
const drafts = new Map<string, string>();

export class Composer {
  readonly element: HTMLElement;
  readonly #conversation: Conversation;
  readonly #pending: Pending;
  readonly #text: HTMLTextAreaElement;
  readonly #about: HTMLElement;
  readonly #send: HTMLButtonElement;
  #mode: Mode = { is: "new" };
  readonly #events: { readonly sent: () => void; readonly editLast: () => void };

  constructor(
    conversation: Conversation,
    pending: Pending,
    name: string,
    events: { readonly sent: () => void; readonly editLast: () => void },
  ) {
    this.#conversation = conversation;
    this.#pending = pending;
    this.#events = events;
    this.#about = h("div", { class: "composing", hidden: true });
    this.#text = h("textarea", {
      rows: 1,
      placeholder: "Write a message",
      "aria-label": `Message to ${name}`,
      enterkeyhint: "send",
    });
    this.#text.value = drafts.get(conversation.id) ?? "";
    this.#send = button({ label: "Send", icon: "send", class: "icon-button send", press: () => this.#submit() });
    this.#text.addEventListener("input", () => this.#typed());
    this.#text.addEventListener("keydown", (event) => this.#key(event));
    const submit = (event: Event) => {
      event.preventDefault();
      this.#submit();
    };
    this.element = h(
      "form",
      { class: "composer", on: { submit } },
      this.#about,
      h("div", { class: "row" }, this.#text, this.#send),
    );
    this.#fit();
  }

  focus(): void {
    this.#text.focus();
  }

  reply(message: Message): void {
    this.#setMode({ is: "reply", message });
  }

  edit(message: Message): void {
    this.#text.value = contentText(message.content);
    this.#setMode({ is: "edit", message });
    this.#text.select();
  }

  #setMode(mode: Mode): void {
    if (this.#mode.is === "edit" && mode.is !== "edit") this.#text.value = drafts.get(this.#conversation.id) ?? "";
    this.#mode = mode;
    this.#about.hidden = mode.is === "new";
    fill(this.#about);
    if (mode.is !== "new") {
      const { message } = mode;
      const what = mode.is === "edit" ? "Edit" : `Reply to ${message.mine ? "yourself" : message.sender}`;
      const text = h("p", {}, h("strong", {}, what), " ", previewText(message.content, message.redacted));
      fill(this.#about, text, button({ label: "Cancel", icon: "close", press: () => this.#cancel() }));
    }
    this.#fit();
    this.focus();
  }

  #cancel(): void {
    this.#setMode({ is: "new" });
  }

  #typed(): void {
    if (this.#mode.is !== "edit") drafts.set(this.#conversation.id, this.#text.value);
    if (this.#text.value !== "") this.#conversation.typing();
    this.#fit();
  }

  /** As high as its text, within what the style allows. */
  #fit(): void {
    this.#text.style.height = "auto";
    // Browsers that size it by themselves need no help, and what is not on the page yet has no height.
    if (this.#text.isConnected && !CSS.supports("field-sizing", "content")) {
      this.#text.style.height = `${this.#text.scrollHeight + BORDERS_PX}px`;
    }
    this.#send.disabled = this.#text.value.trim() === "";
  }

  #key(event: KeyboardEvent): void {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.#submit();
    else if (event.key === "Escape" && this.#mode.is !== "new") this.#cancel();
    else if (event.key === "ArrowUp" && this.#text.value === "") this.#events.editLast();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #submit(): void {
    const text = this.#text.value.trim();
    if (text === "") return;
    const mode = this.#mode;
    if (mode.is === "edit") {
      if (text !== contentText(mode.message.content)) {
        const done = this.#conversation.edit(mode.message, text);
        this.#pending.edit(mode.message, text, done);
        done.catch(orSay("edit the message"));
      }
      return this.#cancel();
    }
    // What goes wrong is shown with the message.
    if (mode.is === "reply") void this.#conversation.send({ text, replyTo: mode.message });
    else void this.#conversation.send(text);
    drafts.delete(this.#conversation.id);
    this.#text.value = "";
    this.#setMode({ is: "new" });
    this.#events.sent();
  }
}
