/** Upload and registration of datasets. */
import { useId, useState } from "preact/hooks";
import { brief, datasetClient } from "../api/clients";
import { idOf } from "../api/datasets";
import { bytes, sentence } from "../format";
import { cancelUpload, current, dismiss, send } from "../live/upload";
import { useAction } from "../ui/calls";
import { notify } from "../ui/notices";
import { BusyButton, FailureBox, Meter, Panel } from "../ui/parts";
import { Needs } from "../ui/permission";

export function UploadPanel(props: { largest: number }) {
  const id = useId();
  const [file, setFile] = useState<File | undefined>();
  const [name, setName] = useState("");
  const [title, setTitle] = useState("");
  const [agePattern, setAgePattern] = useState("");
  const [wrong, setWrong] = useState("");
  const state = current.value;
  const isSending = state?.kind === "sending";
  const choose = (chosen: File | undefined): void => {
    setFile(chosen);
    setWrong("");
    if (chosen) setName(idOf(chosen.name));
  };
  const begin = async (): Promise<void> => {
    if (!file) return setWrong("choose an archive first");
    if (!/^[a-z][a-z0-9-]{0,62}$/.test(name)) return setWrong("the id must be 1 to 63 characters of a-z, 0-9 and -, starting with a letter");
    if (file.size > props.largest) return setWrong(`the archive has ${bytes(file.size)}; the limit of this server is ${bytes(props.largest)}`);
    setWrong("");
    if (await send(file, { datasetId: name, displayName: title, agePattern })) {
      setFile(undefined);
      setName("");
      setTitle("");
      setAgePattern("");
    }
  };
  return (
    <Panel title="Upload an archive">
      <Needs role="trainer">
        <form
          class="field-stack upload"
          data-form="upload"
          noValidate
          onSubmit={(event) => {
            event.preventDefault();
            void begin();
          }}
        >
          <p>
            A zip, tar or tar.gz of images whose names start with the age, such as <code>34_anna.jpg</code>, or with a <code>manifest.csv</code>; at most {bytes(props.largest)}.
          </p>
          <p class="stored">
            Its images and manifests are stored on this server, in the directory <code>datasets</code> of its data directory, until the dataset is deleted; other files are ignored, and the archive is
            deleted once it is unpacked. Everyone with access to this server can train on them and see thumbnails of them.
          </p>
          <div class="upload-fields">
            <label class="button file-button">
              {file ? file.name : "Choose an archive"}
              <input
                type="file"
                aria-label="Choose an archive"
                accept=".zip,.tar,.tgz,.gz,application/zip,application/x-tar,application/gzip"
                disabled={isSending}
                onChange={(event) => choose(event.currentTarget.files?.[0])}
              />
            </label>
            <label class="field-stack" for={`${id}-name`}>
              Dataset id
              <input
                id={`${id}-name`}
                type="text"
                autocomplete="off"
                spellcheck={false}
                value={name}
                disabled={isSending}
                aria-invalid={wrong !== ""}
                aria-describedby={wrong === "" ? undefined : `${id}-wrong`}
                onInput={(event) => setName(event.currentTarget.value)}
              />
            </label>
            <label class="field-stack" for={`${id}-title`}>
              Display name
              <input id={`${id}-title`} type="text" autocomplete="off" value={title} disabled={isSending} onInput={(event) => setTitle(event.currentTarget.value)} />
            </label>
            <AgePatternField id={`${id}-pattern`} value={agePattern} disabled={isSending} onChange={setAgePattern} />
            <BusyButton type="submit" class="primary" isBusy={isSending} busyText="Uploading…">
              Upload
            </BusyButton>
          </div>
          {wrong !== "" && (
            <p class="wrong" id={`${id}-wrong`} role="alert">
              {sentence(wrong)}
            </p>
          )}
        </form>
      </Needs>
      {state?.kind === "sending" && (
        <div class="progress" data-upload={state.name}>
          <Meter share={state.sent / Math.max(state.total, 1)} label={`Upload of ${state.name}`} />
          <p class="progress-text">
            <span>
              {bytes(state.sent)} of {bytes(state.total)}
            </span>
            <span class="muted">Keep this tab open; you can use other pages of the dashboard.</span>
            <button type="button" class="small" onClick={cancelUpload}>
              Cancel
            </button>
          </p>
        </div>
      )}
      {state?.kind === "failed" && (
        <FailureBox
          failure={state.failure}
          retry={() => {
            dismiss();
            void begin();
          }}
        />
      )}
    </Panel>
  );
}

/** Age pattern, for images whose file names do not start with the age. */
function AgePatternField(props: { id: string; value: string; disabled: boolean; onChange: (pattern: string) => void }) {
  return (
    <label class="field-stack" for={props.id}>
      Age pattern
      <input
        id={props.id}
        type="text"
        autocomplete="off"
        spellcheck={false}
        placeholder="age first, or e.g. agedb, directory"
        value={props.value}
        disabled={props.disabled}
        onInput={(event) => props.onChange(event.currentTarget.value)}
      />
    </label>
  );
}

export function RegisterPanel(props: { onDone: () => void }) {
  const id = useId();
  const [path, setPath] = useState("");
  const [name, setName] = useState("");
  const [agePattern, setAgePattern] = useState("");
  const register = useAction(async () => {
    const { dataset } = await datasetClient.registerDataset({ datasetId: name, path, agePattern }, brief);
    notify(`Registered ${dataset?.name}. The server is scanning it.`);
    setPath("");
    setName("");
    setAgePattern("");
    props.onDone();
  });
  return (
    <Panel title="Register a directory on the server">
      <p class="muted">It stays in place and is never deleted by Visage.</p>
      <Needs role="admin">
        <form
          class="upload-fields"
          data-form="register"
          noValidate
          onSubmit={(event) => {
            event.preventDefault();
            void register.run();
          }}
        >
          <label class="field-stack wide" for={`${id}-path`}>
            Directory or manifest
            <input id={`${id}-path`} type="text" autocomplete="off" spellcheck={false} value={path} onInput={(event) => setPath(event.currentTarget.value)} />
          </label>
          <label class="field-stack" for={`${id}-id`}>
            Dataset id
            <input id={`${id}-id`} type="text" autocomplete="off" spellcheck={false} value={name} onInput={(event) => setName(event.currentTarget.value)} />
          </label>
          <AgePatternField id={`${id}-pattern`} value={agePattern} disabled={false} onChange={setAgePattern} />
          <BusyButton type="submit" isBusy={register.isRunning} busyText="Registering…">
            Register
          </BusyButton>
        </form>
      </Needs>
      <FailureBox failure={register.failure} />
    </Panel>
  );
}
