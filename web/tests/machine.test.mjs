// The view of the machine: what the server tells is what is shown, batch files go and come, and trouble is named.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { ask, openerOfPages, set, until, URL_OF_SERVER } from "./browser.mjs";
import { KEY, stateOf } from "./server.mjs";

const open = openerOfPages();

const MACHINE = { view: "#machine" };

/** @param {{rows: number, tokens: number, spoil?: boolean}} batch */
function batchFile({ rows, tokens, spoil = false }) {
  const lines = Array.from({ length: rows }, (_, row) => {
    const body = { model: "any", prompt: `Row ${row}`, max_tokens: tokens, ...(spoil && row === 0 ? { n: "many" } : {}) };
    return JSON.stringify({ custom_id: `row-${row}`, method: "POST", url: "/v1/completions", body });
  });
  return { name: "prompts.jsonl", mimeType: "application/jsonl", buffer: Buffer.from(`${lines.join("\n")}\n`) };
}

/**
 * Sends a batch file by the page; the row in which its job is shown.
 *
 * @param {import("playwright-core").Page} page
 * @param {Parameters<typeof batchFile>[0]} batch
 */
async function send(page, batch) {
  await page.getByLabel("Send a batch file").setInputFiles(batchFile(batch));
  const said = (await page.getByText(/prompts\.jsonl was sent and is/).textContent()) ?? "";
  const id = said.match(/is (\S+)\.$/)?.[1] ?? "none";
  return page.locator("li.job", { hasText: id });
}

/**
 * Tells the page a state of our own in place of the server's: the real one, changed.
 *
 * @param {import("playwright-core").Page} page
 * @param {(state: any) => object} change
 */
async function tell(page, change) {
  await page.unroute("**/windlass/state");
  const real = await stateOf(URL_OF_SERVER);
  await page.route("**/windlass/state", (route) => route.fulfill({ json: change(structuredClone(real)) }));
}

test("every tier is a bar against its budget", async () => {
  const { page, check } = await open(MACHINE);
  const state = await stateOf(URL_OF_SERVER);
  assert.ok(state?.tiers.length, "the server names no tier");
  const bars = page.locator(".tier [role=meter]");
  await bars.first().waitFor();
  const budgets = await bars.evaluateAll((all) => all.map((one) => Number(one.getAttribute("aria-valuemax"))));
  assert.deepEqual(budgets, state.tiers.map((tier) => tier.budget));
  for (const bar of await bars.all()) {
    const whole = (await bar.boundingBox())?.width ?? 0;
    const parts = await bar.locator(".segment").evaluateAll((all) => all.map((one) => one.getBoundingClientRect().width));
    assert.ok(parts.length > 0 && parts.reduce((sum, one) => sum + one, 0) <= whole + 1, `${parts} in ${whole}`);
  }
  await check();
});

