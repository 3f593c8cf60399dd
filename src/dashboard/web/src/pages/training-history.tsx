/** History of a training: its states, restarts and changes. */
import { count, exactMoment, seconds, sentence, span, words } from "../format";
import { SpecChangeReason, TrainingState } from "../gen/visage/v1/training_pb";
import type { Moment } from "../live/fold";
import type { View } from "../live/store";
import { Facts } from "../ui/parts";

export function changesText(one: Moment): string {
  return one.kind === "spec" ? one.changes.map(({ field, before, after }) => `${field} ${before || "unset"} → ${after || "unset"}`).join(", ") : "";
}

function momentText(one: Moment): string {
  switch (one.kind) {
    case "state":
      return sentence(words(TrainingState[one.state] ?? ""));
    case "rewound":
      return `Continued from a checkpoint; epochs from ${one.fromEpoch} on are repeated`;
    case "spec":
      return `Spec changed${one.reason === SpecChangeReason.OUT_OF_MEMORY ? " because memory ran out" : ""}: ${changesText(one)}`;
  }
}

export function History({ view }: { view: View }) {
  const { startTime, endTime, createTime, resolvedSpec } = view.training;
  return (
    <>
      <Facts
        items={[
          ["Accepted", exactMoment(createTime)],
          ["First start", startTime && exactMoment(startTime)],
          ["Ended", endTime && exactMoment(endTime)],
          ["Process starts", view.attempt ? count(view.attempt) : ""],
          ["Time limit", resolvedSpec?.maxDuration && span(seconds(resolvedSpec.maxDuration))],
        ]}
      />
      <ol class="history">
        {view.log.moments.map((one, index) => (
          <li key={index}>
            <time class="muted number">{new Date(one.time).toLocaleTimeString("en-GB")}</time> {momentText(one)}
            {one.attempt > 1 && <span class="muted"> (start {one.attempt})</span>}
          </li>
        ))}
      </ol>
    </>
  );
}
