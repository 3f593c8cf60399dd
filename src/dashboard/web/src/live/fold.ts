/** State of one training, folded from its events. */
import {
  type Checkpoint,
  type DatasetReport,
  type EpochMetrics,
  type Evaluation,
  type Failure,
  type FieldChange,
  type Progress,
  type Promotion,
  type SpecChangeReason,
  StopReason,
  type TrainingEvent,
  TrainingState,
} from "../gen/visage/v1/training_pb";
import { millis } from "../format";

/** Result of applying an event. */
export type Outcome =
  | "applied"
  /** Seen before; no effect. */
  | "repeat"
  /** Earlier events are missing, so it was not applied. */
  | "gap";

/** An entry of the history of a training. */
export type Moment = { time: number; attempt: number } & (
  | { kind: "state"; state: TrainingState }
  | { kind: "rewound"; fromEpoch: number }
  | { kind: "spec"; reason: SpecChangeReason; changes: FieldChange[] }
);

export class TrainingLog {
  /** Sequence of the last applied event. */
  sequence = 0n;
  attempt = 0;
  state = TrainingState.UNSPECIFIED;
  stopReason = StopReason.UNSPECIFIED;
  failure: Failure | undefined;
  /** In order, without gaps or repeats. */
  epochs: EpochMetrics[] = [];
  checkpoints: Checkpoint[] = [];
  dataset: DatasetReport | undefined;
  test: Evaluation | undefined;
  modelVersion = "";
  promoted = false;
  promotion: Promotion | undefined;
  /** Validation of the initial weights, as epoch 0. */
  initial: EpochMetrics | undefined;
  /** Progress of the current epoch; undefined if no process is running. */
  progress: Progress | undefined;
  moments: Moment[] = [];

  apply(event: TrainingEvent): Outcome {
    if (event.kind.case === "progress") return this.applyProgress(event.kind.value, event.attempt);
    if (event.sequence === 0n || event.sequence <= this.sequence) return "repeat";
    if (event.sequence !== this.sequence + 1n) return "gap";
    this.sequence = event.sequence;
    this.attempt = Math.max(this.attempt, event.attempt);
    this.applyStored(event);
    return "applied";
  }

  /** Progress has no sequence: it is stale if it comes from an earlier process or after the end. */
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
      case "initialValidated":
        this.initial = kind.value;
        break;
      case "epochCompleted":
        // A server announces repeated epochs; the later one wins in any case.
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
        this.promotion = kind.value.promotion;
        break;
      case "specChanged":
        this.moments.push({ ...at, kind: "spec", reason: kind.value.reason, changes: kind.value.changes });
        break;
      default:
        // Heartbeats, and events of a newer server.
        break;
    }
  }

  private forgetFrom(epoch: number): void {
    this.epochs = this.epochs.filter((known) => known.epoch < epoch);
    this.checkpoints = this.checkpoints.filter((known) => known.epoch < epoch);
  }

  /** Best completed epoch: the last one that was the best so far when it ended. */
  get best(): EpochMetrics | undefined {
    return this.epochs.findLast((epoch) => epoch.isBest);
  }

  get last(): EpochMetrics | undefined {
    return this.epochs.at(-1);
  }
}

/** True for final states. */
export function isFinal(state: TrainingState): boolean {
  return (
    state === TrainingState.SUCCEEDED ||
    state === TrainingState.FAILED ||
    state === TrainingState.CANCELLED
  );
}

/** True for states with a running process. */
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
