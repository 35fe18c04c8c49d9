/** A log as server-sent events, read on over every break of the connection: each event once and in order. */

import { setTimeout as sleep } from "node:timers/promises";
import { ConnectionLostError, RefusedError } from "../core/error.js";
import { type Event, formatPosition, readEvent } from "../core/event.js";
import type { ResetReason } from "../core/output.js";
import { readable } from "../info.js";
import { type Position, parsePosition, readRow } from "../json.js";
import { type Accepted, type Http, isOfToken, readAs } from "./http.js";
import { type ServerSentEvent, serverSentEvents } from "./serverSentEvents.js";

/** A gateway says something every 25 seconds. */
const SILENCE_MS = 60_000;
const BACKOFF_MIN_MS = 200;
const BACKOFF_MAX_MS = 15_000;
/** Refused tokens in a row, each of them new: for the second after one's tokens were revoked a new one is void too. */
const TOKENS_MAX = 4;

export interface FollowOptions {
  /** The last event that is known, or its position; what comes from now on if absent. */
  readonly after?: Position;
  /** Ends it. So does leaving the loop. */
  readonly signal?: AbortSignal;
}

export type Followed =
  | { readonly type: "event"; readonly event: Event }
  /** What came before may be wrong or gone: events begin anew, with the oldest one that exists. */
  | { readonly type: "reset"; readonly reason: ResetReason; readonly floor: number };

/**
 * Follows a log from the position after `after`. Ends with an error where trying again is of no use: the reader was
 * removed, the token is refused.
 */
export async function* follow(http: Http, log: string, after: Position, signal?: AbortSignal) {
  let last = after;
  let failures = 0;
  const opened = () => {
    failures = 0;
  };
  while (!signal?.aborted) {
    let waitMs = 0;
    try {
      for await (const item of readOnce(http, log, last, opened, signal)) {
        if (item.type === "event") last = { epoch: item.event.epoch, seq: item.event.seq };
        yield item;
      }
    } catch (error) {
      if (signal?.aborted) return;
      const isRenewed = isOfToken(error) && http.tokens.canRenew && failures < TOKENS_MAX;
      if (!isTransient(error) && !isRenewed) throw error;
      if (error instanceof RefusedError) waitMs = error.retryAfterMs;
    }
    const backoff = Math.min(BACKOFF_MIN_MS * 2 ** failures, BACKOFF_MAX_MS) * (0.5 + Math.random() / 2);
    failures += 1;
    await sleep(Math.max(backoff, waitMs), undefined, signal && { signal }).catch(() => {});
  }
}

function isTransient(error: unknown): boolean {
  return error instanceof ConnectionLostError || (error instanceof RefusedError && error.action === "retry");
}

/** One response, to its end. */
async function* readOnce(
  http: Http,
  log: string,
  after: Position,
  opened: () => void,
  signal?: AbortSignal,
): AsyncGenerator<Followed> {
  const silence = new Silence(signal);
  try {
    const headers = { accept: "text/event-stream", "last-event-id": formatPosition(after) };
    const accepted = await http.open({ path: ["logs", log, "stream"], headers }, silence.signal);
    opened();
    for await (const sent of serverSentEvents(silence.listen(accepted.response))) {
      if (sent.event === "end") throw ended(http, accepted, sent);
      const item = readItem(sent);
      if (item) yield item;
    }
  } finally {
    silence.end();
  }
}

/** The session is over: why. */
function ended(http: Http, { token }: Accepted, { data }: ServerSentEvent): RefusedError {
  const members = readable(() => JSON.parse(data));
  const refusal = new RefusedError(readAs("ERROR", members));
  if (isOfToken(refusal)) http.tokens.drop(token);
  return refusal;
}

const REASONS: { readonly [name: string]: ResetReason } = {
  epoch_changed: "epochChanged",
  history_gone: "historyGone",
};

/** Undefined for events of a later version. */
function readItem({ event, data, id }: ServerSentEvent): Followed | undefined {
  return readable((): Followed | undefined => {
    if (event === "message") {
      return { type: "event", event: readEvent(parsePosition(id).epoch, readRow(JSON.parse(data))) };
    }
    if (event !== "reset") return undefined;
    const { reason, floor } = JSON.parse(data);
    return { type: "reset", reason: REASONS[reason] ?? "historyGone", floor: Number(floor) };
  });
}

/** Gives up a connection on which nothing comes any more, for its end may never be told. */
class Silence {
  readonly #controller = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  readonly signal: AbortSignal;

  constructor(outer: AbortSignal | undefined) {
    this.signal = AbortSignal.any([this.#controller.signal, ...(outer ? [outer] : [])]);
    this.#begin();
  }

  #begin(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(), SILENCE_MS);
  }

  async *listen({ body }: Response): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of body ?? []) {
        this.#begin();
        yield chunk;
      }
    } catch (cause) {
      throw new ConnectionLostError({ cause });
    }
  }

  end(): void {
    clearTimeout(this.#timer);
    // A response that is not read to its end holds its connection.
    this.#controller.abort();
  }
}
