/** Page of one training: progress, settings, curves, checkpoints, evaluation, history and spec. */
import { useEffect, useRef } from "preact/hooks";
import { NOTHING, count, error, figure, percent, plural, sentence, shortName, words } from "../format";
import { SpecChangeReason, TrainingSpecSchema, TrainingState } from "../gen/visage/v1/training_pb";
import { isFinal } from "../live/fold";
import { type View, listFailure, refresh, views } from "../live/store";
import { flatten } from "../spec/describe";
import { labelOf, textOf } from "../spec/texts";
import { announce } from "../ui/notices";
import { Crumbs, Empty, FailureBox, Facts, Loading, Name, PageHead, Panel, StateChip, reasonText } from "../ui/parts";
import { Needs } from "../ui/permission";
import { href } from "../ui/router";
import { DatasetSummary } from "./dataset-summary";
import { EvaluationTables } from "./evaluation";
import { SpecList } from "./spec-list";
import { Checkpoints } from "./training-checkpoints";
import { Controls } from "./training-controls";
import { Curves, Phases } from "./training-curves";
import { History, changesText } from "./training-history";
import { ProgressLine, timeText, titleOf } from "./training-parts";

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
  const { training, best, last, initial } = view;
  const time = timeText(view);
  const hasStarted = view.log.epochs.length > 0 || !isFinal(view.state);
  return (
    <>
      <Crumbs list="trainings" listName="Trainings" name={titleOf(view)} />
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
            <strong>{isFinal(view.state) ? "The training failed" : "The training is paused"}</strong> <span class="muted">({view.failure.reason})</span>
          </p>
          <p class="wrap">{sentence(view.failure.message)}</p>
          {isFinal(view.state) && <Remedy view={view} />}
        </div>
      )}
      {hasStarted && (
        <section class="panel" aria-label="Progress">
          <ProgressLine view={view} />
          <div class="tiles">
            <Tile label={time.label} value={time.text} />
            <Tile label="Best MAE" value={error(best?.valMae)} unit="years" detail={best && `epoch ${best.epoch}`} />
            {initial && <Tile label="Before training" value={error(initial.valMae)} unit="years" detail={best ? comparison(initial.valMae, best.valMae) : "MAE of the initial weights"} />}
            <Tile label="Last MAE" value={error(last?.valMae)} unit="years" detail={last && `epoch ${last.epoch}`} />
            <Tile label="Speed" value={speed(view)} unit="images/s" />
            <EarlyStopping view={view} />
            {view.modelVersion && (
              <div class="tile">
                <span class="muted small-text">Model version</span>
                <a class="tile-value" href={href("models", shortName(view.modelVersion))}>
                  {shortName(view.modelVersion)}
                </a>
                <span class="muted small-text">{(view.promotion?.promoted ?? view.log.promoted) ? "became live" : "did not become live"}</span>
              </div>
            )}
          </div>
          <Decision view={view} />
          <Warnings view={view} />
        </section>
      )}
      <Setup view={view} />
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
          <DatasetSummary report={view.dataset} path={training.resolvedSpec?.dataset?.path} />
        </Panel>
      )}
      <Panel title="History">
        <History view={view} />
      </Panel>
      <Panel title="All settings">
        <details>
          <summary>Values in bold were set explicitly; the others come from the recipe or the defaults</summary>
          <SpecList asked={training.spec} resolved={training.resolvedSpec} />
        </details>
      </Panel>
    </>
  );
}

/** Decision about the alias `live`, with its reason. */
function Decision({ view }: { view: View }) {
  const { promotion, modelVersion } = view;
  if (!promotion?.reason) return null;
  return (
    <p class="decision">
      <span class={`chip ${promotion.promoted ? "good" : "quiet"}`}>{promotion.promoted ? "promoted" : "not promoted"}</span> {sentence(promotion.reason.replaceAll("->", "→"))}.{" "}
      {!promotion.promoted && modelVersion !== "" && <a href={href("models", shortName(modelVersion))}>Promote it by hand</a>}
    </p>
  );
}

/** Improvement on the initial weights as text. */
function comparison(before: number, after: number): string {
  const gain = before - after;
  return gain >= 0 ? `MAE; ${error(gain)} better now` : `MAE; ${error(-gain)} worse now`;
}

/** Action that avoids the failure in a new training. */
function Remedy({ view }: { view: View }) {
  const from = shortName(view.name);
  const name = view.training.spec?.dataset?.name ?? "";
  const isWeights = view.failure?.reason === "INIT_WEIGHTS";
  return (
    <div class="actions">
      <Needs role="trainer" hide>
        {isWeights && (
          <a class="button primary" href={href("start", "", { from, init: "STARTER" })}>
            Start again from the built-in face model
          </a>
        )}
        {!isWeights && (
          <a class="button" href={href("start", "", { from })}>
            Correct the settings and start again
          </a>
        )}
        {!isWeights && name !== "" && (
          <a class="button" href={href("datasets", shortName(name))}>
            Check the dataset
          </a>
        )}
      </Needs>
    </div>
  );
}

/** Dataset, initial weights and the settings that were given. */
function Setup({ view }: { view: View }) {
  const { training } = view;
  const { spec, resolvedSpec } = training;
  const dataset = resolvedSpec?.dataset;
  const splits = view.dataset?.splits ?? [];
  const given = spec ? [...flatten(TrainingSpecSchema, spec)].filter(([path]) => path !== "dataset.path" && path !== "dataset.name") : [];
  const labels = Object.entries(training.labels);
  return (
    <Panel title="Dataset and settings">
      <Facts
        items={[
          ["Dataset", dataset?.name ? <a href={href("datasets", shortName(dataset.name))}>{shortName(dataset.name)}</a> : dataset && <Name text={dataset.path} />],
          ["Images", splits.length > 0 && splits.map(({ split, images }) => `${count(images)} ${split}`).join(", ")],
          ["Owner", training.owner && <span class="wrap">{training.owner}</span>],
          ["Initial weights", training.initSource && <span class="wrap">{training.initSource.replace(/ \(SHA-256 .*\)$/, "")}</span>],
          ["Labels", labels.map(([key, value]) => `${key}=${value}`).join(", ")],
        ]}
      />
      {given.length === 0 ? (
        <p class="muted">All settings have their defaults.</p>
      ) : (
        <dl class="given" aria-label="Settings that were given">
          {given.map(([path, value]) => (
            <div key={path} title={path}>
              <dt>{labelOf(path)}</dt>
              <dd>{textOf(path)?.choices?.[value] ?? value}</dd>
            </div>
          ))}
        </dl>
      )}
    </Panel>
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
  if (patience === 0) return <Tile label="Early stopping" value="Off" />;
  const without = view.last?.epochsWithoutImprovement ?? 0;
  const left = Math.max(patience - without, 0);
  return <Tile label="Early stopping" value={isFinal(view.state) ? (left === 0 ? "Stopped" : "Not needed") : `in ${left}`} unit={isFinal(view.state) ? "" : left === 1 ? "epoch" : "epochs"} detail={`${without} of ${patience} without improvement`} />;
}

/** Warnings about a training. */
function warningsOf(view: View): string[] {
  const skipped = view.log.epochs.reduce((most, epoch) => Math.max(most, Number(epoch.skippedImages)), 0);
  const { last, training } = view;
  return [
    ...(view.dataset?.warnings ?? []),
    ...(skipped > 0 ? [`${plural(skipped, "image")} could not be decoded in an epoch and ${skipped === 1 ? "was" : "were"} skipped.`] : []),
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
