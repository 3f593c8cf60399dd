/** Recent metrics of the server, scraped while the page is visible. */
import { useEffect, useState } from "preact/hooks";
import { fetchPage } from "../api/clients";
import { type Failure, failureOf } from "../api/errors";
import { DatasetService } from "../gen/visage/v1/dataset_pb";
import { ModelService } from "../gen/visage/v1/model_pb";
import { PredictionService } from "../gen/visage/v1/prediction_pb";
import { SystemService } from "../gen/visage/v1/system_pb";
import { TrainingService } from "../gen/visage/v1/training_pb";
import { may } from "../live/session";
import { type Choice, type Reading, parseMetrics, quantile, rate, total } from "./prometheus";

/** Unary methods: the duration of a stream is not a latency. */
const UNARY: ReadonlySet<string> = new Set(
  [DatasetService, ModelService, PredictionService, SystemService, TrainingService].flatMap((service) =>
    service.methods.filter(({ methodKind }) => methodKind === "unary").map(({ name }) => name),
  ),
);
/** The label is a full name such as `visage.v1.PredictionService/Predict`. */
const isUnary: Choice = ({ method = "" }) => UNARY.has(method.slice(method.lastIndexOf("/") + 1));
const isFault: Choice = ({ code }) => code !== undefined && !["ok", "cancelled"].includes(code);

/** A point of the charts. */
export interface Point {
  /** Seconds since 1970. */
  time: number;
  calls: number;
  faults: number;
  p50: number | undefined;
  p99: number | undefined;
  images: number;
  queued: number | undefined;
  memory: number | undefined;
}

/** Rates and latencies between two scrapes. */
export function pointOf(before: Reading, after: Reading): Point {
  const latency = (q: number) => quantile(q, before, after, "visage_rpc_duration_seconds", isUnary);
  return {
    time: after.time / 1000,
    calls: rate(before, after, "visage_rpc_requests_total"),
    faults: rate(before, after, "visage_rpc_requests_total", isFault),
    p50: latency(0.5),
    p99: latency(0.99),
    images: rate(before, after, "visage_predict_images_total"),
    queued: total(after, "visage_predict_queue_depth"),
    memory: total(after, "process_resident_memory_bytes"),
  };
}

/** Calls of one method since the server started. */
export interface MethodTotals {
  method: string;
  calls: number;
  faults: number;
  inFlight: number;
}

/** Totals by method, in descending order of calls. */
export function methodsOf(reading: Reading): MethodTotals[] {
  const methods = new Set(reading.samples.filter(({ name }) => name === "visage_rpc_requests_total").map(({ labels }) => labels["method"] ?? ""));
  return [...methods]
    .map((method) => {
      const own: Choice = (labels) => labels["method"] === method;
      return {
        method,
        calls: total(reading, "visage_rpc_requests_total", own) ?? 0,
        faults: total(reading, "visage_rpc_requests_total", (labels) => own(labels) && isFault(labels)) ?? 0,
        inFlight: total(reading, "visage_rpc_in_flight", own) ?? 0,
      };
    })
    .filter(({ calls, inFlight }) => calls > 0 || inFlight > 0)
    .sort((a, b) => b.calls - a.calls);
}

const EVERY_MS = 2_000;
/** Five minutes. */
const MOST_POINTS = 150;

export interface Watched {
  points: Point[];
  latest: Reading | undefined;
  failure: Failure | undefined;
}

/** Scrapes the metrics periodically while the page is visible. */
export function useMetrics(): Watched {
  const [watched, setWatched] = useState<Watched>({ points: [], latest: undefined, failure: undefined });
  useEffect(() => {
    const abort = new AbortController();
    let before: Reading | undefined;
    const read = async (): Promise<void> => {
      if (document.visibilityState === "hidden" || !may("metrics")) return;
      try {
        const response = await fetchPage("metrics", AbortSignal.any([abort.signal, AbortSignal.timeout(10_000)]));
        if (!response.ok) throw new Error(`./metrics responded with ${response.status} ${response.statusText}`);
        const after = { time: Date.now(), samples: parseMetrics(await response.text()) };
        const earlier = before;
        before = after;
        setWatched(({ points }) => ({ points: earlier ? [...points, pointOf(earlier, after)].slice(-MOST_POINTS) : points, latest: after, failure: undefined }));
      } catch (error) {
        if (!abort.signal.aborted) setWatched((old) => ({ ...old, failure: failureOf(error, "Reading ./metrics") }));
      }
    };
    void read();
    const timer = setInterval(() => void read(), EVERY_MS);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, []);
  return watched;
}
