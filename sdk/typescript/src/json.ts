/**
 * Frames in their JSON form (SPEC section 13): those that a client sends, and those that it reads.
 *
 * What a client sends is typed and written as it is. What it reads is checked member by member: what is left out gets
 * its default, what this version does not know is left aside, and a wrong type is a fault of the broker.
 */

/** The broker broke the protocol; the connection is of no use any more. */
export class Fault extends Error {}

export type Members = { readonly [name: string]: unknown };

// ---- what is sent ----

export interface EventRefMembers {
  readonly seq: number;
  readonly event_id: string;
}

export interface RelationMembers extends EventRefMembers {
  readonly key?: string;
  readonly remove?: boolean;
}

export interface AttachmentMembers {
  readonly url: string;
  readonly name?: string;
  readonly mime?: string;
  readonly size?: number;
  readonly width?: number;
  readonly height?: number;
  readonly duration_ms?: number;
  readonly thumbnail_url?: string;
}

/** Content type, envelope and body of an event. */
export interface ContentMembers {
  readonly text?: string;
  readonly data?: unknown;
  readonly body_b64?: string;
  readonly content_type?: string | number;
  readonly relates_to?: RelationMembers;
  readonly reply_to?: EventRefMembers;
  readonly thread?: EventRefMembers;
  readonly mentions?: readonly string[];
  readonly attachments?: readonly AttachmentMembers[];
  readonly properties?: { readonly [key: string]: string };
  readonly silent?: boolean;
  readonly expires_at_ms?: number;
}

export interface SendMembers extends ContentMembers {
  readonly log: string;
  readonly client_message_id: string;
  readonly dseq?: number;
  readonly kind?: string;
  readonly act_as?: string;
}

export interface HelloMembers {
  readonly versions: readonly number[];
  readonly token: string;
  readonly device?: string;
  readonly sender_instance?: string;
  readonly resume_token?: string;
  readonly follow_mine?: boolean;
  readonly capabilities?: readonly string[];
  readonly client?: string;
  readonly attempt?: number;
  readonly background?: boolean;
}

export interface NewMemberMembers {
  readonly user: string;
  readonly role?: string;
}

/** The members of each request beside `op` and `id`. */
export interface Requests {
  HELLO: HelloMembers;
  AUTH: { readonly token: string };
  BYE: unknown;
  SUBSCRIBE: { readonly log: string; readonly after?: string; readonly last?: number; readonly tail?: boolean };
  UNSUBSCRIBE: { readonly handle: number };
  FETCH: {
    readonly log: string;
    readonly from?: number;
    readonly to?: number;
    readonly limit?: number;
    readonly backward?: boolean;
    readonly view?: string;
    readonly at_ms?: number;
  };
  CURSOR: { readonly log: string; readonly delivered?: number; readonly read?: number; readonly act_as?: string };
  SYNC: { readonly after?: string; readonly limit?: number };
  SEND: SendMembers;
  SEND_BATCH: { readonly records: readonly SendMembers[] };
  HIDE: { readonly log: string } & EventRefMembers;
  CONVERSATION_CREATE: {
    readonly conversation?: string;
    readonly kind?: string;
    readonly title?: string;
    readonly members?: readonly NewMemberMembers[];
    readonly join_policy?: string;
    readonly act_as?: string;
    readonly retention_s?: number;
    readonly history?: string;
  };
  CONVERSATION_GET: { readonly conversation: string };
  CONVERSATION_UPDATE: {
    readonly conversation: string;
    readonly title?: string;
    readonly join_policy?: string;
    readonly retention_s?: number;
    readonly history?: string;
  };
  CONVERSATION_DELETE: { readonly conversation: string };
  MEMBER_ADD: {
    readonly conversation: string;
    readonly members: readonly NewMemberMembers[];
    readonly act_as?: string;
  };
  MEMBER_REMOVE: { readonly conversation: string; readonly user: string };
  MEMBER_SET_ROLE: { readonly conversation: string; readonly user: string; readonly role?: string };
  JOIN: { readonly conversation: string };
  LEAVE: { readonly conversation: string };
  PREFERENCES: { readonly conversation: string; readonly pinned?: boolean; readonly muted?: boolean };
  BLOCK: { readonly user: string; readonly blocked?: boolean };
  PRESENCE_SET: { readonly status?: string; readonly text?: string };
  PRESENCE_SUBSCRIBE: { readonly users?: readonly string[] };
  REVOKE: { readonly user?: string };
  SIGNAL: { readonly log: string; readonly kind: string; readonly data?: string; readonly ttl_ms?: number };
}

export type RequestOp = keyof Requests;

/** A frame that a client sends. SIGNAL has no id, for it has no answer. */
export type Request = { [Op in RequestOp]: { readonly op: Op; readonly id?: number } & Requests[Op] }[RequestOp];

// ---- what is read ----

