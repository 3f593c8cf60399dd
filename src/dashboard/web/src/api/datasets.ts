/** Resumable uploads of archives, and addresses of sample images. */
import { Code, ConnectError } from "@connectrpc/connect";
import type { Dataset } from "../gen/visage/v1/dataset_pb";
import { millis, shortName } from "../format";
import { baseUrl } from "./base";
import { pass, reportError } from "./gate";

/** Size of a request in bytes; the server has stored it durably when it responds. */
const SLICE = 8 << 20;
/** Time without a response after which an upload fails. */
const TIMEOUT_MS = 300_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
/** Retryable responses: busy, a concurrent write, a wrong offset, or a server that shuts down. */
const PASSING: ReadonlySet<number> = new Set([408, 409, 423, 429]);

/** Environment of an upload; replaced in tests. */
export interface Environment {
  fetch: (url: string, init: RequestInit) => Promise<Response>;
  sleep: (milliseconds: number, signal: AbortSignal) => Promise<void>;
  now: () => number;
}

const browser: Environment = {
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

const CODES: Readonly<Record<number, Code>> = { 401: Code.Unauthenticated, 403: Code.PermissionDenied, 404: Code.NotFound };

/** Error of a response that is not retried. */
async function refusal(response: Response): Promise<ConnectError> {
  const body = (await response.json().catch(() => ({}))) as { error?: string };
  const error = new ConnectError(body.error ?? `the server responded with status ${response.status}`, CODES[response.status] ?? Code.InvalidArgument);
  reportError(error);
  return error;
}

const mayPass = (response: Response): boolean => PASSING.has(response.status) || response.status >= 500;

/**
 * Uploads a file and returns the id of the upload. `progress` receives the number of bytes that the
 * server has stored.
 */
export async function upload(file: Blob, progress: (sent: number) => void, signal: AbortSignal, base = baseUrl(document.baseURI), environment: Environment = browser): Promise<string> {
  const root = `${base}/datasets/uploads`;
  let failures = 0;
  let contact = environment.now();
  /** Waits before a retry; throws after the timeout. */
  const again = async (cause: ConnectError): Promise<void> => {
    signal.throwIfAborted();
    if (environment.now() - contact > TIMEOUT_MS) throw cause;
    failures += 1;
    await environment.sleep(Math.min(FIRST_PAUSE_MS * 2 ** (failures - 1), LONGEST_PAUSE_MS), signal);
  };
  /** Sends a request; returns undefined after a retryable failure. */
  const attempt = async (url: string, init: RequestInit): Promise<Response | undefined> => {
    try {
      pass();
      const response = await environment.fetch(url, { ...init, signal, cache: "no-store" });
      if (response.ok) {
        failures = 0;
        contact = environment.now();
        return response;
      }
      if (!mayPass(response)) throw await refusal(response);
      await again(await refusal(response));
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      await again(new ConnectError("the server is unreachable", Code.Unavailable));
    }
    return undefined;
  };
  const retry = async (url: string, init: RequestInit): Promise<Response> => {
    for (;;) {
      const response = await attempt(url, init);
      if (response) return response;
    }
  };
  const created = await retry(root, { method: "POST", headers: { "upload-length": `${file.size}` } });
  const { upload: id } = (await created.json()) as { upload: string };
  const own = `${root}/${id}`;
  try {
    let offset = 0;
    while (offset < file.size) {
      progress(offset);
      const sent = await attempt(own, {
        method: "PATCH",
        headers: { "upload-offset": `${offset}`, "content-type": "application/offset+octet-stream" },
        body: file.slice(offset, offset + SLICE),
      });
      // After a failure only the server knows how many bytes it has received.
      const stored = sent ?? (await retry(own, { method: "HEAD" }));
      offset = Number(stored.headers.get("upload-offset") ?? Number.NaN);
      if (Number.isNaN(offset)) throw new ConnectError("the response has no upload-offset", Code.Internal);
    }
    progress(offset);
    return id;
  } catch (error) {
    // Otherwise the upload would remain until it expires.
    if (signal.aborted) void environment.fetch(own, { method: "DELETE" }).catch(() => undefined);
    throw error;
  }
}

/** Address of a sample image; changes with the dataset, because browsers cache it. */
export function sampleUrl(dataset: Dataset, index: number): string {
  const version = dataset.updateTime ? millis(dataset.updateTime) : 0;
  return `${baseUrl(document.baseURI)}/datasets/${shortName(dataset.name)}/samples/${index}?v=${version}`;
}

/**
 * Dataset id derived from a file name, such as `utk-face` from `UTK Face.tar.gz`; empty if
 * impossible.
 */
export function idOf(fileName: string): string {
  const stem = fileName.toLowerCase().replace(/\.(zip|tar|tgz|tar\.gz)$/, "");
  return stem.replace(/[^a-z0-9]+/g, "-").replace(/^[^a-z]+|-+$/g, "").slice(0, 63);
}
