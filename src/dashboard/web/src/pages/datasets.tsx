/** Named datasets: list, details, upload and registration. */
import { Code } from "@connectrpc/connect";
import { useEffect, useId, useState } from "preact/hooks";
import { brief, datasetClient, systemClient } from "../api/clients";
import { idOf, sampleUrl } from "../api/datasets";
import { bytes, count, exactMoment, moment, sentence, shortName, words } from "../format";
import { type AgeBand, type Dataset, DatasetKind, DatasetState } from "../gen/visage/v1/dataset_pb";
import { current, dismiss, cancelUpload, made, send } from "../live/upload";
import { useAction, useLoaded } from "../ui/calls";
import { Dialog } from "../ui/dialog";
import { notify } from "../ui/notices";
import { BusyButton, Empty, Facts, FailureBox, Loading, Meter, Name, PageHead, Panel, Scroll } from "../ui/parts";
import { go, href, route } from "../ui/router";
import { DatasetSummary } from "./dataset";

/** Polling interval while a dataset is unpacked or scanned. */
const POLL_MS = 1_000;

const TONES: Readonly<Record<DatasetState, string>> = {
  [DatasetState.UNSPECIFIED]: "quiet",
  [DatasetState.UNPACKING]: "busy",
  [DatasetState.SCANNING]: "busy",
  [DatasetState.READY]: "good",
  [DatasetState.FAILED]: "bad",
};

const isActive = ({ state }: Dataset): boolean => state === DatasetState.UNPACKING || state === DatasetState.SCANNING;

