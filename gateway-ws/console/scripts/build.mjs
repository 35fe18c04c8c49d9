// Builds dist/, and prints its size; fails above the goal.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { bundle, dist, FILES } from "./bundle.mjs";

// More than half of it is the SDK.
const GOAL_BYTES = 128 * 1024;

await bundle(dist);
let total = 0;
for (const file of FILES) {
  const content = readFileSync(join(dist, file));
  total += content.length;
  console.log(`${file}: ${content.length} bytes, ${gzipSync(content, { level: 9 }).length} gzip`);
}
console.log(`together: ${total} bytes (goal: ${GOAL_BYTES})`);
if (total > GOAL_BYTES) process.exit(1);
