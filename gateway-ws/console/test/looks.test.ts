/** What the console looks like, to people and to axe: light and dark, wide and narrow. With ANTIPHON_SHOTS it draws docs/. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { Broker } from "./support/broker.js";
import { enter, faults, launch, open, row, until } from "./support/page.js";
import { scene } from "./support/scene.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** Where to draw pictures, if anywhere. */
const SHOTS = process.env.ANTIPHON_SHOTS;

let broker: Broker;
let browser: Browser;
let bob: Page;

before(async () => {
  broker = await Broker.start();
  browser = await launch();
  await scene(broker);
  bob = await (await browser.newContext()).newPage();
  await enter(bob, broker.url, "bob");
  await open(bob, "spring");
});

after(async () => {
  await browser?.close();
  await broker?.stop();
});

interface Violation {
  readonly id: string;
  readonly impact: string;
  readonly nodes: readonly { readonly html: string; readonly failureSummary: string }[];
}

async function violations(page: Page): Promise<string[]> {
  // As the developer tools do: the page's policy forbids it otherwise, and is right.
  await page.evaluate(`${AXE}; undefined`);
  const found = (await page.evaluate("axe.run()")) as { violations: Violation[] };
  const serious = found.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  return serious.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html}\n${failureSummary}`),
  );
}

for (const [width, height] of [
  [1280, 800],
  [360, 740],
] as const) {
  for (const colorScheme of ["light", "dark"] as const) {
    test(`${width} px, ${colorScheme}: nothing serious for axe on any screen`, async () => {
      const isPhone = width < 720;
      const context = await browser.newContext({
        ...{ viewport: { width, height }, colorScheme, reducedMotion: "reduce" },
        ...(isPhone && { isMobile: true, hasTouch: true }),
      });
      const found = faults(context);
      const page = await context.newPage();
      const check = async (screen: string) => {
        if (SHOTS) await page.screenshot({ path: `${SHOTS}/${width}-${colorScheme}-${screen}.png` });
        assert.deepEqual(await violations(page), [], screen);
      };
      await page.goto(broker.url);
      await check("sign-in");
      await enter(page, broker.url, "ann");
      await page.locator(`.list a[data-id="spring"]`).waitFor();
      await page.locator(`.list a[aria-current]`).waitFor({ state: "detached" });
      await check("list");
      await open(page, "spring");
      await row(page, "Then we are done").waitFor();
      await until("it is known who is there", async () =>
        /online/.test((await page.locator(".subtitle").textContent()) ?? ""),
      );
      // Typing is told once in three seconds.
      await until("bob is seen typing", async () => {
        await bob.locator(".composer textarea").press("h");
        return /typing/.test((await page.locator("p.typing").textContent()) ?? "");
      });
      await check("conversation");
      await row(page, "Read it").focus();
      await page.keyboard.press("Enter");
      await page.getByRole("menu").waitFor();
      await check("menu");
      await page.keyboard.press("Escape");
      await page.getByRole("button", { name: "Members and name" }).click();
      await page.locator("[data-user=mara]").waitFor();
      await check("members");
      await page.keyboard.press("Escape");
      if (isPhone) await page.getByRole("link", { name: "Back to the list" }).click();
      await page.getByRole("button", { name: "New conversation" }).click();
      await check("new");
      assert.deepEqual(found, []);
      await context.close();
    });
  }
}
