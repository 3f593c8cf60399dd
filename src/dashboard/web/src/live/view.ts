/** Combination of the listed state of a training and its events. */
import type {
  DatasetReport,
  EpochMetrics,
  Evaluation,
  Failure as TrainingFailure,
  Progress,
  Promotion,
  StopReason,
  Training,
  TrainingState,
} from "../gen/visage/v1/training_pb";
import { type TrainingLog, hasProcess } from "./fold";

export interface View {
  name: string;
  training: Training;
  log: TrainingLog;
  state: TrainingState;
  stopReason: StopReason;
  failure: TrainingFailure | undefined;
  progress: Progress | undefined;
  attempt: number;
  best: EpochMetrics | undefined;
  last: EpochMetrics | undefined;
  /** Validation of the initial weights, as epoch 0. */
  initial: EpochMetrics | undefined;
  dataset: DatasetReport | undefined;
  test: Evaluation | undefined;
  modelVersion: string;
  promotion: Promotion | undefined;
}

/** Combines list and events; the one with more events takes precedence. */
export function viewOf(training: Training, log: TrainingLog): View {
  const isLogNewer = log.sequence > 0n && log.sequence >= training.lastSequence;
  const state = isLogNewer ? log.state : training.state;
  return {
    name: training.name,
    training,
    log,
    state,
    stopReason: isLogNewer ? log.stopReason : training.stopReason,
    failure: isLogNewer ? log.failure : training.failure,
    progress: hasProcess(state) ? (log.progress ?? training.progress) : undefined,
    attempt: Math.max(training.attempt, log.attempt),
    best: isLogNewer ? log.best : training.best,
    last: isLogNewer ? log.last : training.last,
    dataset: log.dataset ?? training.dataset,
    test: log.test ?? training.test,
    initial: log.initial ?? training.initial,
    modelVersion: log.modelVersion || training.modelVersion,
    promotion: log.promotion ?? training.promotion,
  };
}
