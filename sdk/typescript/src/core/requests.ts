/** Requests without a command of their own: queued, answered, repeated when the broker asks for it. Signals too. */

import { toBase64Url } from "../bytes.js";
import type { Members } from "../json.js";
import {
  type AntiphonError,
  ConnectionLostError,
  LimitError,
  NotConnectedError,
  type RefusedError,
  StoppedError,
  type StopReason,
} from "./error.js";
import type { Command, PlainRequest } from "./input.js";
import { REQUEST_ATTEMPTS_MAX, REQUESTS_IN_FLIGHT_MAX, REQUESTS_MAX, SIGNAL_BYTES_MAX } from "./limits.js";
import type { Link } from "./link.js";

interface Kept {
  readonly request: PlainRequest;
  attempts: number;
  /** `waiting` = refused for now; its timer runs. */
  state: "queued" | "inFlight" | "waiting";
}

export class Requests {
  readonly #link: Link;
  readonly #all = new Map<number, Kept>();
  #queue: number[] = [];
  #inFlight = 0;

  constructor(link: Link) {
    this.#link = link;
  }

  add(id: number, request: PlainRequest): void {
    if (this.#all.size >= REQUESTS_MAX) {
      this.#fail(id, new LimitError("requests", this.#all.size + 1, REQUESTS_MAX));
      return;
    }
    this.#all.set(id, { request, attempts: 0, state: "queued" });
    this.#queue.push(id);
    this.write();
  }

  /** Writes what the window allows. */
  write(): void {
    while (this.#link.ready && this.#inFlight < REQUESTS_IN_FLIGHT_MAX) {
      const id = this.#queue.shift();
      if (id === undefined) return;
      const kept = this.#all.get(id);
      if (!kept) continue;
      kept.state = "inFlight";
      kept.attempts += 1;
      this.#inFlight += 1;
      this.#link.request({ of: "request", id }, kept.request);
    }
  }

  answered(id: number, members: Members): void {
    if (this.#all.delete(id)) {
      this.#inFlight -= 1;
      this.#link.emit({ type: "answer", id, result: { value: members } });
    }
    this.write();
  }

  refused(id: number, refusal: RefusedError): void {
    const kept = this.#all.get(id);
    if (!kept) return;
    this.#inFlight -= 1;
    const harmless = !refusal.outcomeUnknown || onlyReads(kept);
    if (refusal.isTransient && harmless && kept.attempts < REQUEST_ATTEMPTS_MAX) {
      kept.state = "waiting";
      const delay = Math.max(this.#link.backoff(kept.attempts - 1), refusal.retryAfterMs);
      this.#link.setTimer("request", id, delay);
    } else {
      this.#all.delete(id);
      this.#fail(id, refusal);
    }
    this.write();
  }

  /** The wait of a request is over. */
  due(id: number): void {
    const kept = this.#all.get(id);
    if (!kept) return;
    kept.state = "queued";
    this.#queue.push(id);
    this.write();
  }

  /** The connection is lost: what was written has an unknown outcome, and is repeated only where that is harmless. */
  down(): void {
    this.#inFlight = 0;
    const again: number[] = [];
    for (const [id, kept] of this.#all) {
      if (kept.state !== "inFlight") continue;
      if (onlyReads(kept)) {
        kept.state = "queued";
        again.push(id);
      } else {
        this.#all.delete(id);
        this.#fail(id, new ConnectionLostError());
      }
    }
    this.#queue = [...again, ...this.#queue];
  }

  stop(reason: StopReason): void {
    const ids = [...this.#all.keys()];
    this.#all.clear();
    this.#queue = [];
    this.#inFlight = 0;
    for (const id of ids) this.#fail(id, new StoppedError(reason));
  }

  #fail(id: number, error: AntiphonError): void {
    this.#link.emit({ type: "answer", id, result: { error } });
  }
}

function onlyReads({ request }: Kept): boolean {
  return request.op === "CONVERSATION_GET" || request.op === "SYNC";
}

/** Writes a signal, or tells why not. It has no answer, so it takes no place among the requests. */
export function signal(link: Link, command: Extract<Command, { type: "signal" }>): void {
  const { id, log, kind, data, ttlMs } = command;
  const done = (error?: AntiphonError) =>
    link.emit({ type: "done", id, result: error ? { error } : { value: undefined } });
  if (data.length > SIGNAL_BYTES_MAX) return done(new LimitError("bytes of a signal", data.length, SIGNAL_BYTES_MAX));
  if (!link.ready) return done(new NotConnectedError());
  const members = { log, kind, ...(data.length > 0 && { data: toBase64Url(data) }), ...(ttlMs && { ttl_ms: ttlMs }) };
  link.emit({ type: "writeSignal", frame: { op: "SIGNAL", ...members } });
  return done();
}
