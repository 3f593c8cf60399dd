import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { StopReason, TrainingEventSchema, TrainingState, type TrainingEvent } from "../src/gen/visage/v1/training_pb";
import { TrainingLog } from "../src/live/fold";

type Kind = NonNullable<MessageInitShape<typeof TrainingEventSchema>["kind"]>;

/** An event of `trainings/t`. */
function event(sequence: number, kind: Kind, attempt = 1): TrainingEvent {
  return create(TrainingEventSchema, { training: "trainings/t", sequence: BigInt(sequence), attempt, kind, resumeToken: `at-${sequence}` });
}
const epoch = (sequence: number, number: number, valLoss: number, isBest: boolean, attempt = 1): TrainingEvent =>
  event(sequence, { case: "epochCompleted", value: { epoch: number, valLoss, isBest, attempt } }, attempt);
const rewound = (sequence: number, fromEpoch: number): TrainingEvent => event(sequence, { case: "metricsRewound", value: { fromEpoch } }, 2);
const state = (sequence: number, to: TrainingState, attempt = 1): TrainingEvent => event(sequence, { case: "stateChanged", value: { state: to } }, attempt);
const checkpoint = (sequence: number, number: number): TrainingEvent =>
  event(sequence, { case: "checkpointSaved", value: { name: `trainings/t/checkpoints/${number}`, epoch: number } });
const progress = (step: number, attempt = 1): TrainingEvent =>
  create(TrainingEventSchema, { training: "trainings/t", attempt, kind: { case: "progress", value: { epoch: 1, step, steps: 9 } } });

function logOf(...events: TrainingEvent[]): TrainingLog {
  const log = new TrainingLog();
  for (const one of events) expect(log.apply(one)).toBe("applied");
  return log;
}
const epochsOf = (log: TrainingLog): [number, number][] => log.epochs.map(({ epoch: number, valLoss }) => [number, valLoss]);

describe("the events of a training", () => {
  it("include the initial validation and the decision about live", () => {
    const log = logOf(
      event(1, { case: "initialValidated", value: { epoch: 0, valMae: 4.12 } }),
      epoch(2, 1, 200, true),
      event(3, { case: "modelVersionCreated", value: { modelVersion: "models/age/versions/3", promoted: true, promotion: { promoted: true, reason: "it is better" } } }),
    );
    expect(log.initial?.valMae).toBe(4.12);
    expect(epochsOf(log)).toEqual([[1, 200]]);
    expect([log.promoted, log.promotion?.reason]).toEqual([true, "it is better"]);
  });

  it("are folded into epochs, state and best epoch", () => {
    const log = logOf(
      state(1, TrainingState.QUEUED),
      state(2, TrainingState.PREPARING),
      state(3, TrainingState.RUNNING),
      epoch(4, 1, 200, true),
      epoch(5, 2, 150, true),
      epoch(6, 3, 160, false),
    );
    expect(log.state).toBe(TrainingState.RUNNING);
    expect(log.sequence).toBe(6n);
    expect(epochsOf(log)).toEqual([[1, 200], [2, 150], [3, 160]]);
    expect(log.best?.epoch).toBe(2);
    expect(log.last?.epoch).toBe(3);
  });

  it("have no effect when repeated", () => {
    const log = logOf(state(1, TrainingState.RUNNING), epoch(2, 1, 200, true));
    expect(log.apply(epoch(2, 1, 999, true))).toBe("repeat");
    expect(log.apply(state(1, TrainingState.QUEUED))).toBe("repeat");
    expect(log.state).toBe(TrainingState.RUNNING);
    expect(epochsOf(log)).toEqual([[1, 200]]);
  });

  it("are not applied after a gap", () => {
    const log = logOf(state(1, TrainingState.RUNNING));
    expect(log.apply(epoch(3, 1, 200, true))).toBe("gap");
    expect(log.epochs).toEqual([]);
    expect(log.sequence).toBe(1n);
  });

  it("are discarded from the epoch of a rewind on, including the best one", () => {
    const log = logOf(epoch(1, 1, 200, true), checkpoint(2, 1), epoch(3, 2, 150, true), checkpoint(4, 2), epoch(5, 3, 140, true), checkpoint(6, 3), rewound(7, 2));
    expect(epochsOf(log)).toEqual([[1, 200]]);
    expect(log.checkpoints.map((one) => one.epoch)).toEqual([1]);
    expect(log.best?.epoch).toBe(1);
    expect(log.apply(epoch(8, 2, 151, true, 2))).toBe("applied");
    expect(epochsOf(log)).toEqual([[1, 200], [2, 151]]);
    expect(log.best?.valLoss).toBe(151);
    expect(log.moments).toMatchObject([{ kind: "rewound", fromEpoch: 2, attempt: 2 }]);
  });

  it("leave no epoch after a rewind to the first", () => {
    const log = logOf(epoch(1, 1, 200, true), rewound(2, 1));
    expect(log.epochs).toEqual([]);
    expect(log.best).toBeUndefined();
  });

  it("keep the earlier of two best epochs that are equal, as the server marks it", () => {
    expect(logOf(epoch(1, 1, 150, true), epoch(2, 2, 150, false)).best?.epoch).toBe(1);
  });

  it("update progress, which has no sequence", () => {
    const log = logOf(state(1, TrainingState.RUNNING), progress(3), progress(4));
    expect(log.progress?.step).toBe(4);
    expect(log.sequence).toBe(1n);
    expect(log.apply(state(2, TrainingState.PAUSED))).toBe("applied");
    expect(log.progress).toBeUndefined();
  });

  it("ignore progress of an earlier process and of an ended training", () => {
    const log = logOf(state(1, TrainingState.RUNNING, 2));
    expect(log.apply(progress(5, 1))).toBe("repeat");
    expect(log.progress).toBeUndefined();
    log.apply(event(2, { case: "stateChanged", value: { state: TrainingState.SUCCEEDED, stopReason: StopReason.MAX_EPOCHS } }, 2));
    expect(log.apply(progress(6, 2))).toBe("repeat");
    expect(log.stopReason).toBe(StopReason.MAX_EPOCHS);
  });
});
