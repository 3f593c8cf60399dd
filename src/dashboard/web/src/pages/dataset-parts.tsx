/** Shared parts of the pages about datasets. */
import { useEffect } from "preact/hooks";
import { brief, datasetClient } from "../api/clients";
import { sentence, words } from "../format";
import { type Dataset, DatasetKind, DatasetState } from "../gen/visage/v1/dataset_pb";

/** Polling interval while a dataset is unpacked or scanned. */
const POLL_MS = 1_000;

const TONES: Readonly<Record<DatasetState, string>> = {
  [DatasetState.UNSPECIFIED]: "quiet",
  [DatasetState.UNPACKING]: "busy",
  [DatasetState.SCANNING]: "busy",
  [DatasetState.READY]: "good",
  [DatasetState.FAILED]: "bad",
};

export const isActive = ({ state }: Dataset): boolean => state === DatasetState.UNPACKING || state === DatasetState.SCANNING;

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
export function usePolling(isActive: boolean, again: () => void, answer: unknown): void {
  useEffect(() => {
    if (!isActive) return undefined;
    const timer = setTimeout(again, POLL_MS);
    return () => clearTimeout(timer);
  }, [isActive, again, answer]);
}

export function DatasetChip(props: { state: DatasetState }) {
  return <span class={`chip ${TONES[props.state] ?? "quiet"}`}>{sentence(words(DatasetState[props.state] ?? "unknown"))}</span>;
}

export const kindText = (kind: DatasetKind): string => (kind === DatasetKind.UPLOADED ? "uploaded" : "a directory on the server");
