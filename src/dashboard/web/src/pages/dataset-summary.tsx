/** Summary of a dataset. */
import { count, error, sentence, span, words } from "../format";
import type { DatasetReport } from "../gen/visage/v1/training_pb";
import { LeftOut } from "./left-out";
import { Facts, Name, Scroll } from "../ui/parts";

export function DatasetSummary(props: { report: DatasetReport; path?: string | undefined }) {
  const { report } = props;
  const most = Math.max(...report.splits.map(({ images }) => Number(images)), 1);
  return (
    <>
      {report.warnings.length > 0 && (
        <ul class="warnings" aria-label="Warnings about the dataset">
          {report.warnings.map((warning) => (
            <li key={warning}>{sentence(warning)}</li>
          ))}
        </ul>
      )}
      <Scroll label="Splits of the dataset">
        <table>
          <thead>
            <tr>
              <th scope="col">Split</th>
              <th scope="col" class="right">Images</th>
              <th scope="col" class="bar-cell"><span class="unseen">Share</span></th>
              <th scope="col" class="right">Mean age</th>
              <th scope="col" class="right">Standard deviation</th>
              <th scope="col" class="right">Ages</th>
            </tr>
          </thead>
          <tbody>
            {report.splits.map((split) => (
              <tr key={split.split}>
                <th scope="row">{split.split === "train" ? "Training" : sentence(split.split)}</th>
                <td class="right">{count(split.images)}</td>
                <td class="bar-cell" aria-hidden="true">
                  <div class="bar" style={{ width: `${(Number(split.images) / most) * 100}%` }} />
                </td>
                <td class="right">{split.images > 0n ? error(split.ageMean) : ""}</td>
                <td class="right">{split.images > 0n ? error(split.ageSd) : ""}</td>
                <td class="right number">{split.images > 0n ? `${split.ageMin} to ${split.ageMax}` : ""}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {report.rejects.length > 0 && (
        <ul class="plain" aria-label="Rejected files">
          {report.rejects.map((reject) => (
            <li key={reject.reason}>
              {count(reject.count)} rejected: {words(reject.reason)} <span class="muted wrap">{reject.examples.length > 0 && `such as ${reject.examples.join(", ")}`}</span>
            </li>
          ))}
        </ul>
      )}
      <LeftOut columns={report.leftOutColumns} />
      <Facts
        items={[
          ["Path", props.path && <Name text={props.path} />, "wide"],
          ["Groups of identical images", report.duplicateGroups > 0n && `${count(report.duplicateGroups)}, ${count(report.straddlingGroups)} of them across splits`],
          ["Scanned in", span(report.scanSeconds)],
          ["Digest", report.digest && <code title={report.digest}>{report.digest.slice(0, 16)}…</code>],
        ]}
      />
    </>
  );
}
