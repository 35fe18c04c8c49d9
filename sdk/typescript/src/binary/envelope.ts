/** The envelope (`fbs/envelope.fbs`): bytes <-> the members of its JSON form. */

import type { AttachmentMembers, ContentMembers, EventRefMembers, RelationMembers } from "../json.js";
import { formatUuid, parseUuid } from "../uuid.js";
import { Builder, type Field, type Offset, Table } from "./flatbuffers.js";

export type EnvelopeMembers = Omit<ContentMembers, "text" | "data" | "body_b64" | "content_type">;

/** Numbers of the relations: those of the kinds of event. */
const RELATIONS: { readonly [kind: string]: number } = {
  "message.edit": 2,
  "message.redact": 3,
  reaction: 4,
  pin: 5,
};

/** The members that are set; none for bytes that are no envelope, as readers are lenient. */
export function readEnvelope(bytes: Uint8Array): EnvelopeMembers {
  if (bytes.length === 0) return {};
  try {
    return readRoot(Table.root(bytes));
  } catch (error) {
    if (error instanceof RangeError) return {};
    throw error;
  }
}

function readRoot(root: Table): EnvelopeMembers {
  const [relation, replyTo, thread] = [root.table(0), root.table(1), root.table(2)];
  const [mentions, silent, expiresAtMs] = [root.strings(3), root.uint8(6) !== 0, root.uint64(7)];
  const attachments = root.tables(4).map(readAttachment);
  const properties = root.tables(5).map((table) => [table.string(0) ?? "", table.string(1) ?? ""] as const);
  return {
    ...(relation && { relates_to: readRelation(relation) }),
    ...(replyTo && { reply_to: readRef(replyTo, 0) }),
    ...(thread && { thread: readRef(thread, 0) }),
    ...(mentions.length > 0 && { mentions }),
    ...(attachments.length > 0 && { attachments }),
    ...(properties.length > 0 && { properties: Object.fromEntries(properties) }),
    ...(silent && { silent }),
    ...(expiresAtMs > 0 && { expires_at_ms: expiresAtMs }),
  };
}

/** `first` is the field of the id; the position follows it. */
function readRef(table: Table, first: number): EventRefMembers {
  const id = table.struct(first, 16) ?? new Uint8Array(16);
  return { seq: table.uint64(first + 1), event_id: formatUuid(id) };
}

function readRelation(table: Table): RelationMembers {
  const [key, remove] = [table.string(3), table.uint8(4) !== 0];
  return { ...readRef(table, 1), ...(key !== undefined && { key }), ...(remove && { remove }) };
}

function readAttachment(table: Table): AttachmentMembers {
  const all = {
    url: table.string(0) ?? "",
    name: table.string(1),
    mime: table.string(2),
    size: table.uint64(3) || undefined,
    width: table.uint32(4) || undefined,
    height: table.uint32(5) || undefined,
    duration_ms: table.uint64(6) || undefined,
    thumbnail_url: table.string(7),
  };
  const set = Object.entries(all).filter(([, value]) => value !== undefined);
  return { url: all.url, ...Object.fromEntries(set) };
}

/** The bytes of the members that are set; none where there are none. The same members always give the same bytes. */
export function writeEnvelope(members: EnvelopeMembers, kind: string | number): Uint8Array {
  const { relates_to, reply_to, thread, mentions = [], attachments = [], silent = false, expires_at_ms = 0 } = members;
  const properties = Object.entries(members.properties ?? {});
  const builder = new Builder();
  const list = (items: readonly Offset[]) => (items.length > 0 ? builder.vector(items) : undefined);
  const parts = {
    relation: relates_to && writeRelation(builder, relates_to, RELATIONS[kind] ?? 0),
    replyTo: reply_to && writeRef(builder, reply_to),
    thread: thread && writeRef(builder, thread),
    mentions: list(mentions.map((user) => builder.string(user))),
    attachments: list(attachments.map((file) => writeAttachment(builder, file))),
    properties: list(properties.map(([key, value]) => writeProperty(builder, key, value))),
  };
  const isEmpty = Object.values(parts).every((part) => part === undefined) && !silent && expires_at_ms === 0;
  if (isEmpty) return new Uint8Array();
  const root = builder.table([
    [7, 8, expires_at_ms],
    at(5, parts.properties),
    at(4, parts.attachments),
    at(3, parts.mentions),
    at(2, parts.thread),
    at(1, parts.replyTo),
    at(0, parts.relation),
    [6, 1, Number(silent)],
  ]);
  return builder.finish(root);
}

function at(id: number, part: Offset | undefined): Field | undefined {
  return part && [id, part];
}

function writeRef(builder: Builder, { seq, event_id }: EventRefMembers): Offset {
  return builder.table([
    [1, 8, seq],
    [0, parseUuid(event_id)],
  ]);
}

function writeRelation(builder: Builder, relation: RelationMembers, rel: number): Offset {
  const { seq, event_id, key, remove = false } = relation;
  const written = key === undefined ? undefined : builder.string(key);
  return builder.table([[2, 8, seq], at(3, written), [1, parseUuid(event_id)], [4, 1, Number(remove)], [0, 1, rel]]);
}

function writeAttachment(builder: Builder, file: AttachmentMembers): Offset {
  const text = (value: string | undefined) => (value === undefined ? undefined : builder.string(value));
  const [url, name, mime, thumbnail] = [file.url, file.name, file.mime, file.thumbnail_url].map(text);
  return builder.table([
    [6, 8, file.duration_ms ?? 0],
    [3, 8, file.size ?? 0],
    at(7, thumbnail),
    [5, 4, file.height ?? 0],
    [4, 4, file.width ?? 0],
    at(2, mime),
    at(1, name),
    at(0, url),
  ]);
}

function writeProperty(builder: Builder, key: string, value: string): Offset {
  const [name, content] = [builder.string(key), builder.string(value)];
  return builder.table([at(1, content), at(0, name)]);
}
