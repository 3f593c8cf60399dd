/** Page of one training: progress, curves, checkpoints, evaluation, history and spec. */
import { useEffect, useMemo, useRef } from "preact/hooks";
import { brief, trainingClient } from "../api/clients";
import { NOTHING, count, exactMoment, figure, percent, seconds, sentence, shortName, span, words } from "../format";
import { type EpochMetrics, SpecChangeReason, TrainingState } from "../gen/visage/v1/training_pb";
import type { Moment } from "../live/fold";
import { isFinal } from "../live/fold";
import { type View, listFailure, refresh, views } from "../live/store";
import { useLoaded } from "../ui/calls";
import { Chart, type Curve } from "../ui/chart";
import { announce } from "../ui/notices";
import { Empty, FailureBox, Facts, Loading, PageHead, Panel, Scroll, StateChip, reasonText } from "../ui/parts";
import { href } from "../ui/router";
import { DatasetSummary } from "./dataset-summary";
import { SpecList } from "./spec-list";
import { DownloadButton } from "./download-button";
import { EvaluationTables } from "./evaluation";
import { Controls } from "./training-controls";
import { ProgressLine, maxEpochs, timeText, titleOf } from "./training-parts";

export function TrainingPage(props: { id: string }) {
  const all = views.value;
  const view = all?.find(({ name }) => name === `trainings/${props.id}`);
  const state = view?.state;
  const before = useRef(state);
  useEffect(() => {
    if (view && state !== undefined && before.current !== undefined && state !== before.current) {
      announce(`${titleOf(view)} is ${words(TrainingState[state] ?? "")}.`);
    }
    before.current = state;
  }, [state]);
  if (!all) {
    return (
      <>
        <PageHead title={props.id} />
        <FailureBox failure={listFailure.value} retry={() => void refresh()} />
        {!listFailure.value && <Loading what="the training" />}
      </>
    );
  }
  if (!view) {
    return (
      <>
        <PageHead title={props.id} />
        <Empty title="Training not found">
          <p>
            It may have been deleted. <a href={href("trainings")}>All trainings</a>
          </p>
        </Empty>
      </>
    );
  }
  return <Known view={view} />;
}

function Known({ view }: { view: View }) {
  const id = shortName(view.name);
  const { training, best, last } = view;
  const time = timeText(view);
  const resolved = training.resolvedSpec;
  return (
    <>
      <nav class="crumbs" aria-label="Path">
        <a href={href("trainings")}>Trainings</a> <span aria-hidden="true">/</span>
      </nav>
      <PageHead
        title={
          <>
            {titleOf(view)} <StateChip state={view.state} />
          </>
        }
        lead={
          <>
            <code>{view.name}</code>
            {reasonText(view.stopReason) && `, ${reasonText(view.stopReason)}`}
          </>
        }
      />
      <Controls view={view} />
      {view.failure && (
        <div class="failure" role="alert">
          <p>
            <strong>The training failed</strong> <span class="muted">({view.failure.reason})</span>
          </p>
          <p class="wrap">{sentence(view.failure.message)}</p>
        </div>
      )}
      <section class="panel" aria-label="Progress">
        <ProgressLine view={view} />
        <div class="tiles">
          <Tile label={time.label} value={time.text} />
          <Tile label="Best MAE" value={best ? figure(best.valMae) : NOTHING} unit="years" detail={best && `epoch ${best.epoch}`} />
          <Tile label="Last MAE" value={last ? figure(last.valMae) : NOTHING} unit="years" detail={last && `epoch ${last.epoch}`} />
          <Tile label="Speed" value={speed(view)} unit="images/s" />
          <EarlyStopping view={view} />
          {view.modelVersion && (
            <div class="tile">
              <span class="muted small-text">Model version</span>
              <a class="tile-value" href={href("models", shortName(view.modelVersion))}>
                {shortName(view.modelVersion)}
              </a>
              <span class="muted small-text">{view.log.promoted ? "became live" : ""}</span>
            </div>
          )}
        </div>
        <Warnings view={view} />
      </section>
      <Curves view={view} />
      <Phases epochs={view.log.epochs} />
      <Checkpoints view={view} />
      {view.test && (
        <Panel title="Evaluation on the test images">
          <EvaluationTables evaluation={view.test} />
        </Panel>
      )}
      {view.dataset && (
        <Panel title="Dataset">
          <DatasetSummary report={view.dataset} path={resolved?.dataset?.path} />
        </Panel>
      )}
      <Panel title="History">
        <History view={view} />
      </Panel>
      <Panel title="Spec">
        <p class="muted">All values of the training. Those in bold were set explicitly; the others come from the recipe or the defaults.</p>
        <SpecList asked={training.spec} resolved={resolved} />
        <Facts
          class="wide"
          items={[
            ["Initial weights", training.initSource && <span class="wrap">{training.initSource}</span>],
            ["Labels", Object.entries(training.labels).map(([key, value]) => `${key}=${value}`).join(", ")],
            ["Id", id],
          ]}
        />
      </Panel>
    </>
  );
}

