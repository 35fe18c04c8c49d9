/** How frames are written on a socket. */

import type { Request } from "./json.js";

/** Frames <-> messages of one socket. */
export interface Codec {
  encode(frame: Request): string | Uint8Array<ArrayBuffer>;
  /** The frames of a message, in their JSON form. Throws if the message is none of the sub-protocol. */
  decode(message: string | ArrayBuffer): unknown[];
}

/** A sub-protocol (SPEC section 14). */
export interface Wire {
  readonly subprotocol: string;
  /** A codec for a new socket. */
  open(): Codec;
}

/** `antiphon.json.v1`. */
export const json: Wire = {
  subprotocol: "antiphon.json.v1",
  open: () => ({
    encode: (frame) => JSON.stringify(frame),
    decode: (message) => {
      if (typeof message !== "string") throw new Error("a message of bytes on a JSON socket");
      const lines = message.split("\n").filter((line) => line !== "");
      return lines.map((line) => JSON.parse(line));
    },
  }),
};
