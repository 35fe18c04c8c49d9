/** Whether a conversation is followed: for the application, until it says otherwise, or for as long as it is shown. */

import type { DetachReason } from "./core/error.js";
import type { From } from "./core/input.js";
import type { Item } from "./core/output.js";
import type { Session } from "./session.js";

export class Following {
  readonly #session: Session;
  readonly #log: string;
  /** Where to begin, or to go on. */
  readonly #from: () => From;
  readonly #take: (item: Item) => void;
  #subscription: number | undefined;
  /** Tells the subscription from earlier ones, whose last items may still come. */
  #opened: object | undefined;
  #detached: DetachReason | undefined;
  /** The application follows it, not only what shows it. */
  #isKept = false;
  #watchers = 0;

  constructor(session: Session, log: string, from: () => From, take: (item: Item) => void) {
    this.#session = session;
    this.#log = log;
    this.#from = from;
    this.#take = take;
  }

  /** Why it is not followed, unless nobody wanted it to be. */
  get detached(): DetachReason | undefined {
    return this.#detached;
  }

  /** Follows it for the application, unless that closed it, or the broker ended it: then it takes an `open`. */
  ensure(): void {
    if (this.#detached === undefined) this.open();
  }

  /** The same for somebody who only looks at it: whatever shows it has seen to that. */
  ensureShown(): void {
    if (this.#watchers === 0) this.ensure();
  }

  open(): void {
    this.#isKept = true;
    this.#begin();
  }

  close(): void {
    this.#isKept = false;
    this.#end();
  }

  /** Follows it until the result is called, which may be followed by another `watch` at once. */
  watch(): () => void {
    this.#watchers += 1;
    if (this.#detached === undefined || this.#detached.why === "unsubscribed") this.#begin();
    return () => {
      this.#watchers -= 1;
      // Components end and begin again in one go, as all do once in development.
      queueMicrotask(() => this.#letGo());
    };
  }

  /** Nobody ended it, so whoever reads it next follows it again. */
  #letGo(): void {
    if (this.#watchers > 0 || this.#isKept) return;
    this.#opened = undefined;
    this.#end();
  }

  #begin(): void {
    if (this.#subscription !== undefined) return;
    this.#detached = undefined;
    const opened = {};
    this.#opened = opened;
    const id = this.#session.subscribe(this.#log, this.#from(), (item) => {
      if (this.#opened !== opened) return;
      if (item.type === "detached") {
        this.#subscription = undefined;
        this.#detached = item.reason;
      }
      this.#take(item);
    });
    // A client that has stopped answers before it returns.
    if (this.#detached === undefined) this.#subscription = id;
  }

  #end(): void {
    const id = this.#subscription;
    this.#subscription = undefined;
    if (id !== undefined) this.#session.unsubscribe(id);
  }
}
