// The chat, as one talks with it: by mouse, by keyboard, and with an answer that means harm.

import assert from "node:assert/strict";
import { test } from "node:test";
import { answerByHand, answerWith, ask, openerOfPages, questionField, set, URL_OF_SERVER, until } from "./browser.mjs";

const open = openerOfPages();

/** @param {import("playwright-core").Page} page */
const answers = (page) => page.getByRole("article", { name: "Model" });

test("a question is answered piece by piece", async () => {
  const { page, check } = await open();
  const answer = await answerByHand(page);
  await ask(page, "Who is there?");
  const running = page.locator('article[aria-busy="true"] .prose');
  for (const [word, shown] of [["Nay, ", "Nay,"], ["answer ", "Nay, answer"], ["me.", "Nay, answer me."]]) {
    await answer.say(word ?? "");
    await until(async () => (await running.textContent())?.trim() === shown);
  }
  await answer.end();
  await running.waitFor({ state: "detached" });
  assert.equal((await answers(page).locator(".prose").textContent())?.trim(), "Nay, answer me.");
  await check();
});

test("an answer of the model ends where it was told to", async () => {
  const { page, check } = await open();
  await set(page, { max_tokens: 300, temperature: 0 });
  await ask(page, "Who is there?");
  await page.getByText(/300 tokens in .* ended at the limit of tokens/).waitFor();
  assert.notEqual(await answers(page).locator(".prose").textContent(), "");
  await check();
});

test("the answer is the one that the interface gives, with the settings and the system prompt", async () => {
  const { page, check } = await open();
  await set(page, { max_tokens: 24, temperature: 0.9, top_p: 0.8, seed: 7 });
  await page.getByLabel("System prompt").fill("ROMEO:");
  const sent = page.waitForRequest("**/v1/chat/completions");
  await ask(page, "Speak of love");
  const body = (await sent).postDataJSON();
  assert.deepEqual(
    { ...body, model: undefined },
    {
      model: undefined,
      messages: [
        { role: "system", content: "ROMEO:" },
        { role: "user", content: "Speak of love" },
      ],
      max_tokens: 24,
      temperature: 0.9,
      top_p: 0.8,
      seed: 7,
      stream: true,
      stream_options: { include_usage: true },
    },
  );
  await page.getByText("24 tokens in").waitFor();
  const kept = await page.evaluate(() => Object.entries(localStorage).find(([key]) => key.includes("conversation"))?.[1]);
  const shown = JSON.parse(kept ?? "").messages[1].text;
  const headers = { ...(await (await sent).allHeaders()) };
  const direct = await fetch(new URL("v1/chat/completions", URL_OF_SERVER), {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: headers.authorization ?? "" },
    body: JSON.stringify({ ...body, stream: false, stream_options: undefined }),
  });
  assert.equal(shown, (await direct.json()).choices[0].message.content);
  await check();
});

test("an answer that is stopped keeps what came, and the server hears of it", async () => {
  const { page, check } = await open();
  const answer = await answerByHand(page);
  await ask(page, "Speak on");
  await answer.say("I speak");
  await page.locator('article[aria-busy="true"] .prose').waitFor();
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByText("stopped by you").waitFor();
  assert.equal((await answers(page).locator(".prose").textContent())?.trim(), "I speak");
  await page.getByRole("button", { name: "Send" }).waitFor();
  await answer.left;
  await check();
});

test("an answer made again takes the place of the first", async () => {
  const { page, check } = await open();
  await set(page, { max_tokens: 12, temperature: 1 });
  await ask(page, "Once more");
  await page.getByText("12 tokens in").waitFor();
  const again = page.waitForRequest("**/v1/chat/completions");
  await page.getByRole("button", { name: "Regenerate" }).click();
  assert.deepEqual((await again).postDataJSON().messages, [{ role: "user", content: "Once more" }]);
  await page.locator('article[aria-busy="true"]').waitFor({ state: "detached" });
  await page.getByText("12 tokens in").waitFor();
  assert.equal(await answers(page).count(), 1);
  await check();
});

