/**
 * How the client stands with the broker: token, handshake, GOAWAY, RESUME, errors of the connection, reconnecting.
 *
 *     awaitingToken -> connecting -> greeting -> ready -> leaving (GOAWAY)
 *           ^              |  |          |         |          |
 *           +- waiting <---+--+----------+---------+----------+      any -> closing (BYE) -> stopped
 *
 * RESUME leads from ready to waiting with the socket kept; the next HELLO goes out on it. A step that concerns other
 * parts of the client is returned.
 */

import { utf8 } from "../bytes.js";
import type { AnswerOf } from "../json.js";
import { RefusedError, type StopReason } from "./error.js";
import { BATCH, type Config, hello } from "./handshake.js";
import {
  CHECK_TIMEOUT_MS,
  CLOSE_TIMEOUT_MS,
  CONNECT_TIMEOUT_MS,
  STABLE_AFTER_MS,
  TOKEN_BYTES_MAX,
  TOKEN_REFRESH_LEAD_MS,
} from "./limits.js";
import type { Link } from "./link.js";

type Phase =
  /** The token provider has been asked. */
  | { readonly is: "awaitingToken" }
  /** The next attempt begins at the deadline, or when the application asks for a check if `mayHurry`. */
  | { readonly is: "waiting"; readonly mayHurry: boolean }
  | { readonly is: "connecting" }
  /** HELLO has been written. */
  | { readonly is: "greeting" }
  | { readonly is: "ready" }
  /** After GOAWAY: the last answers are awaited; the next attempt does not begin before this. */
  | { readonly is: "leaving"; readonly reconnectAt: number }
  /** BYE has been written. */
  | { readonly is: "closing" }
  | { readonly is: "stopped" };

/** What a change means for the rest of the client. */
export type Step =
  | undefined
  /** A session stands. */
  | { readonly step: "ready" }
  /** The connection is over; another one follows. */
  | { readonly step: "down" }
  | { readonly step: "stopped"; readonly reason: StopReason };

const DOWN: Step = { step: "down" };

export class Connection {
  readonly #link: Link;
  readonly #config: Config;
  readonly #senderInstance: string;
  #phase: Phase = { is: "awaitingToken" };
  /** HELLOs sent so far. */
  #attempts = 0;
  #resumeToken = "";
  /** Whether the shell has a connection, or is making one. */
  #transport = false;
  #token: string | undefined;
  /** Whether the provider has been asked and has not answered. */
  #tokenAsked = false;
  #refused: { readonly token: string; readonly refusal: RefusedError } | undefined;
  #tokenFailures = 0;
  #expiresAtMs = 0;
  /** Attempts since a connection was stable. */
  #attempt = 0;
  #readySince = 0;
  #reconnectJitterMs = 0;
  #user = "";

  constructor(link: Link, config: Config) {
    this.#link = link;
    this.#config = config;
    this.#senderInstance = link.randomId();
  }

  /** The user of the session; empty before the first one. */
  get user(): string {
    return this.#user;
  }

