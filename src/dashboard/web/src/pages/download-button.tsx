import { download } from "../api/download";
import type { CheckpointFile } from "../gen/visage/v1/training_pb";
import { bytes, percent } from "../format";
import { useState } from "preact/hooks";
import { useAction } from "../ui/calls";
import { BusyButton, FailureBox } from "../ui/parts";

/** Files of use outside of the server: without the hashes of the training images. */
export function exported(files: CheckpointFile[]): CheckpointFile[] {
  return files.filter(({ name }) => !name.endsWith(".bin"));
}

export function DownloadButton(props: { file: CheckpointFile; saveAs: string; open: () => Parameters<typeof download>[0] }) {
  const { file } = props;
  const [share, setShare] = useState(0);
  const action = useAction(async () => {
    setShare(0);
    await download(props.open(), props.saveAs, setShare);
  });
  return (
    <span class="download">
      <BusyButton class="small" isBusy={action.isRunning} busyText={`${percent(share)} of ${bytes(file.sizeBytes)}`} title={`SHA-256 ${file.sha256}`} onClick={() => void action.run()}>
        <span class="unseen">Download </span>
        {file.name} <span class="muted">{bytes(file.sizeBytes)}</span>
      </BusyButton>
      <FailureBox failure={action.failure} />
    </span>
  );
}
