/** One stream of the events of all trainings that outlives servers: it goes on from its cursor, without a gap and without a repeat. */
import type { StreamEpochMetricsResponse, TrainingEvent } from "../gen/visage/v1/training_pb";
import { type Failure, failureOf } from "../api/errors";
import type { Outcome } from "./fold";
import { retryDelay, verdict } from "./reconnect";

/** How the stream stands. */
export type Link =
  | { state: "connecting" }
  | { state: "live" }
  /** Broken; the next attempt follows by itself. `attempt` counts from 1. */
  | { state: "waiting"; failure: Failure; attempt: number }
  /** Let go while nobody looks; the cursor is kept. */
  | { state: "resting" }
  | { state: "failed"; failure: Failure };

/** What a follower works with; tests give their own. */
export interface Surroundings {
  /** Opens the stream after a cursor; empty for the beginning. `onOpen` is for the server's first sign, which comes before any event. */
  open(resumeToken: string, signal: AbortSignal, onOpen: () => void): AsyncIterable<StreamEpochMetricsResponse>;
  /** Takes an event. */
  take(event: TrainingEvent): Outcome;
  /** Forgets every event: they will all come again. */
  forget(): void;
  /** Is told how the stream stands. */
  tell(link: Link): void;
  /** Waits, or less when the signal is aborted. */
  wait(milliseconds: number, signal: AbortSignal): Promise<void>;
  /** From 0 to below 1. */
  random(): number;
}

/** Longest silence that the page asks the server for. */
export const HEARTBEAT_MS = 5_000;
/** Silence after which the connection is taken for dead: two heartbeats may be lost or late. */
export const SILENCE_MS = 3 * HEARTBEAT_MS;

export class Follower {
  private token = "";
  private session: AbortController | undefined;
  private pause: AbortController | undefined;

  constructor(private readonly around: Surroundings) {}

  /** Begins, or goes on after `rest`. */
  start(): void {
    if (this.session) return;
    const session = new AbortController();
    this.session = session;
    void this.run(session.signal);
  }

  /** Lets go of the connection and keeps the cursor. */
  rest(): void {
    if (!this.session) return;
    this.session.abort();
    this.session = undefined;
    this.around.tell({ state: "resting" });
  }

  /** Tries again at once when it waits. */
  hurry(): void {
    this.pause?.abort();
  }

  private async run(session: AbortSignal): Promise<void> {
    let attempt = 0;
    this.around.tell({ state: "connecting" });
    while (!session.aborted) {
      let failure: Failure;
      try {
        await this.read(session, () => {
          attempt = 0;
        });
        // The stream of all trainings does not end by itself; a proxy may have ended it.
        failure = failureOf(new TypeError("the stream ended"), "StreamEpochMetrics");
      } catch (error) {
        failure = failureOf(error, "StreamEpochMetrics");
      }
      if (session.aborted) return;
      const what = verdict(failure);
      if (what === "give_up") {
        this.session = undefined;
        this.around.tell({ state: "failed", failure });
        return;
      }
      if (what === "restart") this.begin();
      this.around.tell({ state: "waiting", failure, attempt: attempt + 1 });
      await this.sleep(retryDelay(attempt, failure.retryAfter, this.around.random()), session);
      attempt += 1;
    }
  }

  private begin(): void {
    this.token = "";
    this.around.forget();
  }

  /** Reads one connection to its end. */
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
        this.around.tell({ state: "live" });
      };
      for await (const { event } of this.around.open(this.token, connection.signal, live)) {
        // What was on its way when the page let go comes again after the cursor.
        if (session.aborted) return;
        alive();
        live();
        onAnswer();
        if (!event) continue;
        if (this.around.take(event) === "gap") {
          // Never seen, since the server promises none; but curves with holes would be worse than reading all again.
          this.begin();
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
    await this.around.wait(milliseconds, AbortSignal.any([session, pause.signal]));
  }
}
