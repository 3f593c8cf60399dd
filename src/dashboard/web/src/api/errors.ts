/** Failed calls: method, cause, violations and retry delay. */
import { Code, ConnectError } from "@connectrpc/connect";
import { seconds } from "../format";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb";

/** An invalid field of a request. */
export interface Violation {
  /** Path in the request, such as `spec.optimizer.learning_rate`. */
  field: string;
  description: string;
}

/** A failed call. */
export interface Failure {
  /** Method, such as `StartTraining`. */
  call: string;
  code: Code;
  message: string;
  /** Stable reason such as `QUEUE_FULL`; empty if the error does not come from the server. */
  reason: string;
  /** Role that the call requires, if its lack is the cause. */
  role?: string;
  violations: Violation[];
  /** Minimum delay of RetryInfo in milliseconds. */
  retryAfter: number | undefined;
}

/** Reason of a call that the roles of the identity do not permit. */
const ROLE_REQUIRED = "ROLE_REQUIRED";

const methods = new WeakMap<ConnectError, string>();

/** Records the method of an error. */
export function noteMethod(error: unknown, method: string): void {
  if (error instanceof ConnectError) methods.set(error, method);
}

/** Converts the error of a call; `call` is its name if the transport did not record one. */
export function failureOf(error: unknown, call = ""): Failure {
  const status = ConnectError.from(error);
  const retry = status.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const unreachable = isUnreachable(error);
  const info = status.findDetails(ErrorInfoSchema)[0];
  const role = info?.reason === ROLE_REQUIRED ? info.metadata["role"] : undefined;
  return {
    call: methods.get(status) ?? call,
    code: unreachable ? Code.Unavailable : status.code,
    message: unreachable ? "the server is unreachable; check that it is running and that the network is connected" : status.rawMessage,
    reason: info?.reason ?? "",
    ...(role ? { role } : {}),
    violations: status
      .findDetails(BadRequestSchema)
      .flatMap((bad) => bad.fieldViolations)
      .map(({ field, description }) => ({ field, description })),
    retryAfter: retry ? seconds(retry) * 1000 : undefined,
  };
}

/** True for a network failure, for which browsers throw a TypeError. */
export function isUnreachable(error: unknown): boolean {
  if (error instanceof TypeError) return true;
  return error instanceof ConnectError && error.cause instanceof TypeError;
}

/** True if the page cancelled the call. */
export function isAbort(error: unknown): boolean {
  return (error instanceof DOMException && error.name === "AbortError") || (error instanceof ConnectError && error.code === Code.Canceled);
}
