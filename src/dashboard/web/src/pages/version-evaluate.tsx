/** Evaluation of a version on a dataset. */
import { useState } from "preact/hooks";
import { modelClient } from "../api/clients";
import { plural, sentence, words } from "../format";
import { DatasetSplit, type EvaluationReport, type ModelVersion } from "../gen/visage/v1/model_pb";
import { type JobMessage, useJob } from "../ui/job";
import { JobProgressLine } from "../ui/job-progress";
import { FailureBox, Panel } from "../ui/parts";
import { Needs } from "../ui/permission";
import { type DatasetChoice, DatasetInput } from "./dataset-input";
import { EvaluationTables } from "./evaluation";

const SPLITS: [DatasetSplit, string][] = [
  [DatasetSplit.ALL, "All images"],
  [DatasetSplit.TEST, "Test images"],
  [DatasetSplit.VALIDATION, "Validation images"],
  [DatasetSplit.TRAIN, "Training images"],
];

async function* evaluate(signal: AbortSignal, name: string, dataset: DatasetChoice, split: DatasetSplit): AsyncIterable<JobMessage<EvaluationReport>> {
  for await (const { kind } of modelClient.evaluateModelVersion({ name, dataset, split }, { signal })) {
    if (kind.case === "progress") yield { progress: kind.value };
    if (kind.case === "report") yield { result: kind.value };
  }
}

export function EvaluatePanel(props: { version: ModelVersion }) {
  const { version } = props;
  const [dataset, setDataset] = useState<DatasetChoice>({ name: "", path: "" });
  const [split, setSplit] = useState(DatasetSplit.ALL);
  const job = useJob(evaluate);
  const isEmpty = dataset.name === "" && dataset.path.trim() === "";
  const { result } = job;
  // The tables begin with the number of images that were trained on.
  const isCounted = result?.evaluation?.trainedOnImages !== undefined;
  const warnings = (result?.warnings ?? []).filter((warning) => !isCounted || !/ trained on/.test(warning));
  return (
    <Panel title="Evaluate on a dataset">
      <Needs role="trainer">
        <form
          class="upload-fields"
          noValidate
          onSubmit={(event) => {
            event.preventDefault();
            if (!isEmpty && !job.isRunning) void job.run(version.name, dataset, split);
          }}
        >
          <DatasetInput value={dataset} onChange={setDataset} />
          <label class="field-stack">
            Images to evaluate
            <select value={String(split)} onChange={(event) => setSplit(Number(event.currentTarget.value) as DatasetSplit)}>
              {SPLITS.map(([value, text]) => (
                <option key={value} value={String(value)}>
                  {text}
                </option>
              ))}
            </select>
          </label>
          <button type="submit" class="primary" disabled={isEmpty || job.isRunning}>
            Evaluate
          </button>
        </form>
      </Needs>
      {job.isRunning && <JobProgressLine progress={job.progress} label={`Evaluation of version ${version.version}`} onCancel={job.cancel} />}
      <FailureBox failure={job.failure} />
      {result?.evaluation && (
        <div class="stack" data-evaluation={result.datasetPath}>
          <h3>
            {sentence(words(DatasetSplit[result.split] ?? ""))} images of <code class="wrap">{result.datasetPath}</code>
          </h3>
          {(warnings.length > 0 || result.skippedImages > 0n) && (
            <ul class="warnings" aria-label="Warnings about the evaluation">
              {warnings.map((warning) => (
                <li key={warning}>{sentence(warning)}</li>
              ))}
              {result.skippedImages > 0n && <li>{plural(result.skippedImages, "image")} could not be decoded.</li>}
            </ul>
          )}
          <EvaluationTables evaluation={result.evaluation} of={result.datasetPath} />
        </div>
      )}
    </Panel>
  );
}
