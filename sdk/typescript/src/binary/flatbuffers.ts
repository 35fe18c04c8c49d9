/**
 * A reader and a builder of FlatBuffers, as far as envelopes need them.
 *
 * The builder works from the end to the beginning and writes each layout of a table once, like the library that brokers
 * use, so that an envelope has the same bytes whoever lays it out.
 */

import { fromUtf8, utf8 } from "../bytes.js";

/** A table in a buffer. Reading beyond the buffer throws a RangeError. */
export class Table {
  readonly #view: DataView;
  readonly #at: number;

  private constructor(view: DataView, at: number) {
    this.#view = view;
    this.#at = at;
  }

  static root(bytes: Uint8Array): Table {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return new Table(view, view.getUint32(0, true));
  }

  /** Where a field lies; undefined if it is absent. */
  #field(id: number): number | undefined {
    const vtable = this.#at - this.#view.getInt32(this.#at, true);
    const slot = 4 + id * 2;
    if (slot >= this.#view.getUint16(vtable, true)) return undefined;
    const offset = this.#view.getUint16(vtable + slot, true);
    return offset === 0 ? undefined : this.#at + offset;
  }

  uint8(id: number): number {
    const at = this.#field(id);
    return at === undefined ? 0 : this.#view.getUint8(at);
  }

  uint32(id: number): number {
    const at = this.#field(id);
    return at === undefined ? 0 : this.#view.getUint32(at, true);
  }

  uint64(id: number): number {
    const at = this.#field(id);
    return at === undefined ? 0 : Number(this.#view.getBigUint64(at, true));
  }

  /** A struct of so many bytes. */
  struct(id: number, length: number): Uint8Array | undefined {
    const at = this.#field(id);
    return at === undefined ? undefined : bytesAt(this.#view, at, length);
  }

  string(id: number): string | undefined {
    const at = this.#field(id);
    return at === undefined ? undefined : stringAt(this.#view, follow(this.#view, at));
  }

  table(id: number): Table | undefined {
    const at = this.#field(id);
    return at === undefined ? undefined : new Table(this.#view, follow(this.#view, at));
  }

  strings(id: number): string[] {
    return this.#vector(id).map((at) => stringAt(this.#view, follow(this.#view, at)));
  }

  tables(id: number): Table[] {
    return this.#vector(id).map((at) => new Table(this.#view, follow(this.#view, at)));
  }

  #vector(id: number): number[] {
    const at = this.#field(id);
    if (at === undefined) return [];
    const vector = follow(this.#view, at);
    const length = this.#view.getUint32(vector, true);
    if (length * 4 > this.#view.byteLength) throw new RangeError("a vector is longer than its buffer");
    return Array.from({ length }, (_, index) => vector + 4 + index * 4);
  }
}

function follow(view: DataView, at: number): number {
  return at + view.getUint32(at, true);
}

function stringAt(view: DataView, at: number): string {
  return fromUtf8(bytesAt(view, at + 4, view.getUint32(at, true)));
}

function bytesAt(view: DataView, at: number, length: number): Uint8Array {
  if (at + length > view.byteLength) throw new RangeError("beyond the buffer");
  return new Uint8Array(view.buffer, view.byteOffset + at, length);
}

/** What a field of a table holds: a number of so many bytes, an offset of something that was written, or a struct. */
export type Field = readonly [id: number, size: 1 | 4 | 8, value: number] | readonly [id: number, Offset | Uint8Array];

/** Something written, counted from the end of the buffer. */
export interface Offset {
  readonly fromEnd: number;
}

export class Builder {
  /** Pieces in reverse: the last one comes first in the buffer. */
  #bytes: Uint8Array = new Uint8Array(256);
  #used = 0;
  #alignment = 1;
  /** The layouts that were written, and where. */
  readonly #vtables = new Map<string, number>();

  string(text: string): Offset {
    const bytes = utf8(text);
    this.#align(bytes.length + 1, 4);
    this.#push(Uint8Array.of(0));
    this.#push(bytes);
    this.#number(bytes.length, 4);
    return { fromEnd: this.#used };
  }

  vector(items: readonly Offset[]): Offset {
    this.#align(items.length * 4, 4);
    for (const item of [...items].reverse()) this.#offset(item);
    this.#number(items.length, 4);
    return { fromEnd: this.#used };
  }

  /** A table with these fields, written in this order; numbers that are 0 are left out. */
  table(fields: readonly (Field | undefined)[]): Offset {
    const tail = this.#used;
    const written: [id: number, fromEnd: number][] = [];
    for (const field of fields) {
      if (!field) continue;
      if (field.length === 3) {
        if (field[2] === 0) continue;
        this.#number(field[2], field[1]);
      } else if (field[1] instanceof Uint8Array) {
        this.#push(field[1]);
      } else {
        this.#offset(field[1]);
      }
      written.push([field[0], this.#used]);
    }
    this.#number(0, 4);
    const table = this.#used;
    this.#setSigned(table, this.#vtable(written, tail, table) - table);
    return { fromEnd: table };
  }

  /** Writes the layout of a table, or finds an equal one that was written. Returns where it lies. */
  #vtable(written: readonly (readonly [id: number, fromEnd: number])[], tail: number, table: number): number {
    const slots = Math.max(...written.map(([id]) => id + 1), 0);
    const layout = new DataView(new ArrayBuffer(4 + slots * 2));
    layout.setUint16(0, layout.byteLength, true);
    layout.setUint16(2, table - tail, true);
    for (const [id, fromEnd] of written) layout.setUint16(4 + id * 2, table - fromEnd, true);
    const bytes = new Uint8Array(layout.buffer);
    const key = bytes.join();
    const known = this.#vtables.get(key);
    if (known !== undefined) return known;
    this.#push(bytes);
    this.#vtables.set(key, this.#used);
    return this.#used;
  }

  finish(root: Offset): Uint8Array {
    this.#align(4, this.#alignment);
    this.#offset(root);
    return this.#bytes.slice(this.#bytes.length - this.#used);
  }

  #offset({ fromEnd }: Offset): void {
    this.#align(4, 4);
    this.#number(this.#used + 4 - fromEnd, 4);
  }

  #number(value: number, size: 1 | 4 | 8): void {
    this.#align(size, size);
    const view = new DataView(new ArrayBuffer(8));
    view.setBigUint64(0, BigInt(value), true);
    this.#push(new Uint8Array(view.buffer, 0, size));
  }

  /** Fills up, so that what is `length` long begins at a multiple of `alignment`, counted from the end. */
  #align(length: number, alignment: number): void {
    this.#alignment = Math.max(this.#alignment, alignment);
    this.#push(new Uint8Array(-(this.#used + length) & (alignment - 1)));
  }

  #push(bytes: Uint8Array): void {
    while (this.#used + bytes.length > this.#bytes.length) {
      const grown = new Uint8Array(this.#bytes.length * 2);
      grown.set(this.#bytes, this.#bytes.length);
      this.#bytes = grown;
    }
    this.#used += bytes.length;
    this.#bytes.set(bytes, this.#bytes.length - this.#used);
  }

  #setSigned(fromEnd: number, value: number): void {
    new DataView(this.#bytes.buffer).setInt32(this.#bytes.length - fromEnd, value, true);
  }
}
