/** End-to-end tests of the dashboard in Chromium with a real server. */
import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Browser, type BrowserContext, type Locator, type Page, chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { look } from "./look";
import { Proxy, hasThisDashboard } from "./proxy";
import { Server, until } from "./server";
import { FLAGS } from "./window";

const server = new Server();
let browser: Browser;
let context: BrowserContext;
let page: Page;
let atRoot: Proxy;
let atSubPath: Proxy;
let root: string;
let subPath: string;
let faces: string;
const faults: string[] = [];

const cameras = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];

beforeAll(async () => {
  faces = server.drawFaces("faces", 60, 64);
  await server.start();
  const ownFiles = !(await hasThisDashboard(server.http));
  if (ownFiles) console.log("the program contains another dashboard; testing the one in dist");
  atRoot = new Proxy("/", () => server.http, ownFiles);
  atSubPath = new Proxy("/some/where/", () => server.http, ownFiles);
  root = ownFiles ? await atRoot.listen() : `http://${server.http}/`;
  subPath = await atSubPath.listen();
  browser = await chromium.launch({ executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: [...FLAGS, ...cameras] });
  context = await browser.newContext({ viewport: { width: 1280, height: 860 }, permissions: ["camera"], acceptDownloads: true, reducedMotion: "reduce" });
  page = await context.newPage();
  page.on("pageerror", (error) => faults.push(String(error)));
  page.setDefaultTimeout(90_000);
  await page.goto(root);
});

afterAll(async () => {
  await browser?.close();
  await atRoot?.close();
  await atSubPath?.close();
  await server.close();
});

const link = (state: string): Locator => page.locator(`[data-link=${state}]`);
const visit = (hash: string): Promise<void> => page.evaluate((next) => void (location.hash = next), hash);
const field = (path: string): Locator => page.locator(`[name="${path}"]`);
const heading = (text: string | RegExp): Locator => page.getByRole("heading", { level: 1, name: text });

/** Table of the first chart: epoch, training loss and validation loss. */
async function figures(of: Page): Promise<(string | null)[][]> {
  const table = of.locator(".figures").first();
  if (!(await table.evaluate((one: HTMLDetailsElement) => one.open))) await table.locator("summary").click();
  return table.locator("tbody tr").evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
}
/** Completed epochs, without the validation of the initial weights. */
async function epochs(): Promise<number[]> {
  return (await figures(page)).map(([epoch]) => parseInt(epoch ?? "", 10)).filter((epoch) => epoch > 0);
}
/** Opens the folded groups around a field. */
async function unfold(path: string): Promise<void> {
  const folds = page.locator("details.fold", { has: field(path) });
  for (let index = 0; index < (await folds.count()); index += 1) {
    const fold = folds.nth(index);
    if (!(await fold.evaluate((one: HTMLDetailsElement) => one.open))) await fold.locator("summary").first().click();
  }
}
const upTo = (last: number): number[] => Array.from({ length: last }, (_, index) => index + 1);

async function startTraining(values: Record<string, string>): Promise<void> {
  await visit("#/start");
  await heading("New training").waitFor();
  for (const [path, value] of Object.entries(values)) {
    const input = field(path);
    await unfold(path);
    if ((await input.evaluate((one) => one.tagName)) === "SELECT") await input.selectOption(value);
    else await input.fill(value);
  }
  for (const [path, value] of Object.entries(values)) expect(await field(path).inputValue(), path).toBe(value);
  await page.getByRole("button", { name: "Start training" }).click();
}

