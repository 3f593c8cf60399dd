/** Form of a new training, generated from the descriptor of the spec. */
import { Code } from "@connectrpc/connect";
import { useEffect, useId, useMemo, useRef, useState } from "preact/hooks";
import { brief, trainingClient } from "../api/clients";
import type { Violation } from "../api/errors";
import { bytes, count, seconds, shortName, span } from "../format";
import { type Dataset, DatasetState } from "../gen/visage/v1/dataset_pb";
import { type StartTrainingResponse, TrainingSpecSchema } from "../gen/visage/v1/training_pb";
import { learn, views } from "../live/store";
import { made } from "../live/upload";
import { flatten } from "../spec/describe";
import { type FieldNode, type GroupNode, type Node, type RowsNode, type Values, formOf, fromMessage, hasValues, pathInForm, rowCount, toMessage, withoutRow } from "../spec/form";
import { useAction, useLoaded } from "../ui/calls";
import { notify } from "../ui/notices";
import { BusyButton, Facts, FailureBox, PageHead, Panel, Prose } from "../ui/parts";
import { go, href, route } from "../ui/router";
import { sentence } from "../format";
import { DatasetSummary } from "./dataset-summary";
import { allDatasets } from "./dataset-parts";

/** Most common fields, in this order; other single fields are under “More”. */
const BASICS = ["recipe", "max_epochs", "batch_size", "input_size", "trainable"];
/** Groups that are initially open. */
const OPEN = ["dataset", "init"];

const DATASET_NAME = "dataset.name";

const NODES = formOf(TrainingSpecSchema);
const basics = BASICS.flatMap((name) => NODES.filter((node) => node.name === name));
const opened = NODES.filter((node) => OPEN.includes(node.name));
const more = NODES.filter((node) => node.kind === "field" && !BASICS.includes(node.name));
const folded = NODES.filter((node) => node.kind !== "field" && !OPEN.includes(node.name));

/** A random UUID, also on insecure pages, which lack `randomUUID`. */
function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** Errors after which the training may have been started nevertheless. */
const LOST: ReadonlySet<Code> = new Set([Code.Unavailable, Code.DeadlineExceeded, Code.Canceled, Code.Unknown, Code.Internal]);

/** State of the form that its fields use. */
interface Form {
  id: string;
  values: Values;
  defaults: ReadonlyMap<string, string>;
  problems: ReadonlyMap<string, string>;
  set: (path: string, value: string) => void;
  replace: (values: Values) => void;
}

const REQUEST_FIELDS: FieldNode[] = [
  { kind: "field", path: "display_name", name: "display_name", help: "Display name, at most 256 characters.", control: "text", options: [] },
  { kind: "field", path: "training_id", name: "training_id", help: "1 to 63 characters of `a-z`, `0-9` and `-`, starting with a letter. Default: chosen by the server.", control: "text", options: [] },
];

