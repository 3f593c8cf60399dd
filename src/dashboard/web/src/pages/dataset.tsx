/** Page of one dataset. */
import { Code } from "@connectrpc/connect";
import { useState } from "preact/hooks";
import { brief, datasetClient } from "../api/clients";
import { sampleUrl } from "../api/datasets";
import { bytes, count, exactMoment, plural, sentence, yearsOld } from "../format";
import { type AgeBand, type Dataset, DatasetKind, DatasetState } from "../gen/visage/v1/dataset_pb";
import { useAction, useLoaded } from "../ui/calls";
import { Dialog } from "../ui/dialog";
import { notify } from "../ui/notices";
import { BusyButton, Crumbs, Empty, Facts, FailureBox, Loading, Meter, Name, PageHead, Panel, Scroll } from "../ui/parts";
import { Needs } from "../ui/permission";
import { go, href, route } from "../ui/router";
import { CheckPanel } from "./dataset-check";
import { DatasetChip, isActive, kindText, usePolling } from "./dataset-parts";
import { DatasetSummary } from "./dataset-summary";

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
      <Crumbs list="datasets" listName="Datasets" name={dataset?.displayName || props.id} />
      <PageHead
        title={
          <>
            {dataset?.displayName || props.id} {dataset && <DatasetChip state={dataset.state} />}
          </>
        }
        lead={dataset && `${dataset.name}, ${kindText(dataset.kind)}, since ${exactMoment(dataset.createTime)}`}
      >
        {dataset?.state === DatasetState.READY && (
          <Needs role="trainer" hide>
            <a class="button primary" href={href("start", "", { dataset: props.id })}>
              Train on it
            </a>
          </Needs>
        )}
        {dataset && (
          <Needs role="admin">
            <button type="button" onClick={() => setAsks(true)}>
              Delete…
            </button>
          </Needs>
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
        <Panel title="Thumbnails by age">
          <ul class="samples">
            {dataset.samples.map((sample, index) => (
              <li key={sample.file}>
                <img src={sampleUrl(dataset, index)} alt={`${sample.file}, split ${sample.split}`} loading="lazy" width={96} height={96} />
                <span class="small-text">{yearsOld(sample.age)}</span>
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
      {dataset.state === DatasetState.READY && <CheckPanel dataset={dataset} />}
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
          ? `Its images are permanently deleted from the server${dataset.images > 0n ? `: ${plural(dataset.images, "image")}, ${bytes(dataset.bytes)}` : ""}.`
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
