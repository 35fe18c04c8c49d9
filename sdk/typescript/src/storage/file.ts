/**
 * A queue in a file, for Node: one JSON object a line, the last one of a key counts. One process at a time.
 *
 * A change is on the disk before its promise is kept. A line that a crash cut short is the last one, and was promised to
 * nobody. The file is written anew at every start, so it does not grow beyond what one run adds.
 */

import { type FileHandle, open, readFile, rename } from "node:fs/promises";
import type { QueueStorage, Unsent } from "./storage.js";

type Line = Unsent | { readonly key: string; readonly removed: true };

export function fileStorage(path: string): QueueStorage {
  let file: FileHandle | undefined;
  // One step at a time keeps the lines whole and in order, and what is put early behind the load.
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(step: () => Promise<T>): Promise<T> => {
    const done = last.then(step);
    last = done.catch(() => {});
    return done;
  };
  const append = (line: Line): Promise<void> =>
    inTurn(async () => {
      file ??= await open(path, "a");
      await file.appendFile(`${JSON.stringify(line)}\n`);
      await file.datasync();
    });
  return {
    load: () => inTurn(() => rewrite(path)),
    put: append,
    remove: (key) => append({ key, removed: true }),
  };
}

/** Reads the entries, and leaves out of the file what does not count any more. */
async function rewrite(path: string): Promise<readonly Unsent[]> {
  const entries = await read(path);
  const fresh = `${path}.new`;
  const handle = await open(fresh, "w");
  await handle.writeFile(entries.map((entry) => `${JSON.stringify(entry)}\n`).join(""));
  await handle.datasync();
  await handle.close();
  await rename(fresh, path);
  return entries;
}

async function read(path: string): Promise<readonly Unsent[]> {
  let text = "";
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  const lines = text.split("\n");
  // What follows the last line end is empty, or cut short.
  lines.pop();
  const entries = new Map<string, Unsent>();
  for (const line of lines) {
    const entry: Line = JSON.parse(line);
    if ("removed" in entry) entries.delete(entry.key);
    else entries.set(entry.key, entry);
  }
  return [...entries.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
}
