// A real `windlass serve`, with the model in the box, for all tests of a run.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PATIENCE = 120_000;

export const KEY = "a key for the tests";

/** A server that is ready to answer: its address, and what stops it. */
export async function startServer() {
  const folder = mkdtempSync(join(tmpdir(), "windlass-jobs-"));
  const port = await freePort();
  const flags = ["serve", "--port", String(port), "--jobs", folder];
  const env = { ...process.env, WINDLASS_API_KEY: KEY };
  const child = spawn(process.env.WINDLASS ?? "windlass", flags, { env, stdio: ["ignore", "ignore", "pipe"] });
  const said = collect(child.stderr);
  const died = new Promise((_, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`windlass serve ended with ${code}:\n${said.text}`)));
  });
  const stop = async () => {
    child.kill("SIGINT");
    await died.catch(() => undefined);
    rmSync(folder, { recursive: true });
  };
  const url = `http://127.0.0.1:${port}/`;
  try {
    await Promise.race([ready(url), died]);
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, stop };
}

/** @param {import("node:stream").Readable} stream */
function collect(stream) {
  const said = { text: "" };
  stream.on("data", (piece) => {
    said.text = (said.text + piece).slice(-4000);
  });
  return said;
}

/** @param {string} url */
async function ready(url) {
  const end = Date.now() + PATIENCE;
  while (Date.now() < end) {
    const told = await stateOf(url);
    if (told?.state === "ready") return;
    if (told?.state === "failed") throw new Error(`the model could not be loaded: ${told.failure}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`windlass serve was not ready after ${PATIENCE / 1000} s`);
}

/**
 * @param {string} url
 * @returns {Promise<import("../src/server/shape").State | null>} null while nobody listens
 */
export async function stateOf(url) {
  try {
    const response = await fetch(new URL("windlass/state", url), { headers: { Authorization: `Bearer ${KEY}` } });
    return await response.json();
  } catch {
    return null;
  }
}

/** @returns {Promise<number>} */
function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer().once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}
