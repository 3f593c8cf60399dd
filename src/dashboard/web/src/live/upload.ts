/** The one upload of this page. It goes on while other pages are looked at. */
import { signal } from "@preact/signals";
import { brief, datasetClient } from "../api/clients";
import { upload } from "../api/datasets";
import { type Failure, failureOf, isAbort } from "../api/errors";
import { announce, notify } from "../ui/notices";

/** Where it stands. */
export type Upload = { kind: "sending"; name: string; sent: number; total: number } | { kind: "failed"; name: string; failure: Failure };

export const current = signal<Upload | undefined>(undefined);
/** Changes with every dataset that is made, so that lists are read again. */
export const made = signal(0);

let abort: AbortController | undefined;

/** Properties of a new dataset, beside its archive. */
export interface About {
  datasetId: string;
  displayName: string;
  /** Empty: the file names begin with the age. */
  agePattern: string;
}

/** Sends an archive and makes a dataset of it; whether it was made. */
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
    notify(`All of ${name} is on the server, which unpacks it now.`);
    return true;
  } catch (error) {
    if (isAbort(error) || ended.signal.aborted) {
      current.value = undefined;
      announce("The upload was given up.");
    } else {
      current.value = { kind: "failed", name, failure: failureOf(error, "The upload") };
    }
    return false;
  }
}

/** Gives the upload up; what the server has of it is deleted. */
export function giveUp(): void {
  abort?.abort();
}

/** Forgets a failed upload. */
export function dismiss(): void {
  if (current.value?.kind === "failed") current.value = undefined;
}
