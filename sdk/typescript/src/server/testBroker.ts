/** A real broker for tests: a process of its own on random ports, with a store that is thrown away. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import type { Claims, Grant } from "./token.js";

export interface TestBrokerOptions {
  /** The program; `ANTIPHON_BIN` of the environment if absent. */
  readonly binary?: string;
  /** How long it may take to be ready; 15 seconds if absent. */
  readonly timeoutMs?: number;
}

export interface TestTokenOptions {
  /** For a back end. */
  readonly service?: boolean;
  readonly scopes?: Claims["scopes"];
  readonly lifetimeSeconds?: number;
}

export interface TestBroker {
  /** For `connect`. */
  readonly url: string;
  /** Where QUIC clients connect, and the certificate to pin. */
  readonly address: string;
  readonly fingerprint: string;
  /** A token for a user, who is told by its name alone. */
  mint(user: string, grants?: readonly Grant[], options?: TestTokenOptions): Promise<string>;
  /** Stops the broker, and removes what it stored. */
  stop(): Promise<void>;
}

/** Starts a broker in development mode, and waits until it is ready. */
export async function startTestBroker(options: TestBrokerOptions = {}): Promise<TestBroker> {
  const binary = options.binary ?? process.env.ANTIPHON_BIN;
  if (!binary) throw new Error("ANTIPHON_BIN has to name the broker's program");
  const data = await mkdtemp(join(tmpdir(), "antiphon-test-"));
  const random = "127.0.0.1:0";
  const args = ["serve", "--data", data, "--listen", random, "--admin", random];
  const child = spawn(binary, args, { stdio: ["ignore", "pipe", "pipe"] });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  // A test that ends without `stop` leaves no broker behind.
  const killAtExit = () => void child.kill("SIGKILL");
  process.once("exit", killAtExit);
  const stop = async () => {
    process.removeListener("exit", killAtExit);
    child.kill("SIGTERM");
    await ended;
    await rm(data, { recursive: true, force: true });
  };
  try {
    const facts = await readFacts(child, options.timeoutMs ?? 15_000);
    const gateway = facts.get("gateway");
    if (!gateway) throw new Error(`the broker announced no gateway, only ${[...facts.keys()].join(", ")}`);
    return {
      url: gateway,
      address: facts.get("address") ?? "",
      fingerprint: facts.get("fingerprint") ?? "",
      mint: (user, grants = [], options = {}) => mint(binary, data, user, grants, options),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** What the broker says of itself, one fact a line, until `ready`. */
function readFacts(child: ChildProcess, timeoutMs: number): Promise<ReadonlyMap<string, string>> {
  const facts = new Map<string, string>();
  let log = "";
  child.stderr?.on("data", (chunk) => {
    log = (log + chunk).slice(-4_096);
  });
  return new Promise((resolve, reject) => {
    const fail = (why: string) => reject(new Error(`the broker ${why}\n${log}`));
    const timer = setTimeout(() => fail(`was not ready within ${timeoutMs} ms`), timeoutMs);
    child.once("error", (error) => fail(`cannot be started: ${error.message}`));
    child.once("close", (code) => fail(`ended with ${code}`));
    if (!child.stdout) return;
    createInterface(child.stdout).on("line", (line) => {
      const [, name, value] = /^(\w+): (.+)$/.exec(line) ?? [];
      if (name && value) facts.set(name, value);
      if (line !== "ready") return;
      clearTimeout(timer);
      resolve(facts);
    });
    child.once("close", () => clearTimeout(timer));
  });
}

async function mint(binary: string, data: string, user: string, grants: readonly Grant[], more: TestTokenOptions) {
  const { service = false, scopes = [], lifetimeSeconds } = more;
  const rights = [
    ...grants.flatMap(({ on, can }) => ["--grant", `${on}=${can.join(",")}`]),
    ...scopes.flatMap((scope) => ["--scope", scope]),
    ...(service ? ["--service"] : []),
    ...(lifetimeSeconds === undefined ? [] : ["--lifetime", String(lifetimeSeconds)]),
  ];
  const { stdout } = await promisify(execFile)(binary, ["token", "--data", data, "--user", user, ...rights]);
  return stdout.trim();
}
