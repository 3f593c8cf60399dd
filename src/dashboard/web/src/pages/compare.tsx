/** Comparison of trainings: their curves in one chart, and the differences of their specs. */
import { create } from "@bufbuild/protobuf";
import { useMemo } from "preact/hooks";
import { NOTHING, error, figure, shortName } from "../format";
import { type EpochMetrics, TrainingSpecSchema } from "../gen/visage/v1/training_pb";
import { type View, listFailure, refresh, views } from "../live/store";
import { SETS_TEXT, type ValidationSets, validationSets } from "../live/validation";
import { differences } from "../spec/describe";
import { Chart, type ChartProps } from "../ui/chart";
import { Empty, FailureBox, Loading, PageHead, Panel, Scroll, StateChip, Words } from "../ui/parts";
import { Needs } from "../ui/permission";
import { go, href, route } from "../ui/router";
import { titleOf } from "./training-parts";

/** A metric; `isValidated` if its values depend on the validation images. */
interface Metric {
  label: string;
  unit: string;
  of: (epoch: EpochMetrics) => number;
  format: (value: number | undefined) => string;
  isValidated: boolean;
}

const validated = (label: string, unit: string, of: Metric["of"]): Metric => ({ label, unit, of, format: error, isValidated: true });
const METRICS: Readonly<Record<string, Metric>> = {
  val_mae: validated("Validation MAE", "years", (one) => one.valMae),
  val_rmse: validated("Validation RMSE", "years", (one) => one.valRmse),
  val_loss: validated("Validation loss", "squared years", (one) => one.valLoss),
  train_loss: { label: "Training loss", unit: "squared years", of: (one) => one.trainLoss, format: error, isValidated: false },
  train_mae: { label: "Training MAE", unit: "years", of: (one) => one.trainMae, format: error, isValidated: false },
  learning_rate: { label: "Learning rate", unit: "", of: (one) => one.learningRate, format: figure, isValidated: false },
  images_per_second: { label: "Speed", unit: "images/s", of: (one) => one.imagesPerSecond, format: figure, isValidated: false },
};
/** Limited by the number of distinguishable colours. */
const MOST = 8;

export function ComparePage() {
  const all = views.value;
  const { query } = route.value;
  const ids = (query.get("t") ?? "").split(",").filter((id) => id !== "");
  const chosen = (all ?? []).filter((view) => ids.includes(shortName(view.name))).slice(0, MOST);
  const key = query.get("m") ?? "";
  const measure = METRICS[key] ?? METRICS["val_mae"];
  const set = (trainings: string[], figureKey: string): void => go(href("compare", "", { t: trainings.join(","), ...(figureKey ? { m: figureKey } : {}) }), true);
  const toggle = (id: string): void => set(ids.includes(id) ? ids.filter((one) => one !== id) : [...ids, id], key);
  const state = chosen.map((view) => `${view.name}:${view.log.sequence}`).join();
  const sets = setsOf(chosen);
  const drawn = useMemo(() => overlay(chosen, measure, sets), [state, measure]);
  if (!all || !measure) {
    return (
      <>
        <PageHead title="Compare" />
        <FailureBox failure={listFailure.value} retry={() => void refresh()} />
        {!listFailure.value && <Loading what="trainings" />}
      </>
    );
  }
  return (
    <>
      <PageHead title="Compare" lead="Curves in one chart, best epochs, and settings that differ." />
      {all.length === 0 ? (
        <Empty title="Nothing to compare yet">
          <p>Start a training, and a second one with other settings.</p>
          <div class="actions">
            <Needs role="trainer" hide>
              <a class="button primary" href={href("start")}>
                New training
              </a>
            </Needs>
          </div>
        </Empty>
      ) : (
        <div class="compare">
          <Panel title="Trainings" class="picker">
            <ul class="plain choices">
              {all.map((view) => {
                const id = shortName(view.name);
                const isChosen = ids.includes(id);
                return (
                  <li key={id}>
                    <label class="check">
                      <input type="checkbox" checked={isChosen} disabled={!isChosen && chosen.length >= MOST} onChange={() => toggle(id)} />
                      <span>
                        {titleOf(view)} <StateChip state={view.state} />
                      </span>
                    </label>
                  </li>
                );
              })}
            </ul>
          </Panel>
          <div class="stack">
            {sets.count > 1 && <Incomparable />}
            <Panel
              title="Curves"
              actions={
                <label class="inline-field">
                  Metric
                  <select value={key in METRICS ? key : "val_mae"} onChange={(event) => set(ids, event.currentTarget.value)}>
                    {Object.entries(METRICS).map(([value, { label }]) => (
                      <option key={value} value={value}>
                        {label}
                      </option>
                    ))}
                  </select>
                </label>
              }
            >
              <Chart title={measure.label} unit={measure.unit} xLabel="epoch" x={drawn.x} curves={drawn.curves} resting={drawn.resting} format={measure.format} height={300} emptyText={chosen.length === 0 ? "Select trainings to see their curves." : "No completed epoch yet."} />
            </Panel>
            {chosen.length > 1 && <Results chosen={chosen} sets={sets} />}
            {chosen.length > 1 && <Differences chosen={chosen} />}
            {chosen.length === 1 && <p class="muted">Select another training to compare them.</p>}
          </div>
        </div>
      )}
    </>
  );
}

