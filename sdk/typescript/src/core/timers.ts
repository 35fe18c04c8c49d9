/** The client's deadlines: at most one for each thing that waits. */

/** What waits: the part of the client, and what of it. */
export type TimerKind =
  | "connection"
  | "token"
  | "silence"
  | "sends"
  | "subscription"
  | "cursor"
  | "request"
  | "presence"
  | "page";
export interface Timer {
  readonly kind: TimerKind;
  /** A log or the number of a command; empty where there is one only. */
  readonly of: string | number;
}

export class Timers {
  readonly #deadlines = new Map<string, { readonly timer: Timer; readonly at: number }>();

  /** Sets, or moves, a deadline. */
  set(kind: TimerKind, of: string | number, at: number): void {
    this.#deadlines.set(key(kind, of), { timer: { kind, of }, at });
  }

  cancel(kind: TimerKind, of: string | number = ""): void {
    this.#deadlines.delete(key(kind, of));
  }

  cancelAll(): void {
    this.#deadlines.clear();
  }

  isSet(kind: TimerKind, of: string | number = ""): boolean {
    return this.#deadlines.has(key(kind, of));
  }

  next(): number | undefined {
    return this.#earliest()?.at;
  }

  /** Takes out the earliest deadline that has passed. */
  popDue(now: number): Timer | undefined {
    const earliest = this.#earliest();
    if (!earliest || earliest.at > now) return undefined;
    this.cancel(earliest.timer.kind, earliest.timer.of);
    return earliest.timer;
  }

  // Few things wait at a time: one for each log and request at the most, and mostly none.
  #earliest() {
    let earliest: { readonly timer: Timer; readonly at: number } | undefined;
    for (const deadline of this.#deadlines.values()) {
      if (!earliest || deadline.at < earliest.at) earliest = deadline;
    }
    return earliest;
  }
}

function key(kind: TimerKind, of: string | number): string {
  return `${kind} ${of}`;
}
