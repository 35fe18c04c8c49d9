/** The queue in a file. */

import assert from "node:assert/strict";
import { appendFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { newMessage } from "../src/core/newMessage.js";
import { fileStorage } from "../src/storage/file.js";

test("a file keeps what was put and not removed, in order, across starts and a cut last line", async (context) => {
  const folder = await mkdtemp(join(tmpdir(), "antiphon-"));
  context.after(() => rm(folder, { recursive: true }));
  const path = join(folder, "queue");
  const entry = (key: string) => ({ key, message: newMessage("c:a", `text ${key}`) });
  const first = fileStorage(path);
  assert.deepEqual(await first.load(), []);
  await Promise.all([first.put(entry("b")), first.put(entry("a")), first.put(entry("c")), first.remove("b")]);
  const changed = { key: "a", message: { ...newMessage("c:a", "x"), clientMessageId: "id" } };
  await first.put(changed);
  await appendFile(path, '{"key":"d","mess');
  const second = fileStorage(path);
  assert.deepEqual(
    (await second.load()).map(({ key, message }) => [key, message.clientMessageId]),
    [
      ["a", "id"],
      ["c", undefined],
    ],
  );
  // The start has left out what is gone.
  assert.equal((await readFile(path, "utf8")).trim().split("\n").length, 2);
  await second.put(entry("e"));
  assert.equal((await fileStorage(path).load()).length, 3);
});

test("a file that is damaged in the middle is left as it is", async (context) => {
  const folder = await mkdtemp(join(tmpdir(), "antiphon-"));
  context.after(() => rm(folder, { recursive: true }));
  const path = join(folder, "queue");
  await writeFile(path, '{"key":"a"\n{"key":"b","removed":true}\n');
  await assert.rejects(fileStorage(path).load());
  assert.match(await readFile(path, "utf8"), /^\{"key":"a"\n/);
});
