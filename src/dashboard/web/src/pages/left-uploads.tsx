/** Uploads that no dataset has used, which occupy disk space until they expire. */
import { Code } from "@connectrpc/connect";
import { brief, datasetClient } from "../api/clients";
import { bytes, exactMoment, moment } from "../format";
import type { Upload } from "../gen/visage/v1/dataset_pb";
import { current, made } from "../live/upload";
import { useAction, useLoaded } from "../ui/calls";
import { notify } from "../ui/notices";
import { BusyButton, FailureBox, Panel, Scroll } from "../ui/parts";
import { Needs } from "../ui/permission";

export function LeftUploads() {
  const isSending = current.value?.kind === "sending";
  const list = useLoaded(async (signal) => (await datasetClient.listUploads({}, { ...brief, signal })).uploads, [made.value, isSending]);
  const remove = useAction(async ({ upload, receivedBytes }: Upload) => {
    await datasetClient.deleteUpload({ upload }, brief);
    notify(`Deleted an upload of ${bytes(receivedBytes)}.`);
    list.again();
  });
  // The upload of this page is shown with its progress.
  if (isSending || list.failure?.code === Code.Unimplemented) return null;
  if (list.value?.length === 0 || (!list.value && !list.failure)) return null;
  return (
    <Panel title="Unfinished uploads">
      <FailureBox failure={list.failure} retry={list.again} />
      <FailureBox failure={remove.failure} />
      <Scroll label="Unfinished uploads">
        <table>
          <thead>
            <tr>
              <th scope="col">Upload</th>
              <th scope="col" class="right">Received</th>
              <th scope="col">Last received</th>
              <th scope="col">Deleted automatically</th>
              <th scope="col"><span class="unseen">Action</span></th>
            </tr>
          </thead>
          <tbody>
            {list.value?.map((one) => (
              <tr key={one.upload}>
                <th scope="row">
                  <code>{one.upload}</code>
                </th>
                <td class="right number">
                  {bytes(one.receivedBytes)} of {bytes(one.sizeBytes)}
                </td>
                <td class="number">{exactMoment(one.updateTime)}</td>
                <td class="number">{moment(one.expireTime)}</td>
                <td class="right">
                  <Needs role="admin" hide>
                    <BusyButton class="small" isBusy={remove.isRunning} onClick={() => void remove.run(one)}>
                      Delete <span class="unseen">upload {one.upload}</span>
                    </BusyButton>
                  </Needs>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Panel>
  );
}
