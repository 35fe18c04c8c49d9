/** Listeners by the name of an event. One that throws does not keep the others from hearing. */

export type Listener<T> = (value: T) => void;

export class Emitter<Events extends object> {
  readonly #listeners = new Map<keyof Events, Set<Listener<never>>>();

  /** Calls `listener` for each such event from now on. Returns what ends that. */
  on<Name extends keyof Events>(name: Name, listener: Listener<Events[Name]>): () => void {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all);
    // Of its own, so that a function that listens twice is told twice.
    const own: Listener<Events[Name]> = (value) => listener(value);
    all.add(own);
    return () => void all.delete(own);
  }

  emit<Name extends keyof Events>(name: Name, value: Events[Name]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        (listener as Listener<Events[Name]>)(value);
      } catch (error) {
        // The application's fault: shown as uncaught, as that of an event handler.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
