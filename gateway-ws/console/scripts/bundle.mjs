// The files of the page: what is built, where it goes is up to the caller.
import { copyFileSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

export const FILES = ["index.html", "console.js", "console.css"];
export const dist = join(root, "dist");

export async function bundle(outdir) {
  mkdirSync(outdir, { recursive: true });
  const shared = { bundle: true, minify: true, target: "es2022", legalComments: "none", logLevel: "warning", outdir };
  await build({ ...shared, absWorkingDir: root, entryPoints: { console: "src/main.ts" }, format: "esm" });
  await build({ ...shared, absWorkingDir: root, entryPoints: { console: "src/console.css" } });
  copyFileSync(join(root, "src/index.html"), join(outdir, "index.html"));
}
