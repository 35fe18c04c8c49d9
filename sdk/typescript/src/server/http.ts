/** Requests of the HTTP API (SPEC section 16): the token, the answer, and what can go wrong. */

import { ConnectionLostError, RefusedError, UnreadableError } from "../core/error.js";
import { readable } from "../info.js";
import { type AnswerOf, type Members, readFrame } from "../json.js";
import { Tokens } from "./tokens.js";

const TIMEOUT_MS = 60_000;

export interface HttpOptions {
  /** Of the gateway, such as `https://chat.example.com`; the path of the API is added if there is none. */
  readonly url: string;
  /** A token, or where to get one: called when there is none, shortly before it ends, and when it was refused. */
  readonly token: string | (() => string | Promise<string>);
  /** How long a request may take; a minute if absent. */
  readonly timeoutMs?: number;
}

export interface HttpRequest {
  readonly method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Below the API's path: parts that are escaped here. */
  readonly path: readonly string[];
  readonly query?: { readonly [name: string]: string | number | boolean | undefined };
  readonly body?: object;
  readonly headers?: { readonly [name: string]: string };
}

/** A response that is not a refusal, and the token that it was got with. */
export interface Accepted {
  readonly response: Response;
  readonly token: string;
}

export class Http {
  readonly tokens: Tokens;
  readonly #base: string;
  readonly #timeoutMs: number;

  constructor(options: HttpOptions) {
    const url = new URL(options.url);
    if (url.protocol !== "http:" && url.protocol !== "https:") {
      throw new TypeError(`${options.url} is no address of a gateway`);
    }
    if (url.pathname === "/") url.pathname = "/api/v1";
    this.#base = url.href.replace(/\/$/, "");
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.tokens = new Tokens(options.token);
  }

  /** The members of the answer; none if it has none. */
  async request(request: HttpRequest): Promise<Members> {
    const { response } = await this.open(request, AbortSignal.timeout(this.#timeoutMs));
    const text = await response.text().catch(lost);
    if (text === "") return {};
    return readable(() => JSON.parse(text));
  }

  /** The response, before its body is read. Throws a refusal. */
  async open(request: HttpRequest, signal: AbortSignal): Promise<Accepted> {
    for (let attempt = 1; ; attempt += 1) {
      const token = await this.tokens.get();
      const response = await this.#send(request, token, signal);
      if (response.ok) return { response, token };
      const error = await readRefusal(response);
      if (!isOfToken(error) || !this.tokens.canRenew) throw error;
      // A token may be void before its end.
      this.tokens.drop(token);
      if (attempt > 1) throw error;
    }
  }

  #send({ method = "GET", body, headers, ...where }: HttpRequest, token: string, signal: AbortSignal) {
    const json = body && { "content-type": "application/json" };
    return fetch(this.url(where), {
      method,
      headers: { authorization: `Bearer ${token}`, ...json, ...headers },
      signal,
      ...(body && { body: JSON.stringify(body) }),
    }).catch(lost);
  }

  url({ path, query = {} }: Pick<HttpRequest, "path" | "query">): string {
    const url = new URL(`${this.#base}/${path.map(encodeURIComponent).join("/")}`);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    return url.href;
  }
}

export function isOfToken(error: unknown): error is RefusedError {
  return error instanceof RefusedError && error.action === "authenticate";
}

function lost(cause: unknown): never {
  throw new ConnectionLostError({ cause });
}

async function readRefusal(response: Response): Promise<RefusedError | ConnectionLostError | UnreadableError> {
  const text = await response.text().catch(lost);
  try {
    const refusal = readAs("ERROR", JSON.parse(text));
    if (refusal.number > 0) return new RefusedError(refusal);
  } catch {
    // Somebody on the way, who speaks another language.
  }
  const cause = new Error(`${response.status} ${response.statusText}: ${text.slice(0, 200)}`);
  const isLost = response.status >= 500 || response.status === 408;
  return isLost
    ? new ConnectionLostError({ cause })
    : new UnreadableError("the answer is none of a gateway", { cause });
}

/** The members of an answer as those of the frame that they are. */
export function readAs<Op extends "ACK" | "ERROR" | "PAGE" | "MESSAGES_PAGE" | "PRESENCE">(
  op: Op,
  body: Members,
): AnswerOf<Op> {
  return readable(() => readFrame({ ...body, op })) as AnswerOf<Op>;
}
