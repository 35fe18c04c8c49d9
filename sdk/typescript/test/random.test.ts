/**
 * Random histories of a log and of an outbox, each from a seed. What the core asks for is answered from a model of one
 * log that follows the rules of the protocol, over a way that loses, repeats and cuts. A failure names its seed.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { newMessage } from "../src/core/newMessage.js";
import type { Item } from "../src/core/output.js";
import { Random } from "../src/core/random.js";
import type { Request } from "../src/json.js";
import { event, type Frame, Harness, refusal, row } from "./harness.js";

const SEEDS = 300;

class Dice {
  readonly #random: Random;

  constructor(seed: number) {
    this.#random = new Random(Uint8Array.from({ length: 12 }, (_, at) => (seed >> (at % 4)) * (at + 1)));
  }

  below(count: number): number {
    return Math.floor(this.#random.fraction() * count);
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
}

function forEachSeed(check: (seed: number) => void): void {
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      check(seed);
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
}

// ---- one log and its reader ----

/** A log that grows, and the frames that are on their way to its reader. */
class Log {
  head = 0;
  readonly #dice: Dice;
  /** Positions that this reader does not get. */
  readonly skipped = new Set<number>();
  handle: number | undefined;
  #lastHandle = 0;
  wire: Frame[] = [];

  constructor(dice: Dice) {
    this.#dice = dice;
  }

