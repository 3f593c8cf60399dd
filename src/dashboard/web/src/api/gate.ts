/**
 * Stops the calls of the page while a login is required. The server would count each of them as a
 * failed attempt, and refuse the login in the end.
 */
import { Code, ConnectError } from "@connectrpc/connect";

let isOpen = true;
let onUnauthenticated = (): void => undefined;

/** Sets the reaction to a call that the server refused for lack of a session. */
export function whenUnauthenticated(reaction: () => void): void {
  onUnauthenticated = reaction;
}

export function setGate(open: boolean): void {
  isOpen = open;
}

/** Throws if calls are stopped; precedes each call. */
export function pass(): void {
  if (!isOpen) throw new ConnectError("log in to continue", Code.Unauthenticated);
}

/** Reports the error of a call that was sent. */
export function reportError(error: unknown): void {
  if (isOpen && error instanceof ConnectError && error.code === Code.Unauthenticated) onUnauthenticated();
}
