/** A program that says what it is on its first lines, and can be killed. */

import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

const READY_MS = 30_000;

export class Program {
  /** What it says of itself, by name. */
  readonly facts: ReadonlyMap<string, string>;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, facts: ReadonlyMap<string, string>) {
    this.#child = child;
    this.facts = facts;
  }

  /** Waits until it is ready. With PROGRAM_LOGS in the environment its log is shown. */
  static async start(path: string, args: readonly string[]): Promise<Program> {
    const child = spawn(path, args, { stdio: ["ignore", "pipe", process.env.PROGRAM_LOGS ? "inherit" : "ignore"] });
    try {
      return new Program(child, await readFacts(path, child));
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
  }

  /** Without a word, as a crash is. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((done) => child.once("close", done));
    child.kill("SIGKILL");
    await ended;
  }
}

/** One fact a line, until `ready`. */
function readFacts(path: string, child: ChildProcess): Promise<ReadonlyMap<string, string>> {
  const facts = new Map<string, string>();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${path} was not ready in time`)), READY_MS);
    child.once("error", reject);
    child.once("close", (code) => reject(new Error(`${path} ended with ${code}`)));
    if (!child.stdout) return;
    createInterface(child.stdout).on("line", (line) => {
      const [, name, value] = /^(\w+): (.+)$/.exec(line) ?? [];
      if (name && value) facts.set(name, value);
      if (line !== "ready") return;
      clearTimeout(timer);
      resolve(facts);
    });
  });
}
