import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { EpochMetricsSchema, TrainingState } from "../src/gen/visage/v1/training_pb";
import { TrainingLog } from "../src/live/fold";
import { restartMarks } from "../src/live/restarts";

/** A log with one epoch per given attempt. */
function logOf(attempts: number[]): TrainingLog {
  const log = new TrainingLog();
  log.epochs = attempts.map((attempt, index) => create(EpochMetricsSchema, { epoch: index + 1, attempt }));
  return log;
}

describe("restarts on the curves", () => {
  it("lie before the first epoch of a new process", () => {
    expect(restartMarks({ log: logOf([1, 1, 2, 2, 4]) })).toEqual([
      { x: 2.5, label: "restart" },
      { x: 4.5, label: "restart" },
    ]);
    expect(restartMarks({ log: logOf([1, 1]) })).toEqual([]);
  });
  it("are distinguished from a pause", () => {
    const log = logOf([1, 2, 3]);
    log.moments = [{ time: 0, attempt: 1, kind: "state", state: TrainingState.PAUSED }];
    expect(restartMarks({ log }).map(({ label }) => label)).toEqual(["resumed", "restart"]);
  });
});
