/** The client of an application: one session of one user on one device, and what it is used for. */

import { Conversation, type ConversationOptions } from "./conversation.js";
import { StoppedError } from "./core/error.js";
import type { Command } from "./core/input.js";
import type { ConnectionState, Digest, Output, Session as SessionInfo } from "./core/output.js";
import type { Presence, PresenceStatus } from "./core/presence.js";
import { tabDevice } from "./device.js";
import { Emitter, type Listener } from "./emitter.js";
import { Inbox } from "./inbox.js";
import { type ConversationInfo, creation, type NewConversation, readInfo } from "./info.js";
import { Session } from "./session.js";
import { memoryStorage } from "./storage/memory.js";
import type { QueueStorage, Unsent } from "./storage/storage.js";
import { type SocketConstructor, Transport } from "./transport.js";
import { json, type Wire } from "./wire.js";

export interface ConnectOptions {
  /** Of the gateway, such as `wss://chat.example.com`; the path of the socket is added if there is none. */
  readonly url: string;
  /** A token, or where to get one: called again before it ends, and when the broker refused it. */
  readonly token: string | (() => string | Promise<string>);
  /** The installation; a newer connection of the same user and device ends the older one. In browsers: the tab. */
  readonly device?: string;
  /** Where unacknowledged messages are kept; by default nowhere beyond this client. */
  readonly storage?: QueueStorage;
  /** Where the platform has none: the class of the package `ws`. */
  readonly WebSocket?: unknown;
  /** Whether `inbox()` is kept current by the broker; true if absent. */
  readonly follow?: boolean;
  /** Name and version of the application, for the broker's logs. */
  readonly clientName?: string;
  /** How frames are written; JSON if absent, `binary` of `antiphon/binary` otherwise. */
  readonly wire?: Wire;
}

export interface ClientEvents {
  /** How the client stands with the broker. */
  state: ConnectionState;
  presence: Presence;
  /** News of a conversation that is not followed. */
  digest: Digest;
  /** The store failed: what it should have kept will not outlive this client. */
  storageError: unknown;
}

/** Connects, and stays connected. Nothing has to be awaited: messages and subscriptions wait for the first session. */
export function connect(options: ConnectOptions): Client {
  return new Client(options);
}

export class Client {
  readonly #emitter = new Emitter<ClientEvents>();
  readonly #session: Session;
  readonly #conversations = new Map<string, Conversation>();
  readonly #presences = new Map<string, Presence>();
  #inbox: Inbox | undefined;
  #transport: Transport | undefined;
  /** What the application wants before the client has started. */
  #early: Command[] | undefined = [];
  #state: ConnectionState = { is: "connecting" };