/** Reads all pages of the list. */
export async function allDatasets(signal: AbortSignal): Promise<Dataset[]> {
  const datasets: Dataset[] = [];
  let pageToken = "";
  do {
    const page = await datasetClient.listDatasets({ pageSize: 1000, pageToken }, { ...brief, signal });
    datasets.push(...page.datasets);
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return datasets;
}

/** Polls while `isActive`. */
function usePolling(isActive: boolean, again: () => void, answer: unknown): void {
  useEffect(() => {
    if (!isActive) return undefined;
    const timer = setTimeout(again, POLL_MS);
    return () => clearTimeout(timer);
  }, [isActive, again, answer]);
}

function DatasetChip(props: { state: DatasetState }) {
  return <span class={`chip ${TONES[props.state] ?? "quiet"}`}>{sentence(words(DatasetState[props.state] ?? "unknown"))}</span>;
}

const kindText = (kind: DatasetKind): string => (kind === DatasetKind.UPLOADED ? "uploaded" : "a directory of the server");

export function DatasetsPage() {
  const list = useLoaded(allDatasets, [made.value]);
  const info = useLoaded((signal) => systemClient.getServerInfo({}, { ...brief, signal }), []);
  usePolling(list.value?.some(isActive) ?? false, list.again, list.value);
  const largest = info.value?.limits?.maxUploadBytes ?? 0n;
  return (
    <>
      <PageHead title="Datasets" lead="Labelled images under a name, for trainings, evaluations and checks." />
      <FailureBox failure={list.failure} retry={list.again} />
      {!list.value && !list.failure && <Loading what="datasets" />}
      {list.value?.length === 0 && (
        <Empty title="No datasets yet">
          <p>
            Upload an archive below, push a directory with <code>visage dataset push DIRECTORY --name NAME</code>, or register a directory of the server.
          </p>
        </Empty>
      )}
      {list.value && list.value.length > 0 && (
        <ul class="cards">
          {list.value.map((dataset) => (
            <DatasetCard key={dataset.name} dataset={dataset} />
          ))}
        </ul>
      )}
      <FailureBox failure={info.failure} retry={info.again} />
      {largest > 0n && <UploadPanel largest={Number(largest)} />}
      <RegisterPanel onDone={list.again} />
    </>
  );
}

function DatasetCard(props: { dataset: Dataset }) {
  const { dataset } = props;
  const id = shortName(dataset.name);
  const isReady = dataset.state === DatasetState.READY;
  return (
    <li class="card dataset" data-dataset={id}>
      <div class="card-name">
        <a href={href("datasets", id)}>{dataset.displayName || id}</a>
        {dataset.displayName && <span class="muted small-text">{id}</span>}
        <span class="muted small-text">
          {moment(dataset.createTime)}, {kindText(dataset.kind)}
        </span>
      </div>
      <div class="card-state">
        <DatasetChip state={dataset.state} />
      </div>
      <div class="card-figure">
        <span class="muted small-text">Images</span>
        <span class="number">{isReady ? count(dataset.images) : "–"}</span>
      </div>
      <div class="card-figure">
        <span class="muted small-text">Size</span>
        <span class="number">{isReady ? bytes(dataset.bytes) : "–"}</span>
      </div>
    </li>
  );
}

function UploadPanel(props: { largest: number }) {
  const id = useId();
  const [file, setFile] = useState<File | undefined>();
  const [name, setName] = useState("");
  const [title, setTitle] = useState("");
  const [agePattern, setAgePattern] = useState("");
  const [wrong, setWrong] = useState("");
  const state = current.value;
  const isSending = state?.kind === "sending";
  const choose = (chosen: File | undefined): void => {
    setFile(chosen);
    setWrong("");
    if (chosen) setName(idOf(chosen.name));
  };
  const begin = async (): Promise<void> => {
    if (!file) return setWrong("choose an archive first");
    if (!/^[a-z][a-z0-9-]{0,62}$/.test(name)) return setWrong("the id must be 1 to 63 characters of a-z, 0-9 and -, starting with a letter");
    if (file.size > props.largest) return setWrong(`the archive has ${bytes(file.size)}; the limit of this server is ${bytes(props.largest)}`);
    setWrong("");
    if (await send(file, { datasetId: name, displayName: title, agePattern })) {
      setFile(undefined);
      setName("");
      setTitle("");
      setAgePattern("");
    }
  };
  return (
    <Panel title="Upload an archive">
      <form
        class="field-stack upload"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void begin();
        }}
      >
        <p>
          A zip, tar or tar.gz of images whose names start with the age, such as <code>34_anna.jpg</code>, or with a <code>manifest.csv</code>; at most {bytes(props.largest)}.
        </p>
        <p class="stored">
          Its images and manifests are stored on this server, in the directory <code>datasets</code> of its data directory, until the dataset is deleted; other files are ignored, and the archive is
          deleted once it is unpacked. Everyone with access to this server can train on them and see samples of them.
        </p>
        <div class="upload-fields">
          <label class="button file-button">
            {file ? file.name : "Choose an archive"}
            <input
              type="file"
              aria-label="Choose an archive"
              accept=".zip,.tar,.tgz,.gz,application/zip,application/x-tar,application/gzip"
              disabled={isSending}
              onChange={(event) => choose(event.currentTarget.files?.[0])}
            />
          </label>
          <label class="field-stack" for={`${id}-name`}>
            Id
            <input
              id={`${id}-name`}
              type="text"
              autocomplete="off"
              spellcheck={false}
              value={name}
              disabled={isSending}
              aria-invalid={wrong !== ""}
              aria-describedby={wrong === "" ? undefined : `${id}-wrong`}
              onInput={(event) => setName(event.currentTarget.value)}
            />
          </label>
          <label class="field-stack" for={`${id}-title`}>
            Display name
            <input id={`${id}-title`} type="text" autocomplete="off" value={title} disabled={isSending} onInput={(event) => setTitle(event.currentTarget.value)} />
          </label>
          <AgePatternField id={`${id}-pattern`} value={agePattern} disabled={isSending} onChange={setAgePattern} />
          <BusyButton type="submit" class="primary" isBusy={isSending} busyText="Uploading…">
            Upload
          </BusyButton>
        </div>
        {wrong !== "" && (
          <p class="wrong" id={`${id}-wrong`} role="alert">
            {sentence(wrong)}
          </p>
        )}
      </form>
      {state?.kind === "sending" && (
        <div class="progress" data-upload={state.name}>
          <Meter share={state.sent / Math.max(state.total, 1)} label={`Upload of ${state.name}`} />
          <p class="progress-text">
            <span>
              {bytes(state.sent)} of {bytes(state.total)}
            </span>
            <span class="muted">Keep this tab open; you can use other pages of the dashboard.</span>
            <button type="button" class="small" onClick={cancelUpload}>
              Give up
            </button>
          </p>
        </div>
      )}
      {state?.kind === "failed" && (
        <FailureBox
          failure={state.failure}
          retry={() => {
            dismiss();
            void begin();
          }}
        />
      )}
    </Panel>
  );
}

