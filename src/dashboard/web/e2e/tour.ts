/**
 * Screenshots of every page in both themes and two widths, for reviews of the appearance.
 *
 * Starts a server with drawn faces and several trainings, or uses the server at TOUR_HTTP
 * (`HOST:PORT`). The pages are those in `dist`; the images are written to TOUR_DIRECTORY. TOUR_ONLY
 * restricts the tour to pages whose name contains it. With TOUR_README, the tour also replaces
 * `screenshot.png`, the image in the README of the repository.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Page, chromium } from "playwright-core";
import { it } from "vitest";
import { shoot } from "./look";
import { Proxy } from "./proxy";
import { Server, binary, environment } from "./server";
import { FLAGS } from "./window";

const DIRECTORY = resolve(process.env["TOUR_DIRECTORY"] ?? "e2e/screenshots/tour");
const ONLY = process.env["TOUR_ONLY"] ?? "";
const WIDTHS = [1280, 390];
const THEMES = ["light", "dark"];

/** Name of a page, its address, and the actions before the screenshot. */
type Stop = [name: string, hash: string, prepare?: (page: Page) => Promise<void>];

/** Runs a command of the program against the server. */
function run(server: Server, ...options: string[]): void {
  const done = spawnSync(binary(), ["--server", `http://${server.grpc}`, ...options], { encoding: "utf8", cwd: server.directory, env: environment() });
  // Exit code of a training that failed.
  const isFailedTraining = options[0] === "train" && done.status === 1;
  if (done.status !== 0 && !isFailedTraining) throw new Error(`visage ${options.join(" ")} ended with ${done.status}: ${done.stderr}`);
}

/** Trains on drawn faces: two comparable trainings, one on other images, and one that fails. */
async function fill(server: Server): Promise<void> {
  const faces = server.drawFaces("faces", 120, 128, 7);
  const other = server.drawFaces("other", 80, 128, 3);
  await server.start();
  run(server, "dataset", "register", faces, "--name", "drawn");
  const common = ["--init", "STARTER", "--input-size", "64"];
  run(server, "train", "--dataset", "datasets/drawn", ...common, "--epochs", "12", "--id", "drawn", "--name", "Drawn faces");
  run(server, "train", "--dataset", "datasets/drawn", ...common, "--epochs", "8", "--lr", "5e-4", "--batch-size", "16", "--id", "faster", "--name", "Faster steps");
  run(server, "train", "--dataset", other, "--init", "RANDOM", "--input-size", "64", "--epochs", "3", "--id", "other");
  // More unusable files than tolerated.
  const broken = server.drawFaces("broken", 4, 64, 5);
  for (let index = 0; index < 4; index += 1) writeFileSync(join(broken, `30_broken-${index}.jpg`), "not an image");
  run(server, "train", "--dataset", broken, ...common, "--epochs", "1", "--id", "failing");
}

it("visits every page", async () => {
  const given = process.env["TOUR_HTTP"];
  const server = new Server();
  const portraits = server.drawFaces("portraits", 2, 256, 11);
  const group = process.env["TOUR_GROUP"];
  if (!given) await fill(server);
  const images = readdirSync(portraits).map((name) => join(portraits, name));
  const proxy = new Proxy("/", () => given ?? server.http, true);
  const address = await proxy.listen();
  const browser = await chromium.launch({ executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: FLAGS });
  const page = await (await browser.newContext({ reducedMotion: "reduce" })).newPage();
  const shown = async (): Promise<void> => {
    await page.locator("[data-link=live]").waitFor();
    await page.locator(".loading").first().waitFor({ state: "detached" });
    await page.waitForLoadState("networkidle", { timeout: 1_000 }).catch(() => undefined);
  };
  const predict = (files: string[], options: string[]) => async (): Promise<void> => {
    for (const option of options) await page.getByLabel(option, { exact: true }).check();
    await page.getByLabel("Choose images").setInputFiles(files);
    await page.getByText("Predicting…").first().waitFor({ state: "detached", timeout: 120_000 });
  };
  const check = async (): Promise<void> => {
    await page.locator("[name='dataset.name']").selectOption("datasets/drawn");
    await page.getByRole("button", { name: "Check", exact: true }).click();
    await page.locator(".failure, .checked").first().waitFor({ timeout: 60_000 });
  };
  const stops: Stop[] = [
    ["trainings", "#/trainings"],
    ["training", "#/trainings/faster"],
    ["training-failed", "#/trainings/failing"],
    ["compare", "#/compare?t=drawn,faster,other"],
    ["start", "#/start"],
    ["start-checked", "#/start", check],
    ["datasets", "#/datasets"],
    ["dataset", "#/datasets/drawn"],
    ["models", "#/models"],
    ["model", "#/models/2"],
    ["model-starter", "#/models/1"],
    ["predict", "#/predict", predict(images, ["Explain"])],
    ...(group ? ([["predict-group", "#/predict", predict([group], ["Explain", "Detect faces"])]] as Stop[]) : []),
    ["server", "#/server"],
  ];
  try {
    mkdirSync(DIRECTORY, { recursive: true });
    for (const [name, hash, prepare] of stops) {
      if (!name.includes(ONLY)) continue;
      await page.setViewportSize({ width: 1280, height: 860 });
      await page.goto(`${address}${hash}`);
      await page.reload();
      await shown();
      await prepare?.(page);
      for (const theme of THEMES) {
        await page.locator(".theme select").selectOption(theme);
        for (const width of WIDTHS) await shoot(page, join(DIRECTORY, `${name}-${theme}-${width}.png`), { width, height: 860 });
      }
      await page.locator(".theme select").selectOption("system");
    }
    if (process.env["TOUR_README"]) {
      await page.setViewportSize({ width: 1280, height: 1000 });
      await page.goto(`${address}#/trainings/drawn`);
      await page.reload();
      await shown();
      await page.screenshot({ path: "screenshot.png" });
    }
  } finally {
    await browser.close();
    await proxy.close();
    await server.close();
  }
});
