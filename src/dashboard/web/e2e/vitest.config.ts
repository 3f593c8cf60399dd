import { defineConfig } from "vitest/config";

/** One browser and one server for all: the tests of a file are the chapters of one story. */
export default defineConfig({
  test: { include: ["e2e/**/*.test.ts"], testTimeout: 240_000, hookTimeout: 120_000, fileParallelism: false, bail: 1 },
});
