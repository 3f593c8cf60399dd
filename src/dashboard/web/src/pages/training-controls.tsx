/** Actions on a training, with confirmation dialogs. */
import { useId, useState } from "preact/hooks";
import { brief, trainingClient } from "../api/clients";
import { bytes } from "../format";
import { TrainingState, type Training } from "../gen/visage/v1/training_pb";
import { hasProcess, isFinal } from "../live/fold";
import { type View, learn, unlearn } from "../live/store";
import { useAction } from "../ui/calls";
import { Dialog } from "../ui/dialog";
import { notify } from "../ui/notices";
import { BusyButton, FailureBox } from "../ui/parts";
import { Needs } from "../ui/permission";
import { go, href } from "../ui/router";
import { titleOf } from "./training-parts";

type Question = "stop" | "cancel" | "delete" | "change";

export function Controls(props: { view: View }) {
  const { view } = props;
  const { name, state } = view;
  const [question, setQuestion] = useState<Question | undefined>();
  const calm = useAction(async (what: "pause" | "resume") => {
    const { training } = what === "pause" ? await trainingClient.pauseTraining({ name }, brief) : await trainingClient.resumeTraining({ name }, brief);
    learn(training);
    notify(what === "pause" ? "Pausing: the training writes its state and releases the device." : "Queued again.");
  });
  const isEnding = state === TrainingState.STOPPING || state === TrainingState.CANCELLING;
  const canPause = state === TrainingState.QUEUED || state === TrainingState.PREPARING || state === TrainingState.RUNNING;
  const close = (): void => setQuestion(undefined);
  return (
    <>
      <div class="actions">
        <Needs role="trainer" hide={isFinal(state)}>
          {canPause && (
            <BusyButton isBusy={calm.isRunning} onClick={() => void calm.run("pause")}>
              Pause
            </BusyButton>
          )}
          {state === TrainingState.PAUSED && (
            <BusyButton isBusy={calm.isRunning} class="primary" onClick={() => void calm.run("resume")}>
              Resume
            </BusyButton>
          )}
          {!isFinal(state) && !isEnding && (
            <>
              <button type="button" onClick={() => setQuestion("change")}>
                Change…
              </button>
              <button type="button" onClick={() => setQuestion("stop")}>
                Stop…
              </button>
            </>
          )}
          {!isFinal(state) && (
            <button type="button" class="danger" onClick={() => setQuestion("cancel")}>
              Cancel…
            </button>
          )}
        </Needs>
        <Needs role="trainer" hide>
          <a class="button" href={href("start", "", { from: view.name.slice("trainings/".length) })}>
            Start again with changes
          </a>
        </Needs>
        {isFinal(state) && (
          <Needs role="admin">
            <button type="button" class="danger" onClick={() => setQuestion("delete")}>
              Delete…
            </button>
          </Needs>
        )}
      </div>
      <FailureBox failure={calm.failure} />
      {question === "stop" && <StopDialog view={view} onClose={close} />}
      {question === "cancel" && <CancelDialog view={view} onClose={close} />}
      {question === "delete" && <DeleteDialog view={view} onClose={close} />}
      {question === "change" && <ChangeDialog view={view} onClose={close} />}
    </>
  );
}

interface DialogProps {
  view: View;
  onClose: () => void;
}

function StopDialog({ view, onClose }: DialogProps) {
  const stop = useAction(async () => {
    learn((await trainingClient.stopTraining({ name: view.name }, brief)).training);
    notify("Stopping: the training ends with its best checkpoint.");
    onClose();
  });
  return (
    <Dialog title={`Stop ${titleOf(view)}?`} onClose={onClose}>
      <p>
        {view.best
          ? `The training ends now, and its best epoch so far, epoch ${view.best.epoch}, becomes a model version. The current epoch is discarded.`
          : "No epoch is completed yet, so the training will be cancelled."}
      </p>
      <FailureBox failure={stop.failure} />
      <div class="actions">
        <button type="button" onClick={onClose}>
          Keep training
        </button>
        <BusyButton isBusy={stop.isRunning} class="primary" onClick={() => void stop.run()}>
          Stop and keep the best
        </BusyButton>
      </div>
    </Dialog>
  );
}

