/** For back ends that say something now and then: the HTTP API, without a connection of its own. */

import type { EventRef } from "../core/event.js";
import {
  type NewContent,
  type NewMessage,
  newEdit,
  newMessage,
  newReaction,
  newRedaction,
} from "../core/newMessage.js";
import type { Messages, Page, Receipt } from "../core/output.js";
import { readMessages, readPage } from "../core/pages.js";
import { type Presence, readStatus } from "../core/presence.js";
import {
  type ConversationInfo,
  type ConversationUpdate,
  changes,
  creation,
  type NewConversation,
  type NewMember,
  newMembers,
  type Role,
  readInfo,
} from "../info.js";
import { type Followed, type FollowOptions, follow } from "./follow.js";
import { Http, type HttpOptions, readAs } from "./http.js";

const KEY = /^[\x20-\x7e]{1,255}$/;

export interface SendOptions {
  /** 1 to 255 printable characters of ASCII: a send with the key of an earlier one is that send. */
  readonly idempotencyKey?: string;
}

/** Where a message ended up. */
export type StoredReceipt = Omit<Receipt, "clientMessageId">;

/** A part of a log's history. */
export interface HistoryRange {
  readonly from?: number;
  readonly to?: number;
  readonly limit?: number;
  readonly backward?: boolean;
  /** A date, Unix milliseconds: only what came from then on or, backward, only what came before. */
  readonly atMs?: number;
}

/** A right to read one log, and nothing else, for as long as the token lives that it was made with. */
export interface Ticket {
  readonly ticket: string;
  /** For `EventSource`, which cannot send a token. */
  readonly url: string;
}

export class HttpClient {
  readonly #http: Http;

  constructor(options: HttpOptions) {
    this.#http = new Http(options);
  }

  /** A conversation by its id. Nothing is sent before it is used. */
  conversation(id: string): HttpConversation {
    return new HttpConversation(this.#http, id);
  }

  async createConversation(given: NewConversation = {}): Promise<ConversationInfo> {
    return readInfo(await this.#http.request({ method: "POST", path: ["conversations"], body: creation(given) }));
  }

  /** How a user is now, as far as the token's user may know. */
  async presence(user: string): Promise<Presence> {
    const presence = readAs("PRESENCE", await this.#http.request({ path: ["users", user, "presence"] }));
    return { user: presence.user, status: readStatus(presence.status), text: presence.text };
  }

  /** Makes a user's tokens void that were issued before now, and ends their sessions. Takes the scope `admin:write`. */
  async revoke(user: string): Promise<void> {
    await this.#http.request({ method: "POST", path: ["users", user, "revoke"] });
  }
}

export class HttpConversation {
  readonly id: string;
  readonly #http: Http;

  /** @internal */
  constructor(http: Http, id: string) {
    this.#http = http;
    this.id = id;
  }

  // ---- the conversation itself ----

  /** Its properties and members. */
  async info(): Promise<ConversationInfo> {
    return readInfo(await this.#http.request({ path: this.#path() }));
  }

  /** Changes what is named. */
  async update(update: ConversationUpdate): Promise<void> {
    await this.#http.request({ method: "PATCH", path: this.#path(), body: changes(update) });
  }

  async delete(): Promise<void> {
    await this.#http.request({ method: "DELETE", path: this.#path() });
  }

  /** `actAs`: the user who adds them, for services. */
  async addMembers(members: readonly (string | NewMember)[], { actAs }: { actAs?: string } = {}): Promise<void> {
    const body = { members: newMembers(members), ...(actAs && { act_as: actAs }) };
    await this.#http.request({ method: "POST", path: this.#path("members"), body });
  }

  async removeMember(user: string): Promise<void> {
    await this.#http.request({ method: "DELETE", path: this.#path("members", user) });
  }

  async setRole(user: string, role: Role): Promise<void> {
    await this.#http.request({ method: "PUT", path: this.#path("members", user, "role"), body: { role } });
  }

  // ---- sending ----

  /** Kept when the message is durable. */
  send(content: string | NewContent, options: SendOptions = {}): Promise<StoredReceipt> {
    return this.#send(newMessage(this.#log, content), options);
  }

  edit(message: EventRef, content: string | NewContent, options: SendOptions = {}): Promise<StoredReceipt> {
    return this.#send(newEdit(this.#log, message, content), options);
  }

  redact(message: EventRef, options: SendOptions = {}): Promise<StoredReceipt> {
    return this.#send(newRedaction(this.#log, message), options);
  }

  react(message: EventRef, key: string, options: SendOptions = {}): Promise<StoredReceipt> {
    return this.#send(newReaction(this.#log, message, key, false), options);
  }

  async #send({ kind, content, actAs }: NewMessage, { idempotencyKey }: SendOptions): Promise<StoredReceipt> {
    if (idempotencyKey !== undefined && !KEY.test(idempotencyKey)) {
      throw new TypeError("an idempotency key has 1 to 255 printable characters of ASCII");
    }
    const ack = await this.#http.request({
      method: "POST",
      path: ["logs", this.#log, "events"],
      body: { ...(kind !== "message" && { kind }), ...(actAs && { act_as: actAs }), ...content },
      ...(idempotencyKey !== undefined && { headers: { "idempotency-key": idempotencyKey } }),
    });
    const { position, event_id, msgno, time_ms, duplicate } = readAs("ACK", ack);
    return { ...position, eventId: event_id, msgno, timeMs: time_ms, duplicate };
  }

  // ---- reading ----

  /** A page of events, forward from the oldest one if nothing else is said. */
  async history(range: HistoryRange = {}): Promise<Page> {
    return readPage(readAs("PAGE", await this.#read("events", range)));
  }

  /** A page of messages as they stand. */
  async messages(range: HistoryRange = {}): Promise<Messages> {
    return readMessages(readAs("MESSAGES_PAGE", await this.#read("messages", range)));
  }

  /** Everything up to this event has been read: by the token's user, or by the one for whom a service acts. */
  async markRead({ seq }: Pick<EventRef, "seq">, { actAs }: { actAs?: string } = {}): Promise<void> {
    const body = { read: seq, ...(actAs && { act_as: actAs }) };
    await this.#http.request({ method: "PUT", path: ["logs", this.#log, "cursor"], body });
  }

  #read(what: "events" | "messages", { from, to, limit, backward, atMs }: HistoryRange) {
    return this.#http.request({ path: ["logs", this.#log, what], query: { from, to, limit, backward, at_ms: atMs } });
  }

  /** Every event once and in order, over every break of the connection, until the loop is left. */
  async *follow({ after, signal }: FollowOptions = {}): AsyncGenerator<Followed, void, undefined> {
    // Of the moment, so that nothing is missed if the first connection breaks.
    const begin = after ?? (await this.history({ limit: 1, backward: true })).head;
    yield* follow(this.#http, this.#log, begin, signal);
  }

  /** For a page that may read this conversation and nothing else. */
  async ticket(): Promise<Ticket> {
    const body = { log: this.#log };
    const ticket = String((await this.#http.request({ method: "POST", path: ["tickets"], body })).ticket);
    return { ticket, url: this.#http.url({ path: ["logs", this.#log, "stream"], query: { ticket } }) };
  }

  get #log(): string {
    return `c:${this.id}`;
  }

  #path(...more: string[]): readonly string[] {
    return ["conversations", this.id, ...more];
  }
}
