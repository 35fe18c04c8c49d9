/** Server-sent events and refusals, from a gateway that says what a test has it say. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after, test } from "node:test";
import { serverSentEvents } from "../src/server/serverSentEvents.js";
import { AntiphonError, ConnectionLostError, HttpClient, RefusedError, UnreadableError } from "../src/server.js";
import { row } from "./harness.js";

type Answer = (response: ServerResponse, request: IncomingMessage) => void;

const servers: Server[] = [];
after(() => {
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
});

/** A gateway that gives these answers, one to each request, and the last one to all others. */
async function gateway(...answers: Answer[]): Promise<{ url: string; asked: IncomingMessage[] }> {
  const asked: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    answers[Math.min(asked.length, answers.length - 1)]?.(response, request);
    asked.push(request);
  });
  servers.push(server.listen(0, "127.0.0.1"));
  await once(server, "listening");
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

const says =
  (status: number, body: string): Answer =>
  (response) => {
    response.writeHead(status).end(body);
  };
const refuses = (status: number, number: number, code: string) => says(status, JSON.stringify({ number, code }));

function event(seq: number): string {
  return `id: 1-${seq}\ndata: ${JSON.stringify(row(seq))}\n\n`;
}

function end(number: number, code: string): string {
  return `event: end\ndata: ${JSON.stringify({ number, code })}\n\n`;
}

function followed(url: string, token: string | (() => string) = "a.b.c") {
  return new HttpClient({ url, token }).conversation("a").follow({ after: { epoch: 1, seq: 3 } });
}

test("events are the same wherever the stream is cut", async () => {
  const text = ": hello\nid: 1\nevent: e\ndata: ä\ndata:\ndata:  b\n\n\r\ndata: x\r\n\r\nid\rdata: y\r\rdata: cut off";
  const expected = [
    { event: "e", data: "ä\n\n b", id: "1" },
    { event: "message", data: "x", id: "1" },
    { event: "message", data: "y", id: "" },
  ];
  const bytes = new TextEncoder().encode(text);
  for (let size = 1; size <= bytes.length; size++) {
    async function* chunks() {
      for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
    }
    const read: unknown[] = [];
    for await (const one of serverSentEvents(chunks())) read.push(one);
    assert.deepEqual(read, expected, `chunks of ${size}`);
  }
});

test("a stream goes on after the last event, over ends that pass", async () => {
  const { url, asked } = await gateway(
    says(200, event(4) + event(5)),
    refuses(503, 1002, "not_active"),
    says(200, end(1002, "not_active")),
    says(200, `event: reset\ndata: {"reason":"history_gone","floor":9}\n\nevent: brand_new\ndata: 1\n\n${event(9)}`),
    says(200, end(4002, "removed")),
  );
  const seen: unknown[] = [];
  await assert.rejects(
    async () => {
      for await (const item of followed(url)) seen.push(item.type === "event" ? item.event.seq : item);
    },
    (error) => error instanceof RefusedError && error.code === "removed",
  );
  assert.deepEqual(seen, [4, 5, { type: "reset", reason: "historyGone", floor: 9 }, 9]);
  const positions = asked.map(({ headers }) => headers["last-event-id"]);
  assert.deepEqual(positions, ["1-3", "1-5", "1-5", "1-5", "1-9"]);
});

test("whoever leaves the loop lets go of the connection", async () => {
  let closed: Promise<unknown> | undefined;
  const { url } = await gateway((response) => {
    closed = once(response, "close");
    response.write(event(4));
  });
  for await (const item of followed(url)) {
    assert.equal(item.type, "event");
    break;
  }
  await closed;
});

test("another token is got where one is refused, and not for ever", async () => {
  let made = 0;
  const token = () => `token-${++made}`;
  const { url, asked } = await gateway(
    refuses(401, 2003, "token_revoked"),
    says(200, event(4) + end(2002, "token_expired")),
    says(200, event(5)),
    refuses(401, 2003, "token_revoked"),
  );
  const seen: number[] = [];
  const isRevoked = (error: unknown) => error instanceof RefusedError && error.code === "token_revoked";
  await assert.rejects(async () => {
    for await (const item of followed(url, token)) if (item.type === "event") seen.push(item.event.seq);
  }, isRevoked);
  assert.deepEqual(seen, [4, 5]);
  const tokens = asked.map(({ headers }) => headers.authorization);
  // The stream that ended by itself goes on with the token that it had.
  assert.deepEqual(
    tokens.slice(0, 5),
    ["token-1", "token-2", "token-3", "token-3", "token-4"].map((it) => `Bearer ${it}`),
  );
  assert.ok(tokens.length < 20);

  const single = await gateway(refuses(401, 2003, "token_revoked"));
  await assert.rejects(followed(single.url).next(), isRevoked);
  assert.equal(single.asked.length, 1);
});

test("a token is kept while it lives", async () => {
  const claims = (seconds: number) =>
    Buffer.from(JSON.stringify({ exp: Date.now() / 1_000 + seconds })).toString("base64url");
  const lives = [5, 3_600];
  const { url, asked } = await gateway(says(200, "{}"));
  const http = new HttpClient({ url, token: async () => `h.${claims(lives.shift() ?? 0)}.s` });
  for (let n = 0; n < 4; n++) await http.presence("ann");
  assert.equal(new Set(asked.map(({ headers }) => headers.authorization)).size, 2);
  assert.deepEqual(lives, []);
});

test("a token that cannot be got fails what asked for it, and is asked for again", async () => {
  const { url } = await gateway(says(200, '{"user":"ann"}'));
  let isDown = true;
  const http = new HttpClient({
    url,
    token: async () => {
      if (isDown) throw new Error("down");
      return "a.b.c";
    },
  });
  await assert.rejects(http.presence("ann"), /down/);
  isDown = false;
  assert.equal((await http.presence("ann")).user, "ann");
});

test("what is no answer of a gateway is told by what it means", async () => {
  const cases: [Answer, new (...args: never[]) => AntiphonError][] = [
    [says(502, "<html>"), ConnectionLostError],
    [says(408, "late"), ConnectionLostError],
    [(response) => response.destroy(), ConnectionLostError],
    [
      (response) => response.writeHead(200, { "content-length": 10 }).write("{", () => response.destroy()),
      ConnectionLostError,
    ],
    [says(404, "<html>"), UnreadableError],
    [says(200, "<html>"), UnreadableError],
    [says(200, '{"user":7}'), UnreadableError],
    [refuses(429, 1006, "rate_limited"), RefusedError],
  ];
  for (const [answer, expected] of cases) {
    const { url } = await gateway(answer);
    await assert.rejects(new HttpClient({ url, token: "a.b.c" }).presence("ann"), (error) => {
      assert.ok(error instanceof AntiphonError && error instanceof expected, `${error}`);
      return true;
    });
  }
  const { url } = await gateway(() => {});
  await assert.rejects(new HttpClient({ url, token: "a.b.c", timeoutMs: 20 }).presence("ann"), ConnectionLostError);
});
