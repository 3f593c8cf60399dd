/** Aliases of a version, and the dialogs that change them. */
import { useId, useState } from "preact/hooks";
import { brief, modelClient } from "../api/clients";
import { error } from "../format";
import type { ModelVersion } from "../gen/visage/v1/model_pb";
import { may } from "../live/session";
import { useAction } from "../ui/calls";
import { Dialog } from "../ui/dialog";
import { notify } from "../ui/notices";
import { BusyButton, FailureBox, Facts } from "../ui/parts";
import { Needs } from "../ui/permission";
import { LIVE, MODEL, PREVIOUS } from "./versions";

/** Aliases of a version with their actions. */
export function Aliases(props: { version: ModelVersion; live: ModelVersion | undefined; onChange: () => void }) {
  const { version, live } = props;
  const [question, setQuestion] = useState<"promote" | "alias" | undefined>();
  const remove = useAction(async (alias: string) => {
    await modelClient.deleteAlias({ parent: MODEL, alias }, brief);
    notify(`Removed the alias ${alias}.`);
    props.onChange();
  });
  const close = (): void => setQuestion(undefined);
  return (
    <div class="aliases">
      <ul class="plain chips" aria-label={`Aliases of version ${version.version}`}>
        {version.aliases.map((alias) => (
          <li key={alias} class={`chip ${alias === LIVE ? "good" : "quiet"}`}>
            {alias}
            {alias !== LIVE && alias !== PREVIOUS && may("deployer") && (
              <button type="button" class="chip-button" aria-label={`Remove the alias ${alias}`} onClick={() => void remove.run(alias)}>
                ×
              </button>
            )}
          </li>
        ))}
      </ul>
      <Needs role="deployer" hide>
        <div class="actions">
          {version.name !== live?.name && (
            <button type="button" class="small" onClick={() => setQuestion("promote")}>
              Promote… <span class="unseen">version {String(version.version)}</span>
            </button>
          )}
          <button type="button" class="small" onClick={() => setQuestion("alias")}>
            Add alias… <span class="unseen">to version {String(version.version)}</span>
          </button>
        </div>
      </Needs>
      <FailureBox failure={remove.failure} />
      {question === "promote" && <PromoteDialog version={version} live={live} onClose={close} onDone={props.onChange} />}
      {question === "alias" && <AliasDialog version={version} onClose={close} onDone={props.onChange} />}
    </div>
  );
}

export function PromoteDialog(props: { version: ModelVersion; live: ModelVersion | undefined; onClose: () => void; onDone: () => void }) {
  const { version, live } = props;
  const promote = useAction(async () => {
    await modelClient.setAlias({ name: version.name, alias: LIVE, expectedVersion: live?.version ?? 0n }, brief);
    notify(`Version ${version.version} is live.`);
    props.onClose();
    props.onDone();
  });
  return (
    <Dialog title={`Make version ${version.version} live?`} onClose={props.onClose}>
      <p>
        It is loaded and warmed up first; then Predict uses it for every request that does not name a version.
        {live && ` Version ${live.version} becomes “previous”, so that you can roll back to it.`}
      </p>
      {live && (
        <Facts
          items={[
            [`MAE of version ${live.version}`, `${error(live.metrics?.valMae)} years`],
            [`MAE of version ${version.version}`, `${error(version.metrics?.valMae)} years`],
            ["Validated on", live.valDigest === version.valDigest ? "the same images" : "different images, so the errors are not comparable", "wide"],
          ]}
        />
      )}
      <FailureBox failure={promote.failure} />
      <div class="actions">
        <button type="button" onClick={props.onClose}>
          Cancel
        </button>
        <BusyButton isBusy={promote.isRunning} busyText="Loading the version…" class="primary" onClick={() => void promote.run()}>
          Make it live
        </BusyButton>
      </div>
    </Dialog>
  );
}

function AliasDialog(props: { version: ModelVersion; onClose: () => void; onDone: () => void }) {
  const id = useId();
  const [alias, setAlias] = useState("");
  const save = useAction(async () => {
    await modelClient.setAlias({ name: props.version.name, alias }, brief);
    notify(`${alias} points to version ${props.version.version}.`);
    props.onClose();
    props.onDone();
  });
  const wrong = save.failure?.violations.find(({ field }) => field === "alias")?.description;
  return (
    <Dialog title={`Add an alias to version ${props.version.version}`} onClose={props.onClose}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void save.run();
        }}
      >
        <div class="field-stack">
          <label for={id}>Alias</label>
          <input id={id} type="text" autocomplete="off" placeholder="candidate" value={alias} aria-invalid={wrong !== undefined} aria-describedby={`${id}-help`} onInput={(event) => setAlias(event.currentTarget.value)} />
          {wrong && <p class="wrong">{wrong}</p>}
          <p class="muted small-text" id={`${id}-help`}>
            1 to 63 characters of a–z, 0–9 and -, starting with a letter. An existing alias is moved.
          </p>
        </div>
        <FailureBox failure={save.failure} known={(field) => field === "alias"} />
        <div class="actions">
          <button type="button" onClick={props.onClose}>
            Cancel
          </button>
          <BusyButton type="submit" isBusy={save.isRunning} class="primary" disabled={alias === ""}>
            Add alias
          </BusyButton>
        </div>
      </form>
    </Dialog>
  );
}
