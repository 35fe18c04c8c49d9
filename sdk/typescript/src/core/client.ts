/**
 * The Antiphon client as a state machine without I/O: frames, commands and time in; frames, requests to the shell and
 * news for the application out. Same file names and states as the Rust crate `sdk/core`.
 *
 * A shell passes every input to `handle` with the time, then takes all outputs, then sleeps until `pollTimeout` or the
 * next input. Same seed and inputs, same outputs.
 *
 * Invariants: an application sees each position of a log once and in order, or is told of a reset; a message stays in
 * the outbox until its ACK or a final refusal; every queue is bounded (`limits`). Deliberately absent: sockets, clocks,
 * randomness, storage.
 */

import { Fault } from "../json.js";
import { Connection, type Step } from "./connection.js";
import { Cursors } from "./cursors.js";
import { StoppedError, type StopReason } from "./error.js";
import type { Config } from "./handshake.js";
import { type Parts, takeFrame } from "./incoming.js";
import type { Command, Input } from "./input.js";
import { Link } from "./link.js";
import type { Output } from "./output.js";
import { Pages } from "./pages.js";
import { Watch } from "./presence.js";
import { Receipts } from "./receipts.js";
import { Requests, signal } from "./requests.js";
import { Outbox } from "./sends.js";
import { Subscriptions } from "./subscriptions.js";
import type { Timer } from "./timers.js";

/** One client of one broker. */
export class Core {
  readonly #parts: Parts;
  #stopped: StopReason | undefined;

  /** A client that wants to connect: its first outputs are there at once. */
  constructor(config: Config) {
    const link = new Link(config.seed);
    const pages = new Pages(link);
    this.#parts = {
      link,
      connection: new Connection(link, config),
      outbox: new Outbox(link),
      receipts: new Receipts(link),
      subscriptions: new Subscriptions(link, pages),
      pages,
      requests: new Requests(link),
      cursors: new Cursors(link),
      watch: new Watch(link),
    };
    this.#parts.connection.begin();
  }

  /** Takes an input. `now` is in milliseconds since any moment, and must not go back. Then take all outputs. */
  handle(now: number, input: Input): void {
    const { link, connection } = this.#parts;
    link.now = Math.max(link.now, now);
    switch (input.type) {
      case "connected":
        connection.connected();
        break;
      case "disconnected":
        this.#follow(connection.disconnected(input.cause, input.closeCode));
        break;
      case "frame":
        this.#frame(input.frame);
        break;
      case "unreadable":
        if (connection.isUp) this.#follow(connection.broken(input.cause));
        break;
      case "token":
        this.#follow(connection.token(input.token));
        break;
      case "tokenFailed":
        connection.tokenFailed(input.cause);
        break;
      case "timeout":
        for (let due = link.timers.popDue(link.now); due; due = link.timers.popDue(link.now)) this.#due(due);
        break;
      case "check":
        connection.check();
        break;
      case "command":
        if (this.#stopped) this.#refuse(input.command, this.#stopped);
        else this.#command(input.command);
    }
    this.#follow(connection.leaveWhenSettled());
  }

  /** The next thing to do, in order. */
  pollOutput(): Output | undefined {
    return this.#parts.link.nextOutput();
  }

  /** When to pass in `timeout`, if nothing happens before. */
  pollTimeout(): number | undefined {
    return this.#parts.link.timers.next();
  }

  get isStopped(): boolean {
    return this.#parts.connection.isStopped;
  }

  #frame(frame: Extract<Input, { type: "frame" }>["frame"]): void {
    const { connection, link } = this.#parts;
    // What comes after ERROR or RESUME is of a connection that is over.
    if (!connection.isUp) return;
    try {
      if (frame) this.#follow(takeFrame(this.#parts, frame));
      if (connection.isUp) link.heard();
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault;
      this.#follow(connection.broken(fault.message));
    }
  }

  // ---- commands ----

  #command(command: Command): void {
    const { link, connection, outbox, subscriptions, pages, requests, cursors, watch } = this.#parts;
    switch (command.type) {
      case "send":
        return outbox.add(command.id, command.message);
      case "sendBatch":
        return outbox.addBatch(command.messages);
      case "subscribe":
        return subscriptions.add(command.id, command.log, command.from);
      case "unsubscribe":
        return subscriptions.remove(command.id);
      case "fetch":
        return pages.fetch("page", command.id, command.range);
      case "fetchMessages":
        return pages.fetch("messages", command.id, command.range);
      case "cursor":
        return cursors.advance(command.log, command.delivered, command.read);
      case "signal":
        return signal(link, command);
      case "watchPresence":
        return watch.set(command.id, command.users);
      case "request":
        return requests.add(command.id, command.request);
      case "renewToken":
        return connection.tokenDue();
      case "close":
        return this.#follow(connection.close());
    }
  }

  #refuse(command: Command, stop: StopReason): void {
    const { link } = this.#parts;
    const error = new StoppedError(stop);
    const failed = (id: number) => link.emit({ type: "send", id, state: { is: "failed", error } });
    switch (command.type) {
      case "send":
        return failed(command.id);
      case "sendBatch":
        for (const { id } of command.messages) failed(id);
        return;
      case "subscribe": {
        const item = { type: "detached", reason: { why: "stopped", stop } } as const;
        return link.emit({ type: "subscription", id: command.id, item });
      }
      case "fetch":
        return link.emit({ type: "page", id: command.id, result: { error } });
      case "fetchMessages":
        return link.emit({ type: "messages", id: command.id, result: { error } });
      case "signal":
      case "watchPresence":
        return link.emit({ type: "done", id: command.id, result: { error } });
      case "request":
        return link.emit({ type: "answer", id: command.id, result: { error } });
    }
  }

  // ---- time and the connection ----

  #due({ kind, of }: Timer): void {
    const { connection, outbox, subscriptions, pages, requests, cursors, watch } = this.#parts;
    switch (kind) {
      case "connection":
        return this.#follow(connection.timeout());
      case "silence":
        return this.#follow(connection.broken("the broker has fallen silent"));
      case "token":
        return connection.tokenDue();
      case "sends":
        return outbox.due(String(of));
      case "subscription":
        return subscriptions.due(Number(of));
      case "cursor":
        return cursors.due(String(of));
      case "request":
        return requests.due(Number(of));
      case "page":
        return pages.due(Number(of));
      case "presence":
        return watch.due();
    }
  }

  #follow(step: Step): void {
    const { link, outbox, subscriptions, pages, requests, cursors, watch } = this.#parts;
    switch (step?.step) {
      case "ready":
        // Subscriptions first: an application sees the echo of what it sends again.
        subscriptions.ready();
        outbox.write();
        cursors.ready((log) => subscriptions.follows(log));
        watch.ready();
        requests.write();
        pages.write();
        return;
      case "down":
        link.down();
        subscriptions.down();
        outbox.down();
        requests.down();
        watch.down();
        pages.down();
        return;
      case "stopped":
        link.down();
        link.timers.cancelAll();
        subscriptions.stop(step.reason);
        outbox.stop(step.reason);
        requests.stop(step.reason);
        watch.stop(step.reason);
        pages.stop(step.reason);
        link.emit({ type: "state", state: { is: "stopped", reason: step.reason } });
        this.#stopped = step.reason;
    }
  }
}
