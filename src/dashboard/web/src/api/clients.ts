/** Clients of the services, over gRPC-Web from the origin of the page. */
import { Code, ConnectError, type Interceptor, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { DatasetService } from "../gen/visage/v1/dataset_pb";
import { ModelService } from "../gen/visage/v1/model_pb";
import { PredictionService } from "../gen/visage/v1/prediction_pb";
import { SystemService } from "../gen/visage/v1/system_pb";
import { TrainingService } from "../gen/visage/v1/training_pb";
import { baseUrl } from "./base";
import { noteMethod } from "./errors";
import { pass, reportError } from "./gate";

/** Default timeout of a unary call. */
const TIMEOUT_MS = 30_000;

/** Records the method of each error, and stops calls while a login is required. */
const naming: Interceptor = (next) => async (request) => {
  try {
    pass();
    const response = await next(request);
    return response.stream ? { ...response, message: named(response.message, request.method.name) } : response;
  } catch (error) {
    note(error, request.method.name);
    throw error;
  }
};

async function* named<Message>(messages: AsyncIterable<Message>, method: string): AsyncIterable<Message> {
  try {
    yield* messages;
  } catch (error) {
    note(error, method);
    throw error;
  }
}

function note(error: unknown, method: string): void {
  noteMethod(error, method);
  reportError(error);
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
  pass();
  const response = await fetch(`${baseUrl(document.baseURI)}/${path}`, { signal, cache: "no-store" });
  if (response.status !== 401 && response.status !== 403) return response;
  const error =
    response.status === 401 ? new ConnectError("log in to continue", Code.Unauthenticated) : new ConnectError(`./${path} is not permitted: ${(await response.text()).trim()}`, Code.PermissionDenied);
  reportError(error);
  throw error;
}