/** Age pattern, for images whose file names do not start with the age. */
function AgePatternField(props: { id: string; value: string; disabled: boolean; onChange: (pattern: string) => void }) {
  return (
    <label class="field-stack" for={props.id}>
      Age pattern
      <input
        id={props.id}
        type="text"
        autocomplete="off"
        spellcheck={false}
        placeholder="age first, or e.g. agedb, directory"
        value={props.value}
        disabled={props.disabled}
        onInput={(event) => props.onChange(event.currentTarget.value)}
      />
    </label>
  );
}

function RegisterPanel(props: { onDone: () => void }) {
  const id = useId();
  const [path, setPath] = useState("");
  const [name, setName] = useState("");
  const [agePattern, setAgePattern] = useState("");
  const register = useAction(async () => {
    const { dataset } = await datasetClient.registerDataset({ datasetId: name, path, agePattern }, brief);
    notify(`Registered ${dataset?.name}. The server is scanning it.`);
    setPath("");
    setName("");
    setAgePattern("");
    props.onDone();
  });
  return (
    <Panel title="Register a directory of the server">
      <p class="muted">It stays in place and is never deleted by Visage.</p>
      <form
        class="upload-fields"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void register.run();
        }}
      >
        <label class="field-stack wide" for={`${id}-path`}>
          Directory or manifest
          <input id={`${id}-path`} type="text" autocomplete="off" spellcheck={false} value={path} onInput={(event) => setPath(event.currentTarget.value)} />
        </label>
        <label class="field-stack" for={`${id}-id`}>
          Dataset id
          <input id={`${id}-id`} type="text" autocomplete="off" spellcheck={false} value={name} onInput={(event) => setName(event.currentTarget.value)} />
        </label>
        <AgePatternField id={`${id}-pattern`} value={agePattern} disabled={false} onChange={setAgePattern} />
        <BusyButton type="submit" isBusy={register.isRunning} busyText="Registering…">
          Register
        </BusyButton>
      </form>
      <FailureBox failure={register.failure} />
    </Panel>
  );
}

export function DatasetPage(props: { id: string }) {
  const name = `datasets/${props.id}`;
  const found = useLoaded(async (signal) => (await datasetClient.getDataset({ name }, { ...brief, signal })).dataset, [name]);
  const [asks, setAsks] = useState(false);
  const dataset = found.value;
  usePolling(dataset !== undefined && isActive(dataset), found.again, dataset);
  if (found.failure?.code === Code.NotFound) {
    return (
      <>
        <PageHead title={props.id} />
        <Empty title="Dataset not found">
          <p>
            It may have been deleted. <a href={href("datasets")}>All datasets</a>
          </p>
        </Empty>
      </>
    );
  }
  return (
    <>
      <PageHead
        title={
          <>
            {dataset?.displayName || props.id} {dataset && <DatasetChip state={dataset.state} />}
          </>
        }
        lead={dataset && `${dataset.name}, ${kindText(dataset.kind)}, since ${exactMoment(dataset.createTime)}`}
      >
        {dataset?.state === DatasetState.READY && (
          <a class="button primary" href={href("start", "", { dataset: props.id })}>
            Train on it
          </a>
        )}
        {dataset && (
          <button type="button" onClick={() => setAsks(true)}>
            Delete…
          </button>
        )}
      </PageHead>
      <FailureBox failure={found.failure} retry={found.again} />
      {!dataset && !found.failure && <Loading what="the dataset" />}
      {dataset && <Whole dataset={dataset} />}
      {dataset && asks && <DeleteDialog dataset={dataset} onClose={() => setAsks(false)} />}
    </>
  );
}

