/** Predictions for images from files, drag and drop, the clipboard or the camera. */
import { Code } from "@connectrpc/connect";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { brief, systemClient } from "../api/clients";
import { failureOf } from "../api/errors";
import { type PredictResult, HAS_EXPLAIN, HAS_FACES, type PredictOptions, predict } from "../api/predict";
import { age as ageText, bytes, percent } from "../format";
import { useLoaded } from "../ui/calls";
import { announce } from "../ui/notices";
import { BusyButton, Empty, FailureBox, PageHead, Panel } from "../ui/parts";
import { href, route } from "../ui/router";
import { CameraDialog, hasCamera } from "./camera";
import { type Item, Result } from "./prediction-result";
import { StarterButton } from "./starter-button";
import { allVersions } from "./versions";

const LEVELS = [0.5, 0.8, 0.9, 0.95, 0.99];
/** Concurrent requests: few enough to leave capacity to other clients. */
const AT_ONCE = 2;
/** Attempts per image while the server is overloaded. */
const TRIES = 5;

let lastId = 0;

export function PredictPage() {
  const id = useId();
  const info = useLoaded((signal) => systemClient.getServerInfo({}, { ...brief, signal }), []);
  const versions = useLoaded(allVersions, []);
  const [items, setItems] = useState<Item[]>([]);
  const [model, setModel] = useState(route.value.query.get("model") ?? "");
  const [level, setLevel] = useState("");
  const [isExplained, setExplained] = useState(false);
  const [isSearched, setSearched] = useState(false);
  const [isOver, setOver] = useState(false);
  const [isCamera, setCamera] = useState(false);
  const abort = useRef(new AbortController());
  const queue = useRef<{ item: Item; options: PredictOptions }[]>([]);
  const running = useRef(0);
  useEffect(() => () => abort.current.abort(), []);

  const features = info.value?.features ?? [];
  const canExplain = HAS_EXPLAIN && features.includes("explain");
  const canFind = HAS_FACES && features.includes("detect_faces");
  const limit = Number(info.value?.limits?.maxImageBytes ?? Infinity);
  const options: PredictOptions = {
    model: model === "" ? "" : `models/age/versions/${model}`,
    intervalLevel: level === "" ? undefined : Number(level),
    explain: canExplain && isExplained,
    detectFaces: canFind && isSearched,
  };

  const settle = (item: Item, state: Item["state"]): void => setItems((old) => old.map((one) => (one.id === item.id ? { ...one, state } : one)));
  const work = async (): Promise<void> => {
    running.current += 1;
    for (let next = queue.current.shift(); next; next = queue.current.shift()) {
      const { item, options: asked } = next;
      try {
        const result = await ask(item.blob, asked, abort.current.signal);
        settle(item, { kind: "done", result });
        announce(`${item.name}: ${agesText(result)}.`);
      } catch (error) {
        if (abort.current.signal.aborted) break;
        const failure = failureOf(error, "Predict");
        // Each request has a single image, so its index is irrelevant.
        settle(item, { kind: "failed", failure: { ...failure, message: failure.message.replace(/^image 0: /, "") } });
        announce(`${item.name} failed.`);
      }
    }
    running.current -= 1;
  };
  const enqueue = (added: Item[]): void => {
    queue.current.push(...added.filter(({ state }) => state.kind === "waiting").map((item) => ({ item, options })));
    while (running.current < AT_ONCE && queue.current.length > 0) void work();
  };
  const add = (files: Iterable<File>): void => {
    const added = [...files].map((file): Item => {
      lastId += 1;
      const item = { id: lastId, name: file.name || "image", blob: file };
      if (file.size <= limit) return { ...item, state: { kind: "waiting" } };
      const message = `the image has ${bytes(file.size)}; the limit of this server is ${bytes(limit)}`;
      return { ...item, state: { kind: "failed", failure: { call: "Predict", code: Code.InvalidArgument, message, reason: "", violations: [], retryAfter: undefined } } };
    });
    setItems((old) => [...added, ...old]);
    enqueue(added);
  };
  const askAgain = (): void => {
    const again = items.map((item): Item => (item.blob.size > limit ? item : { ...item, state: { kind: "waiting" } }));
    queue.current = [];
    setItems(again);
    enqueue(again);
  };
  const detect = (item: Item): void => {
    const again: Item = { ...item, state: { kind: "waiting" } };
    settle(item, again.state);
    queue.current.push({ item: again, options: { ...options, detectFaces: true } });
    while (running.current < AT_ONCE && queue.current.length > 0) void work();
  };
  const latestAdd = useRef(add);
  latestAdd.current = add;
  useEffect(() => {
    const paste = (event: ClipboardEvent): void => {
      const files = [...(event.clipboardData?.files ?? [])].filter(({ type }) => type.startsWith("image/"));
      if (files.length > 0) latestAdd.current(files);
    };
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, []);

  return (
    <>
      <PageHead
        title="Predict"
        lead={
          info.value && info.value.liveModel === ""
            ? "No version is live."
            : "Predicts the age of the face on an image with an interval. Images are sent only to this server."
        }
      />
      <FailureBox failure={info.failure} retry={info.again} />
      <FailureBox failure={versions.failure} retry={versions.again} />
      {info.value?.liveModel === "" && (
        <Empty title="No version is live">
          <p>Predictions use the live version. Register the starter, a face model that is built into the server, or promote a version.</p>
          <div class="actions">
            <StarterButton
              hasLive={false}
              isPrimary
              onDone={() => {
                info.again();
                versions.again();
              }}
            />
            <a class="button" href={href("models")}>
              Models
            </a>
          </div>
        </Empty>
      )}
      <Panel title="Images" class="predict-input">
        <div
          class={`drop ${isOver ? "is-over" : ""}`}
          onDragOver={(event) => {
            event.preventDefault();
            setOver(true);
          }}
          onDragLeave={() => setOver(false)}
          onDrop={(event) => {
            event.preventDefault();
            setOver(false);
            add(event.dataTransfer?.files ?? []);
          }}
        >
          <p>Drop images here, paste one, or</p>
          <div class="actions">
            <label class="button primary file-button">
              Choose images
              <input
                id={`${id}-files`}
                type="file"
                aria-label="Choose images"
                accept="image/jpeg,image/png,image/webp,image/bmp"
                multiple
                onChange={(event) => {
                  add(event.currentTarget.files ?? []);
                  event.currentTarget.value = "";
                }}
              />
            </label>
            {hasCamera() ? (
              <button type="button" onClick={() => setCamera(true)}>
                Take an image
              </button>
            ) : (
              <label class="button file-button">
                Take an image
                <input type="file" aria-label="Take an image" accept="image/*" capture="user" onChange={(event) => add(event.currentTarget.files ?? [])} />
              </label>
            )}
          </div>
          <p class="muted small-text">JPEG, PNG, WebP or BMP{Number.isFinite(limit) && `, at most ${bytes(limit)} each`}. One face per image, cropped like the training images{canFind && ", unless “Detect faces” is selected"}.</p>
        </div>
        <div class="options">
          <label class="inline-field">
            Version
            <select value={model} onChange={(event) => setModel(event.currentTarget.value)}>
              <option value="">live</option>
              {model !== "" && !versions.value?.some(({ version }) => String(version) === model) && <option value={model}>{model}</option>}
              {versions.value?.map((version) => (
                <option key={version.name} value={String(version.version)}>
                  {String(version.version)}
                  {version.aliases.length > 0 ? ` (${version.aliases.join(", ")})` : ""}
                </option>
              ))}
            </select>
          </label>
          <label class="inline-field">
            Interval
            <select value={level} onChange={(event) => setLevel(event.currentTarget.value)}>
              <option value="">default (90 %)</option>
              {LEVELS.map((one) => (
                <option key={one} value={String(one)}>
                  {percent(one)}
                </option>
              ))}
            </select>
          </label>
          {canExplain && (
            <label class="check">
              <input type="checkbox" checked={isExplained} onChange={(event) => setExplained(event.currentTarget.checked)} />
              <span>Explain</span>
            </label>
          )}
          {canFind && (
            <label class="check">
              <input type="checkbox" checked={isSearched} onChange={(event) => setSearched(event.currentTarget.checked)} />
              <span>Detect faces</span>
            </label>
          )}
          {items.length > 0 && (
            <div class="actions">
              <BusyButton isBusy={items.some(({ state }) => state.kind === "waiting")} busyText="Predicting…" onClick={askAgain}>
                Predict all again
              </BusyButton>
              <button type="button" onClick={() => setItems([])}>
                Clear
              </button>
            </div>
          )}
        </div>
      </Panel>
      <ul class="predictions" aria-label="Predictions">
        {items.map((item) => (
          <Result key={item.id} item={item} onDetect={canFind ? () => detect(item) : undefined} />
        ))}
      </ul>
      {isCamera && <CameraDialog onClose={() => setCamera(false)} onImage={(file) => add([file])} />}
    </>
  );
}

/** Ages found on an image; with face detection possibly none. */
function agesText(result: PredictResult): string {
  const ages = result.faces.length > 0 ? result.faces.map(({ age }) => age) : [result.age];
  return Number.isNaN(ages[0]) ? "no face was found" : ages.map((age) => `${ageText(age)} years`).join(", ");
}

/** Sends the request, and retries as long as the server requests it. */
async function ask(blob: Blob, options: PredictOptions, signal: AbortSignal): Promise<PredictResult> {
  const image = new Uint8Array(await blob.arrayBuffer());
  for (let tries = 1; ; tries += 1) {
    try {
      return await predict(image, options, signal);
    } catch (error) {
      const { retryAfter } = failureOf(error);
      if (retryAfter === undefined || tries === TRIES || signal.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, retryAfter));
    }
  }
}
