/** The members of HELLO. */

import type { HelloMembers } from "../json.js";

export const VERSION = 1;
/** The capability that brings SEND_BATCH. */
export const BATCH = "batch";
/** The capability that `follow_mine` needs. */
const FOLLOW = "follow";

/** What a client needs to know. */
export interface Config {
  /** The installation or tab; empty = the broker names it. */
  readonly device: string;
  /** Name and version, for the broker's logs. */
  readonly clientName: string;
  /** Ask for digests of every conversation of which the user is a member. */
  readonly followMine: boolean;
  /** Source of all randomness, at least 12 bytes; differs at every start. */
  readonly seed: Uint8Array;
}

export interface Greeting {
  readonly token: string;
  readonly senderInstance: string;
  readonly resumeToken: string;
  /** Counts the connections of this sender instance, from 1. */
  readonly attempt: number;
}

export function hello(config: Config, greeting: Greeting): HelloMembers {
  return {
    versions: [VERSION],
    token: greeting.token,
    ...(config.device && { device: config.device }),
    sender_instance: greeting.senderInstance,
    ...(greeting.resumeToken && { resume_token: greeting.resumeToken }),
    ...(config.followMine && { follow_mine: true }),
    capabilities: config.followMine ? [BATCH, FOLLOW] : [BATCH],
    client: config.clientName,
    attempt: greeting.attempt,
  };
}
