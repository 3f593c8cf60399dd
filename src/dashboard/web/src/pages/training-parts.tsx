/** Shared parts of the pages about trainings. */
import { NOTHING, error, millis, seconds, shortName, span } from "../format";
import { TrainingState } from "../gen/visage/v1/training_pb";
import { isFinal } from "../live/fold";
import type { View } from "../live/store";
import { Meter } from "../ui/parts";

/** Display name of a training, or else its id. */
export function titleOf(view: View): string {
  return view.training.displayName || shortName(view.name);
}

/** Maximum number of epochs. */
export function maxEpochs(view: View): number {
  return view.training.resolvedSpec?.maxEpochs || view.progress?.maxEpochs || view.last?.maxEpochs || 0;
}

/** Completed share of a training, 0 to 1. */
export function shareOf(view: View): number {
  if (view.state === TrainingState.SUCCEEDED) return 1;
  const all = maxEpochs(view);
  const byEpochs = all === 0 ? 0 : (view.last?.epoch ?? 0) / all;
  return Math.max(view.progress?.fraction ?? 0, byEpochs);
}

const PHASES: Readonly<Record<string, string>> = {
  scan: "scanning the dataset",
  compare: "comparing images",
  load: "loading the weights",
  train: "training",
  validate: "validating",
  checkpoint: "writing a checkpoint",
  test: "testing the best checkpoint",
  promote: "comparing with the live version",
};

/** Current phase as text; may be empty. */
export function phaseText(view: View): string {
  if (view.state === TrainingState.QUEUED) {
    const place = view.training.queuePosition;
    return place === 0 ? "waiting for the device" : place === 1 ? "next in the queue" : `position ${place} in the queue`;
  }
  const { progress } = view;
  if (!progress) return "";
  const what = PHASES[progress.phase] ?? progress.phase;
  return progress.phase === "train" && progress.steps > 0 ? `${what}, step ${progress.step} of ${progress.steps}` : what;
}

/** Progress bar with text. */
export function ProgressLine(props: { view: View }) {
  const { view } = props;
  const all = maxEpochs(view);
  const done = view.last?.epoch ?? 0;
  const tone = view.state === TrainingState.FAILED ? "bad" : view.state === TrainingState.SUCCEEDED ? "good" : isFinal(view.state) || view.state === TrainingState.PAUSED ? "quiet" : "";
  return (
    <div class="progress">
      <Meter share={shareOf(view)} label={`Progress of ${titleOf(view)}`} tone={tone} />
      <p class="progress-text">
        <span>
          Epoch <span class="number">{done}</span> of <span class="number">{all || NOTHING}</span>
        </span>
        <span class="muted">{phaseText(view)}</span>
      </p>
    </div>
  );
}

/** Remaining or total time. */
export function timeText(view: View): { label: string; text: string } {
  if (isFinal(view.state)) {
    const { startTime, endTime } = view.training;
    return { label: "Duration", text: startTime && endTime ? span((millis(endTime) - millis(startTime)) / 1000) : NOTHING };
  }
  const eta = view.progress?.eta;
  return { label: "Time left", text: eta ? span(Math.round(seconds(eta))) : NOTHING };
}

/** MAE of the best epoch in years. */
export function bestText(view: View): string {
  return error(view.best?.valMae);
}
