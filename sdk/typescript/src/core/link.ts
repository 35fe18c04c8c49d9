/** What every part of the client works with: outputs, requests that wait for an answer, deadlines, randomness, time. */

import type { Request } from "../json.js";
import { uuidV4, uuidV7 } from "../uuid.js";
import { BACKOFF_MAX_MS, BACKOFF_MIN_MS, SILENCE_MAX_MS } from "./limits.js";
import type { Output } from "./output.js";
import { Random } from "./random.js";
import { type TimerKind, Timers } from "./timers.js";

/** Whose answer a request waits for. */
export type Pending =
  | { readonly of: "hello" | "authenticate" | "bye" | "unsubscribe" | "page" | "presence" | "check" }
  | { readonly of: "subscribe"; readonly id: number; readonly log: string }
  | { readonly of: "cursor" | "send"; readonly log: string }
  | { readonly of: "request"; readonly id: number };

/** Keeps the union of requests apart, which a plain `Omit` would merge. */
type WithoutId<R> = R extends unknown ? Omit<R, "id"> : never;

export class Link {
  /** The time of the input that is being handled. */
  now = 0;
  readonly timers = new Timers();
  /** Whether requests may be written: between WELCOME and GOAWAY. */
  ready = false;
  /** Whether the broker takes batches on this connection. */
  batches = false;

  readonly #outputs: Output[] = [];
  readonly #pending = new Map<number, Pending>();
  readonly #random: Random;
  #lastRequest = 0;
  #serverClock = { at: 0, unixMs: 0 };

  constructor(seed: Uint8Array) {
    this.#random = new Random(seed);
  }

  emit(output: Output): void {
    this.#outputs.push(output);
  }

  nextOutput(): Output | undefined {
    return this.#outputs.shift();
  }

  /** Writes a request, and returns its id. */
  request(pending: Pending, request: WithoutId<Request>): number {
    do this.#lastRequest = (this.#lastRequest % 0xffff_ffff) + 1;
    while (this.#pending.has(this.#lastRequest));
    const id = this.#lastRequest;
    if (this.#pending.size === 0) this.setTimer("silence", "", SILENCE_MAX_MS);
    this.#pending.set(id, pending);
    this.emit({ type: "write", frame: { ...request, id } as Request });
    return id;
  }

  /** Takes the request that an answer is for; undefined for an answer that nobody waits for. */
  answered(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  /** The broker lives: whatever is awaited has time again. */
  heard(): void {
    if (this.#pending.size > 0) this.setTimer("silence", "", SILENCE_MAX_MS);
    else this.timers.cancel("silence");
  }

  /** Whether every request has its answer. */
  get isSettled(): boolean {
    return this.#pending.size === 0;
  }

  /** Forgets what a lost connection would have answered. */
  down(): void {
    this.ready = false;
    this.batches = false;
    this.#pending.clear();
    this.timers.cancel("silence");
  }

  setTimer(kind: TimerKind, of: string | number, delay: number): void {
    this.timers.set(kind, of, this.now + delay);
  }

  /** A random wait before attempt `attempt` + 1: half to all of a time that doubles with each attempt. */
  backoff(attempt: number): number {
    const whole = Math.min(BACKOFF_MIN_MS * 2 ** Math.min(attempt, 16), BACKOFF_MAX_MS);
    return whole / 2 + this.jitter(whole / 2);
  }

  /** A random part of `most`. */
  jitter(most: number): number {
    return this.#random.fraction() * most;
  }

  setServerClock(unixMs: number): void {
    this.#serverClock = { at: this.now, unixMs };
  }

  /** The broker's clock now, Unix milliseconds. */
  get serverTimeMs(): number {
    return Math.floor(this.#serverClock.unixMs + this.now - this.#serverClock.at);
  }

  /** A UUIDv7 by the broker's clock. */
  messageId(): string {
    return uuidV7(this.serverTimeMs, this.#random.bytes(10));
  }

  randomId(): string {
    return uuidV4(this.#random.bytes(16));
  }
}
