/** Where messages that are not acknowledged yet are kept, so that they outlive the page or the process. */

import type { NewMessage } from "../core/newMessage.js";

/** An unacknowledged message. Plain data. */
export interface Unsent {
  /** Unique; keys sort in the order in which the messages were sent. */
  readonly key: string;
  readonly message: NewMessage;
}

/** A queue of one user. What `put` has promised survives. */
export interface QueueStorage {
  /** What an earlier page or process left, in the order of the keys. Called once, before anything else. */
  load(): Promise<readonly Unsent[]>;
  /** Keeps an entry, in place of an earlier one with its key. undefined = done, and there was nothing to wait for. */
  put(entry: Unsent): Promise<void> | undefined;
  remove(key: string): Promise<void> | undefined;
}
