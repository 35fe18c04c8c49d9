/**
 * Two users talk, one of them in two tabs, while everything between them breaks: the broker and the gateway, a process of
 * its own, are killed, the network is cut, pages are reloaded, a token runs out. Then every page shows every message once, in the broker's order, and what is
 * unread and read is what the HTTP API says.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { Broker } from "./support/broker.js";
import { Gateway } from "./support/gateway.js";
import { Network } from "./support/network.js";
import { enter, faults, launch, open, say, shown, startWith, until } from "./support/page.js";

const MESSAGES = Number(process.env.ANTIPHON_BROWSER_MESSAGES ?? 200);
const HARMS = { broker: 5, gateway: 5, cut: 20, reload: 10 } as const;
type Harm = keyof typeof HARMS;
const TOKEN_SECONDS = 12;
const SETTLE_MS = 60_000;

let broker: Broker;
let gateway: Gateway;
let network: Network;
let browser: Browser;
const found: string[][] = [];
/** How often a gateway that went on told a page that the broker was lost. */
let resumes = 0;

before(async () => {
  broker = await Broker.start();
  gateway = await Gateway.start(broker);
  network = await Network.start(gateway.port);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await network?.stop();
  await gateway?.kill();
  await broker?.stop();
});

const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));

/** The same numbers each time, so that a failure comes again. */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

async function newContext(): Promise<BrowserContext> {
  const context = await browser.newContext({ viewport: { width: 1000, height: 700 } });
  found.push(faults(context));
  // Only the broker knows that this is development; a gateway of its own gives no tokens by name.
  await context.route("**/dev/token", async (route) => {
    if (network.isDown) return route.abort();
    const response = await route.fetch({ url: `${broker.url}/dev/token` }).catch(() => undefined);
    return response ? route.fulfill({ response }) : route.abort();
  });
  // Looks at the list after every change of it: a message that is there twice for a moment counts.
  await context.addInitScript(() => {
    const twice: string[] = [];
    Object.assign(globalThis, { shownTwice: twice });
    new MutationObserver(() => {
      const texts = [...document.querySelectorAll(".message .text")].map(({ textContent }) => textContent ?? "");
      if (new Set(texts).size === texts.length) return;
      twice.push(...texts.filter((text, at) => texts.indexOf(text) !== at));
    }).observe(document, { childList: true, subtree: true });
  });
  return context;
}

async function newPage(context: BrowserContext, user: string): Promise<Page> {
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on("websocket", (socket) => {
    socket.on("framereceived", ({ payload }) => {
      if (/"op":"RESUME"/.test(String(payload))) resumes += 1;
    });
  });
  await enter(page, network.url, user);
  return page;
}

interface ShortToken {
  /** The token is of no use any more. */
  readonly hasRunOut: () => boolean;
  /** Tokens that took its place. */
  readonly renewals: () => number;
}

/** Gives one short-lived token, and no other before that one has run out. */
async function shortToken(context: BrowserContext, user: string, seconds: number): Promise<ShortToken> {
  const token = await broker.token(user, seconds);
  const end = Date.now() + (seconds + 1) * 1_000;
  let isGiven = false;
  let renewals = 0;
  await context.route("**/dev/token", async (route) => {
    if (Date.now() > end) {
      renewals += 1;
      return route.fallback();
    }
    if (isGiven) return route.abort();
    isGiven = true;
    return route.fulfill({ json: { token } });
  });
  return { hasRunOut: () => Date.now() > end, renewals: () => renewals };
}

interface Row {
  readonly seq: number;
  readonly text: string;
}

/** All messages of a log, as the HTTP API tells them. */
async function stored(user: string, log: string): Promise<Row[]> {
  const rows: Row[] = [];
  for (let from = 1; from > 0; ) {
    const page = await broker.api(user, `/logs/${encodeURIComponent(log)}/events?from=${from}&limit=100`);
    for (const row of (page.rows ?? []) as { kind: string; seq: number; text: string }[]) {
      if (row.kind === "message") rows.push({ seq: row.seq, text: row.text });
    }
    from = Number(page.next ?? 0);
  }
  return rows;
}

