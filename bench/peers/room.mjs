// What the rooms in this folder do with a text: give it a place, an id and a time. Nothing is stored.
import { randomUUID } from "node:crypto";

let seq = 0;

export function event(text) {
  return { seq: ++seq, time_ms: Date.now(), event_id: randomUUID(), sender: "ann", text };
}

// The programs are called with the port on loopback where they are to listen.
export const address = { host: "127.0.0.1", port: Number(process.argv[2]) };
