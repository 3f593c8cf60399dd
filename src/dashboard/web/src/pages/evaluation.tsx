/** Tables of an evaluation. */
import { age, count, error, percent, signed } from "../format";
import { BaselineSource, type Evaluation } from "../gen/visage/v1/training_pb";
import { trainedOnText } from "../live/trained-on";
import { LeftOut } from "./left-out";
import { Facts, Scroll } from "../ui/parts";

/** `of` distinguishes the tables of several evaluations on a page for screen readers. */
export function EvaluationTables(props: { evaluation: Evaluation; of?: string }) {
  const { evaluation: found } = props;
  const suffix = props.of ? ` of ${props.of}` : "";
  const keys = [...new Set(found.groups.map(({ key }) => key))];
  const most = Math.max(...found.groups.map(({ mae }) => mae), 1e-9);
  const baseline = found.baselineSource === BaselineSource.DATASET_MEAN ? "mean age of these images" : "mean training age";
  const trained = trainedOnText(found);
  return (
    <>
      <p class={trained.isWarning ? "warnings" : "muted"}>{trained.text}</p>
      <Facts
        items={[
          ["Images", count(found.images)],
          ["MAE", `${error(found.mae)} years`],
          ["RMSE", `${error(found.rmse)} years`],
          ["Bias", `${signed(found.bias)} years`],
          ["R²", found.r2 === undefined ? "" : error(found.r2)],
          ["Within 3, 5, 10 years", `${percent(found.cs3)}, ${percent(found.cs5)}, ${percent(found.cs10)}`],
          [found.baselineAge > 0 ? `Always guessing ${age(found.baselineAge)}, the ${baseline}` : `Always guessing the ${baseline}`, found.baselineMae > 0 && `MAE ${error(found.baselineMae)} years`],
          [
            "Interval",
            found.intervalCoverage && `covers ${percent(found.intervalCoverage.coverage, 1)} of true ages (nominal: ${percent(found.intervalCoverage.level)}), ${age(found.intervalCoverage.meanWidth)} years wide`,
          ],
          ["Worst group", found.worstGroup && `${found.worstGroup.key} ${found.worstGroup.value}: MAE ${error(found.worstGroup.mae)} years`],
        ]}
      />
      {keys.map((key) => (
        <Scroll key={key} label={`By ${key}${suffix}`}>
          <table>
            <thead>
              <tr>
                <th scope="col">By {key}</th>
                <th scope="col" class="right">Images</th>
                <th scope="col" class="right">MAE</th>
                <th scope="col" class="bar-cell"><span class="unseen">As a bar</span></th>
                <th scope="col" class="right">Bias</th>
              </tr>
            </thead>
            <tbody>
              {found.groups
                .filter((group) => group.key === key)
                .map((group) => (
                  <tr key={group.value}>
                    <th scope="row">{group.value}</th>
                    <td class="right">{count(group.images)}</td>
                    <td class="right">{error(group.mae)}</td>
                    <td class="bar-cell" aria-hidden="true">
                      <div class="bar" style={{ width: `${(group.mae / most) * 100}%` }} />
                    </td>
                    <td class="right">{signed(group.bias)}</td>
                  </tr>
                ))}
            </tbody>
          </table>
        </Scroll>
      ))}
      <LeftOut columns={found.leftOutColumns} />
      {found.worstPredictions.length > 0 && (
        <details>
          <summary>{found.worstPredictions.length === 1 ? "The image with the largest error" : `The ${found.worstPredictions.length} images with the largest errors`}</summary>
          <Scroll label={`Images with the largest error${suffix}`}>
            <table>
              <thead>
                <tr>
                  <th scope="col">File</th>
                  <th scope="col" class="right">Age, years</th>
                  <th scope="col" class="right">Predicted</th>
                  <th scope="col" class="right">Error</th>
                </tr>
              </thead>
              <tbody>
                {found.worstPredictions.map((one) => (
                  <tr key={one.file}>
                    <th scope="row" class="wrap">{one.file}</th>
                    <td class="right">{age(one.age)}</td>
                    <td class="right">{error(one.predicted)}</td>
                    <td class="right">{signed(one.error)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
        </details>
      )}
    </>
  );
}
