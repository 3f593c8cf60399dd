/** Result of a prediction: the image with numbered faces, ages, intervals and explanations. */
import { useEffect, useId, useMemo, useState } from "preact/hooks";
import type { Failure } from "../api/errors";
import type { Face, PredictResult } from "../api/predict";
import { NOTHING, age as ageText, percent, seconds, shortName, span } from "../format";
import type { Interval } from "../gen/visage/v1/prediction_pb";
import { Facts, FailureBox } from "../ui/parts";
import { href } from "../ui/router";
import { HeatMap } from "./heat-map";

/** An image and its result. */
export interface Item {
  id: number;
  name: string;
  blob: Blob;
  state: { kind: "waiting" } | { kind: "done"; result: PredictResult } | { kind: "failed"; failure: Failure };
}

/** Object URL of a blob, revoked on unmount. */
export function useAddress(blob: Blob | undefined): string | undefined {
  const address = useMemo(() => blob && URL.createObjectURL(blob), [blob]);
  useEffect(
    () => () => {
      if (address) URL.revokeObjectURL(address);
    },
    [address],
  );
  return address;
}

/** Larger side in pixels of an image that is probably not one cropped face; as in the CLI. */
const LARGE_SIDE = 800;

/** `onDetect` predicts the image again with face detection; undefined if it is unsupported. */
export function Result({ item, onDetect }: { item: Item; onDetect: (() => void) | undefined }) {
  const id = useId();
  const [active, setActive] = useState<number | undefined>();
  const result = item.state.kind === "done" ? item.state.result : undefined;
  const faces = result?.faces ?? [];
  const isSingle = result !== undefined && faces.length === 0 && !Number.isNaN(result.age);
  const show = (index: number): void => {
    setActive(index);
    const row = document.getElementById(`${id}-${index}`);
    row?.scrollIntoView({ block: "nearest" });
    row?.focus({ preventScroll: true });
  };
  return (
    <li class={`card prediction ${faces.length > 0 ? "has-faces" : result?.explanation ? "is-explained" : ""}`}>
      <FramedImage item={item} faces={faces} active={active} onFace={show} />
      {result && !Number.isNaN(result.age) && faces.length === 0 && <HeatMap image={result.explanation} contributions={result.contributions} of={item.name} />}
      <div class="prediction-text">
        <h2 class="file-name wrap">{item.name}</h2>
        {item.state.kind === "waiting" && <p class="muted">Predicting…</p>}
        {item.state.kind === "failed" && <FailureBox failure={item.state.failure} />}
        {result && faces.length === 0 && Number.isNaN(result.age) && <p>No face was found. If the image shows a single face, try again without “Detect faces”.</p>}
        {result && isSingle && <Age age={result.age} interval={result.interval} />}
        {result && isSingle && onDetect && Math.max(result.width, result.height) >= LARGE_SIDE && (
          <div class="warnings">
            <p>
              The image has {result.width} × {result.height} pixels; without face detection the whole image counts as one cropped face.
            </p>
            <div class="actions">
              <button type="button" class="small" onClick={onDetect}>
                Detect faces <span class="unseen">on {item.name}</span>
              </button>
            </div>
          </div>
        )}
        {faces.length > 0 && (
          <ol class="plain faces" aria-label={`Faces on ${item.name}`}>
            {faces.map((face, index) => (
              <li
                key={index}
                id={`${id}-${index}`}
                tabIndex={-1}
                class={active === index ? "is-active" : ""}
                onMouseEnter={() => setActive(index)}
                onMouseLeave={() => setActive(undefined)}
              >
                <p class="face-title">
                  <span class="face-number">{index + 1}</span> Face {index + 1}{" "}
                  <span class="muted small-text">
                    {Math.round(face.width)} × {Math.round(face.height)} pixels, score {face.score.toFixed(2)}
                  </span>
                </p>
                <Age age={face.age} interval={face.interval} />
                <HeatMap image={face.explanation} contributions={face.contributions} of={`face ${index + 1} of ${item.name}`} />
              </li>
            ))}
          </ol>
        )}
        {result && (
          <Facts
            items={[
              ["Version", <a href={href("models", shortName(result.modelVersion))}>{shortName(result.modelVersion)}</a>],
              ["Pixels", `${result.width} × ${result.height}`],
              ["Decode", duration(result.durations?.decode)],
              ["Queue", duration(result.durations?.queue)],
              ["Inference", duration(result.durations?.inference)],
              ["Total", duration(result.durations?.total)],
            ]}
          />
        )}
      </div>
    </li>
  );
}

/** Maximum height in pixels of an image with faces, which otherwise has the full width. */
const TALLEST = 640;

/** The image with numbered frames, which lead to the rows of the faces. */
function FramedImage(props: { item: Item; faces: Face[]; active: number | undefined; onFace: (index: number) => void }) {
  const { item, faces } = props;
  const address = useAddress(item.blob);
  const [isBroken, setBroken] = useState(false);
  const result = item.state.kind === "done" ? item.state.result : undefined;
  return (
    <div class="frame" style={result && faces.length > 0 ? { maxWidth: `min(100%, ${Math.round((TALLEST * result.width) / result.height)}px)` } : {}}>
      {isBroken ? <p class="no-image muted small-text">This browser cannot display the image</p> : <img src={address} alt={item.name} onError={() => setBroken(true)} />}
      {result &&
        !isBroken &&
        faces.map((face, index) => (
          <button
            key={index}
            type="button"
            class={`face ${props.active === index ? "is-active" : ""}`}
            style={frameOf(face, result)}
            aria-label={`Face ${index + 1}, ${ageText(face.age)} years: show its details`}
            onClick={() => props.onFace(index)}
          >
            <span class="face-number">{index + 1}</span>
          </button>
        ))}
    </div>
  );
}

/** Position of a face's frame: the visible part of its square. */
function frameOf(face: Face, image: { width: number; height: number }): Record<string, string> {
  const part = (from: number, length: number, whole: number): [string, string] => {
    const [begin, end] = [Math.max(from, 0), Math.min(from + length, whole)];
    return [`${(begin / whole) * 100}%`, `${(Math.max(end - begin, 0) / whole) * 100}%`];
  };
  const [left, width] = part(face.left, face.width, image.width);
  const [top, height] = part(face.top, face.height, image.height);
  return { left, top, width, height };
}

function duration(value: Parameters<typeof seconds>[0] | undefined): string {
  if (!value) return NOTHING;
  const milliseconds = seconds(value) * 1000;
  return milliseconds < 1000 ? `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms` : span(milliseconds / 1000);
}

/** Maximum age of the bar. */
const OLDEST = 100;

function Age(props: { age: number; interval: Interval | undefined }) {
  const { age, interval } = props;
  const place = (value: number): string => `${Math.min(Math.max((value / OLDEST) * 100, 0), 100)}%`;
  return (
    <div class="age">
      <p class="age-value number">
        {ageText(age)} <span class="unit">years</span>
      </p>
      <div class="age-bar" aria-hidden="true">
        {interval && <span class="age-interval" style={{ left: place(interval.lower), width: `calc(${place(interval.upper)} - ${place(interval.lower)})` }} />}
        <span class="age-point" style={{ left: place(age) }} />
      </div>
      <p class="muted number">
        {interval ? `${ageText(interval.lower)} to ${ageText(interval.upper)} years in ${percent(interval.confidence)} of cases` : "This version has no interval."}
      </p>
    </div>
  );
}
