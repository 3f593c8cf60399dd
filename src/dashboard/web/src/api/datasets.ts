/** Archives on their way to the server, which go on where they ended, and the addresses of small images. */
import { Code, ConnectError } from "@connectrpc/connect";
import type { Dataset } from "../gen/visage/v1/dataset_pb";
import { millis, shortName } from "../format";
import { baseUrl } from "./base";

/** Bytes of a request: what was sent is durable with its answer. */
const SLICE = 8 << 20;
/** How long the server may be away before an upload is given up. */
const PATIENCE_MS = 300_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
/** Answers that another try may change: busy, another request still writes, at another byte than we thought, or the server ends. */
const PASSING: ReadonlySet<number> = new Set([408, 409, 423, 429]);

/** What the upload needs of the world; tests have their own. */
export interface World {
  fetch: (url: string, init: RequestInit) => Promise<Response>;
  sleep: (milliseconds: number, signal: AbortSignal) => Promise<void>;
  now: () => number;
}

const browser: World = {
  fetch: (url, init) => fetch(url, init),
  sleep: (milliseconds, signal) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, milliseconds);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        reject(signal.reason);
      });
    }),
  now: () => performance.now(),
};

/** A refusal that no other try changes. */
async function refusal(response: Response): Promise<ConnectError> {
  const body = (await response.json().catch(() => ({}))) as { error?: string };
  return new ConnectError(body.error ?? `the server answered ${response.status}`, response.status === 404 ? Code.NotFound : Code.InvalidArgument);
}

const mayPass = (response: Response): boolean => PASSING.has(response.status) || response.status >= 500;

/** Sends a file and returns the id of the upload. `progress` hears how many bytes the server has. */
export async function upload(file: Blob, progress: (sent: number) => void, signal: AbortSignal, base = baseUrl(document.baseURI), world: World = browser): Promise<string> {
  const root = `${base}/datasets/uploads`;
  let failures = 0;
  let contact = world.now();
  /** Waits for another try; throws when there were enough. */
  const again = async (cause: ConnectError): Promise<void> => {
    signal.throwIfAborted();
    if (world.now() - contact > PATIENCE_MS) throw cause;
    failures += 1;
    await world.sleep(Math.min(FIRST_PAUSE_MS * 2 ** (failures - 1), LONGEST_PAUSE_MS), signal);
  };
  /** Asks until an answer comes that is not for the moment only; without `repeat` such an answer is returned too. */
  const ask = async (url: string, init: RequestInit): Promise<Response | undefined> => {
    try {
      const response = await world.fetch(url, { ...init, signal, cache: "no-store" });
      if (response.ok) {
        failures = 0;
        contact = world.now();
        return response;
      }
      if (!mayPass(response)) throw await refusal(response);
      await again(await refusal(response));
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      await again(new ConnectError("the server cannot be reached", Code.Unavailable));
    }
    return undefined;
  };
  const insist = async (url: string, init: RequestInit): Promise<Response> => {
    for (;;) {
      const response = await ask(url, init);
      if (response) return response;
    }
  };
  const begun = await insist(root, { method: "POST", headers: { "upload-length": `${file.size}` } });
  const { upload: id } = (await begun.json()) as { upload: string };
  const own = `${root}/${id}`;
  try {
    let offset = 0;
    while (offset < file.size) {
      progress(offset);
      const sent = await ask(own, {
        method: "PATCH",
        headers: { "upload-offset": `${offset}`, "content-type": "application/offset+octet-stream" },
        body: file.slice(offset, offset + SLICE),
      });
      // After a failure only the server knows how much came.
      const standing = sent ?? (await insist(own, { method: "HEAD" }));
      offset = Number(standing.headers.get("upload-offset") ?? Number.NaN);
      if (Number.isNaN(offset)) throw new ConnectError("the server did not say how far the upload is", Code.Internal);
    }
    progress(offset);
    return id;
  } catch (error) {
    // Else it would lie there until it expires.
    if (signal.aborted) void world.fetch(own, { method: "DELETE" }).catch(() => undefined);
    throw error;
  }
}

/** The address of a dataset's small image; it changes with the dataset, for browsers keep it. */
export function sampleUrl(dataset: Dataset, index: number): string {
  const version = dataset.updateTime ? millis(dataset.updateTime) : 0;
  return `${baseUrl(document.baseURI)}/datasets/${shortName(dataset.name)}/samples/${index}?v=${version}`;
}

/** An id for a dataset from the name of a file, such as `utk-face` of `UTK Face.tar.gz`; empty where none can be made. */
export function idOf(fileName: string): string {
  const stem = fileName.toLowerCase().replace(/\.(zip|tar|tgz|tar\.gz)$/, "");
  return stem.replace(/[^a-z0-9]+/g, "-").replace(/^[^a-z]+|-+$/g, "").slice(0, 63);
}
