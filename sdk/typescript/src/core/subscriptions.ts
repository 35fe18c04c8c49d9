/** All followed logs: frames of the wire -> subscriptions, and what they want -> frames. */

import type { AnswerOf, RowMembers } from "../json.js";
import type { DetachReason, RefusedError, StopReason } from "./error.js";
import { formatPosition } from "./event.js";
import type { From } from "./input.js";
import type { Link } from "./link.js";
import type { Cursor, Item, Signal } from "./output.js";
import type { Pages, Pulled } from "./pages.js";
import { type Next, Subscription } from "./subscription.js";

/** A frame for the log with this handle. */
export type FromLog =
  | { readonly is: "event"; readonly row: RowMembers }
  | { readonly is: "skip"; readonly first: number; readonly last: number }
  | { readonly is: "behind" }
  | { readonly is: "detach"; readonly reason: DetachReason }
  | { readonly is: "cursor"; readonly cursor: Cursor }
  | { readonly is: "signal"; readonly signal: Signal };

export class Subscriptions {
  readonly #link: Link;
  readonly #pages: Pages;
  readonly #all = new Map<number, Subscription>();
  readonly #byLog = new Map<string, number>();
  readonly #byHandle = new Map<number, number>();
  /**
   * Logs whose SUBSCRIBE is unanswered though the application wants it no more. The next one has to wait, because a
   * session follows a log once.
   */
  readonly #orphans = new Set<string>();
  #pulls = 0;

  constructor(link: Link, pages: Pages) {
    this.#link = link;
    this.#pages = pages;
  }

  add(id: number, log: string, from: From): void {
    if (this.#byLog.has(log)) {
      this.#tell(id, { type: "detached", reason: { why: "alreadySubscribed" } });
      return;
    }
    this.#byLog.set(log, id);
    this.#all.set(id, new Subscription(log, from, (item) => this.#tell(id, item)));
    this.#subscribe(id);
  }

  remove(id: number): void {
    const subscription = this.#all.get(id);
    if (!subscription) return;
    const handle = subscription.attachedHandle;
    if (handle !== undefined) this.#unsubscribe(handle);
    if (subscription.phase.is === "subscribing") this.#orphans.add(subscription.log);
    this.#end(id, { why: "unsubscribed" });
  }

