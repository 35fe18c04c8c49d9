/** Protobuf bodies <-> the members of their JSON form, driven by the table of messages. Writes the canonical form. */

import { fromBase64Url, fromUtf8, toBase64Url, utf8 } from "../bytes.js";
import { type ContentMembers, Fault, type Members, parsePosition } from "../json.js";
import { formatUuid, parseUuid } from "../uuid.js";
import { contentBytes, contentMembers } from "./content.js";
import { type Field, fieldsOf } from "./messages.js";
import { readRow, writeRow } from "./row.js";

const VARINT = 0;
const BYTES = 2;

// ---- reading ----

/** The members of a body, without those that have their default. Fields that are not known are left aside. */
export function readMessage(message: string, bytes: Uint8Array): Members {
  const cursor = new Cursor(bytes);
  const members: Record<string, unknown> = {};
  const content: Content = { type: 0, envelope: new Uint8Array(), body: new Uint8Array() };
  const fields = fieldsOf(message);
  while (!cursor.isAtEnd) {
    const tag = cursor.varint();
    const [number, wire] = [Math.floor(tag / 8), tag % 8];
    const field = fields.find((known) => known.number === number);
    if (!field) cursor.skip(wire);
    else readField(cursor, field, wire, members, content);
  }
  if (fields.some(({ type }) => type === "body")) {
    Object.assign(members, contentMembers(content.type, content.envelope, content.body));
  }
  return members;
}

interface Content {
  type: number;
  envelope: Uint8Array;
  body: Uint8Array;
}

function readField(cursor: Cursor, field: Field, wire: number, members: Record<string, unknown>, content: Content) {
  const { name, type } = field;
  if (isNumber(field)) {
    const packed = wire === BYTES && field.repeated ? new Cursor(cursor.bytes()) : undefined;
    if (!packed && wire !== VARINT) throw new Fault(`${name} is of another wire type`);
    // An enumeration is a signed number; one below 0 is none of this version.
    if (field.enumeration && !packed) return put(members, field, readNumber(field, cursor.signed()));
    const values = packed ? packed.varints() : [cursor.varint()];
    if (type === "type") content.type = values.at(-1) ?? 0;
    else for (const value of values) put(members, field, readNumber(field, value));
    return;
  }
  if (wire !== BYTES) throw new Fault(`${name} is of another wire type`);
  const bytes = cursor.bytes();
  if (type === "envelope" || type === "body") content[type] = bytes;
  else put(members, field, readBytes(field, bytes));
}

function put(members: Record<string, unknown>, field: Field, value: unknown): void {
  const { name } = field;
  if (field.repeated) members[name] = [...((members[name] as unknown[] | undefined) ?? []), value];
  else if (field.optional || !isDefault(field, value)) members[name] = value;
}

function isNumber({ type, enumeration }: Field): boolean {
  return enumeration !== undefined || type === "uint" || type === "bool" || type === "type";
}

function readNumber({ type, enumeration }: Field, value: number): unknown {
  if (enumeration) return enumeration[value] ?? value;
  return type === "bool" ? value !== 0 : value;
}

function readBytes({ type, name }: Field, bytes: Uint8Array): unknown {
  switch (type) {
    case "string":
      return fromUtf8(bytes);
    case "bytes":
      return toBase64Url(bytes);
    case "uuid":
      if (bytes.length !== 16 && bytes.length !== 0) throw new Fault(`${name} is no UUID`);
      return bytes.length === 0 ? "" : formatUuid(bytes);
    case "row":
      return readRow(bytes);
    case "Position": {
      const { epoch = 0, seq = 0 } = readMessage(type, bytes);
      return `${epoch}-${seq}`;
    }
    default:
      return readMessage(type, bytes);
  }
}

/** Varints and bytes, one after the other. */
class Cursor {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  varint(): number {
    const value = this.#varint();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new Fault("a number is 2^53 or more");
    return Number(value);
  }

