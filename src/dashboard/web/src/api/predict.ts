/** Prediction of one image, with heat maps and faces if the API and the server support them. */
import { type DescMessage, type Message, create } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { type Explanation, type Interval, type PredictDurations, PredictRequestSchema, PredictionSchema } from "../gen/visage/v1/prediction_pb";
import { predictionClient } from "./clients";

/** Support in the API that the page was built with. */
export const HAS_EXPLAIN = hasField(PredictRequestSchema, "explain") && hasField(PredictionSchema, "explanation_png");
export const HAS_FACES = hasField(PredictRequestSchema, "detect_faces") && hasField(PredictionSchema, "faces");

function hasField(desc: DescMessage, name: string): boolean {
  return desc.fields.some((field) => field.name === name);
}

/** Options of a prediction. */
export interface PredictOptions {
  /** `models/{model}/versions/{n or alias}`; empty for the live version. */
  model: string;
  intervalLevel: number | undefined;
  explain: boolean;
  detectFaces: boolean;
}

/** A face, in pixels of the oriented image. */
export interface Face {
  left: number;
  top: number;
  width: number;
  height: number;
  score: number;
  age: number;
  interval: Interval | undefined;
  explanation: Blob | undefined;
  contributions: Explanation | undefined;
}

export interface PredictResult {
  age: number;
  interval: Interval | undefined;
  width: number;
  height: number;
  explanation: Blob | undefined;
  /** Values of the explanation in years. */
  contributions: Explanation | undefined;
  faces: Face[];
  modelVersion: string;
  durations: PredictDurations | undefined;
}

/** Predicts a single image, so that an invalid image does not affect others. */
export async function predict(image: Uint8Array, options: PredictOptions, signal: AbortSignal): Promise<PredictResult> {
  const request = create(PredictRequestSchema, { images: [image], model: options.model, intervalLevel: options.intervalLevel });
  if (options.explain && HAS_EXPLAIN) set(PredictRequestSchema, request, "explain");
  if (options.detectFaces && HAS_FACES) set(PredictRequestSchema, request, "detect_faces");
  const response = await predictionClient.predict(request, { signal });
  const [prediction] = response.predictions;
  if (!prediction) throw new Error("the response has no prediction");
  return {
    age: prediction.age,
    interval: prediction.interval,
    width: prediction.width,
    height: prediction.height,
    explanation: pngBlob(read(PredictionSchema, prediction, "explanation_png")),
    contributions: read(PredictionSchema, prediction, "explanation") as Explanation | undefined,
    faces: HAS_FACES ? facesOf(prediction) : [],
    modelVersion: response.modelVersion,
    durations: response.durations,
  };
}

function set(desc: DescMessage, message: Message, name: string): void {
  const field = desc.fields.find((one) => one.name === name);
  if (field) reflect(desc, message).set(field, true as never);
}

/** Value of a field that the API may lack. */
function read(desc: DescMessage, message: Message, name: string): unknown {
  const field = desc.fields.find((one) => one.name === name);
  return field && (message as unknown as Record<string, unknown>)[field.localName];
}

function facesOf(prediction: Message): Face[] {
  const field = PredictionSchema.fields.find((one) => one.name === "faces");
  if (field?.fieldKind !== "list" || field.listKind !== "message") return [];
  const faces = (read(PredictionSchema, prediction, "faces") ?? []) as Message[];
  return faces.map((face) => {
    const box = (read(field.message, face, "box") ?? {}) as Partial<Record<"left" | "top" | "width" | "height", number>>;
    return {
      left: box.left ?? 0,
      top: box.top ?? 0,
      width: box.width ?? 0,
      height: box.height ?? 0,
      score: Number(read(field.message, face, "score") ?? 0),
      age: Number(read(field.message, face, "age") ?? 0),
      interval: read(field.message, face, "interval") as Interval | undefined,
      explanation: pngBlob(read(field.message, face, "explanation_png")),
      contributions: read(field.message, face, "explanation") as Explanation | undefined,
    };
  });
}

function pngBlob(bytes: unknown): Blob | undefined {
  return bytes instanceof Uint8Array && bytes.length > 0 ? new Blob([new Uint8Array(bytes)], { type: "image/png" }) : undefined;
}