export function StartPage() {
  const id = useId();
  const [values, setValues] = useState<Values>({});
  const [own, setOwn] = useState<Values>({});
  const [unread, setUnread] = useState<Violation[]>([]);
  const [checked, setChecked] = useState<{ response: StartTrainingResponse; recipe: string } | undefined>();
  // Retrying after a lost response must not start a second training.
  const requestId = useRef(uuid());
  const form = useRef<HTMLFormElement>(null);
  const aborted = useRef<AbortController | undefined>(undefined);

  const from = route.value.query.get("from");
  const named = route.value.query.get("dataset");
  const template = from ? views.value?.find(({ name }) => shortName(name) === from)?.training : undefined;
  useEffect(() => {
    if (!template?.spec) return;
    setValues(fromMessage(TrainingSpecSchema, template.spec));
    setOwn({ display_name: template.displayName });
  }, [template?.name]);

  useEffect(() => {
    if (named) setValues((old) => ({ ...old, "dataset.name": `datasets/${named}` }));
  }, [named]);
  const datasets = useLoaded(allDatasets, [made.value]);

  const request = () => {
    const { message, problems } = toMessage(TrainingSpecSchema, values);
    setUnread(problems);
    if (problems.length > 0) return undefined;
    return { spec: message, displayName: own["display_name"] ?? "", trainingId: own["training_id"] ?? "" };
  };
  const check = useAction(async () => {
    start.clear();
    const asked = request();
    if (!asked) return;
    const abort = new AbortController();
    aborted.current = abort;
    // Without a timeout: scanning many images takes long.
    const response = await trainingClient.startTraining({ ...asked, validateOnly: true }, { signal: abort.signal });
    setChecked({ response, recipe: values["recipe"] ?? "" });
    notify("The spec is valid. No training was started.");
  });
  const start = useAction(async () => {
    check.clear();
    const asked = request();
    if (!asked) return;
    const { training } = await trainingClient.startTraining({ ...asked, requestId: requestId.current }, brief);
    if (!training) return;
    learn(training);
    notify("Queued.");
    go(href("trainings", shortName(training.name)));
  });
  const failure = start.failure ?? check.failure;
  useEffect(() => {
    // A refused request started nothing, so the next one gets a new id; after a lost response the
    // id is kept.
    if (start.failure && !LOST.has(start.failure.code)) requestId.current = uuid();
  }, [start.failure]);

  const problems = useMemo(() => {
    const found = new Map<string, string>();
    for (const { field, description } of unread) found.set(field, description);
    for (const { field, description } of failure?.violations ?? []) found.set(pathInForm(field, "spec") ?? field, description);
    return found;
  }, [unread, failure]);
  useEffect(() => {
    if (problems.size === 0) return;
    // By then the group of an invalid field is open.
    requestAnimationFrame(() => form.current?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus());
  }, [problems]);

  const resolved = checked?.response.training?.resolvedSpec;
  const defaults = useMemo(
    () => (resolved && checked.recipe === (values["recipe"] ?? "") ? flatten(TrainingSpecSchema, resolved) : new Map<string, string>()),
    [resolved, values["recipe"]],
  );
  const spec: Form = { id: `${id}-spec`, values, defaults, problems, set: (path, value) => setValues((old) => ({ ...old, [path]: value })), replace: setValues };
  const request_: Form = { id: `${id}-own`, values: own, defaults: new Map(), problems, set: (path, value) => setOwn((old) => ({ ...old, [path]: value })), replace: setOwn };

  return (
    <>
      <PageHead title="New training" lead={template ? `Copied from ${template.displayName || template.name}.` : "Only the dataset is required; everything else has a default."} />
      <form
        ref={form}
        class="spec-form"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void start.run();
        }}
      >
        <Panel title="Dataset">
          <DatasetChoice datasets={datasets.value ?? []} form={spec} />
          {groupChildren(opened, "dataset")
            .filter(({ path }) => path !== DATASET_NAME)
            .map((node) => draw(node, spec))}
        </Panel>
        <Panel title="Training">
          {basics.map((node) => draw(node, spec))}
          <fieldset class="group">
            <legend>Initial weights</legend>
            {groupChildren(opened, "init").map((node) => draw(node, spec))}
          </fieldset>
        </Panel>
        <Panel title="Name">{REQUEST_FIELDS.map((node) => draw(node, request_))}</Panel>
        <section class="panel folds" aria-label="More settings">
          {folded.map((node) => (
            <Fold key={node.path} node={node} form={spec} />
          ))}
          <Fold node={{ kind: "group", path: "more", name: "more", help: "Seed, precision, limits and the rest.", children: more }} form={spec} />
        </section>
        {checked && !failure && unread.length === 0 && <Checked response={checked.response} isOld={checked.recipe !== (values["recipe"] ?? "")} />}
        <div class="form-end">
          <FailureBox failure={failure} known={(field) => isShown(pathInForm(field, "spec") ?? field)} />
          {unread.length > 0 && (
            <p class="wrong" role="alert">
              Some fields are invalid; see the message at each of them.
            </p>
          )}
          <div class="actions">
            {check.isRunning ? (
              <button type="button" onClick={() => aborted.current?.abort()}>
                Checking… Cancel
              </button>
            ) : (
              <button type="button" onClick={() => void check.run()}>
                Check
              </button>
            )}
            <BusyButton type="submit" class="primary" isBusy={start.isRunning} busyText="Starting…" disabled={check.isRunning}>
              Start training
            </BusyButton>
          </div>
        </div>
      </form>
    </>
  );
}

