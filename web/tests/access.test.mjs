// The page is for everybody, and safe to open: axe finds nothing serious, a phone shows it without scrolling sideways,
// and the browser is told to run nothing but what the server sends.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";
import { answerWith, ask, openerOfPages, set, URL_OF_SERVER } from "./browser.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const open = openerOfPages();

const RICH = "## Verse\n\nA [link](https://example.org) and `code`.\n\n```text\nlines\n```\n\n| a | b |\n| - | - |\n| 1 | 2 |\n";
const PHONE = { width: 320, height: 640 };

/** @param {import("playwright-core").Page} page */
async function showConversation(page) {
  await answerWith(page, RICH);
  await set(page, { max_tokens: 30 });
  await ask(page, "Verse");
  await page.getByRole("button", { name: "Regenerate" }).waitFor();
}

/** @param {import("playwright-core").Page} page */
async function showMachine(page) {
  await page.getByRole("heading", { name: "The last pass" }).waitFor();
}

/** @type {[string, (page: import("playwright-core").Page) => Promise<void>][]} */
const VIEWS = [
  ["#chat", showConversation],
  ["#machine", showMachine],
];

for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
  for (const [view, show] of VIEWS) {
    test(`axe finds nothing serious in ${view}, ${colorScheme}`, async () => {
      const { page, check } = await open({ view, colorScheme, reducedMotion: "reduce" });
      await show(page);
      await page.evaluate(AXE);
      const found = await page.evaluate(async () => {
        // @ts-expect-error: the line before brought it in
        const { violations } = await window.axe.run(document);
        return violations.map((/** @type {any} */ one) => `${one.impact} ${one.id}: ${one.nodes[0].html}`);
      });
      assert.deepEqual(found.filter((/** @type {string} */ one) => /^(serious|critical)/.test(one)), []);
      await check();
    });
  }
}

for (const [view, show] of VIEWS) {
  test(`${view} fits a phone`, async () => {
    const { page, check } = await open({ view, viewport: PHONE });
    await show(page);
    const wide = await page.evaluate(() =>
      [document.documentElement, ...document.querySelectorAll("body > *, main > *")].filter(
        (one) => one.getBoundingClientRect().right > window.innerWidth || one.scrollWidth > window.innerWidth,
      ).length,
    );
    assert.equal(wide, 0);
    await check();
  });
}

test("light and dark follow the system, and the reader's choice before it", async () => {
  const { page, check } = await open({ colorScheme: "dark" });
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await paper();
  await page.getByLabel("Colours").selectOption("light");
  const light = await paper();
  assert.notEqual(light, dark);
  await page.reload();
  assert.equal(await paper(), light);
  await page.getByLabel("Colours").selectOption("system");
  assert.equal(await paper(), dark);
  await page.emulateMedia({ colorScheme: "light" });
  assert.equal(await paper(), light);
  await check();
});

test("the browser runs nothing but the page's own files, and sends nothing elsewhere", async () => {
  const response = await fetch(URL_OF_SERVER);
  const policy = response.headers.get("Content-Security-Policy") ?? "";
  const rules = new Map(policy.split(";").map((rule) => /** @type {[string, string]} */ (rule.trim().split(/\s+(.*)/s))));
  assert.match(rules.get("default-src") ?? "", /^'(none|self)'$/);
  for (const rule of ["script-src", "style-src", "connect-src"]) {
    assert.equal(rules.get(rule) ?? rules.get("default-src"), "'self'", rule);
  }
  assert.equal(rules.get("frame-ancestors"), "'none'");
  assert.equal(rules.get("base-uri"), "'none'");
  assert.equal(response.headers.get("X-Content-Type-Options"), "nosniff");

  const { page, faults, check } = await open();
  await page.evaluate(() => {
    const script = document.createElement("script");
    script.src = "https://evil.example/script.js";
    const picture = document.createElement("img");
    picture.src = "https://evil.example/pixel.png";
    document.body.append(script, picture);
  }).catch(() => undefined);
  await page.evaluate(() => fetch("https://evil.example/").catch(() => undefined));
  assert.ok(faults.length > 0);
  assert.deepEqual(faults.filter((fault) => fault.startsWith("foreign")), []);
  await check(/Content Security Policy|Trusted/);
});
