/** The server under test, in a separate directory. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const DEADLINE_MS = 120_000;

/** Path of VISAGE_BIN, or else the release build of this repository. */
export function binary(): string {
  const path = resolve(process.env["VISAGE_BIN"] ?? "../../../target/release/visage");
  if (!existsSync(path)) throw new Error(`${path} does not exist: run \`cargo build --release\`, or set VISAGE_BIN`);
  return path;
}

/** Environment without settings of Visage. */
export function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("VISAGE_")));
}

/** Polls a condition and returns its first truthy value. */
export async function until<Value>(condition: () => Value | Promise<Value>, text: string, milliseconds = DEADLINE_MS): Promise<Exclude<Value, false | undefined | null>> {
  const limit = Date.now() + milliseconds;
  for (;;) {
    const value = await condition();
    if (value) return value as Exclude<Value, false | undefined | null>;
    if (Date.now() > limit) throw new Error(`timed out after ${milliseconds} ms waiting until ${text}`);
    await new Promise((wake) => setTimeout(wake, 25));
  }
}

export class Server {
  readonly directory = mkdtempSync(join(tmpdir(), "visage-e2e-"));
  private process: ChildProcess | undefined;
  private addresses = { grpc: "127.0.0.1:0", http: "127.0.0.1:0" };

  path(name: string): string {
    return join(this.directory, name);
  }

  /** Draws faces whose names start with the age. */
  drawFaces(name: string, count: number, size: number, seed = 7): string {
    const directory = this.path(name);
    const done = spawnSync(binary(), ["synth", directory, "--count", `${count}`, "--size", `${size}`, "--seed", `${seed}`], { env: environment(), encoding: "utf8" });
    if (done.status !== 0) throw new Error(`visage synth ended with ${done.status}: ${done.stderr}`);
    return directory;
  }

  /** Edits the token file of the server; returns what the command printed. */
  token(words: string[], input = ""): string {
    const done = spawnSync(binary(), ["token", ...words, "--data-dir", this.path("data")], { cwd: this.directory, env: environment(), encoding: "utf8", input });
    if (done.status !== 0) throw new Error(`visage token ended with ${done.status}: ${done.stderr}`);
    return done.stdout.trim();
  }

  /**
   * Starts the server; a restart uses the same ports and data. By default with the starter as its
   * first version.
   */
  async start({ starter = true, environment: more = {} }: { starter?: boolean; environment?: Record<string, string> } = {}): Promise<void> {
    const ready = this.path("ready");
    rmSync(ready, { force: true });
    const log = openSync(this.path("log"), "a");
    const { grpc, http } = this.addresses;
    const options = ["--data-dir", this.path("data"), "--grpc-listen", grpc, "--http-listen", http, "--ready-file", ready, ...(starter ? ["--starter"] : [])];
    // In a separate directory, so that no visage.toml is found.
    const child = spawn(binary(), ["serve", ...options], { cwd: this.directory, env: { ...environment(), ...more }, stdio: ["ignore", log, log] });
    this.process = child;
    await until(() => {
      if (child.exitCode !== null) throw new Error(`the server exited with ${child.exitCode}; its log:\n${this.log()}`);
      return existsSync(ready);
    }, "the server is ready");
    this.addresses = JSON.parse(readFileSync(ready, "utf8")) as { grpc: string; http: string };
  }

  get grpc(): string {
    return this.addresses.grpc;
  }

  get http(): string {
    return this.addresses.http;
  }

  log(): string {
    return readFileSync(this.path("log"), "utf8");
  }

  /** Kills the server with SIGKILL. */
  async kill(): Promise<void> {
    await this.end("SIGKILL");
  }

  /** Deletes the data directory. */
  forget(): void {
    rmSync(this.path("data"), { recursive: true, force: true });
  }

  async close(): Promise<void> {
    await this.end("SIGTERM");
    rmSync(this.directory, { recursive: true, force: true });
  }

  private async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.process;
    this.process = undefined;
    if (!child || child.exitCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await gone;
  }
}
