/** The running session, as the parts of the API use it: commands with promises. */

import type { AntiphonError, Result } from "./core/error.js";
import { RefusedError, StoppedError } from "./core/error.js";
import type { Command, From, PlainRequest, Range } from "./core/input.js";
import type { NewMessage } from "./core/newMessage.js";
import type { Item, Messages, Output, Page, Receipt, SendState } from "./core/output.js";
import type { Members } from "./json.js";
import type { QueueStorage, Unsent } from "./storage/storage.js";

interface Waiter {
  readonly resolve: (value: never) => void;
  readonly reject: (error: AntiphonError) => void;
}

interface Sending {
  readonly key: string;
  readonly message: NewMessage;
  readonly waiter: Waiter | undefined;
}

/** What a session tells the client. */
export interface SessionEvents {
  /** A message is on its way; restored ones too. */
  readonly sending: (id: number, key: string, message: NewMessage) => void;
  readonly sent: (log: string, id: number, state: SendState) => void;
  /** The store failed: what it should have kept will not outlive this client. */
  readonly storageFailed: (error: unknown) => void;
}

export class Session {
  /** The user; empty before the first session. */
  user = "";
  readonly #command: (command: Command) => void;
  readonly #storage: QueueStorage;
  readonly #events: SessionEvents;
  readonly #waiters = new Map<number, Waiter>();
  readonly #sendings = new Map<number, Sending>();
  /** Log of each send that may still become delivered or read. */
  readonly #logs = new Map<number, string>();
  readonly #subscribers = new Map<number, (item: Item) => void>();
  #lastId = 0;
  /** Tells this start of the client from others in the keys of the store. */
  readonly #start = `${Date.now().toString(36).padStart(9, "0")}-${crypto.randomUUID().slice(0, 8)}`;

  constructor(command: (command: Command) => void, storage: QueueStorage, events: SessionEvents) {
    this.#command = command;
    this.#storage = storage;
    this.#events = events;
  }

  // ---- commands ----

  send(message: NewMessage): Promise<Receipt> {
    const id = this.#id();
    const key = `${this.#start}-${id.toString(36).padStart(8, "0")}`;
    const sent = new Promise<Receipt>((resolve, reject) => {
      this.#sendings.set(id, { key, message, waiter: { resolve, reject } as Waiter });
    });
    // A failure is told in other ways too, so nobody has to wait for this one.
    sent.catch(() => {});
    this.#keep({ key, message });
    this.#begin(id, key, message);
    return sent;
  }

  /** Sends what an earlier page or process left. */
  restore(entries: readonly Unsent[]): void {
    for (const { key, message } of entries) {
      const id = this.#id();
      this.#sendings.set(id, { key, message, waiter: undefined });
      this.#begin(id, key, message);
    }
  }

  #begin(id: number, key: string, message: NewMessage): void {
    this.#logs.set(id, message.log);
    this.#events.sending(id, key, message);
    this.#command({ type: "send", id, message });
  }

  subscribe(log: string, from: From, take: (item: Item) => void): number {
    const id = this.#id();
    this.#subscribers.set(id, take);
    this.#command({ type: "subscribe", id, log, from });
    return id;
  }

  unsubscribe(id: number): void {
    this.#command({ type: "unsubscribe", id });
  }

  fetch(range: Range): Promise<Page> {
    return this.#ask((id) => ({ type: "fetch", id, range }));
  }

  fetchMessages(range: Range): Promise<Messages> {
    return this.#ask((id) => ({ type: "fetchMessages", id, range }));
  }

  request(request: PlainRequest): Promise<Members> {
    return this.#ask((id) => ({ type: "request", id, request }));
  }

  signal(log: string, kind: string, data: Uint8Array, ttlMs: number): Promise<void> {
    return this.#ask((id) => ({ type: "signal", id, log, kind, data, ttlMs }));
  }

  watchPresence(users: ReadonlySet<string>): Promise<void> {
    return this.#ask((id) => ({ type: "watchPresence", id, users }));
  }

  cursor(log: string, delivered: number, read: number): void {
    this.#command({ type: "cursor", log, delivered, read });
  }

  #ask<T>(command: (id: number) => Command): Promise<T> {
    const id = this.#id();
    return new Promise<T>((resolve, reject) => {
      this.#waiters.set(id, { resolve, reject } as Waiter);
      this.#command(command(id));
    });
  }

  #id(): number {
    this.#lastId += 1;
    return this.#lastId;
  }

  // ---- outputs ----

  /** Takes an output that is for whoever gave the command; false if it is for the client. */
  take(output: Output): boolean | Promise<void> {
    switch (output.type) {
      case "send":
        return this.#sendState(output.id, output.state) ?? true;
      case "subscription": {
        this.#subscribers.get(output.id)?.(output.item);
        if (output.item.type === "detached") this.#subscribers.delete(output.id);
        return true;
      }
      case "page":
      case "messages":
      case "answer":
      case "done":
        this.#settle(output.id, output.result);
        return true;
      default:
        return false;
    }
  }

  #settle(id: number, result: Result<unknown>): void {
    const waiter = this.#waiters.get(id);
    this.#waiters.delete(id);
    if ("error" in result) waiter?.reject(result.error);
    else waiter?.resolve(result.value as never);
  }

  /** A promise holds back what is written: a message must not be on its way before its id is kept. */
  #sendState(id: number, state: SendState): Promise<void> | undefined {
    const sending = this.#sendings.get(id);
    const log = this.#logs.get(id);
    let kept: Promise<void> | undefined;
    if (state.is === "sending" && sending) {
      const { key, message } = sending;
      kept = this.#keep({ key, message: { ...message, clientMessageId: state.clientMessageId } });
    } else if (state.is === "sent") {
      sending?.waiter?.resolve(state.receipt as never);
    } else if (state.is === "failed") {
      sending?.waiter?.reject(state.error);
    }
    if (sending && (state.is === "sent" || state.is === "failed")) {
      this.#sendings.delete(id);
      // What a stopped client did not send is sent by the next one with the same store.
      const isUnsent = state.is === "failed" && state.error instanceof StoppedError;
      if (!isUnsent) this.#forget(sending.key);
    }
    if (log !== undefined) this.#events.sent(log, id, state);
    if (state.is === "failed" || state.is === "read" || state.is === "sent") this.#logs.delete(id);
    return kept;
  }

  #keep(entry: Unsent): Promise<void> | undefined {
    return this.#watched(() => this.#storage.put(entry));
  }

  #forget(key: string): void {
    void this.#watched(() => this.#storage.remove(key));
  }

  #watched(work: () => Promise<void> | undefined): Promise<void> | undefined {
    try {
      return work()?.catch(this.#events.storageFailed);
    } catch (error) {
      this.#events.storageFailed(error);
      return undefined;
    }
  }
}

/** The refusal that a bare number in an answer stands for. */
export function keptBack(number: number): RefusedError | undefined {
  return number === 0 ? undefined : new RefusedError({ number });
}