/** Choice of a named dataset; without one, the path is used. */
function DatasetChoice(props: { datasets: Dataset[]; form: Form }) {
  const node = groupChildren(opened, "dataset").find(({ path }) => path === DATASET_NAME);
  if (node?.kind !== "field") return null;
  const ready = props.datasets.filter(({ state }) => state === DatasetState.READY);
  const options = ready.map(({ name, displayName, images }) => ({ value: name, help: `${displayName && `${displayName}, `}${count(images)} images.` }));
  const chosen = props.form.values[DATASET_NAME] ?? "";
  // From a link or an earlier training; the server validates it.
  if (chosen !== "" && !options.some(({ value }) => value === chosen)) options.push({ value: chosen, help: "" });
  return <Field node={{ ...node, name: "dataset", control: "choice", options }} form={props.form} none="None, use the path below" />;
}

function groupChildren(nodes: Node[], name: string): Node[] {
  return nodes.flatMap((node) => (node.kind === "group" && node.name === name ? node.children : []));
}

/** True if the form has a field of this path, which then shows its violation. */
function isShown(path: string): boolean {
  const plain = path.replace(/\[\d+\]/g, "[0]");
  const find = (nodes: Node[]): boolean =>
    nodes.some((node) => (node.kind === "field" ? node.path === plain : node.kind === "group" ? find(node.children) : find([node.row(0)])));
  return find(NODES) || REQUEST_FIELDS.some((node) => node.path === path);
}

function draw(node: Node, form: Form) {
  switch (node.kind) {
    case "field":
      return <Field key={node.path} node={node} form={form} />;
    case "group":
      return <Fold key={node.path} node={node} form={form} />;
    case "rows":
      return <Rows key={node.path} node={node} form={form} />;
  }
}

/** Label of a field, such as “Learning rate” for `learning_rate`. */
function label(name: string): string {
  return sentence(name.replaceAll("_", " "));
}

function hasProblem(form: Form, node: Node): boolean {
  if (node.kind === "field") return form.problems.has(node.path);
  if (node.kind === "rows") return [...form.problems.keys()].some((path) => path.startsWith(node.path));
  return node.children.some((child) => hasProblem(form, child));
}

/** A group of fields, collapsed unless a field is set or invalid. */
function Fold({ node, form }: { node: Node; form: Form }) {
  const isWrong = hasProblem(form, node);
  const isSet = node.kind === "group" ? node.children.some((child) => hasValues(form.values, child.path)) : hasValues(form.values, node.path);
  const [isOpen, setOpen] = useState(isSet);
  useEffect(() => {
    if (isWrong) setOpen(true);
  }, [isWrong]);
  const help = node.help.replace(/ Default: .*$/, "");
  return (
    <details class="fold" open={isOpen} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <span class="fold-name">{label(node.name)}</span> <span class="muted"><Prose text={help} /></span>
        {isSet && <span class="chip busy">set</span>}
        {isWrong && <span class="chip bad">invalid</span>}
      </summary>
      <div class="fold-body">{node.kind === "group" ? node.children.map((child) => draw(child, form)) : draw(node, form)}</div>
    </details>
  );
}