  /** An int32, which is written in 64 bits. */
  signed(): number {
    return Number(BigInt.asIntN(32, this.#varint()));
  }

  #varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#bytes[this.#at];
      if (byte === undefined) throw new Fault("a varint is cut off");
      this.#at += 1;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new Fault("a varint is too long");
  }

  varints(): number[] {
    const values: number[] = [];
    while (!this.isAtEnd) values.push(this.varint());
    return values;
  }

  bytes(): Uint8Array {
    return this.#take(this.varint());
  }

  /** Passes over a field of this wire type. */
  skip(wire: number): void {
    if (wire === VARINT) this.#skipVarint();
    else if (wire === 1) this.#take(8);
    else if (wire === BYTES) this.bytes();
    else if (wire === 5) this.#take(4);
    else throw new Fault(`there is no wire type ${wire}`);
  }

  /** A number of a later version may be of any size. */
  #skipVarint(): void {
    while ((this.#take(1)[0] ?? 0) >= 0x80);
  }

  #take(length: number): Uint8Array {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new Fault("a field is cut off");
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }
}

// ---- writing ----

/** The canonical bytes of a body: fields in order, defaults left out, repeated numbers packed. */
export function writeMessage(message: string, members: Members): Uint8Array {
  const out: number[] = [];
  const fields = fieldsOf(message);
  const hasContent = fields.some(({ type }) => type === "body");
  // Only an edit has an envelope with a relation, whose kind is part of it.
  const content = hasContent ? contentBytes(members as ContentMembers, "message.edit") : undefined;
  for (const field of fields) {
    const value = content ? contentValue(field, content, members) : members[field.name];
    if (field.repeated) writeRepeated(out, field, (value as readonly unknown[] | undefined) ?? []);
    else if (value !== undefined && (field.optional || !isDefault(field, value))) writeField(out, field, value);
  }
  return Uint8Array.from(out);
}

function contentValue({ type, name }: Field, content: Content, members: Members): unknown {
  if (type === "type") return content.type || undefined;
  if (type === "envelope" || type === "body") return content[type].length > 0 ? content[type] : undefined;
  return members[name];
}

function writeRepeated(out: number[], field: Field, values: readonly unknown[]): void {
  if (values.length === 0) return;
  if (isNumber(field)) {
    const packed: number[] = [];
    for (const value of values) varint(packed, writeNumber(field, value));
    bytes(out, field, packed);
  } else {
    for (const value of values) writeField(out, field, value);
  }
}

function writeField(out: number[], field: Field, value: unknown): void {
  if (isNumber(field)) {
    varint(out, field.number * 8 + VARINT);
    varint(out, writeNumber(field, value));
  } else {
    bytes(out, field, toBytes(field, value));
  }
}

function writeNumber({ name, enumeration }: Field, value: unknown): number {
  if (!enumeration || typeof value !== "string") return Number(value);
  const number = enumeration.indexOf(value);
  if (number < 0) throw new Error(`${name} cannot be ${value}`);
  return number;
}

function toBytes({ type }: Field, value: unknown): Uint8Array {
  switch (type) {
    case "string":
      return utf8(String(value));
    case "bytes":
      return fromBase64Url(String(value));
    case "uuid":
      return parseUuid(String(value));
    case "envelope":
    case "body":
      return value as Uint8Array;
    case "row":
      return writeRow(value as Members);
    case "Position":
      return writeMessage(type, { ...parsePosition(String(value)) });
    default:
      return writeMessage(type, value as Members);
  }
}

/** A message that is there is no default, even if it is empty. */
function isDefault(field: Field, value: unknown): boolean {
  return value === 0 || value === "" || value === false || value === field.enumeration?.[0];
}

function bytes(out: number[], { number }: Field, content: ArrayLike<number>): void {
  varint(out, number * 8 + BYTES);
  varint(out, content.length);
  // Bodies have up to 64 KiB: no spread, which would exhaust the stack.
  for (let at = 0; at < content.length; at++) out.push(content[at] ?? 0);
}

function varint(out: number[], value: number): void {
  if (value < 0) {
    signed(out, value);
    return;
  }
  let rest = value;
  while (rest >= 0x80) {
    out.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  out.push(rest);
}

/** A number below 0, in 64 bits. */
function signed(out: number[], value: number): void {
  let rest = BigInt.asUintN(64, BigInt(value));
  while (rest >= 0x80n) {
    out.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  out.push(Number(rest));
}