/** Checks a value, undefined where the member is left out, and gives it its type. */
type Reader<T> = (value: unknown, name: string) => T;
type Shape = { readonly [name: string]: Reader<unknown> };
type Read<S> = { readonly [Name in keyof S]: S[Name] extends Reader<infer T> ? T : never };

function fail(name: string, expected: string): never {
  throw new Fault(`${name} is not ${expected}`);
}

const num: Reader<number> = (value, name) => {
  if (value === undefined) return 0;
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : fail(name, "a whole number");
};
const str: Reader<string> = (value, name) => {
  if (value === undefined) return "";
  return typeof value === "string" ? value : fail(name, "a string");
};
const bool: Reader<boolean> = (value, name) => {
  if (value === undefined) return false;
  return typeof value === "boolean" ? value : fail(name, "true or false");
};
/** A name of an enumeration, or the number of a value that has no name yet. */
const word: Reader<string | number> = (value, name) => {
  if (typeof value !== "number") return str(value, name);
  return Number.isSafeInteger(value) ? value : fail(name, "a name or a whole number");
};
const any: Reader<unknown> = (value) => value;

function maybe<T>(reader: Reader<T>): Reader<T | undefined> {
  return (value, name) => (value === undefined ? undefined : reader(value, name));
}

function list<T>(reader: Reader<T>): Reader<readonly T[]> {
  return (value, name) => {
    if (value === undefined) return [];
    return Array.isArray(value) ? value.map((item) => reader(item, name)) : fail(name, "a list");
  };
}

function object<S extends Shape>(shape: S): Reader<Read<S>> {
  const names = Object.keys(shape);
  return (value, name) => {
    const members = asMembers(value, name);
    const read: Record<string, unknown> = {};
    for (const member of names) read[member] = shape[member]?.(members[member], `${name}.${member}`);
    return read as Read<S>;
  };
}

function asMembers(value: unknown, name: string): Members {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Members)
    : fail(name, "an object");
}

const texts: Reader<{ readonly [key: string]: string }> = (value, name) => {
  const members = asMembers(value, name);
  return Object.fromEntries(Object.entries(members).map(([key, text]) => [key, str(text, name)]));
};

/** A position as `<epoch>-<seq>`. */
export interface Position {
  readonly epoch: number;
  readonly seq: number;
}

export function parsePosition(text: string): Position {
  const found = /^(\d{1,10})-(\d{1,16})$/.exec(text);
  if (!found) fail("position", "<epoch>-<seq>");
  return { epoch: num(Number(found[1]), "position"), seq: num(Number(found[2]), "position") };
}

const position: Reader<Position> = (value, name) =>
  value === undefined ? { epoch: 0, seq: 0 } : parsePosition(str(value, name));

const eventRef = { seq: num, event_id: str };
const content = {
  text: maybe(str),
  data: any,
  body_b64: maybe(str),
  body: any,
  content_type: maybe(word),
};
const attachment = {
  url: str,
  name: maybe(str),
  mime: maybe(str),
  size: maybe(num),
  width: maybe(num),
  height: maybe(num),
  duration_ms: maybe(num),
  thumbnail_url: maybe(str),
};
const envelope = {
  relates_to: maybe(object({ ...eventRef, key: maybe(str), remove: bool })),
  reply_to: maybe(object(eventRef)),
  thread: maybe(object(eventRef)),
  mentions: list(str),
  attachments: list(object(attachment)),
  properties: maybe(texts),
  silent: bool,
  expires_at_ms: num,
};
const rowShape = {
  seq: num,
  msgno: num,
  time_ms: num,
  event_id: str,
  client_message_id: maybe(str),
  content_hash: str,
  kind: word,
  redacted: bool,
  unchanged: bool,
  imported: bool,
  sender: str,
  via: maybe(str),
  ...content,
  ...envelope,
};
const mark = object({ seq: num, time_ms: num, user: str });
const messageView = object({
  row: object(rowShape),
  state: maybe(
    object({
      through: num,
      edit: maybe(object({ seq: num, time_ms: num, ...content, ...envelope })),
      redacted: maybe(mark),
      pinned: maybe(mark),
      reactions: list(object({ key: str, count: num, mine: bool, users: list(str) })),
      edits: list(num),
    }),
  ),
  reply: maybe(object({ ...eventRef, sender: str, ...content, cut: bool, redacted: bool, through: num })),
});
const memberCursor = { user: str, delivered: num, read: num, read_msgno: num };
const lastMessage = object({ seq: num, time_ms: num, sender: str, ...content, redacted: bool, imported: bool });
const refusal = {
  number: num,
  code: str,
  outcome: word,
  retry_after_ms: num,
  field: str,
  message: str,
  removed_at: num,
};
const ack = { position, msgno: num, time_ms: num, event_id: str, duplicate: bool };
const member = object({ user: str, role: word, joined_seq: num });

