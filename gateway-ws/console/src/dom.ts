/** Elements in one call. Nothing here sets HTML: text is text. */

type Child = Node | string | false | undefined | null;
type Listeners = { readonly [Name in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[Name]) => void };

export interface Attributes {
  readonly class?: string;
  readonly on?: Listeners;
  /** Any other: `true` is there, `false` and `undefined` are not. */
  readonly [attribute: string]: string | number | boolean | undefined | Listeners;
}

export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  const { on, ...rest } = attributes;
  for (const [name, value] of Object.entries(rest)) set(element, name, value as string | number | boolean | undefined);
  for (const [name, listener] of Object.entries(on ?? {})) element.addEventListener(name, listener as EventListener);
  append(element, children);
  return element;
}

/** Sets an attribute, or takes it away. */
export function set(element: Element, name: string, value: string | number | boolean | undefined): void {
  if (value === undefined || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : String(value));
}

/** Puts these children in place of what there is. */
export function fill(element: Element, ...children: Child[]): void {
  element.replaceChildren();
  append(element, children);
}

function append(element: Element, children: readonly Child[]): void {
  for (const child of children) if (child || child === "") element.append(child);
}

const SVG = "http://www.w3.org/2000/svg";

/** Paths of the icons, on a grid of 24, drawn with a line. */
const ICONS = {
  add: "M12 5v14M5 12h14",
  back: "M15 5l-7 7 7 7",
  bin: "M5 7h14M10 7V5h4v2M7 7l1 12h8l1-12",
  clock: "M12 7v5l3 2M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v10H9zM5 15V5h10",
  down: "M12 5v14M6 13l6 6 6-6",
  edit: "M5 19h4L19 9l-4-4L5 15zM13 7l4 4",
  eyeOff:
    "M4 4l16 16M10 6.3A8.6 8.6 0 0 1 12 6c5 0 8 6 8 6a14 14 0 0 1-2 2.7M6.500 8.300A13.600 13.600 0 0 0 4 12s3 6 8 6a8 8 0 0 0 3.500-.8",
  group:
    "M9 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6M3.500 19a5.500 5.500 0 0 1 11 0M16 11a2.500 2.500 0 1 0-1-4.800M17 14.200a5 5 0 0 1 3.500 4.800",
  hash: "M9 4L7 20M17 4l-2 16M4.500 9H20M4 15h15.500",
  leave: "M10 5H5v14h5M14 8l4 4-4 4M18 12H9",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  mute: "M6.500 9.500a5.500 5.500 0 0 1 8.600-4M17.500 10v2.500L19 16H8M10 19h4M4 4l16 16",
  pin: "M9 4h6l-1 6 3 3v2H7v-2l3-3zM12 15v5",
  reply: "M10 6l-6 5 6 5v-3c5 0 8 1 10 5 0-6-3-10-10-10z",
  retry: "M19 12a7 7 0 1 1-2-5M19 4v4h-4",
  send: "M5 12h13M12 5.500l6.500 6.500-6.500 6.500",
  smile: "M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16M9 10h.01M15 10h.01M8.500 14a4.500 4.500 0 0 0 7 0",
  sent: "M5 12.500l4.500 4.500L19 7.500",
  both: "M2 12.500L6.500 17 16 7.500M11.500 16l1 1L22 7.500",
} as const;

export type IconName = keyof typeof ICONS;

/** Two who speak in turn. */
export function brand(): SVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 32 32");
  svg.setAttribute("class", "brand");
  svg.setAttribute("aria-hidden", "true");
  const shapes = [
    ["rect", { width: "32", height: "32", rx: "8" }],
    ["path", { d: "M7 9h12v7H12l-3 3v-3H7zM13 18h9v-5h3v8h-2v3l-3-3h-7z" }],
  ] as const;
  for (const [name, attributes] of shapes) {
    const shape = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    svg.append(shape);
  }
  return svg;
}

/** A picture beside a text or a label, which says what it means. */
export function icon(name: IconName): SVGElement {
  const svg = document.createElementNS(SVG, "svg");
  const attributes = { viewBox: "0 0 24 24", class: `icon icon-${name}`, "aria-hidden": "true", focusable: "false" };
  for (const [key, value] of Object.entries(attributes)) svg.setAttribute(key, value);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

export interface ButtonOptions {
  readonly label: string;
  readonly press: (event: MouseEvent) => void;
  readonly icon?: IconName;
  /** Its text; without one it is a picture, and the label is its tip too. */
  readonly text?: string;
  readonly class?: string;
  readonly attributes?: Attributes;
}

export function button(options: ButtonOptions): HTMLButtonElement {
  const { label, press, text } = options;
  const about =
    text === undefined ? { "aria-label": label, title: label } : label === text ? {} : { "aria-label": label };
  const look = options.class ?? (text === undefined ? "icon-button" : "button");
  return h(
    "button",
    { type: "button", class: look, ...about, ...options.attributes, on: { click: press } },
    options.icon && icon(options.icon),
    text !== undefined && h("span", {}, text),
  );
}

/** Text for those who listen, not for those who look. */
export function unseen(text: string): HTMLSpanElement {
  return h("span", { class: "unseen" }, text);
}

/**
 * Makes `parent` hold one child for each item, in order. A child is made once, and updated when its item is another.
 * The child with the focus is not moved, so it keeps it.
 */
export class Keyed<Item> {
  readonly #parent: Element;
  readonly #make: (item: Item) => HTMLElement;
  readonly #update: (element: HTMLElement, item: Item) => void;
  readonly #known = new Map<string, { element: HTMLElement; item: Item }>();

  constructor(parent: Element, make: (item: Item) => HTMLElement, update: (element: HTMLElement, item: Item) => void) {
    this.#parent = parent;
    this.#make = make;
    this.#update = update;
  }

  /** The child of a key. */
  get(key: string): HTMLElement | undefined {
    return this.#known.get(key)?.element;
  }

  show(items: readonly Item[], keyOf: (item: Item) => string, isSame: (a: Item, b: Item) => boolean): void {
    const keys = new Set(items.map(keyOf));
    for (const [key, { element }] of this.#known) {
      if (keys.has(key)) continue;
      element.remove();
      this.#known.delete(key);
    }
    let next = this.#parent.firstElementChild;
    for (const item of items) {
      const element = this.#one(keyOf(item), item, isSame);
      if (element === next) next = next.nextElementSibling;
      else this.#parent.insertBefore(element, next);
    }
  }

  #one(key: string, item: Item, isSame: (a: Item, b: Item) => boolean): HTMLElement {
    const known = this.#known.get(key);
    if (!known) {
      const element = this.#make(item);
      this.#update(element, item);
      this.#known.set(key, { element, item });
      return element;
    }
    if (!isSame(known.item, item)) {
      this.#update(known.element, item);
      known.item = item;
    }
    return known.element;
  }
}
