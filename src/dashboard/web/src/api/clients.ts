/** The clients of the server's services, over grpc-web from the page's own origin. */
import { createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { DatasetService } from "../gen/visage/v1/dataset_pb";
import { ModelService } from "../gen/visage/v1/model_pb";
import { PredictionService } from "../gen/visage/v1/prediction_pb";
import { SystemService } from "../gen/visage/v1/system_pb";
import { TrainingService } from "../gen/visage/v1/training_pb";
import { baseUrl } from "./base";
import { noteMethod } from "./errors";

/** Time after which a unary call is given up, unless it says otherwise. */
const PATIENCE_MS = 30_000;

/** Says of each error which method failed. */
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

/** Options of a unary call. */
export const brief = { timeoutMs: PATIENCE_MS } as const;

export const trainingClient = createClient(TrainingService, transport);
export const datasetClient = createClient(DatasetService, transport);
export const modelClient = createClient(ModelService, transport);
export const predictionClient = createClient(PredictionService, transport);
export const systemClient = createClient(SystemService, transport);

/** Gets a page of the server beside the API, such as `metrics`. */
export async function fetchPage(path: string, signal: AbortSignal): Promise<Response> {
  return fetch(`${baseUrl(document.baseURI)}/${path}`, { signal, cache: "no-store" });
}
