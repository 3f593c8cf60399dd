/** Screenshots, accessibility checks by axe, and widths of pages. */
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { AxeResults } from "axe-core";
import type { Page } from "playwright-core";
import { expect } from "vitest";

const DIRECTORY = "e2e/screenshots";
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(DIRECTORY, { recursive: true });

/** Runs axe on the current page. */
async function checkAccess(page: Page, name: string): Promise<void> {
  await page.evaluate(axe);
  const results = (await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")) as AxeResults;
  const found = results.violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
  expect(found, `axe on ${name}`).toEqual([]);
}

/** Screenshot in a window as high as the page, so that sticky elements are at the edges. */
export async function shoot(page: Page, path: string, window: { width: number; height: number }): Promise<void> {
  await page.setViewportSize(window);
  const height = await page.evaluate(async () => {
    // Charts are resized one frame later.
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return document.documentElement.scrollHeight;
  });
  await page.setViewportSize({ width: window.width, height: Math.max(window.height, height) });
  await page.screenshot({ path });
  await page.setViewportSize(window);
}

/**
 * Takes screenshots in both themes and at phone width, checks each with axe, and fails if the page
 * is wider than the window.
 */
export async function look(page: Page, name: string): Promise<void> {
  const select = page.getByLabel("Theme");
  const size = page.viewportSize() ?? { width: 1280, height: 860 };
  for (const shade of ["light", "dark"]) {
    await select.selectOption(shade);
    await shoot(page, `${DIRECTORY}/${name}-${shade}.png`, size);
    await checkAccess(page, `${name}, ${shade}`);
  }
  await select.selectOption("light");
  await shoot(page, `${DIRECTORY}/${name}-phone.png`, { width: 375, height: 780 });
  const widths = await page.evaluate(() => ({ page: document.documentElement.scrollWidth, window: innerWidth }));
  await page.setViewportSize(size);
  expect(widths.page, `width of ${name} on a phone`).toBeLessThanOrEqual(widths.window);
}
