/** A round picture of a name, with a dot that says whether its user is there. */

import type { PresenceStatus } from "../../../sdk/typescript/src/index.js";
import { fill, h, icon, set } from "./dom.js";
import { initials } from "./format.js";

export const STATUS_NAMES: { readonly [status in PresenceStatus]: string } = {
  online: "Online",
  away: "Away",
  busy: "Busy",
  offline: "Offline",
  unknown: "Not known",
};

/** `isSaid`: a text beside it says what it shows. */
export function avatar(isSaid = false): HTMLElement {
  return h("span", { class: "avatar", "aria-hidden": isSaid && "true" }, h("span", { "aria-hidden": "true" }));
}

/** `status` undefined = of a group, which has none. */
export function showAvatar(element: HTMLElement, name: string, status: PresenceStatus | "group" | "lobby"): void {
  const [face] = element.children;
  if (!face) return;
  const isUser = status !== "group" && status !== "lobby";
  fill(face, isUser ? initials(name) : icon(status === "lobby" ? "hash" : "group"));
  set(element, "data-status", isUser ? status : undefined);
  const dot = element.querySelector(".dot");
  if (!isUser) dot?.remove();
  else if (!dot) element.append(h("span", { class: "dot", role: "img", "aria-label": STATUS_NAMES[status] }));
  else set(dot, "aria-label", STATUS_NAMES[status]);
}
