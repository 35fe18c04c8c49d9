/**
 * A queue in IndexedDB, shared by the tabs of a user.
 *
 * Each tab owns what it puts, and says that it lives by holding a Web Lock. A tab that starts takes over what belongs to
 * nobody who lives: the queue of a tab that was closed, or of its own before a reload. Without Web Locks it takes
 * everything; the broker then drops what two tabs send with the same id.
 */

import type { QueueStorage, Unsent } from "./storage.js";

const STORE = "unsent";

interface Row extends Unsent {
  readonly owner: string;
}

/** `user` keeps the queues of several users of a browser apart. */
export function indexedDbStorage(user: string): QueueStorage {
  const name = `antiphon:${user}`;
  const owner = crypto.randomUUID();
  const database = open(name);
  const run = async <T>(work: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> => {
    const transaction = (await database).transaction(STORE, "readwrite");
    const request = work(transaction.objectStore(STORE));
    await new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onerror = () => reject(transaction.error);
      transaction.onabort = () => reject(transaction.error);
    });
    return request.result;
  };
  const put = async (entry: Unsent): Promise<void> => {
    await run((store) => store.put({ ...entry, owner } satisfies Row));
  };
  return {
    async load() {
      await holdLock(lockName(name, owner));
      const rows: Row[] = await run((store) => store.getAll());
      const dead = new Map<string, boolean>();
      const orphans: Row[] = [];
      for (const row of rows) {
        if (!dead.has(row.owner)) dead.set(row.owner, await isFree(lockName(name, row.owner)));
        if (dead.get(row.owner)) orphans.push(row);
      }
      for (const orphan of orphans) await put({ key: orphan.key, message: orphan.message });
      return orphans.map(({ key, message }) => ({ key, message }));
    },
    put,
    async remove(key) {
      await run((store) => store.delete(key));
    },
  };
}

function lockName(name: string, owner: string): string {
  return `${name}:${owner}`;
}

function open(name: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "key" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Holds a lock for as long as the page lives. */
function holdLock(name: string): Promise<void> {
  const { locks } = navigator;
  if (!locks) return Promise.resolve();
  return new Promise((held) => {
    void locks.request(name, () => {
      held();
      return new Promise(() => {});
    });
  });
}

async function isFree(name: string): Promise<boolean> {
  const { locks } = navigator;
  return locks ? locks.request(name, { ifAvailable: true }, (lock) => lock !== null) : true;
}
