import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb";
import { StreamEpochMetricsResponseSchema, type StreamEpochMetricsResponse } from "../src/gen/visage/v1/training_pb";
import { Follower, type Link } from "../src/live/follow";
import { TrainingLog } from "../src/live/fold";
import { retryDelay, verdict } from "../src/live/reconnect";

function message(sequence: number): StreamEpochMetricsResponse {
  return create(StreamEpochMetricsResponseSchema, {
    event: {
      training: "trainings/t",
      sequence: BigInt(sequence),
      resumeToken: `token-${sequence}`,
      kind: { case: "epochCompleted", value: { epoch: sequence, isBest: true } },
    },
  });
}
const heartbeat = create(StreamEpochMetricsResponseSchema, { event: { kind: { case: "heartbeat", value: {} } } });
const unavailable = (seconds?: number): ConnectError =>
  new ConnectError("the server is shutting down", Code.Unavailable, undefined, seconds === undefined ? [] : [
    { desc: RetryInfoSchema, value: { retryDelay: { seconds: BigInt(seconds), nanos: 0 } } },
  ]);

/**
 * Follows a script: each connection yields its messages and then fails with its error; after the
 * last one the follower rests.
 */
async function follow(script: { messages: StreamEpochMetricsResponse[]; error: unknown; isSilent?: boolean }[]) {
  const seen = { tokens: [] as string[], links: [] as Link[], waits: [] as number[], forgotten: 0 };
  let log = new TrainingLog();
  let finish = (): void => undefined;
  const end = new Promise<void>((resolve) => (finish = resolve));
  const follower: Follower = new Follower({
    async *open(token, _signal, onOpen) {
      seen.tokens.push(token);
      const connection = script[seen.tokens.length - 1];
      if (!connection) {
        follower.rest();
        finish();
        return;
      }
      if (connection.isSilent) onOpen();
      yield* connection.messages;
      throw connection.error;
    },
    take: (event) => (event.training === "" ? "applied" : log.apply(event)),
    forget() {
      seen.forgotten += 1;
      log = new TrainingLog();
    },
    report: (link) => seen.links.push(link),
    wait: async (milliseconds) => void seen.waits.push(milliseconds),
    random: () => 0.5,
  });
  follower.start();
  await end;
  return { ...seen, epochs: log.epochs.map(({ epoch }) => epoch), states: seen.links.map(({ state }) => state) };
}

describe("the stream of all trainings", () => {
  it("resumes at the cursor of the last event, ignoring heartbeats", async () => {
    const seen = await follow([
      { messages: [message(1), message(2), heartbeat], error: unavailable() },
      { messages: [message(3)], error: unavailable() },
    ]);
    expect(seen.tokens).toEqual(["", "token-2", "token-3"]);
    expect(seen.epochs).toEqual([1, 2, 3]);
    expect(seen.states).toEqual(["connecting", "live", "waiting", "live", "waiting", "resting"]);
    expect(seen.forgotten).toBe(0);
  });

  it("applies a repeated event once", async () => {
    const seen = await follow([
      { messages: [message(1), message(2)], error: unavailable() },
      { messages: [message(2), message(3)], error: unavailable() },
    ]);
    expect(seen.epochs).toEqual([1, 2, 3]);
  });

  it("is live with the response headers, before any event", async () => {
    const seen = await follow([{ messages: [], error: unavailable(), isSilent: true }]);
    expect(seen.states).toEqual(["connecting", "live", "waiting", "resting"]);
  });

  it("backs off after consecutive failures, and resets after a message", async () => {
    const seen = await follow([
      { messages: [], error: new TypeError("Failed to fetch") },
      { messages: [], error: new TypeError("Failed to fetch") },
      { messages: [], error: new TypeError("Failed to fetch") },
      { messages: [heartbeat], error: unavailable() },
    ]);
    expect(seen.waits).toEqual([500, 1000, 2000, 500]);
  });

  it("waits as long as RetryInfo says", async () => {
    const seen = await follow([{ messages: [message(1)], error: unavailable(7) }]);
    expect(seen.waits).toEqual([7000]);
  });

  it("starts over when the cursor belongs to other data", async () => {
    const seen = await follow([
      { messages: [message(1), message(2)], error: unavailable() },
      { messages: [], error: new ConnectError("the cursor is past the head", Code.OutOfRange) },
      { messages: [message(1)], error: unavailable() },
    ]);
    expect(seen.tokens).toEqual(["", "token-2", "", "token-1"]);
    expect(seen.forgotten).toBe(1);
    expect(seen.epochs).toEqual([1]);
  });

  it("reads everything again when an event is missing", async () => {
    const seen = await follow([
      { messages: [message(1), message(3)], error: unavailable() },
      { messages: [message(1), message(2), message(3)], error: unavailable() },
    ]);
    expect(seen.tokens).toEqual(["", "", "token-3"]);
    expect(seen.epochs).toEqual([1, 2, 3]);
  });
});

describe("the wait before the next attempt", () => {
  it("doubles from half a second to ten seconds", () => {
    expect([0, 1, 2, 3, 4, 5, 60].map((attempt) => retryDelay(attempt, undefined, 0.5))).toEqual([500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
  });

  it("is spread by a fifth", () => {
    expect(retryDelay(1, undefined, 0)).toBe(800);
    expect(retryDelay(1, undefined, 1)).toBe(1200);
  });

  it("is never shorter than the server requests", () => {
    expect(retryDelay(0, 30_000, 0.5)).toBe(30_000);
    expect(retryDelay(3, 1000, 0.5)).toBe(4000);
  });
});

describe("a failure of the stream", () => {
  it("is retried, restarted or final", () => {
    const of = (code: Code) => verdict({ code, reason: "" });
    expect([Code.Unavailable, Code.Internal, Code.Unknown, Code.ResourceExhausted].map(of)).toEqual(["resume", "resume", "resume", "resume"]);
    expect([Code.OutOfRange, Code.InvalidArgument].map(of)).toEqual(["restart", "restart"]);
    expect([Code.Unimplemented, Code.PermissionDenied].map(of)).toEqual(["give_up", "give_up"]);
  });
});

