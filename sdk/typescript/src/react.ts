/** React: a conversation as a component sees it. */

import { useCallback, useSyncExternalStore } from "react";
import type { Client } from "./client.js";
import type { Conversation, Snapshot } from "./conversation.js";

export interface UsedConversation extends Snapshot {
  /** For everything that is done: send, edit, react, typing, loadOlder. */
  readonly conversation: Conversation;
}

/** Follows a conversation, and renders again whenever there is something else to show. */
export function useConversation(client: Client, id: string): UsedConversation {
  const conversation = client.conversation(id);
  const subscribe = useCallback((changed: () => void) => conversation.on("change", changed), [conversation]);
  const snapshot = useSyncExternalStore(
    subscribe,
    () => conversation.snapshot(),
    () => conversation.snapshot(),
  );
  return { ...snapshot, conversation };
}
