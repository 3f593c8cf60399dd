/** What the events of one training add up to. */
import {
  type Checkpoint,
  type DatasetReport,
  type EpochMetrics,
  type Evaluation,
  type Failure,
  type FieldChange,
  type Progress,
  type SpecChangeReason,
  StopReason,
  type TrainingEvent,
  TrainingState,
} from "../gen/visage/v1/training_pb";
import { millis } from "../format";

/** What became of an event. */
export type Outcome =
  | "applied"
  /** It was seen before and changes nothing. */
  | "repeat"
  /** Events before it are missing: what is known cannot be trusted, so it was not applied. */
  | "gap";

/** A moment in a training's life. */
export type Moment = { time: number; attempt: number } & (
  | { kind: "state"; state: TrainingState }
  | { kind: "rewound"; fromEpoch: number }
  | { kind: "spec"; reason: SpecChangeReason; changes: FieldChange[] }
);

/** The events of one training, added up in order. */
export class TrainingLog {
  /** The sequence of the last event that counts. */
  sequence = 0n;
  attempt = 0;
  state = TrainingState.UNSPECIFIED;
  stopReason = StopReason.UNSPECIFIED;
  failure: Failure | undefined;
  /** By epoch, without holes and without repeats. */
  epochs: EpochMetrics[] = [];
  checkpoints: Checkpoint[] = [];
  dataset: DatasetReport | undefined;
  test: Evaluation | undefined;
  modelVersion = "";
  promoted = false;
  /** Where the running epoch stands; undefined when no process runs. */
  progress: Progress | undefined;
  moments: Moment[] = [];

  /** Adds an event. */
  apply(event: TrainingEvent): Outcome {
    if (event.kind.case === "progress") return this.applyProgress(event.kind.value, event.attempt);
    if (event.sequence === 0n || event.sequence <= this.sequence) return "repeat";
    if (event.sequence !== this.sequence + 1n) return "gap";
    this.sequence = event.sequence;
    this.attempt = Math.max(this.attempt, event.attempt);
    this.applyStored(event);
    return "applied";
  }

  /** Progress has no place in the order: it is old when it comes from a process before, or when nothing runs any more. */
  private applyProgress(progress: Progress, attempt: number): Outcome {
    if (attempt < this.attempt || isFinal(this.state)) return "repeat";
    this.progress = progress;
    return "applied";
  }

  private applyStored(event: TrainingEvent): void {
    const at = { time: event.eventTime ? millis(event.eventTime) : 0, attempt: event.attempt };
    const { kind } = event;
    switch (kind.case) {
      case "stateChanged":
        this.state = kind.value.state;
        this.stopReason = kind.value.stopReason;
        this.failure = kind.value.failure;
        if (!hasProcess(this.state)) this.progress = undefined;
        this.moments.push({ ...at, kind: "state", state: kind.value.state });
        break;
      case "datasetScanned":
        this.dataset = kind.value;
        break;
      case "epochCompleted":
        // A server that repeats an epoch says so before; the later one wins all the same.
        this.forgetFrom(kind.value.epoch);
        this.epochs.push(kind.value);
        break;
      case "metricsRewound":
        this.forgetFrom(kind.value.fromEpoch);
        this.moments.push({ ...at, kind: "rewound", fromEpoch: kind.value.fromEpoch });
        break;
      case "checkpointSaved":
        this.checkpoints = this.checkpoints.filter(({ epoch }) => epoch !== kind.value.epoch);
        this.checkpoints.push(kind.value);
        break;
      case "testEvaluated":
        this.test = kind.value;
        break;
      case "modelVersionCreated":
        this.modelVersion = kind.value.modelVersion;
        this.promoted = kind.value.promoted;
        break;
      case "specChanged":
        this.moments.push({ ...at, kind: "spec", reason: kind.value.reason, changes: kind.value.changes });
        break;
      default:
        // An event of a newer server, or a heartbeat: nothing that this page shows.
        break;
    }
  }

  private forgetFrom(epoch: number): void {
    this.epochs = this.epochs.filter((known) => known.epoch < epoch);
    this.checkpoints = this.checkpoints.filter((known) => known.epoch < epoch);
  }

  /** The best complete epoch: the last one that was the best so far when it ended. */
  get best(): EpochMetrics | undefined {
    return this.epochs.findLast((epoch) => epoch.isBest);
  }

  get last(): EpochMetrics | undefined {
    return this.epochs.at(-1);
  }
}

/** Whether nothing more will happen. */
export function isFinal(state: TrainingState): boolean {
  return (
    state === TrainingState.SUCCEEDED ||
    state === TrainingState.FAILED ||
    state === TrainingState.CANCELLED
  );
}

/** Whether a process works for it. */
export function hasProcess(state: TrainingState): boolean {
  switch (state) {
    case TrainingState.PREPARING:
    case TrainingState.RUNNING:
    case TrainingState.PAUSING:
    case TrainingState.STOPPING:
    case TrainingState.CANCELLING:
      return true;
    default:
      return false;
  }
}
