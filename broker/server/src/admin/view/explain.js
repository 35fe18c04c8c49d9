/** The form that asks why a user got an event, or not, and the answer. Texts of users are only ever text. */

import { element } from "./element.js";

const time = (ms) => new Date(ms).toISOString().replace("T", " ").replace("Z", " UTC");

/** What the log's owner says, as pairs for people. */
function facts(answer) {
  const log = answer.at_log;
  const inbox = answer.at_inbox;
  if (log.error) return [["The log", `cannot be read: ${log.error}`]];
  const event = log.event;
  const pairs = [["The log", `history ${log.epoch}, positions ${log.floor} to ${log.head}`]];
  if (event.state === "stored") {
    const redacted = event.redacted ? ", redacted" : "";
    pairs.push(["The event", `${event.kind} by ${event.sender}, ${time(event.time_ms)}${redacted}, ${event.event_id}`]);
  } else {
    pairs.push(["The event", event.state.replace("_", " ")]);
  }
  if (log.member) pairs.push(["The user", `${log.member.role} since position ${log.member.since}`]);
  if (log.removed_at !== null) pairs.push(["The user", `was removed at position ${log.removed_at}`]);
  pairs.push(["May read", log.refused === null ? `from position ${log.reads_from}` : `${log.refused}, unless a token grants it`]);
  pairs.push(["Devices say", `delivered up to ${log.delivered}, read up to ${log.read}`]);
  if (inbox.error) return [...pairs, ["The inbox", `cannot be read: ${inbox.error}`]];
  const own = [
    [inbox.hidden, "hid the event"],
    [inbox.blocks_sender, "blocked its sender"],
    [inbox.muted, "muted the conversation"],
  ];
  const done = own.filter(([holds]) => holds).map(([, text]) => text);
  return done.length > 0 ? [...pairs, ["The user", done.join(", ")]] : pairs;
}

function devices(sessions) {
  if (sessions.length === 0) return element("p", "No device of the user is connected.");
  const head = ["Device", "Shard", "Comes by", "Token grants reading", "Live from", "Bytes that wait"];
  const rows = sessions.map((session) =>
    element("tr", ...[
      session.device,
      session.shard,
      session.by_gateway ? "the gateway" : "QUIC",
      session.granted ? "yes" : "no",
      session.live_from ?? "does not subscribe",
      session.waiting_bytes,
    ].map((cell) => element("td", String(cell)))),
  );
  const titles = head.map((title) => {
    const cell = element("th", title);
    cell.scope = "col";
    return cell;
  });
  const table = element("table", element("thead", element("tr", ...titles)), element("tbody", ...rows));
  const scroll = element("div", table);
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Devices of the user");
  return scroll;
}

function show(answer) {
  const verdict = element("p", element("strong", answer.verdict.replaceAll("_", " ")), `: ${answer.message}.`);
  verdict.className = "verdict";
  const list = element("dl", ...facts(answer).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  return [verdict, list, devices(answer.sessions)];
}

/** `ask` fetches a path with the token, and throws an error for people. */
export function start(ask) {
  const form = document.getElementById("explain-form");
  const place = document.getElementById("explanation");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    place.replaceChildren(element("p", "Asking…"));
    try {
      place.replaceChildren(...show(await ask(`explain?${new URLSearchParams(new FormData(form))}`)));
    } catch (error) {
      const text = element("p", error.message);
      text.className = "error";
      place.replaceChildren(text);
    }
  });
}