const shapes = {
  WELCOME: {
    id: num,
    version: num,
    session_id: str,
    resume_token: str,
    resumed: bool,
    server_time_ms: num,
    user: str,
    device: str,
    reconnect_jitter_ms: num,
    max_frame_bytes: num,
    max_body_bytes: num,
    max_subscriptions: num,
    capabilities: list(str),
    expires_at_ms: num,
  },
  GOAWAY: { code: num, deadline_ms: num, jitter_ms: num },
  ERROR: { id: num, ...refusal },
  RESUME: { jitter_ms: num },
  ATTACH: {
    id: num,
    handle: num,
    log: str,
    epoch: num,
    live_from: num,
    replay_from: num,
    inlined: bool,
    head: num,
    floor: num,
    head_msgno: num,
    reset: word,
    cursors: list(object(memberCursor)),
  },
  PAGE: { id: num, next: num, head: num, floor: num, epoch: num, rows: list(object(rowShape)) },
  MESSAGES_PAGE: { id: num, next: num, head: num, floor: num, epoch: num, messages: list(messageView) },
  EVENT: { handle: num, ...rowShape },
  SKIP: { handle: num, from: num, to: num },
  BEHIND: { handle: num },
  DETACH: { handle: num, reason: word, seq: num },
  CURSORS: { handle: num, ...memberCursor },
  HEAD: { log: str, epoch: num, seq: num, msgno: num, last: maybe(lastMessage) },
  ACK: { id: num, ...ack },
  BATCH_ACK: {
    id: num,
    results: list(object({ ...ack, error: maybe(object(refusal)) })),
  },
  SIGNALED: { handle: num, user: str, kind: str, data: str, ttl_ms: num },
  PRESENCE: { user: str, status: word, text: str },
} satisfies { readonly [op: string]: Shape };

type Shapes = typeof shapes;

/** OK keeps its members as they came: what they are depends on the request. */
export interface OkFrame {
  readonly op: "OK";
  readonly id: number;
  readonly body: Members;
}

/** A frame that a client reads. */
export type Answer = { [Op in keyof Shapes]: { readonly op: Op } & Read<Shapes[Op]> }[keyof Shapes] | OkFrame;
export type AnswerOf<Op extends Answer["op"]> = Extract<Answer, { op: Op }>;

export type RowMembers = Read<typeof rowShape>;
export type MessageViewMembers = ReturnType<typeof messageView>;
export type RefusalMembers = Read<typeof refusal>;
export type ReadContent = Read<typeof content>;
export type ReadEnvelope = Read<typeof envelope>;
export type LastMessageMembers = ReturnType<typeof lastMessage>;

const readers = new Map<string, Reader<unknown>>(Object.entries(shapes).map(([op, shape]) => [op, object(shape)]));

/** The answer in a frame's JSON form; undefined for an `op` that this version does not know. Throws a [`Fault`]. */
export function readFrame(frame: unknown): Answer | undefined {
  const members = asMembers(frame, "a frame");
  const op = members.op;
  if (op === "OK") return { op, id: num(members.id, "OK.id"), body: members };
  if (typeof op !== "string") fail("op", "a string");
  const read = readers.get(op)?.(members, op);
  return read === undefined ? undefined : ({ ...(read as object), op } as Answer);
}

// ---- bodies of OK, and of events that brokers make ----

const conversationShape = {
  conversation: str,
  kind: word,
  title: str,
  join_policy: word,
  members: list(member),
  head: num,
  head_msgno: num,
  created: bool,
  deleted: bool,
  retention_s: num,
  history: word,
};
const syncedLog = object({
  log: str,
  pinned: bool,
  muted: bool,
  hidden: list(num),
  error: num,
  kind: word,
  title: str,
  deleted: bool,
  epoch: num,
  head: num,
  head_msgno: num,
  time_ms: num,
  last: maybe(lastMessage),
  delivered: num,
  read: num,
  read_msgno: num,
});

const conversation = object(conversationShape);
const synced = object({ entries: list(syncedLog), next: str, blocked: list(str) });
const authenticated = object({ expires_at_ms: num });
const row = object(rowShape);
const view = messageView;

export const readConversation = (body: unknown) => conversation(body, "Conversation");
export const readSynced = (body: unknown) => synced(body, "Synced");
export const readAuthenticated = (body: unknown) => authenticated(body, "Authenticated");
export const readRow = (body: unknown) => row(body, "row");
export const readMessageView = (body: unknown) => view(body, "MessageView");
export type SyncedLogMembers = ReturnType<typeof syncedLog>;

/** What the broker's events say: the messages named in section 5. */
export const noticeReaders = {
  member: object({ change: word, members: list(member) }),
  conversation: object({ ...conversationShape, change: word }),
  "conversation.added": object({ conversation: str, joined_seq: num, kind: word }),
  "conversation.removed": object({ conversation: str, seq: num, reason: word }),
  preferences: object({ conversation: str, pinned: maybe(bool), muted: maybe(bool) }),
  block: object({ user: str, blocked: bool }),
  hide: object({ log: str, ...eventRef }),
  revoked: object({ not_before_ms: num }),
};
