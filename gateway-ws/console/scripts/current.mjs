// Fails if dist/ is not what the sources make: the program serves dist/, and is built without Node.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bundle, dist, FILES } from "./bundle.mjs";

const fresh = mkdtempSync(join(tmpdir(), "antiphon-console-"));
try {
  await bundle(fresh);
  const stale = FILES.filter((file) => !readFileSync(join(fresh, file)).equals(readFileSync(join(dist, file))));
  if (stale.length > 0) {
    console.error(`not current: ${stale.join(", ")}; run: npm run build`);
    process.exitCode = 1;
  }
} finally {
  rmSync(fresh, { recursive: true, force: true });
}
