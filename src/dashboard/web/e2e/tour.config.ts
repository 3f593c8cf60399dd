import { defineConfig } from "vitest/config";

/** Screenshots of every page; see `tour.ts`. */
export default defineConfig({
  test: { include: ["e2e/tour.ts"], testTimeout: 600_000, hookTimeout: 300_000 },
});
