/**
 * What the console knows of one user: the client, the conversations' names and members, who is there.
 *
 * Parts of the page listen to `onChange`, told once for everything that happens at a time, and then show what there is.
 */

import {
  type Client,
  type Conversation,
  type ConversationInfo,
  connect,
  type Inbox,
  type InboxEntry,
  indexedDbStorage,
  type PresenceStatus,
  type QueueStorage,
  RefusedError,
} from "../../../sdk/typescript/src/index.js";
import { list } from "./format.js";

export const LOBBY = "lobby";

/** Conversations that are followed although they are not open: what comes there has then arrived, for its sender. */
const FOLLOWED_MAX = 12;
const WATCHED_MAX = 64;
const WATCH_DELAY_MS = 200;

/** The gateway gives no tokens by name. */
export class NotDevelopmentError extends Error {}

/** A token for a user, in development mode. */
export async function developmentToken(user: string): Promise<string> {
  const body = JSON.stringify({ user });
  const response = await fetch("dev/token", { method: "POST", headers: { "content-type": "application/json" }, body });
  if (response.status === 404) throw new NotDevelopmentError();
  const answer = (await response.json()) as { token?: string; message?: string };
  if (!response.ok || !answer.token) throw new Error(answer.message ?? `the gateway answered ${response.status}`);
  return answer.token;
}

export class Session {
  readonly user: string;
  readonly client: Client;
  readonly inbox: Inbox;
  /** Messages and changes that the broker does not have yet. */
  unsent = 0;
  /** The list of conversations has come. */
  isListed = false;
  readonly #infos = new Map<string, ConversationInfo | "asked" | "plain">();
  readonly #followed = new Set<string>();
  readonly #listeners = new Set<() => void>();
  #isDue = false;
  #watched = "";
  #watchTimer: ReturnType<typeof setTimeout> | undefined;
  #lobby: Promise<void> | undefined;

