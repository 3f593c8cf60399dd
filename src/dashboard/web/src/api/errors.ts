/** What a failed call tells: which call, why, which fields, and when to try again. */
import { Code, ConnectError } from "@connectrpc/connect";
import { seconds } from "../format";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb";

/** One wrong field of a request. */
export interface Violation {
  /** Its path in the request, such as `spec.optimizer.learning_rate`. */
  field: string;
  description: string;
}

/** A failed call, for people and for the page's decisions. */
export interface Failure {
  /** The method, such as `StartTraining`. */
  call: string;
  code: Code;
  message: string;
  /** Stable and in capitals, such as `QUEUE_FULL`; empty when the failure is not the server's. */
  reason: string;
  violations: Violation[];
  /** What RetryInfo asks to wait at least, in milliseconds. */
  retryAfter: number | undefined;
}

/** The method of an error, where the transport knows it. */
const methods = new WeakMap<ConnectError, string>();

/** Remembers which method an error is of. */
export function noteMethod(error: unknown, method: string): void {
  if (error instanceof ConnectError) methods.set(error, method);
}

/** Reads an error of a call; `call` names it where the transport did not. */
export function failureOf(error: unknown, call = ""): Failure {
  const status = ConnectError.from(error);
  const retry = status.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const unreachable = isUnreachable(error);
  return {
    call: methods.get(status) ?? call,
    code: unreachable ? Code.Unavailable : status.code,
    message: unreachable ? "the server cannot be reached; check that it runs and that the network is there" : status.rawMessage,
    reason: status.findDetails(ErrorInfoSchema)[0]?.reason ?? "",
    violations: status
      .findDetails(BadRequestSchema)
      .flatMap((bad) => bad.fieldViolations)
      .map(({ field, description }) => ({ field, description })),
    retryAfter: retry ? seconds(retry) * 1000 : undefined,
  };
}

/** Whether the network failed rather than the call: browsers throw a TypeError then. */
export function isUnreachable(error: unknown): boolean {
  if (error instanceof TypeError) return true;
  return error instanceof ConnectError && error.cause instanceof TypeError;
}

/** Whether the call was given up by the page itself. */
export function isAbort(error: unknown): boolean {
  return (error instanceof DOMException && error.name === "AbortError") || (error instanceof ConnectError && error.code === Code.Canceled);
}
