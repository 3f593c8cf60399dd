/** List of named datasets. */
import { brief, systemClient } from "../api/clients";
import { bytes, count, moment, shortName } from "../format";
import { type Dataset, DatasetState } from "../gen/visage/v1/dataset_pb";
import { made } from "../live/upload";
import { useLoaded } from "../ui/calls";
import { Empty, FailureBox, Loading, PageHead } from "../ui/parts";
import { Needs } from "../ui/permission";
import { href } from "../ui/router";
import { RegisterPanel, UploadPanel } from "./dataset-forms";
import { DatasetChip, allDatasets, isActive, kindText, usePolling } from "./dataset-parts";
import { LeftUploads } from "./left-uploads";

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
            Upload an archive below, push a directory with <code>visage dataset push DIRECTORY --name NAME</code>, or register a directory on the server.
          </p>
          <div class="actions">
            <Needs role="trainer" hide>
              <button type="button" class="primary" onClick={() => focusField("upload")}>
                Upload an archive
              </button>
            </Needs>
            <Needs role="admin" hide>
              <button type="button" onClick={() => focusField("register")}>
                Register a directory
              </button>
            </Needs>
          </div>
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
      <Needs role="trainer" hide>
        <LeftUploads />
      </Needs>
    </>
  );
}

/** Moves the focus to the first field of a form on this page. */
function focusField(form: "upload" | "register"): void {
  document.querySelector<HTMLElement>(`[data-form=${form}] input`)?.focus();
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
