// The page is built into the Python package, with names that do not change, so that a commit shows what became of each
// file and the server needs no manifest.

import { defineConfig } from "vite";

// While the page is worked on (`npm run dev`), what it asks goes to a server that runs by itself. That refuses pages from
// elsewhere, so it is told that the page is its own.
const SERVER = process.env.WINDLASS_URL ?? "http://127.0.0.1:8000";
const PROXY = { target: SERVER, changeOrigin: true, headers: { origin: SERVER } };

export default defineConfig({
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  server: { proxy: { "/v1": PROXY, "/windlass": PROXY } },
  build: {
    outDir: "../src/windlass/server/page",
    emptyOutDir: true,
    // Browsers that know light-dark(), so that the colours stay one list.
    target: ["chrome123", "firefox120", "safari17.5"],
    modulePreload: { polyfill: false },
    rolldownOptions: {
      output: { entryFileNames: "assets/page.js", assetFileNames: "assets/page[extname]", codeSplitting: false },
    },
  },
});
