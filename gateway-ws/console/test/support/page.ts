/** What a user does on a page, and what they see there. */

import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";

export async function launch(): Promise<Browser> {
  const executablePath = process.env.CHROMIUM_BIN ?? "/usr/bin/chromium";
  return chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
}

/** Faults of the page itself: a policy that is broken, an exception that nobody caught. */
export function faults(context: BrowserContext): string[] {
  const found: string[] = [];
  context.on("weberror", (error) => found.push(String(error.error())));
  context.on("console", (message) => {
    const text = message.text();
    // That a connection fails is what the tests are about.
    if (message.type() === "error" && !/net::ERR_|WebSocket connection/.test(text)) found.push(text);
  });
  return found;
}

export async function enter(page: Page, url: string, user: string): Promise<void> {
  await page.goto(url);
  await page.getByLabel("Your name").fill(user);
  await page.getByRole("button", { name: "Enter" }).click();
  await page.getByRole("button", { name: `You are ${user}` }).waitFor();
}

/** Opens a conversation that is in the list. */
export async function open(page: Page, id: string): Promise<void> {
  const link = page.locator(`.list a[data-id="${id}"]`);
  await link.waitFor();
  // A row that moves up at this very moment takes the press away from itself.
  await until(`${id} is open`, async () => {
    await link.click({ timeout: 2_000 });
    return decodeURIComponent(new URL(page.url()).hash.slice(2)) === id;
  });
  await page.locator(".pane").waitFor();
}

export async function startWith(page: Page, users: string, title = ""): Promise<string> {
  await page.getByRole("button", { name: "New conversation" }).click();
  await page.getByLabel("With", { exact: true }).fill(users);
  await page.getByLabel("Name of the group").fill(title);
  await page.getByRole("button", { name: "Start" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.locator(".pane").waitFor();
  return decodeURIComponent(new URL(page.url()).hash.slice(2));
}

export async function say(page: Page, text: string): Promise<void> {
  const box = page.locator(".composer textarea");
  await box.fill(text);
  await box.press("Enter");
}

/** The row of the message with this text. */
export function row(page: Page, text: string) {
  return page.locator(".message", { has: page.locator(".text", { hasText: text }) }).last();
}

/** Chooses an action of a message with the keyboard alone. */
export async function act(page: Page, text: string, action: string): Promise<void> {
  await row(page, text).focus();
  await page.keyboard.press("Enter");
  await page.locator(".menu").getByText(action, { exact: true }).click();
}

export interface Shown {
  readonly seq: number;
  readonly text: string;
  readonly status: string;
}

/** Every message on the page, from top to bottom. */
export function shown(page: Page): Promise<Shown[]> {
  return page.locator(".message").evaluateAll((rows) =>
    rows.map((element) => ({
      seq: Number((element as HTMLElement).dataset.seq ?? 0),
      text: element.querySelector(".text")?.textContent ?? "",
      status: (element as HTMLElement).dataset.status ?? "",
    })),
  );
}

export async function until(what: string, is: () => Promise<boolean>, ms = 20_000): Promise<void> {
  const end = Date.now() + ms;
  for (;;) {
    if (await is().catch(() => false)) return;
    if (Date.now() > end) throw new Error(`it did not come to this: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}
