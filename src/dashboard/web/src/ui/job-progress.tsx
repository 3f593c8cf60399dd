/** Progress bar of a streamed job with a button that cancels it. */
import { count, sentence } from "../format";
import type { JobProgress } from "./job";
import { Meter } from "./parts";

const PHASES: Readonly<Record<string, string>> = {
  unpack: "unpacking",
  scan: "scanning the images",
  compare: "comparing images",
  predict: "predicting",
  report: "summarising",
};

export function JobProgressLine(props: { progress: JobProgress | undefined; label: string; onCancel: () => void }) {
  const { progress } = props;
  const total = progress?.total ?? 0n;
  return (
    <div class="progress">
      <Meter share={total > 0n ? Number(progress?.done ?? 0n) / Number(total) : 0} label={props.label} />
      <p class="progress-text">
        <span>{sentence(PHASES[progress?.phase ?? ""] ?? progress?.phase ?? "starting")}…</span>
        <span class="muted">{total > 0n && `${count(progress?.done ?? 0n)} of ${count(total)}`}</span>
        <button type="button" class="small" onClick={props.onCancel}>
          Cancel
        </button>
      </p>
    </div>
  );
}
