/** A broker that can be killed, and started again at the same place. */

import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { Program } from "./program.js";

export const BINARY = resolve(process.env.ANTIPHON_BIN ?? "../../target/debug/antiphon");

export class Broker {
  readonly #data: string;
  #program: Program | undefined;
  /** Addresses of the first start, which later ones keep. */
  #ports = { listen: "127.0.0.1:0", admin: "127.0.0.1:0", trunk: "127.0.0.1:0", gateway: "127.0.0.1:0" };

  private constructor(data: string) {
    this.#data = data;
  }

  static async start(): Promise<Broker> {
    const broker = new Broker(await mkdtemp(join(tmpdir(), "antiphon-console-")));
    await broker.start();
    return broker;
  }

  /** Of the gateway. */
  get port(): number {
    return Number(this.#ports.gateway.split(":").at(-1));
  }

  get url(): string {
    return `http://${this.#ports.gateway}`;
  }

  /** What a gateway in a process of its own has to know. */
  get edge(): { trunk: string; fingerprint: string; secrets: string } {
    const fingerprint = this.#program?.facts.get("fingerprint") ?? "";
    return { trunk: this.#ports.trunk, fingerprint, secrets: join(this.#data, "secrets") };
  }

  async start(): Promise<void> {
    const { listen, admin, trunk, gateway } = this.#ports;
    const places = ["--listen", listen, "--admin", admin, "--trunk", trunk, "--gateway", gateway];
    const args = ["serve", "--data", this.#data, ...places, "--shards", "2", "--log-filter", "warn"];
    this.#program = await Program.start(BINARY, args);
    const { facts } = this.#program;
    const of = (name: string) => (facts.get(name) ?? "").replace("http://", "");
    this.#ports = { listen: of("address"), admin: of("admin"), trunk: of("trunk"), gateway: of("gateway") };
  }

  /** Without a word, as a crash is. */
  async kill(): Promise<void> {
    await this.#program?.kill();
  }

  async stop(): Promise<void> {
    await this.kill();
    await rm(this.#data, { recursive: true, force: true });
  }

  /** A token of the command line, which may live for a short time. */
  async token(user: string, lifetimeSeconds: number): Promise<string> {
    const args = ["token", "--data", this.#data, "--user", user, "--lifetime", String(lifetimeSeconds)];
    const { stdout } = await promisify(execFile)(BINARY, args);
    return stdout.trim();
  }

  /** Asks the HTTP API as a user: no part of the SDK has a say in the answer. */
  async api(user: string, path: string, method = "GET", body?: unknown): Promise<Record<string, unknown>> {
    const authorization = `Bearer ${await this.#token(user)}`;
    const json = { "content-type": "application/json" };
    const request = { method, headers: { authorization, ...(body !== undefined && json) } };
    const response = await fetch(`${this.url}/api/v1${path}`, {
      ...request,
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === "" ? {} : JSON.parse(text);
  }

  readonly #tokens = new Map<string, Promise<string>>();

  #token(user: string): Promise<string> {
    const known = this.#tokens.get(user) ?? this.token(user, 3_600);
    this.#tokens.set(user, known);
    return known;
  }
}
