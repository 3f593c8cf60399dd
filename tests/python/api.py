"""Messages and stubs of the API, a client, and its errors.

The stubs are generated from the repository's protos into a temporary directory on import.
"""

import atexit
import hashlib
import importlib
import os
import shutil
import sys
import tempfile

import grpc
import grpc_tools
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_status import rpc_status
from grpc_tools import protoc

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROTOS = ("dataset", "model", "prediction", "system", "training")
# Default deadline of a call, enough for the slowest machine.
DEADLINE_SECONDS = 120


def generate():
    """Generates the Python modules of the protos and makes them importable."""
    directory = tempfile.mkdtemp(prefix="visage-stubs-")
    atexit.register(shutil.rmtree, directory)
    arguments = ["--proto_path=" + os.path.join(REPOSITORY, "proto"),
                 "--proto_path=" + os.path.join(os.path.dirname(grpc_tools.__file__), "_proto"),
                 "--python_out=" + directory, "--grpc_python_out=" + directory]
    if protoc.main(["protoc"] + arguments + ["visage/v1/{}.proto".format(name) for name in PROTOS]) != 0:
        raise RuntimeError("protoc failed; its message is above")
    sys.path.insert(0, directory)


generate()
dataset, model, prediction, system, training = (importlib.import_module("visage.v1.{}_pb2".format(name)) for name in PROTOS)
dataset_grpc, model_grpc, prediction_grpc, system_grpc, training_grpc = (importlib.import_module("visage.v1.{}_pb2_grpc".format(name)) for name in PROTOS)


class Client:
    """One channel with a stub of each service."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=[
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", 64 << 20),
            ("grpc.service_config", '{{"methodConfig": [{{"name": [{{}}], "timeout": "{}s"}}]}}'.format(DEADLINE_SECONDS))])
        self.datasets = dataset_grpc.DatasetServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.models = model_grpc.ModelServiceStub(self.channel)
        self.predictions = prediction_grpc.PredictionServiceStub(self.channel)
        self.system = system_grpc.SystemServiceStub(self.channel)
        self.trainings = training_grpc.TrainingServiceStub(self.channel)

    def close(self):
        self.channel.close()

    def start(self, spec, **fields):
        """Starts a training and returns it."""
        return self.trainings.StartTraining(training.StartTrainingRequest(spec=spec, **fields)).training

    def get(self, name):
        return self.trainings.GetTraining(training.GetTrainingRequest(name=name)).training

    def stream(self, name, **fields):
        """Returns the iterator of a stream, which has a method `cancel`."""
        return self.trainings.StreamEpochMetrics(training.StreamEpochMetricsRequest(name=name, **fields))

    def events(self, name, **fields):
        """Returns all events of a stream that ends."""
        return [response.event for response in self.stream(name, **fields)]

    def predict(self, *images, **fields):
        timeout = fields.pop("timeout", None)
        return self.predictions.Predict(prediction.PredictRequest(images=images, **fields), timeout=timeout)

    def ages(self, *images, **fields):
        return [predicted.age for predicted in self.predict(*images, **fields).predictions]

    def download(self, name, file=""):
        """Returns the description and the verified bytes of a checkpoint's file, and the sizes of the received chunks."""
        return received(name, self.trainings.DownloadCheckpoint(training.DownloadCheckpointRequest(name=name, file=file)))

    def download_version(self, name, file=""):
        """As `download`, for a file of a model version."""
        return received(name, self.models.DownloadModelFile(model.DownloadModelFileRequest(name=name, file=file)))


def received(name, responses):
    """Reads and verifies a download, see `Client.download`."""
    described, digest, chunks = None, hashlib.sha256(), []
    for position, response in enumerate(responses):
        if response.HasField("file") != (position == 0):
            raise AssertionError("message {} of the download of {} {} describes the file, which the first alone should".format(
                position, name, "also" if position else "does not"))
        described = described or response.file
        digest.update(response.data)
        chunks.append(response.data)
    content = b"".join(chunks)
    if (len(content), digest.hexdigest()) != (described.size_bytes, described.sha256):
        raise AssertionError("the download of {} has {} bytes with the SHA-256 {}, and not {} with {}".format(
            described.name, len(content), digest.hexdigest(), described.size_bytes, described.sha256))
    return described, content, [len(chunk) for chunk in chunks]


class Refusal:
    """An error of the server: code, message and the details of its `grpc-status-details-bin` trailer."""

    def __init__(self, error):
        self.code, self.message = error.code(), error.details()
        self.info = self.violations = self.retry = None
        # Raises an error if the code or message of the details differ from those of the call.
        status = rpc_status.from_call(error)
        for detail in status.details if status else []:
            for name, kind in (("info", error_details_pb2.ErrorInfo), ("violations", error_details_pb2.BadRequest),
                               ("retry", error_details_pb2.RetryInfo)):
                if detail.Is(kind.DESCRIPTOR):
                    message = kind()
                    detail.Unpack(message)
                    setattr(self, name, message)

    @property
    def reason(self):
        return self.info.reason if self.info else None

    @property
    def fields(self):
        """Full paths of the invalid fields, in order."""
        return [violation.field for violation in self.violations.field_violations] if self.violations else []

    def __str__(self):
        return "{} {}: {}".format(self.code, self.reason, self.message)
