/** Model versions, their aliases, and the details of a version. */
import { Code } from "@connectrpc/connect";
import { useId, useState } from "preact/hooks";
import { brief, modelClient } from "../api/clients";
import { exactMoment, figure, moment, shortName } from "../format";
import { type AliasEvent, type ModelVersion, VersionOrigin } from "../gen/visage/v1/model_pb";
import { views } from "../live/store";
import { useAction, useLoaded } from "../ui/calls";
import { Dialog } from "../ui/dialog";
import { notify } from "../ui/notices";
import { BusyButton, Empty, FailureBox, Facts, Loading, PageHead, Panel, Scroll } from "../ui/parts";
import { href } from "../ui/router";
import { DownloadButton } from "./download-button";
import { EvaluationTables } from "./evaluation";
import { SpecList } from "./spec-list";

const MODEL = "models/age";
const LIVE = "live";
const PREVIOUS = "previous";

const versionName = (version: string | bigint): string => `${MODEL}/versions/${version}`;

/** Reads all pages of the list. */
export async function allVersions(signal: AbortSignal): Promise<ModelVersion[]> {
  const versions: ModelVersion[] = [];
  let pageToken = "";
  do {
    const page = await modelClient.listModelVersions({ parent: MODEL, pageSize: 1000, pageToken }, { ...brief, signal });
    versions.push(...page.versions);
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return versions;
}

/** Changes with every new version, so that lists are refreshed. */
function versionsMade(): string {
  return (views.value ?? []).map(({ modelVersion }) => modelVersion).join();
}

const holder = (versions: ModelVersion[] | undefined, alias: string): ModelVersion | undefined => versions?.find(({ aliases }) => aliases.includes(alias));

export function ModelsPage() {
  const made = versionsMade();
  const versions = useLoaded(allVersions, [made]);
  const history = useLoaded(async (signal) => (await modelClient.listAliasEvents({ parent: MODEL, pageSize: 100 }, { ...brief, signal })).events, [made]);
  const live = holder(versions.value, LIVE);
  const previous = holder(versions.value, PREVIOUS);
  const again = (): void => {
    versions.again();
    history.again();
  };
  const rollBack = useAction(async () => {
    // Fails if `live` was moved concurrently.
    const { version } = await modelClient.setAlias({ name: versionName(PREVIOUS), alias: LIVE, expectedVersion: live?.version ?? 0n }, brief);
    notify(`Rolled back: version ${version?.version} is live.`);
    again();
  });
  return (
    <>
      <PageHead title="Models" lead={live ? `Version ${live.version} is live: Predict uses it by default.` : versions.value ? "No version is live: Predict has no model." : undefined}>
        <BusyButton isBusy={rollBack.isRunning} disabled={!previous || previous === live} title={previous ? undefined : "There is no previous live version"} onClick={() => void rollBack.run()}>
          Roll back{previous && previous !== live ? ` to version ${previous.version}` : ""}
        </BusyButton>
      </PageHead>
      <FailureBox failure={rollBack.failure} />
      <FailureBox failure={versions.failure} retry={versions.again} />
      {!versions.value && !versions.failure && <Loading what="model versions" />}
      {versions.value?.length === 0 && (
        <Empty title="No model versions yet">
          <p>
            The best checkpoint of a training becomes a version. <a href={href("start")}>Start a training</a>, or run the server with <code>--starter</code> for a built-in model.
          </p>
        </Empty>
      )}
      {versions.value && versions.value.length > 0 && (
        <ul class="cards">
          {versions.value.map((version) => (
            <VersionCard key={version.name} version={version} live={live} onChange={again} />
          ))}
        </ul>
      )}
      {history.failure && <FailureBox failure={history.failure} retry={history.again} />}
      {history.value && history.value.length > 0 && (
        <Panel title="History of aliases">
          <History events={history.value} />
        </Panel>
      )}
    </>
  );
}

function originText(version: ModelVersion): string {
  return version.origin === VersionOrigin.STARTER ? "the starter" : "a training";
}

function VersionCard(props: { version: ModelVersion; live: ModelVersion | undefined; onChange: () => void }) {
  const { version } = props;
  return (
    <li class="card version" data-version={String(version.version)}>
      <div class="card-name">
        <a href={href("models", String(version.version))}>Version {String(version.version)}</a>
        <span class="muted small-text">
          {moment(version.createTime)}, from {originText(version)}
        </span>
      </div>
      <Aliases version={version} live={props.live} onChange={props.onChange} />
      <Figure label="Validation MAE" value={version.metrics?.valMae} />
      <Figure label="Validation RMSE" value={version.metrics?.valRmse} />
      <Figure label="Test MAE" value={version.test?.mae} />
    </li>
  );
}

function Figure(props: { label: string; value: number | undefined }) {
  return (
    <div class="card-figure">
      <span class="muted small-text">{props.label}</span>
      <span class="number">
        {figure(props.value)} {props.value !== undefined && <span class="muted small-text">years</span>}
      </span>
    </div>
  );
}

/** Aliases of a version with their actions. */
function Aliases(props: { version: ModelVersion; live: ModelVersion | undefined; onChange: () => void }) {
  const { version, live } = props;
  const [question, setQuestion] = useState<"promote" | "alias" | undefined>();
  const remove = useAction(async (alias: string) => {
    await modelClient.deleteAlias({ parent: MODEL, alias }, brief);
    notify(`Removed the alias ${alias}.`);
    props.onChange();
  });
  const close = (): void => setQuestion(undefined);
  return (
    <div class="aliases">
      <ul class="plain chips" aria-label={`Aliases of version ${version.version}`}>
        {version.aliases.map((alias) => (
          <li key={alias} class={`chip ${alias === LIVE ? "good" : "quiet"}`}>
            {alias}
            {alias !== LIVE && alias !== PREVIOUS && (
              <button type="button" class="chip-button" aria-label={`Remove the alias ${alias}`} onClick={() => void remove.run(alias)}>
                ×
              </button>
            )}
          </li>
        ))}
      </ul>
      <div class="actions">
        {version.name !== live?.name && (
          <button type="button" class="small" onClick={() => setQuestion("promote")}>
            Promote… <span class="unseen">version {String(version.version)}</span>
          </button>
        )}
        <button type="button" class="small" onClick={() => setQuestion("alias")}>
          Add alias… <span class="unseen">to version {String(version.version)}</span>
        </button>
      </div>
      <FailureBox failure={remove.failure} />
      {question === "promote" && <PromoteDialog version={version} live={live} onClose={close} onDone={props.onChange} />}
      {question === "alias" && <AliasDialog version={version} onClose={close} onDone={props.onChange} />}
    </div>
  );
}

function PromoteDialog(props: { version: ModelVersion; live: ModelVersion | undefined; onClose: () => void; onDone: () => void }) {
  const { version, live } = props;
  const promote = useAction(async () => {
    await modelClient.setAlias({ name: version.name, alias: LIVE, expectedVersion: live?.version ?? 0n }, brief);
    notify(`Version ${version.version} is live.`);
    props.onClose();
    props.onDone();
  });
  return (
    <Dialog title={`Make version ${version.version} live?`} onClose={props.onClose}>
      <p>
        It is loaded and warmed up first; then Predict uses it for every request that does not name a version.
        {live && ` Version ${live.version} becomes “previous”, so that you can roll back to it.`}
      </p>
      {live && (
        <Facts
          items={[
            [`MAE of version ${live.version}`, `${figure(live.metrics?.valMae)} years`],
            [`MAE of version ${version.version}`, `${figure(version.metrics?.valMae)} years`],
            ["Validated on", live.valDigest === version.valDigest ? "the same images" : "different images, so the errors are not comparable", "wide"],
          ]}
        />
      )}
      <FailureBox failure={promote.failure} />
      <div class="actions">
        <button type="button" onClick={props.onClose}>
          Cancel
        </button>
        <BusyButton isBusy={promote.isRunning} busyText="Loading the version…" class="primary" onClick={() => void promote.run()}>
          Make it live
        </BusyButton>
      </div>
    </Dialog>
  );
}

function AliasDialog(props: { version: ModelVersion; onClose: () => void; onDone: () => void }) {
  const id = useId();
  const [alias, setAlias] = useState("");
  const save = useAction(async () => {
    await modelClient.setAlias({ name: props.version.name, alias }, brief);
    notify(`${alias} points to version ${props.version.version}.`);
    props.onClose();
    props.onDone();
  });
  const wrong = save.failure?.violations.find(({ field }) => field === "alias")?.description;
  return (
    <Dialog title={`Add an alias to version ${props.version.version}`} onClose={props.onClose}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void save.run();
        }}
      >
        <div class="field-stack">
          <label for={id}>Alias</label>
          <input id={id} type="text" autocomplete="off" placeholder="candidate" value={alias} aria-invalid={wrong !== undefined} aria-describedby={`${id}-help`} onInput={(event) => setAlias(event.currentTarget.value)} />
          {wrong && <p class="wrong">{wrong}</p>}
          <p class="muted small-text" id={`${id}-help`}>
            1 to 63 characters of a–z, 0–9 and -, starting with a letter. An existing alias is moved.
          </p>
        </div>
        <FailureBox failure={save.failure} known={(field) => field === "alias"} />
        <div class="actions">
          <button type="button" onClick={props.onClose}>
            Cancel
          </button>
          <BusyButton type="submit" isBusy={save.isRunning} class="primary" disabled={alias === ""}>
            Add alias
          </BusyButton>
        </div>
      </form>
    </Dialog>
  );
}

