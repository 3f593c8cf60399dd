/** A browser window on the dashboard in `dist`, with the API of a server. */
import { type Browser, type Page, chromium } from "playwright-core";
import { Proxy, hasThisDashboard } from "./proxy";
import type { Server } from "./server";

/** Arguments without which Chromium needs a sandbox, a GPU or network access. */
export const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export class Window {
  /** Uncaught errors of the page. */
  readonly faults: string[] = [];

  private constructor(
    readonly page: Page,
    private readonly browser: Browser,
    private readonly proxy: Proxy,
  ) {
    page.on("pageerror", (error) => this.faults.push(String(error)));
  }

  static async open(server: Server): Promise<Window> {
    const proxy = new Proxy("/", () => server.http, !(await hasThisDashboard(server.http)));
    const address = await proxy.listen();
    const browser = await chromium.launch({ executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: FLAGS });
    const page = await (await browser.newContext({ viewport: { width: 1280, height: 860 }, reducedMotion: "reduce" })).newPage();
    page.setDefaultTimeout(90_000);
    await page.goto(address);
    return new Window(page, browser, proxy);
  }

  /** Shows a page such as `#/models`. */
  async visit(hash: string): Promise<void> {
    await this.page.evaluate((next) => void (location.hash = next), hash);
  }

  async close(): Promise<void> {
    await this.browser.close();
    await this.proxy.close();
  }
}
