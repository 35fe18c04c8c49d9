/** A socket that a test drives by hand: it shows what the client wrote, and says what the test makes it say. */

import assert from "node:assert/strict";
import type { Request, RequestOp } from "../src/json.js";
import { type Frame, SERVER_TIME_MS, SESSION } from "./harness.js";

export class HandSocket {
  static all: HandSocket[] = [];
  binaryType = "";
  bufferedAmount = 0;
  onopen: ((event: unknown) => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  readonly url: string;
  readonly protocols: string[];
  readonly sent: string[] = [];
  isClosed = false;

  constructor(url: string, protocols: string[] = []) {
    this.url = url;
    this.protocols = protocols;
    HandSocket.all.push(this);
  }

  send(data: string): void {
    assert.ok(!this.isClosed, "nothing is written to a closed socket");
    this.sent.push(data);
  }

  close(): void {
    this.isClosed = true;
  }

  /** Frames, all in one message. */
  say(...frames: Frame[]): void {
    this.onmessage?.({ data: frames.map((frame) => JSON.stringify(frame)).join("\n") });
  }

  /** The first written frame of this kind, which is taken out; waits for it. */
  async next<Op extends RequestOp>(op: Op): Promise<Extract<Request, { op: Op }> & { id: number }> {
    for (let turn = 0; turn < 200; turn++) {
      const at = this.sent.findIndex((line) => JSON.parse(line).op === op);
      if (at >= 0) return JSON.parse(this.sent.splice(at, 1)[0] ?? "");
      await settle();
    }
    return assert.fail(`${op} was not written, only ${this.sent.join("\n")}`);
  }

  async welcome(more: Frame = {}): Promise<void> {
    this.onopen?.({});
    const { id } = await this.next("HELLO");
    this.say({
      ...{ op: "WELCOME", id, version: 1, session_id: SESSION, resume_token: "r", server_time_ms: SERVER_TIME_MS },
      ...{ user: "ann", device: "tab", expires_at_ms: SERVER_TIME_MS + 3_600_000, ...more },
    });
  }
}

/** The socket that the client makes next. */
export async function nextSocket(): Promise<HandSocket> {
  for (let turn = 0; turn < 2_000; turn++) {
    const socket = HandSocket.all.shift();
    if (socket) return socket;
    await settle();
  }
  return assert.fail("no socket was made");
}

/** Lets everything run that waits for nothing. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1));
}
