/** Hooks for calls: result, error and retry. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { type Failure, failureOf, isAbort } from "../api/errors";
import { logins } from "../live/session";

/** A call that is made on mount. */
export interface Loaded<Value> {
  /** Latest result; kept during a retry. */
  value: Value | undefined;
  failure: Failure | undefined;
  isLoading: boolean;
  again: () => void;
}

/** Calls on mount, after a login, and whenever `inputs` change; outdated results are dropped. */
export function useLoaded<Value>(call: (signal: AbortSignal) => Promise<Value>, inputs: unknown[]): Loaded<Value> {
  const [state, setState] = useState<{ value?: Value; failure?: Failure; isLoading: boolean }>({ isLoading: true });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    setState((before) => ({ ...before, isLoading: true }));
    call(abort.signal).then(
      (value) => {
        if (!abort.signal.aborted) setState({ value, isLoading: false });
      },
      (error: unknown) => {
        if (!abort.signal.aborted && !isAbort(error)) setState((before) => ({ ...before, failure: failureOf(error), isLoading: false }));
      },
    );
    return () => abort.abort();
  }, [...inputs, turn, logins.value]);
  const again = useCallback(() => setTurn((before) => before + 1), []);
  return { value: state.value, failure: state.failure, isLoading: state.isLoading, again };
}

/** A call that is made by a user action. */
export interface Action<Inputs extends unknown[]> {
  run: (...inputs: Inputs) => Promise<boolean>;
  failure: Failure | undefined;
  isRunning: boolean;
  clear: () => void;
}

/** Calls on demand; `run` resolves to true on success. */
export function useAction<Inputs extends unknown[]>(call: (...inputs: Inputs) => Promise<void>): Action<Inputs> {
  const [failure, setFailure] = useState<Failure | undefined>();
  const [isRunning, setRunning] = useState(false);
  const latest = useRef(call);
  latest.current = call;
  const run = useCallback(async (...inputs: Inputs) => {
    setRunning(true);
    setFailure(undefined);
    try {
      await latest.current(...inputs);
      return true;
    } catch (error) {
      if (!isAbort(error)) setFailure(failureOf(error));
      return false;
    } finally {
      setRunning(false);
    }
  }, []);
  const clear = useCallback(() => setFailure(undefined), []);
  // The failure was the missing session.
  useEffect(clear, [logins.value]);
  return { run, failure, isRunning, clear };
}
