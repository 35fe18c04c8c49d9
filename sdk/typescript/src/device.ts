/**
 * The name of a tab: each tab is a device of its own, with its own session, so that no tab closes another's.
 *
 * The name is random, and kept in sessionStorage to outlive a reload. A duplicated tab has a copy of it: whoever comes
 * second finds the name's lock taken, and makes another. Without Web Locks a tab has a new name after each load.
 */

const KEY = "antiphon.device";

/** The name of this tab; empty outside of browsers, where the broker names the device after the session. */
export async function tabDevice(): Promise<string> {
  const { sessionStorage, navigator } = globalThis;
  if (!globalThis.document) return "";
  const fresh = `tab-${crypto.randomUUID()}`;
  // Another client of the same page has a name of its own.
  if (!navigator.locks || !sessionStorage) return fresh;
  const kept = sessionStorage.getItem(KEY);
  if (kept && (await claim(kept))) return kept;
  sessionStorage.setItem(KEY, fresh);
  await claim(fresh);
  return fresh;
}

/** Takes the lock of a name for as long as the page lives; false if another has it. */
function claim(name: string): Promise<boolean> {
  return new Promise((claimed) => {
    void navigator.locks.request(`${KEY}:${name}`, { ifAvailable: true }, (lock) => {
      claimed(lock !== null);
      return lock && new Promise(() => {});
    });
  });
}
