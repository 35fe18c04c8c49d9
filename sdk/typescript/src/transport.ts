/**
 * The shell around the core: a WebSocket, timers, the token provider.
 *
 * Everything that happens goes through `input`; what the core asks for is done here, and what it tells the application
 * goes to `tell`. Deliberately absent: any decision about the session.
 */

import { Core } from "./core/client.js";
import type { Config } from "./core/handshake.js";
import type { Command, Input } from "./core/input.js";
import type { Output } from "./core/output.js";
import { type Request, readFrame } from "./json.js";
import type { Codec, Wire } from "./wire.js";

/** What is needed of a WebSocket: that of browsers and of Node 22 has it, and so has the package `ws`. */
export interface Socket {
  binaryType: string;
  readonly bufferedAmount: number;
  // biome-ignore lint/suspicious/noExplicitAny: the handlers of browsers and of `ws` share no other type
  onopen: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  onmessage: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  onclose: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  onerror: ((event: any) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

export type SocketConstructor = new (url: string, protocols?: string[]) => Socket;

export interface TransportOptions {
  readonly url: string;
  readonly token: () => string | Promise<string>;
  readonly WebSocket: SocketConstructor;
  readonly wire: Wire;
  /** Hears every output that is not the shell's. A promise holds back what is written until it is settled. */
  readonly tell: (output: Output) => Promise<void> | undefined;
}

/** Bytes that wait to be written, above which signals are dropped. */
const SIGNALS_BEHIND_MAX = 64 << 10;
/** Longest time that a timer can be set to. */
const TIMER_MAX_MS = 0x7fff_ffff;

export class Transport {
  readonly #options: TransportOptions;
  readonly #core: Core;
  #socket: { readonly socket: Socket; readonly codec: Codec } | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #performing = false;
  /** What is to be written once a store has what it needs to send it again. */
  #held: Request[] = [];
  #holds = 0;

  constructor(config: Config, options: TransportOptions) {
    this.#options = options;
    this.#core = new Core(config);
    globalThis.addEventListener?.("online", this.#check);
    globalThis.document?.addEventListener("visibilitychange", this.#check);
    this.#perform();
  }

  command(command: Command): void {
    this.input({ type: "command", command });
  }

  input(input: Input): void {
    this.#core.handle(performance.now(), input);
    // A listener of the application that is being told something: the loop below it goes on.
    if (!this.#performing) this.#perform();
  }

  readonly #check = (): void => {
    if (globalThis.document?.visibilityState !== "hidden") this.input({ type: "check" });
  };

  #perform(): void {
    this.#performing = true;
    for (let output = this.#core.pollOutput(); output; output = this.#core.pollOutput()) this.#do(output);
    this.#performing = false;
    this.#setTimer();
    if (!this.#core.isStopped) return;
    globalThis.removeEventListener?.("online", this.#check);
    globalThis.document?.removeEventListener("visibilitychange", this.#check);
  }

  #setTimer(): void {
    clearTimeout(this.#timer);
    const at = this.#core.pollTimeout();
    if (at === undefined) return;
    const delay = Math.min(Math.max(Math.ceil(at - performance.now()), 0), TIMER_MAX_MS);
    this.#timer = setTimeout(() => this.input({ type: "timeout" }), delay);
  }

  #do(output: Output): void {
    switch (output.type) {
      case "connect":
        return this.#connect();
      case "write":
        return this.#write(output.frame);
      case "writeSignal":
        if ((this.#socket?.socket.bufferedAmount ?? 0) <= SIGNALS_BEHIND_MAX) this.#write(output.frame);
        return;
      case "close":
        return this.#close();
      case "needToken":
        return void this.#fetchToken();
      default: {
        const hold = this.#options.tell(output);
        if (hold) this.#hold(hold);
      }
    }
  }

  // ---- the socket ----

  #connect(): void {
    this.#close();
    const { url, wire, WebSocket } = this.#options;
    let socket: Socket;
    try {
      socket = new WebSocket(url, [wire.subprotocol]);
    } catch (error) {
      // Told later, as any other failure is.
      queueMicrotask(() => this.input({ type: "disconnected", cause: String(error) }));
      return;
    }
    socket.binaryType = "arraybuffer";
    const codec = wire.open();
    this.#socket = { socket, codec };
    const isCurrent = () => this.#socket?.socket === socket;
    socket.onopen = () => {
      if (isCurrent()) this.input({ type: "connected" });
    };
    socket.onmessage = ({ data }: { data: string | ArrayBuffer }) => {
      if (isCurrent()) this.#read(codec, data, isCurrent);
    };
    socket.onclose = ({ code, reason }: { code: number; reason: string }) => {
      if (!isCurrent()) return;
      this.#forgetSocket();
      this.input({ type: "disconnected", cause: reason || `the socket was closed (${code})`, closeCode: code });
    };
    // The close that follows says everything.
    socket.onerror = () => {};
  }

  #read(codec: Codec, message: string | ArrayBuffer, isCurrent: () => boolean): void {
    try {
      for (const frame of codec.decode(message)) {
        if (isCurrent()) this.input({ type: "frame", frame: readFrame(frame) });
      }
    } catch (error) {
      this.input({ type: "unreadable", cause: `a message of the broker cannot be read: ${error}` });
    }
  }

  #write(frame: Request): void {
    if (this.#holds > 0) this.#held.push(frame);
    else this.#socket?.socket.send(this.#socket.codec.encode(frame));
  }

  #hold(until: Promise<void>): void {
    this.#holds += 1;
    const release = () => {
      this.#holds -= 1;
      if (this.#holds > 0) return;
      const held = this.#held;
      this.#held = [];
      for (const frame of held) this.#write(frame);
    };
    until.then(release, release);
  }

  #close(): void {
    const socket = this.#socket?.socket;
    this.#forgetSocket();
    socket?.close(1000);
  }

  #forgetSocket(): void {
    this.#socket = undefined;
    // Frames of a connection that is over: the next one is told everything anew.
    this.#held = [];
  }

  // ---- the token ----

  async #fetchToken(): Promise<void> {
    try {
      const token = await this.#options.token();
      if (typeof token !== "string") throw new Error("the token provider gave no string");
      this.input({ type: "token", token });
    } catch (error) {
      this.input({ type: "tokenFailed", cause: String(error) });
    }
  }
}
