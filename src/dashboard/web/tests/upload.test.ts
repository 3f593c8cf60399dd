import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { idOf, upload, type Environment } from "../src/api/datasets";

/** A fake server that stores uploads, after a script of failures. */
class Fake {
  bytes = new Uint8Array();
  length = 0;
  readonly asked: string[] = [];
  slept = 0;
  time = 0;

  constructor(private readonly troubles: ((method: string) => Response | "lost" | "half" | undefined)[] = []) {}

  readonly environment: Environment = {
    now: () => this.time,
    sleep: async (milliseconds, signal) => {
      signal.throwIfAborted();
      this.slept += 1;
      this.time += milliseconds;
    },
    fetch: async (url, init) => this.answer(url, init),
  };

  private async answer(url: string, init: RequestInit): Promise<Response> {
    const method = init.method ?? "GET";
    const headers = new Headers(init.headers);
    this.asked.push(method);
    const trouble = this.troubles.shift()?.(method);
    const body = init.body ? new Uint8Array(await (init.body as Blob).arrayBuffer()) : new Uint8Array();
    if (trouble === "half") this.keep(body.slice(0, body.length / 2));
    if (trouble === "lost" || trouble === "half") throw new TypeError("network");
    if (trouble) return trouble;
    switch (method) {
      case "POST":
        expect(url).toBe("http://x/datasets/uploads");
        this.length = Number(headers.get("upload-length"));
        return new Response(JSON.stringify({ upload: "u" }), { status: 201 });
      case "PATCH":
        expect(headers.get("content-type")).toBe("application/offset+octet-stream");
        if (Number(headers.get("upload-offset")) !== this.bytes.length) return new Response("{}", { status: 409 });
        this.keep(body);
    }
    return new Response(null, { status: method === "HEAD" ? 200 : 204, headers: { "upload-offset": `${this.bytes.length}` } });
  }

  private keep(more: Uint8Array): void {
    this.bytes = new Uint8Array([...this.bytes, ...more]);
  }
}

const content = Uint8Array.from({ length: 1000 }, (_, index) => index % 251);
const send = (fake: Fake, signal = new AbortController().signal, sentBytes: number[] = []) => upload(new Blob([content]), (sent) => sentBytes.push(sent), signal, "http://x", fake.environment);

describe("an upload", () => {
  it("fails at once without a session or a role", async () => {
    for (const [status, code] of [[401, Code.Unauthenticated], [403, Code.PermissionDenied]] as const) {
      const fake = new Fake([() => new Response(JSON.stringify({ error: "no" }), { status })]);
      await expect(send(fake)).rejects.toMatchObject({ code, rawMessage: "no" });
      expect(fake.asked).toEqual(["POST"]);
    }
  });

  it("sends all bytes and reports progress", async () => {
    const fake = new Fake();
    const sentBytes: number[] = [];
    expect(await send(fake, undefined, sentBytes)).toBe("u");
    expect(fake.bytes).toEqual(content);
    expect(fake.length).toBe(1000);
    expect(sentBytes).toEqual([0, 1000]);
  });

  it("resumes at the offset of the server after failures", async () => {
    const ok = () => undefined;
    const fake = new Fake([() => "lost", ok, () => "half", () => "lost", () => new Response("{}", { status: 503 })]);
    expect(await send(fake)).toBe("u");
    expect(fake.bytes).toEqual(content);
    expect(fake.asked).toEqual(["POST", "POST", "PATCH", "HEAD", "HEAD", "HEAD", "PATCH"]);
    expect(fake.slept).toBe(4);
  });

  it("fails at once with the server's message when refused", async () => {
    const fake = new Fake([() => new Response(JSON.stringify({ error: "too large" }), { status: 413 })]);
    const error = await send(fake).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(ConnectError);
    expect((error as ConnectError).rawMessage).toBe("too large");
    expect(fake.asked).toEqual(["POST"]);
  });

  it("fails when the server stays unreachable", async () => {
    const fake = new Fake(Array.from({ length: 100 }, () => () => "lost" as const));
    const error = await send(fake).catch((caught: unknown) => caught);
    expect((error as ConnectError).code).toBe(Code.Unavailable);
    expect(fake.time).toBeGreaterThan(300_000);
  });

  it("that is cancelled is deleted on the server", async () => {
    const abort = new AbortController();
    const fake = new Fake([() => undefined, () => (abort.abort(), "lost" as const)]);
    await expect(send(fake, abort.signal)).rejects.toThrow();
    expect(fake.asked).toEqual(["POST", "PATCH", "DELETE"]);
  });
});

describe("an id", () => {
  it("is derived from a file name", () => {
    expect(idOf("UTK Face.tar.gz")).toBe("utk-face");
    expect(idOf("2026_faces.zip")).toBe("faces");
    expect(idOf("2026.tar")).toBe("");
    expect(idOf("a".repeat(70) + ".tgz")).toBe("a".repeat(63));
  });
});
