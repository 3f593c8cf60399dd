/** A streamed job of the server, such as an evaluation: progress, then one result. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { type Failure, failureOf, isAbort } from "../api/errors";

/** Progress of the current phase; `total` is 0 while it is unknown. */
export interface JobProgress {
  phase: string;
  done: bigint;
  total: bigint;
}

/** Message of a stream. */
export type JobMessage<Result> = { progress: JobProgress } | { result: Result } | undefined;

export interface Job<Inputs extends unknown[], Result> {
  run: (...inputs: Inputs) => Promise<void>;
  cancel: () => void;
  isRunning: boolean;
  progress: JobProgress | undefined;
  result: Result | undefined;
  failure: Failure | undefined;
}

/** Runs a job on demand; it is cancelled on unmount, because the server then stops it. */
export function useJob<Inputs extends unknown[], Result>(open: (signal: AbortSignal, ...inputs: Inputs) => AsyncIterable<JobMessage<Result>>): Job<Inputs, Result> {
  const [state, setState] = useState<Omit<Job<Inputs, Result>, "run" | "cancel">>({ isRunning: false, progress: undefined, result: undefined, failure: undefined });
  const abort = useRef<AbortController | undefined>(undefined);
  const latest = useRef(open);
  latest.current = open;
  useEffect(() => () => abort.current?.abort(), []);
  const run = useCallback(async (...inputs: Inputs) => {
    abort.current?.abort();
    const own = new AbortController();
    abort.current = own;
    setState((before) => ({ ...before, isRunning: true, progress: undefined, failure: undefined }));
    try {
      let result: Result | undefined;
      for await (const message of latest.current(own.signal, ...inputs)) {
        if (!message) continue;
        if ("progress" in message) setState((before) => ({ ...before, progress: message.progress }));
        else result = message.result;
      }
      setState({ isRunning: false, progress: undefined, result, failure: undefined });
    } catch (error) {
      if (own.signal.aborted && abort.current !== own) return;
      const failure = isAbort(error) || own.signal.aborted ? undefined : failureOf(error);
      setState((before) => ({ ...before, isRunning: false, progress: undefined, failure }));
    }
  }, []);
  const cancel = useCallback(() => abort.current?.abort(), []);
  return { ...state, run, cancel };
}
