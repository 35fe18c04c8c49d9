/** The console: a page to see what a conversation is like, and to try the broker with. */

import { avatar, STATUS_NAMES, showAvatar } from "./avatar.js";
import { banner } from "./banner.js";
import { newConversation } from "./dialog.js";
import { button, fill, h, unseen } from "./dom.js";
import { conversationList } from "./list.js";
import { openMenu } from "./menu.js";
import { mountNotices, orSay } from "./notify.js";
import { Pane } from "./pane.js";
import { Session } from "./session.js";
import { signIn } from "./signin.js";

/** Of this tab: another tab may be somebody else. */
const USER_KEY = "antiphon.user";

function start(root: HTMLElement): void {
  mountNotices();
  const user = sessionStorage.getItem(USER_KEY);
  if (user) return enter(root, new Session(user));
  signIn(root, (name, token) => {
    sessionStorage.setItem(USER_KEY, name);
    enter(root, new Session(name, token));
  });
}

function enter(root: HTMLElement, session: Session): void {
  const list = conversationList(session);
  const place = h("main", { class: "place" });
  const start = button({ label: "New conversation", icon: "add", press: () => newConversation(session, go) });
  const side = h("div", { class: "side" }, h("header", { class: "side-header" }, me(session), start), list.element);
  const app = h(
    "div",
    { class: "app" },
    banner(session, () => location.reload()),
    side,
    place,
  );
  fill(root, app);
  let pane: Pane | undefined;
  const route = () => {
    const id = opened();
    pane?.close();
    pane = id === undefined ? undefined : new Pane(session, id);
    fill(place, pane?.element ?? nothing());
    app.dataset.shows = pane ? "conversation" : "list";
    list.open(id);
    // On a phone a keyboard would cover what one came to read.
    if (pane && matchMedia("(hover: hover)").matches) pane.focus();
  };
  addEventListener("hashchange", route);
  // The address of the open conversation does not change: whoever chooses it wants to write.
  list.element.addEventListener("click", ({ target }) => {
    const link = target instanceof Element && target.closest<HTMLElement>("a[data-id]");
    if (link && link.dataset.id === opened()) pane?.focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open], :popover-open"))
      return;
    const id = opened();
    if (id === undefined) return;
    if (matchMedia("(max-width: 719px)").matches) go("");
    document.querySelector<HTMLElement>(`.list a[data-id="${CSS.escape(id)}"]`)?.focus();
  });
  route();
}

function go(id: string): void {
  location.assign(`#/${encodeURIComponent(id)}`);
}

/** The conversation that the address names. */
function opened(): string | undefined {
  const [, id] = /^#\/(.+)$/.exec(location.hash) ?? [];
  try {
    return id && decodeURIComponent(id);
  } catch {
    return undefined;
  }
}

function nothing(): HTMLElement {
  return h(
    "div",
    { class: "nothing" },
    h("h2", {}, "Nothing is open"),
    h("p", {}, "Choose a conversation, or start one. A second window with another name answers."),
    h("a", { class: "button", href: location.pathname, target: "_blank", rel: "noopener" }, "Open a second window"),
  );
}

/** Who one is here, and what can be done about it. */
function me(session: Session): HTMLElement {
  const face = avatar(true);
  const state = h("span", { class: "hint" });
  const open = () =>
    openMenu(element, "You", [
      ...(["online", "away", "busy"] as const).map((status) => ({
        text: STATUS_NAMES[status],
        isChosen: status === (session.client.presence(session.user)?.status ?? "online"),
        act: () => void session.client.setPresence(status).catch(orSay("change that")),
      })),
      {
        text: "Open a second window",
        icon: "add",
        act: () => void window.open(location.pathname, "_blank", "noopener"),
      },
      { text: "Enter as somebody else", icon: "leave", act: () => void leave(session) },
    ]);
  const about = { "aria-haspopup": "menu" };
  const name = h("span", { class: "name" }, h("span", {}, unseen("You are "), session.user), state);
  const element = h("button", { type: "button", class: "me", ...about, on: { click: open } }, face, name);
  const render = () => {
    const isReady = session.client.state.is === "ready";
    const status = isReady ? (session.client.presence(session.user)?.status ?? "online") : "offline";
    showAvatar(face, session.user, status);
    fill(state, STATUS_NAMES[status]);
  };
  session.onChange(render);
  render();
  return element;
}

async function leave(session: Session): Promise<void> {
  sessionStorage.removeItem(USER_KEY);
  await Promise.race([session.client.close(), new Promise((done) => setTimeout(done, 1_000))]);
  location.assign(location.pathname);
}

const root = document.getElementById("app");
if (root) start(root);
