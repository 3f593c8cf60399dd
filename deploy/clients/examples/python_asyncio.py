"""Visage with grpcio and asyncio: train, follow across a restart of the server, predict a directory.

    pip install grpcio-tools
    python python_asyncio.py localhost:50051 /data/faces images 10

The dataset is a directory on the server, the images are files on this machine.
"""

import asyncio
import sys
import time

import grpc

import visage_api as visage
from visage_api import prediction_grpc, prediction_pb2, training_grpc, training_pb2

# Seconds between two attempts.
PAUSE = 0.5


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
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() - last_word > visage.PATIENCE:
                raise
            print("reconnecting after event", cursor, file=sys.stderr, flush=True)
            await asyncio.sleep(PAUSE)


async def train(channel, dataset, epochs):
    trainings = training_grpc.TrainingServiceStub(channel)
    name = (await trainings.StartTraining(visage.start_request(dataset, epochs))).training.name
    print("training", name, flush=True)
    async for event in follow(trainings, name):
        visage.show(event, epochs)


async def predict(channel, directory):
    predictions = prediction_grpc.PredictionServiceStub(channel)
    places = asyncio.Semaphore(visage.CALLS_AT_ONCE)

    async def one_call(paths):
        async with places:
            # Read inside, so that only the images in flight are in memory.
            content = await asyncio.to_thread(lambda: [path.read_bytes() for path in paths])
            return paths, await predictions.Predict(prediction_pb2.PredictRequest(images=content))

    for paths, response in await asyncio.gather(*map(one_call, visage.calls_of(directory))):
        visage.show_ages(paths, response)


async def main(target, dataset, images, epochs="10"):
    credentials = visage.credentials()
    async with (grpc.aio.secure_channel(target, credentials, options=visage.CHANNEL_OPTIONS) if credentials
                else grpc.aio.insecure_channel(target, options=visage.CHANNEL_OPTIONS)) as channel:
        await train(channel, dataset, int(epochs))
        await predict(channel, images)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
