/** Comparison of trainings: their curves in one chart, and the differences of their specs. */
import { create } from "@bufbuild/protobuf";
import { useMemo } from "preact/hooks";
import { NOTHING, figure, shortName } from "../format";
import { type EpochMetrics, TrainingSpecSchema } from "../gen/visage/v1/training_pb";
import { type View, listFailure, refresh, views } from "../live/store";
import { differences } from "../spec/describe";
import { Chart } from "../ui/chart";
import { Empty, FailureBox, Loading, PageHead, Panel, Scroll, StateChip } from "../ui/parts";
import { go, href, route } from "../ui/router";
import { titleOf } from "./training-parts";

const METRICS: Readonly<Record<string, { label: string; unit: string; of: (epoch: EpochMetrics) => number }>> = {
  val_mae: { label: "Validation MAE", unit: "years", of: (one) => one.valMae },
  val_rmse: { label: "Validation RMSE", unit: "years", of: (one) => one.valRmse },
  val_loss: { label: "Validation loss", unit: "squared years", of: (one) => one.valLoss },
  train_loss: { label: "Training loss", unit: "squared years", of: (one) => one.trainLoss },
  train_mae: { label: "Training MAE", unit: "years", of: (one) => one.trainMae },
  learning_rate: { label: "Learning rate", unit: "", of: (one) => one.learningRate },
  images_per_second: { label: "Speed", unit: "images/s", of: (one) => one.imagesPerSecond },
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
  const drawn = useMemo(() => overlay(chosen, measure?.of ?? (() => 0)), [state, measure]);
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
      <PageHead title="Compare" lead="Curves in one chart, and the differences of the specs." />
      {all.length === 0 ? (
        <Empty title="Nothing to compare yet">
          <p>
            <a href={href("start")}>Start a training</a>, and a second one with other settings.
          </p>
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
              <Chart title={measure.label} unit={measure.unit} xLabel="epoch" x={drawn.x} curves={drawn.curves} height={300} emptyText={chosen.length === 0 ? "Select trainings to see their curves." : "No completed epoch yet."} />
            </Panel>
            {chosen.length > 1 && <Results chosen={chosen} />}
            {chosen.length > 1 && <Differences chosen={chosen} />}
            {chosen.length === 1 && <p class="muted">Select another training to compare the specs.</p>}
          </div>
        </div>
      )}
    </>
  );
}

/** Curves over the union of all epochs, with gaps where a training lacks an epoch. */
function overlay(chosen: View[], of: (epoch: EpochMetrics) => number): { x: number[]; curves: { label: string; colour: number; values: (number | null)[] }[] } {
  const x = [...new Set(chosen.flatMap((view) => view.log.epochs.map(({ epoch }) => epoch)))].sort((a, b) => a - b);
  const curves = chosen.map((view, index) => {
    const byEpoch = new Map(view.log.epochs.map((one) => [one.epoch, of(one)]));
    return { label: titleOf(view), colour: index + 1, values: x.map((epoch) => byEpoch.get(epoch) ?? null) };
  });
  return { x, curves };
}

function Results({ chosen }: { chosen: View[] }) {
  const least = Math.min(...chosen.map((view) => view.best?.valMae ?? Infinity));
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
                  <a href={href("trainings", shortName(view.name))}>{titleOf(view)}</a> {view.best && view.best.valMae === least && <span class="chip good">lowest</span>}
                </th>
                <td class="right">{view.best?.epoch ?? NOTHING}</td>
                <td class="right">{figure(view.best?.valMae)}</td>
                <td class="right">{figure(view.best?.valRmse)}</td>
                <td class="right">{figure(view.best?.valLoss)}</td>
                <td class="right">{figure(view.test?.mae)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {new Set(chosen.map((view) => view.dataset?.valDigest ?? "")).size > 1 && (
        <p class="muted">They were validated on different images, so their errors are not comparable.</p>
      )}
    </Panel>
  );
}

function Differences({ chosen }: { chosen: View[] }) {
  const found = differences(TrainingSpecSchema, chosen.map((view) => view.training.resolvedSpec ?? create(TrainingSpecSchema)));
  return (
    <Panel title="Differences of the specs">
      {found.length === 0 ? (
        <p class="muted">None: the resolved specs are equal.</p>
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
                    <code>{path}</code>
                  </th>
                  {values.map((value, index) => (
                    <td key={index} class="wrap">
                      {value || <span class="muted">unset</span>}
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
