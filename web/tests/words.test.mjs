// What needs no browser: the parts of the page that are functions of their arguments.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";

/** @type {import("vite").ViteDevServer} */
let vite;
before(async () => {
  const root = fileURLToPath(new URL("..", import.meta.url));
  vite = await createServer({ root, logLevel: "error", server: { middlewareMode: true, ws: false }, appType: "custom" });
});
after(() => vite.close());

test("server-sent events come whole, wherever the text is cut", async () => {
  /** @type {typeof import("../src/server/events")} */
  const { EventReader } = /** @type {any} */ (await vite.ssrLoadModule("/src/server/events.ts"));
  const told = ": keep-alive\n\ndata: one\n\n: keep-alive\n\nevent: error\r\ndata: two\r\ndata:three\r\n\r\ndata: fo";
  const whole = [
    { name: "message", data: "one" },
    { name: "error", data: "two\nthree" },
  ];
  for (let size = 1; size <= told.length; size += 1) {
    const reader = new EventReader();
    const pieces = told.match(new RegExp(`[^]{1,${size}}`, "g")) ?? [];
    assert.deepEqual(pieces.flatMap((piece) => reader.feed(piece)), whole, `in pieces of ${size}`);
  }
});

test("numbers are written as the rest of Windlass writes them", async () => {
  /** @type {typeof import("../src/words/units")} */
  const { rate, seconds, size, speed } = /** @type {any} */ (await vite.ssrLoadModule("/src/words/units.ts"));
  const sizes = [0, 1023, 1024, 1.5 * 2 ** 30, 24 * 2 ** 30, 2 ** 50].map(size);
  assert.deepEqual(sizes, ["0 B", "1023 B", "1.00 KiB", "1.50 GiB", "24.0 GiB", "1024 TiB"]);
  assert.deepEqual([0, 2.65e9, 999.6e6].map(rate), ["0 B/s", "2.65 GB/s", "1.00 GB/s"]);
  assert.deepEqual([0.0021, 0.42, 2.05, 59.96, 125, 11_400, 190_000, null].map(seconds), [
    "2.1 ms", "420 ms", "2.05 s", "1 min 00 s", "2 min 05 s", "3 h 10 min", "2 d 04 h", "–",
  ]);
  assert.deepEqual([0, 8.449, 48.71, 1234.5, null].map(speed), ["0.00", "8.45", "48.7", "1,235", "–"]);
});

test("a conversation is asked with what is set, and no more", async () => {
  /** @type {typeof import("../src/chat/conversation")} */
  const { newConversation, questionOf, titleOf, withoutLastAnswer, withQuestion } = /** @type {any} */ (
    await vite.ssrLoadModule("/src/chat/conversation.ts")
  );
  const empty = newConversation("id", 1);
  const asked = withQuestion({ ...empty, parameters: { ...empty.parameters, temperature: 0 } }, " What\nnow? ", 2);
  assert.equal(titleOf(empty), "New conversation");
  assert.equal(titleOf(asked), "What now?");
  assert.deepEqual(questionOf(asked), { messages: [{ role: "user", content: " What\nnow? " }], temperature: 0 });
  const failed = { ...asked, messages: [...asked.messages, { role: /** @type {const} */ ("assistant"), text: "" }] };
  assert.deepEqual(withoutLastAnswer(failed).messages, asked.messages);
  // A question to which nothing came is no part of the conversation any more.
  assert.deepEqual(questionOf(withQuestion(failed, "And now?", 3)).messages, [{ role: "user", content: "And now?" }]);
  assert.deepEqual(newConversation("next", 3, asked), { ...asked, id: "next", title: "", messages: [], changed: 3 });
});
