/** Each thing that a user can do, once, between two of them. */

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { Broker } from "./support/broker.js";
import { act, enter, faults, launch, open, row, say, shown, startWith, until } from "./support/page.js";

let broker: Broker;
let browser: Browser;
let ann: Page;
let bob: Page;
let chat: string;
const contexts: BrowserContext[] = [];
const found: string[][] = [];

async function newPage(user: string): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  contexts.push(context);
  found.push(faults(context));
  const page = await context.newPage();
  page.setDefaultTimeout(6_000);
  await enter(page, broker.url, user);
  return page;
}

before(async () => {
  broker = await Broker.start();
  browser = await launch();
  ann = await newPage("ann");
  bob = await newPage("bob");
  chat = await startWith(ann, "bob");
});

after(async () => {
  await browser?.close();
  await broker?.stop();
});

afterEach(() => assert.deepEqual(found.flat(), [], "the pages report no faults"));

test("a name that is none is refused, and said why", async () => {
  const page = await (await browser.newContext()).newPage();
  await page.goto(broker.url);
  await page.getByLabel("Your name").fill("no such name");
  await page.getByRole("button", { name: "Enter" }).click();
  await page.getByRole("alert").getByText("1 to 64").waitFor();
  await page.context().close();
});

test("an unread badge and a preview, then the divider, then read", async () => {
  await say(ann, "are you there?");
  const entry = bob.locator(`.list a[data-id="${chat}"]`);
  await entry.locator(".badge", { hasText: "1" }).waitFor();
  await entry.locator(".preview", { hasText: "are you there?" }).waitFor();
  assert.match(await bob.title(), /^\(1\)/);
  await until("it has arrived, and is not read", async () => (await shown(ann)).at(-1)?.status === "delivered");
  await open(bob, chat);
  await bob.locator(".new", { hasText: "New messages" }).waitFor();
  await until("it is read", async () => (await shown(ann)).at(-1)?.status === "read");
  await entry.locator(".badge").waitFor({ state: "detached" });
});

test("presence: in the list, in the header, and what one says of oneself", async () => {
  await ann.locator(`.list a[data-id="${chat}"] .dot[aria-label="Online"]`).waitFor();
  await bob.getByRole("button", { name: "You are bob" }).click();
  await bob.getByRole("menuitemradio", { name: "Away" }).click();
  await ann.locator(".subtitle", { hasText: "Away" }).waitFor();
  await bob.getByRole("button", { name: "You are bob" }).click();
  await bob.getByRole("menuitemradio", { name: "Online" }).click();
  await ann.locator(".subtitle", { hasText: "Online" }).waitFor();
});

test("typing is seen by the other one, and ends with the message", async () => {
  await bob.locator(".composer textarea").pressSequentially("yes");
  await ann.locator("p.typing", { hasText: "bob is typing…" }).waitFor();
  await ann.locator(".preview.typing").waitFor();
  await bob.keyboard.press("Enter");
  await row(ann, "yes").waitFor();
  await until("nobody types", async () => (await ann.locator("p.typing").textContent()) === "");
});

test("edit: for both, with a mark; arrow up takes one's last message", async () => {
  await say(ann, "good mroning");
  await row(bob, "good mroning").waitFor();
  await ann.locator(".composer textarea").press("ArrowUp");
  await ann.locator(".composing", { hasText: "Edit" }).waitFor();
  await say(ann, "good morning");
  await row(bob, "good morning").locator(".edited").waitFor();
  await row(ann, "good morning").locator(".edited").waitFor();
  assert.equal(await bob.locator(".message").getByText("good mroning").count(), 0);
});

test("reply: with a quote that leads to what it answers", async () => {
  await act(bob, "good morning", "Reply");
  await bob.locator(".composing", { hasText: "Reply to ann" }).waitFor();
  await say(bob, "and to you");
  const quote = row(ann, "and to you").locator(".quote");
  await quote.getByText("good morning").waitFor();
  await quote.click();
  assert.equal(await ann.locator(".message:focus .text").textContent(), "good morning");
});

