/** Shared components of the pages. */
import { Code } from "@connectrpc/connect";
import { type ComponentChildren, Fragment } from "preact";
import type { Failure } from "../api/errors";
import { StopReason, TrainingState } from "../gen/visage/v1/training_pb";
import { session } from "../live/session";
import { percent, pieces, plural, sentence, span, words } from "../format";
import { type Page, href } from "./router";

/** Text with `code` as in the comments of the API. */
export function Prose(props: { text: string }) {
  return <>{props.text.split("`").map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part))}</>;
}

/** Path from a list to the current page. */
export function Crumbs(props: { list: Page; listName: string; name: string }) {
  return (
    <nav class="crumbs" aria-label="Path">
      <a href={href(props.list)}>{props.listName}</a> <span aria-hidden="true">/</span> <span aria-current="page">{props.name}</span>
    </nav>
  );
}

/** Heading of a page with its actions. */
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

/** Section of a page with a heading. */
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

/** Description of a failed call. */
export function FailureBox(props: { failure: Failure | undefined; retry?: () => void; known?: (field: string) => boolean }) {
  const { failure } = props;
  // The login explains a missing session, and repeats the calls.
  if (!failure || (failure.code === Code.Unauthenticated && session.value.state === "logged_out")) return null;
  if (failure.role) return <Forbidden failure={failure} />;
  const rest = failure.violations.filter(({ field }) => !props.known?.(field));
  const atFields = failure.violations.length - rest.length;
  const isAtFields = atFields > 0 && rest.length === 0;
  return (
    <div class="failure" role="alert">
      <p>
        <strong>{failure.call || "The page"} failed</strong> <span class="muted">({codeText(failure.code)}
        {failure.reason && `, ${failure.reason}`})</span>
      </p>
      <p class="wrap">{isAtFields ? `${plural(atFields, "field")} ${atFields === 1 ? "needs" : "need"} a change, marked in red.` : sentence(failure.message || "unknown error")}</p>
      {rest.length > 1 && (
        <ul>
          {rest.map(({ field, description }) => (
            <li key={field}>
              <code>{field}</code>: {description}
            </li>
          ))}
        </ul>
      )}
      {failure.retryAfter !== undefined && <p class="muted">The server requests a retry after {span(failure.retryAfter / 1000)}.</p>}
      {props.retry && (
        <button type="button" class="small" onClick={props.retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** A call that the roles of the identity do not permit. */
function Forbidden({ failure }: { failure: Failure }) {
  const now = session.value;
  return (
    <div class="failure" role="alert">
      <p>
        <strong>{failure.call || "The page"} is not permitted</strong>
      </p>
      <p class="wrap">{sentence(failure.message)}</p>
      {now.state === "logged_in" && (
        <p class="wrap">
          You are logged in as {now.identity.name} with {rolesText(now.identity.roles)}.
        </p>
      )}
    </div>
  );
}

function rolesText(roles: ReadonlySet<string>): string {
  const names = [...roles];
  if (names.length === 0) return "no role";
  return `the role${names.length === 1 ? "" : "s"} ${names.join(", ")}`;
}

/** Readable code, such as “invalid argument”. */
function codeText(code: Code): string {
  return (Code[code] ?? "unknown").replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
}

/** Placeholder with instructions for an empty page. */
export function Empty(props: { title: string; children: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{props.title}</p>
      <div class="muted">{props.children}</div>
    </div>
  );
}

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

/** State of a training as a coloured chip. */
export function StateChip(props: { state: TrainingState }) {
  return <span class={`chip ${TONES[props.state] ?? "quiet"}`}>{sentence(words(TrainingState[props.state] ?? "unknown"))}</span>;
}

/** Texts of the stop reasons, as on the command line. */
const REASONS: Readonly<Partial<Record<StopReason, string>>> = {
  [StopReason.MAX_EPOCHS]: "all epochs are done",
  [StopReason.EARLY_STOPPED]: "the validation error no longer improved",
  [StopReason.TARGET_REACHED]: "the target was reached",
  [StopReason.USER_STOP]: "on request",
  [StopReason.MAX_DURATION]: "its time limit was reached",
  [StopReason.NON_FINITE_LOSS]: "the loss became infinite or NaN",
  [StopReason.OUT_OF_MEMORY]: "memory was insufficient",
  [StopReason.DATA_ERROR]: "the dataset or the initial weights could not be used",
  [StopReason.WORKER_DIED]: "its process crashed, hung or violated the protocol",
  [StopReason.SERVER_RESTART_LIMIT]: "the server was restarted too often",
  [StopReason.INTERNAL]: "an internal error of the server or its disk",
};

/** Stop reason as text. */
export function reasonText(reason: StopReason): string {
  return reason === StopReason.UNSPECIFIED ? "" : (REASONS[reason] ?? words(StopReason[reason] ?? ""));
}

/** Progress bar. */
export function Meter(props: { share: number; label: string; tone?: string }) {
  const share = Math.min(Math.max(props.share, 0), 1);
  return (
    <div class={`meter ${props.tone ?? ""}`} role="progressbar" aria-label={props.label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(share * 100)} aria-valuetext={percent(share)}>
      <div style={{ width: `${share * 100}%` }} />
    </div>
  );
}

/** Long text that is broken only between its words. */
export function Words(props: { text: string }) {
  return (
    <>
      {pieces(props.text).map((piece, index) => (
        <Fragment key={index}>
          {index > 0 && <wbr />}
          {piece}
        </Fragment>
      ))}
    </>
  );
}

/** Long name with preferred line breaks between its words. */
export function Name(props: { text: string }) {
  return (
    <code class="wrap">
      <Words text={props.text} />
    </code>
  );
}

/** Name and value; a wide one takes the whole line. */
export type Fact = [name: string, value: ComponentChildren, width?: "wide"];

/** List of facts, without those that have no value. */
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

/**
 * A button with a busy state. It stays focusable while busy, so that the keyboard focus is kept.
 */
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

/** Horizontally scrollable container for wide tables; focusable, for scrolling by keyboard. */
export function Scroll(props: { label: string; children: ComponentChildren }) {
  return (
    <div class="scroll" role="region" aria-label={props.label} tabIndex={0}>
      {props.children}
    </div>
  );
}