function CancelDialog({ view, onClose }: DialogProps) {
  const [isForced, setForced] = useState(false);
  const cancel = useAction(async () => {
    learn((await trainingClient.cancelTraining({ name: view.name, force: isForced }, brief)).training);
    notify(isForced ? "Cancelled: the process was killed." : "Cancelling.");
    onClose();
  });
  return (
    <Dialog title={`Cancel ${titleOf(view)}?`} onClose={onClose}>
      <p>No model version will be created. To keep the best epoch, stop the training instead.</p>
      {hasProcess(view.state) && (
        <label class="check">
          <input type="checkbox" checked={isForced} onChange={(event) => setForced(event.currentTarget.checked)} />
          <span>Kill its process at once</span>
        </label>
      )}
      <FailureBox failure={cancel.failure} />
      <div class="actions">
        <button type="button" onClick={onClose}>
          Keep training
        </button>
        <BusyButton isBusy={cancel.isRunning} class="danger solid" onClick={() => void cancel.run()}>
          Cancel the training
        </BusyButton>
      </div>
    </Dialog>
  );
}

function DeleteDialog({ view, onClose }: DialogProps) {
  const remove = useAction(async () => {
    await trainingClient.deleteTraining({ name: view.name }, brief);
    onClose();
    go(href("trainings"));
    unlearn(view.name);
    notify(`Deleted ${titleOf(view)}.`);
  });
  return (
    <Dialog title={`Delete ${titleOf(view)}?`} onClose={onClose}>
      <p>Its events, its curves and the checkpoints that no model version uses are deleted permanently.{view.modelVersion && " Its model version is kept."}
        {view.training.checkpointBytes > 0n && ` ${bytes(view.training.checkpointBytes)} become free.`}</p>
      <FailureBox failure={remove.failure} />
      <div class="actions">
        <button type="button" onClick={onClose}>
          Cancel
        </button>
        <BusyButton isBusy={remove.isRunning} class="danger solid" onClick={() => void remove.run()}>
          Delete the training
        </BusyButton>
      </div>
    </Dialog>
  );
}

const CHANGES = [
  { field: "max_epochs", key: "maxEpochs", label: "Epochs", of: (training: Training) => training.resolvedSpec?.maxEpochs, step: "1" },
  { field: "patience", key: "patience", label: "Early stopping patience", of: (training: Training) => training.resolvedSpec?.earlyStopping?.patience, step: "1" },
  { field: "learning_rate", key: "learningRate", label: "Learning rate", of: (training: Training) => training.resolvedSpec?.optimizer?.learningRate, step: "any" },
] as const;

function ChangeDialog({ view, onClose }: DialogProps) {
  const id = useId();
  const [texts, setTexts] = useState<Record<string, string>>({});
  const change = useAction(async () => {
    const given = Object.fromEntries(CHANGES.filter(({ key }) => (texts[key] ?? "") !== "").map(({ key }) => [key, Number(texts[key])]));
    learn((await trainingClient.updateTraining({ name: view.name, ...given }, brief)).training);
    notify("The change takes effect from the next epoch on.");
    onClose();
  });
  const isEmpty = CHANGES.every(({ key }) => (texts[key] ?? "") === "");
  return (
    <Dialog title={`Change ${titleOf(view)}`} onClose={onClose}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void change.run();
        }}
      >
        <p class="muted">Takes effect from the next epoch on. Empty fields stay unchanged.</p>
        {CHANGES.map(({ field, key, label, of, step }) => {
          const wrong = change.failure?.violations.find((violation) => violation.field === field)?.description;
          return (
            <div key={key} class="field-stack">
              <label for={`${id}-${key}`}>{label}</label>
              <input
                id={`${id}-${key}`}
                type="number"
                step={step}
                min="0"
                placeholder={String(of(view.training) ?? "")}
                value={texts[key] ?? ""}
                aria-invalid={wrong !== undefined}
                aria-describedby={wrong ? `${id}-${key}-wrong` : undefined}
                onInput={(event) => setTexts({ ...texts, [key]: event.currentTarget.value })}
              />
              {wrong && (
                <p class="wrong" id={`${id}-${key}-wrong`}>
                  {wrong}
                </p>
              )}
            </div>
          );
        })}
        <FailureBox failure={change.failure} known={(field) => CHANGES.some((one) => one.field === field)} />
        <div class="actions">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <BusyButton type="submit" isBusy={change.isRunning} class="primary" disabled={isEmpty}>
            Change
          </BusyButton>
        </div>
      </form>
    </Dialog>
  );
}
