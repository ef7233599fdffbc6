// A real `windlass serve`, with the model in the box, for all tests of a run.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const PATIENCE = 600_000;

export const KEY = "a key for the tests";

/** A server that is ready to answer: its address, and what stops it. */
export async function startServer() {
  const folder = mkdtempSync(join(tmpdir(), "windlass-jobs-"));
  const flags = ["serve", "--port", "0", "--json", "--jobs", folder];
  const env = { ...process.env, WINDLASS_API_KEY: KEY };
  const child = spawn(process.env.WINDLASS ?? "windlass", flags, { env, stdio: ["ignore", "pipe", "pipe"] });
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
  try {
    return { url: await Promise.race([ready(child.stdout), died]), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** @param {import("node:stream").Readable} stream */
function collect(stream) {
  const said = { text: "" };
  stream.on("data", (piece) => {
    said.text = (said.text + piece).slice(-4000);
  });
  return said;
}

/**
 * Where the server listens, which it says once the model is loaded. It takes a port that is free by itself.
 *
 * @param {import("node:stream").Readable} stdout
 * @returns {Promise<string>}
 */
function ready(stdout) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`windlass serve was not ready after ${PATIENCE / 1000} s`)), PATIENCE);
    createInterface({ input: stdout }).once("line", (line) => {
      clearTimeout(late);
      resolve(`${JSON.parse(line).url}/`);
    });
  });
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