function History({ events }: { events: AliasEvent[] }) {
  const version = (number: bigint) => (number === 0n ? <span class="muted">none</span> : String(number));
  return (
    <Scroll label="History of aliases">
      <table>
        <thead>
          <tr>
            <th scope="col">Time</th>
            <th scope="col">Alias</th>
            <th scope="col" class="right">From</th>
            <th scope="col" class="right">To</th>
            <th scope="col">Cause</th>
          </tr>
        </thead>
        <tbody>
          {events.map((event, index) => (
            <tr key={index}>
              <td class="number">{exactMoment(event.eventTime)}</td>
              <td>{event.alias}</td>
              <td class="right">{version(event.fromVersion)}</td>
              <td class="right">{version(event.toVersion)}</td>
              <td>{event.cause}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

export function ModelPage(props: { id: string }) {
  const versions = useLoaded(allVersions, [versionsMade()]);
  const live = holder(versions.value, LIVE);
  const version = versions.value?.find((one) => String(one.version) === props.id || one.aliases.includes(props.id));
  const evaluation = useLoaded(
    async (signal) => {
      try {
        return { found: (await modelClient.getEvaluation({ name: versionName(props.id) }, { ...brief, signal })).evaluation };
      } catch (error) {
        // A missing evaluation is not an error.
        if ((error as { code?: Code }).code === Code.NotFound) return { found: undefined };
        throw error;
      }
    },
    [props.id],
  );
  const head = (
    <nav class="crumbs" aria-label="Path">
      <a href={href("models")}>Models</a> <span aria-hidden="true">/</span>
    </nav>
  );
  if (!version) {
    return (
      <>
        {head}
        <PageHead title={`Version ${props.id}`} />
        <FailureBox failure={versions.failure} retry={versions.again} />
        {versions.isLoading && !versions.failure && <Loading what="the version" />}
        {versions.value && (
          <Empty title="Version not found">
            <p>
              <a href={href("models")}>All versions</a>
            </p>
          </Empty>
        )}
      </>
    );
  }
  const training = version.checkpoint.split("/")[1];
  const { metrics } = version;
  return (
    <>
      {head}
      <PageHead title={`Version ${version.version}`} lead={<code>{version.name}</code>}>
        <a class="button" href={href("predict", "", { model: String(version.version) })}>
          Predict with it
        </a>
      </PageHead>
      <Panel title="Aliases">
        <Aliases version={version} live={live} onChange={versions.again} />
      </Panel>
      <Panel title="Details">
        <Facts
          items={[
            ["Created", exactMoment(version.createTime)],
            ["Source", training ? <a href={href("trainings", training)}>{shortName(`trainings/${training}`)}, epoch {version.checkpoint.split("/").at(-1)}</a> : originText(version)],
            ["Input", `${version.inputSize} × ${version.inputSize} pixels`],
            ["Validation MAE", metrics && `${figure(metrics.valMae)} years`],
            ["Validation RMSE", metrics && `${figure(metrics.valRmse)} years`],
            ["Validation loss", metrics && `${figure(metrics.valLoss)} squared years`],
            ["Validation images", metrics && String(metrics.valImages)],
            ["Dataset", version.datasetDigest && <code title={version.datasetDigest}>{version.datasetDigest.slice(0, 16)}…</code>],
          ]}
        />
        <h3>Files</h3>
        <div class="actions">
          {version.files.map((file) => (
            <DownloadButton
              key={file.name}
              file={file}
              saveAs={`age-${version.version}-${file.name}`}
              open={() => modelClient.downloadModelFile({ name: version.name, file: file.name })}
            />
          ))}
        </div>
      </Panel>
      <Panel title="Evaluation on the test images of the training">
        <FailureBox failure={evaluation.failure} retry={evaluation.again} />
        {!evaluation.value && !evaluation.failure && <Loading what="the evaluation" />}
        {evaluation.value && !evaluation.value.found && (
          <p class="muted">
            There is no stored evaluation. Use <code>visage evaluate --version {String(version.version)} --dataset DIRECTORY</code> to evaluate it.
          </p>
        )}
        {evaluation.value?.found && <EvaluationTables evaluation={evaluation.value.found} />}
      </Panel>
      {version.spec && (
        <Panel title="Spec of the training">
          <SpecList resolved={version.spec} />
        </Panel>
      )}
    </>
  );
}
