// Visage from Node: train, follow across a restart of the server, predict a directory.
//
//     npm ci && npm run build
//     npm start -- localhost:50051 /data/faces images 10
//
// The dataset is a directory on the server, the images are files on this machine.

import { randomUUID } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

// The fields that this program reads; proto-loader provides all of them at run time.
interface Training { name: string }
interface Event {
  // Dense from 1; 0 in heartbeats. 64-bit numbers are strings.
  sequence: string;
  epoch_completed?: { epoch: number; val_mae: number };
  metrics_rewound?: { from_epoch: number };
  model_version_created?: { model_version: string };
  state_changed?: { state: string; failure?: { reason: string; message: string } };
}
interface Prediction { age: number }
type Unary = (request: object, answered: (error: grpc.ServiceError | null, response: any) => void) => void;
type Streaming = (request: object) => grpc.ClientReadableStream<{ event: Event }>;

const PATIENCE_MS = 300_000;
const PAUSE_MS = 500;
const IMAGES_IN_A_CALL = 16;
const CALLS_AT_ONCE = 4;

const retry = { maxAttempts: 5, initialBackoff: "0.5s", maxBackoff: "5s", backoffMultiplier: 2 };
const serviceConfig = {
  loadBalancingConfig: [],
  methodConfig: [
    // Predict is idempotent, so it is also retried when the queue is full (RESOURCE_EXHAUSTED).
    { name: [{ service: "visage.v1.PredictionService" }], timeout: "60s", retryPolicy: { ...retry, retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"] } },
    // StartTraining is idempotent by its request id.
    { name: [{ service: "visage.v1.TrainingService" }], retryPolicy: { ...retry, retryableStatusCodes: ["UNAVAILABLE"] } },
  ],
};

const protos = fileURLToPath(new URL("../../../../../proto", import.meta.url));
const definitions = loadSync(["visage/v1/training.proto", "visage/v1/prediction.proto"], { includeDirs: [protos], keepCase: true, longs: String, enums: String });
const { TrainingService, PredictionService } = (grpc.loadPackageDefinition(definitions) as any).visage.v1;

/** A call with one answer. */
function call<Response>(client: grpc.Client, method: string, request: object): Promise<Response> {
  const unary = (client as unknown as Record<string, Unary>)[method].bind(client);
  return new Promise((resolve, reject) => unary(request, (error, response) => (error ? reject(error) : resolve(response))));
}

/** Yields what happens to a training, each event once; the cursor is the sequence of the last one. */
async function* follow(trainings: grpc.Client, name: string): AsyncGenerator<Event> {
  let cursor = "0";
  let lastWord = Date.now();
  for (;;) {
    try {
      const stream = (trainings as unknown as Record<string, Streaming>).StreamEpochMetrics({ name, after_sequence: cursor });
      for await (const { event } of stream) {
        lastWord = Date.now();
        if (event.sequence !== "0" && event.sequence !== undefined) {
          cursor = event.sequence;
          yield event;
        }
      }
      // The stream closes only after the last event.
      return;
    } catch (error) {
      const isGone = (error as grpc.ServiceError).code === grpc.status.UNAVAILABLE;
      if (!isGone || Date.now() - lastWord > PATIENCE_MS) throw error;
      console.error("reconnecting after event", cursor);
      await sleep(PAUSE_MS);
    }
  }
}

async function train(trainings: grpc.Client, dataset: string, epochs: number): Promise<void> {
  const spec = { dataset: { path: dataset }, max_epochs: epochs, recipe: "RECIPE_FAST" };
  const { training } = await call<{ training: Training }>(trainings, "StartTraining", { spec, request_id: randomUUID() });
  console.log(`training ${training.name}`);
  for await (const event of follow(trainings, training.name)) {
    if (event.epoch_completed) console.log(`epoch ${event.epoch_completed.epoch}/${epochs}: ${event.epoch_completed.val_mae.toFixed(2)} years`);
    // The server resumes from a checkpoint and repeats the epochs from here on.
    if (event.metrics_rewound) console.log(`rewound to epoch ${event.metrics_rewound.from_epoch}`);
    if (event.model_version_created) console.log(`model ${event.model_version_created.model_version}`);
    if (event.state_changed?.state === "TRAINING_STATE_FAILED") throw new Error(event.state_changed.failure?.message);
  }
}

async function predict(predictions: grpc.Client, directory: string): Promise<void> {
  const names = (await readdir(directory)).filter((name) => /\.(jpe?g|png|webp|bmp)$/i.test(name)).sort();
  const ages = new Map<string, number>();
  let next = 0;
  // Each worker reads its own images, so that only those in flight are in memory.
  const worker = async () => {
    while (next < names.length) {
      const part = names.slice(next, (next += IMAGES_IN_A_CALL));
      const images = await Promise.all(part.map((name) => readFile(join(directory, name))));
      const answer = await call<{ predictions: Prediction[] }>(predictions, "Predict", { images });
      answer.predictions.forEach((prediction, index) => ages.set(part[index], prediction.age));
    }
  };
  await Promise.all(Array.from({ length: CALLS_AT_ONCE }, worker));
  for (const name of names) console.log(`${name} ${ages.get(name)?.toFixed(1)}`);
}

/** TLS and a token, by the variables of the command line client. */
async function channelCredentials(): Promise<grpc.ChannelCredentials> {
  const content = async (name: string) => (process.env[name] ? readFile(process.env[name]!) : null);
  const [ca, key, cert, token] = await Promise.all(["VISAGE_CA", "VISAGE_KEY", "VISAGE_CERT", "VISAGE_TOKEN_FILE"].map(content));
  if (!ca) return grpc.credentials.createInsecure();
  const channel = grpc.credentials.createSsl(ca, key, cert);
  if (!token) return channel;
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token.toString().trim()}`);
  return channel.compose(grpc.credentials.createFromMetadataGenerator((_, callback) => callback(null, metadata)));
}

const [target, dataset, images, epochs = "10"] = process.argv.slice(2);
const options = { "grpc.service_config": JSON.stringify(serviceConfig), "grpc.max_reconnect_backoff_ms": 2000 };
const credentials = await channelCredentials();
const trainings: grpc.Client = new TrainingService(target, credentials, options);
const predictions: grpc.Client = new PredictionService(target, credentials, options);
await train(trainings, dataset, Number(epochs));
await predict(predictions, images);
trainings.close();
predictions.close();
