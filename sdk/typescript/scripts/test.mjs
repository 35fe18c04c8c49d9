// Bundles the tests with what they test (Node 20 reads no TypeScript) and runs them with node:test.
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const wanted = process.argv.slice(2);
const tests = readdirSync("test").filter((name) => name.endsWith(".test.ts"));
const chosen = wanted.length === 0 ? tests : tests.filter((name) => wanted.some((part) => name.includes(part)));
rmSync(".test-build", { recursive: true, force: true });
await build({
  entryPoints: chosen.map((name) => `test/${name}`),
  bundle: true,
  format: "esm",
  target: "node20",
  platform: "node",
  packages: "external",
  outdir: ".test-build",
  outExtension: { ".js": ".mjs" },
  sourcemap: "inline",
  logLevel: "warning",
});
// A hang, not a long run, which says how long it may take.
const timeout = process.env.ANTIPHON_TEST_TIMEOUT_MS ?? 60_000;
const files = chosen.map((name) => `.test-build/${name.replace(/\.ts$/, ".mjs")}`);
// One file at a time: the machine is shared.
const run = spawnSync(
  process.execPath,
  ["--enable-source-maps", "--test", "--test-concurrency=1", `--test-timeout=${timeout}`, ...files],
  {
    stdio: "inherit",
  },
);
process.exit(run.status ?? 1);
