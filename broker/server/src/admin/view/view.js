/** Asks for the numbers once a second while somebody looks, and shows them. */

import { Chart } from "./chart.js";
import { element } from "./element.js";
import { start as startExplain } from "./explain.js";

/** In this tab only, and gone with it. */
const KEY = "antiphon-admin-token";
const EVERY_MS = 1000;
const at = (id) => document.getElementById(id);

const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
const bytes = (value) =>
  value < 1024 ? `${value} B` : value < 1048576 ? `${number(value / 1024)} KiB` : `${number(value / 1048576)} MiB`;
const time = (us) => (us === null ? "–" : us < 1000 ? `${us} µs` : `${number(us / 1000)} ms`);
const sum = (shards, field) => shards.reduce((total, shard) => total + shard[field], 0);

const charts = [
  new Chart("events", [{ field: "appended", name: "appended" }, { field: "delivered", name: "delivered" }], number),
  new Chart("syncs", [{ field: "sync_p50_us", name: "sync median" }, { field: "sync_p99_us", name: "99 of 100" }], time),
  new Chart("sessions", [{ field: "sessions", name: "sessions" }], number),
  new Chart("trouble", [{ field: "refused", name: "refused" }, { field: "behind", name: "fell behind" }], number),
];

let token = sessionStorage.getItem(KEY);
let samples = [];
let samplesMax = 600;
/** Whether the moment stays the newest one. */
let isNewest = true;
let timer;

/** Seconds that the charts are wide: two minutes at least, and all that there is. */
const shown = () => Math.max(120, samples.length);

/** What the listener refuses for want of a right. */
class Refused extends Error {}

async function ask(path) {
  const answer = await fetch(path, { headers: { Authorization: `Bearer ${token}` }, cache: "no-store" });
  const body = await answer.json();
  if (answer.ok) return body;
  const text = body.message ?? `status ${answer.status}`;
  throw answer.status === 401 || answer.status === 403 ? new Refused(text) : new Error(text);
}

/** Said only when it changes: a screen reader need not hear it each second. */
function say(text, className) {
  const state = at("state");
  if (state.textContent !== text) state.textContent = text;
  state.className = className;
}

function show(view) {
  at("version").textContent = `${view.version}${view.development ? ", development mode" : ""}`;
  const against = view.not_ready.join("; ");
  say(against === "" ? "Ready for traffic" : `Not ready: ${against}`, against === "" ? "good" : "bad");
  samplesMax = view.samples_max;
  samples = [...samples, ...view.samples].slice(-samplesMax);
  showTiles(view.shards);
  showShards(view.shards);
  const refusals = Object.entries(view.refusals).sort(([, one], [, other]) => other - one);
  const counted = refusals.map(([code, count]) => `${code} ${number(count)}`).join(", ");
  at("refusals").textContent = `Refused since the start: ${counted || "nothing"}`;
  charts.forEach((chart) => chart.draw(samples, shown()));
  const moment = at("moment");
  const before = Number(moment.value);
  const wasAt = Number(moment.max) - before;
  moment.max = String(Math.max(0, samples.length - 1));
  moment.value = isNewest ? moment.max : String(Math.max(0, Number(moment.max) - wasAt - view.samples.length));
  showMoment();
}

function showTiles(shards) {
  const newest = samples.at(-1);
  const tiles = [
    ["Appended /s", newest ? number(newest.appended) : "–"],
    ["Delivered /s", newest ? number(newest.delivered) : "–"],
    ["Sync, 99 of 100", time(newest?.sync_p99_us ?? null)],
    ["Connections", number(sum(shards, "connections"))],
    ["Sessions", number(sum(shards, "sessions"))],
    ["Logs in memory", number(sum(shards, "logs"))],
    ["Waits to be sent", bytes(sum(shards, "outbox_bytes"))],
    ["Fell behind, total", number(sum(shards, "behind_total"))],
  ];
  at("tiles").replaceChildren(...tiles.map(([name, value]) => element("div", element("dt", name), element("dd", value))));
}

function showShards(shards) {
  const row = (shard, index) => {
    const cells = [
      number(shard.connections), number(shard.sessions), number(shard.logs), number(shard.appended),
      number(shard.delivered), number(shard.refused), bytes(shard.outbox_bytes), number(shard.behind_total),
      time(shard.turn_us_max), time(shard.sync_p99_us),
    ];
    const head = element("th", String(index));
    head.scope = "row";
    return element("tr", head, ...cells.map((cell) => element("td", cell)));
  };
  at("shards").replaceChildren(...shards.map(row));
}

function showMoment() {
  const moment = at("moment");
  const sample = samples[Number(moment.value)];
  if (!sample) return;
  const clock = new Date(sample.time_ms).toLocaleTimeString();
  at("moment-text").textContent = `${clock}: ${charts.map((chart) => chart.text(sample)).join("; ")}`;
  moment.setAttribute("aria-valuetext", clock);
  charts.forEach((chart) => chart.mark(Number(moment.value), samples.length, shown()));
}

function choose(value) {
  const moment = at("moment");
  moment.value = String(value);
  isNewest = moment.value === moment.max;
  showMoment();
}

async function look() {
  clearTimeout(timer);
  if (token === null || document.hidden) return;
  try {
    const asked = token;
    const view = await ask(`view?after_ms=${samples.at(-1)?.time_ms ?? 0}`);
    // Forgotten or changed while the answer was on its way.
    if (asked !== token) return;
    open(true);
    show(view);
  } catch (error) {
    if (error instanceof Refused) return forget(error.message);
    say("The broker does not answer; asking again", "bad");
  }
  timer = setTimeout(look, EVERY_MS);
}

function open(isOpen) {
  const wasOpen = !at("main").hidden;
  at("main").hidden = !isOpen;
  at("forget").hidden = !isOpen;
  at("login").hidden = isOpen;
  if (isOpen && !wasOpen) at("main").focus();
}

function forget(why) {
  token = null;
  samples = [];
  sessionStorage.removeItem(KEY);
  open(false);
  at("token").focus();
  at("explanation").replaceChildren();
  at("token-error").textContent = why;
  say("Needs a token", "");
}

at("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const pasted = at("token").value.trim();
  at("token").value = "";
  // Nothing else can be in a header.
  if (!/^[\x21-\x7e]+$/.test(pasted)) {
    at("token-error").textContent = "That is no token.";
    return;
  }
  at("token-error").textContent = "";
  token = pasted;
  sessionStorage.setItem(KEY, token);
  look();
});
at("forget").addEventListener("click", () => forget(""));
at("moment").addEventListener("input", () => choose(at("moment").value));
charts.forEach((chart) =>
  chart.onPoint((place) => choose(Math.round(place * (shown() - 1)) - (shown() - samples.length))),
);
document.addEventListener("visibilitychange", look);
startExplain(ask);
look();
