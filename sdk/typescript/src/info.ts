/** What a conversation is, and who is in it. */

import { UnreadableError } from "./core/error.js";
import { type Members, type NewMemberMembers, type Requests, readConversation } from "./json.js";

export type ConversationKind = "group" | "direct" | "channel";
export type JoinPolicy = "invite" | "open";
export type History = "full" | "joined";
export type Role = "member" | "admin" | "owner";

export interface Member {
  readonly user: string;
  readonly role: Role;
  /** Position of the event that made the user a member. */
  readonly joinedSeq: number;
}

export interface NewMember {
  readonly user: string;
  readonly role?: Role;
}

/** A conversation as the broker knows it. */
export interface ConversationInfo {
  readonly id: string;
  readonly kind: ConversationKind;
  readonly title: string;
  readonly joinPolicy: JoinPolicy;
  readonly members: readonly Member[];
  readonly head: number;
  readonly headMsgno: number;
  /** In the answer to a creation: it did not exist before. */
  readonly created: boolean;
  readonly deleted: boolean;
  /** How long events are kept, in seconds; 0 = for ever. */
  readonly retentionS: number;
  /** What members may read: everything, or from their own joining on. */
  readonly history: History;
}

export interface NewConversation {
  /** Made by the broker if absent. */
  readonly id?: string;
  readonly kind?: Exclude<ConversationKind, "direct">;
  readonly title?: string;
  /** Besides the creator. */
  readonly members?: readonly (string | NewMember)[];
  readonly joinPolicy?: JoinPolicy;
  readonly retentionS?: number;
  readonly history?: History;
  /** Services: the user who creates it. */
  readonly actAs?: string;
}

/** What is absent stays as it is. */
export interface ConversationUpdate {
  readonly title?: string;
  readonly joinPolicy?: JoinPolicy;
  readonly retentionS?: number;
  readonly history?: History;
}

export function creation(given: NewConversation): Requests["CONVERSATION_CREATE"] {
  const { id, kind, title, members = [], joinPolicy, retentionS, history, actAs } = given;
  return {
    ...(id && { conversation: id }),
    ...(kind && { kind }),
    ...(title && { title }),
    members: newMembers(members),
    ...(joinPolicy && { join_policy: joinPolicy }),
    ...(actAs && { act_as: actAs }),
    ...(retentionS && { retention_s: retentionS }),
    ...(history && { history }),
  };
}

export function newMembers(members: readonly (string | NewMember)[]): readonly NewMemberMembers[] {
  return members.map((member) => (typeof member === "string" ? { user: member } : member));
}

export function changes({ title, joinPolicy, retentionS, history }: ConversationUpdate) {
  return {
    ...(title !== undefined && { title }),
    ...(joinPolicy !== undefined && { join_policy: joinPolicy }),
    ...(retentionS !== undefined && { retention_s: retentionS }),
    ...(history !== undefined && { history }),
  };
}

export function readInfo(body: Members): ConversationInfo {
  const answer = readable(() => readConversation(body));
  return {
    id: answer.conversation,
    kind: oneOf(["group", "direct", "channel"], answer.kind),
    title: answer.title,
    joinPolicy: oneOf(["invite", "open"], answer.join_policy),
    members: answer.members.map(({ user, role, joined_seq }) => {
      return { user, role: oneOf(["member", "admin", "owner"], role), joinedSeq: joined_seq };
    }),
    head: answer.head,
    headMsgno: answer.head_msgno,
    created: answer.created,
    deleted: answer.deleted,
    retentionS: answer.retention_s,
    history: oneOf(["full", "joined"], answer.history),
  };
}

/** A value of an enumeration; one of a later version counts as the first, which is the most careful one. */
export function oneOf<const T extends string>(values: readonly [T, ...T[]], value: string | number): T {
  return values.find((known) => known === value) ?? values[0];
}

/** Reads an answer, and says so if it cannot be read. */
export function readable<T>(read: () => T): T {
  try {
    return read();
  } catch (fault) {
    throw new UnreadableError(`the broker's answer cannot be read: ${(fault as Error).message}`, { cause: fault });
  }
}
