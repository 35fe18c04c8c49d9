/** The fold against its vectors, through both forms of a page. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { readEnvelope } from "../src/binary/envelope.js";
import { readMessage } from "../src/binary/protobuf.js";
import { readRow } from "../src/binary/row.js";
import { readEvent } from "../src/core/event.js";
import { foldPage, foldView } from "../src/core/fold.js";
import { type MessageView, readView } from "../src/core/message.js";
import { readMessageView, readRow as readRowMembers } from "../src/json.js";
import { base64, unhex, type Vector, vectors } from "./vectors.js";

function eventOf(hex: string) {
  return readEvent(1, readRowMembers(readRow(unhex(hex))));
}

/** A MessageView as the vectors write it, as the client holds it. */
function expectedView({ row, state, reply }: Vector): MessageView {
  const content = ({ content_type = 0, body = "" }: Vector) => {
    if (content_type === 0) return body === "" ? {} : { text: Buffer.from(body, "hex").toString() };
    if (content_type === 1) return { data: JSON.parse(Buffer.from(body, "hex").toString()) };
    assert.equal(content_type, 2);
    return { body_b64: base64(body) };
  };
  const edit = state?.edit && {
    seq: state.edit.seq,
    time_ms: state.edit.time_ms,
    ...content(state.edit),
    ...readEnvelope(unhex(state.edit.envelope ?? "")),
  };
  const id = (hex: string) => hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  return readView(
    1,
    readMessageView({
      row: readRow(unhex(row)),
      ...(state && { state: { ...state, ...(edit && { edit }) } }),
      ...(reply && {
        reply: {
          seq: reply.seq,
          event_id: id(reply.event_id),
          sender: reply.sender,
          ...content(reply),
          cut: reply.cut ?? false,
          redacted: reply.redacted ?? false,
          through: reply.through ?? 0,
        },
      }),
    }),
  );
}

for (const { name, reader, page, events, messages } of vectors("fold")) {
  test(`fold: ${name}`, () => {
    const begun: readonly MessageView[] = page
      ? // biome-ignore lint/suspicious/noExplicitAny: the JSON form as it came from the codec
        (readMessage("MessagesPage", unhex(page)).messages as any[]).map((view) => readView(1, readMessageView(view)))
      : [];
    const folded = (events as string[]).map(eventOf).reduce((views, event) => foldPage(views, event, reader), begun);
    assert.deepEqual(withoutHash(folded), withoutHash(messages.map(expectedView)));
  });

  test(`fold again changes nothing: ${name}`, () => {
    const all = (events as string[]).map(eventOf);
    const folded = all.reduce((views, event) => foldPage(views, event, reader), [] as readonly MessageView[]);
    for (const view of folded) {
      for (const event of all) assert.equal(foldView(view, event, reader), view);
    }
  });
}

/** `undefined` and absent are the same to a reader. */
function withoutHash(views: readonly MessageView[]): unknown {
  return JSON.parse(JSON.stringify(views, (_, value) => (value instanceof Uint8Array ? Buffer.from(value) : value)));
}
