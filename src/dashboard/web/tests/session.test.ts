import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { failureOf } from "../src/api/errors";
import { pass, reportError, setGate } from "../src/api/gate";
import { type Environment, login, logout, readSession } from "../src/api/session";
import { ErrorInfoSchema } from "../src/gen/google/rpc/error_details_pb";
import { isPermitted, logIn, logins, nextSession, refreshSession, session } from "../src/live/session";

const json = (status: number, body: unknown, headers: Record<string, string> = {}): Response => new Response(JSON.stringify(body), { status, headers });
const ADA = { name: "ada", roles: ["trainer"], authentication: true };

/** An environment with one answer, and the requests that it received. */
function answering(answer: Response): { environment: Environment; asked: { url: string; init: RequestInit }[] } {
  const asked: { url: string; init: RequestInit }[] = [];
  const fetch = async (url: string, init: RequestInit): Promise<Response> => {
    asked.push({ url, init });
    return answer;
  };
  return { environment: { base: "http://x/sub", fetch }, asked };
}

describe("the calls of a session", () => {
  it("read the identity with the roles that its own include", async () => {
    const { environment, asked } = answering(json(200, { ...ADA, roles: ["trainer", "metrics", "unheard-of"] }));
    expect(await readSession(environment)).toEqual({ kind: "identity", identity: { name: "ada", roles: new Set(["metrics", "trainer", "viewer", "predictor"]) } });
    expect(asked[0]?.url).toBe("http://x/sub/session");
  });

  it("distinguish a missing login from a server without authentication", async () => {
    expect(await readSession(answering(json(401, { error: "no session" })).environment)).toEqual({ kind: "login_required" });
    expect(await readSession(answering(json(200, { authentication: false })).environment)).toEqual({ kind: "no_authentication" });
    expect(await readSession(answering(new Response("no such page", { status: 404 })).environment)).toEqual({ kind: "no_authentication" });
    await expect(readSession(answering(new Response("", { status: 502 })).environment)).rejects.toThrow("status 502");
  });

  it("send a credential as JSON", async () => {
    const { environment, asked } = answering(new Response(null, { status: 204 }));
    await login({ name: "ada", password: "lace" }, environment);
    await login({ token: "vsg_1" }, environment);
    await logout(environment);
    expect(asked.map(({ url, init }) => [url, init.method, init.body && JSON.parse(String(init.body))])).toEqual([
      ["http://x/sub/login", "POST", { name: "ada", password: "lace" }],
      ["http://x/sub/login", "POST", { token: "vsg_1" }],
      ["http://x/sub/logout", "POST", undefined],
    ]);
    expect(new Headers(asked[0]?.init.headers).get("content-type")).toBe("application/json");
  });

  it("report why a login failed", async () => {
    await expect(login({ token: "x" }, answering(json(401, { error: "the name or the password is wrong" })).environment)).rejects.toMatchObject({
      code: Code.Unauthenticated,
      rawMessage: "the name or the password is wrong",
    });
    await expect(login({ token: "x" }, answering(json(429, { error: "too many attempts" }, { "retry-after": "60" })).environment)).rejects.toMatchObject({
      code: Code.ResourceExhausted,
      rawMessage: "too many attempts; try again in 60 s",
    });
    await expect(logout(answering(new Response("", { status: 401 })).environment)).resolves.toBeUndefined();
  });
});

describe("the state of a session", () => {
  const identity = { name: "ada", roles: new Set(["viewer"] as const) };

  it("keeps the identity of an ended session", () => {
    const ended = nextSession({ state: "logged_in", identity }, { kind: "login_required" });
    expect(ended).toEqual({ state: "logged_out", before: identity });
    expect(nextSession(ended, { kind: "login_required" })).toBe(ended);
    expect(nextSession({ state: "loading" }, { kind: "login_required" })).toEqual({ state: "logged_out", before: undefined });
    expect(nextSession(ended, { kind: "no_authentication" })).toEqual({ state: "open" });
  });

  it("permits what its roles allow", () => {
    expect(isPermitted({ state: "open" }, "admin")).toBe(true);
    expect(isPermitted({ state: "logged_in", identity }, "viewer")).toBe(true);
    expect(isPermitted({ state: "logged_in", identity }, "trainer")).toBe(false);
    expect(isPermitted({ state: "logged_out", before: identity }, "viewer")).toBe(true);
    expect(isPermitted({ state: "logged_out", before: undefined }, "viewer")).toBe(false);
    expect(isPermitted({ state: "loading" }, "viewer")).toBe(false);
  });
});

