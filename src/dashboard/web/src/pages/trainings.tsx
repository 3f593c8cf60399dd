/** List of trainings. */
import { useState } from "preact/hooks";
import { moment, plural, shortName } from "../format";
import { TrainingState } from "../gen/visage/v1/training_pb";
import { hasProcess, isFinal } from "../live/fold";
import { type View, listFailure, refresh, views } from "../live/store";
import { SETS_TEXT, validationSets } from "../live/validation";
import { Sparkline } from "../ui/chart";
import { Icon } from "../ui/icons";
import { Empty, FailureBox, Loading, PageHead, StateChip } from "../ui/parts";
import { Needs } from "../ui/permission";
import { go, href } from "../ui/router";
import { ProgressLine, bestText, timeText, titleOf } from "./training-parts";

const FILTERS = { all: "All", open: "Active", ended: "Ended" } as const;
type Filter = keyof typeof FILTERS;
/** Page size; more are rendered on request. */
const AT_ONCE = 50;

export function TrainingsPage() {
  const [filter, setFilter] = useState<Filter>("all");
  const [shown, setShown] = useState(AT_ONCE);
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const all = views.value;
  const [text, setText] = useState("");
  const sets = validationSets((all ?? []).map((view) => ({ digest: view.dataset?.valDigest, error: view.best?.valMae })));
  const fitting = all?.filter((view) => (filter === "all" || isFinal(view.state) === (filter === "ended")) && matches(view, text));
  const marked = [...chosen].filter((name) => all?.some((view) => view.name === name));
  const toggle = (name: string): void => {
    const next = new Set(chosen);
    if (!next.delete(name)) next.add(name);
    setChosen(next);
  };
  return (
    <>
      <PageHead title="Trainings" lead={all && all.length > 0 && summary(all)}>
        <button
          type="button"
          disabled={marked.length < 2}
          title={marked.length < 2 ? "Select two or more trainings" : undefined}
          onClick={() => go(href("compare", "", { t: marked.map(shortName).join(",") }))}
        >
          Compare{marked.length > 1 ? ` ${marked.length}` : ""}
        </button>
        <Needs role="trainer" hide>
          <a class="button primary" href={href("start")}>
            <Icon name="start" /> New training
          </a>
        </Needs>
      </PageHead>
      <FailureBox failure={listFailure.value} retry={() => void refresh()} />
      {!all && !listFailure.value && <Loading what="trainings" />}
      {all?.length === 0 && (
        <Empty title="No trainings yet">
          <p>
            A training creates a model from images of faces whose ages are known. On the command line: <code>visage train --dataset DIRECTORY</code>.
          </p>
          <p>
            Without images of your own, <code>visage synth faces/</code> draws some.
          </p>
          <div class="actions">
            <Needs role="trainer" hide>
              <a class="button primary" href={href("start")}>
                <Icon name="start" /> New training
              </a>
              <a class="button" href={href("datasets")}>
                Add a dataset
              </a>
            </Needs>
          </div>
        </Empty>
      )}
      {all && all.length > 0 && (
        <div class="toolbar">
          <fieldset class="segments">
            <legend class="unseen">Filter</legend>
            {(Object.keys(FILTERS) as Filter[]).map((key) => (
              <label key={key}>
                <input type="radio" name="filter" checked={filter === key} onChange={() => setFilter(key)} />
                <span>{FILTERS[key]}</span>
              </label>
            ))}
          </fieldset>
          <label class="inline-field">
            Search
            <input type="search" value={text} placeholder="name, dataset or label" onInput={(event) => setText(event.currentTarget.value)} />
          </label>
        </div>
      )}
      {sets.count > 1 && <p class="muted small-text">{SETS_TEXT}</p>}
      {all && all.length > 0 && fitting?.length === 0 && <p class="muted">{text !== "" ? "No training matches." : `No training ${filter === "open" ? "is active" : "has ended"}.`}</p>}
      <ul class="cards">
        {fitting?.slice(0, shown).map((view) => (
          <Card key={view.name} view={view} set={sets.count > 1 ? sets.nameOf(view.dataset?.valDigest) : ""} isChosen={chosen.has(view.name)} onToggle={() => toggle(view.name)} />
        ))}
      </ul>
      {fitting && fitting.length > shown && (
        <button type="button" onClick={() => setShown(shown + AT_ONCE)}>
          Show more
        </button>
      )}
    </>
  );
}

/** Number of trainings, and of those that have not ended. */
function summary(all: View[]): string {
  const running = all.filter((view) => hasProcess(view.state)).length;
  const queued = all.filter((view) => view.state === TrainingState.QUEUED).length;
  return `${plural(all.length, "training")}, ${running} running${queued > 0 ? `, ${queued} queued` : ""}`;
}

/** Name of the dataset of a training: its id, or the last part of its path. */
function datasetOf(view: View): string {
  const dataset = view.training.resolvedSpec?.dataset ?? view.training.spec?.dataset;
  return dataset ? shortName((dataset.name || dataset.path).replace(/\/+$/, "")) : "";
}

/** True if the text occurs in the name, the dataset or a label of a training. */
function matches(view: View, text: string): boolean {
  const labels = Object.entries(view.training.labels).map(([key, value]) => `${key}=${value}`);
  return [view.name, titleOf(view), datasetOf(view), ...labels].some((one) => one.toLowerCase().includes(text.trim().toLowerCase()));
}

function Labels({ labels }: { labels: Record<string, string> }) {
  const all = Object.entries(labels);
  if (all.length === 0) return null;
  return (
    <ul class="plain chips" aria-label="Labels">
      {all.map(([key, value]) => (
        <li key={key} class="chip quiet">
          {key}={value}
        </li>
      ))}
    </ul>
  );
}

function Card(props: { view: View; set: string; isChosen: boolean; onToggle: () => void }) {
  const { view } = props;
  const id = shortName(view.name);
  const time = timeText(view);
  return (
    <li class="card training" data-training={id}>
      <input type="checkbox" checked={props.isChosen} onChange={props.onToggle} aria-label={`Select ${titleOf(view)} for comparison`} />
      <div class="card-name">
        <a href={href("trainings", id)}>{titleOf(view)}</a>
        {view.training.displayName && <span class="muted small-text">{id}</span>}
        <span class="muted small-text">
          {moment(view.training.createTime)}, {datasetOf(view)}
        </span>
        <Labels labels={view.training.labels} />
      </div>
      <div class="card-state">
        <StateChip state={view.state} />
        {view.modelVersion && (
          <a class="small-text" href={href("models", shortName(view.modelVersion))}>
            version {shortName(view.modelVersion)}
          </a>
        )}
      </div>
      <ProgressLine view={view} />
      <div class="card-figure">
        <span class="muted small-text">Best MAE</span>
        <span class="number">
          {bestText(view)} {view.best && <span class="muted small-text">years</span>}
        </span>
        {props.set && view.best && (
          <span class="muted small-text" title="Validation set">
            set {props.set}
          </span>
        )}
      </div>
      <Sparkline values={(view.initial ? [view.initial, ...view.log.epochs] : view.log.epochs).map(({ valMae }) => valMae)} />
      <div class="card-figure">
        <span class="muted small-text">{time.label}</span>
        <span class="number">{time.text}</span>
      </div>
    </li>
  );
}
