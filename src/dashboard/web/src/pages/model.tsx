/** Page of one model version. */
import { Code } from "@connectrpc/connect";
import { useState } from "preact/hooks";
import { brief, modelClient } from "../api/clients";
import { bytes, count, error, exactMoment } from "../format";
import { useLoaded } from "../ui/calls";
import { Crumbs, Empty, FailureBox, Facts, Loading, PageHead, Panel } from "../ui/parts";
import { Lacks, Needs } from "../ui/permission";
import { href } from "../ui/router";
import { DownloadButton, exported } from "./download-button";
import { EvaluationTables } from "./evaluation";
import { SpecList } from "./spec-list";
import { Aliases } from "./version-aliases";
import { DeleteVersionDialog } from "./version-delete";
import { EvaluatePanel } from "./version-evaluate";
import { LIVE, allVersions, holder, originText, sizeOf, trainingOf, versionName, versionsMade } from "./versions";

export function ModelPage(props: { id: string }) {
  const versions = useLoaded(allVersions, [versionsMade()]);
  const live = holder(versions.value, LIVE);
  const version = versions.value?.find((one) => String(one.version) === props.id || one.aliases.includes(props.id));
  const evaluation = useLoaded(
    async (signal) => {
      try {
        return { found: (await modelClient.getEvaluation({ name: versionName(props.id) }, { ...brief, signal })).evaluation };
      } catch (error) {
        // A missing evaluation is not an error.
        if ((error as { code?: Code }).code === Code.NotFound) return { found: undefined };
        throw error;
      }
    },
    [props.id],
  );
  const [isDeleting, setDeleting] = useState(false);
  const head = <Crumbs list="models" listName="Models" name={`Version ${version?.version ?? props.id}`} />;
  if (!version) {
    return (
      <>
        {head}
        <PageHead title={`Version ${props.id}`} />
        <FailureBox failure={versions.failure} retry={versions.again} />
        {versions.isLoading && !versions.failure && <Loading what="the version" />}
        {versions.value && (
          <Empty title="Version not found">
            <p>
              <a href={href("models")}>All versions</a>
            </p>
          </Empty>
        )}
      </>
    );
  }
  const training = trainingOf(version);
  const { metrics } = version;
  return (
    <>
      {head}
      <PageHead title={`Version ${version.version}`} lead={<code>{version.name}</code>}>
        <Needs role="predictor" hide>
          <a class="button" href={href("predict", "", { model: String(version.version) })}>
            Predict with it
          </a>
        </Needs>
        <Needs role="trainer" hide>
          <a class="button" href={href("start", "", { version: version.name })}>
            Train from it
          </a>
        </Needs>
        <Needs role="admin">
          <button type="button" class="danger" onClick={() => setDeleting(true)}>
            Delete…
          </button>
        </Needs>
      </PageHead>
      <Panel title="Aliases">
        <Aliases version={version} live={live} onChange={versions.again} />
        <Lacks role="deployer" what="Changes of aliases need" />
      </Panel>
      <Panel title="Details">
        <Facts
          items={[
            ["Created", exactMoment(version.createTime)],
            ["Source", training ? <a href={href("trainings", training)}>training {training}, epoch {version.checkpoint.split("/").at(-1)}</a> : originText(version)],
            ["Input", `${version.inputSize} × ${version.inputSize} pixels`],
            ["Validation MAE", metrics && `${error(metrics.valMae)} years`],
            ["Validation RMSE", metrics && `${error(metrics.valRmse)} years`],
            ["Validation loss", metrics && `${error(metrics.valLoss)} squared years`],
            ["Validation images", metrics && count(metrics.valImages)],
            ["Size", bytes(sizeOf(version))],
            ["Dataset", version.datasetDigest && <code title={version.datasetDigest}>{version.datasetDigest.slice(0, 16)}…</code>],
          ]}
        />
      </Panel>
      <Panel title="Export">
        <p class="muted">
          <code>model.safetensors</code> has the weights with torchvision's names, <code>manifest.json</code> the input and the settings. For other formats:{" "}
          <code class="wrap">visage models export {String(version.version)} --format onnx</code>
        </p>
        <div class="actions">
          <Needs role="trainer">
            {exported(version.files).map((file) => (
              <DownloadButton
                key={file.name}
                file={file}
                saveAs={`age-${version.version}-${file.name}`}
                open={() => modelClient.downloadModelFile({ name: version.name, file: file.name })}
              />
            ))}
          </Needs>
        </div>
      </Panel>
      <Panel title="Evaluation on the test images of the training">
        <FailureBox failure={evaluation.failure} retry={evaluation.again} />
        {!evaluation.value && !evaluation.failure && <Loading what="the evaluation" />}
        {evaluation.value && !evaluation.value.found && (
          <p class="muted">
            No evaluation is stored: the training had no test images. Evaluate the version on a dataset below.
          </p>
        )}
        {evaluation.value?.found && <EvaluationTables evaluation={evaluation.value.found} />}
      </Panel>
      <EvaluatePanel version={version} />
      {version.spec && (
        <Panel title="Settings of the training">
          <details>
            <summary>All values</summary>
            <SpecList resolved={version.spec} />
          </details>
        </Panel>
      )}
      {isDeleting && <DeleteVersionDialog version={version} onClose={() => setDeleting(false)} />}
    </>
  );
}
