/** Page of a new training. */
import { Code } from "@connectrpc/connect";
import { useEffect, useId, useMemo, useRef, useState } from "preact/hooks";
import { brief, trainingClient } from "../api/clients";
import type { Violation } from "../api/errors";
import { bytes, count, plural, seconds, shortName, span } from "../format";
import { type Dataset, DatasetState } from "../gen/visage/v1/dataset_pb";
import { type StartTrainingResponse, TrainingSpecSchema } from "../gen/visage/v1/training_pb";
import { learn, views } from "../live/store";
import { may } from "../live/session";
import { made } from "../live/upload";
import { defaultsFor } from "../spec/defaults";
import { flatten } from "../spec/describe";
import { type Values, fromMessage, toMessage } from "../spec/form";
import { useAction, useLoaded } from "../ui/calls";
import { notify } from "../ui/notices";
import { BusyButton, Facts, FailureBox, PageHead, Panel } from "../ui/parts";
import { Lacks, Needs } from "../ui/permission";
import { go, href, route } from "../ui/router";
import { DatasetSummary } from "./dataset-summary";
import { allDatasets } from "./dataset-parts";
import { type Form, Field, Fold, draw } from "./spec-fields";
import { DATASET_NAME, INIT_VERSION, basics, datasetMore, datasetName, datasetPath, displayName, epochs, folds, initFile, initKind, initVersion, isShown, missingRole, placeOf, trainingId, withoutPromotion } from "./start-form";
import { allVersions } from "./versions";

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

/** Result of a check, and the values that it was made for. */
interface Checked {
  response: StartTrainingResponse;
  values: Values;
}

/** Fields that change the defaults of others. */
const DECISIVE = ["recipe", "init.kind", "init.path", INIT_VERSION, "optimizer.kind"];

export function StartPage() {
  const id = useId();
  const [values, setValues] = useState<Values>({});
  const [own, setOwn] = useState<Values>({});
  const [unread, setUnread] = useState<Violation[]>([]);
  const [checked, setChecked] = useState<Checked | undefined>();
  // Retrying after a lost response must not start a second training.
  const requestId = useRef(uuid());
  const form = useRef<HTMLFormElement>(null);
  const aborted = useRef<AbortController | undefined>(undefined);

  const { query } = route.value;
  const from = query.get("from");
  const named = query.get("dataset");
  const init = query.get("init");
  const version = query.get("version");
  const template = from ? views.value?.find(({ name }) => shortName(name) === from)?.training : undefined;
  useEffect(() => {
    if (!template?.spec) return;
    setValues(fromMessage(TrainingSpecSchema, template.spec));
    setOwn({ display_name: template.displayName });
  }, [template?.name]);
  useEffect(() => {
    if (named) setValues((old) => ({ ...old, [DATASET_NAME]: `datasets/${named}` }));
    if (init) setValues((old) => ({ ...old, "init.kind": init, "init.path": "", "init.key": "", [INIT_VERSION]: "" }));
    if (version) setValues((old) => ({ ...old, "init.kind": "PATH", [INIT_VERSION]: version }));
  }, [named, init, version, template?.name]);
  const datasets = useLoaded(allDatasets, [made.value]);
  const versions = useLoaded(allVersions, []);

  const request = (given: Values) => {
    const { message, problems } = toMessage(TrainingSpecSchema, withoutPromotion(given, may("deployer")));
    setUnread(problems);
    if (problems.length > 0) return undefined;
    return { spec: message, displayName: own["display_name"] ?? "", trainingId: own["training_id"] ?? "" };
  };
  const check = useAction(async (given: Values) => {
    start.clear();
    const asked = request(given);
    if (!asked) return;
    const abort = new AbortController();
    aborted.current = abort;
    // Without a timeout: scanning many images takes long.
    const response = await trainingClient.startTraining({ ...asked, validateOnly: true }, { signal: abort.signal });
    setChecked({ response, values: given });
    notify("The settings are valid. No training was started.");
  });
  const start = useAction(async () => {
    check.clear();
    const asked = request(values);
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
    for (const { field, description } of failure?.violations ?? []) found.set(placeOf(field), description);
    return found;
  }, [unread, failure]);
  useEffect(() => {
    if (problems.size === 0) return;
    // By then the group of an invalid field is open.
    requestAnimationFrame(() => form.current?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus());
  }, [problems]);

  const defaults = useMemo(() => {
    const known = new Map(defaultsFor(values));
    if (!may("deployer")) known.set("promote", "NEVER");
    const resolved = checked?.response.training?.resolvedSpec;
    const isCurrent = checked && DECISIVE.every((path) => (checked.values[path] ?? "") === (values[path] ?? ""));
    // Only for fields that were empty, since the others are resolved to what was entered.
    if (resolved && isCurrent) for (const [path, value] of flatten(TrainingSpecSchema, resolved)) if (!checked.values[path]) known.set(path, value);
    return known;
  }, [checked, values]);
  const spec: Form = { id: `${id}-spec`, values, defaults, problems, set: (path, value) => setValues((old) => ({ ...old, [path]: value })), replace: setValues };
  const others: Form = { id: `${id}-own`, values: own, defaults: new Map(), problems, set: (path, value) => setOwn((old) => ({ ...old, [path]: value })), replace: setOwn };
  const shown = [...problems.keys()].filter(isShown).length;
  const isStarterOffered = problems.has("init.kind") && (values["init.kind"] || defaults.get("init.kind")) !== "STARTER";
  const useStarter = (): void => {
    const next = { ...values, "init.kind": "STARTER", "init.path": "", "init.key": "", [INIT_VERSION]: "" };
    setValues(next);
    void check.run(next);
  };

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
        {shown > 0 && (
          <div class="failure form-alert" role="alert">
            <p>
              <strong>
                {plural(shown, "field")} {shown === 1 ? "needs" : "need"} a change, marked in red below
              </strong>
            </p>
            {isStarterOffered && (
              <button type="button" class="small" onClick={useStarter}>
                Start from the built-in face model instead
              </button>
            )}
          </div>
        )}
        <Panel title="Dataset">
          <DatasetChoice datasets={datasets.value ?? []} form={spec} />
          {(values[DATASET_NAME] ?? "") === "" && datasetPath && draw(datasetPath, spec)}
          <Fold node={datasetMore} form={spec} />
        </Panel>
        <Panel title="Training">
          {basics.map((node) => draw(node, spec))}
          {epochs.map((node) => draw(node, spec))}
          {initKind && draw(initKind, spec)}
          {(values["init.kind"] === "PATH" || values[INIT_VERSION]) && (
            <>
              <VersionChoice names={(versions.value ?? []).map(({ name, aliases }) => ({ name, aliases }))} form={spec} />
              {initFile.map((node) => draw(node, spec))}
            </>
          )}
          <Field node={displayName} form={others} />
        </Panel>
        <section class="panel folds" aria-label="More settings">
          {folds.map(({ title, node }) =>
            node.children.length === 0 ? null : <Fold key={node.path} node={node} form={spec} {...(title ? { title } : {})} />,
          )}
          <Fold node={{ kind: "group", path: "own", name: "own", help: "Chosen by the server if empty.", children: [trainingId] }} form={others} title="Training id" />
        </section>
        {checked && !failure && unread.length === 0 && <CheckResult response={checked.response} />}
        <div class="form-end">
          {failure && (failure.violations.length === 0 || failure.violations.some(({ field }) => !isShown(placeOf(field)))) && (
            <FailureBox failure={failure} known={(field) => isShown(placeOf(field))} />
          )}
          <div class="actions">
            <Needs role={missingRole(values, may) ?? "trainer"}>
              {check.isRunning ? (
                <button type="button" onClick={() => aborted.current?.abort()}>
                  Checking… Cancel
                </button>
              ) : (
                <button type="button" onClick={() => void check.run(values)}>
                  Check
                </button>
              )}
              <BusyButton type="submit" class="primary" isBusy={start.isRunning} busyText="Starting…" disabled={check.isRunning}>
                Start training
              </BusyButton>
            </Needs>
            <Lacks role="deployer" what="The new version does not become live: this needs" />
          </div>
        </div>
      </form>
    </>
  );
}

