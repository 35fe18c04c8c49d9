/** The network between the pages and the gateway: bytes to and fro, until it is cut. */

import { createServer, type Server, type Socket, connect as tcp } from "node:net";

export class Network {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isDown = false;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(to: number): Promise<Network> {
    const server = createServer((near) => proxy.#join(near, to));
    const proxy = new Network(server);
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    return proxy;
  }

  get isDown(): boolean {
    return this.#isDown;
  }

  get url(): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  }

  #join(near: Socket, port: number): void {
    if (this.#isDown) {
      near.resetAndDestroy();
      return;
    }
    const far = tcp(port, "127.0.0.1");
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.on("close", () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  }

  /** Every connection ends, in the middle of whatever it carries, and no new one comes about until `mend`. */
  cut(): void {
    this.#isDown = true;
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  mend(): void {
    this.#isDown = false;
  }

  async stop(): Promise<void> {
    this.cut();
    await new Promise((done) => this.#server.close(done));
  }
}