function Tile(props: { label: string; value: string; unit?: string; detail?: string | undefined }) {
  return (
    <div class="tile">
      <span class="muted small-text">{props.label}</span>
      <span class="tile-value number">
        {props.value} {props.unit && props.value !== NOTHING && <span class="unit">{props.unit}</span>}
      </span>
      <span class="muted small-text">{props.detail ?? ""}</span>
    </div>
  );
}

function speed(view: View): string {
  const now = view.progress?.imagesPerSecond || view.last?.imagesPerSecond;
  return now ? figure(now) : NOTHING;
}

/** Remaining validations without an improvement before early stopping. */
function EarlyStopping({ view }: { view: View }) {
  const patience = view.training.resolvedSpec?.earlyStopping?.patience ?? 0;
  if (patience === 0) return <Tile label="Early stopping" value={NOTHING} detail="off" />;
  const without = view.last?.epochsWithoutImprovement ?? 0;
  const left = Math.max(patience - without, 0);
  return <Tile label="Early stopping" value={isFinal(view.state) ? NOTHING : `in ${left}`} unit={left === 1 ? "epoch" : "epochs"} detail={`${without} of ${patience} without improvement`} />;
}

/** Warnings about a training. */
function warningsOf(view: View): string[] {
  const skipped = view.log.epochs.reduce((most, epoch) => Math.max(most, Number(epoch.skippedImages)), 0);
  const { last, training } = view;
  return [
    ...(view.dataset?.warnings ?? []),
    ...(skipped > 0 ? [`${count(skipped)} images could not be decoded in an epoch and were skipped.`] : []),
    ...(last && last.dataWaitShare > 0.3 ? [`${percent(last.dataWaitShare)} of the last epoch was spent waiting for decoded images.`] : []),
    ...(training.idleStarts > 1 ? [`Its process was started ${training.idleStarts} consecutive times without a new full checkpoint.`] : []),
    ...view.log.moments.filter((one) => one.kind === "spec" && one.reason === SpecChangeReason.OUT_OF_MEMORY).map((one) => `Memory ran out: ${changesText(one)}.`),
  ];
}

function Warnings({ view }: { view: View }) {
  const warnings = warningsOf(view);
  if (warnings.length === 0) return null;
  return (
    <ul class="warnings" aria-label="Warnings">
      {warnings.map((warning) => (
        <li key={warning}>{sentence(warning)}</li>
      ))}
    </ul>
  );
}

