/** The small parts that pages are made of. */
import { Code } from "@connectrpc/connect";
import { type ComponentChildren, Fragment } from "preact";
import type { Failure } from "../api/errors";
import { StopReason, TrainingState } from "../gen/visage/v1/training_pb";
import { percent, pieces, sentence, span, words } from "../format";

/** A text with `code` in it, as the API's comments have it. */
export function Prose(props: { text: string }) {
  return <>{props.text.split("`").map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part))}</>;
}

/** The heading of a page, with what can be done there. */
export function PageHead(props: { title: ComponentChildren; lead?: ComponentChildren; children?: ComponentChildren }) {
  return (
    <div class="page-head">
      <div class="page-title">
        <h1 tabIndex={-1}>{props.title}</h1>
        {props.lead && <p class="lead">{props.lead}</p>}
      </div>
      {props.children && <div class="actions">{props.children}</div>}
    </div>
  );
}

/** A part of a page with a heading of its own. */
export function Panel(props: { title: ComponentChildren; actions?: ComponentChildren; class?: string; children: ComponentChildren }) {
  return (
    <section class={`panel ${props.class ?? ""}`}>
      <div class="panel-head">
        <h2>{props.title}</h2>
        {props.actions}
      </div>
      {props.children}
    </section>
  );
}

/** Which call failed, and why. */
export function FailureBox(props: { failure: Failure | undefined; retry?: () => void; known?: (field: string) => boolean }) {
  const { failure } = props;
  if (!failure) return null;
  const rest = failure.violations.filter(({ field }) => !props.known?.(field));
  const isAtFields = failure.violations.length > 0 && rest.length === 0;
  return (
    <div class="failure" role="alert">
      <p>
        <strong>{failure.call || "The page"} failed</strong> <span class="muted">({codeText(failure.code)}
        {failure.reason && `, ${failure.reason}`})</span>
      </p>
      <p class="wrap">{isAtFields ? "Some fields need another value; what is wrong stands at each of them." : sentence(failure.message || "no reason was given")}</p>
      {rest.length > 1 && (
        <ul>
          {rest.map(({ field, description }) => (
            <li key={field}>
              <code>{field}</code>: {description}
            </li>
          ))}
        </ul>
      )}
      {failure.retryAfter !== undefined && <p class="muted">The server asks to wait {span(failure.retryAfter / 1000)} before another try.</p>}
      {props.retry && (
        <button type="button" class="small" onClick={props.retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** `InvalidArgument` as people read it. */
function codeText(code: Code): string {
  return (Code[code] ?? "unknown").replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
}

/** What to do where nothing is yet. */
export function Empty(props: { title: string; children: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{props.title}</p>
      <div class="muted">{props.children}</div>
    </div>
  );
}

/** Holds the place of what is on its way. */
export function Loading(props: { what: string }) {
  return (
    <p class="loading muted" role="status">
      Loading {props.what}…
    </p>
  );
}

const TONES: Readonly<Record<TrainingState, string>> = {
  [TrainingState.UNSPECIFIED]: "quiet",
  [TrainingState.QUEUED]: "quiet",
  [TrainingState.PREPARING]: "busy",
  [TrainingState.RUNNING]: "busy",
  [TrainingState.PAUSING]: "warn",
  [TrainingState.PAUSED]: "warn",
  [TrainingState.STOPPING]: "warn",
  [TrainingState.CANCELLING]: "warn",
  [TrainingState.SUCCEEDED]: "good",
  [TrainingState.FAILED]: "bad",
  [TrainingState.CANCELLED]: "quiet",
};

/** How a training stands, by word and colour. */
export function StateChip(props: { state: TrainingState }) {
  return <span class={`chip ${TONES[props.state] ?? "quiet"}`}>{sentence(words(TrainingState[props.state] ?? "unknown"))}</span>;
}

/** Why a training ended, as people say it. */
export function reasonText(reason: StopReason): string {
  return reason === StopReason.UNSPECIFIED ? "" : words(StopReason[reason] ?? "");
}

/** How much of something is done. */
export function Meter(props: { share: number; label: string; tone?: string }) {
  const share = Math.min(Math.max(props.share, 0), 1);
  return (
    <div class={`meter ${props.tone ?? ""}`} role="progressbar" aria-label={props.label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(share * 100)} aria-valuetext={percent(share)}>
      <div style={{ width: `${share * 100}%` }} />
    </div>
  );
}

/** A name of many words without spaces, which may be broken between them and only then within one. */
export function Name(props: { text: string }) {
  return (
    <code class="wrap">
      {pieces(props.text).map((piece, index) => (
        <Fragment key={index}>
          {index > 0 && <wbr />}
          {piece}
        </Fragment>
      ))}
    </code>
  );
}

/** A name and its value; a wide one takes the whole line. */
export type Fact = [name: string, value: ComponentChildren, width?: "wide"];

/** Names and values, side by side. Those without a value are left out. */
export function Facts(props: { items: Fact[]; class?: string }) {
  return (
    <dl class={`facts ${props.class ?? ""}`}>
      {props.items
        .filter(([, value]) => value !== undefined && value !== "" && value !== false)
        .map(([name, value, width]) => (
          <div key={name} class={width}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

/** A button that waits for what it began. It can be focused all the while, so that the keyboard does not lose its place. */
export function BusyButton(props: {
  isBusy: boolean;
  busyText?: string;
  type?: "button" | "submit";
  class?: string;
  title?: string | undefined;
  disabled?: boolean;
  onClick?: () => void;
  children: ComponentChildren;
}) {
  const { isBusy, busyText, children, type = "button", onClick } = props;
  return (
    <button
      type={type}
      class={props.class}
      title={props.title}
      disabled={props.disabled}
      aria-disabled={isBusy}
      onClick={(event) => {
        if (isBusy) event.preventDefault();
        else onClick?.();
      }}
    >
      {isBusy ? (busyText ?? children) : children}
    </button>
  );
}

/** A table that scrolls by itself where it is too wide; it can be focused so that keys scroll it. */
export function Scroll(props: { label: string; children: ComponentChildren }) {
  return (
    <div class="scroll" role="region" aria-label={props.label} tabIndex={0}>
      {props.children}
    </div>
  );
}
