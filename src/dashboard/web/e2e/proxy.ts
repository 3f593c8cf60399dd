/**
 * A reverse proxy that puts the server at a sub-path, and serves `dist` if the program contains
 * another dashboard.
 */
import { existsSync, readFileSync } from "node:fs";
import { type IncomingMessage, type Server, type ServerResponse, createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";

const TYPES: Readonly<Record<string, string>> = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

/** Content security policy of the program. */
const POLICY =
  "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'";

export class Proxy {
  private readonly server: Server;

  /** `upstream` is evaluated per request, since a restarted server may have another port. */
  constructor(
    private readonly prefix: string,
    private readonly upstream: () => string,
    private readonly ownFiles: boolean,
  ) {
    this.server = createServer((incoming, outgoing) => this.answer(incoming, outgoing));
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}${this.prefix}`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private answer(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const url = incoming.url ?? "/";
    if (!url.startsWith(this.prefix)) {
      outgoing.writeHead(404).end("outside of the sub-path");
      return;
    }
    const path = url.slice(this.prefix.length).split("?")[0] ?? "";
    const file = join("dist", path === "" ? "index.html" : path);
    if (this.ownFiles && !path.includes("..") && existsSync(file)) {
      outgoing.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "content-security-policy": POLICY }).end(readFileSync(file));
      return;
    }
    const forwarded = request(`http://${this.upstream()}/${url.slice(this.prefix.length)}`, { method: incoming.method, headers: incoming.headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      // Forward the headers of a stream before its first message.
      outgoing.flushHeaders();
      answer.pipe(outgoing);
    });
    // Forward a broken stream as such.
    forwarded.on("error", () => (outgoing.headersSent ? outgoing.destroy() : outgoing.writeHead(502).end()));
    forwarded.on("response", (answer) => answer.on("error", () => outgoing.destroy()));
    outgoing.on("close", () => forwarded.destroy());
    incoming.pipe(forwarded);
  }
}

/** True if the program contains the dashboard in `dist`. */
export async function hasThisDashboard(http: string): Promise<boolean> {
  const served = await fetch(`http://${http}/`).then((response) => response.text());
  return served === readFileSync(join("dist", "index.html"), "utf8");
}