test("conversations outlive the page, are renamed and deleted", async () => {
  const { page, check } = await open();
  await answerWith(page, "Good morrow.");
  await ask(page, "First question");
  await answers(page).getByText("Good morrow.").waitFor();
  await page.getByRole("button", { name: "New conversation" }).click();
  await ask(page, "Second question");
  await answers(page).getByText("Good morrow.").waitFor();

  await set(page, { temperature: 0.3 });
  await page.reload();
  await page.locator("summary", { hasText: "Settings" }).click();
  assert.equal(await page.locator("input[name=temperature]").inputValue(), "0.3");
  await page.getByRole("button", { name: "First question", exact: true }).click();
  await until(async () => (await page.locator("input[name=temperature]").inputValue()) === "");
  await page.getByRole("button", { name: "Rename First question" }).click();
  await page.getByLabel("Title").fill("Greetings");
  await page.getByLabel("Title").press("Enter");
  await page.getByRole("button", { name: "Delete Greetings" }).click();
  await page.getByRole("button", { name: "Yes, delete" }).click();
  assert.equal(await page.getByRole("button", { name: "Greetings", exact: true }).count(), 0);
  await page.getByRole("article", { name: "You" }).getByText("Second question").waitFor();
  await check();
});

test("an answer and its code are copied as they were written", async () => {
  const { page, check } = await open({ permissions: ["clipboard-read", "clipboard-write"] });
  const text = "Some **code**:\n\n```python\nprint('<b>')\n```\n\nThat is all.";
  await answerWith(page, text);
  await ask(page, "Code, please");
  await page.getByRole("button", { name: "Copy code" }).click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "print('<b>')");
  await page.getByRole("button", { name: "Copy answer" }).click();
  await until(async () => (await page.evaluate(() => navigator.clipboard.readText())) === text);
  await check();
});

test("markdown is shown as what it means", async () => {
  const { page, check } = await open();
  await answerWith(
    page,
    "# Title\n\nOne line\nand another\n\nA *word*, `x &lt; y`, a &lt; b &amp; c, [a link](https://example.org/a?b=1&c=2).\n\n" +
      "3. three\n4. four\n\n| a | b |\n| - | -: |\n| 1 | 2 |\n\n> quoted\n\n- [x] done\n",
  );
  await ask(page, "Markdown");
  const prose = answers(page).locator(".prose");
  await prose.locator("h3", { hasText: "Title" }).waitFor();
  assert.equal(await prose.getByText("One line").evaluate((line) => line.innerHTML), "One line<br>and another");
  assert.equal(await prose.locator("em").textContent(), "word");
  assert.equal(await prose.locator("code").textContent(), "x &lt; y");
  assert.match((await prose.textContent()) ?? "", /a < b & c/);
  assert.equal(await prose.locator("a").getAttribute("href"), "https://example.org/a?b=1&c=2");
  assert.equal(await prose.locator("ol").getAttribute("start"), "3");
  assert.deepEqual(await prose.locator("td").allTextContents(), ["1", "2"]);
  assert.equal(await prose.locator("blockquote").textContent(), "quoted");
  await check();
});

test("a hostile answer stays text", async () => {
  const { page, check } = await open();
  const hostile = [
    "<script>window.harmed = 1</script>",
    "<img src=x onerror='window.harmed = 2'>",
    "before <b onmouseover='window.harmed = 3'>bold</b> after <svg/onload=window.harmed=4>",
    "[press](javascript:window.harmed=5) [press](JaVaScRiPt:window.harmed=6) [press](&#106;avascript:window.harmed=7)",
    "[press](data:text/html,<script>parent.harmed=8</script>) [press](  javascript:window.harmed=9) <javascript:harmed=10>",
    "![picture](https://evil.example/pixel.png) ![picture](javascript:window.harmed=11)",
    "[reference]\n\n[reference]: javascript:window.harmed=12",
    "<iframe src='https://evil.example/'></iframe><style>body{display:none}</style><form action=//evil.example><input>",
    "```html\n</code></pre><script>window.harmed = 13</script>\n```",
    "&lt;script&gt;window.harmed = 14&lt;/script&gt;",
    '[title](https://good.example "\\" onmouseover=window.harmed=15 x=\\"")',
  ].join("\n\n");
  await answerWith(page, hostile);
  await ask(page, "<img src=x onerror='window.harmed = 20'>");
  await page.getByRole("button", { name: "Copy answer" }).waitFor();

  const articles = page.locator("article");
  assert.equal(await articles.locator("script, img, svg, iframe, style, form, input, b, object, embed").count(), 0);
  const links = await articles.locator("a").evaluateAll((all) => all.map((one) => one.getAttribute("href")));
  assert.deepEqual(links, ["https://evil.example/pixel.png", "https://good.example"]);
  const handlers = await articles
    .locator("*")
    .evaluateAll((all) => all.flatMap((one) => one.getAttributeNames().filter((name) => name.startsWith("on"))));
  assert.deepEqual(handlers, []);
  for (const press of await articles.getByText("press").all()) await press.hover();
  const shown = (await answers(page).textContent()) ?? "";
  for (const word of ["<script>window.harmed = 1</script>", "<img src=x", "onload=window.harmed=4", "<iframe"]) {
    assert.ok(shown.includes(word), `${word} is not shown as text`);
  }
  assert.equal(await page.evaluate(() => "harmed" in window), false);
  await check();
});

