import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { baseUrl } from "../src/api/base";
import { TrainingEventSchema, TrainingSchema, TrainingState } from "../src/gen/visage/v1/training_pb";
import { TrainingLog } from "../src/live/fold";
import { viewOf } from "../src/live/view";

/** A log with a number of epochs, followed by a state. */
function logOf(epochs: number, state: TrainingState): TrainingLog {
  const log = new TrainingLog();
  for (let epoch = 1; epoch <= epochs; epoch += 1) {
    log.apply(create(TrainingEventSchema, { training: "trainings/t", sequence: BigInt(epoch), kind: { case: "epochCompleted", value: { epoch, isBest: true } } }));
  }
  log.apply(create(TrainingEventSchema, { training: "trainings/t", sequence: BigInt(epochs + 1), kind: { case: "stateChanged", value: { state } } }));
  return log;
}

describe("a view of a training", () => {
  it("follows the list while the events are behind it", () => {
    const listed = create(TrainingSchema, { name: "trainings/t", state: TrainingState.SUCCEEDED, lastSequence: 9n, last: { epoch: 7 } });
    const view = viewOf(listed, logOf(2, TrainingState.RUNNING));
    expect(view.state).toBe(TrainingState.SUCCEEDED);
    expect(view.last?.epoch).toBe(7);
  });

  it("follows the events once they have caught up", () => {
    const listed = create(TrainingSchema, { name: "trainings/t", state: TrainingState.RUNNING, lastSequence: 3n, last: { epoch: 1 } });
    const view = viewOf(listed, logOf(2, TrainingState.PAUSED));
    expect(view.state).toBe(TrainingState.PAUSED);
    expect(view.last?.epoch).toBe(2);
  });

  it("has no progress without a process", () => {
    const listed = create(TrainingSchema, { name: "trainings/t", state: TrainingState.PAUSED, lastSequence: 1n, progress: { epoch: 3 } });
    expect(viewOf(listed, new TrainingLog()).progress).toBeUndefined();
  });
});

describe("the address of the API", () => {
  it("is the directory of the page, at any path", () => {
    expect(baseUrl("http://127.0.0.1:50052/")).toBe("http://127.0.0.1:50052");
    expect(baseUrl("https://example.org/some/where/#/models?x=/y/")).toBe("https://example.org/some/where");
    expect(baseUrl("https://example.org/some/where/index.html?a=b")).toBe("https://example.org/some/where");
  });
});
