/** Dialog that deletes a model version. */
import { brief, modelClient } from "../api/clients";
import { bytes } from "../format";
import type { ModelVersion } from "../gen/visage/v1/model_pb";
import { useAction } from "../ui/calls";
import { Dialog } from "../ui/dialog";
import { notify } from "../ui/notices";
import { BusyButton, FailureBox } from "../ui/parts";
import { go, href } from "../ui/router";
import { sizeOf } from "./versions";

export function DeleteVersionDialog(props: { version: ModelVersion; onClose: () => void }) {
  const { version } = props;
  const isUsed = version.aliases.length > 0;
  const remove = useAction(async () => {
    const { freedBytes } = await modelClient.deleteModelVersion({ name: version.name }, brief);
    notify(`Deleted version ${version.version}; ${bytes(freedBytes)} became free.`);
    go(href("models"));
  });
  return (
    <Dialog title={`Delete version ${version.version}?`} onClose={props.onClose}>
      {isUsed ? (
        <p>
          The {version.aliases.length === 1 ? "alias" : "aliases"} {version.aliases.join(", ")} {version.aliases.length === 1 ? "points" : "point"} to it. Point {version.aliases.length === 1 ? "it" : "them"} to
          another version first: promote another version, or remove the alias.
        </p>
      ) : (
        <p>Its files, {bytes(sizeOf(version))}, are deleted permanently unless its training still has them. Its number is not used again.</p>
      )}
      <FailureBox failure={remove.failure} />
      <div class="actions">
        <button type="button" onClick={props.onClose}>
          Cancel
        </button>
        <BusyButton class="danger solid" isBusy={remove.isRunning} disabled={isUsed} onClick={() => void remove.run()}>
          Delete the version
        </BusyButton>
      </div>
    </Dialog>
  );
}
