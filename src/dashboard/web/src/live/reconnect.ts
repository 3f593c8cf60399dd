/** When a broken stream is opened again: soon at first, then ever more rarely, and never sooner than the server asks. */
import { Code } from "@connectrpc/connect";
import type { Failure } from "../api/errors";

/** The first wait. */
export const FIRST_DELAY_MS = 500;
/** The longest wait that is not the server's wish. */
export const LONGEST_DELAY_MS = 10_000;

/** What to do about a stream that broke. */
export type Verdict =
  /** Go on from the cursor after a wait. */
  | "resume"
  /** The cursor means nothing to this server, whose data may be new: forget everything and begin anew. */
  | "restart"
  /** It will not get better by itself. */
  | "give_up";

/** Reads a failure of the stream. */
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
 * Milliseconds to wait before attempt `attempt` (from 0) to open the stream again: doubled each time up to a bound, spread by up to a fifth so that many
 * pages do not come back at once, and at least what RetryInfo said. `random` is from 0 to below 1.
 */
export function retryDelay(attempt: number, retryAfter: number | undefined, random: number): number {
  const doubled = Math.min(FIRST_DELAY_MS * 2 ** Math.min(attempt, 30), LONGEST_DELAY_MS);
  const spread = doubled * (0.8 + 0.4 * random);
  return Math.round(Math.max(spread, retryAfter ?? 0));
}