test("what is written and who is served move as the server works", async () => {
  const { page, check } = await open(MACHINE);
  const speed = page.getByRole("region", { name: "Speed", exact: true });
  const written = async () => Number(((await speed.textContent()) ?? "").match(/([\d,]+) written/)?.[1]?.replaceAll(",", ""));
  await speed.waitFor();
  const before = await written();
  const answer = fetch(new URL("v1/chat/completions", URL_OF_SERVER), {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${KEY}` },
    body: JSON.stringify({ model: await nameOfModel(), messages: [{ role: "user", content: "Speak" }], max_tokens: 200 }),
  });
  await until(async () => (await written()) > before);
  assert.equal((await answer).status, 200);
  await until(async () => (await written()) >= before + 200);
  await page.getByRole("img", { name: /busy \d+ % of the pass/ }).first().waitFor();
  await check();
});

test("gauges and tiers follow the numbers that the server tells", async () => {
  const { page, check } = await open(MACHINE);
  const link = (/** @type {number} */ rate) => ({ name: "disk to host", lane: "disk", rate, limit: 2e9 });
  const gauge = page.getByRole("meter", { name: "Disk to host, rate" });
  const width = async () => (await gauge.locator(".segment").boundingBox())?.width ?? 0;
  const whole = async () => (await gauge.boundingBox())?.width ?? 0;

  await tell(page, (state) => ({ ...state, links: [link(5e8)] }));
  await until(async () => (await gauge.getAttribute("aria-valuetext")) === "500 MB/s of 2.00 GB/s");
  await until(async () => Math.abs((await width()) - 0.25 * (await whole())) < 1);

  await tell(page, (state) => ({ ...state, links: [link(1.5e9)] }));
  await until(async () => (await gauge.getAttribute("aria-valuenow")) === "1500000000");
  await until(async () => Math.abs((await width()) - 0.75 * (await whole())) < 1);

  const parts = [{ kind: "weights", bytes: 6e9, used: 6e9 }, { kind: "kv_cache", bytes: 2e9, used: 1e9 }];
  await tell(page, (state) => ({ ...state, tiers: [{ name: "device", budget: 10e9, parts }] }));
  const bar = page.getByRole("meter", { name: "Device memory given away" });
  await until(async () => (await bar.getAttribute("aria-valuetext")) === "7.45 GiB of 9.31 GiB");
  await page.getByText("50 % used").waitFor();
  await check();
});

test("the last pass is drawn to its time", async () => {
  const { page, check } = await open(MACHINE);
  const lanes = [
    { name: "disk", spans: [[0, 1, "layer 0"], [1, 2, "layer 1"]] },
    { name: "compute", spans: [[1, 2, "layer 0"], [1.5, 3, "layer 1"]] },
  ];
  await tell(page, (state) => ({ ...state, pass: { number: 7, seconds: 4, lanes } }));
  // Spans that run side by side count once.
  await page.getByRole("img", { name: "disk: busy 50 % of the pass" }).waitFor();
  const drawn = page.getByRole("img", { name: "compute: busy 50 % of the pass" });
  const places = await drawn.locator("rect").evaluateAll((all) =>
    all.map((one) => [one.getAttribute("x"), one.getAttribute("width")].map(Number)),
  );
  assert.deepEqual(places, [[250, 250], [375, 375]]);
  await check();
});

test("a batch file is sent, answered and its answers fetched", async () => {
  const { page, check } = await open(MACHINE);
  const job = await send(page, { rows: 5, tokens: 4, spoil: true });
  await job.getByText("done", { exact: true }).waitFor();
  assert.equal(await job.locator("progress").evaluate((bar) => /** @type {HTMLProgressElement} */ (bar).position), 1);
  assert.match((await job.textContent()) ?? "", /5 of 5 rows, 100 % · 1 failed/);

  const answers = await fetched(page, job.getByRole("button", { name: /Answers/ }));
  assert.deepEqual(answers.map((row) => row.custom_id).sort(), ["row-1", "row-2", "row-3", "row-4"]);
  for (const row of answers) assert.equal(typeof row.response.body.choices[0].text, "string");
  const errors = await fetched(page, job.getByRole("button", { name: /Errors/ }));
  assert.deepEqual(errors.map((row) => row.custom_id), ["row-0"]);
  await check();
});

test("a job is cancelled, and a chat is answered while one runs", async () => {
  const { page, check } = await open(MACHINE);
  const job = await send(page, { rows: 4000, tokens: 200 });
  await job.getByText("running").waitFor();
  await page.getByRole("link", { name: "Chat" }).click();
  await set(page, { max_tokens: 5 });
  await ask(page, "Still there?");
  await page.getByText("5 tokens in").waitFor();
  await page.getByRole("link", { name: "Machine" }).click();
  await job.getByRole("button", { name: /Cancel/ }).click();
  await job.getByText("cancelled", { exact: true }).waitFor();
  assert.equal(await job.getByRole("button", { name: /Cancel/ }).count(), 0);
  await check();
});

test("a file that is no batch is refused in the server's words", async () => {
  const { page, check } = await open(MACHINE);
  await page.route("**/v1/batches", (route) =>
    route.fulfill({ status: 400, json: { error: { message: "Line 1 of notes.jsonl is not JSON.", param: "input_file_id" } } }),
  );
  await page.getByLabel("Send a batch file").setInputFiles({ name: "notes.jsonl", mimeType: "text/plain", buffer: Buffer.from("hello") });
  await page.getByRole("alert").getByText("Line 1 of notes.jsonl is not JSON.").waitFor();
  await check(/status of 400/);
});

test("a job that failed says why", async () => {
  const { page, check } = await open(MACHINE);
  const counts = { total: 0, completed: 0, failed: 0, tokens_per_second: null, seconds_left: null };
  const files = { input_file_id: "file-1", output_file_id: null, error_file_id: null };
  await page.route("**/v1/batches/batch_1", (route) =>
    route.fulfill({ json: { id: "batch_1", errors: { object: "list", data: [{ message: "The file has no rows." }] } } }),
  );
  await tell(page, (state) => ({ ...state, jobs: [{ id: "batch_1", status: "failed", ...counts, ...files }] }));
  const job = page.locator("li.job", { hasText: "batch_1" });
  await job.getByText("The file has no rows.").waitFor();
  assert.equal(await job.getByRole("button").count(), 0);
  await check();
});

test("loading and failed are said, with the reason", async () => {
  const { page, check } = await open(MACHINE);
  const empty = { tiers: [], links: [], pass: null, queue: null, speed: null, wait: null, binds: "", takes_batches: false };
  await tell(page, (state) => ({ ...state, ...empty, state: "loading", uptime: 12 }));
  await page.getByText("The model is being loaded, 12.0 s so far.").waitFor();
  await page.getByText("windlass serve --jobs FOLDER does").waitFor();
  await tell(page, (state) => ({ ...state, ...empty, state: "failed", failure: "model.safetensors ends early" }));
  await page.getByRole("alert").getByText("model.safetensors ends early").waitFor();
  await check();
});

test("a server that is gone is asked again until it is back", async () => {
  const { page, check } = await open(MACHINE);
  await page.getByText("ready").waitFor();
  await page.route("**/windlass/state", (route) => route.abort());
  await page.getByRole("alert").getByText("The server does not answer.").waitFor();
  await page.getByText("Asking again in").waitFor();
  await page.unroute("**/windlass/state");
  await page.getByText("The server does not answer.").waitFor({ state: "detached" });
  await page.getByText("ready").waitFor();
  await check(/net::ERR_FAILED/);
});

test("a key is asked for, kept for the tab only, and used", async () => {
  const { page, check } = await open({ ...MACHINE, withKey: false });
  const field = page.getByLabel(/This server wants its API key/);
  await field.fill("wrong");
  await field.press("Enter");
  await until(async () => (await field.count()) === 1 && (await field.inputValue()) === "");
  await field.fill(KEY);
  await field.press("Enter");
  await page.getByText("ready").waitFor();
  assert.equal(await field.count(), 0);
  const places = await page.evaluate(() => [JSON.stringify(localStorage), document.cookie, location.href]);
  assert.equal(places.some((place) => place.includes(KEY)), false);
  await page.reload();
  await page.getByText("ready").waitFor();
  await check(/status of 401/);
});

/**
 * The rows of the file that a button saves.
 *
 * @param {import("playwright-core").Page} page
 * @param {import("playwright-core").Locator} button
 * @returns {Promise<any[]>}
 */
async function fetched(page, button) {
  const [download] = await Promise.all([page.waitForEvent("download"), button.click()]);
  assert.match(download.suggestedFilename(), /\.jsonl$/);
  const text = await readFile(await download.path(), "utf8");
  return text.trim().split("\n").map((line) => JSON.parse(line));
}

async function nameOfModel() {
  const response = await fetch(new URL("v1/models", URL_OF_SERVER), { headers: { Authorization: `Bearer ${KEY}` } });
  return (await response.json()).data[0].id;
}
