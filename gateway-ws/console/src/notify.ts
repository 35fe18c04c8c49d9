/** What is said once: a line that goes away, and words for those who listen. */

import { h } from "./dom.js";

const SHOWN_MS = 6_000;

const toasts = h("div", { class: "toasts", role: "status" });
const spoken = h("div", { class: "unseen", role: "log", "aria-live": "polite", "aria-label": "New messages" });
/** How long words stay: they may be deleted where they came from. */
const SPOKEN_MS = 3_000;

export function mountNotices(): void {
  document.body.append(toasts, spoken);
}

/** Shows a line for a while. */
export function toast(text: string): void {
  const line = h("p", { class: "toast" }, text);
  toasts.append(line);
  setTimeout(() => line.remove(), SHOWN_MS);
}

/** Says something to those who listen to the page. */
export function speak(text: string): void {
  const words = h("p", {}, text);
  spoken.append(words);
  setTimeout(() => words.remove(), SPOKEN_MS);
}

/** What is shown if this fails: `what` could not be done. */
export function orSay(what: string): (error: unknown) => void {
  return (error) => toast(`Could not ${what}: ${reason(error)}`);
}

/** A refusal in the broker's own words, without its number. */
export function reason(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/^the broker refused with (\w+) \(\d+\)(: )?/, (_, code: string, more?: string) =>
    more ? "" : code.replaceAll("_", " "),
  );
}
