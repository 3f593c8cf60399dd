/** Login, logout, and the identity of the browser's session. */
import { Code, ConnectError } from "@connectrpc/connect";
import { baseUrl } from "./base";

export const ROLES = ["metrics", "viewer", "predictor", "trainer", "deployer", "admin"] as const;
export type Role = (typeof ROLES)[number];

/** Roles that another one includes. */
const INCLUDED: Readonly<Record<Role, readonly Role[]>> = {
  metrics: [],
  viewer: [],
  predictor: [],
  trainer: ["viewer", "predictor"],
  deployer: ["viewer", "predictor"],
  admin: ROLES,
};

/** A user or token, with its roles and those that they include. */
export interface Identity {
  name: string;
  roles: ReadonlySet<Role>;
}

/** Response to a request for the current session. */
export type SessionAnswer = { kind: "identity"; identity: Identity } | { kind: "login_required" } | { kind: "no_authentication" };

export type Credential = { name: string; password: string } | { token: string };

/** Environment of these calls; replaced in tests. */
export interface Environment {
  base: string;
  fetch: (url: string, init: RequestInit) => Promise<Response>;
}

const browser = (): Environment => ({ base: baseUrl(document.baseURI), fetch: (url, init) => fetch(url, init) });

const TIMEOUT_MS = 30_000;

/** Requests the identity of the session. */
export async function readSession(environment = browser()): Promise<SessionAnswer> {
  const response = await environment.fetch(`${environment.base}/session`, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (response.status === 401) return { kind: "login_required" };
  // A proxy in front of the server may answer this path itself, or not forward it.
  if (response.status === 404) return { kind: "no_authentication" };
  if (!response.ok) throw await refusal(response);
  const body = (await response.json()) as { authentication?: boolean; name?: string; roles?: string[] };
  if (body.authentication === false) return { kind: "no_authentication" };
  return { kind: "identity", identity: { name: body.name ?? "", roles: withIncluded(body.roles ?? []) } };
}

/** Logs in; the response sets the cookie of the session. */
export async function login(credential: Credential, environment = browser()): Promise<void> {
  const response = await environment.fetch(`${environment.base}/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(credential),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!response.ok) throw await refusal(response);
}

/** Ends the session. */
export async function logout(environment = browser()): Promise<void> {
  const response = await environment.fetch(`${environment.base}/logout`, { method: "POST", signal: AbortSignal.timeout(TIMEOUT_MS) });
  // Without a session there is nothing to end.
  if (!response.ok && response.status !== 401) throw await refusal(response);
}

/** Roles with all that they include; unknown names are ignored. */
function withIncluded(names: string[]): ReadonlySet<Role> {
  const own = ROLES.filter((role) => names.includes(role));
  return new Set(own.flatMap((role) => [role, ...INCLUDED[role]]));
}

const CODES: Readonly<Record<number, Code>> = { 401: Code.Unauthenticated, 403: Code.PermissionDenied, 429: Code.ResourceExhausted };

async function refusal(response: Response): Promise<ConnectError> {
  const body = (await response.json().catch(() => ({}))) as { error?: string };
  const text = body.error ?? `the server responded with status ${response.status}`;
  const seconds = response.headers.get("retry-after");
  return new ConnectError(seconds ? `${text}; try again in ${seconds} s` : text, CODES[response.status] ?? Code.Internal);
}
