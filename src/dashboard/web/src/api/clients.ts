/** Clients of the services, over gRPC-Web from the origin of the page. */
import { createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { DatasetService } from "../gen/visage/v1/dataset_pb";
import { ModelService } from "../gen/visage/v1/model_pb";
import { PredictionService } from "../gen/visage/v1/prediction_pb";
import { SystemService } from "../gen/visage/v1/system_pb";
import { TrainingService } from "../gen/visage/v1/training_pb";
import { baseUrl } from "./base";
import { noteMethod } from "./errors";

/** Default timeout of a unary call. */
const TIMEOUT_MS = 30_000;

/** Records the method of each error. */
const naming: Interceptor = (next) => async (request) => {
  try {
    const response = await next(request);
    return response.stream ? { ...response, message: named(response.message, request.method.name) } : response;
  } catch (error) {
    noteMethod(error, request.method.name);
    throw error;
  }
};

async function* named<Message>(messages: AsyncIterable<Message>, method: string): AsyncIterable<Message> {
  try {
    yield* messages;
  } catch (error) {
    noteMethod(error, method);
    throw error;
  }
}

const transport = createGrpcWebTransport({ baseUrl: baseUrl(document.baseURI), interceptors: [naming] });

export const brief = { timeoutMs: TIMEOUT_MS } as const;

export const trainingClient = createClient(TrainingService, transport);
export const datasetClient = createClient(DatasetService, transport);
export const modelClient = createClient(ModelService, transport);
export const predictionClient = createClient(PredictionService, transport);
export const systemClient = createClient(SystemService, transport);

/** Fetches a path of the HTTP port, such as `metrics`. */
export async function fetchPage(path: string, signal: AbortSignal): Promise<Response> {
  return fetch(`${baseUrl(document.baseURI)}/${path}`, { signal, cache: "no-store" });
}