function Curves({ view }: { view: View }) {
  const { epochs } = view.log;
  const key = `${epochs.length}:${view.log.sequence}`;
  const { best } = view.log;
  const data = useMemo(() => {
    const x = epochs.map(({ epoch }) => epoch);
    const curve = (label: string, colour: number, of: (epoch: EpochMetrics) => number): Curve => ({ label, colour, values: epochs.map(of) });
    return {
      x,
      loss: [curve("Training", 1, (one) => one.trainLoss), curve("Validation", 2, (one) => one.valLoss)],
      rmse: [curve("Validation", 2, (one) => one.valRmse)],
      mae: [curve("Training", 1, (one) => one.trainMae), curve("Validation", 2, (one) => one.valMae)],
      rate: [curve("Learning rate", 3, (one) => one.learningRate)],
      speed: [curve("Images", 4, (one) => one.imagesPerSecond)],
      wait: [curve("Waiting for data", 5, (one) => one.dataWaitShare * 100)],
    };
  }, [key]);
  const mark = best && { x: best.epoch, label: "best" };
  const common = { xLabel: "epoch", x: data.x, emptyText: isFinal(view.state) ? "No epoch was completed." : "The first epoch is not completed yet." };
  return (
    <section class="panel" aria-label="Curves">
      <div class="panel-head">
        <h2>Curves</h2>
        <span class="muted number">
          {epochs.length} of {maxEpochs(view)} epochs
        </span>
      </div>
      <div class="charts">
        <Chart {...common} mark={mark} title="Loss" unit="squared years" curves={data.loss} />
        <Chart {...common} mark={mark} title="Mean absolute error" unit="years" curves={data.mae} />
        <Chart {...common} mark={mark} title="Root mean squared error" unit="years" curves={data.rmse} height={180} />
        <Chart {...common} title="Learning rate" unit="" curves={data.rate} height={180} isFromZero />
        <Chart {...common} title="Speed" unit="images/s" curves={data.speed} height={180} isFromZero />
        <Chart {...common} title="Data wait" unit="% of training time" curves={data.wait} height={180} isFromZero />
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
function Phases({ epochs }: { epochs: EpochMetrics[] }) {
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

function Checkpoints({ view }: { view: View }) {
  const saved = view.log.checkpoints.length;
  const list = useLoaded(
    async (signal) => (await trainingClient.listCheckpoints({ parent: view.name, pageSize: 1000 }, { ...brief, signal })).checkpoints,
    [view.name, saved, view.log.best?.epoch, view.state],
  );
  return (
    <Panel title="Checkpoints">
      <FailureBox failure={list.failure} retry={list.again} />
      {!list.value && !list.failure && <Loading what="checkpoints" />}
      {list.value?.length === 0 && <p class="muted">No checkpoints yet; one is stored after each epoch that improves on the best.</p>}
      {list.value && list.value.length > 0 && (
        <Scroll label="Checkpoints">
          <table>
            <thead>
              <tr>
                <th scope="col">Epoch</th>
                <th scope="col" class="right">Validation MAE</th>
                <th scope="col" class="right">Validation loss</th>
                <th scope="col">Stored</th>
                <th scope="col">Files</th>
              </tr>
            </thead>
            <tbody>
              {list.value.map((checkpoint) => (
                <tr key={checkpoint.name}>
                  <th scope="row">
                    {checkpoint.epoch} {checkpoint.best && <span class="chip good">best</span>}
                  </th>
                  <td class="right">{figure(checkpoint.valMae)}</td>
                  <td class="right">{figure(checkpoint.valLoss)}</td>
                  <td class="number">{exactMoment(checkpoint.createTime)}</td>
                  <td class="actions">
                    {checkpoint.files.map((file) => (
                      <DownloadButton
                        key={file.name}
                        file={file}
                        saveAs={`${shortName(view.name)}-epoch${checkpoint.epoch}-${file.name}`}
                        open={() => trainingClient.downloadCheckpoint({ name: checkpoint.name, file: file.name })}
                      />
                    ))}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </Panel>
  );
}

function changesText(one: Moment): string {
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

function History({ view }: { view: View }) {
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
