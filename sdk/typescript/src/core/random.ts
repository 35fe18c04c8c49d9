/** All randomness of the core: a generator that a seed determines (sfc32), for ids and waits, not for secrets. */

export class Random {
  readonly #state: Uint32Array;

  /** `seed` holds at least 12 bytes, and differs at every start of a program. */
  constructor(seed: Uint8Array) {
    const view = new DataView(seed.buffer, seed.byteOffset, seed.byteLength);
    this.#state = Uint32Array.of(view.getUint32(0, true), view.getUint32(4, true), view.getUint32(8, true), 1);
    for (let round = 0; round < 16; round++) this.word();
  }

  /** 32 random bits. */
  word(): number {
    const [a = 0, b = 0, c = 0, counter = 0] = this.#state;
    const word = (a + b + counter) >>> 0;
    this.#state.set([b ^ (b >>> 9), c + (c << 3), ((c << 21) | (c >>> 11)) + word, counter + 1]);
    return word;
  }

  /** At least 0, below 1. */
  fraction(): number {
    return this.word() / 2 ** 32;
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.word() & 0xff);
  }
}
