/** The component of the README in a real React and a DOM, against a real broker; skipped like the tests in e2e.test.ts. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { build } from "esbuild";
import { Window } from "happy-dom";
import type { ComponentType, ReactNode } from "react";
import type { Root } from "react-dom/client";
import { WebSocket } from "ws";
import type { Client, ConnectOptions } from "../src/index.js";
import { startTestBroker, type TestBroker } from "../src/server/testBroker.js";
import { readmeFile } from "./readme.js";

const options = process.env.ANTIPHON_BIN ? {} : { skip: "ANTIPHON_BIN names no broker" };
const ALL = [{ on: "c:*", can: ["read", "send", "signal"] }] as const;
/** More than a session may follow at once. */
const MANY = 300;

type Context = { after: (done: () => unknown) => void };
type Lobby = ComponentType<{ client: Client }>;

const window = new Window();
const faults: unknown[] = [];
let broker: TestBroker;
let react: typeof import("react");
let dom: typeof import("react-dom/client");
// As applications have it: another class than that of src/.
let antiphon: typeof import("../src/index.js");
let useConversation: typeof import("../src/react.js").useConversation;
let Lobby: Lobby;

before(async () => {
  if (!process.env.ANTIPHON_BIN) return;
  broker = await startTestBroker();
  // React looks for a DOM when it is loaded.
  Object.assign(globalThis, { window, document: window.document });
  // Node 22 has its own.
  if (!("navigator" in globalThis)) Object.assign(globalThis, { navigator: window.navigator });
  // React's words about misuse.
  console.error = (...words) => void faults.push(words);
  [react, dom, antiphon, { useConversation }, { Lobby }] = await Promise.all([
    import("react"),
    import("react-dom/client"),
    load<typeof antiphon>("antiphon"),
    load<typeof import("../src/react.js")>("antiphon/react"),
    lobby(),
  ]);
});

after(async () => {
  await broker?.stop();
  await window.happyDOM.close();
});

/** By a name that only Node is to resolve. */
function load<T>(name: string): Promise<T> {
  return import(name);
}

async function lobby(): Promise<{ Lobby: Lobby }> {
  const source = readmeFile("tsx", "lobby.tsx");
  const strict = [
    "--strict",
    "--noEmit",
    "--skipLibCheck",
    "--jsx",
    "react-jsx",
    "--module",
    "nodenext",
    "--types",
    "react",
  ];
  await promisify(execFile)("node_modules/.bin/tsc", [...strict, "--ignoreConfig", source]);
  const outfile = ".test-build/lobby.mjs";
  await build({ entryPoints: [source], outfile, bundle: true, format: "esm", packages: "external", jsx: "automatic" });
  return load(new URL("lobby.mjs", import.meta.url).href);
}

function Room({ client, id }: { client: Client; id: string }) {
  const { loaded } = useConversation(client, id);
  return `${id} ${loaded}`;
}

/** A client, and the frames that it has sent. */
async function start(context: Context, user: string) {
  const sent: { op: string }[] = [];
  class HeardSocket extends WebSocket {
    override send(data: string) {
      for (const line of data.split("\n")) sent.push(JSON.parse(line));
      super.send(data);
    }
  }
  const token = () => broker.mint(user, ALL);
  const given: ConnectOptions = { url: broker.url, token, WebSocket: HeardSocket, device: `${user}-test` };
  const client = antiphon.connect(given);
  context.after(() => client.close());
  await client.ready();
  return { client, count: (op: string) => sent.filter((frame) => frame.op === op).length };
}

