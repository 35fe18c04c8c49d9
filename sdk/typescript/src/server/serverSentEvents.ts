/** The format of server-sent events, as HTML defines it. */

export interface ServerSentEvent {
  /** `message` if the event does not say. */
  readonly event: string;
  readonly data: string;
  /** The last id that was said. */
  readonly id: string;
}

/** A line's end. A carriage return at the end of what has come may be half of one. */
const LINE_END = /\r\n|\n|\r(?!$)/g;

/** Events of a stream of bytes, which may be cut anywhere; an event that is not complete is none. */
export async function* serverSentEvents(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<ServerSentEvent> {
  let event = "";
  let data: string[] = [];
  let id = "";
  for await (const line of lines(chunks)) {
    if (line === "") {
      if (data.length > 0) yield { event: event || "message", data: data.join("\n"), id };
      event = "";
      data = [];
      continue;
    }
    const [, name, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (name === "event") event = value;
    else if (name === "data") data.push(value);
    else if (name === "id") id = value;
  }
}

async function* lines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of chunks) {
    rest += decoder.decode(chunk, { stream: true });
    let begin = 0;
    for (const end of rest.matchAll(LINE_END)) {
      yield rest.slice(begin, end.index);
      begin = end.index + end[0].length;
    }
    rest = rest.slice(begin);
  }
}
