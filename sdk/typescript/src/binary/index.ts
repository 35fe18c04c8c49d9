/** `antiphon.bin.v1`: the sub-protocol of binary frames, for those who count bytes. */

import type { Members } from "../json.js";
import type { Wire } from "../wire.js";
import { decodeFrames, encodeFrame } from "./frame.js";

export const binary: Wire = {
  subprotocol: "antiphon.bin.v1",
  open: () => {
    /** Requests without an answer, which says what the body of an OK is. */
    const asked = new Map<number, string>();
    return {
      encode: (frame) => {
        if (frame.id !== undefined) asked.set(frame.id, frame.op);
        return encodeFrame(frame as unknown as Members);
      },
      decode: (message) => {
        if (typeof message === "string") throw new Error("a message of text on a binary socket");
        const frames = decodeFrames(new Uint8Array(message), (id) => asked.get(id));
        for (const { id } of frames) asked.delete(Number(id ?? 0));
        return frames;
      },
    };
  },
};
