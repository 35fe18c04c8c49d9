// Builds dist/: one bundle for each entry with esbuild, the types of everything with tsc.
import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { build } from "esbuild";

rmSync("dist", { recursive: true, force: true });
const shared = { bundle: true, format: "esm", target: "es2022", outdir: "dist", sourcemap: true, logLevel: "warning" };
// Together, so that entries share code: an error of one is an instance of the class of another.
const splitting = { splitting: true, chunkNames: "chunk-[hash]", platform: "neutral", external: ["react", "node:*"] };
const entryPoints = {
  index: "src/index.ts",
  binary: "src/binary/index.ts",
  node: "src/node.ts",
  react: "src/react.ts",
  server: "src/server.ts",
};
await build({ ...shared, ...splitting, entryPoints });
execFileSync("node_modules/.bin/tsc", ["-p", "tsconfig.build.json"], { stdio: "inherit" });
