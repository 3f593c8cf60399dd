"""Visage with grpcio only: train, follow across a restart of the server, predict a directory.

    pip install grpcio-tools grpcio-status
    python python_sync.py localhost:50051 /data/faces images 10

The dataset is a directory on the server, the images are files on this machine.
"""

import concurrent.futures
import sys
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import visage_api as visage
from visage_api import prediction_grpc, prediction_pb2, training_grpc, training_pb2


def follow(trainings, name):
    """Yields the events of a training, each once; the cursor is the sequence of the last one."""
    cursor, last_word = 0, time.monotonic()
    while True:
        try:
            for response in trainings.StreamEpochMetrics(training_pb2.StreamEpochMetricsRequest(name=name, after_sequence=cursor)):
                last_word = time.monotonic()
                # Heartbeats have no sequence.
                if response.event.sequence:
                    cursor = response.event.sequence
                    yield response.event
            # The stream closes only after the last event.
            return
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() - last_word > visage.PATIENCE:
                raise
            print("reconnecting after event", cursor, file=sys.stderr, flush=True)
            time.sleep(retry_delay(error))


def retry_delay(error):
    """The server's retry delay in seconds, or 0.5."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            return retry.retry_delay.ToTimedelta().total_seconds()
    return 0.5


def train(channel, dataset, epochs):
    trainings = training_grpc.TrainingServiceStub(channel)
    name = trainings.StartTraining(visage.start_request(dataset, epochs)).training.name
    print("training", name, flush=True)
    for event in follow(trainings, name):
        visage.show(event, epochs)


def predict(channel, directory):
    predictions = prediction_grpc.PredictionServiceStub(channel)

    def one_call(paths):
        # Read here, so that only the images in flight are in memory.
        request = prediction_pb2.PredictRequest(images=[path.read_bytes() for path in paths])
        return paths, predictions.Predict(request)

    with concurrent.futures.ThreadPoolExecutor(visage.CALLS_AT_ONCE) as threads:
        for paths, response in threads.map(one_call, visage.calls_of(directory)):
            visage.show_ages(paths, response)


def main(target, dataset, images, epochs="10"):
    credentials = visage.credentials()
    with (grpc.secure_channel(target, credentials, options=visage.CHANNEL_OPTIONS) if credentials
          else grpc.insecure_channel(target, options=visage.CHANNEL_OPTIONS)) as channel:
        train(channel, dataset, int(epochs))
        predict(channel, images)


if __name__ == "__main__":
    main(*sys.argv[1:])
