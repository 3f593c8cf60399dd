/** End-to-end tests of the login and the roles, in Chromium with a server that requires tokens. */
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { look } from "./look";
import { Server, until } from "./server";
import { Window } from "./window";

const server = new Server();
const PASSWORD = "correct horse battery";
let view: Window;
let page: Page;
let admin: string;

const addUser = (name: string, roles: string[]): string => server.token(["user", name, ...roles.flatMap((role) => ["--role", role])], `${PASSWORD}\n`);

beforeAll(async () => {
  server.drawFaces("faces", 40, 48);
  addUser("vera", ["viewer"]);
  addUser("tom", ["trainer"]);
  addUser("petra", ["predictor"]);
  admin = server.token(["new", "root", "--role", "admin"]);
  await server.start({ environment: { VISAGE_AUTH: "tokens", VISAGE_DATA_ROOTS: server.directory, VISAGE_WEIGHTS_ROOTS: server.directory } });
  view = await Window.open(server);
  page = view.page;
});

afterAll(async () => {
  await view?.close();
  await server.close();
});

const heading = (name: string) => page.getByRole("heading", { name, exact: true });
const needs = (role: string) => page.locator(`[data-needs=${role}]`).first();

async function logIn(name: string): Promise<void> {
  await page.getByLabel("Name", { exact: true }).fill(name);
  await page.locator("input[type=password]").fill(PASSWORD);
  await page.getByRole("button", { name: "Log in", exact: true }).click();
}

async function logOut(): Promise<void> {
  await page.locator(".account summary").click();
  await page.getByRole("button", { name: "Log out" }).click();
  await heading("Log in").waitFor();
}

describe("a server with authentication", () => {
  it("shows nothing before the login", async () => {
    await heading("Log in").waitFor();
    expect(await page.getByRole("navigation", { name: "Pages" }).getByRole("link").count()).toBe(0);
    await look(page, "login");
  });

  it("explains a wrong password", async () => {
    await page.getByLabel("Name", { exact: true }).fill("vera");
    await page.locator("input[type=password]").fill("wrong");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").getByText("The name or password is wrong").waitFor();
    expect(await page.locator("input[type=password]").inputValue()).toBe("");
  });

  it("shows the page that was requested, as far as the roles permit", async () => {
    await view.visit("#/models");
    await logIn("vera");
    await heading("Models").waitFor();
    await page.locator("[data-link=live]").waitFor();
    await needs("deployer").getByText("Promotion, rollback and changes of aliases need the role deployer.").waitFor();
    expect(await page.getByRole("link", { name: "New training" }).count()).toBe(0);
    await page.locator(".account summary").click();
    await page.getByText("Logged in as vera").waitFor();
    await look(page, "models-viewer");
    await page.keyboard.press("Escape");
    await view.visit("#/predict");
    await page.getByText("This page needs the role predictor").waitFor();
    await view.visit("#/server");
    await needs("metrics").waitFor();
    await page.getByText("Weights roots").waitFor();
    await view.visit("#/models/1");
    await heading("Version 1").waitFor();
    expect(await page.getByRole("button", { name: "Delete…" }).isDisabled()).toBe(true);
    await logOut();
  });

  it("lets a predictor predict", async () => {
    await view.visit("#/predict");
    await logIn("petra");
    await heading("Predict").waitFor();
    expect(await page.locator("[data-link]").count()).toBe(0);
    await view.visit("#/trainings");
    await page.getByText("This page needs the role viewer").waitFor();
    await logOut();
  });

  it("shows a refusal of the server with the role", async () => {
    await view.visit("#/models/1");
    await logIn("tom");
    await heading("Version 1").waitFor();
    await page.getByLabel("Directory or manifest").fill(server.path("faces"));
    await page.getByRole("button", { name: "Evaluate", exact: true }).click();
    const refused = page.getByRole("alert").filter({ hasText: "is not permitted" });
    await refused.getByText("requires the role admin").waitFor();
    await refused.getByText("You are logged in as tom with the roles viewer, predictor, trainer.").waitFor();
  });

  it("keeps a filled form when the session ends", async () => {
    await view.visit("#/start");
    await page.locator("[name=display_name]").fill("kept across the login");
    await page.locator('[name="dataset.path"]').fill(server.path("faces"));
    await needs("admin").waitFor();
    expect(await page.getByRole("button", { name: "Start training" }).isDisabled()).toBe(true);
    server.token(["revoke", "tom"]);
    // The server ends the stream of events.
    await heading("Log in again").waitFor();
    await look(page, "login-again");
    // Each login counts towards the limit of an address, so there is one attempt.
    const readings = (): number => server.log().split("read the token file again").length;
    const before = readings();
    addUser("tom", ["trainer", "admin"]);
    await until(async () => readings() > before, "the server has read the new user");
    await logIn("tom");
    await page.locator("dialog").waitFor({ state: "detached" });
    expect(await page.locator("[name=display_name]").inputValue()).toBe("kept across the login");
    expect(await page.getByRole("button", { name: "Start training" }).isDisabled()).toBe(false);
    await page.locator("[data-link=live]").waitFor();
    await logOut();
  });

  it("accepts a token, and ends the session at the logout", async () => {
    await page.getByText("Token", { exact: true }).click();
    await page.locator("input[type=password]").fill(admin);
    await page.keyboard.press("Enter");
    await page.locator(".account").waitFor();
    await view.visit("#/server");
    await page.getByText("Latency").first().waitFor();
    expect(await page.locator("[data-needs]").count()).toBe(0);
    const before = await page.context().cookies();
    await logOut();
    await page.context().addCookies(before);
    expect(await page.evaluate(async () => (await fetch("./session")).status)).toBe(401);
    expect(view.faults).toEqual([]);
    expect(server.log()).not.toContain(admin);
    expect(server.log()).not.toContain(PASSWORD);
  });
});