interface Listed {
  readonly log: string;
  readonly head_msgno?: number;
  readonly read_msgno?: number;
  readonly delivered?: number;
  readonly read?: number;
}

async function listed(user: string, log: string): Promise<Listed> {
  const { entries } = (await broker.api(user, "/conversations")) as { entries: Listed[] };
  const entry = entries.find((entry) => entry.log === log);
  assert.ok(entry, `${user} has ${log}`);
  return entry;
}

/** Scrolls up until there is nothing older. */
async function loadAll(page: Page): Promise<void> {
  await until(
    "the whole history is here",
    async () => {
      await page.locator(".scroller").evaluate((scroller) => scroller.scrollTo(0, 0));
      return (await page.locator(".beginning").count()) === 1;
    },
    SETTLE_MS,
  );
}

async function toEnd(page: Page): Promise<void> {
  await page.locator(".scroller").evaluate((scroller) => scroller.scrollTo(0, scroller.scrollHeight));
}

/** What happens after which message. */
function plan(random: (below: number) => number): ReadonlyMap<number, readonly Harm[]> {
  const all = Object.entries(HARMS).flatMap(([what, count]) => Array<Harm>(count).fill(what as Harm));
  const planned = new Map<number, Harm[]>();
  for (let at = all.length - 1; at > 0; at -= 1) {
    const other = random(at + 1);
    [all[at], all[other]] = [all[other] as Harm, all[at] as Harm];
  }
  all.forEach((what, at) => {
    const message = 1 + Math.floor((at * (MESSAGES - 2)) / all.length);
    planned.set(message, [...(planned.get(message) ?? []), what]);
  });
  return planned;
}

/** Ends a process, and starts it again after a while. */
async function restart(it: { kill(): Promise<void>; start(): Promise<void> }, afterMs: number): Promise<void> {
  await it.kill();
  await sleep(afterMs);
  await it.start();
}

