/**
 * Stream of the events of all trainings, which resumes at its cursor after a lost connection,
 * without gaps or repeats.
 */
import type { StreamEpochMetricsResponse, TrainingEvent } from "../gen/visage/v1/training_pb";
import { type Failure, failureOf } from "../api/errors";
import type { Outcome } from "./fold";
import { retryDelay, verdict } from "./reconnect";

/** State of the stream. */
export type Link =
  | { state: "connecting" }
  | { state: "live" }
  /** Disconnected; the next attempt follows automatically. `attempt` counts from 1. */
  | { state: "waiting"; failure: Failure; attempt: number }
  /** Closed while the page is hidden; the cursor is kept. */
  | { state: "resting" }
  | { state: "failed"; failure: Failure };

/** Environment of a follower; replaced in tests. */
export interface Environment {
  /**
   * Opens the stream after a cursor; empty for the beginning. `onOpen` is called with the response
   * headers, before any event.
   */
  open(resumeToken: string, signal: AbortSignal, onOpen: () => void): AsyncIterable<StreamEpochMetricsResponse>;
  take(event: TrainingEvent): Outcome;
  /** Discards all events; they will be received again. */
  forget(): void;
  /** Receives the state of the stream. */
  report(link: Link): void;
  /** Waits, at most until the signal is aborted. */
  wait(milliseconds: number, signal: AbortSignal): Promise<void>;
  /** From 0 to below 1. */
  random(): number;
}

/** Heartbeat interval requested from the server. */
export const HEARTBEAT_MS = 5_000;
/**
 * Time without a message after which the connection is considered dead: two heartbeats may be lost.
 */
export const SILENCE_MS = 3 * HEARTBEAT_MS;

export class Follower {
  private token = "";
  private session: AbortController | undefined;
  private pause: AbortController | undefined;

  constructor(private readonly environment: Environment) {}

  /** Starts, or resumes after `rest`. */
  start(): void {
    if (this.session) return;
    const session = new AbortController();
    this.session = session;
    void this.run(session.signal);
  }

  /** Closes the connection and keeps the cursor. */
  rest(): void {
    if (!this.session) return;
    this.session.abort();
    this.session = undefined;
    this.environment.report({ state: "resting" });
  }

  /** Skips the wait before the next attempt. */
  hurry(): void {
    this.pause?.abort();
  }

  private async run(session: AbortSignal): Promise<void> {
    let attempt = 0;
    this.environment.report({ state: "connecting" });
    while (!session.aborted) {
      let failure: Failure;
      try {
        await this.read(session, () => {
          attempt = 0;
        });
        // The stream of all trainings never ends, but a proxy may end it.
        failure = failureOf(new TypeError("the stream ended"), "StreamEpochMetrics");
      } catch (error) {
        failure = failureOf(error, "StreamEpochMetrics");
      }
      if (session.aborted) return;
      const what = verdict(failure);
      if (what === "give_up") {
        this.session = undefined;
        this.environment.report({ state: "failed", failure });
        return;
      }
      if (what === "restart") this.reset();
      this.environment.report({ state: "waiting", failure, attempt: attempt + 1 });
      await this.sleep(retryDelay(attempt, failure.retryAfter, this.environment.random()), session);
      attempt += 1;
    }
  }

  private reset(): void {
    this.token = "";
    this.environment.forget();
  }

  /** Reads one connection until it ends. */
  private async read(session: AbortSignal, onAnswer: () => void): Promise<void> {
    const connection = new AbortController();
    const end = (): void => connection.abort();
    session.addEventListener("abort", end);
    let watch: ReturnType<typeof setTimeout> | undefined;
    const alive = (): void => {
      clearTimeout(watch);
      watch = setTimeout(end, SILENCE_MS);
    };
    try {
      alive();
      let isLive = false;
      const live = (): void => {
        if (isLive || session.aborted) return;
        isLive = true;
        this.environment.report({ state: "live" });
      };
      for await (const { event } of this.environment.open(this.token, connection.signal, live)) {
        // Events in flight when the stream was closed are sent again after the cursor.
        if (session.aborted) return;
        alive();
        live();
        onAnswer();
        if (!event) continue;
        if (this.environment.take(event) === "gap") {
          // The server guarantees that there are no gaps; reading everything again is the safe
          // reaction.
          this.reset();
          return;
        }
        if (event.resumeToken !== "") this.token = event.resumeToken;
      }
    } finally {
      clearTimeout(watch);
      session.removeEventListener("abort", end);
      connection.abort();
    }
  }

  private async sleep(milliseconds: number, session: AbortSignal): Promise<void> {
    const pause = new AbortController();
    this.pause = pause;
    await this.environment.wait(milliseconds, AbortSignal.any([session, pause.signal]));
  }
}