describe("the dashboard", () => {
  it("shows instructions on an empty server", async () => {
    await link("live").waitFor();
    await page.getByText("No trainings yet").waitFor();
    await look(page, "trainings-empty");
  });

  it("can be used from the keyboard", async () => {
    await page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur());
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Skip to the content");
    await page.keyboard.press("Enter");
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("content");
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.querySelector("main")?.contains(document.activeElement))).toBe(true);
  });

  it("remembers the colour theme", async () => {
    await page.getByLabel("Theme").selectOption("dark");
    await page.reload();
    expect(await page.evaluate(() => document.documentElement.dataset["theme"])).toBe("dark");
    await page.getByLabel("Theme").selectOption("system");
    await page.emulateMedia({ colorScheme: "dark" });
    await page.waitForFunction(() => document.documentElement.dataset["theme"] === "dark");
    await page.emulateMedia({ colorScheme: "light" });
    await page.waitForFunction(() => document.documentElement.dataset["theme"] === "light");
  });

  it("shows violations at their fields", async () => {
    await startTraining({ "dataset.path": faces, max_epochs: "ten" });
    await page.locator(".field", { has: field("max_epochs") }).getByText("is not a whole number").waitFor();
    expect(await field("max_epochs").getAttribute("aria-invalid")).toBe("true");
    await page.getByText("1 field needs a change, marked in red below").waitFor();
    await field("max_epochs").fill("3");
    await unfold("optimizer.learning_rate");
    await field("optimizer.learning_rate").fill("-1");
    await unfold("dataset.test_fraction");
    await field("dataset.test_fraction").fill("7");
    await page.locator("summary", { has: page.getByText("Optimizer", { exact: true }) }).click();
    await page.getByRole("button", { name: "Check", exact: true }).click();
    await page.getByText("2 fields need a change, marked in red below").waitFor();
    // The folded group opens for it.
    for (const path of ["optimizer.learning_rate", "dataset.test_fraction"]) {
      await page.locator(".field.is-wrong", { has: field(path) }).locator(".wrong").waitFor();
      expect(await field(path).getAttribute("aria-invalid")).toBe("true");
    }
    expect(await field("batch_size").getAttribute("aria-invalid")).toBe("false");
    await look(page, "start-wrong");
  });

  it("shows the server's defaults before it is asked", async () => {
    await visit("#/trainings");
    await visit("#/start");
    await heading("New training").waitFor();
    /** Shown defaults of all fields. */
    const shown = (): Promise<Record<string, string>> =>
      page.locator(".spec-form [name]").evaluateAll((all) =>
        Object.fromEntries(all.map((one) => [one.getAttribute("name"), one instanceof HTMLSelectElement ? (one.options[0]?.text ?? "") : (one as HTMLInputElement).placeholder])),
      );
    await field("dataset.path").fill(faces);
    for (const recipe of ["BEST", "FAST", "REFERENCE"]) {
      await field("recipe").selectOption(recipe);
      // Its default weights need a file or a download.
      if (recipe === "REFERENCE") await field("init.kind").selectOption("RANDOM");
      const before = await shown();
      await page.getByRole("button", { name: "Check", exact: true }).click();
      await page.locator(".checked").waitFor();
      await until(async () => (await field("restart_policy.max_restarts").getAttribute("placeholder")) !== "", "the server's defaults are shown");
      const after = await shown();
      // The number of restarts is a setting of the server.
      const differing = Object.keys(before).filter((path) => before[path] !== after[path] && path !== "restart_policy.max_restarts");
      expect(differing.map((path) => [path, before[path], after[path]]), recipe).toEqual([]);
    }
    // Three checks leave a single notice.
    expect(await page.locator(".notice").count()).toBe(1);
    await field("recipe").selectOption("");
    await field("init.kind").selectOption("");
  });

  it("checks a spec and shows the dataset and the defaults", async () => {
    await field("max_epochs").fill("");
    await field("init.kind").selectOption("STARTER");
    await page.getByRole("button", { name: "Check", exact: true }).click();
    const found = page.locator(".checked");
    await found.waitFor();
    // 60 faces were drawn.
    const images = await found.locator("tbody td:nth-child(2)").allInnerTexts();
    expect(images.map(Number).reduce((sum, one) => sum + one, 0)).toBe(60);
    // The API's documented defaults.
    expect(await field("batch_size").getAttribute("placeholder")).toBe("32");
    expect(await field("optimizer.learning_rate").getAttribute("placeholder")).toBe("0.0001");
    await look(page, "start");
  });

  it("starts a training and shows its curve grow", async () => {
    await startTraining({ "dataset.path": faces, "init.kind": "STARTER", input_size: "64", batch_size: "8", max_epochs: "9000", feature_cache: "OFF", display_name: "Drawn faces" });
    await heading(/Drawn faces/).waitFor();
    await until(async () => (await epochs()).length >= 2, "two epochs are shown");
    const before = (await epochs()).length;
    await until(async () => (await epochs()).length > before, "the curve grows");
    await look(page, "training-running");
  });

  it("continues after the server was killed, without a reload, a gap or a repeat", async () => {
    await page.evaluate(() => Object.assign(window, { isSamePage: true }));
    const before = (await epochs()).at(-1) ?? 0;
    await server.kill();
    await link("waiting").waitFor();
    expect(await link("waiting").innerText()).toContain("Reconnecting");
    await look(page, "reconnecting");
    await server.start();
    await link("live").waitFor();
    const last = await until(async () => {
      const now = (await epochs()).at(-1) ?? 0;
      return now > before + 2 && now;
    }, "epochs come after the restart");
    const shown = await epochs();
    expect(shown).toEqual(upTo(shown.length));
    expect(shown.length).toBeGreaterThanOrEqual(last);
    expect(await page.evaluate(() => "isSamePage" in window)).toBe(true);
    await page.getByText(/\(start 2\)/).first().waitFor();
    expect(await page.locator(".chart .plot").first().getAttribute("aria-label")).toMatch(/Restart: epoch \d+/);
  });

  it("pauses and resumes", async () => {
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: "Resume" }).click();
    await page.locator("h1 .chip", { hasText: "Running" }).waitFor();
    const before = (await epochs()).length;
    await until(async () => (await epochs()).length > before, "the curve grows again");
  });

  it("changes a running training", async () => {
    await page.getByRole("button", { name: "Change…" }).click();
    await page.getByRole("dialog").getByLabel("Early stopping patience").fill("5000");
    await page.getByRole("dialog").getByRole("button", { name: "Change", exact: true }).click();
    await page.getByText(/of 5000 without improvement/).waitFor();
  });

  it("stops with the best checkpoint, which becomes a version", async () => {
    await page.getByRole("button", { name: "Stop…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Stop and keep the best" }).click();
    await page.locator("h1 .chip", { hasText: "Succeeded" }).waitFor();
    await page.locator(".tile", { hasText: "Model version" }).getByRole("link", { name: "2" }).waitFor();
    const shown = await epochs();
    expect(shown).toEqual(upTo(shown.length));
    // A new page reads in one connection what this page received over three.
    const fresh = await context.newPage();
    await fresh.goto(page.url());
    await until(async () => (await fresh.locator(".figures").count()) > 0 && (await figures(fresh)).at(-1)?.[0] === (await figures(page)).at(-1)?.[0], "the new page has read everything");
    expect(await figures(page)).toEqual(await figures(fresh));
    await fresh.close();
    await page.locator(".figures summary").first().click();
    await look(page, "training");
  });

  it("downloads a checkpoint", async () => {
    const arrives = page.waitForEvent("download");
    await page.getByRole("button", { name: "Download manifest.json" }).first().click();
    const download = await arrives;
    expect(statSync(await download.path()).size).toBeGreaterThan(100);
    expect(download.suggestedFilename()).toMatch(/manifest\.json$/);
  });

  it("promotes a version and rolls back", async () => {
    await visit("#/models");
    const second = page.locator("[data-version='2']");
    await second.getByRole("button", { name: "Promote… version 2" }).click();
    await look(page, "promote");
    await page.getByRole("dialog").getByRole("button", { name: "Make it live" }).click();
    await second.locator(".chip", { hasText: "live" }).waitFor();
    await page.locator("[data-version='1'] .chip", { hasText: "previous" }).waitFor();
    await look(page, "models");
    await page.getByRole("button", { name: "Roll back to version 1" }).click();
    await page.locator("[data-version='1'] .chip", { hasText: "live" }).waitFor();
    await second.locator(".chip", { hasText: "previous" }).waitFor();
    const moves = page.getByRole("region", { name: "Alias history" }).locator("tbody tr");
    await until(async () => (await moves.count()) >= 4, "the history has both moves of both aliases");
  });

  it("sets an alias, rejects an invalid one at its field and removes it", async () => {
    const second = page.locator("[data-version='2']");
    await second.getByRole("button", { name: "Add alias… to version 2" }).click();
    await page.getByLabel("Alias", { exact: true }).fill("Not Good");
    await page.getByRole("dialog").getByRole("button", { name: "Add alias" }).click();
    await page.getByRole("dialog").locator(".field-stack .wrong").waitFor();
    await page.getByLabel("Alias", { exact: true }).fill("candidate");
    await page.getByRole("dialog").getByRole("button", { name: "Add alias" }).click();
    await second.locator(".chip", { hasText: "candidate" }).waitFor();
    await second.getByRole("button", { name: "Remove the alias candidate" }).click();
    await second.locator(".chip", { hasText: "candidate" }).waitFor({ state: "detached" });
  });

  it("shows a version with its evaluation", async () => {
    await visit("#/models/2");
    await page.getByText("Evaluation on the test images of the training").waitFor();
    await page.getByRole("region", { name: "By age" }).waitFor();
    await look(page, "model");
    await visit("#/models/99");
    await page.getByText("Version not found").waitFor();
  });

  it("evaluates a version on a dataset", async () => {
    await visit("#/models/2");
    await page.getByLabel("Directory or manifest").fill(faces);
    await page.getByLabel("Images to evaluate").selectOption("All images");
    await page.getByRole("button", { name: "Evaluate" }).click();
    const result = page.locator(`[data-evaluation="${faces}"]`);
    await result.waitFor();
    // 60 faces were drawn.
    expect(await result.locator(".facts div", { hasText: /^Images/ }).first().locator("dd").innerText()).toBe("60");
    await result.getByText(/of these 60 images were trained on|training images of this version are not recorded/).waitFor();
    await look(page, "model-evaluated");
    await page.getByLabel("Directory or manifest").fill(server.path("nowhere"));
    await page.getByRole("button", { name: "Evaluate" }).click();
    await page.getByText("EvaluateModelVersion failed").waitFor();
  });

  it("predicts drawn faces and reports an unreadable image", async () => {
    await visit("#/predict");
    const images = readdirSync(faces).sort().slice(0, 2).map((name) => join(faces, name));
    const broken = server.path("broken.jpg");
    writeFileSync(broken, "not an image");
    const bigger = join(server.drawFaces("portrait", 1, 200), readdirSync(server.path("portrait"))[0] ?? "");
    await page.getByLabel("Choose images").setInputFiles([bigger, ...images, broken]);
    await until(async () => (await page.locator(".age-value").count()) === 3, "three ages are shown");
    for (const text of await page.locator(".age-value").allInnerTexts()) expect(parseFloat(text)).toBeGreaterThan(0);
    await page.locator(".prediction", { hasText: "broken.jpg" }).getByText("Predict failed").waitFor();
    await look(page, "predict");
  });

  it("offers heat maps and faces only if the server supports them", async () => {
    await visit("#/server");
    const features = await page.locator(".facts div", { hasText: "Features" }).locator("dd").innerText();
    const api = readFileSync("../../../proto/visage/v1/prediction.proto", "utf8");
    const has = (feature: string): boolean => features.split(", ").includes(feature) && api.includes(`bool ${feature} =`);
    await visit("#/predict");
    await page.getByLabel("Version").locator("option", { hasText: "live" }).first().waitFor({ state: "attached" });
    await page.getByText(/at most .* each/).waitFor();
    expect(await page.getByLabel("Explain").count()).toBe(has("explain") ? 1 : 0);
    expect(await page.getByLabel("Detect faces").count()).toBe(has("detect_faces") ? 1 : 0);
    const portrait = join(server.path("portrait"), readdirSync(server.path("portrait"))[0] ?? "");
    if (has("explain")) {
      await page.getByLabel("Explain").check();
      await page.getByLabel("Choose images").setInputFiles(portrait);
      await page.locator(".heat img").first().waitFor();
      // The sum of the explanation is the age.
      const explained = page.locator(".prediction", { has: page.locator(".heat") }).first();
      const [age, base, part] = (await explained.locator(".heat .muted").innerText()).match(/[0-9.]+/g)?.map(Number) ?? [];
      const sign = (await explained.locator(".heat .muted").innerText()).includes("−") ? -1 : 1;
      expect(Math.abs((base ?? 0) + sign * (part ?? 0) - (age ?? 0))).toBeLessThan(0.11);
      expect(await explained.locator(".age-value").innerText()).toBe(`${age?.toFixed(1)} years`);
      await page.getByLabel("Explain").uncheck();
    }
    if (has("detect_faces")) {
      await page.getByLabel("Detect faces", { exact: true }).check();
      await page.getByLabel("Choose images").setInputFiles(portrait);
      await page.locator("button.face").or(page.getByText("No face was found")).first().waitFor();
      // Faces of this size and seed are found by the detector.
      const bigFaces = server.drawFaces("big", 2, 256, 11);
      const group = readdirSync(bigFaces)[0] ?? "";
      await page.getByLabel("Choose images").setInputFiles(join(bigFaces, group));
      await page.locator(".prediction", { hasText: group }).getByRole("button", { name: /^Face 1, / }).click();
      expect(await page.evaluate(() => document.activeElement?.querySelector(".face-title")?.textContent)).toMatch(/Face 1/);
      await look(page, "predict-faces");
      // Without face detection a large image has a hint, which offers it.
      await page.getByLabel("Detect faces", { exact: true }).uncheck();
      const large = server.drawFaces("large", 1, 900, 11);
      const name = readdirSync(large)[0] ?? "";
      await page.getByLabel("Choose images").setInputFiles(join(large, name));
      await page.getByText(/without face detection the whole image counts as one cropped face/).waitFor();
      await page.getByRole("button", { name: `Detect faces on ${name}` }).click();
      await page.locator(".prediction", { hasText: name }).first().locator("button.face").or(page.getByText("No face was found")).first().waitFor();
      // The next tests use images without a detectable face.
      await page.getByLabel("Detect faces", { exact: true }).uncheck();
    }
  });

  it("accepts dropped and pasted images", async () => {
    const face = readFileSync(join(faces, readdirSync(faces)[0] ?? "")).toString("base64");
    const carry = (name: string) =>
      page.evaluateHandle(
        ([text, file]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0))], file, { type: "image/jpeg" }));
          return data;
        },
        [face, name] as const,
      );
    await page.dispatchEvent(".drop", "drop", { dataTransfer: await carry("dropped.jpg") });
    await page.locator(".prediction", { hasText: "dropped.jpg" }).locator(".age-value").waitFor();
    await (await carry("pasted.jpg")).evaluate((clipboardData) => document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true })));
    await page.locator(".prediction", { hasText: "pasted.jpg" }).locator(".age-value").waitFor();
  });

  it("takes an image with the camera", async () => {
    await page.getByRole("button", { name: "Take an image" }).click();
    await page.getByRole("button", { name: "Capture" }).click();
    await page.locator(".prediction", { hasText: "camera" }).locator(".age-value").waitFor();
  });

  it("compares two trainings and shows the differences of the specs", async () => {
    await startTraining({ "dataset.path": faces, "init.kind": "STARTER", input_size: "64", max_epochs: "6", "optimizer.learning_rate": "0.0005", display_name: "Faster steps" });
    await heading(/Faster steps/).waitFor();
    await page.locator("h1 .chip", { hasText: "Succeeded" }).waitFor({ timeout: 120_000 });
    await visit("#/trainings");
    await page.getByLabel("Select Drawn faces for comparison").check();
    await page.getByLabel("Select Faster steps for comparison").check();
    await look(page, "trainings");
    await page.getByRole("button", { name: "Compare 2" }).click();
    await heading("Compare").waitFor();
    expect((await page.locator(".chart .legend-label").allInnerTexts()).sort()).toEqual(["Drawn faces", "Faster steps"]);
    const rows = await page.locator("#spec-differences tbody tr").evaluateAll((all) => all.map((row) => [...row.querySelectorAll("code, td")].map((cell) => cell.textContent)));
    // The newer training is first; unset fields have the documented defaults.
    expect(rows).toEqual([
      ["max_epochs", "6", "9000"],
      ["batch_size", "32", "8"],
      ["optimizer.learning_rate", "0.0005", "0.0001"],
      ["early_stopping.patience", "0", "5000"],
      ["feature_cache", "AUTO", "OFF"],
    ]);
    await look(page, "compare");
  });

  it("shows the server and its metrics", async () => {
    await visit("#/server");
    await page.locator(".readiness").getByText("accepting calls").waitFor();
    await page.locator(".chart .legend .number", { hasText: /[0-9]/ }).first().waitFor();
    await until(async () => {
      const at = await page.locator(".chart").first().locator(".plot").getAttribute("aria-label");
      return at && /Calls [1-9]|Calls 0\.[0-9]*[1-9]/.test(at);
    }, "calls are counted");
    await look(page, "server");
  });

  it("shows the queue position and cancels a waiting training", async () => {
    await startTraining({ "dataset.path": faces, "init.kind": "RANDOM", input_size: "64", max_epochs: "9000", display_name: "Given up" });
    await heading(/Given up/).waitFor();
    await page.locator("h1 .chip", { hasText: "Running" }).waitFor();
    await startTraining({ "dataset.path": faces, "init.kind": "RANDOM", display_name: "Waits" });
    await heading(/Waits/).waitFor();
    await page.getByText("next in the queue").waitFor();
    await page.getByRole("button", { name: "Cancel…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Cancel the training" }).click();
    await page.locator("h1 .chip", { hasText: "Cancelled" }).waitFor();
  });

  it("kills a running training", async () => {
    await visit("#/trainings");
    await page.getByRole("link", { name: "Given up" }).click();
    await page.getByRole("button", { name: "Cancel…" }).click();
    await page.getByLabel(/Kill its process/).check();
    await look(page, "cancel");
    await page.getByRole("dialog").getByRole("button", { name: "Cancel the training" }).click();
    await page.locator("h1 .chip", { hasText: "Cancelled" }).waitFor();
  });

  it("deletes a training after a confirmation that Escape dismisses", async () => {
    await page.getByRole("button", { name: "Delete…" }).click();
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Delete…");
    await page.getByRole("button", { name: "Delete…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete the training" }).click();
    await heading("Trainings").waitFor();
    await until(async () => (await page.locator(".card.training").count()) === 3, "three trainings are left");
  });

  it("registers a directory of the server and shows its contents", async () => {
    await visit("#/datasets");
    await page.getByText("No datasets yet").waitFor();
    await look(page, "datasets-empty");
    await page.getByLabel("Directory or manifest").fill(faces);
    await page.getByRole("button", { name: "Register a directory" }).click();
    expect(await page.evaluate(() => document.activeElement?.closest("[data-form]")?.getAttribute("data-form"))).toBe("register");
    const register = page.locator("[data-form=register]");
    await register.getByLabel("Dataset id").fill("Not Good");
    await register.getByRole("button", { name: "Register" }).click();
    await page.getByText("RegisterDataset failed").waitFor();
    await register.getByLabel("Dataset id").fill("drawn");
    await register.getByRole("button", { name: "Register" }).click();
    await page.locator("[data-dataset=drawn] .chip", { hasText: "Ready" }).waitFor();
    await page.getByRole("link", { name: "drawn" }).click();
    await page.getByRole("heading", { level: 2, name: "Thumbnails by age" }).waitFor();
    // Each one was loaded and is an image.
    await until(() => page.locator(".samples img").evaluateAll((all) => all.length === 24 && all.every((one) => (one as HTMLImageElement).naturalWidth > 0)), "24 images are shown");
    const ages = await page.locator("table.ages tbody tr").evaluateAll((rows) => rows.map((row) => [...row.querySelectorAll("td.right")].map((cell) => Number(cell.textContent))));
    expect(ages.flat().reduce((sum, one) => sum + one, 0)).toBe(60);
    await look(page, "dataset");
  });

  it("checks a dataset", async () => {
    await page.getByRole("button", { name: "Check the dataset" }).click();
    const report = page.locator(`[data-check="${faces}"]`);
    await report.waitFor();
    for (const title of ["Unusable files", "Identical images", "Similar images", "Doubtful labels"]) await report.getByText(title, { exact: true }).waitFor();
    // Drawn faces are all different files.
    expect(await report.locator("li", { has: page.getByText("Identical images", { exact: true }) }).locator(".chip").first().innerText()).toBe("none");
    await look(page, "dataset-checked");
  });

  it("uploads an archive across a kill of the server", async () => {
    await visit("#/datasets");
    const archive = server.path("New Faces.tar");
    const padded = server.drawFaces("padded", 20, 64);
    // Large enough for several requests; ignored, because it is not an image.
    writeFileSync(join(padded, "notes.txt"), Buffer.alloc(28 << 20));
    writeFileSync(join(padded, "0_broken.jpg"), "not an image");
    const packed = spawnSync("tar", ["-cf", archive, "-C", server.directory, "padded"], { encoding: "utf8" });
    expect(packed.stderr).toBe("");
    await page.getByText("are stored on this server, in the directory").waitFor();
    await page.getByRole("button", { name: "Upload", exact: true }).click();
    await page.getByText("Choose an archive first").waitFor();
    let patches = 0;
    await page.route("**/datasets/uploads/*", async (route) => {
      if (route.request().method() !== "PATCH") return route.continue();
      patches += 1;
      if (patches === 2) await server.kill();
      if (patches === 2) setTimeout(() => void server.start(), 500);
      return route.continue();
    });
    await page.getByLabel("Choose an archive").setInputFiles(archive);
    expect(await page.locator("[data-form=upload]").getByLabel("Dataset id").inputValue()).toBe("new-faces");
    await page.getByRole("button", { name: "Upload", exact: true }).click();
    await page.locator("[data-dataset=new-faces] .chip", { hasText: "Ready" }).waitFor();
    await page.unroute("**/datasets/uploads/*");
    expect(patches).toBeGreaterThan(3);
    await link("live").waitFor();
    await look(page, "datasets");
    await page.getByRole("link", { name: "new-faces" }).click();
    await page.getByText("1 rejected: corrupt").or(page.getByText("1 rejected: unsupported format")).waitFor();
  });

  it("names the entry for which an archive is refused", async () => {
    await visit("#/datasets");
    const archive = server.path("linked.tar");
    symlinkSync("/etc/passwd", server.path("30_link.jpg"));
    spawnSync("tar", ["-cf", archive, "-C", server.directory, "30_link.jpg"]);
    await page.getByLabel("Choose an archive").setInputFiles(archive);
    await page.getByRole("button", { name: "Upload", exact: true }).click();
    await page.locator("[data-dataset=linked] .chip", { hasText: "Failed" }).waitFor();
    await page.getByRole("link", { name: "linked" }).click();
    await page.getByText('its entry "30_link.jpg": it must be a file or a directory, got a symbolic link').waitFor();
    await look(page, "dataset-failed");
  });

  it("trains on a named dataset, and deletes it after a confirmation", async () => {
    await visit("#/datasets/new-faces");
    await page.getByRole("link", { name: "Train on it" }).click();
    await heading("New training").waitFor();
    expect(await field("dataset.name").inputValue()).toBe("datasets/new-faces");
    await field("dataset.name").locator("option", { hasText: "drawn (60 images)" }).waitFor({ state: "attached" });
    await field("init.kind").selectOption("RANDOM");
    await unfold("input_size");
    await field("input_size").fill("32");
    await field("max_epochs").fill("1");
    await page.getByRole("button", { name: "Start training" }).click();
    await page.locator("h1 .chip", { hasText: "Succeeded" }).waitFor();
    const own = await page.evaluate(() => location.hash);
    // Validated on other images than the trainings on drawn faces.
    await visit("#/trainings");
    const ids = await page.locator(".card.training").evaluateAll((all) => all.map((one) => one.getAttribute("data-training")));
    await visit(`#/compare?t=${ids.join(",")}`);
    await page.getByText("Validated on different images").waitFor();
    const marks = await page.getByRole("region", { name: "Best epochs" }).locator("tbody tr").evaluateAll((rows) => rows.map((row) => [...row.querySelectorAll(".chip")].map((chip) => chip.textContent ?? "")));
    expect(marks[0]?.length).toBe(1);
    // A training that was cancelled before its scan has none.
    expect(new Set(marks.flatMap(([set]) => set ?? [])).size).toBe(2);
    expect(marks.filter((chips) => chips.includes("lowest")).length).toBe(0);
    await look(page, "compare-incomparable");
    await visit(own);
    await page.getByRole("button", { name: "Delete…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete the training" }).click();
    await heading("Trainings").waitFor();
    for (const id of ["new-faces", "linked"]) {
      await visit(`#/datasets/${id}`);
      await page.getByRole("button", { name: "Delete…" }).click();
      await page.getByRole("dialog").getByText("permanently deleted from the server").waitFor();
      await page.getByRole("dialog").getByRole("button", { name: "Delete the dataset" }).click();
      await page.locator(`[data-dataset=${id}]`).waitFor({ state: "detached" });
      await heading("Datasets").waitFor();
    }
    await until(async () => (await page.locator(".card.dataset").count()) === 1, "one dataset is listed");
  });

  it("works at a sub-path behind a proxy", async () => {
    const other = await context.newPage();
    await other.goto(subPath);
    await other.locator("[data-link=live]").waitFor();
    await until(async () => (await other.locator(".card.training").count()) === 3, "three trainings are listed");
    await other.goto(`${subPath}#/server`);
    await other.locator(".readiness").getByText("accepting calls").waitFor();
    await other.locator(".chart .legend .number", { hasText: /[0-9]/ }).first().waitFor();
    await other.close();
  });

  it("starts over when the server returns with other data", async () => {
    await visit("#/trainings");
    await server.kill();
    await link("waiting").waitFor();
    server.forget();
    await server.start();
    await page.getByText("No trainings yet").waitFor();
    await link("live").waitFor();
    expect(await page.evaluate(() => "isSamePage" in window)).toBe(true);
  });

  it("has no uncaught errors", () => {
    expect(faults).toEqual([]);
  });
});