const setsOf = (chosen: View[]): ValidationSets => validationSets(chosen.map((view) => ({ digest: view.dataset?.valDigest, error: view.best?.valMae })));

/**
 * Curves over the union of all epochs, with gaps where a training lacks an epoch. At rest the
 * legend has the values of the best epochs, as the table does.
 */
function overlay(chosen: View[], metric: Metric | undefined, sets: ValidationSets): Pick<ChartProps, "x" | "curves" | "resting"> {
  if (!metric) return { x: [], curves: [] };
  const epochsOf = (view: View): EpochMetrics[] => (metric.isValidated && view.initial ? [view.initial, ...view.log.epochs] : view.log.epochs);
  const x = [...new Set(chosen.flatMap((view) => epochsOf(view).map(({ epoch }) => epoch)))].sort((a, b) => a - b);
  const curves = chosen.map((view, index) => {
    const byEpoch = new Map(epochsOf(view).map((one) => [one.epoch, metric.of(one)]));
    const set = sets.count > 1 && metric.isValidated ? sets.nameOf(view.dataset?.valDigest) : "";
    return { label: `${titleOf(view)}${set && `, set ${set}`}`, colour: index + 1, values: x.map((epoch) => byEpoch.get(epoch) ?? null) };
  });
  return { x, curves, resting: { text: "best epochs", values: chosen.map((view) => view.best && metric.of(view.best)) } };
}

function Incomparable() {
  return (
    <p class="warnings">
      Validated on different images. {SETS_TEXT}
    </p>
  );
}

/** Mark of a row: its validation set, and the lowest error among comparable trainings. */
function RowMarks(props: { view: View; sets: ValidationSets }) {
  const digest = props.view.dataset?.valDigest;
  const isLowest = props.view.best !== undefined && props.view.best.valMae === props.sets.lowestOf(digest);
  const hasSeveral = props.sets.count > 1;
  return (
    <>
      {hasSeveral && digest && <span class="chip quiet">set {props.sets.nameOf(digest)}</span>} {isLowest && <span class="chip good">{hasSeveral ? "lowest of its set" : "lowest"}</span>}
    </>
  );
}

function Results({ chosen, sets }: { chosen: View[]; sets: ValidationSets }) {
  return (
    <Panel title="Best epochs">
      <Scroll label="Best epochs">
        <table>
          <thead>
            <tr>
              <th scope="col">Training</th>
              <th scope="col" class="right">Epoch</th>
              <th scope="col" class="right">MAE</th>
              <th scope="col" class="right">RMSE</th>
              <th scope="col" class="right">Validation loss</th>
              <th scope="col" class="right">Test MAE</th>
            </tr>
          </thead>
          <tbody>
            {chosen.map((view) => (
              <tr key={view.name}>
                <th scope="row">
                  <a href={href("trainings", shortName(view.name))}>{titleOf(view)}</a> <RowMarks view={view} sets={sets} />
                </th>
                <td class="right">{view.best?.epoch ?? NOTHING}</td>
                <td class="right">{error(view.best?.valMae)}</td>
                <td class="right">{error(view.best?.valRmse)}</td>
                <td class="right">{error(view.best?.valLoss)}</td>
                <td class="right">{error(view.test?.mae)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Panel>
  );
}

function Differences({ chosen }: { chosen: View[] }) {
  const found = differences(TrainingSpecSchema, chosen.map((view) => view.training.resolvedSpec ?? create(TrainingSpecSchema)));
  return (
    <Panel title="Settings that differ">
      {found.length === 0 ? (
        <p class="muted">All settings are equal.</p>
      ) : (
        <Scroll label="Fields that differ">
          <table class="spec" id="spec-differences">
            <thead>
              <tr>
                <th scope="col">Field</th>
                {chosen.map((view) => (
                  <th scope="col" key={view.name}>
                    {titleOf(view)}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {found.map(({ path, values }) => (
                <tr key={path}>
                  <th scope="row">
                    <code>
                      <Words text={path} />
                    </code>
                  </th>
                  {values.map((value, index) => (
                    <td key={index}>
                      {value ? <Words text={value} /> : <span class="muted">unset</span>}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </Panel>
  );
}