  /** Whether frames of the broker are expected. */
  get isUp(): boolean {
    return ["greeting", "ready", "leaving", "closing"].includes(this.#phase.is);
  }

  get isStopped(): boolean {
    return this.#phase.is === "stopped";
  }

  // ---- token ----

  /** Begins the first or the next attempt. */
  begin(): void {
    const link = this.#link;
    link.emit({ type: "state", state: { is: "connecting" } });
    const expired = this.#expiresAtMs > 0 && this.#expiresAtMs <= link.serverTimeMs;
    if (this.#token === undefined || expired) {
      this.#phase = { is: "awaitingToken" };
      link.timers.cancel("connection");
      this.#askToken();
      return;
    }
    link.setTimer("connection", "", CONNECT_TIMEOUT_MS);
    // After RESUME the socket still stands.
    if (this.#transport) {
      this.#greet(this.#token);
      return;
    }
    this.#phase = { is: "connecting" };
    this.#transport = true;
    link.emit({ type: "connect" });
  }

  #hangUp(): void {
    if (this.#transport) this.#link.emit({ type: "close" });
    this.#transport = false;
  }

  #askToken(): void {
    this.#link.timers.cancel("token");
    if (this.#tokenAsked) return;
    this.#tokenAsked = true;
    this.#link.emit({ type: "needToken" });
  }

  token(token: string): Step {
    this.#tokenAsked = false;
    if (this.#phase.is === "stopped") return undefined;
    const bytes = utf8(token).length;
    if (bytes > TOKEN_BYTES_MAX) return this.#stop({ why: "tokenTooLong", bytes });
    const refused = this.#refused;
    if (refused?.token === token && refused.refusal.code !== "authentication_timeout") {
      return this.#stop({ why: "sameToken", refusal: refused.refusal });
    }
    this.#tokenFailures = 0;
    this.#token = token;
    if (this.#phase.is === "awaitingToken") {
      this.#expiresAtMs = 0;
      this.begin();
    } else if (this.#phase.is === "ready") {
      this.#link.request({ of: "authenticate" }, { op: "AUTH", token });
    }
    // In any other phase it is used for the next attempt.
    return undefined;
  }

  tokenFailed(cause: string): void {
    this.#tokenAsked = false;
    if (this.#phase.is === "stopped") return;
    this.#link.setTimer("token", "", this.#link.backoff(this.#tokenFailures));
    this.#tokenFailures += 1;
    if (this.#phase.is === "awaitingToken") {
      this.#link.emit({ type: "state", state: { is: "waiting", cause: `no token: ${cause}` } });
    }
  }

  /** A fresh token is due, or wanted. */
  tokenDue(): void {
    this.#askToken();
  }

  authenticated(expiresAtMs: number): void {
    this.#refused = undefined;
    this.#scheduleRefresh(expiresAtMs);
  }

  /** AUTH was refused, which changes nothing yet. */
  authenticationRefused(refusal: RefusedError): void {
    if (refusal.action !== "retry") this.tokenRefused(refusal);
    else this.#link.setTimer("token", "", Math.max(this.#link.backoff(0), refusal.retryAfterMs));
  }

  /** A request was refused for the token's sake; the session goes on meanwhile. */
  tokenRefused(refusal: RefusedError): void {
    if (this.#token !== undefined) this.#refused = { token: this.#token, refusal };
    this.#askToken();
  }

  /** Asks for a fresh token in good time, unless the last one brought no later end. */
  #scheduleRefresh(expiresAtMs: number): void {
    const later = expiresAtMs > this.#expiresAtMs;
    this.#expiresAtMs = expiresAtMs;
    const left = expiresAtMs - this.#link.serverTimeMs;
    if (later && left > 0) this.#link.setTimer("token", "", Math.max(left - TOKEN_REFRESH_LEAD_MS, left / 2));
  }

  // ---- handshake ----

  connected(): void {
    if (this.#phase.is === "connecting") this.#greet(this.#token ?? "");
  }

  #greet(token: string): void {
    this.#phase = { is: "greeting" };
    this.#attempts += 1;
    const [senderInstance, resumeToken, attempt] = [this.#senderInstance, this.#resumeToken, this.#attempts];
    const members = hello(this.#config, { token, senderInstance, resumeToken, attempt });
    this.#link.request({ of: "hello" }, { op: "HELLO", ...members });
  }

  welcome(welcome: AnswerOf<"WELCOME">): Step {
    const link = this.#link;
    if (this.#phase.is !== "greeting") return this.broken("WELCOME came twice");
    this.#phase = { is: "ready" };
    this.#readySince = link.now;
    this.#refused = undefined;
    this.#reconnectJitterMs = welcome.reconnect_jitter_ms;
    this.#resumeToken = welcome.resume_token;
    this.#user = welcome.user;
    link.timers.cancel("connection");
    link.setServerClock(welcome.server_time_ms);
    this.#expiresAtMs = 0;
    this.#scheduleRefresh(welcome.expires_at_ms);
    link.ready = true;
    link.batches = welcome.capabilities.includes(BATCH);
    const session = {
      sessionId: welcome.session_id,
      resumed: welcome.resumed,
      user: welcome.user,
      device: welcome.device,
      bodyBytesMax: welcome.max_body_bytes,
      subscriptionsMax: welcome.max_subscriptions,
      expiresAtMs: welcome.expires_at_ms,
    };
    link.emit({ type: "state", state: { is: "ready", session } });
    return { step: "ready" };
  }

  // ---- the end of a connection ----

  /** The transport is gone. A close code of the broker counts like its ERROR. */
  disconnected(cause: string, closeCode: number | undefined): Step {
    this.#transport = false;
    const refusal = closeCode === undefined ? undefined : RefusedError.fromCloseCode(closeCode, cause);
    const phase = this.#phase;
    if (phase.is === "stopped") return undefined;
    if (phase.is === "closing") return this.#stop({ why: "closed" });
    if (phase.is === "leaving" && (!refusal || refusal.action === "retry")) return this.#leave(phase.reconnectAt);
    if (phase.is === "waiting" || phase.is === "awaitingToken") {
      // A socket that RESUME kept has ended: only what forbids the next attempt changes anything.
      return refusal && refusal.action !== "retry" ? this.#judge(refusal) : undefined;
    }
    return refusal ? this.#judge(refusal) : this.#retry(cause, 0, true);
  }

  /** ERROR with id 0. */
  error(refusal: RefusedError): Step {
    if (this.#phase.is === "closing") return this.#stop({ why: "closed" });
    this.#hangUp();
    return this.#judge(refusal);
  }

  #judge(refusal: RefusedError): Step {
    if (refusal.action === "authenticate") return this.#retryWithNewToken(refusal);
    // A fault of the broker may be gone after its restart.
    if (refusal.action === "retry" || refusal.code === "internal") {
      return this.#retry(refusal.message, refusal.retryAfterMs, false);
    }
    return this.#stop({ why: "refused", refusal });
  }

  #retryWithNewToken(refusal: RefusedError): Step {
    if (refusal.code !== "authentication_timeout") {
      if (this.#token !== undefined) this.#refused = { token: this.#token, refusal };
      this.#token = undefined;
    }
    return this.#retry(refusal.message, refusal.retryAfterMs, false);
  }

  /** The broker broke the protocol, or a fresh connection is needed: closes this one and tries again. */
  broken(cause: string): Step {
    if (this.#phase.is === "closing") return this.#stop({ why: "closed" });
    this.#hangUp();
    return this.#retry(cause, 0, true);
  }

  /** The first attempt after a stable connection is spread over the broker's jitter; further ones back off. */
  #retry(cause: string, atLeast: number, mayHurry: boolean): Step {
    const link = this.#link;
    const wasReady = this.#phase.is === "ready" || this.#phase.is === "leaving";
    if (wasReady && link.now - this.#readySince >= STABLE_AFTER_MS) this.#attempt = 0;
    const backoff = wasReady && this.#attempt === 0 ? 0 : link.backoff(this.#attempt);
    const delay = Math.max(backoff + link.jitter(this.#reconnectJitterMs), atLeast);
    this.#attempt += 1;
    return this.#wait(cause, link.now + delay, mayHurry);
  }

  #wait(cause: string, until: number, mayHurry: boolean): Step {
    this.#phase = { is: "waiting", mayHurry };
    this.#link.timers.cancel("token");
    this.#link.timers.set("connection", "", until);
    this.#link.emit({ type: "state", state: { is: "waiting", cause } });
    return DOWN;
  }

  // ---- GOAWAY and RESUME ----

  /** No new requests; the connection ends when the last answer is here or at the deadline. */
  goaway(goaway: AnswerOf<"GOAWAY">): void {
    if (this.#phase.is !== "ready") return;
    const link = this.#link;
    this.#phase = { is: "leaving", reconnectAt: link.now + link.jitter(goaway.jitter_ms) };
    link.ready = false;
    link.setTimer("connection", "", goaway.deadline_ms);
  }

  /** The way behind the gateway is lost: the end of a connection, with its socket kept for the next. */
  resume(jitterMs: number): Step {
    if (this.#phase.is === "closing") return this.#stop({ why: "closed" });
    // It crossed a HELLO: nobody can tell which one the gateway has read, and a second one would be its fault.
    if (this.#phase.is === "greeting") return this.broken("the gateway lost the broker again");
    return this.#wait("the gateway lost the broker", this.#link.now + this.#link.jitter(jitterMs), false);
  }

  /** Called after every input: leaves once nothing is awaited any more. */
  leaveWhenSettled(): Step {
    if (this.#phase.is !== "leaving" || !this.#link.isSettled) return undefined;
    this.#hangUp();
    return this.#leave(this.#phase.reconnectAt);
  }

  #leave(reconnectAt: number): Step {
    return this.#wait("the broker asked to connect again", reconnectAt, false);
  }

  // ---- time and the application's wish ----

  /** The deadline of the phase. */
  timeout(): Step {
    switch (this.#phase.is) {
      case "waiting":
        this.begin();
        return undefined;
      case "connecting":
      case "greeting":
        return this.broken("the broker did not answer in time");
      case "leaving":
        this.#hangUp();
        return this.#leave(this.#phase.reconnectAt);
      case "closing":
        return this.#stop({ why: "closed" });
      default:
        return undefined;
    }
  }

  /** The network may have changed. UNSUBSCRIBE of a handle that is not attached is answered, and does nothing else. */
  check(): void {
    if (this.#phase.is === "waiting" && this.#phase.mayHurry) this.begin();
    if (this.#phase.is !== "ready") return;
    this.#link.request({ of: "check" }, { op: "UNSUBSCRIBE", handle: 0xffff_ffff });
    this.#link.setTimer("silence", "", CHECK_TIMEOUT_MS);
  }

  close(): Step {
    switch (this.#phase.is) {
      case "ready":
      case "leaving":
        this.#phase = { is: "closing" };
        this.#link.ready = false;
        this.#link.request({ of: "bye" }, { op: "BYE" });
        this.#link.setTimer("connection", "", CLOSE_TIMEOUT_MS);
        return undefined;
      case "closing":
      case "stopped":
        return undefined;
      default:
        return this.#stop({ why: "closed" });
    }
  }

  /** BYE was answered. */
  saidBye(): Step {
    return this.#stop({ why: "closed" });
  }

  #stop(reason: StopReason): Step {
    this.#phase = { is: "stopped" };
    this.#token = undefined;
    this.#hangUp();
    return { step: "stopped", reason };
  }
}