test("react: counts, one's own is marked and can be taken back", async () => {
  await row(bob, "good morning").focus();
  await bob.keyboard.press("Shift+F10");
  await bob.getByRole("menuitemcheckbox", { name: "React with 👍" }).click();
  const chip = row(ann, "good morning").locator(".reaction");
  await chip.getByText("1").waitFor();
  assert.equal(await chip.getAttribute("aria-pressed"), "false");
  await chip.click();
  await row(bob, "good morning").locator(".reaction", { hasText: "2" }).waitFor();
  assert.equal(await chip.getAttribute("aria-pressed"), "true");
  await chip.click();
  await row(bob, "good morning").locator(".reaction", { hasText: "1" }).waitFor();
});

test("pin: shown on top for both", async () => {
  await act(ann, "good morning", "Pin");
  await bob.locator(".pinned-bar", { hasText: "good morning" }).waitFor();
  await act(bob, "good morning", "Unpin");
  await ann.locator(".pinned-bar").waitFor({ state: "hidden" });
});

test("delete for everyone: a placeholder for both", async () => {
  await say(ann, "to be deleted");
  await row(bob, "to be deleted").waitFor();
  await act(ann, "to be deleted", "Delete for everyone");
  await ann.getByRole("dialog").getByRole("button", { name: "Delete", exact: true }).click();
  await row(bob, "This message was deleted").waitFor();
  await row(ann, "This message was deleted").waitFor();
  assert.equal(await bob.locator(".message").getByText("to be deleted").count(), 0);
});

test("delete for me: gone here and in one's other window, after a reload too, and there for the other one", async () => {
  await say(ann, "bob hides this");
  await row(bob, "bob hides this").waitFor();
  const second = await newPage("bob");
  await open(second, chat);
  await row(second, "bob hides this").waitFor();
  await act(bob, "bob hides this", "Delete for me");
  for (const page of [bob, second]) await row(page, "bob hides this").waitFor({ state: "detached" });
  await bob.reload();
  await row(bob, "and to you").waitFor();
  assert.equal(await bob.locator(".message").getByText("bob hides this").count(), 0);
  assert.equal(await row(ann, "bob hides this").count(), 1);
  await second.context().close();
});

test("a group: made, renamed, a member added and removed, left", async () => {
  const eve = await newPage("eve");
  const group = await startWith(ann, "bob", "Choir");
  await say(ann, "welcome");
  await open(bob, group);
  await row(bob, "welcome").locator(".sender", { hasText: "ann" }).waitFor();
  await ann.getByRole("button", { name: "Members and name" }).click();
  const dialog = ann.getByRole("dialog");
  await dialog.getByLabel("Add members").fill("eve");
  await dialog.getByRole("button", { name: "Add", exact: true }).click();
  await dialog.locator("[data-user=eve]").waitFor();
  await open(eve, group);
  await row(eve, "welcome").waitFor();
  await dialog.getByLabel("Name", { exact: true }).fill("Small choir");
  await dialog.getByRole("button", { name: "Rename" }).click();
  await bob.locator(`.list a[data-id="${group}"] .name`, { hasText: "Small choir" }).waitFor();
  await dialog.getByRole("button", { name: "Remove eve" }).click();
  await eve.locator(".over", { hasText: "not a member" }).waitFor();
  await eve.locator(`.list a[data-id="${group}"]`).waitFor({ state: "detached" });
  await ann.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  await bob.getByRole("button", { name: "Members and name" }).click();
  await bob.getByRole("button", { name: "Leave the conversation" }).click();
  await bob.locator(`.list a[data-id="${group}"]`).waitFor({ state: "detached" });
  await eve.context().close();
});

test("pin and mute in the list", async () => {
  await open(ann, chat);
  for (const [action, mark] of [
    ["Pin to the list", "pinned"],
    ["Mute", "muted"],
  ] as const) {
    await ann.getByRole("button", { name: "Pin, mute and more" }).click();
    await ann.getByRole("menuitem", { name: action }).click();
    await ann.locator(`.list a[data-id="${chat}"] .marks`, { hasText: mark }).waitFor();
  }
  assert.equal(await ann.locator(".list a").first().getAttribute("data-id"), chat);
});

test("the lobby: everybody finds the others there", async () => {
  for (const page of [ann, bob]) await open(page, "lobby");
  await ann.locator(".subtitle", { hasText: "2 members" }).waitFor();
  await say(ann, "anybody?");
  await row(bob, "anybody?").waitFor();
  await until("it is read", async () => (await shown(ann)).at(-1)?.status === "read");
});