test(`${MESSAGES} messages through ${JSON.stringify(HARMS)}`, async (t) => {
  const random = randomNumbers(Number(process.env.ANTIPHON_BROWSER_SEED ?? 7));
  const anns = await newContext();
  const bobs = await newContext();
  const ann = await newPage(anns, "ann");
  const chat = await startWith(ann, "bob");
  const log = `c:${chat}`;
  const bob = await newPage(bobs, "bob");
  const short = await shortToken(bobs, "bob", TOKEN_SECONDS);
  const tab = await newPage(bobs, "bob");
  const pages = [ann, bob, tab];
  for (const page of [bob, tab]) await open(page, chat);

  const counts = { broker: 0, gateway: 0, cut: 0, reload: 0 };
  const harm = async (what: Harm) => {
    counts[what] += 1;
    if (what === "broker" || what === "gateway") {
      await restart(what === "broker" ? broker : gateway, random(800));
    } else if (what === "cut") {
      network.cut();
      await sleep(50 + random(900));
      network.mend();
    } else {
      const page = pages[counts.reload % pages.length];
      // What was said a moment ago is kept by then.
      await sleep(150);
      await page?.reload();
      await page?.locator(".composer textarea").waitFor();
    }
  };
  const planned = plan(random);
  const started = Date.now();
  let harming: Promise<void> = Promise.resolve();
  for (let n = 1; n <= MESSAGES; n += 1) {
    const page = pages[random(pages.length)] ?? ann;
    await say(page, `message ${n}`);
    await sleep(random(120));
    for (const what of planned.get(n) ?? []) {
      await harming;
      // Pages are reloaded by whoever types; what else breaks does so while they go on typing.
      if (what === "reload") await harm(what);
      else harming = harm(what);
    }
  }
  await harming;
  assert.deepEqual(counts, HARMS);
  await until(
    "the token has run out, and another is there",
    async () => short.hasRunOut() && short.renewals() > 0,
    TOKEN_SECONDS * 1_000 + 30_000,
  );
  t.diagnostic(`sent after ${Date.now() - started} ms: ${JSON.stringify(counts)}, ${resumes} x RESUME`);

  const sent = Array.from({ length: MESSAGES }, (_, n) => `message ${n + 1}`);
  await until("everything is stored", async () => (await stored("ann", log)).length >= MESSAGES, SETTLE_MS);
  const truth = await stored("ann", log);
  assert.deepEqual([...truth.map(({ text }) => text)].sort(), [...sent].sort(), "the broker has each message once");
  for (const [at, page] of pages.entries()) {
    await loadAll(page);
    const here = async () => (await shown(page)).map(({ seq, text }) => ({ seq, text }));
    await until(`page ${at} shows everything`, async () => (await here()).length >= MESSAGES, SETTLE_MS);
    assert.deepEqual(await here(), truth, `page ${at} shows what is stored, in its order`);
    await toEnd(page);
  }
  t.diagnostic(`shown everywhere after ${Date.now() - started} ms`);

  await until("both have read everything", async () => {
    const entries = [await listed("ann", log), await listed("bob", log)];
    return entries.every(({ head_msgno, read_msgno }) => head_msgno === MESSAGES && read_msgno === MESSAGES);
  });
  // Then bob looks elsewhere.
  for (const page of [bob, tab]) {
    await page.goto(`${network.url}/#/`);
    await page.locator(".pane").waitFor({ state: "detached" });
  }
  for (const n of [1, 2, 3]) await say(ann, `later ${n}`);
  await until("it has arrived", async () => {
    const { head_msgno, delivered } = await listed("bob", log);
    return head_msgno === MESSAGES + 3 && delivered === (await stored("ann", log)).at(-1)?.seq;
  });
  const { head_msgno = 0, read_msgno = 0, delivered = 0, read = 0 } = await listed("bob", log);
  assert.equal(head_msgno - read_msgno, 3);
  for (const page of [bob, tab]) {
    const badge = page.locator(`.list a[data-id="${chat}"] .badge [aria-hidden]`);
    await until("the badge counts as the broker does", async () => (await badge.textContent()) === "3");
  }
  const wanted = (seq: number) => (seq <= read ? "read" : seq <= delivered ? "delivered" : "sent");
  await until("ticks are what the broker says", async () => {
    const own = (await shown(ann)).filter(({ status }) => status !== "received");
    return own.length > 0 && own.every(({ seq, status }) => status === wanted(seq));
  });

  for (const page of pages) {
    assert.deepEqual(await page.evaluate(() => (globalThis as unknown as { shownTwice: string[] }).shownTwice), []);
  }
  assert.deepEqual(found.flat(), [], "the pages report no faults");
});

test("a token that runs out in use ends the session, and the page goes on with another", async () => {
  const context = await newContext();
  const short = await shortToken(context, "eve", 3);
  const page = await context.newPage();
  let ends = 0;
  page.on("websocket", (socket) => {
    socket.on("framereceived", ({ payload }) => {
      if (/"code":"token_expired"/.test(String(payload))) ends += 1;
    });
  });
  await enter(page, network.url, "eve");
  const chat = await startWith(page, "ann");
  await say(page, "before");
  // The broker allows for clocks that differ by half a minute.
  await until("the session ends", async () => ends > 0, 45_000);
  await say(page, "after");
  await until("it is sent", async () => ((await shown(page)).at(-1)?.seq ?? 0) > 0);
  assert.ok(short.renewals() > 0);
  assert.deepEqual(
    (await stored("eve", `c:${chat}`)).map(({ text }) => text),
    ["before", "after"],
  );
  await context.close();
});

test("a gateway that goes on tells its pages that the broker was lost, and they go on too", async () => {
  const context = await newContext();
  const page = await newPage(context, "kim");
  const chat = await startWith(page, "ann");
  await say(page, "before");
  await until("it is sent", async () => ((await shown(page)).at(-1)?.seq ?? 0) > 0);
  const before = resumes;
  await restart(broker, 0);
  await until("the page is told", async () => resumes > before);
  await say(page, "after");
  await until("that is sent too", async () => (await stored("kim", `c:${chat}`)).length === 2);
  await until("it is shown", async () => (await shown(page)).every(({ seq }) => seq > 0));
  assert.deepEqual(
    (await shown(page)).map(({ text }) => text),
    ["before", "after"],
  );
  await context.close();
});
