/** React: a conversation as a component sees it. */

import { useCallback, useSyncExternalStore } from "react";
import type { Client } from "./client.js";
import type { Conversation, Snapshot } from "./conversation.js";

export interface UsedConversation extends Snapshot {
  /** For everything that is done: send, edit, react, typing, loadOlder. */
  readonly conversation: Conversation;
}

/** Follows a conversation while the component is there, and renders again whenever there is something else to show. */
export function useConversation(client: Client, id: string): UsedConversation {
  const conversation = client.conversation(id);
  const subscribe = useCallback((changed: () => void) => conversation.watch(changed), [conversation]);
  // Rendering follows nothing: it may never be committed.
  const peek = () => conversation.peek();
  const snapshot = useSyncExternalStore(subscribe, peek, peek);
  return { ...snapshot, conversation };
}
