/** Drives the core by hand: every input is written down in a test, every output is looked at. No broker is played. */

import assert from "node:assert/strict";
import { Core } from "../src/core/client.js";
import type { Command, Input } from "../src/core/input.js";
import type { Item, Output, SendState } from "../src/core/output.js";
import { type Request, type RequestOp, readFrame } from "../src/json.js";

export const SESSION = "00010203-0405-0607-0809-0a0b0c0d0e0f";
export const SERVER_TIME_MS = 1_731_000_000_000;

// biome-ignore lint/suspicious/noExplicitAny: tests write frames as they are on the wire
export type Frame = any;

export class Harness {
  readonly core: Core;
  now = 0;
  /** Everything that the core has asked for and told, since it was last looked at. */
  #outputs: Output[] = [];

  constructor(seed = 7) {
    const bytes = new Uint8Array(16);
    new DataView(bytes.buffer).setUint32(0, seed);
    this.core = new Core({ device: "tab", clientName: "test", followMine: true, seed: bytes });
    this.#drain();
  }

  #drain(): void {
    for (let output = this.core.pollOutput(); output; output = this.core.pollOutput()) this.#outputs.push(output);
  }

  input(input: Input): this {
    this.core.handle(this.now, input);
    this.#drain();
    return this;
  }

  command(command: Command): this {
    return this.input({ type: "command", command });
  }

  /** A frame of the broker, through the reader of JSON. */
  frame(frame: Frame): this {
    return this.input({ type: "frame", frame: readFrame(JSON.parse(JSON.stringify(frame))) });
  }

  /** Time goes by, deadline by deadline. */
  sleep(ms: number): this {
    const until = this.now + ms;
    for (;;) {
      const next = this.core.pollTimeout();
      if (next === undefined || next > until) break;
      this.now = Math.max(this.now, next);
      this.input({ type: "timeout" });
    }
    this.now = until;
    return this;
  }

  /** Sleeps until the next deadline, and returns how long that was. */
  sleepToTimeout(): number {
    const next = this.core.pollTimeout();
    assert.ok(next !== undefined, "nothing waits");
    const slept = Math.max(next - this.now, 0);
    this.sleep(slept);
    return slept;
  }

  /** All outputs since the last look. */
  take(): Output[] {
    const taken = this.#outputs;
    this.#outputs = [];
    return taken;
  }

  #pick<T>(pick: (output: Output) => T | undefined): T[] {
    const picked: T[] = [];
    this.#outputs = this.#outputs.filter((output) => {
      const one = pick(output);
      if (one !== undefined) picked.push(one);
      return one === undefined;
    });
    return picked;
  }

  /** Frames written since the last look, of one kind or all. */
  written(): Request[];
  written<Op extends RequestOp>(op: Op): (Extract<Request, { op: Op }> & { id: number })[];
  written(op?: RequestOp): Request[] {
    return this.#pick((output) => {
      if (output.type !== "write" && output.type !== "writeSignal") return undefined;
      return op === undefined || output.frame.op === op ? output.frame : undefined;
    });
  }

  /** Exactly one frame of this kind was written since the last look. */
  one<Op extends RequestOp>(op: Op): Extract<Request, { op: Op }> & { id: number } {
    const all = this.written(op);
    assert.equal(all.length, 1, `${op}: ${JSON.stringify(all)}`);
    return all[0] as Extract<Request, { op: Op }> & { id: number };
  }

  items(id: number): Item[] {
    return this.#pick((output) => (output.type === "subscription" && output.id === id ? output.item : undefined));
  }

  sendStates(id: number): SendState[] {
    return this.#pick((output) => (output.type === "send" && output.id === id ? output.state : undefined));
  }

  of<Type extends Output["type"]>(type: Type): Extract<Output, { type: Type }>[] {
    return this.#pick((output) => (output.type === type ? (output as Extract<Output, { type: Type }>) : undefined));
  }

  // ---- the usual beginnings ----

  /** From nothing to a session. Returns the HELLO. */
  connect(welcome: Frame = {}, token = "a.b.c") {
    if (this.of("needToken").length > 0) this.input({ type: "token", token });
    assert.equal(this.of("connect").length, 1);
    this.input({ type: "connected" });
    return this.greet(welcome);
  }

  /** Answers the HELLO that was written. */
  greet(welcome: Frame = {}) {
    const hello = this.one("HELLO");
    this.frame({
      op: "WELCOME",
      id: hello.id,
      version: 1,
      session_id: SESSION,
      resume_token: `resume-${hello.attempt}`,
      server_time_ms: SERVER_TIME_MS + Math.floor(this.now),
      user: "ann",
      device: "tab",
      reconnect_jitter_ms: 2_000,
      max_subscriptions: 256,
      capabilities: ["follow"],
      expires_at_ms: SERVER_TIME_MS + Math.floor(this.now) + 3_600_000,
      ...welcome,
    });
    return hello;
  }

  /** The socket breaks, and the next connection is awaited, up to its HELLO's answer. */
  reconnect(welcome: Frame = {}) {
    this.input({ type: "disconnected", cause: "lost" });
    this.take();
    while (!this.#outputs.some(({ type }) => type === "connect" || type === "needToken")) this.sleepToTimeout();
    return this.connect(welcome);
  }

  /** Subscribes to a log, and answers with an ATTACH that says nothing else. Returns the id. */
  subscribe(id: number, log: string, attach: Frame = {}): number {
    this.command({ type: "subscribe", id, log, from: { at: "tail" } });
    this.attach(attach);
    return id;
  }

  /** Answers the SUBSCRIBE that was written. */
  attach(attach: Frame = {}) {
    const subscribe = this.one("SUBSCRIBE");
    const { live_from = 1 } = attach;
    this.frame({
      op: "ATTACH",
      id: subscribe.id,
      handle: 5,
      log: subscribe.log,
      epoch: 1,
      live_from,
      replay_from: live_from,
      head: live_from - 1,
      floor: 1,
      ...attach,
    });
    return subscribe;
  }

  ack(id: number, seq: number, more: Frame = {}): this {
    return this.frame({ op: "ACK", id, position: `1-${seq}`, msgno: seq, time_ms: 1, event_id: eventId(seq), ...more });
  }
}

export function eventId(seq: number): string {
  return `01900000-0000-7000-8000-${seq.toString(16).padStart(12, "0")}`;
}

/** A message in its JSON form. */
export function row(seq: number, more: Frame = {}): Frame {
  return {
    seq,
    msgno: seq,
    time_ms: 1_000 + seq,
    event_id: eventId(seq),
    content_hash: "00",
    kind: "message",
    sender: "bob",
    text: `message ${seq}`,
    ...more,
  };
}

export function event(handle: number, seq: number, more: Frame = {}): Frame {
  return { op: "EVENT", handle, ...row(seq, more) };
}

export function refusal(id: number, number: number, code: string, more: Frame = {}): Frame {
  return { op: "ERROR", ...(id && { id }), number, code, ...more };
}

/** What a subscription brought, briefly: a position for an event, a word for the rest. */
export function brief(items: readonly Item[]): (number | string)[] {
  return items.map((item) => {
    if (item.type === "event") return item.event.seq;
    if (item.type === "skipped") return `skip ${item.first}-${item.last}`;
    if (item.type === "reset") return `reset ${item.reason} ${item.after.epoch}-${item.after.seq}`;
    if (item.type === "detached") return `detached ${item.reason.why}`;
    return item.type;
  });
}