function Whole(props: { dataset: Dataset }) {
  const { dataset } = props;
  const { progress } = dataset;
  return (
    <>
      {dataset.failure !== "" && (
        <div class="failure" role="alert">
          <p>
            <strong>The dataset is unusable</strong>
          </p>
          <p class="wrap">{sentence(dataset.failure)}</p>
        </div>
      )}
      {isActive(dataset) && (
        <Panel title={dataset.state === DatasetState.UNPACKING ? "Unpacking the archive" : "Scanning the images"}>
          <Meter share={progress ? Number(progress.done) / Math.max(Number(progress.total), 1) : 0} label="Progress" />
        </Panel>
      )}
      {dataset.samples.length > 0 && (
        <Panel title="Sample images by age">
          <ul class="samples">
            {dataset.samples.map((sample, index) => (
              <li key={sample.file}>
                <img src={sampleUrl(dataset, index)} alt={`${sample.file}, split ${sample.split}`} loading="lazy" width={96} height={96} />
                <span class="small-text">{sample.age} years</span>
              </li>
            ))}
          </ul>
        </Panel>
      )}
      {dataset.ages.length > 0 && (
        <Panel title="Ages">
          <Ages bands={dataset.ages} />
        </Panel>
      )}
      <Panel title="Contents">
        <Facts
          items={[
            ["Images", dataset.state === DatasetState.READY && count(dataset.images)],
            ["Size", dataset.state === DatasetState.READY && bytes(dataset.bytes)],
            ["Other files", dataset.ignoredFiles > 0n && count(dataset.ignoredFiles)],
          ]}
        />
        {dataset.state === DatasetState.READY && dataset.report ? <DatasetSummary report={dataset.report} path={dataset.path} /> : <Facts items={[["Path", <Name text={dataset.path} />, "wide"]]} />}
      </Panel>
    </>
  );
}

const PARTS = [
  { name: "Training", colour: "var(--series-1)", of: ({ train }: AgeBand) => train },
  { name: "Validation", colour: "var(--series-2)", of: ({ validation }: AgeBand) => validation },
  { name: "Test", colour: "var(--series-4)", of: ({ test }: AgeBand) => test },
];

/** Number of images per decade of age, as stacked bars of the three splits. */
function Ages(props: { bands: AgeBand[] }) {
  const sum = ({ train, validation, test }: AgeBand): number => Number(train + validation + test);
  const most = Math.max(...props.bands.map(sum), 1);
  return (
    <Scroll label="Images by age">
      <table class="ages">
        <thead>
          <tr>
            <th scope="col">Ages</th>
            <th scope="col" class="wide"><span class="unseen">Share</span></th>
            {PARTS.map(({ name, colour }) => (
              <th key={name} scope="col" class="right">
                <span class="part-name">
                  <span class="swatch block" style={{ "--colour": colour }} /> {name}
                </span>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.bands.map((band) => (
            <tr key={band.fromAge}>
              <th scope="row" class="number">
                {band.fromAge} to {band.fromAge + 9}
              </th>
              <td class="wide" aria-hidden="true">
                <div class="stacked" style={{ width: `${(sum(band) / most) * 100}%` }}>
                  {PARTS.map(({ name, colour, of }) => (
                    <span key={name} style={{ flexGrow: Number(of(band)), "--colour": colour }} />
                  ))}
                </div>
              </td>
              {PARTS.map(({ name, of }) => (
                <td key={name} class="right">
                  {count(of(band))}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function DeleteDialog(props: { dataset: Dataset; onClose: () => void }) {
  const { dataset } = props;
  const isOurs = dataset.kind === DatasetKind.UPLOADED;
  const remove = useAction(async () => {
    await datasetClient.deleteDataset({ name: dataset.name }, brief);
    notify(`Deleted ${dataset.name}.`);
    go(href("datasets"), route.value.id !== "");
  });
  return (
    <Dialog title={`Delete ${dataset.name}?`} onClose={props.onClose}>
      <p>
        {isOurs
          ? `Its images are permanently deleted from the server${dataset.images > 0n ? `: ${count(dataset.images)} images, ${bytes(dataset.bytes)}` : ""}.`
          : "Only its name is removed; the directory and its images are kept."}{" "}
        Trainings and models that used it are kept.
      </p>
      <FailureBox failure={remove.failure} />
      <div class="actions">
        <button type="button" onClick={props.onClose}>
          Cancel
        </button>
        <BusyButton class="danger" isBusy={remove.isRunning} onClick={() => void remove.run()}>
          Delete the dataset
        </BusyButton>
      </div>
    </Dialog>
  );
}
