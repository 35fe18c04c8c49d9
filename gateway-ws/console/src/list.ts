/** The list of conversations. Arrows move in it, Enter opens. */

import type { InboxEntry, PresenceStatus } from "../../../sdk/typescript/src/index.js";
import { avatar, showAvatar } from "./avatar.js";
import { fill, h, icon, Keyed, set, unseen } from "./dom.js";
import { briefly, count, list as named } from "./format.js";
import { previewText } from "./preview.js";
import { LOBBY, type Session } from "./session.js";

const BADGE_MAX = 99;

interface Row {
  readonly id: string;
  readonly title: string;
  readonly status: PresenceStatus | "group" | "lobby";
  readonly time: string;
  readonly preview: string;
  readonly isTyping: boolean;
  readonly unread: number;
  readonly pinned: boolean;
  readonly muted: boolean;
  readonly isOpen: boolean;
}

export interface List {
  readonly element: HTMLElement;
  /** Shows which conversation is open. */
  open(id: string | undefined): void;
}

export function conversationList(session: Session): List {
  const ul = h("ul", { class: "list", "aria-label": "Conversations" });
  const empty = h("p", { class: "list-empty" });
  const rows = new Keyed<Row>(ul, makeRow, updateRow);
  let opened: string | undefined;
  ul.addEventListener("keydown", (event) => moveIn(ul, event));

  const render = () => {
    const entries = session.inbox.entries().filter(({ deleted }) => !deleted);
    const shown = entries.map((entry) => rowOf(session, entry, opened));
    if (!session.entry(LOBBY)) shown.push({ ...LOBBY_ROW, isOpen: opened === LOBBY });
    const focused = document.activeElement;
    rows.show(shown, ({ id }) => id, isSame);
    if (focused instanceof HTMLElement && ul.contains(focused) && document.activeElement !== focused) focused.focus();
    const total = entries.reduce((sum, { unread, muted }) => sum + (muted ? 0 : unread), 0);
    document.title = total > 0 ? `(${total}) Antiphon · ${session.user}` : `Antiphon · ${session.user}`;
    fill(empty, session.isListed && entries.length === 0 && "Start a conversation with +, or enter the lobby.");
    empty.hidden = empty.textContent === "";
  };
  session.onChange(render);
  render();
  return {
    element: h("nav", { class: "conversations", "aria-label": "Conversations" }, ul, empty),
    open: (id) => {
      opened = id;
      render();
    },
  };
}

const LOBBY_ROW: Row = {
  ...{ id: LOBBY, title: "Lobby", status: "lobby", time: "", preview: "Open to everybody", isTyping: false },
  ...{ unread: 0, pinned: false, muted: false, isOpen: false },
};

function rowOf(session: Session, entry: InboxEntry, opened: string | undefined): Row {
  const { id, kind, last, unread, pinned, muted, timeMs } = entry;
  const peer = kind === "direct" ? session.peer(id) : undefined;
  const status = kind === "direct" ? session.status(peer) : id === LOBBY ? "lobby" : "group";
  const typing = session.typing(id);
  const text = last && previewText(last.content, last.redacted);
  const who = last && (last.sender === session.user ? "You: " : kind === "direct" ? "" : `${last.sender}: `);
  const preview =
    typing.length > 0
      ? `${named(typing)} ${typing.length > 1 ? "are" : "is"} typing…`
      : last
        ? `${who}${text}`
        : "No messages yet";
  const time = briefly(last?.timeMs ?? timeMs, Date.now());
  return {
    id,
    title: session.title(id),
    status,
    time,
    preview,
    isTyping: typing.length > 0,
    unread,
    pinned,
    muted,
    isOpen: id === opened,
  };
}

function isSame(a: Row, b: Row): boolean {
  return (Object.keys(a) as (keyof Row)[]).every((name) => a[name] === b[name]);
}

function makeRow({ id }: Row): HTMLElement {
  const parts = [
    avatar(),
    h("span", { class: "name" }),
    h("span", { class: "time" }),
    h("span", { class: "preview" }),
    h("span", { class: "marks" }),
  ];
  return h("li", {}, h("a", { href: `#/${encodeURIComponent(id)}`, "data-id": id }, ...parts));
}

function updateRow(element: HTMLElement, row: Row): void {
  const link = element.firstElementChild;
  const [face, name, time, preview, marks] = (link?.children ?? []) as unknown as HTMLElement[];
  if (!link || !face || !name || !time || !preview || !marks) return;
  set(link, "aria-current", row.isOpen && "true");
  set(link, "class", row.unread > 0 && !row.muted ? "unread" : undefined);
  showAvatar(face, row.title, row.status);
  fill(name, row.title);
  fill(time, row.time);
  fill(preview, row.preview);
  set(preview, "class", row.isTyping ? "preview typing" : "preview");
  const badge = row.unread > BADGE_MAX ? `${BADGE_MAX}+` : String(row.unread);
  fill(
    marks,
    row.pinned && icon("pin"),
    row.pinned && unseen("pinned"),
    row.muted && icon("mute"),
    row.muted && unseen("muted"),
    row.unread > 0 &&
      h(
        "span",
        { class: row.muted ? "badge quiet" : "badge" },
        h("span", { "aria-hidden": "true" }, badge),
        unseen(count(row.unread, "unread message")),
      ),
  );
}

function moveIn(ul: HTMLElement, event: KeyboardEvent): void {
  const links = [...ul.querySelectorAll("a")];
  const at = links.indexOf(document.activeElement as HTMLAnchorElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  links[Math.max(0, Math.min(to, links.length - 1))]?.focus();
}