  /** @internal */
  constructor(options: ConnectOptions) {
    const storage = options.storage ?? memoryStorage();
    this.#session = new Session((command) => this.#command(command), storage, {
      sending: (id, key, message) => this.#of(message.log)?.sending(id, key, message),
      sent: (log, id, state) => this.#of(log)?.sent(id, state),
      storageFailed: (error) => this.#emitter.emit("storageError", error),
    });
    void this.#start(options, socketUrl(options.url), socketClass(options.WebSocket), storage);
  }

  async #start(options: ConnectOptions, url: string, WebSocket: SocketConstructor, storage: QueueStorage) {
    const { token } = options;
    const [device, unsent] = await Promise.all([
      options.device ?? tabDevice().catch(() => `tab-${crypto.randomUUID()}`),
      storage.load().catch((error): readonly Unsent[] => {
        this.#emitter.emit("storageError", error);
        return [];
      }),
    ]);
    const early = this.#early ?? [];
    // What an earlier page left goes before what this one wants.
    this.#early = [];
    this.#session.restore(unsent);
    const first = [...this.#early, ...early];
    this.#early = undefined;
    const config = {
      device,
      clientName: options.clientName ?? "antiphon-typescript/0.1.0",
      followMine: options.follow ?? true,
      seed: crypto.getRandomValues(new Uint8Array(16)),
    };
    this.#transport = new Transport(config, {
      url,
      WebSocket,
      token: async () => (typeof token === "string" ? token : token()),
      wire: options.wire ?? json,
      tell: (output) => this.#tell(output),
    });
    for (const command of first) this.#command(command);
  }

  #command(command: Command): void {
    if (this.#transport) this.#transport.command(command);
    else this.#early?.push(command);
  }

  // ---- the connection ----

  /** How the client stands with the broker now. */
  get state(): ConnectionState {
    return this.#state;
  }

  /** The session's user; empty before the first session. */
  get user(): string {
    return this.#session.user;
  }

  on<Name extends keyof ClientEvents>(name: Name, listener: Listener<ClientEvents[Name]>): () => void {
    return this.#emitter.on(name, listener);
  }

  /** Waits until a session stands. Fails when the client has stopped for good. */
  ready(): Promise<SessionInfo> {
    return new Promise((resolve, reject) => {
      const off = this.on("state", (state) => decide(state));
      const decide = (state: ConnectionState): void => {
        if (state.is !== "ready" && state.is !== "stopped") return;
        off();
        if (state.is === "ready") resolve(state.session);
        else reject(new StoppedError(state.reason));
      };
      decide(this.#state);
    });
  }

  /** Asks for a new token now, and takes it for the running session: for when the user's rights have changed. */
  renewToken(): void {
    this.#command({ type: "renewToken" });
  }

  /** Ends the session. Everything that waits fails; a store keeps what was not sent. */
  close(): Promise<void> {
    const ended = this.#ended();
    this.#command({ type: "close" });
    return ended;
  }

  #ended(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#state.is === "stopped") resolve();
      const off = this.on("state", (state) => {
        if (state.is !== "stopped") return;
        off();
        resolve();
      });
    });
  }

  // ---- conversations ----

  /** A conversation by its id; the same object each time. Nothing is sent before it is used. */
  conversation(id: string, options: ConversationOptions = {}): Conversation {
    const known = this.#conversations.get(id);
    if (known) return known;
    const conversation = new Conversation(this.#session, id, options, () => this.#inbox);
    this.#conversations.set(id, conversation);
    return conversation;
  }

  #of(log: string): Conversation | undefined {
    return log.startsWith("c:") ? this.conversation(log.slice(2)) : undefined;
  }

  async createConversation(given: NewConversation = {}): Promise<ConversationInfo> {
    const body = await this.#session.request({ op: "CONVERSATION_CREATE", ...creation(given) });
    return readInfo(body);
  }

  /** The direct conversation with another user, found or created. */
  async direct(user: string): Promise<Conversation> {
    const body = await this.#session.request({ op: "CONVERSATION_CREATE", kind: "direct", members: [{ user }] });
    return this.conversation(readInfo(body).id);
  }

  /** One's own conversations, with what is unread. */
  inbox(): Inbox {
    if (!this.#inbox) {
      this.#inbox = new Inbox(this.#session, (log, seq) => this.#conversations.get(log.slice(2))?.hidden(seq));
      if (this.#state.is === "ready") this.#inbox.began();
    }
    return this.#inbox;
  }

  // ---- users ----

  /** Watches the presence of these users, at most 64, in place of those before. */
  watchPresence(users: Iterable<string>): Promise<void> {
    const wanted = new Set(users);
    for (const user of this.#presences.keys()) if (!wanted.has(user)) this.#presences.delete(user);
    return this.#session.watchPresence(wanted);
  }

  /** How a watched user is, as far as it is known. */
  presence(user: string): Presence | undefined {
    return this.#presences.get(user);
  }

  /** How one is shown to others while present, with a text of at most 128 bytes. */
  async setPresence(status: PresenceStatus, text = ""): Promise<void> {
    await this.#session.request({ op: "PRESENCE_SET", status, ...(text && { text }) });
  }

  /** Nothing new comes to the direct conversation with a blocked user, from either side. */
  async block(user: string): Promise<void> {
    await this.#session.request({ op: "BLOCK", user, blocked: true });
  }

  async unblock(user: string): Promise<void> {
    await this.#session.request({ op: "BLOCK", user });
  }

  /** Makes tokens void that were issued before now: one's own, this session's too, or with `admin:write` a user's. */
  async revoke(user?: string): Promise<void> {
    await this.#session.request({ op: "REVOKE", ...(user && { user }) });
  }

  // ---- what the core tells ----

  #tell(output: Output): Promise<void> | undefined {
    const taken = this.#session.take(output);
    if (typeof taken === "object") return taken;
    if (taken) return undefined;
    switch (output.type) {
      case "state":
        this.#setState(output.state);
        break;
      case "digest":
        this.#inbox?.digest(output.digest);
        this.#emitter.emit("digest", output.digest);
        break;
      case "presence":
        this.#presences.set(output.presence.user, output.presence);
        this.#emitter.emit("presence", output.presence);
    }
    return undefined;
  }

  #setState(state: ConnectionState): void {
    this.#state = state;
    if (state.is === "ready") {
      this.#session.user = state.session.user;
      for (const conversation of this.#conversations.values()) conversation.began(state.session.user);
      this.#inbox?.began();
    }
    this.#emitter.emit("state", state);
  }
}

/** The address of the socket: `http` becomes `ws`, and the usual path is added where there is none. */
function socketUrl(given: string): string {
  const url = new URL(given);
  if (url.protocol === "http:") url.protocol = "ws:";
  if (url.protocol === "https:") url.protocol = "wss:";
  if (url.protocol !== "ws:" && url.protocol !== "wss:") throw new TypeError(`${given} is no address of a gateway`);
  if (url.pathname === "/") url.pathname = "/api/v1/socket";
  return url.href;
}

function socketClass(given: unknown): SocketConstructor {
  const found = given ?? globalThis.WebSocket;
  if (typeof found !== "function")
    throw new TypeError("this platform has no WebSocket: pass in that of the package ws");
  return found as SocketConstructor;
}
