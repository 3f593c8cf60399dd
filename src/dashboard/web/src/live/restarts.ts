/** Restarts of a training, for its curves. */
import { TrainingState } from "../gen/visage/v1/training_pb";
import type { Mark } from "../ui/chart";
import type { View } from "./view";

/** Marks of the epochs before which a new process continued the training. */
export function restartMarks(view: Pick<View, "log">): Mark[] {
  const { epochs, moments } = view.log;
  return epochs.flatMap((epoch, index) => {
    const before = epochs[index - 1];
    if (!before || epoch.attempt <= before.attempt) return [];
    const isPause = moments.some((one) => one.kind === "state" && one.state === TrainingState.PAUSED && one.attempt >= before.attempt && one.attempt < epoch.attempt);
    return [{ x: epoch.epoch - 0.5, label: isPause ? "resumed" : "restart" }];
  });
}
