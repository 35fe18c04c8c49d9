/** A queue that ends with the page or the process. */

import type { QueueStorage } from "./storage.js";

export function memoryStorage(): QueueStorage {
  return {
    load: async () => [],
    put: () => undefined,
    remove: () => undefined,
  };
}
