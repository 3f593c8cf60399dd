/** The session of the page: the identity and its roles. */
import { signal } from "@preact/signals";
import { setGate, whenUnauthenticated } from "../api/gate";
import { type Credential, type Identity, type Role, type SessionAnswer, login, logout, readSession } from "../api/session";

export type Session =
  | { state: "loading" }
  /** The server has no authentication, or was unreachable when the page was loaded. */
  | { state: "open" }
  | { state: "logged_in"; identity: Identity }
  /** `before` is the identity whose session has ended. */
  | { state: "logged_out"; before: Identity | undefined };

export const session = signal<Session>({ state: "loading" });
/** Number of logins; a change repeats the calls of the page. */
export const logins = signal(0);

/** Session after an answer of the server. */
export function nextSession(now: Session, answer: SessionAnswer): Session {
  switch (answer.kind) {
    case "no_authentication":
      return { state: "open" };
    case "identity":
      return { state: "logged_in", identity: answer.identity };
    case "login_required":
      if (now.state === "logged_out") return now;
      return { state: "logged_out", before: now.state === "logged_in" ? now.identity : undefined };
  }
}

/**
 * True if a role is held, or not required. The page of an identity whose session has ended stays as
 * it is until the next login.
 */
export function isPermitted(now: Session, role: Role): boolean {
  switch (now.state) {
    case "loading":
      return false;
    case "open":
      return true;
    case "logged_in":
      return now.identity.roles.has(role);
    case "logged_out":
      return now.before?.roles.has(role) ?? false;
  }
}

/** Same for the session of the page; components that call it are rendered again after a change. */
export function may(role: Role): boolean {
  return isPermitted(session.value, role);
}

let reading: Promise<void> | undefined;

/** Requests the current identity; concurrent calls share one request. */
export async function refreshSession(): Promise<void> {
  reading ??= update().finally(() => (reading = undefined));
  return reading;
}

async function update(): Promise<void> {
  try {
    const next = nextSession(session.value, await readSession());
    setGate(next.state !== "logged_out");
    session.value = next;
  } catch {
    // The page reports that the server is unreachable, and requests the session when it returns.
    if (session.value.state === "loading") session.value = { state: "open" };
  }
}

// A call may be refused although the session is valid: it was sent before a login.
whenUnauthenticated(() => void refreshSession());

/** Logs in, and continues with the page that was open. */
export async function logIn(credential: Credential): Promise<void> {
  const before = session.value.state === "logged_out" ? session.value.before : undefined;
  await login(credential);
  // A request that was sent before the login is not about the new session.
  await reading;
  await refreshSession();
  const now = session.value;
  if (before && now.state === "logged_in" && now.identity.name !== before.name) {
    // The page contains input and results of another identity.
    location.reload();
    return;
  }
  if (now.state !== "logged_out") logins.value += 1;
}

/** Logs out; the page is loaded again, so that it keeps nothing of the session. */
export async function logOut(): Promise<void> {
  await logout();
  location.reload();
}