describe("the session of the page", () => {
  const reload = vi.fn();
  let answers: Response[] = [];
  const fetched: string[] = [];

  beforeEach(() => {
    answers = [];
    fetched.length = 0;
    reload.mockClear();
    session.value = { state: "loading" };
    setGate(true);
    vi.stubGlobal("document", { baseURI: "http://x/" });
    vi.stubGlobal("location", { reload });
    vi.stubGlobal("fetch", async (url: string): Promise<Response> => {
      fetched.push(url);
      const answer = answers.shift();
      if (!answer) throw new TypeError("network");
      return answer;
    });
  });
  afterEach(() => {
    vi.unstubAllGlobals();
  });

  it("stops all calls until a login", async () => {
    answers = [json(401, {})];
    await refreshSession();
    expect(session.value).toEqual({ state: "logged_out", before: undefined });
    expect(() => pass()).toThrow("log in to continue");
    const before = logins.value;
    answers = [new Response(null, { status: 204 }), json(200, ADA)];
    await logIn({ token: "vsg_1" });
    expect(session.value).toMatchObject({ state: "logged_in", identity: { name: "ada" } });
    expect(() => pass()).not.toThrow();
    expect(logins.value).toBe(before + 1);
    expect(reload).not.toHaveBeenCalled();
  });

  it("checks the session after a refused call", async () => {
    answers = [json(200, ADA)];
    await refreshSession();
    // The call was sent before the login.
    answers = [json(200, ADA)];
    reportError(new ConnectError("no", Code.Unauthenticated));
    await refreshSession();
    expect(answers).toEqual([]);
    expect(session.value.state).toBe("logged_in");
    answers = [json(401, {})];
    reportError(new ConnectError("no", Code.Unauthenticated));
    await vi.waitFor(() => expect(session.value).toMatchObject({ state: "logged_out", before: { name: "ada" } }));
    const sent = fetched.length;
    reportError(new ConnectError("log in to continue", Code.Unauthenticated));
    reportError(new ConnectError("busy", Code.ResourceExhausted));
    expect(fetched.length).toBe(sent);
  });

  it("loads the page again for another identity", async () => {
    answers = [json(200, ADA)];
    await refreshSession();
    answers = [json(401, {})];
    await refreshSession();
    answers = [new Response(null, { status: 204 }), json(200, { ...ADA, name: "grace" })];
    await logIn({ name: "grace", password: "hopper" });
    expect(reload).toHaveBeenCalledTimes(1);
  });

  it("stays logged out after a wrong credential", async () => {
    answers = [json(401, {})];
    await refreshSession();
    answers = [json(401, { error: "wrong" })];
    await expect(logIn({ token: "x" })).rejects.toThrow("wrong");
    expect(session.value.state).toBe("logged_out");
    expect(() => pass()).toThrow();
  });

  it("is open while the server is unreachable", async () => {
    await refreshSession();
    expect(session.value).toEqual({ state: "open" });
    answers = [json(200, ADA)];
    await refreshSession();
    await refreshSession();
    expect(session.value.state).toBe("logged_in");
  });
});

describe("a call that the roles do not permit", () => {
  it("names the role", () => {
    const refused = (reason: string): ConnectError =>
      new ConnectError("no", Code.PermissionDenied, undefined, [{ desc: ErrorInfoSchema, value: create(ErrorInfoSchema, { reason, domain: "visage", metadata: { role: "deployer" } }) }]);
    expect(failureOf(refused("ROLE_REQUIRED"), "SetAlias")).toMatchObject({ role: "deployer", call: "SetAlias" });
    expect(failureOf(refused("PATH_NOT_ALLOWED")).role).toBeUndefined();
  });
});
