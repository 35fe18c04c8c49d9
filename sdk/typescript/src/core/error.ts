/** What can go wrong, by who is to blame and what the application can do about it. */

import type { RefusalMembers } from "../json.js";

/** Every error of this package. */
export abstract class AntiphonError extends Error {
  override get name(): string {
    return this.constructor.name;
  }
}

/** What a refusal asks for: the thousands of its number. */
export type Action = "retry" | "authenticate" | "fix" | "forbidden" | "stop";

/** Codes of the numbers that a close code may stand for. */
const CODES: { readonly [number: number]: string } = {
  1001: "overloaded",
  1002: "not_active",
  1005: "draining",
  1006: "rate_limited",
  2001: "token_invalid",
  2002: "token_expired",
  2003: "token_revoked",
  2004: "token_mismatch",
  2005: "authentication_timeout",
  3001: "malformed",
  3004: "unexpected_frame",
  3007: "version_unsupported",
  3011: "limit_exceeded",
  4001: "forbidden",
  4004: "not_found",
  5001: "internal",
  5003: "replaced",
  5004: "closed",
};

/** The broker said no. */
export class RefusedError extends AntiphonError {
  /** Stable number; its thousands say what to do. */
  readonly number: number;
  /** Stable word for it. */
  readonly code: string;
  /** Whether the request may have taken effect all the same. */
  readonly outcomeUnknown: boolean;
  /** How long to wait before trying again; 0 if the broker did not say. */
  readonly retryAfterMs: number;
  /** The field at fault; empty if none can be named. */
  readonly field: string;
  /** With `removed`: the position of the removal. */
  readonly removedAt: number;

  constructor(refusal: Partial<RefusalMembers> & { readonly number: number }) {
    const code = refusal.code || CODES[refusal.number] || "unknown";
    super(`the broker refused with ${code} (${refusal.number})${refusal.message ? `: ${refusal.message}` : ""}`);
    this.number = refusal.number;
    this.code = code;
    this.outcomeUnknown = refusal.outcome === "unknown" || refusal.outcome === 1;
    this.retryAfterMs = refusal.retry_after_ms ?? 0;
    this.field = refusal.field ?? "";
    this.removedAt = refusal.removed_at ?? 0;
  }

  /** What to do about it. */
  get action(): Action {
    const actions: readonly Action[] = ["retry", "authenticate", "fix", "forbidden"];
    return actions[Math.floor(this.number / 1_000) - 1] ?? "stop";
  }

  /** Whether the same request may succeed later. */
  get isTransient(): boolean {
    return this.action === "retry" || this.action === "authenticate";
  }

  /** The refusal that a socket's close code stands for (SPEC section 14), if it stands for one. */
  static fromCloseCode(code: number, reason: string): RefusedError | undefined {
    const bases: readonly [from: number, to: number, thousand: number][] = [
      [4000, 4100, 1000],
      [4100, 4200, 2000],
      [4200, 4240, 3000],
      [4240, 4270, 4000],
      [4270, 4300, 5000],
    ];
    const base = bases.find(([from, to]) => code >= from && code < to);
    return base && new RefusedError({ number: base[2] + code - base[0], message: reason, outcome: "unknown" });
  }
}

/** Why a client has stopped for good. A new one is needed. */
export type StopReason =
  /** The application closed it. */
  | { readonly why: "closed" }
  /** The broker refused the session. */
  | { readonly why: "refused"; readonly refusal: RefusedError }
  /** The token provider gave the very token that had been refused. */
  | { readonly why: "sameToken"; readonly refusal: RefusedError }
  /** The token is longer than the protocol allows. */
  | { readonly why: "tokenTooLong"; readonly bytes: number };

/** The client has stopped. What was not acknowledged may have been stored all the same. */
export class StoppedError extends AntiphonError {
  readonly reason: StopReason;

  constructor(reason: StopReason) {
    const { why } = reason;
    super(`the client has stopped: ${"refusal" in reason ? reason.refusal.message : why}`, {
      cause: "refusal" in reason ? reason.refusal : undefined,
    });
    this.reason = reason;
  }
}

/** Something is larger, or there is more of it, than the protocol or the client allows. */
export class LimitError extends AntiphonError {
  readonly what: string;
  readonly max: number;

  constructor(what: string, size: number, max: number) {
    super(`${what}: ${size}, at most ${max} allowed`);
    this.what = what;
    this.max = max;
  }
}

/** Signals are not kept for later, and there is no session now. */
export class NotConnectedError extends AntiphonError {
  constructor() {
    super("there is no session, and signals are not kept for later");
  }
}

/** The connection ended before the answer came; whether the request was carried out is unknown. */
export class ConnectionLostError extends AntiphonError {
  constructor(options?: ErrorOptions) {
    super("the connection ended before the broker answered", options);
  }
}

/** The subscription has ended. */
export class DetachedError extends AntiphonError {
  readonly reason: DetachReason;

  constructor(reason: DetachReason) {
    const cause = "refusal" in reason ? reason.refusal : undefined;
    super(`the conversation is not followed any more: ${cause?.message ?? reason.why}`, { cause });
    this.reason = reason;
  }
}

/** Why a subscription is over. */
export type DetachReason =
  | { readonly why: "unsubscribed" }
  /** The user was removed or left; nothing after this position comes. */
  | { readonly why: "removed"; readonly last: number }
  /** The conversation was deleted. */
  | { readonly why: "deleted"; readonly last: number }
  | { readonly why: "refused"; readonly refusal: RefusedError }
  | { readonly why: "alreadySubscribed" }
  | { readonly why: "stopped"; readonly stop: StopReason };

/** A reader of events did not keep up, and what it would have got next is lost to it. */
export class TooSlowError extends AntiphonError {
  constructor(max: number) {
    super(`more than ${max} events wait to be read`);
  }
}

/** The broker's answer cannot be read. */
export class UnreadableError extends AntiphonError {}

export type Result<T> = { readonly value: T } | { readonly error: AntiphonError };
