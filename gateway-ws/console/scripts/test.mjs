// Bundles the tests (Node 20 reads no TypeScript) and runs them with node:test, one file at a time.
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
const files = chosen.map((name) => `.test-build/${name.replace(/\.ts$/, ".mjs")}`);
const run = spawnSync(process.execPath, ["--enable-source-maps", "--test", "--test-concurrency=1", ...files], {
  stdio: "inherit",
});
process.exit(run.status ?? 1);
