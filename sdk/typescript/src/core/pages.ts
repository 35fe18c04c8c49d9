/** Page requests: the application's and those that subscriptions pull. At most four are in flight. */

import type { AnswerOf } from "../json.js";
import { type AntiphonError, LimitError, type RefusedError, StoppedError, type StopReason } from "./error.js";
import { readEvent } from "./event.js";
import type { Range } from "./input.js";
import { PAGES_IN_FLIGHT_MAX, REQUEST_ATTEMPTS_MAX, REQUESTS_MAX } from "./limits.js";
import type { Link } from "./link.js";
import { readView } from "./message.js";
import type { Messages, Page } from "./output.js";

/** Who wants a page: the application, rows or messages, or a pull of a subscription; `pull` tells it from earlier ones. */
type Owner =
  | { readonly is: "page" | "messages"; readonly id: number }
  | { readonly is: "pull"; readonly id: number; readonly pull: number };

interface Job {
  readonly owner: Owner;
  readonly range: Range;
  attempts: number;
}

/** What a pull gets. */
export interface Pulled {
  readonly id: number;
  readonly pull: number;
  readonly result: { readonly page: AnswerOf<"PAGE"> } | { readonly refusal: RefusedError };
}

export class Pages {
  readonly #link: Link;
  #queue: Job[] = [];
  readonly #inFlight = new Map<number, Job>();
  /** The application's jobs that were refused for now; their timers run. */
  readonly #waiting = new Map<number, Job>();

  constructor(link: Link) {
    this.#link = link;
  }

  /** The application wants rows, or messages as they stand. */
  fetch(is: "page" | "messages", id: number, range: Range): void {
    const owner = { is, id };
    const kept = this.#queue.length + this.#inFlight.size + this.#waiting.size;
    if (kept < REQUESTS_MAX) this.#push(owner, range);
    else this.#fail(owner, new LimitError("page requests", kept + 1, REQUESTS_MAX));
  }

  /** A subscription pulls the positions `from..to`. There is at most one such job per subscription. */
  pull(id: number, pull: number, log: string, from: number, to: number): void {
    this.#push({ is: "pull", id, pull }, { log, from, to, limit: 0, backward: false });
  }

  #push(owner: Owner, range: Range): void {
    this.#queue.push({ owner, range, attempts: 0 });
    this.write();
  }

  /** Writes what the window allows. */
  write(): void {
    while (this.#link.ready && this.#inFlight.size < PAGES_IN_FLIGHT_MAX) {
      const job = this.#queue.shift();
      if (!job) return;
      job.attempts += 1;
      const { log, from, to, limit, backward, atMs } = job.range;
      const request = this.#link.request(
        { of: "page" },
        {
          op: "FETCH",
          log,
          ...(from && { from }),
          ...(to && { to }),
          ...(limit && { limit }),
          ...(backward && { backward }),
          ...(job.owner.is === "messages" && { view: "messages" }),
          ...(atMs && { at_ms: atMs }),
        },
      );
      this.#inFlight.set(request, job);
    }
  }

  /** A PAGE. Returns it if a subscription pulled it. */
  answered(page: AnswerOf<"PAGE">): Pulled | undefined {
    const job = this.#take(page.id);
    if (job?.owner.is === "pull") return { id: job.owner.id, pull: job.owner.pull, result: { page } };
    if (job?.owner.is === "page") {
      this.#link.emit({ type: "page", id: job.owner.id, result: { value: readPage(page) } });
    }
    return undefined;
  }

  messagesAnswered(page: AnswerOf<"MESSAGES_PAGE">): void {
    const job = this.#take(page.id);
    if (job?.owner.is !== "messages") return;
    this.#link.emit({ type: "messages", id: job.owner.id, result: { value: readMessages(page) } });
  }

  #take(request: number): Job | undefined {
    const job = this.#inFlight.get(request);
    this.#inFlight.delete(request);
    this.write();
    return job;
  }

  /** A refusal. Returns it if a subscription pulled; the application's job is repeated if that may help. */
  refused(request: number, refusal: RefusedError): Pulled | undefined {
    const job = this.#take(request);
    if (!job) return undefined;
    if (job.owner.is === "pull") return { id: job.owner.id, pull: job.owner.pull, result: { refusal } };
    if (refusal.isTransient && job.attempts < REQUEST_ATTEMPTS_MAX) {
      this.#waiting.set(job.owner.id, job);
      const delay = Math.max(this.#link.backoff(job.attempts - 1), refusal.retryAfterMs);
      this.#link.setTimer("page", job.owner.id, delay);
    } else {
      this.#fail(job.owner, refusal);
    }
    return undefined;
  }

  /** The wait of an application's job is over. */
  due(id: number): void {
    const job = this.#waiting.get(id);
    if (!job) return;
    this.#waiting.delete(id);
    this.#queue.push(job);
    this.write();
  }

  /** A subscription no longer pulls. */
  cancel(id: number): void {
    this.#queue = this.#queue.filter(({ owner }) => owner.is !== "pull" || owner.id !== id);
  }

  /** The connection is lost: the application's jobs are repeated, pulls begin anew with their subscriptions. */
  down(): void {
    const jobs = [...this.#inFlight.values(), ...this.#queue];
    this.#inFlight.clear();
    this.#queue = jobs.filter(({ owner }) => owner.is !== "pull");
  }

  stop(reason: StopReason): void {
    this.down();
    const jobs = [...this.#queue, ...this.#waiting.values()];
    this.#queue = [];
    this.#waiting.clear();
    for (const { owner } of jobs) this.#fail(owner, new StoppedError(reason));
  }

  /** Tells the application; a subscription is told elsewhere. */
  #fail({ is, id }: Owner, error: AntiphonError): void {
    if (is !== "pull") this.#link.emit({ type: is, id, result: { error } });
  }
}

export function readPage({ next, floor, epoch, head, rows }: AnswerOf<"PAGE">): Page {
  return { events: rows.map((row) => readEvent(epoch, row)), next, head: { epoch, seq: head }, floor };
}

export function readMessages({ next, floor, epoch, head, messages }: AnswerOf<"MESSAGES_PAGE">): Messages {
  return { messages: messages.map((view) => readView(epoch, view)), next, head: { epoch, seq: head }, floor };
}