  constructor(user: string, firstToken?: string) {
    this.user = user;
    let first = firstToken;
    this.client = connect({
      url: location.origin,
      token: () => {
        const token = first ?? developmentToken(user);
        first = undefined;
        return token;
      },
      storage: this.#counting(indexedDbStorage(user)),
      clientName: "antiphon-console/0.1.0",
    });
    this.inbox = this.client.inbox();
    this.inbox.on("change", () => this.#listChanged());
    this.client.on("presence", () => this.changed());
    this.client.on("state", ({ is }) => {
      if (is === "ready") this.#restate();
      this.changed();
    });
  }

  // ---- telling the page ----

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  readonly changed = (): void => {
    if (this.#isDue) return;
    this.#isDue = true;
    queueMicrotask(() => {
      this.#isDue = false;
      for (const listener of this.#listeners) listener();
    });
  };

  /** A store that counts what it holds. */
  #counting(storage: QueueStorage): QueueStorage {
    const keys = new Set<string>();
    const counted = () => {
      this.unsent = keys.size;
      this.changed();
    };
    return {
      load: async () => {
        const entries = await storage.load();
        for (const { key } of entries) keys.add(key);
        counted();
        return entries;
      },
      put: (entry) => {
        keys.add(entry.key);
        counted();
        return storage.put(entry);
      },
      remove: (key) => {
        keys.delete(key);
        counted();
        return storage.remove(key);
      },
    };
  }

  // ---- conversations ----

  entry(id: string): InboxEntry | undefined {
    return this.inbox.entries().find((entry) => entry.id === id);
  }

  conversation(id: string): Conversation {
    return this.client.conversation(id);
  }

  /** Follows a conversation, if it is not followed, and learns of its members. */
  follow(id: string): Conversation {
    const conversation = this.conversation(id);
    conversation.open();
    if (this.#followed.has(id)) return conversation;
    this.#followed.add(id);
    conversation.on("change", this.changed);
    conversation.on("event", ({ content }) => {
      if (content.type === "notice") this.refresh(id);
    });
    return conversation;
  }

  info(id: string): ConversationInfo | undefined {
    const known = this.#infos.get(id);
    if (known === undefined) void this.#ask(id);
    return typeof known === "object" ? known : undefined;
  }

  /** Asks again what a conversation is like. */
  refresh(id: string): void {
    void this.#ask(id);
    this.#watchSoon(true);
  }

  async #ask(id: string): Promise<void> {
    if (!this.#infos.has(id)) this.#infos.set(id, "asked");
    try {
      this.#infos.set(id, await this.conversation(id).info());
      this.#watchSoon(true);
    } catch {
      // A log that nobody created has no properties; what was known of another one may still hold.
      if (this.#infos.get(id) === "asked") this.#infos.set(id, "plain");
    }
    this.changed();
  }

  /** The other one of a direct conversation. */
  peer(id: string): string | undefined {
    const info = this.info(id);
    if (info?.kind !== "direct") return undefined;
    return info.members.find(({ user }) => user !== this.user)?.user ?? this.user;
  }

  isDirect(id: string): boolean {
    const known = this.#infos.get(id);
    return this.entry(id)?.kind === "direct" || (typeof known === "object" && known.kind === "direct");
  }

  title(id: string): string {
    const known = this.#infos.get(id);
    // A list does not learn of a new name by itself; members are asked again when somebody says so.
    const named = (typeof known === "object" && known.title) || this.entry(id)?.title;
    if (named) return named;
    if (id === LOBBY) return "Lobby";
    const others = this.info(id)?.members.filter(({ user }) => user !== this.user) ?? [];
    if (others.length > 0) return list(others.map(({ user }) => user));
    return this.isDirect(id) ? "…" : "Group without a name";
  }

  typing(id: string): readonly string[] {
    return this.#followed.has(id) ? this.conversation(id).snapshot().typing : [];
  }

  /** The lobby becomes a conversation that anybody may join, unless it is a plain log already. */
  enterLobby(): Promise<void> {
    this.#lobby ??= this.#enterLobby().finally(() => {
      this.#lobby = undefined;
    });
    return this.#lobby;
  }

  async #enterLobby(): Promise<void> {
    await this.client.ready();
    await this.inbox.loaded();
    if (this.entry(LOBBY)) return;
    try {
      await this.client.createConversation({ id: LOBBY, title: "Lobby", joinPolicy: "open" });
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
      // Refused too where it is no conversation: the token opens it all the same.
      await this.conversation(LOBBY)
        .join()
        .catch(() => {});
    }
    this.refresh(LOBBY);
  }

  // ---- what the client tells ----

  #listChanged(): void {
    this.isListed = true;
    const newest = this.inbox.entries().filter(({ deleted, error }) => !deleted && !error);
    for (const { id } of newest.slice(0, FOLLOWED_MAX)) if (!this.#followed.has(id)) this.follow(id);
    this.#watchSoon(false);
    this.changed();
  }

  /** A session stands: what was refused or lost meanwhile is asked again. */
  #restate(): void {
    for (const [id, known] of this.#infos) if (typeof known !== "object") this.#infos.delete(id);
    this.#watchSoon(true);
  }

  // ---- presence ----

  /** How a user is, as far as it is known. */
  status(user: string | undefined): PresenceStatus {
    return (user !== undefined && this.client.presence(user)?.status) || "offline";
  }

  /** `again`: whom one may see has changed, and that is decided when the list is sent. */
  #watchSoon(again: boolean): void {
    if (again) this.#watched = "";
    this.#watchTimer ??= setTimeout(() => {
      this.#watchTimer = undefined;
      this.#watch();
    }, WATCH_DELAY_MS);
  }

  #watch(): void {
    const users = new Set([this.user]);
    for (const { id, kind } of this.inbox.entries()) {
      const known = kind === "direct" ? this.info(id) : this.#infos.get(id);
      if (typeof known === "object") for (const { user } of known.members) users.add(user);
    }
    const wanted = [...users].slice(0, WATCHED_MAX);
    const named = wanted.join(" ");
    if (named === this.#watched) return;
    this.#watched = named;
    this.client.watchPresence(wanted).catch(() => {});
  }
}
