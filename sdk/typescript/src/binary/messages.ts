/**
 * The Protobuf messages of the protocol as one table: `number name type`, as in `proto/antiphon.proto`.
 *
 * Types: `uint`, `bool`, `string`, `bytes` (base64url in JSON), `uuid`; `=Name` an enumeration, `Name` a message. What
 * follows says how often: `*` repeated, `?` known to be set or not. `Position` is a string in JSON. The three fields of
 * content (`type`, `envelope`, `body`) become its members, and `row` is a row.
 */

const MEMBER_FIELDS = "1 conversation string, 2 kind =ConversationKind, 3 title string";

const SOURCE: { readonly [name: string]: string } = {
  Hello:
    "1 versions uint*, 2 token string, 3 device string, 4 sender_instance uuid, 5 resume_token bytes, 6 follow_mine bool, 7 capabilities string*, 8 client string, 9 attempt uint, 10 background bool",
  Welcome:
    "1 version uint, 2 session_id uuid, 3 resume_token bytes, 4 resumed bool, 5 server_time_ms uint, 6 user string, 7 device string, 8 reconnect_jitter_ms uint, 9 max_frame_bytes uint, 10 max_body_bytes uint, 11 max_subscriptions uint, 12 capabilities string*, 13 expires_at_ms uint",
  Auth: "1 token string",
  Authenticated: "1 expires_at_ms uint",
  Bye: "",
  Goaway: "1 code uint, 2 deadline_ms uint, 3 jitter_ms uint",
  Error:
    "1 number uint, 2 code string, 3 outcome =Outcome, 4 retry_after_ms uint, 5 field string, 6 message string, 7 removed_at uint",
  Resume: "1 jitter_ms uint",
  Position: "1 epoch uint, 2 seq uint",
  Subscribe: "1 log string, 2 after Position?, 3 last uint?, 4 tail bool?",
  Attach:
    "1 handle uint, 2 log string, 3 epoch uint, 4 live_from uint, 5 replay_from uint, 6 inlined bool, 7 head uint, 8 floor uint, 9 head_msgno uint, 10 reset =Reset, 11 cursors MemberCursor*",
  Unsubscribe: "1 handle uint",
  Detach: "1 reason =DetachReason, 2 seq uint",
  Fetch: "1 log string, 2 from uint, 3 to uint, 4 limit uint, 5 backward bool, 6 view =View, 8 at_ms uint",
  MessagesPage: "1 next uint, 2 head uint, 3 floor uint, 4 epoch uint, 5 messages MessageView*",
  MessageView: "1 row row, 2 state MessageState, 3 reply ReplyPreview",
  MessageState:
    "1 through uint, 2 edit LatestEdit, 3 redacted Mark, 4 pinned Mark, 5 reactions Reactions*, 6 edits uint*",
  LatestEdit: "1 seq uint, 2 time_ms uint, 3 content_type type, 4 envelope envelope, 5 body body",
  Mark: "1 seq uint, 2 time_ms uint, 3 user string",
  Reactions: "1 key string, 2 count uint, 3 mine bool, 4 users string*",
  ReplyPreview:
    "1 seq uint, 2 event_id uuid, 3 sender string, 4 content_type type, 5 body body, 6 cut bool, 7 redacted bool, 8 through uint",
  Cursor: "1 log string, 2 delivered uint, 3 read uint, 4 act_as string",
  MemberCursor: "1 user string, 2 delivered uint, 3 read uint, 4 read_msgno uint",
  Head: "1 log string, 2 epoch uint, 3 seq uint, 4 msgno uint, 5 last LastMessage",
  LastMessage:
    "1 seq uint, 2 time_ms uint, 3 sender string, 4 content_type type, 5 body body, 6 redacted bool, 7 imported bool",
  Member: "1 user string, 2 role =Role, 3 joined_seq uint",
  ConversationCreate: `${MEMBER_FIELDS}, 4 members Member*, 5 join_policy =JoinPolicy, 6 act_as string, 7 retention_s uint, 8 history =History`,
  ConversationGet: "1 conversation string",
  Conversation: `${MEMBER_FIELDS}, 4 join_policy =JoinPolicy, 5 members Member*, 6 head uint, 7 head_msgno uint, 8 created bool, 9 deleted bool, 10 retention_s uint, 11 history =History`,
  ConversationUpdate:
    "1 conversation string, 2 title string?, 3 join_policy =JoinPolicy?, 4 retention_s uint?, 5 history =History?",
  ConversationDelete: "1 conversation string",
  MemberAdd: "1 conversation string, 2 members Member*, 3 act_as string",
  MemberRemove: "1 conversation string, 2 user string",
  MemberSetRole: "1 conversation string, 2 user string, 3 role =Role",
  Join: "1 conversation string",
  Leave: "1 conversation string",
  MemberEvent: "1 change =MemberChange, 2 members Member*",
  ConversationEvent:
    "1 change =ConversationChange, 2 kind =ConversationKind, 3 title string, 4 join_policy =JoinPolicy, 5 members Member*, 6 retention_s uint, 7 history =History",
  Signal: "1 log string, 2 kind string, 3 data bytes, 4 ttl_ms uint",
  Signaled: "1 handle uint, 2 user string, 3 kind string, 4 data bytes, 5 ttl_ms uint",
  BatchAck: "1 results BatchResult*",
  BatchResult: "1 position Position, 2 event_id uuid, 3 msgno uint, 4 time_ms uint, 5 duplicate bool, 6 error Error",
  ConversationAdded: "1 conversation string, 2 joined_seq uint, 3 kind =ConversationKind",
  ConversationRemoved: "1 conversation string, 2 seq uint, 3 reason =RemovalReason",
  Preferences: "1 conversation string, 2 pinned bool?, 3 muted bool?",
  Block: "1 user string, 2 blocked bool",
  Hide: "1 log string, 2 event_id uuid, 3 seq uint",
  Revoke: "1 user string",
  Revoked: "1 not_before_ms uint",
  Sync: "1 after string, 2 limit uint",
  Synced: "1 entries SyncedLog*, 2 next string, 3 blocked string*",
  SyncedLog:
    "1 log string, 2 pinned bool, 3 muted bool, 4 hidden uint*, 5 error uint, 6 kind =ConversationKind, 7 title string, 8 deleted bool, 9 epoch uint, 10 head uint, 11 head_msgno uint, 12 time_ms uint, 13 last LastMessage, 14 delivered uint, 15 read uint, 16 read_msgno uint",
  PresenceSet: "1 status =PresenceStatus, 2 text string",
  PresenceSubscribe: "1 users string*",
  Presence: "1 user string, 2 status =PresenceStatus, 3 text string",
};

