// Starts one server, runs every test file against it and stops it. PAGE_URL names a server that is already there.

import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { startServer } from "./server.mjs";

const folder = fileURLToPath(new URL(".", import.meta.url));
const wanted = process.argv.slice(2);
const files = readdirSync(folder)
  .filter((name) => name.endsWith(".test.mjs") && (!wanted.length || wanted.some((word) => name.includes(word))))
  .map((name) => folder + name);

const server = process.env.PAGE_URL ? { url: process.env.PAGE_URL, stop: async () => {} } : await startServer();
try {
  const env = { ...process.env, PAGE_URL: server.url };
  const options = ["--test", "--test-concurrency=1", "--test-reporter=spec"];
  process.exitCode = spawnSync(process.execPath, [...options, ...files], { env, stdio: "inherit" }).status ?? 1;
} finally {
  await server.stop();
}
