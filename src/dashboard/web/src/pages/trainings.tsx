/** List of trainings. */
import { useState } from "preact/hooks";
import { moment, shortName } from "../format";
import { isFinal } from "../live/fold";
import { type View, listFailure, refresh, views } from "../live/store";
import { Sparkline } from "../ui/chart";
import { Icon } from "../ui/icons";
import { Empty, FailureBox, Loading, PageHead, StateChip, reasonText } from "../ui/parts";
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
  const fitting = all?.filter((view) => filter === "all" || isFinal(view.state) === (filter === "ended"));
  const marked = [...chosen].filter((name) => all?.some((view) => view.name === name));
  const toggle = (name: string): void => {
    const next = new Set(chosen);
    if (!next.delete(name)) next.add(name);
    setChosen(next);
  };
  return (
    <>
      <PageHead title="Trainings" lead={all && all.length > 0 && `${all.length} in total, ${all.filter((view) => !isFinal(view.state)).length} active`}>
        <button
          type="button"
          disabled={marked.length < 2}
          title={marked.length < 2 ? "Select two or more trainings" : undefined}
          onClick={() => go(href("compare", "", { t: marked.map(shortName).join(",") }))}
        >
          Compare{marked.length > 1 ? ` ${marked.length}` : ""}
        </button>
        <a class="button primary" href={href("start")}>
          <Icon name="start" /> New training
        </a>
      </PageHead>
      <FailureBox failure={listFailure.value} retry={() => void refresh()} />
      {!all && !listFailure.value && <Loading what="trainings" />}
      {all?.length === 0 && (
        <Empty title="No trainings yet">
          <p>
            A training creates a model from your images. <a href={href("start")}>Start one here</a>, or with <code>visage train --dataset DIRECTORY</code>.
          </p>
          <p>
            Without images of your own, <code>visage synth faces/</code> draws some.
          </p>
        </Empty>
      )}
      {all && all.length > 0 && (
        <fieldset class="segments">
          <legend class="unseen">Filter</legend>
          {(Object.keys(FILTERS) as Filter[]).map((key) => (
            <label key={key}>
              <input type="radio" name="filter" checked={filter === key} onChange={() => setFilter(key)} />
              <span>{FILTERS[key]}</span>
            </label>
          ))}
        </fieldset>
      )}
      {all && all.length > 0 && fitting?.length === 0 && <p class="muted">No training {filter === "open" ? "is active" : "has ended"}.</p>}
      <ul class="cards">
        {fitting?.slice(0, shown).map((view) => (
          <Card key={view.name} view={view} isChosen={chosen.has(view.name)} onToggle={() => toggle(view.name)} />
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

function Card(props: { view: View; isChosen: boolean; onToggle: () => void }) {
  const { view } = props;
  const id = shortName(view.name);
  const time = timeText(view);
  return (
    <li class="card training" data-training={id}>
      <input type="checkbox" checked={props.isChosen} onChange={props.onToggle} aria-label={`Select ${titleOf(view)} for comparison`} />
      <div class="card-name">
        <a href={href("trainings", id)}>{titleOf(view)}</a>
        {view.training.displayName && <span class="muted small-text">{id}</span>}
        <span class="muted small-text">{moment(view.training.createTime)}</span>
      </div>
      <div class="card-state">
        <StateChip state={view.state} />
        <span class="muted small-text">{reasonText(view.stopReason)}</span>
      </div>
      <ProgressLine view={view} />
      <div class="card-figure">
        <span class="muted small-text">Best MAE</span>
        <span class="number">
          {bestText(view)} <span class="muted small-text">years</span>
        </span>
      </div>
      <Sparkline values={view.log.epochs.map(({ valLoss }) => valLoss)} />
      <div class="card-figure">
        <span class="muted small-text">{time.label}</span>
        <span class="number">{time.text}</span>
      </div>
    </li>
  );
}