test("older history: 300 messages by scrolling, and what one looks at stays where it is", async () => {
  const { conversation } = await broker.api("ann", "/conversations", "POST", {
    ...{ conversation: "long", kind: "group", title: "Long", members: [{ user: "bob" }] },
  });
  for (let n = 1; n <= 300; n += 1)
    await broker.api("ann", `/logs/c:${conversation}/events`, "POST", { text: `number ${n}` });
  // A page that was there has seen them come.
  await bob.reload();
  await open(bob, "long");
  await row(bob, "number 300").waitFor();
  assert.ok((await shown(bob)).length < 300);
  const first = async () => (await shown(bob))[0]?.text;
  const top = (text: string) => row(bob, text).evaluate((element) => element.getBoundingClientRect().top);
  while ((await first()) !== "number 1") {
    const before = await first();
    // Far enough up to ask for more, far enough down that scrolling has nothing to do with where rows are.
    const { text, at } = await bob.locator(".scroller").evaluate((scroller) => {
      scroller.scrollTop = 300;
      const { top } = scroller.getBoundingClientRect();
      const rows = [...scroller.querySelectorAll(".message")];
      const seen = rows.find((element) => element.getBoundingClientRect().top > top + 100);
      return { text: seen?.querySelector(".text")?.textContent ?? "", at: seen?.getBoundingClientRect().top ?? 0 };
    });
    await until("older messages come", async () => (await first()) !== before);
    assert.ok(Math.abs((await top(text)) - at) <= 1, `${text} stood at ${at}, then at ${await top(text)}`);
  }
  const all = await shown(bob);
  assert.deepEqual(
    all.map(({ text }) => text),
    Array.from({ length: 300 }, (_, n) => `number ${n + 1}`),
  );
  await say(ann, "in the lobby");
  await broker.api("ann", "/logs/c:long/events", "POST", { text: "number 301" });
  await bob.locator(".jump", { hasText: "1 new message" }).click();
  await bob.locator(".jump").waitFor({ state: "hidden" });
  await until("it is read", async () => Number((await synced("bob", "long")).read_msgno) === 301);
});

async function synced(user: string, conversation: string): Promise<Record<string, unknown>> {
  const { entries } = (await broker.api(user, "/conversations?limit=100")) as { entries: Record<string, unknown>[] };
  return entries.find(({ log }) => log === `c:${conversation}`) ?? {};
}

test("without a network: messages wait, are said to wait, and go out in order", async () => {
  await open(ann, chat);
  await open(bob, chat);
  await broker.kill();
  for (const n of [1, 2, 3]) await say(ann, `waiting ${n}`);
  await ann.locator(".banner", { hasText: "3 messages will be sent then" }).waitFor();
  assert.deepEqual(
    (await shown(ann)).slice(-3).map(({ status }) => status !== "sent"),
    [true, true, true],
  );
  await broker.start();
  await row(bob, "waiting 3").waitFor({ timeout: 40_000 });
  const last = (await shown(bob)).slice(-3).map(({ text }) => text);
  assert.deepEqual(last, ["waiting 1", "waiting 2", "waiting 3"]);
});

test("the keyboard alone: list, message, menu and back", async () => {
  await ann.locator(".list a").first().focus();
  await ann.keyboard.press("ArrowDown");
  await ann.keyboard.press("ArrowUp");
  await ann.keyboard.press("Enter");
  await ann.locator(".composer textarea:focus").waitFor();
  await ann.keyboard.press("Shift+Tab");
  await ann.locator(".message:focus").waitFor();
  await ann.keyboard.press("ArrowUp");
  await ann.keyboard.press("Enter");
  await ann.getByRole("menu").waitFor();
  await ann.keyboard.press("Escape");
  await ann.locator(".message:focus").waitFor();
  await ann.keyboard.press("Escape");
  await ann.locator(".list a:focus").waitFor();
});

test("a phone has two screens, and a way back", async () => {
  const context = await browser.newContext({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
  const page = await context.newPage();
  await enter(page, broker.url, "ann");
  assert.equal(await page.locator(".pane").count(), 0);
  await open(page, chat);
  assert.equal(await page.locator(".side").isVisible(), false);
  assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 360);
  await page.getByRole("link", { name: "Back to the list" }).click();
  await page.locator(".side").waitFor();
  assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 360);
  await context.close();
});
