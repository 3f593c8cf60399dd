/** Reconnection policy: exponential backoff, never sooner than the server requests. */
import { Code } from "@connectrpc/connect";
import type { Failure } from "../api/errors";

export const FIRST_DELAY_MS = 500;
/** Maximum delay, unless the server requests a longer one. */
export const LONGEST_DELAY_MS = 10_000;

/** Reaction to a broken stream. */
export type Verdict =
  /** Resume at the cursor after a delay. */
  | "resume"
  /**
   * The cursor is invalid for this server, whose data may be new: discard everything and start
   * over.
   */
  | "restart"
  /** Not retryable. */
  | "give_up";

export function verdict(failure: Pick<Failure, "code" | "reason">): Verdict {
  switch (failure.code) {
    case Code.OutOfRange:
    case Code.InvalidArgument:
      return "restart";
    case Code.Unimplemented:
    case Code.Unauthenticated:
    case Code.PermissionDenied:
      return "give_up";
    default:
      return "resume";
  }
}

/**
 * Delay in milliseconds before attempt `attempt` (from 0): doubled each time up to a maximum, with a jitter of a fifth so that many pages do not
 * reconnect at once, and at least the delay of RetryInfo. `random` is at least 0 and below 1.
 */
export function retryDelay(attempt: number, retryAfter: number | undefined, random: number): number {
  const doubled = Math.min(FIRST_DELAY_MS * 2 ** Math.min(attempt, 30), LONGEST_DELAY_MS);
  const spread = doubled * (0.8 + 0.4 * random);
  return Math.round(Math.max(spread, retryAfter ?? 0));
}
