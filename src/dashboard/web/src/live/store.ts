/** What the page knows about trainings: the list as the server told it, and the events that came since. */
import { computed, signal } from "@preact/signals";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { brief, trainingClient } from "../api/clients";
import { type Failure, failureOf } from "../api/errors";
import type { Training } from "../gen/visage/v1/training_pb";
import { Follower, HEARTBEAT_MS, type Link } from "./follow";
import { TrainingLog } from "./fold";
import { type View, viewOf } from "./view";

const snapshot = signal<ReadonlyMap<string, Training> | undefined>(undefined);
/** Mutable; `revision` tells of changes, at most once for each frame. */
const logs = new Map<string, TrainingLog>();
const revision = signal(0);

/** How the stream of events stands. */
export const link = signal<Link>({ state: "connecting" });
/** Why the list could not be read the last time. */
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
  // A replay brings thousands of events in one go; the page is drawn once for all that came together.
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
  tell(next) {
    const wasBroken = link.value.state === "waiting" || link.value.state === "resting";
    link.value = next;
    if (next.state === "live" && wasBroken) refreshSoon();
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

/** The list has what events do not: places in the queue, specs, and what was deleted. */
const REFRESH_MS = 15_000;
/** Events that come together cause one list. */
const SETTLE_MS = 150;
/** A page that nobody sees lets go of its connection, of which browsers have six for a server. */
const REST_AFTER_MS = 20_000;

let refreshTimer: ReturnType<typeof setTimeout> | undefined;
let isRefreshing = false;
let isRefreshWanted = false;

/** Reads the list again shortly. */
export function refreshSoon(): void {
  clearTimeout(refreshTimer);
  refreshTimer = setTimeout(() => void refresh(), SETTLE_MS);
}

/** Reads the list of trainings. */
export async function refresh(): Promise<void> {
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

/** Takes an answer of a call that has the training as it is now. */
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

/** Forgets a deleted training. */
export function unlearn(name: string): void {
  const next = new Map(snapshot.value);
  next.delete(name);
  logs.delete(name);
  snapshot.value = next;
}

/** Begins to follow, for as long as somebody looks. */
export function startFollowing(): void {
  follower.start();
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
      follower.start();
      follower.hurry();
      refreshSoon();
    }
  });
  addEventListener("online", () => follower.hurry());
}

/** Tries to connect at once. */
export function reconnectNow(): void {
  follower.hurry();
  follower.start();
  refreshSoon();
}

export type { View };
