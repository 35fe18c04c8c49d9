/** The code of the README, so that it is run as it is told. */

import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";

/** The block that begins with three backticks and `fence`. */
export function readmeCode(fence: string): string {
  const begin = `\`\`\`${fence}\n`;
  const [, behind] = readFileSync("README.md", "utf8").split(begin);
  const code = behind?.split("```")[0];
  assert.ok(code, `the README has ${fence}`);
  return code;
}

/** Writes such a file, with the language `js` or `tsx`, to where the package's own name leads to dist/. Returns its path. */
export function readmeFile(language: string, name: string): string {
  assert.ok(existsSync("dist/index.js"), "npm run build comes first");
  const path = `.test-build/${name}`;
  writeFileSync(path, readmeCode(`${language} ${name}`));
  return path;
}
