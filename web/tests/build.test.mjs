// The page in the Python package is what these sources give, so that nobody has to trust a built file.

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const COMMITTED = fileURLToPath(new URL("../../src/windlass/server/page/", import.meta.url));
const MOST = 200_000;

/** @param {string} folder */
function contents(folder) {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = entries.map((entry) => join(entry.parentPath, entry.name));
  return new Map(paths.sort().map((path) => [path.slice(folder.length).replace(/^\//, ""), readFileSync(path)]));
}

test("the committed page is what its sources give, and small", async () => {
  const folder = mkdtempSync(join(tmpdir(), "windlass-page-"));
  try {
    await build({ root: ROOT, logLevel: "error", build: { outDir: folder, emptyOutDir: true } });
    const anew = contents(folder);
    const committed = contents(COMMITTED);
    assert.deepEqual([...committed.keys()], [...anew.keys()]);
    for (const [name, bytes] of anew) {
      assert.ok(committed.get(name)?.equals(bytes), `${name} is not what web/ gives: npm run build --prefix web`);
    }
    const whole = [...anew.values()].reduce((sum, bytes) => sum + bytes.length, 0);
    assert.ok(whole < MOST, `the page is ${whole} bytes, more than ${MOST}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
