/** Curves of a training, and its time per phase. */
import { useMemo } from "preact/hooks";
import { error, figure, span } from "../format";
import type { EpochMetrics } from "../gen/visage/v1/training_pb";
import { isFinal } from "../live/fold";
import { restartMarks } from "../live/restarts";
import type { View } from "../live/store";
import { Chart, type Curve } from "../ui/chart";
import { Panel, Scroll } from "../ui/parts";
import { maxEpochs } from "./training-parts";

export function Curves({ view }: { view: View }) {
  const { epochs } = view.log;
  const { initial } = view;
  const key = `${epochs.length}:${view.log.sequence}:${initial?.valLoss}`;
  const { best } = view.log;
  const data = useMemo(() => {
    const x = epochs.map(({ epoch }) => epoch);
    const curve = (label: string, colour: number, of: (epoch: EpochMetrics) => number): Curve => ({ label, colour, values: epochs.map(of) });
    // The initial weights have no training metrics.
    const validated = (of: (epoch: EpochMetrics) => number): Curve => ({ label: "Validation", colour: 2, values: [...(initial ? [of(initial)] : []), ...epochs.map(of)] });
    const trained = (of: (epoch: EpochMetrics) => number): Curve => ({ label: "Training", colour: 1, values: [...(initial ? [null] : []), ...epochs.map(of)] });
    return {
      x,
      xFromInitial: initial ? [0, ...x] : x,
      loss: [trained((one) => one.trainLoss), validated((one) => one.valLoss)],
      rmse: [validated((one) => one.valRmse)],
      mae: [trained((one) => one.trainMae), validated((one) => one.valMae)],
      rate: [curve("Learning rate", 3, (one) => one.learningRate)],
      speed: [curve("Images", 4, (one) => one.imagesPerSecond)],
      wait: [curve("Waiting for data", 5, (one) => one.dataWaitShare * 100)],
    };
  }, [key]);
  if (isFinal(view.state) && epochs.length === 0 && !initial) return null;
  const restarts = restartMarks(view);
  const marks = [...(best ? [{ x: best.epoch, label: "best" }] : []), ...restarts];
  const common = { xLabel: "epoch", emptyText: isFinal(view.state) ? "No epoch was completed." : "The first epoch is not completed yet." };
  const errors = { ...common, x: data.xFromInitial, marks, format: error };
  const others = { ...common, x: data.x, marks: restarts, height: 180, isFromZero: true, format: figure };
  return (
    <section class="panel" aria-label="Curves">
      <div class="panel-head">
        <h2>Curves</h2>
        <span class="muted number">
          {epochs.length} of {maxEpochs(view)} epochs
          {initial && `, before training: MAE ${error(initial.valMae)}`}
        </span>
      </div>
      <div class="charts">
        <Chart {...errors} title="Mean absolute error" unit="years" curves={data.mae} />
        <Chart {...errors} title="Loss" unit="squared years" curves={data.loss} />
        <Chart {...errors} title="Root mean squared error" unit="years" curves={data.rmse} height={180} />
        <Chart {...others} title="Learning rate" unit="" curves={data.rate} />
        <Chart {...others} title="Speed" unit="images/s" curves={data.speed} />
        <Chart {...others} title="Data wait" unit="% of training time" curves={data.wait} />
      </div>
    </section>
  );
}

const PARTS = [
  ["Data", "data", 5],
  ["Forward", "forward", 1],
  ["Backward", "backward", 2],
  ["Update", "update", 6],
  ["Validation", "validate", 4],
  ["Checkpoint", "checkpoint", 3],
] as const;

/** Time per phase of the latest epochs. */
export function Phases({ epochs }: { epochs: EpochMetrics[] }) {
  const latest = epochs.slice(-8).filter(({ seconds: spent }) => spent && spent.total > 0);
  if (latest.length === 0) return null;
  const longest = Math.max(...latest.map((one) => one.seconds?.total ?? 0));
  return (
    <Panel title="Time per phase" actions={<span class="muted">latest epochs</span>}>
      <ul class="legend" aria-hidden="true">
        {PARTS.map(([label, , colour]) => (
          <li key={label}>
            <span class="swatch block" style={{ "--colour": `var(--series-${colour})` } as never} /> {label}
          </li>
        ))}
      </ul>
      <Scroll label="Seconds by epoch">
        <table class="phases">
          <thead class="unseen">
            <tr>
              <th scope="col">Epoch</th>
              <th scope="col">Parts</th>
              <th scope="col">Seconds</th>
            </tr>
          </thead>
          <tbody>
            {latest.map(({ epoch, seconds: spent }) => (
              <tr key={epoch}>
                <th scope="row">Epoch {epoch}</th>
                <td class="wide">
                  <div class="stacked" style={{ width: `${((spent?.total ?? 0) / longest) * 100}%` }} aria-hidden="true">
                    {PARTS.map(([label, key, colour]) => (
                      <span key={label} title={`${label}: ${span(spent?.[key] ?? 0)}`} style={{ "--colour": `var(--series-${colour})`, flexGrow: spent?.[key] ?? 0 } as never} />
                    ))}
                  </div>
                  <span class="unseen">{PARTS.map(([label, key]) => `${label} ${span(spent?.[key] ?? 0)}`).join(", ")}</span>
                </td>
                <td class="right number">{span(spent?.total ?? 0)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Panel>
  );
}

