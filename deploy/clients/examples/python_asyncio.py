"""Visage with grpcio and asyncio: train, follow across a restart of the server, predict a directory.

    pip install grpcio-tools
    python python_asyncio.py localhost:50051 /data/faces images 10

The dataset is a directory on the server, the images are files on this machine.
"""

import asyncio
import json
import pathlib
import sys
import time
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
# Seconds without contact after which following fails, and between two attempts.
PATIENCE, PAUSE = 300, 0.5
IMAGES_IN_A_CALL, CALLS_AT_ONCE = 16, 4


async def follow(trainings, name):
    """Yields the events of a training, each once; the cursor is the sequence of the last one."""
    cursor, last_word = 0, time.monotonic()
    while True:
        try:
            async for response in trainings.StreamEpochMetrics(training_pb2.StreamEpochMetricsRequest(name=name, after_sequence=cursor)):
                last_word = time.monotonic()
                # Heartbeats have no sequence.
                if response.event.sequence:
                    cursor = response.event.sequence
                    yield response.event
            # The stream closes only after the last event.
            return
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() - last_word > PATIENCE:
                raise
            print("reconnecting after event", cursor, file=sys.stderr, flush=True)
            await asyncio.sleep(PAUSE)


async def train(channel, dataset, epochs):
    trainings = training_grpc.TrainingServiceStub(channel)
    spec = training_pb2.TrainingSpec(dataset=training_pb2.DatasetSpec(path=dataset), max_epochs=epochs, recipe=training_pb2.RECIPE_FAST)
    request = training_pb2.StartTrainingRequest(spec=spec, request_id=str(uuid.uuid4()))
    name = (await trainings.StartTraining(request)).training.name
    print("training", name, flush=True)
    async for event in follow(trainings, name):
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


async def predict(channel, directory):
    predictions = prediction_grpc.PredictionServiceStub(channel)
    paths = sorted(path for path in pathlib.Path(directory).iterdir() if path.suffix in (".jpg", ".jpeg", ".png", ".webp", ".bmp"))
    places = asyncio.Semaphore(CALLS_AT_ONCE)

    async def one_call(part):
        async with places:
            # Read inside, so that only the images in flight are in memory.
            content = await asyncio.to_thread(lambda: [path.read_bytes() for path in part])
            return part, (await predictions.Predict(prediction_pb2.PredictRequest(images=content))).predictions

    calls = [one_call(paths[start:start + IMAGES_IN_A_CALL]) for start in range(0, len(paths), IMAGES_IN_A_CALL)]
    for part, answers in await asyncio.gather(*calls):
        for path, prediction in zip(part, answers):
            print(f"{path.name} {prediction.age:.1f}", flush=True)


async def main(target, dataset, images, epochs="10"):
    options = [("grpc.service_config", json.dumps(SERVICE_CONFIG)), ("grpc.max_reconnect_backoff_ms", 2000)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        await train(channel, dataset, int(epochs))
        await predict(channel, images)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
