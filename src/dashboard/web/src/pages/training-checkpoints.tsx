/** Stored checkpoints of a training. */
import { brief, modelClient, trainingClient } from "../api/clients";
import { error, exactMoment, shortName } from "../format";
import type { Checkpoint } from "../gen/visage/v1/training_pb";
import { isFinal } from "../live/fold";
import { type View, refreshSoon } from "../live/store";
import { useAction, useLoaded } from "../ui/calls";
import { notify } from "../ui/notices";
import { BusyButton, FailureBox, Loading, Panel, Scroll } from "../ui/parts";
import { Lacks, Needs } from "../ui/permission";
import { go, href } from "../ui/router";
import { DownloadButton, exported } from "./download-button";

export function Checkpoints({ view }: { view: View }) {
  const saved = view.log.checkpoints.length;
  const list = useLoaded(
    async (signal) => (await trainingClient.listCheckpoints({ parent: view.name, pageSize: 1000 }, { ...brief, signal })).checkpoints,
    [view.name, saved, view.log.best?.epoch, view.state],
  );
  const register = useAction(async (checkpoint: Checkpoint) => {
    const { version } = await modelClient.registerVersion({ checkpoint: checkpoint.name }, brief);
    if (!version) return;
    notify(`Created version ${version.version}.`);
    refreshSoon();
    go(href("models", String(version.version)));
  });
  // A training without an epoch has no checkpoints to wait for.
  if (isFinal(view.state) && list.value?.length === 0) return null;
  return (
    <Panel title="Checkpoints">
      <FailureBox failure={list.failure} retry={list.again} />
      <FailureBox failure={register.failure} />
      {!list.value && !list.failure && <Loading what="checkpoints" />}
      {list.value?.length === 0 && <p class="muted">No checkpoints yet; one is stored after each epoch that improves on the best.</p>}
      {list.value && list.value.length > 0 && <Lacks role="trainer" what="Downloads and new versions need" />}
      {list.value && list.value.length > 0 && (
        <Scroll label="Checkpoints">
          <table>
            <thead>
              <tr>
                <th scope="col">Epoch</th>
                <th scope="col" class="right">Validation MAE</th>
                <th scope="col" class="right">Validation loss</th>
                <th scope="col">Stored</th>
                <th scope="col">Files</th>
              </tr>
            </thead>
            <tbody>
              {list.value.map((checkpoint) => (
                <tr key={checkpoint.name}>
                  <th scope="row">
                    {checkpoint.epoch} {checkpoint.best && <span class="chip good">best</span>}
                  </th>
                  <td class="right">{error(checkpoint.valMae)}</td>
                  <td class="right">{error(checkpoint.valLoss)}</td>
                  <td class="number">{exactMoment(checkpoint.createTime)}</td>
                  <td class="actions">
                    <Needs role="trainer" hide>
                      {exported(checkpoint.files).map((file) => (
                        <DownloadButton
                          key={file.name}
                          file={file}
                          saveAs={`${shortName(view.name)}-epoch${checkpoint.epoch}-${file.name}`}
                          open={() => trainingClient.downloadCheckpoint({ name: checkpoint.name, file: file.name })}
                        />
                      ))}
                      {isFinal(view.state) && view.modelVersion === "" && (
                        <BusyButton class="small" isBusy={register.isRunning} onClick={() => void register.run(checkpoint)}>
                          Create a version <span class="unseen">from epoch {checkpoint.epoch}</span>
                        </BusyButton>
                      )}
                    </Needs>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </Panel>
  );
}