function Rows({ node, form }: { node: RowsNode; form: Form }) {
  const rows = rowCount(form.values, node.path);
  const add = (): void => {
    const first = firstField(node.row(rows));
    if (first) form.set(first.path, "");
  };
  return (
    <fieldset class="rows">
      <legend>{label(node.name)}</legend>
      <p class="muted">
        <Prose text={node.help} />
      </p>
      {Array.from({ length: rows }, (_, index) => (
        <div key={index} class="row">
          {node.row(index).children.map((child) => draw(child, form))}
          <button type="button" class="small" onClick={() => form.replace(withoutRow(form.values, node.path, index))}>
            Remove <span class="unseen">{label(node.row(index).name)}</span>
          </button>
        </div>
      ))}
      <button type="button" class="small" onClick={add}>
        Add
      </button>
    </fieldset>
  );
}

function firstField(group: GroupNode): FieldNode | undefined {
  return group.children.find((child) => child.kind === "field");
}

function Field({ node, form, none }: { node: FieldNode; form: Form; none?: string }) {
  const id = `${form.id}-${node.path}`;
  const value = form.values[node.path] ?? "";
  const fallback = form.defaults.get(node.path) ?? "";
  const problem = form.problems.get(node.path);
  const common = {
    id,
    name: node.path,
    "aria-invalid": problem !== undefined,
    "aria-describedby": `${id}-help${problem === undefined ? "" : ` ${id}-wrong`}`,
  };
  const chosen = node.options.find((option) => option.value === value);
  return (
    <div class={`field ${problem === undefined ? "" : "is-wrong"}`}>
      <div class="field-input">
        <label for={id}>{label(node.name)}</label>
        {node.control === "choice" || node.control === "toggle" ? (
          <select {...common} value={value} onChange={(event) => form.set(node.path, event.currentTarget.value)}>
            <option value="">{none ?? (fallback === "" ? "Default" : `Default: ${fallback === "true" ? "yes" : fallback === "false" ? "no" : fallback}`)}</option>
            {node.control === "toggle" && (
              <>
                <option value="true">Yes</option>
                <option value="false">No</option>
              </>
            )}
            {node.options.map((option) => (
              <option key={option.value} value={option.value}>
                {option.value}
              </option>
            ))}
          </select>
        ) : (
          <input
            {...common}
            type="text"
            inputMode={node.control === "integer" ? "numeric" : node.control === "number" ? "decimal" : undefined}
            autocomplete="off"
            spellcheck={false}
            placeholder={fallback}
            value={value}
            onInput={(event) => form.set(node.path, event.currentTarget.value)}
          />
        )}
        {problem !== undefined && (
          <p class="wrong" id={`${id}-wrong`}>
            {sentence(problem)}
          </p>
        )}
      </div>
      <p class="help muted" id={`${id}-help`}>
        <Prose text={node.help} />
        {chosen?.help && (
          <>
            {" "}
            <strong>{chosen.value}:</strong> <Prose text={chosen.help} />
          </>
        )}
      </p>
    </div>
  );
}

function Checked(props: { response: StartTrainingResponse; isOld: boolean }) {
  const element = useRef<HTMLDivElement>(null);
  useEffect(() => element.current?.scrollIntoView({ block: "center" }), [props.response]);
  const { training, estimate } = props.response;
  return (
    <div ref={element}>
      <Panel title="Result of the check" class="checked">
        {props.isOld && <p class="muted">This result is for another recipe; check again for current defaults.</p>}
        {training?.dataset && <DatasetSummary report={training.dataset} path={training.resolvedSpec?.dataset?.path} />}
        {estimate && (
          <Facts
            items={[
              ["Peak memory", bytes(estimate.memoryBytes)],
              ["Disk for checkpoints", bytes(estimate.diskBytes)],
              ["Steps per epoch", count(estimate.stepsPerEpoch)],
              ["Duration", estimate.duration ? `about ${span(Math.round(seconds(estimate.duration)))}` : "unknown before the first training"],
              ["Initial weights", training?.initSource && <span class="wrap">{training.initSource}</span>],
            ]}
          />
        )}
        <p class="muted">Empty fields above now show their defaults.</p>
      </Panel>
    </div>
  );
}