/** Choice of a named dataset; without one, the path is used. */
function DatasetChoice(props: { datasets: Dataset[]; form: Form }) {
  if (!datasetName) return null;
  const ready = props.datasets.filter(({ state }) => state === DatasetState.READY);
  const options = ready.map(({ name, displayName: title, images }) => ({ value: name, help: "", label: `${title || shortName(name)} (${plural(images, "image")})` }));
  const chosen = props.form.values[DATASET_NAME] ?? "";
  // From a link or an earlier training; the server validates it.
  if (chosen !== "" && !options.some(({ value }) => value === chosen)) options.push({ value: chosen, help: "", label: chosen });
  return <Field node={{ ...datasetName, control: "choice", options }} form={props.form} none="A directory on the server…" />;
}

/** Choice of a version as initial weights. */
function VersionChoice(props: { names: { name: string; aliases: string[] }[]; form: Form }) {
  if (!initVersion) return null;
  const options = props.names.map(({ name, aliases }) => ({ value: name, help: "", label: `Version ${shortName(name)}${aliases.length > 0 ? ` (${aliases.join(", ")})` : ""}` }));
  const chosen = props.form.values[INIT_VERSION] ?? "";
  if (chosen !== "" && !options.some(({ value }) => value === chosen)) options.push({ value: chosen, help: "", label: chosen });
  return <Field node={{ ...initVersion, control: "choice", options }} form={props.form} none="A file…" />;
}

function CheckResult(props: { response: StartTrainingResponse }) {
  const element = useRef<HTMLDivElement>(null);
  useEffect(() => element.current?.scrollIntoView({ block: "center" }), [props.response]);
  const { training, estimate } = props.response;
  return (
    <div ref={element}>
      <Panel title="Result of the check" class="checked">
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
      </Panel>
    </div>
  );
}