  /** A session stands: subscribes what is not subscribed. */
  ready(): void {
    for (const id of [...this.#all.keys()]) this.#subscribe(id);
  }

  /** The connection is lost; the last positions are what remains. */
  down(): void {
    this.#byHandle.clear();
    this.#orphans.clear();
    for (const [id, subscription] of this.#all) {
      subscription.phase = { is: "idle" };
      this.#link.timers.cancel("subscription", id);
    }
  }

  stop(stop: StopReason): void {
    const ids = [...this.#all.keys()];
    this.#all.clear();
    this.#byLog.clear();
    this.#byHandle.clear();
    for (const id of ids) this.#tell(id, { type: "detached", reason: { why: "stopped", stop } });
  }

  /** The wait of a subscription is over. */
  due(id: number): void {
    const subscription = this.#all.get(id);
    if (!subscription) return;
    subscription.phase = { is: "idle" };
    this.#subscribe(id);
  }

  #subscribe(id: number): void {
    const subscription = this.#all.get(id);
    if (!subscription || !this.#link.ready) return;
    if (subscription.phase.is !== "idle" || this.#orphans.has(subscription.log)) return;
    subscription.phase = { is: "subscribing" };
    const { log } = subscription;
    this.#link.request({ of: "subscribe", id, log }, { op: "SUBSCRIBE", log, ...beginning(subscription) });
  }

  /** ATTACH, for the request of this subscription. */
  attach(id: number, log: string, attach: AnswerOf<"ATTACH">): void {
    if (this.#orphans.delete(log)) {
      this.#unsubscribe(attach.handle);
      this.#subscribeLog(log);
      return;
    }
    const subscription = this.#all.get(id);
    if (!subscription) return;
    this.#pulls += 1;
    this.#byHandle.set(attach.handle, id);
    this.#follow(id, subscription.attach(attach, this.#pulls));
  }

  #subscribeLog(log: string): void {
    const id = this.#byLog.get(log);
    if (id !== undefined) this.#subscribe(id);
  }

  /** SUBSCRIBE was refused. */
  refused(id: number, log: string, refusal: RefusedError): void {
    if (this.#orphans.delete(log)) {
      this.#subscribeLog(log);
      return;
    }
    const subscription = this.#all.get(id);
    if (!subscription) return;
    if (!refusal.isTransient) {
      this.#end(id, { why: "refused", refusal });
      return;
    }
    subscription.phase = { is: "backoff" };
    const delay = Math.max(this.#link.backoff(subscription.fruitless), refusal.retryAfterMs);
    subscription.fruitless += 1;
    this.#link.setTimer("subscription", id, delay);
  }

  /** The log that a handle stands for, and the epoch of its positions. */
  followed(handle: number): { readonly log: string; readonly epoch: number } | undefined {
    const subscription = this.#all.get(this.#byHandle.get(handle) ?? 0);
    return subscription?.last && { log: subscription.log, epoch: subscription.last.epoch };
  }

  /** Whether the application follows this log. */
  follows(log: string): boolean {
    return this.#byLog.has(log);
  }

  /** A frame for a handle. One that is not attached (any more) is ignored. */
  frame(handle: number, frame: FromLog): void {
    const id = this.#byHandle.get(handle);
    const subscription = id === undefined ? undefined : this.#all.get(id);
    if (id === undefined || !subscription) return;
    if (frame.is === "behind" || frame.is === "detach") this.#byHandle.delete(handle);
    switch (frame.is) {
      case "event":
        return this.#follow(id, subscription.event(frame.row));
      case "skip":
        return this.#follow(id, subscription.skip(frame.first, frame.last));
      case "behind":
        return this.#follow(id, subscription.behind());
      case "detach":
        return this.#follow(id, subscription.detach(frame.reason));
      case "cursor":
        return this.#tell(id, { type: "cursor", cursor: frame.cursor });
      case "signal":
        return this.#tell(id, { type: "signal", signal: frame.signal });
    }
  }

  /** A pull's PAGE, or its refusal. */
  pulled({ id, pull, result }: Pulled): void {
    const subscription = this.#all.get(id);
    if (subscription?.phase.is !== "pulling" || subscription.phase.number !== pull) return;
    const next = "page" in result ? subscription.page(result.page) : subscription.pageRefused(result.refusal);
    this.#follow(id, next);
  }

  #follow(id: number, next: Next): void {
    switch (next?.next) {
      case "pull": {
        const subscription = this.#all.get(id);
        if (subscription?.phase.is === "pulling") {
          this.#pages.pull(id, subscription.phase.number, subscription.log, next.from, next.to);
        }
        return;
      }
      case "detach":
        this.#byHandle.delete(next.handle);
        this.#unsubscribe(next.handle);
        return;
      case "repair":
        if (next.handle !== undefined) {
          this.#byHandle.delete(next.handle);
          this.#unsubscribe(next.handle);
        }
        this.#repair(id);
        return;
      case "over":
        this.#end(id, next.reason);
    }
  }

  /** Subscribes again after the last position: at once, unless the last repair brought nothing. */
  #repair(id: number): void {
    this.#pages.cancel(id);
    const subscription = this.#all.get(id);
    if (!subscription) return;
    const { fruitless } = subscription;
    subscription.fruitless += 1;
    if (fruitless === 0) {
      subscription.phase = { is: "idle" };
      this.#subscribe(id);
      return;
    }
    subscription.phase = { is: "backoff" };
    this.#link.setTimer("subscription", id, this.#link.backoff(fruitless - 1));
  }

  #end(id: number, reason: DetachReason): void {
    const subscription = this.#all.get(id);
    if (!subscription) return;
    // A refused pull leaves its handle attached.
    const handle = subscription.attachedHandle;
    if (handle !== undefined && reason.why === "refused") this.#unsubscribe(handle);
    this.#all.delete(id);
    this.#byLog.delete(subscription.log);
    for (const [attached, owner] of this.#byHandle) if (owner === id) this.#byHandle.delete(attached);
    this.#pages.cancel(id);
    this.#link.timers.cancel("subscription", id);
    this.#tell(id, { type: "detached", reason });
  }

  #unsubscribe(handle: number): void {
    if (this.#link.ready) this.#link.request({ of: "unsubscribe" }, { op: "UNSUBSCRIBE", handle });
  }

  #tell(id: number, item: Item): void {
    this.#link.emit({ type: "subscription", id, item });
  }
}

/** Where a SUBSCRIBE begins. */
function beginning({ last, from }: Subscription): { after?: string; last?: number; tail?: boolean } {
  if (last) return { after: formatPosition(last) };
  switch (from.at) {
    case "position":
      return { after: formatPosition(from.position) };
    case "last":
      return { last: from.count };
    case "start":
      return { last: 0xffff_ffff };
    case "tail":
      return { tail: true };
  }
}
