/** A menu of actions: over the page, left with Escape or a press elsewhere; arrows move, and the focus goes back. */

import { h, type IconName, icon } from "./dom.js";

export interface MenuItem {
  readonly text: string;
  readonly icon?: IconName;
  readonly act: () => void;
  readonly isDangerous?: boolean;
  /** Of a choice or a switch. */
  readonly isChosen?: boolean;
}

export interface QuickItem {
  readonly text: string;
  readonly label: string;
  readonly isChosen: boolean;
  readonly act: () => void;
}

const GAP = 6;

/** Opens a menu beside an element. `quick` are small buttons in a row on top. */
export function openMenu(
  at: HTMLElement | { readonly x: number; readonly y: number },
  label: string,
  items: readonly MenuItem[],
  quick: readonly QuickItem[] = [],
): void {
  const before = document.activeElement;
  const close = () => menu.hidePopover();
  const done = (act: () => void) => () => {
    close();
    act();
  };
  const menu = h(
    "div",
    { class: "menu", role: "menu", "aria-label": label, popover: "auto", tabindex: -1 },
    quick.length > 0 &&
      h("div", { class: "quick", role: "group", "aria-label": "Reactions" }, ...quick.map(quickItem(done))),
    ...items.map(item(done)),
  );
  menu.addEventListener("keydown", (event) => move(menu, event, close));
  menu.addEventListener("toggle", (event) => {
    if ((event as ToggleEvent).newState !== "closed") return;
    const hadFocus = menu.contains(document.activeElement) || document.activeElement === document.body;
    menu.remove();
    if (hadFocus && before instanceof HTMLElement) before.focus();
  });
  document.body.append(menu);
  menu.showPopover();
  place(menu, at);
  menu.querySelector<HTMLElement>("[role^=menuitem]")?.focus();
}

function quickItem(done: (act: () => void) => () => void): (item: QuickItem) => HTMLElement {
  return ({ text, label, isChosen, act }) => {
    const about = { role: "menuitemcheckbox", "aria-checked": String(isChosen), "aria-label": label };
    return h("button", { type: "button", tabindex: -1, ...about, on: { click: done(act) } }, text);
  };
}

function item(done: (act: () => void) => () => void): (item: MenuItem) => HTMLElement {
  return ({ text, icon: name, act, isDangerous, isChosen }) => {
    const isChoice = isChosen !== undefined;
    const about = {
      role: isChoice ? "menuitemradio" : "menuitem",
      ...(isChoice && { "aria-checked": String(isChosen) }),
    };
    const look = isDangerous ? "dangerous" : "";
    return h(
      "button",
      { type: "button", tabindex: -1, class: look, ...about, on: { click: done(act) } },
      name ? icon(name) : isChoice && icon("sent"),
      h("span", {}, text),
    );
  };
}

function move(menu: HTMLElement, event: KeyboardEvent, close: () => void): void {
  const all = [...menu.querySelectorAll<HTMLElement>("[role^=menuitem]")];
  const at = all.indexOf(document.activeElement as HTMLElement);
  const quick = menu.querySelectorAll(".quick > *").length;
  const inQuick = at >= 0 && at < quick;
  const to: { readonly [key: string]: number | undefined } = {
    ArrowDown: inQuick ? quick : at + 1,
    ArrowUp: at === quick && quick > 0 ? 0 : inQuick ? -1 : at - 1,
    ArrowRight: inQuick ? Math.min(at + 1, quick - 1) : at,
    ArrowLeft: inQuick ? Math.max(at - 1, 0) : at,
    Home: 0,
    End: all.length - 1,
  };
  const next = to[event.key];
  if (event.key === "Tab") close();
  else if (next === undefined) return;
  else all.at(next % all.length)?.focus();
  event.preventDefault();
  event.stopPropagation();
}

/** Below or above, inside the window. */
function place(menu: HTMLElement, at: HTMLElement | { readonly x: number; readonly y: number }): void {
  const box = at instanceof HTMLElement ? at.getBoundingClientRect() : new DOMRect(at.x, at.y, 0, 0);
  const { width, height } = menu.getBoundingClientRect();
  const below = box.bottom + GAP + height <= innerHeight;
  const top = below ? box.bottom + GAP : Math.max(box.top - GAP - height, GAP);
  const left = box.left + width <= innerWidth - GAP ? box.left : box.right - width;
  menu.style.top = `${Math.min(top, innerHeight - height - GAP)}px`;
  menu.style.left = `${Math.max(Math.min(left, innerWidth - width - GAP), GAP)}px`;
}
