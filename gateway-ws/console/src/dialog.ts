/** Dialogs: a question, a new conversation, and what a conversation is like. */

import type { PresenceStatus } from "../../../sdk/typescript/src/index.js";
import { avatar, STATUS_NAMES, showAvatar } from "./avatar.js";
import { button, fill, h } from "./dom.js";
import { orSay, reason } from "./notify.js";
import type { Session } from "./session.js";

/** Opens a dialog that goes away when it is closed; Escape closes it, and the focus goes back. */
function openDialog(title: string, ...content: Node[]): HTMLDialogElement {
  const close = button({ label: "Close", icon: "close", press: () => dialog.close() });
  const heading = h("h2", { id: "dialog-title" }, title);
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, h("header", {}, heading, close), ...content);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

export function confirmThat(title: string, text: string, yes: string, act: () => void): void {
  const go = () => {
    dialog.close();
    act();
  };
  const buttons = h(
    "div",
    { class: "buttons" },
    button({ label: "Cancel", text: "Cancel", press: () => dialog.close() }),
    button({ label: yes, text: yes, class: "button danger", press: go }),
  );
  const dialog = openDialog(title, h("p", {}, text), buttons);
}

function field(label: string, id: string, hint: string, attributes: { readonly [name: string]: string } = {}) {
  const input = h("input", {
    id,
    type: "text",
    spellcheck: "false",
    autocomplete: "off",
    "aria-describedby": `${id}-hint`,
    ...attributes,
  });
  const element = h(
    "p",
    { class: "field" },
    h("label", { for: id }, label),
    input,
    h("span", { class: "hint", id: `${id}-hint` }, hint),
  );
  return { input, element };
}

function names(text: string): string[] {
  return [...new Set(text.split(/[\s,;]+/).filter((name) => name !== ""))];
}

/** One name makes a direct chat, several or a title make a group. */
export function newConversation(session: Session, open: (id: string) => void): void {
  const users = field("With", "with", "One name for a direct chat, several for a group: bob, eve", {
    autocapitalize: "none",
  });
  const title = field("Name of the group", "title", "May stay empty");
  const problem = h("p", { class: "problem", role: "alert" });
  const go = h("button", { type: "submit", class: "button primary" }, "Start");
  const submit = async (event: Event) => {
    event.preventDefault();
    const members = names(users.input.value).filter((name) => name !== session.user);
    const named = title.input.value.trim();
    const [first, second] = members;
    if (!first && !named) {
      fill(problem, "Name at least one other user.");
      return users.input.focus();
    }
    go.disabled = true;
    try {
      const isDirect = first && !second && !named;
      const id = isDirect ? (await session.client.direct(first)).id : await group(session, members, named);
      session.refresh(id);
      dialog.close();
      open(id);
    } catch (error) {
      fill(problem, `That did not work: ${reason(error)}`);
      go.disabled = false;
    }
  };
  const form = h("form", { on: { submit } }, users.element, title.element, problem, h("div", { class: "buttons" }, go));
  const dialog = openDialog("New conversation", form);
  users.input.focus();
}

async function group(session: Session, members: readonly string[], title: string): Promise<string> {
  const info = await session.client.createConversation({ kind: "group", members, ...(title && { title }) });
  return info.id;
}

/** Name, members, and leaving. */
export function conversationDetails(session: Session, id: string): void {
  const conversation = session.conversation(id);
  const members = h("ul", { class: "members", "aria-label": "Members" });
  const after = (what: string, work: Promise<void>) => work.then(() => session.refresh(id), orSay(what));
  const isGroup = !session.isDirect(id);
  const forms = isGroup ? [renameForm(session, id, after), addForm(session, id, after)] : [];
  const leave = () => {
    dialog.close();
    conversation.leave().then(() => location.assign("#/"), orSay("leave"));
  };
  const bottom =
    isGroup &&
    session.entry(id) &&
    button({
      label: "Leave the conversation",
      icon: "leave",
      text: "Leave the conversation",
      class: "button danger",
      press: leave,
    });
  const dialog = openDialog(
    session.title(id),
    ...forms,
    h("h3", {}, "Members"),
    members,
    h("div", { class: "buttons" }, bottom || undefined),
  );
  const render = () => {
    const info = session.info(id);
    const own = info?.members.find(({ user }) => user === session.user)?.role;
    const mayRemove = isGroup && (own === "owner" || own === "admin");
    const rows = (info?.members ?? []).map(({ user, role }) => {
      const remove = () => void after(`remove ${user}`, conversation.removeMember(user));
      const isRemovable = mayRemove && user !== session.user;
      return memberRow(user, role, session.status(user), user === session.user, isRemovable ? remove : undefined);
    });
    const heading = dialog.querySelector("h2");
    if (heading) fill(heading, session.title(id));
    if (rows.length > 0) fill(members, ...rows);
    else fill(members, h("li", { class: "hint" }, "Open to everybody here; nobody is a member."));
  };
  dialog.addEventListener("close", session.onChange(render));
  session.refresh(id);
  render();
}

type After = (what: string, work: Promise<void>) => Promise<void>;

function renameForm(session: Session, id: string, after: After): HTMLElement {
  const title = field("Name", "rename", "Everybody sees it");
  title.input.value = session.entry(id)?.title ?? "";
  const submit = (event: Event) => {
    event.preventDefault();
    void after("rename it", session.conversation(id).update({ title: title.input.value.trim() }));
  };
  title.input.after(h("button", { type: "submit", class: "button" }, "Rename"));
  return h("form", { class: "one-field", on: { submit } }, title.element);
}

function addForm(session: Session, id: string, after: After): HTMLElement {
  const users = field("Add members", "add", "Names, with spaces between them", { autocapitalize: "none" });
  const submit = (event: Event) => {
    event.preventDefault();
    const added = names(users.input.value);
    if (added.length === 0) return;
    users.input.value = "";
    void after(`add ${added.join(", ")}`, session.conversation(id).addMembers(added));
  };
  users.input.after(h("button", { type: "submit", class: "button" }, "Add"));
  return h("form", { class: "one-field", on: { submit } }, users.element);
}

function memberRow(
  user: string,
  role: string,
  status: PresenceStatus,
  isSelf: boolean,
  remove?: () => void,
): HTMLElement {
  const face = avatar(true);
  showAvatar(face, user, status);
  const about = [role === "member" ? "" : role, STATUS_NAMES[status].toLowerCase()]
    .filter((part) => part !== "")
    .join(", ");
  return h(
    "li",
    { "data-user": user },
    face,
    h("span", { class: "name" }, isSelf ? `${user} (you)` : user, h("span", { class: "hint" }, about)),
    remove && button({ label: `Remove ${user}`, icon: "close", press: remove }),
  );
}
