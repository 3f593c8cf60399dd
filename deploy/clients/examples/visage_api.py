"""The parts of the Python examples that do no I/O: modules of the protos, retries, requests and output."""

import json
import os
import pathlib
import sys
import uuid

import grpc

# Generates the modules of the protos in memory; larger programs generate files with `python -m
# grpc_tools.protoc`.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[3] / "proto"))
prediction_pb2, prediction_grpc = grpc.protos_and_services("visage/v1/prediction.proto")
training_pb2, training_grpc = grpc.protos_and_services("visage/v1/training.proto")

RETRY = {"maxAttempts": 5, "initialBackoff": "0.5s", "maxBackoff": "5s", "backoffMultiplier": 2}
SERVICE_CONFIG = {"methodConfig": [
    # Predict is idempotent, so it is also retried when the queue is full (RESOURCE_EXHAUSTED).
    {"name": [{"service": "visage.v1.PredictionService"}], "timeout": "60s",
     "retryPolicy": {**RETRY, "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]}},
    # StartTraining is idempotent by its request id.
    {"name": [{"service": "visage.v1.TrainingService"}], "retryPolicy": {**RETRY, "retryableStatusCodes": ["UNAVAILABLE"]}}]}
CHANNEL_OPTIONS = [("grpc.service_config", json.dumps(SERVICE_CONFIG)), ("grpc.max_reconnect_backoff_ms", 2000)]
# Seconds without contact after which following fails.
PATIENCE = 300
IMAGES_IN_A_CALL, CALLS_AT_ONCE = 16, 4


def credentials():
    """TLS and a token, by the variables of the command line client; None for a server without TLS."""
    ca, cert, key, token = (content(os.environ.get(name)) for name in ("VISAGE_CA", "VISAGE_CERT", "VISAGE_KEY", "VISAGE_TOKEN_FILE"))
    if ca is None:
        return None
    channel = grpc.ssl_channel_credentials(ca, key, cert)
    return channel if token is None else grpc.composite_channel_credentials(channel, grpc.access_token_call_credentials(token.decode().strip()))


def content(path):
    return pathlib.Path(path).read_bytes() if path else None


def start_request(dataset, epochs):
    """A training on a directory of the server."""
    spec = training_pb2.TrainingSpec(dataset=training_pb2.DatasetSpec(path=dataset), max_epochs=epochs, recipe=training_pb2.RECIPE_FAST)
    return training_pb2.StartTrainingRequest(spec=spec, request_id=str(uuid.uuid4()))


def show(event, epochs):
    """Prints an event; ends the program if the training failed."""
    kind = event.WhichOneof("kind")
    if kind == "epoch_completed":
        print(f"epoch {event.epoch_completed.epoch}/{epochs}: {event.epoch_completed.val_mae:.2f} years", flush=True)
    elif kind == "metrics_rewound":
        # The server resumes from a checkpoint and repeats the epochs from here on.
        print("rewound to epoch", event.metrics_rewound.from_epoch, flush=True)
    elif kind == "model_version_created":
        print("model", event.model_version_created.model_version, flush=True)
    elif kind == "state_changed" and event.state_changed.state == training_pb2.TRAINING_STATE_FAILED:
        raise SystemExit(f"{event.state_changed.failure.reason}: {event.state_changed.failure.message}")


def calls_of(directory):
    """The images of a directory, grouped into calls."""
    paths = sorted(path for path in pathlib.Path(directory).iterdir() if path.suffix in (".jpg", ".jpeg", ".png", ".webp", ".bmp"))
    return [paths[start:start + IMAGES_IN_A_CALL] for start in range(0, len(paths), IMAGES_IN_A_CALL)]


def show_ages(paths, response):
    for path, prediction in zip(paths, response.predictions):
        print(f"{path.name} {prediction.age:.1f}", flush=True)
