import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { failureOf, noteMethod } from "../src/api/errors";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb";

describe("a failed call", () => {
  it("has its method, reason, violations and retry delay", () => {
    const error = new ConnectError("spec.max_epochs: must be 1 to 10,000", Code.InvalidArgument, undefined, [
      { desc: ErrorInfoSchema, value: { reason: "INVALID_FIELDS", domain: "visage" } },
      { desc: BadRequestSchema, value: { fieldViolations: [{ field: "spec.max_epochs", description: "must be 1 to 10,000" }] } },
      { desc: RetryInfoSchema, value: { retryDelay: { seconds: 1n, nanos: 500_000_000 } } },
    ]);
    noteMethod(error, "StartTraining");
    expect(failureOf(error)).toEqual({
      call: "StartTraining",
      code: Code.InvalidArgument,
      message: "spec.max_epochs: must be 1 to 10,000",
      reason: "INVALID_FIELDS",
      violations: [{ field: "spec.max_epochs", description: "must be 1 to 10,000" }],
      retryAfter: 1500,
    });
  });

  it("is unavailable if the server was not reached", () => {
    expect(failureOf(new TypeError("Failed to fetch"), "Predict")).toMatchObject({ call: "Predict", code: Code.Unavailable, reason: "" });
  });
});
