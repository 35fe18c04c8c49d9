/** UUIDs from given time and randomness: version 7 names a send, version 4 an instance of the client. */

import { fromHex, toHex } from "./bytes.js";

/** A UUIDv7 of this moment. `random` holds 10 bytes. */
export function uuidV7(unixMs: number, random: Uint8Array): string {
  const bytes = new Uint8Array(16);
  let time = unixMs;
  for (let at = 5; at >= 0; at--) {
    bytes[at] = time % 256;
    time = Math.floor(time / 256);
  }
  bytes.set(random.subarray(0, 10), 6);
  return withVersion(bytes, 7);
}

/** A UUIDv4. `random` holds 16 bytes. */
export function uuidV4(random: Uint8Array): string {
  return withVersion(random.slice(0, 16), 4);
}

function withVersion(bytes: Uint8Array, version: number): string {
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | (version << 4);
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return formatUuid(bytes);
}

/** The 16 bytes of a UUID as text. */
export function formatUuid(bytes: Uint8Array): string {
  return toHex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** The 16 bytes of a UUID. Throws if the text is none. */
export function parseUuid(text: string): Uint8Array {
  if (!/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(text)) throw new Error(`${text} is no UUID`);
  return fromHex(text.replaceAll("-", ""));
}