  append(): void {
    this.head += 1;
    if (this.#dice.chance(10)) this.skipped.add(this.head);
    if (this.handle !== undefined) this.wire.push(this.#frame(this.handle, this.head));
  }

  #frame(handle: number, seq: number): Frame {
    return this.skipped.has(seq) ? { op: "SKIP", handle, from: seq, to: seq } : event(handle, seq);
  }

  answer(request: Request): void {
    const { id } = request;
    switch (request.op) {
      case "SUBSCRIBE":
        return this.#subscribe(request);
      case "UNSUBSCRIBE":
        if (request.handle === this.handle) this.handle = undefined;
        this.wire.push({ op: "OK", id }, { op: "DETACH", handle: request.handle });
        return;
      case "FETCH": {
        const { from = 1, to = this.head + 1 } = request;
        const end = Math.min(to, from + 1 + this.#dice.below(6));
        const rows: Frame[] = [];
        // Rows exist for everybody; a position that this reader does not get live is read like any other.
        for (let seq = from; seq < end; seq++) rows.push(row(seq));
        this.wire.push({ op: "PAGE", id, next: end < to ? end : 0, head: this.head, floor: 1, epoch: 1, rows });
      }
    }
  }

  #subscribe({ id, log, after }: Extract<Request, { op: "SUBSCRIBE" }>): void {
    if (this.#dice.chance(10)) {
      this.wire.push(refusal(id ?? 0, 1001, "overloaded"));
      return;
    }
    const replay = Number(after?.split("-")[1] ?? this.head) + 1;
    const inlined = this.#dice.chance(50);
    this.#lastHandle += 1;
    const handle = this.#lastHandle;
    this.handle = handle;
    const { head } = this;
    this.wire.push({
      ...{ op: "ATTACH", id, handle, log, epoch: 1, live_from: head + 1, replay_from: replay },
      ...{ inlined: inlined && replay <= head, head, floor: 1 },
    });
    if (!inlined) return;
    for (let seq = replay; seq <= head; seq++) this.wire.push(this.#frame(handle, seq));
  }

  cut(): void {
    this.handle = undefined;
    this.wire = [];
  }
}

/** Positions in the order in which the application heard of them. */
function positions(items: readonly Item[]): number[] {
  return items.flatMap((item) => {
    if (item.type === "event") return [item.event.seq];
    if (item.type !== "skipped") return [];
    return Array.from({ length: item.last - item.first + 1 }, (_, at) => item.first + at);
  });
}

test("each position of a log comes once and in order, whatever happens to the way", () => {
  let repaired = 0;
  let resumed = 0;
  forEachSeed((seed) => {
    const dice = new Dice(seed);
    const log = new Log(dice);
    const harness = new Harness(seed);
    const items: Item[] = [];
    const turn = () => {
      for (const request of harness.written()) log.answer(request);
      items.push(...harness.items(1));
    };
    harness.connect();
    harness.command({ type: "subscribe", id: 1, log: "c:a", from: { at: "tail" } });
    turn();
    for (let step = 0; step < 200; step++) {
      const kind = dice.below(20);
      if (kind < 8) log.append();
      else if (kind < 15) {
        const frame = log.wire.shift();
        if (frame) harness.frame(frame);
        // Only what is live can be lost or repeated without breaking the rules of requests.
        if (frame?.op === "EVENT" && dice.chance(10)) harness.frame(frame);
      } else if (kind === 15 && log.wire[0]?.op === "EVENT") {
        log.wire.shift();
        repaired += 1;
      } else if (kind === 16 && log.handle !== undefined) {
        log.wire.push({ op: "BEHIND", handle: log.handle });
        log.handle = undefined;
      } else if (kind === 17 && dice.chance(20)) {
        log.cut();
        items.push(...harness.items(1));
        resumed += 1;
        if (dice.chance(50)) harness.reconnect();
        else {
          harness.frame({ op: "RESUME", jitter_ms: 100 });
          harness.take();
          while (!harness.of("state").some(({ state }) => state.is === "connecting")) harness.sleepToTimeout();
          harness.greet();
        }
      } else harness.sleep(dice.below(1_000));
      turn();
    }
    // The way is good from now on: one more event makes every gap seen.
    log.append();
    for (let step = 0; step < 5_000 && positions(items).at(-1) !== log.head; step++) {
      const frame = log.wire.shift();
      if (frame) harness.frame(frame);
      else harness.sleep(1_000);
      if (!frame && dice.chance(50)) log.append();
      turn();
    }
    assert.equal(items.filter(({ type }) => type === "reset" || type === "detached").length, 0);
    const seen = positions(items);
    const first = seen[0] ?? 1;
    assert.deepEqual(
      seen,
      Array.from({ length: log.head - first + 1 }, (_, at) => first + at),
    );
  });
  assert.ok(repaired > SEEDS && resumed > SEEDS / 4, "the histories are eventful");
});

// ---- one outbox and its log ----

/** The log's side of sends: de-duplication by id, and the rules of `dseq` (SPEC section 8). */
class Store {
  readonly rows: { readonly id: string; readonly text: string }[] = [];
  /** The last `dseq` that was consumed on this connection. */
  #consumed: number | undefined;
  #refusedFrom: number | undefined;

  newConnection(): void {
    this.#consumed = undefined;
    this.#refusedFrom = undefined;
  }

  take(send: Extract<Request, { op: "SEND" }>, dice: Dice): Frame {
    const { id = 0, dseq = 0, client_message_id, text = "" } = send;
    const isHole = this.#consumed !== undefined && dseq > this.#consumed + 1;
    const isBehind = this.#refusedFrom !== undefined && dseq > this.#refusedFrom;
    if (isHole || isBehind) return refusal(id, 1007, "out_of_order");
    if (dice.chance(15)) {
      this.#refusedFrom = dseq;
      return refusal(id, 1001, "overloaded");
    }
    this.#refusedFrom = undefined;
    this.#consumed = Math.max(this.#consumed ?? 0, dseq);
    const known = this.rows.findIndex((stored) => stored.id === client_message_id);
    if (known < 0) this.rows.push({ id: client_message_id, text });
    const seq = known < 0 ? this.rows.length : known + 1;
    return { op: "ACK", id, position: `1-${seq}`, msgno: seq, time_ms: 1, event_id: "x", duplicate: known >= 0 };
  }
}

test("each send is stored once and in order, and is acknowledged once, whatever happens to the way", () => {
  let duplicates = 0;
  forEachSeed((seed) => {
    const dice = new Dice(seed);
    const store = new Store();
    const harness = new Harness(seed);
    const sent: number[] = [];
    let wire: Frame[] = [];
    let last = 0;
    const turn = () => {
      for (const send of harness.written("SEND")) wire.push(store.take(send, dice));
      for (const { id, state } of harness.of("send")) {
        assert.notEqual(state.is, "failed");
        if (state.is === "sent") sent.push(id);
      }
    };
    harness.connect();
    for (let step = 0; step < 150; step++) {
      const kind = dice.below(20);
      if (kind < 7) {
        last += 1;
        harness.command({ type: "send", id: last, message: newMessage("c:a", `text ${last}`) });
      } else if (kind < 15) {
        const frame = wire.shift();
        if (frame?.duplicate) duplicates += 1;
        if (frame) harness.frame(frame);
      } else if (kind === 15 && dice.chance(40)) {
        // What was written has been stored; its answers are lost.
        turn();
        wire = [];
        store.newConnection();
        harness.input({ type: "disconnected", cause: "lost" });
        turn();
        while (harness.of("connect").length === 0) harness.sleepToTimeout();
        harness.input({ type: "connected" });
        harness.greet();
      } else harness.sleep(dice.below(500));
      turn();
    }
    for (let step = 0; step < 5_000 && sent.length < last; step++) {
      const frame = wire.shift();
      if (frame) harness.frame(frame);
      else harness.sleep(1_000);
      turn();
    }
    const all = Array.from({ length: last }, (_, at) => at + 1);
    assert.deepEqual(
      store.rows.map(({ text }) => text),
      all.map((id) => `text ${id}`),
    );
    assert.deepEqual(sent, all);
  });
  assert.ok(duplicates > 20, "some answers were lost");
});

test("the same seed and inputs give the same outputs", () => {
  const run = () => {
    const harness = new Harness(42);
    harness.connect();
    harness.command({ type: "send", id: 1, message: newMessage("c:a", "x") });
    harness.input({ type: "disconnected", cause: "lost" });
    harness.sleep(60_000);
    return JSON.stringify(harness.take());
  };
  assert.equal(run(), run());
});
