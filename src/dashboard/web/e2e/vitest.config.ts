import { defineConfig } from "vitest/config";

/** The tests of a file share one browser and one server, and run in order. */
export default defineConfig({
  test: { include: ["e2e/**/*.test.ts"], testTimeout: 240_000, hookTimeout: 120_000, fileParallelism: false, bail: 1 },
});
