/** Client of the Antiphon message broker. */

export { Client, type ClientEvents, type ConnectOptions, connect } from "./client.js";
export {
  Conversation,
  type ConversationEvents,
  type ConversationOptions,
  type Snapshot,
} from "./conversation.js";
export {
  type Action,
  AntiphonError,
  ConnectionLostError,
  DetachedError,
  type DetachReason,
  LimitError,
  NotConnectedError,
  RefusedError,
  StoppedError,
  type StopReason,
  TooSlowError,
  UnreadableError,
} from "./core/error.js";
export type { Attachment, Attributes, Content, Event, EventRef, Notice, Relation } from "./core/event.js";
export type { From } from "./core/input.js";
export type { Edit, LastMessage, Mark, MessageState, MessageView, Reaction, ReplyPreview } from "./core/message.js";
export type { NewAttributes, NewContent, NewMessage } from "./core/newMessage.js";
export type {
  Attached,
  ConnectionState,
  Cursor,
  Digest,
  Item,
  Page,
  Receipt,
  ResetReason,
  Session,
  Signal,
} from "./core/output.js";
export type { Presence, PresenceStatus } from "./core/presence.js";
export type { Inbox, InboxEntry, InboxEvents } from "./inbox.js";
export type {
  ConversationInfo,
  ConversationKind,
  ConversationUpdate,
  History,
  JoinPolicy,
  Member,
  NewConversation,
  NewMember,
  Role,
} from "./info.js";
export type { Position } from "./json.js";
export { indexedDbStorage } from "./storage/indexeddb.js";
export { memoryStorage } from "./storage/memory.js";
export type { QueueStorage, Unsent } from "./storage/storage.js";
export type { Message, MessageStatus } from "./timeline.js";
export type { Codec, Wire } from "./wire.js";
