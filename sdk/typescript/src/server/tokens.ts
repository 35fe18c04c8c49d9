/** The token that requests are made with: kept while it lives, got anew when it ends or is refused. */

/** A token that ends sooner is not used any more: the request has to arrive, and clocks differ. */
const MARGIN_MS = 10_000;

export class Tokens {
  readonly #given: string | (() => string | Promise<string>);
  #current: Promise<string> | undefined;
  /** What `#current` became. */
  #known: string | undefined;

  constructor(given: string | (() => string | Promise<string>)) {
    this.#given = given;
  }

  /** Whether there may be another one. */
  get canRenew(): boolean {
    return typeof this.#given === "function";
  }

  async get(): Promise<string> {
    if (this.#known !== undefined && this.canRenew && isEnding(this.#known)) this.drop(this.#known);
    this.#current ??= this.#next();
    return this.#current;
  }

  /** The token is of no use any more, if it still is the one that is used. */
  drop(token: string): void {
    if (this.#known !== token) return;
    this.#known = undefined;
    this.#current = undefined;
  }

  #next(): Promise<string> {
    const given = this.#given;
    const next = (async () => (typeof given === "string" ? given : given()))();
    next.then(
      (token) => {
        this.#known = token;
      },
      () => {
        // Who waits is told; whoever comes later asks again.
        this.#current = undefined;
      },
    );
    return next;
  }
}

/** By the token's own word, which only the broker verifies. */
function isEnding(token: string): boolean {
  try {
    const { exp } = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
    return typeof exp === "number" && exp * 1_000 < Date.now() + MARGIN_MS;
  } catch {
    return false;
  }
}
