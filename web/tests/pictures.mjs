// The pictures in docs/, of a server that runs: `PAGE_URL=http://127.0.0.1:8000/ npm run pictures -- chat`. The view of
// the machine says most with a model that streams and a batch that runs; the key, if there is one, is in KEY.

import { chromium } from "playwright-core";
import { fileURLToPath } from "node:url";

const DOCS = fileURLToPath(new URL("../../docs/", import.meta.url));
const SERVER = process.env.PAGE_URL ?? "http://127.0.0.1:8000/";
const QUESTION = "Now is the winter of our discontent";
const SIZE = { width: 1120, height: 640 };

/** Seconds of work that the machine shows, so that its lines have something to tell. */
const WATCHED = 25;

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium" });
const views = process.argv.slice(2);
const page = await (await browser.newContext({ viewport: SIZE })).newPage();
await page.addInitScript((key) => sessionStorage.setItem("windlass.key", key), process.env.KEY ?? "");

/** @param {string} view */
async function take(view) {
  for (const scheme of /** @type {const} */ (["light", "dark"])) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.waitForTimeout(1500);
    const name = `page-${view}${scheme === "dark" ? "-dark" : ""}.png`;
    await page.screenshot({ path: DOCS + name });
  }
}

if (views.includes("chat")) {
  await page.goto(`${SERVER}#chat`);
  await page.locator("summary", { hasText: "Settings" }).click();
  for (const [name, value] of Object.entries({ temperature: "0.7", max_tokens: "90", seed: "3" })) {
    await page.locator(`input[name=${name}]`).fill(value);
  }
  await page.getByRole("textbox", { name: "Question", exact: true }).fill(QUESTION);
  await page.keyboard.press("Enter");
  await page.getByText("tokens in").waitFor();
  await take("chat");
}
if (views.includes("machine")) {
  await page.goto(`${SERVER}#machine`);
  await page.waitForTimeout(WATCHED * 1000);
  const high = await page.evaluate(() => document.querySelector("main")?.scrollHeight ?? 0);
  await page.setViewportSize({ ...SIZE, height: high + 60 });
  await take("machine");
}
await browser.close();
