/** A gateway as a process of its own, before a broker, so that each can be killed without the other. */

import { dirname, join } from "node:path";
import { BINARY, type Broker } from "./broker.js";
import { Program } from "./program.js";

const GATEWAY = join(dirname(BINARY), "antiphon-gateway");

export class Gateway {
  readonly #broker: Broker;
  #program: Program | undefined;
  /** Of the first start, which later ones keep. */
  #listen = "127.0.0.1:0";

  private constructor(broker: Broker) {
    this.#broker = broker;
  }

  static async start(broker: Broker): Promise<Gateway> {
    const gateway = new Gateway(broker);
    await gateway.start();
    return gateway;
  }

  get port(): number {
    return Number(this.#listen.split(":").at(-1));
  }

  async start(): Promise<void> {
    const { trunk, fingerprint, secrets } = this.#broker.edge;
    const broker = ["--broker", trunk, "--broker-fingerprint", fingerprint];
    const edge = ["--certificate", join(secrets, "edge.pem"), "--key", join(secrets, "edge.key")];
    this.#program = await Program.start(GATEWAY, [
      "--listen",
      this.#listen,
      ...broker,
      ...edge,
      "--log-filter",
      "warn",
    ]);
    this.#listen = (this.#program.facts.get("gateway") ?? "").replace("http://", "");
  }

  async kill(): Promise<void> {
    await this.#program?.kill();
  }
}