test("a thought is shown apart from the answer", async () => {
  const { page, check } = await open();
  await answerWith(page, "<think>\nTwo and two.\n</think>\n\nFour.");
  await ask(page, "2 + 2");
  await answers(page).getByText("Four.").waitFor();
  assert.equal(await page.getByText("Two and two.").isVisible(), false);
  await page.getByText("Thought", { exact: true }).click();
  assert.equal(await page.getByText("Two and two.").isVisible(), true);
  await check();
});

test("what the server refuses is said where the answer would be, and can be asked again", async () => {
  const { page, check } = await open();
  await set(page, { max_tokens: 100_000 });
  await ask(page, "Too much");
  const alert = page.getByRole("alert");
  await alert.waitFor();
  assert.match((await alert.textContent()) ?? "", /\d/);
  await page.locator("input[name=max_tokens]").fill("5");
  await page.locator("input[name=max_tokens]").press("Tab");
  await page.getByRole("button", { name: "Regenerate" }).click();
  await page.getByText("5 tokens in").waitFor();
  await check(/status of 400/);
});

test("a server that breaks off in the middle of an answer is named, and the words stay", async () => {
  const { page, check } = await open();
  const body =
    'data: {"choices":[{"delta":{"content":"Half a"}}]}\n\n' +
    'event: error\ndata: {"error":{"message":"The disk is full: 0 B of 4 GiB are free."}}\n\n';
  await page.route("**/v1/chat/completions", (route) =>
    route.fulfill({ headers: { "Content-Type": "text/event-stream" }, body }),
  );
  await ask(page, "Anything");
  await page.getByRole("alert").getByText("The disk is full: 0 B of 4 GiB are free.").waitFor();
  await answers(page).getByText("Half a").waitFor();
  await check();
});

test("all of it works from the keyboard", async () => {
  const { page, check } = await open();
  const answer = await answerByHand(page);
  await questionField(page).focus();
  await page.keyboard.type("A line");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("and another");
  await page.keyboard.press("Enter");
  assert.equal(await page.getByRole("article", { name: "You" }).textContent(), "A line\nand another");
  await answer.say("And one more");
  await page.locator('article[aria-busy="true"] .prose').waitFor();
  await page.keyboard.press("Escape");
  await page.getByText("stopped by you").waitFor();

  await page.locator("header a").first().focus();
  const reached = new Set();
  for (let press = 0; press < 40; press += 1) {
    reached.add(await page.evaluate(nameAndRing));
    await page.keyboard.press("Tab");
  }
  for (const name of ["Chat", "Machine", "New conversation", "Copy answer", "Regenerate", "Question", "Send"]) {
    assert.ok(reached.has(`${name} seen`), `${name} is not reached by Tab, or not seen when it is`);
  }
  await check();
});

/** Runs in the page: what has the focus, and whether one sees that. */
function nameAndRing() {
  const element = document.activeElement;
  if (!element || element === document.body) return "";
  const label = element.id ? document.querySelector(`label[for=${element.id}]`) : null;
  const name = element.getAttribute("aria-label") ?? label?.textContent ?? element.textContent ?? "";
  const ring = getComputedStyle(element);
  return `${name.trim()} ${ring.outlineStyle !== "none" && parseFloat(ring.outlineWidth) >= 2 ? "seen" : "not seen"}`;
}
