import { defineConfig } from "vitest/config";

/** HTTP address of the server for `npm run dev`. */
const server = process.env["VISAGE_HTTP"] ?? "http://127.0.0.1:50052";

export default defineConfig({
  // Relative, to work at any path behind a proxy.
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy: { "^/(visage\\.v1\\.|datasets/|metrics|readyz|livez|session|login|logout)": server } },
  test: { include: ["tests/**/*.test.ts"] },
});
