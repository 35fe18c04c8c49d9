/** The connection, where it is not as usual: a line on top of the page. */

import type { ConnectionState } from "../../../sdk/typescript/src/index.js";
import { button, fill, h } from "./dom.js";
import { count } from "./format.js";
import type { Session } from "./session.js";

/** A short interruption is not worth a line. */
const PATIENCE_MS = 700;
const GOOD_NEWS_MS = 2_500;

export function banner(session: Session, again: () => void): HTMLElement {
  const text = h("span");
  const element = h("div", { class: "banner", role: "status", hidden: true }, text);
  let shown = "";
  let since = Date.now();
  let last: ConnectionState = session.client.state;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let wasShown = false;

  const show = (state: string, message: string, ...more: Node[]) => {
    if (shown === state + message) return;
    shown = state + message;
    element.hidden = false;
    element.dataset.state = state;
    fill(text, message);
    fill(element, text, ...more);
  };
  const hide = () => {
    element.hidden = true;
    shown = "";
  };
  const later = (ms: number, act: () => void) => {
    clearTimeout(timer);
    timer = setTimeout(act, ms);
  };

  const render = () => {
    const { state } = session.client;
    if ((state.is === "ready") !== (last.is === "ready")) since = Date.now();
    const isBack = state.is === "ready" && last.is !== "ready";
    last = state;
    if (state.is === "stopped") return show("stopped", stopped(state), signInAgain());
    if (state.is === "ready") {
      if (!isBack) return;
      if (!wasShown) return hide();
      wasShown = false;
      show("ready", state.session.resumed ? "Connected again. Nothing was lost." : "Connected.");
      return later(GOOD_NEWS_MS, hide);
    }
    const patience = since + PATIENCE_MS - Date.now();
    if (patience > 0) return later(patience, render);
    wasShown = true;
    const waiting = session.unsent > 0 ? ` ${count(session.unsent, "message")} will be sent then.` : "";
    if (state.is === "waiting" || !navigator.onLine)
      show("offline", `Offline. The connection comes back by itself.${waiting}`);
    else if (shown === "") show("connecting", `Connecting…${waiting}`);
  };
  const signInAgain = () => button({ label: "Enter again", text: "Enter again", press: again });
  session.onChange(render);
  render();
  return element;
}

function stopped(state: Extract<ConnectionState, { is: "stopped" }>): string {
  const { reason } = state;
  if (!("refusal" in reason)) return "The session has ended.";
  if (reason.refusal.code === "replaced") return "This window's session goes on in another one.";
  return `The session has ended: ${reason.refusal.code.replaceAll("_", " ")}.`;
}
