/** Choice of labelled images: a named dataset or a path on the server. */
import { useId } from "preact/hooks";
import { plural, shortName } from "../format";
import { DatasetState } from "../gen/visage/v1/dataset_pb";
import { useLoaded } from "../ui/calls";
import { allDatasets } from "./dataset-parts";

/** Selected images; both are empty before a choice. */
export interface DatasetChoice {
  name: string;
  path: string;
}

export function DatasetInput(props: { value: DatasetChoice; wrong?: string | undefined; onChange: (value: DatasetChoice) => void }) {
  const id = useId();
  const datasets = useLoaded(allDatasets, []);
  const { value, wrong } = props;
  const ready = (datasets.value ?? []).filter(({ state }) => state === DatasetState.READY);
  return (
    <>
      <label class="field-stack" for={`${id}-name`}>
        Dataset
        <select id={`${id}-name`} value={value.name} onChange={(event) => props.onChange({ name: event.currentTarget.value, path: "" })}>
          <option value="">A directory on the server…</option>
          {ready.map((one) => (
            <option key={one.name} value={one.name}>
              {one.displayName || shortName(one.name)} ({plural(one.images, "image")})
            </option>
          ))}
        </select>
      </label>
      {value.name === "" && (
        <label class="field-stack wide" for={`${id}-path`}>
          Directory or manifest
          <input
            id={`${id}-path`}
            type="text"
            autocomplete="off"
            spellcheck={false}
            value={value.path}
            aria-invalid={wrong !== undefined}
            aria-describedby={wrong === undefined ? undefined : `${id}-wrong`}
            onInput={(event) => props.onChange({ name: "", path: event.currentTarget.value })}
          />
        </label>
      )}
      {wrong !== undefined && (
        <p class="wrong" id={`${id}-wrong`}>
          {wrong}
        </p>
      )}
    </>
  );
}
