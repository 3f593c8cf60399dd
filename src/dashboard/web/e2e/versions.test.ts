/** End-to-end tests of empty pages, the starter, promotion, and the deletion of versions. */
import { spawnSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { look } from "./look";
import { Server, binary, environment } from "./server";
import { Window } from "./window";

const server = new Server();
let window: Window;
let faces: string;

/** Runs a command of the program; returns the objects that it prints. */
function run(...options: string[]): Record<string, unknown>[] {
  const done = spawnSync(binary(), ["--server", `http://${server.grpc}`, "--json", ...options], { encoding: "utf8", cwd: server.directory, env: environment() });
  if (done.status !== 0) throw new Error(`visage ${options.join(" ")} ended with ${done.status}: ${done.stderr}`);
  return done.stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

beforeAll(async () => {
  faces = server.drawFaces("faces", 60, 64);
  // An address that refuses connections, and an empty cache: ImageNet's weights are unavailable.
  await server.start({ starter: false, environment: { HF_ENDPOINT: "http://127.0.0.1:1", HF_HOME: server.path("hub"), HF_HUB_CACHE: server.path("hub") } });
  window = await Window.open(server);
});

afterAll(async () => {
  await window?.close();
  await server.close();
});

describe("a server without a version", () => {
  it("offers actions on its empty pages", async () => {
    const { page } = window;
    await page.getByText("No trainings yet").waitFor();
    expect(await page.locator(".empty").getByRole("link", { name: "New training" }).getAttribute("href")).toBe("#/start");
    await window.visit("#/predict");
    await page.locator(".empty").getByRole("button", { name: "Register the starter" }).waitFor();
    await look(page, "predict-empty");
    await window.visit("#/models");
    await page.getByText("No model versions yet").waitFor();
    await look(page, "models-empty");
  });

  it("registers the starter, which becomes live", async () => {
    const { page } = window;
    await page.getByRole("button", { name: "Register the starter" }).click();
    await page.locator("[data-version='1'] .chip", { hasText: "live" }).waitFor();
    // A second registration is not offered.
    expect(await page.getByRole("button", { name: "Register the starter" }).count()).toBe(0);
    await window.visit("#/predict");
    await page.getByText(/Images are sent only to this server/).waitFor();
    expect(await page.getByRole("button", { name: "Register the starter" }).count()).toBe(0);
  });
});

describe("a training from the starter", () => {
  it("is offered when ImageNet's weights are unavailable", async () => {
    const { page } = window;
    await window.visit("#/start");
    await page.locator("[name='dataset.path']").fill(faces);
    await page.getByRole("button", { name: "Check", exact: true }).click();
    await page.getByText("1 field needs a change, marked in red below").waitFor();
    await page.locator(".field.is-wrong", { has: page.locator("[name='init.kind']") }).locator(".wrong").waitFor();
    await look(page, "start-weights");
    await page.getByRole("button", { name: "Start from the built-in face model instead" }).click();
    await page.locator(".checked").waitFor();
    expect(await page.locator("[name='init.kind']").inputValue()).toBe("STARTER");
  });

  it("shows the validation before the training and the decision about live", async () => {
    const { page } = window;
    run("train", "--dataset", faces, "--init", "STARTER", "--input-size", "64", "--epochs", "2", "--id", "child");
    const [training] = run("trainings", "get", "child") as { initial?: { val_mae: number }; promotion?: { reason: string } }[];
    const mae = training?.initial?.val_mae;
    expect(mae).toBeGreaterThan(0);
    await window.visit("#/trainings/child");
    await page.getByText(`before training: MAE ${mae?.toFixed(2)}`).waitFor();
    // The first point of the validation curve.
    const table = page.locator(".figures").first();
    await table.locator("summary").click();
    const first = await table.locator("tbody tr").first().locator("th, td").allInnerTexts();
    expect(first).toEqual(["0", "–", mae?.toFixed(2)]);
    expect(training?.promotion?.reason).toBeTruthy();
    await page.locator(".decision .chip").waitFor();
    await look(page, "training-child");
  });

  it("reports how many images of an evaluation were trained on", async () => {
    const { page } = window;
    await page.getByText(/of these \d+ images were trained on/).waitFor();
    const trained = (await page.locator("section", { has: page.getByRole("heading", { name: "Dataset", exact: true }) }).locator("tbody tr", { hasText: "Train" }).locator("td.right").first().innerText()).trim();
    await window.visit("#/models/2");
    await page.getByLabel("Directory or manifest").fill(faces);
    await page.getByRole("button", { name: "Evaluate" }).click();
    const result = page.locator(`[data-evaluation="${faces}"]`);
    await result.getByText(`${trained} of these 60 images were trained on`).waitFor();
  });

  it("starts another one from a version", async () => {
    const { page } = window;
    await page.getByRole("link", { name: "Train from it" }).click();
    await page.getByRole("heading", { level: 1, name: "New training" }).waitFor();
    expect(await page.locator("[name='init.version']").inputValue()).toBe("models/age/versions/2");
  });
});

describe("versions", () => {
  it("are deleted only without an alias", async () => {
    const { page } = window;
    await window.visit("#/models/1");
    await page.getByRole("button", { name: "Delete…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText(/points? to it/).waitFor();
    expect(await dialog.getByRole("button", { name: "Delete the version" }).isDisabled()).toBe(true);
    await dialog.getByRole("button", { name: "Cancel" }).click();
    // The decision about live is tested elsewhere; afterwards version 2 has no alias.
    run("models", "alias", "set", "live", "1");
    await window.visit("#/models");
    await page.locator("[data-version='2']").waitFor();
    const aliases = await page.locator("[data-version='2'] .chip").allInnerTexts();
    for (const alias of aliases) run("models", "alias", "delete", alias);
    await window.visit("#/models/2");
    await page.getByRole("button", { name: "Delete…" }).click();
    await look(page, "model-delete");
    await dialog.getByRole("button", { name: "Delete the version" }).click();
    await page.getByRole("heading", { level: 1, name: "Models" }).waitFor();
    await page.locator("[data-version='1']").waitFor();
    await page.locator("[data-version='2']").waitFor({ state: "detached" });
    expect(run("models", "list").flatMap((answer) => JSON.stringify(answer).match(/versions\/\d+"/g) ?? []).every((name) => name === 'versions/1"')).toBe(true);
  });

  it("have a size, and the disk use is shown", async () => {
    const { page } = window;
    expect(await page.locator("[data-version='1']").innerText()).toMatch(/\d+\.\d MiB/);
    await window.visit("#/server");
    const disk = page.locator("section", { has: page.getByRole("heading", { name: "Disk" }) });
    expect(await disk.locator("dd").first().innerText()).toMatch(/^\d+\.\d (MiB|GiB|TiB)$/);
  });

  it("are not the only use of the disk: unfinished uploads are listed and deleted", async () => {
    const { page } = window;
    const created = await fetch(`http://${server.http}/datasets/uploads`, { method: "POST", headers: { "upload-length": "4096" } });
    const { upload } = (await created.json()) as { upload: string };
    await fetch(`http://${server.http}/datasets/uploads/${upload}`, {
      method: "PATCH",
      headers: { "upload-offset": "0", "content-type": "application/offset+octet-stream" },
      body: new Uint8Array(1024),
    });
    await window.visit("#/datasets");
    const row = page.getByRole("region", { name: "Unfinished uploads" }).locator("tbody tr");
    expect(await row.locator("td").first().innerText()).toBe("1.0 KiB of 4.0 KiB");
    await look(page, "datasets-uploads");
    await row.getByRole("button", { name: /^Delete/ }).click();
    await page.getByRole("region", { name: "Unfinished uploads" }).waitFor({ state: "detached" });
    const left = await fetch(`http://${server.http}/datasets/uploads/${upload}`, { method: "HEAD" });
    expect(left.status).toBe(404);
  });

  it("cause no uncaught errors", () => {
    expect(window.faults).toEqual([]);
  });
});
