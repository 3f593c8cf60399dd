/** Trainings known to the page: the latest list, and the events received since. */
import { computed, signal } from "@preact/signals";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { brief, trainingClient } from "../api/clients";
import { type Failure, failureOf } from "../api/errors";
import type { Training } from "../gen/visage/v1/training_pb";
import { may, refreshSession } from "./session";
import { Follower, HEARTBEAT_MS, type Link } from "./follow";
import { TrainingLog } from "./fold";
import { type View, viewOf } from "./view";

const snapshot = signal<ReadonlyMap<string, Training> | undefined>(undefined);
/** Mutable; `revision` signals changes. */
const logs = new Map<string, TrainingLog>();
const revision = signal(0);

/** State of the event stream. */
export const link = signal<Link>({ state: "connecting" });
/** Error of the latest list request. */
export const listFailure = signal<Failure | undefined>(undefined);

/** All trainings, newest first; undefined before the first list. */
export const views = computed<View[] | undefined>(() => {
  void revision.value;
  return snapshot.value && [...snapshot.value.values()].map((training) => viewOf(training, logs.get(training.name) ?? new TrainingLog()));
});

let isAnnounced = false;
function changed(): void {
  if (isAnnounced) return;
  isAnnounced = true;
  // A replay delivers thousands of events at once; render once for all of them.
  setTimeout(() => {
    isAnnounced = false;
    revision.value += 1;
  }, 50);
}

const follower = new Follower({
  open: (resumeToken, abort, onHeader) =>
    trainingClient.streamEpochMetrics(
      { name: "trainings/-", resumeToken, progress: true, heartbeatInterval: durationFromMs(HEARTBEAT_MS) },
      { signal: abort, onHeader },
    ),
  take(event) {
    if (event.training === "") return "applied";
    let log = logs.get(event.training);
    if (!log) {
      log = new TrainingLog();
      logs.set(event.training, log);
    }
    const outcome = log.apply(event);
    if (outcome === "applied") {
      changed();
      const isNews = event.kind.case !== "progress" && event.kind.case !== "epochCompleted";
      const isPastList = event.sequence > (snapshot.value?.get(event.training)?.lastSequence ?? -1n);
      if (isNews && isPastList) refreshSoon();
    }
    return outcome;
  },
  forget() {
    logs.clear();
    changed();
    refreshSoon();
  },
  report(next) {
    const wasBroken = link.value.state === "waiting" || link.value.state === "resting";
    link.value = next;
    if (next.state !== "live" || !wasBroken) return;
    refreshSoon();
    // The server may have been restarted with other roles.
    void refreshSession();
  },
  wait: (milliseconds, abort) =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      abort.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
      if (abort.aborted) resolve();
    }),
  random: Math.random,
});

/** The list contains what events do not: queue positions, specs and deletions. */
const REFRESH_MS = 15_000;
/** Delay that coalesces the refreshes of simultaneous events. */
const SETTLE_MS = 150;
/** A hidden page closes its connection, because browsers allow six per server. */
const REST_AFTER_MS = 20_000;

let refreshTimer: ReturnType<typeof setTimeout> | undefined;
let isRefreshing = false;
let isRefreshWanted = false;

/** Schedules a refresh of the list. */
export function refreshSoon(): void {
  clearTimeout(refreshTimer);
  refreshTimer = setTimeout(() => void refresh(), SETTLE_MS);
}

/** Refreshes the list of trainings. */
export async function refresh(): Promise<void> {
  if (!may("viewer")) return;
  if (isRefreshing) {
    isRefreshWanted = true;
    return;
  }
  isRefreshing = true;
  try {
    const known = new Set(logs.keys());
    const found = new Map<string, Training>();
    let pageToken = "";
    do {
      const page = await trainingClient.listTrainings({ pageSize: 1000, pageToken }, brief);
      for (const training of page.trainings) found.set(training.name, training);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    for (const name of known) if (!found.has(name)) logs.delete(name);
    snapshot.value = found;
    listFailure.value = undefined;
  } catch (error) {
    listFailure.value = failureOf(error, "ListTrainings");
  } finally {
    isRefreshing = false;
    clearTimeout(refreshTimer);
    if (isRefreshWanted) {
      isRefreshWanted = false;
      refreshSoon();
    } else {
      refreshTimer = setTimeout(() => void refresh(), REFRESH_MS);
    }
  }
}

/** Applies the training returned by a call. */
export function learn(training: Training | undefined): void {
  if (!training) return;
  const next = new Map(snapshot.value);
  const isNew = !next.has(training.name);
  if (isNew) {
    snapshot.value = new Map([[training.name, training], ...next]);
  } else {
    next.set(training.name, training);
    snapshot.value = next;
  }
  refreshSoon();
}

/** Removes a deleted training. */
export function unlearn(name: string): void {
  const next = new Map(snapshot.value);
  next.delete(name);
  logs.delete(name);
  snapshot.value = next;
}

/** Starts, or resumes, the stream of events if the roles permit it. */
function follow(): void {
  if (may("viewer")) follower.start();
}

/** Follows the events while the page is visible. */
export function startFollowing(): void {
  follow();
  void refresh();
  let restTimer: ReturnType<typeof setTimeout> | undefined;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(restTimer);
    if (document.visibilityState === "hidden") {
      restTimer = setTimeout(() => {
        follower.rest();
        clearTimeout(refreshTimer);
      }, REST_AFTER_MS);
    } else {
      follow();
      follower.hurry();
      refreshSoon();
    }
  });
  addEventListener("online", () => follower.hurry());
}

/** Reconnects at once. */
export function reconnectNow(): void {
  follower.hurry();
  follow();
  refreshSoon();
}

export type { View };