/** Names of the values of each enumeration, by number. */
export const ENUMERATIONS: { readonly [name: string]: readonly string[] } = {
  Outcome: ["not_applied", "unknown"],
  Reset: ["none", "epoch_changed", "history_gone"],
  DetachReason: ["unsubscribed", "removed", "deleted"],
  View: ["events", "messages"],
  Role: ["member", "admin", "owner"],
  ConversationKind: ["group", "direct", "channel"],
  JoinPolicy: ["invite", "open"],
  History: ["full", "joined"],
  MemberChange: ["added", "joined", "removed", "left", "role"],
  ConversationChange: ["created", "updated", "deleted"],
  RemovalReason: ["removed", "left", "deleted"],
  PresenceStatus: ["offline", "online", "away", "busy", "unknown"],
};

export interface Field {
  readonly number: number;
  readonly name: string;
  /** `=` is left out of the name of an enumeration, which is in `enumeration`. */
  readonly type: string;
  readonly enumeration: readonly string[] | undefined;
  readonly repeated: boolean;
  /** Whether it is known to be set even if it has its default. */
  readonly optional: boolean;
}

const fields = new Map<string, readonly Field[]>();

/** The fields of a message, in the order of their numbers. */
export function fieldsOf(message: string): readonly Field[] {
  const known = fields.get(message);
  if (known) return known;
  const source = SOURCE[message];
  if (source === undefined) throw new Error(`there is no message ${message}`);
  const parsed = source === "" ? [] : source.split(", ").map(parseField);
  fields.set(message, parsed);
  return parsed;
}

function parseField(source: string): Field {
  const [number = "", name = "", given = ""] = source.split(" ");
  const type = given.replace(/[=*?]/g, "");
  return {
    number: Number(number),
    name,
    type,
    enumeration: given.startsWith("=") ? ENUMERATIONS[type] : undefined,
    repeated: given.endsWith("*"),
    optional: given.endsWith("?"),
  };
}
