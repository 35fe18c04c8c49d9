/** The vectors of the protocol, which the Rust code is held to as well. */

import { readFileSync } from "node:fs";
import { toBase64Url } from "../src/bytes.js";

// biome-ignore lint/suspicious/noExplicitAny: each file has a shape of its own
export type Vector = any;

export function vectors(file: string): Vector[] {
  // Tests are run in the folder of the package.
  return JSON.parse(readFileSync(`../../protocol/vectors/${file}.json`, "utf8")).vectors;
}

export function unhex(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, "hex"));
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

export function base64(hexadecimal: string): string {
  return toBase64Url(unhex(hexadecimal));
}
