/** Changes of messages that the broker has not confirmed yet, shown as if it had. */

import type { Message, Reaction } from "../../../sdk/typescript/src/index.js";

/** How long a confirmed change is kept until its event has come. */
const SETTLED_MS = 2_000;

interface Change {
  readonly text?: string;
  readonly isDeleted?: boolean;
  readonly reactions: ReadonlyMap<string, boolean>;
}

const NOTHING: Change = { reactions: new Map() };

export class Pending {
  readonly #changes = new Map<string, Change>();
  readonly #changed: () => void;

  constructor(changed: () => void) {
    this.#changed = changed;
  }

  /** What is to be shown of a message. `undefined` = the message as it is. */
  of(message: Message): Change | undefined {
    return this.#changes.get(message.key);
  }

  edit(message: Message, text: string, done: Promise<unknown>): void {
    this.#apply(message, { text }, done);
  }

  remove(message: Message, done: Promise<unknown>): void {
    this.#apply(message, { isDeleted: true }, done);
  }

  react(message: Message, key: string, on: boolean, done: Promise<unknown>): void {
    const reactions = new Map(this.of(message)?.reactions).set(key, on);
    this.#apply(message, { reactions }, done);
  }

  #apply(message: Message, change: Partial<Change>, done: Promise<unknown>): void {
    const { key } = message;
    const applied = { ...NOTHING, ...this.#changes.get(key), ...change };
    this.#changes.set(key, applied);
    this.#changed();
    const forget = () => {
      // A later change of the same message stays until it is settled itself.
      if (this.#changes.get(key) !== applied) return;
      this.#changes.delete(key);
      this.#changed();
    };
    done.then(() => setTimeout(forget, SETTLED_MS), forget);
  }
}

/** Reactions with one's own as they will be. */
export function withOwn(reactions: readonly Reaction[], change: Change | undefined, user: string): readonly Reaction[] {
  let shown = reactions;
  for (const [key, on] of change?.reactions ?? []) {
    const known = shown.find((reaction) => reaction.key === key);
    if ((known?.mine ?? false) === on) continue;
    if (!known) shown = [...shown, { key, count: 1, mine: true, users: [user] }];
    else if (!on && known.count === 1) shown = shown.filter((reaction) => reaction !== known);
    else {
      const users = on ? [...known.users, user] : known.users.filter((other) => other !== user);
      const changed = { key, count: known.count + (on ? 1 : -1), mine: on, users };
      shown = shown.map((reaction) => (reaction === known ? changed : reaction));
    }
  }
  return shown;
}
