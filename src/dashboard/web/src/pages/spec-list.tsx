/** Values of a spec, with explicitly set ones in bold. */
import { type TrainingSpec, TrainingSpecSchema } from "../gen/visage/v1/training_pb";
import { flatten } from "../spec/describe";
import { Name } from "../ui/parts";

export function SpecList(props: { asked?: TrainingSpec | undefined; resolved: TrainingSpec | undefined }) {
  if (!props.resolved) return null;
  const asked = new Set(props.asked ? flatten(TrainingSpecSchema, props.asked).keys() : []);
  return (
    <dl class="spec-list">
      {[...flatten(TrainingSpecSchema, props.resolved)].map(([path, value]) => (
        <div key={path} class={asked.has(path) ? "asked" : ""}>
          <dt>
            <Name text={path} />
            {asked.has(path) && <span class="unseen"> (set explicitly)</span>}
          </dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
