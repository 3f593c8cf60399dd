/** Check of a dataset: unusable files, duplicates, leaks between splits, and doubtful labels. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { datasetClient } from "../api/clients";
import { age, count, error, percent, plural, seconds, sentence, span, words } from "../format";
import type { Dataset, DatasetCheck, DuplicateReport, LabelOutliers } from "../gen/visage/v1/dataset_pb";
import { type JobMessage, useJob } from "../ui/job";
import { useLoaded } from "../ui/calls";
import { JobProgressLine } from "../ui/job-progress";
import { FailureBox, Panel, Scroll } from "../ui/parts";
import { Needs } from "../ui/permission";
import { allVersions } from "./versions";

async function* check(signal: AbortSignal, name: string, modelVersion: string): AsyncIterable<JobMessage<DatasetCheck>> {
  for await (const { kind } of datasetClient.checkDataset({ dataset: { name }, modelVersion }, { signal })) {
    if (kind.case === "progress") yield { progress: kind.value };
    if (kind.case === "report") yield { result: kind.value };
  }
}

export function CheckPanel(props: { dataset: Dataset }) {
  const versions = useLoaded(allVersions, []);
  const [version, setVersion] = useState<string | undefined>();
  const job = useJob(check);
  const live = versions.value?.find(({ aliases }) => aliases.includes("live"))?.name ?? "";
  const chosen = version ?? live;
  return (
    <Panel title="Check">
      <p class="muted">Finds unusable files, identical and similar images, the same image in several splits, and labels that contradict a model. It changes nothing.</p>
      <Needs role="trainer">
        <form
          class="upload-fields"
          onSubmit={(event) => {
            event.preventDefault();
            if (!job.isRunning) void job.run(props.dataset.name, chosen);
          }}
        >
          <label class="field-stack">
            Compare labels with
            <select value={chosen} onChange={(event) => setVersion(event.currentTarget.value)}>
              <option value="">No model</option>
              {versions.value?.map(({ name, version: number, aliases }) => (
                <option key={name} value={name}>
                  Version {String(number)}
                  {aliases.length > 0 ? ` (${aliases.join(", ")})` : ""}
                </option>
              ))}
            </select>
          </label>
          <button type="submit" disabled={job.isRunning}>
            Check the dataset
          </button>
        </form>
      </Needs>
      {job.isRunning && <JobProgressLine progress={job.progress} label={`Check of ${props.dataset.name}`} onCancel={job.cancel} />}
      <FailureBox failure={job.failure} />
      {job.result && <Report found={job.result} />}
    </Panel>
  );
}

function Report(props: { found: DatasetCheck }) {
  const { found } = props;
  const { dataset, exact, near, outliers } = found;
  const rejected = dataset?.rejects ?? [];
  return (
    <div class="stack" data-check={found.datasetPath}>
      {dataset && dataset.warnings.length > 0 && (
        <ul class="warnings" aria-label="Warnings of the check">
          {dataset.warnings.map((warning) => (
            <li key={warning}>{sentence(warning)}</li>
          ))}
        </ul>
      )}
      <ul class="plain findings" aria-label="Findings">
        <Finding title="Unusable files" total={rejected.reduce((sum, { count: one }) => sum + one, 0n)} noun="file">
          {rejected.map((reject) => (
            <li key={reject.reason}>
              {count(reject.count)} {words(reject.reason)} <span class="muted wrap">{reject.examples.length > 0 && `such as ${reject.examples.join(", ")}`}</span>
            </li>
          ))}
        </Finding>
        {exact && <Duplicates title="Identical images" found={exact} />}
        {near && <Duplicates title="Similar images" found={near} />}
        {outliers && <Outliers found={outliers} />}
      </ul>
      {found.duration && <p class="muted small-text">Checked in {span(seconds(found.duration))}.</p>}
    </div>
  );
}

function Finding(props: { title: string; total: bigint; noun: string; note?: string; children: ComponentChildren }) {
  const isClean = props.total === 0n;
  return (
    <li>
      <p>
        <span class={`chip ${isClean ? "good" : "warn"}`}>{isClean ? "none" : plural(props.total, props.noun)}</span> <strong>{props.title}</strong> {props.note && <span class="muted">{props.note}</span>}
      </p>
      {!isClean && <ul class="plain details">{props.children}</ul>}
    </li>
  );
}

function Duplicates(props: { title: string; found: DuplicateReport }) {
  const { found } = props;
  const notes = [
    found.straddlingGroups > 0n && `${count(found.straddlingGroups)} across splits: their images are trained on and tested`,
    found.conflictingGroups > 0n && `${count(found.conflictingGroups)} with different ages`,
  ].filter((note) => note !== false);
  return (
    <Finding title={props.title} total={found.groups} noun="group" note={notes.join("; ")}>
      {found.listed.map((group, index) => (
        <li key={index} class="wrap">
          {group.straddles && <span class="chip bad">across splits</span>} {group.conflicts && <span class="chip warn">different ages</span>}{" "}
          {group.images.map(({ file, split, age: years }) => `${file} (${split}, ${years})`).join(", ")}
          {group.size > BigInt(group.images.length) && ` and ${count(group.size - BigInt(group.images.length))} more`}
        </li>
      ))}
      {found.groups > BigInt(found.listed.length) && <li class="muted">and {plural(found.groups - BigInt(found.listed.length), "group")} more</li>}
    </Finding>
  );
}

function Outliers(props: { found: LabelOutliers }) {
  const { found } = props;
  const expected = Math.round((1 - found.level) * Number(found.images));
  return (
    <Finding title="Doubtful labels" total={found.outside} noun="image" note={`outside the ${percent(found.level)} interval; about ${expected} ${expected === 1 ? "is" : "are"} expected if every label is correct`}>
      <li>
        <Scroll label="Doubtful labels">
          <table>
            <thead>
              <tr>
                <th scope="col">File</th>
                <th scope="col">Split</th>
                <th scope="col" class="right">Label</th>
                <th scope="col" class="right">Predicted</th>
                <th scope="col" class="right">Interval</th>
              </tr>
            </thead>
            <tbody>
              {found.listed.map((one) => (
                <tr key={one.file}>
                  <th scope="row" class="wrap">{one.file}</th>
                  <td>{one.split}</td>
                  <td class="right">{one.age}</td>
                  <td class="right">{error(one.predicted)}</td>
                  <td class="right number">
                    {age(one.lower)} to {age(one.upper)}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      </li>
    </Finding>
  );
}