function mount(
  context: Context,
  element: ReactNode,
): { root: Root; text: () => string; input: () => HTMLInputElement } {
  const container = window.document.createElement("div");
  window.document.body.append(container);
  const root = dom.createRoot(container as unknown as HTMLElement);
  context.after(() => root.unmount());
  root.render(element);
  return {
    root,
    text: () => container.textContent,
    input: () => container.querySelector("input") as unknown as HTMLInputElement,
  };
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  const end = Date.now() + 10_000;
  while (!isSo()) {
    assert.ok(Date.now() < end, what);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

for (const isStrict of [false, true]) {
  const mode = isStrict ? "in StrictMode" : "";
  test(`the lines of the README are a component ${mode}`, options, async (t) => {
    const [ann, bob] = [await start(t, `ann-${isStrict}`), await start(t, `bob-${isStrict}`)];
    const element = react.createElement(Lobby, { client: ann.client });
    const { root, text, input } = mount(t, isStrict ? react.createElement(react.StrictMode, null, element) : element);
    const his = bob.client.conversation("lobby");
    await his.send(`hello ${isStrict}`);
    await until("his message is shown", () => text().includes(`bob-${isStrict}: hello ${isStrict}`));
    his.typing();
    await until("he is seen typing", () => text().includes(`bob-${isStrict} …`));
    const hers = `hi ${isStrict}`;
    input().value = hers;
    input().dispatchEvent(new window.KeyboardEvent("keydown", { key: "Enter", bubbles: true }) as unknown as Event);
    await until("hers is shown as sent", () =>
      [`${hers} sent`, `${hers} delivered`].some((shown) => text().includes(shown)),
    );
    assert.equal(text().split(hers).length, 2, text());
    assert.equal(ann.count("SUBSCRIBE"), 1);
    root.unmount();
    await until("the conversation is let go of", () => ann.count("UNSUBSCRIBE") === 1);
    assert.equal(text(), "");
    // What comes now is for nobody, and the next one to show it has it all.
    await his.send(`meanwhile ${isStrict}`);
    const again = mount(t, element);
    await until("everything is shown again", () => again.text().includes(`meanwhile ${isStrict}`));
    assert.equal(again.text().split(hers).length, 2, again.text());
    again.root.unmount();
    await until("it is let go of again", () => ann.count("UNSUBSCRIBE") === 2);
    assert.deepEqual(faults, []);
  });
}

test("one component leaves, another stays", options, async (t) => {
  const { client, count } = await start(t, "eve");
  const [one, other] = [
    mount(t, react.createElement(Lobby, { client })),
    mount(t, react.createElement(Lobby, { client })),
  ];
  await client.conversation("lobby").send("to both");
  await until("both show it", () => [one, other].every(({ text }) => text().includes("to both")));
  one.root.unmount();
  await client.conversation("lobby").send("to one");
  await until("the other one goes on", () => other.text().includes("to one"));
  assert.deepEqual([count("SUBSCRIBE"), count("UNSUBSCRIBE")], [1, 0]);
  other.root.unmount();
  await until("nobody follows it", () => count("UNSUBSCRIBE") === 1);
});

test("what the application follows by itself stays followed", options, async (t) => {
  const { client, count } = await start(t, "kim");
  const heard: string[] = [];
  client.conversation("lobby").on("message", ({ content }) => heard.push(content.type === "text" ? content.text : ""));
  const { root, text } = mount(t, react.createElement(Lobby, { client }));
  await client.conversation("lobby").send("while shown");
  await until("it is shown", () => text().includes("while shown"));
  root.unmount();
  await client.conversation("lobby").send("and after");
  await until("it is heard", () => heard.includes("and after"));
  assert.deepEqual([count("SUBSCRIBE"), count("UNSUBSCRIBE")], [1, 0]);
});

test("a component that goes from one conversation to the next follows one at a time", options, async (t) => {
  const { client, count } = await start(t, "max");
  const { root, text } = mount(t, null);
  for (let n = 0; n < MANY; n++) {
    root.render(react.createElement(Room, { client, id: `room-${n}` }));
    await until(`room ${n} is loaded`, () => text() === `room-${n} true`);
  }
  root.unmount();
  await until("all are let go of", () => count("UNSUBSCRIBE") === MANY);
  assert.deepEqual(faults, []);
});
