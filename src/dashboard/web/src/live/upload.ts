/** The upload of this page; it continues while other pages are shown. */
import { signal } from "@preact/signals";
import { brief, datasetClient } from "../api/clients";
import { upload } from "../api/datasets";
import { type Failure, failureOf, isAbort } from "../api/errors";
import { announce, notify } from "../ui/notices";

export type Upload = { kind: "sending"; name: string; sent: number; total: number } | { kind: "failed"; name: string; failure: Failure };

export const current = signal<Upload | undefined>(undefined);
/** Number of created datasets; a change refreshes lists. */
export const made = signal(0);

let abort: AbortController | undefined;

/** Properties of a new dataset. */
export interface About {
  datasetId: string;
  displayName: string;
  /** If empty, file names start with the age. */
  agePattern: string;
}

/** Uploads an archive and creates a dataset from it; returns true on success. */
export async function send(file: File, about: About): Promise<boolean> {
  if (current.value?.kind === "sending") return false;
  const ended = new AbortController();
  abort = ended;
  const name = `datasets/${about.datasetId}`;
  current.value = { kind: "sending", name, sent: 0, total: file.size };
  try {
    const id = await upload(file, (sent) => (current.value = { kind: "sending", name, sent, total: file.size }), ended.signal);
    await datasetClient.createDataset({ ...about, upload: id }, brief);
    current.value = undefined;
    made.value += 1;
    notify(`Uploaded ${name}. The server is unpacking it.`);
    return true;
  } catch (error) {
    if (isAbort(error) || ended.signal.aborted) {
      current.value = undefined;
      announce("Upload cancelled.");
    } else {
      current.value = { kind: "failed", name, failure: failureOf(error, "The upload") };
    }
    return false;
  }
}

/** Cancels the upload and deletes its data from the server. */
export function cancelUpload(): void {
  abort?.abort();
}

export function dismiss(): void {
  if (current.value?.kind === "failed") current.value = undefined;
}
