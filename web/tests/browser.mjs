// Chromium as a reader has it, and a page on which nothing may go wrong: no error on its console, nothing thrown, no
// request to any other host. Every test that opens a page closes it by `check`.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, afterEach, before } from "node:test";
import { chromium } from "playwright-core";
import { KEY } from "./server.mjs";

export const URL_OF_SERVER = process.env.PAGE_URL ?? "http://127.0.0.1:8000/";

/** Milliseconds after which a test that waits has failed; how long one that passes takes does not depend on it. */
const PATIENCE = 120_000;

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/**
 * A browser for the tests of a file, with a folder for the user's data that is new and gone with it. What a failed test
 * left open is closed before the next.
 *
 * @returns {(options?: Options) => Promise<Opened>} opens a page
 */
export function openerOfPages() {
  /** @type {import("playwright-core").Browser} */
  let browser;
  before(async () => {
    browser = await chromium.launch({ executablePath: CHROMIUM, headless: true, args: FLAGS });
  });
  afterEach(async () => {
    await Promise.all(browser.contexts().map((context) => context.close()));
  });
  after(() => browser.close());
  return (options = {}) => openPage(browser, options);
}

/**
 * @typedef {import("playwright-core").BrowserContextOptions & {view?: string, withKey?: boolean}} Options
 */

/**
 * @typedef {object} Opened
 * @property {import("playwright-core").Page} page
 * @property {string[]} faults what went wrong so far, in words
 * @property {(allowed?: RegExp) => Promise<void>} check closes the page; fails on a fault that `allowed` does not match
 */

/**
 * @param {import("playwright-core").Browser} browser
 * @param {Options} options
 * @returns {Promise<Opened>}
 */
async function openPage(browser, { view = "#chat", withKey = true, ...options }) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
  const faults = await watched(context);
  if (withKey) await context.addInitScript((key) => sessionStorage.setItem("windlass.key", key), KEY);
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("console", (message) => message.type() === "error" && faults.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => faults.push(`thrown: ${error.message}`));
  await page.goto(URL_OF_SERVER + view);
  const check = async (allowed = /^$/) => {
    await context.close();
    assert.deepEqual(faults.filter((fault) => !allowed.test(fault)), []);
  };
  return { page, faults, check };
}

/** @param {import("playwright-core").BrowserContext} context */
async function watched(context) {
  /** @type {string[]} */
  const faults = [];
  const { host } = new URL(URL_OF_SERVER);
  await context.route(
    (address) => address.host !== host && address.protocol !== "blob:",
    (route) => {
      faults.push(`foreign request: ${route.request().url()}`);
      return route.abort();
    },
  );
  return faults;
}

/** @param {import("playwright-core").Page} page */
export const questionField = (page) => page.getByRole("textbox", { name: "Question", exact: true });

/**
 * @param {import("playwright-core").Page} page
 * @param {string} question
 */
export async function ask(page, question) {
  await questionField(page).fill(question);
  await questionField(page).press("Enter");
}

/**
 * The settings of the open conversation, by the names of the interface.
 *
 * @param {import("playwright-core").Page} page
 * @param {Record<string, number>} settings
 */
export async function set(page, settings) {
  await page.locator("summary", { hasText: "Settings" }).click();
  for (const [name, value] of Object.entries(settings)) {
    await page.locator(`input[name=${name}]`).fill(String(value));
    await page.locator(`input[name=${name}]`).press("Tab");
  }
}

/**
 * Answers every question in this page with a text of our own, as a server would stream it.
 *
 * @param {import("playwright-core").Page} page
 * @param {string} text
 */
export async function answerWith(page, text) {
  const pieces = text.match(/[^]{1,7}/g) ?? [];
  const chunks = pieces.map((content) => ({ choices: [{ delta: { content } }] }));
  const lines = [...chunks, { choices: [{ delta: {}, finish_reason: "stop" }] }].map((one) => JSON.stringify(one));
  const body = [...lines, "[DONE]"].map((line) => `data: ${line}\n\n`).join("");
  await page.route("**/v1/chat/completions", (route) =>
    route.fulfill({ headers: { "Content-Type": "text/event-stream" }, body }),
  );
}

/**
 * Answers one question in this page word by word, when the test says so: however fast a server is, the answer has not
 * ended before it is told to.
 *
 * @param {import("playwright-core").Page} page
 */
export async function answerByHand(page) {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  const asked = once(server, "request").then(([, response]) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    return /** @type {import("node:http").ServerResponse} */ (response);
  });
  const left = asked.then((response) => once(response, "close")).then(() => server.close());
  await page.route("**/v1/chat/completions", (route) => route.continue({ url: `http://127.0.0.1:${address.port}/` }));
  const tell = async (/** @type {string} */ data) => (await asked).write(`data: ${data}\n\n`);
  return {
    /** @param {string} content */
    say: (content) => tell(JSON.stringify({ choices: [{ delta: { content } }] })),
    end: async () => {
      await tell(JSON.stringify({ choices: [{ delta: {}, finish_reason: "stop" }] }));
      await tell("[DONE]");
      (await asked).end();
    },
    /** Resolved when nobody listens any more. */
    left,
  };
}

/**
 * What no event tells of is looked at until it holds.
 *
 * @param {() => Promise<boolean>} holds
 */
export async function until(holds) {
  const end = Date.now() + PATIENCE;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `never came to hold: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
