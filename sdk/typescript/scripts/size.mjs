// Prints the size of what a browser loads with JSON only, minified and compressed; fails above the goal.
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const GOAL_GZIP_BYTES = 25 * 1024;

const { outputFiles } = await build({
  entryPoints: ["src/index.ts"],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  platform: "browser",
  write: false,
});
const code = outputFiles[0].contents;
const gzip = gzipSync(code, { level: 9 }).length;
console.log(`antiphon, JSON only: ${code.length} bytes minified, ${gzip} bytes gzip (goal: ${GOAL_GZIP_BYTES})`);
if (gzip > GOAL_GZIP_BYTES) process.exit(1);
