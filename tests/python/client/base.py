"""Test cases with a server, and the specs and images that they share."""

import atexit
import contextlib
import functools
import io
import os
import shutil
import tempfile
import unittest
import uuid

import grpc
from grpc_health.v1 import health_pb2

import api
import server
from api import model, training


Code = grpc.StatusCode
SERVICES = ["visage.v1." + name for name in ("DatasetService", "ModelService", "PredictionService", "SystemService", "TrainingService")]
EPOCHS_WITHOUT_END = 10_000
MIB = 1 << 20
# Metrics are updated immediately, except for images that are still being decoded when their call
# ends.
METRICS_SECONDS = 30


@functools.lru_cache(maxsize=None)
def faces():
    """The directory of the drawn faces, shared by all tests of the process."""
    directory = tempfile.mkdtemp(prefix="visage-faces-")
    atexit.register(shutil.rmtree, directory)
    return server.draw_faces(os.path.join(directory, "faces"), count=100, seed=1)


def spec(path=None, **fields):
    """A training that takes seconds: random weights and small images."""
    dataset = training.DatasetSpec(path=path or faces(), validation_fraction=0.2)
    fields.setdefault("input_size", 64)
    return training.TrainingSpec(dataset=dataset, init=training.InitSpec(kind=training.INIT_KIND_RANDOM), **fields)


def endless():
    return spec(max_epochs=EPOCHS_WITHOUT_END, input_size=32, promote=training.PROMOTE_NEVER)


def kinds(events):
    return [event.WhichOneof("kind") for event in events]


def states(events):
    """The states of a training in order, without their prefix."""
    changes = [event.state_changed.state for event in events if event.HasField("state_changed")]
    return [state_name(state) for state in changes]


def state_name(state):
    return training.TrainingState.Name(state)[len("TRAINING_STATE_"):]


def stop_reason(message):
    return training.StopReason.Name(message.stop_reason)[len("STOP_REASON_"):]


def read_face(position):
    """The bytes of one of the drawn faces."""
    name = sorted(os.listdir(faces()))[position]
    with open(os.path.join(faces(), name), "rb") as file:
        return file.read()


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


class ClientTest(unittest.TestCase):
    """Tests that share one server. They do not depend on their order: each names its own resources or restores what it changes."""

    OPTIONS = ()
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.server = server.Server(*cls.OPTIONS)
        cls.addClassCleanup(cls.server.close)

    @property
    def client(self):
        return self.server.client

    @contextlib.contextmanager
    def refused(self, code, reason=None, fields=None):
        """Expects the call inside to fail with this code; `with` returns a list that receives the refusal."""
        refusals = []
        with self.assertRaises(grpc.RpcError) as caught:
            yield refusals
        refusal = api.Refusal(caught.exception)
        refusals.append(refusal)
        self.assertEqual(refusal.code, code, refusal)
        if reason is not None:
            self.assertEqual(refusal.reason, reason, refusal)
            self.assertEqual(refusal.info.domain, "visage")
        if fields is not None:
            self.assertEqual(refusal.fields, fields, refusal)

    def health_of(self, service):
        status = self.client.health.Check(health_pb2.HealthCheckRequest(service=service)).status
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)

    def list_trainings(self, **fields):
        return self.client.trainings.ListTrainings(training.ListTrainingsRequest(**fields)).trainings

    def list_versions(self, **fields):
        return self.client.models.ListModelVersions(model.ListModelVersionsRequest(**fields)).versions

    def stop(self, name):
        return self.client.trainings.StopTraining(training.StopTrainingRequest(name=name)).training

    def cancel(self, name, force=False):
        return self.client.trainings.CancelTraining(training.CancelTrainingRequest(name=name, force=force)).training

    def delete(self, name):
        self.client.trainings.DeleteTraining(training.DeleteTrainingRequest(name=name))

    def start_endless(self, **fields):
        """Starts a training that runs until it is stopped, at the latest by the end of the test."""
        started = self.client.start(endless(), **fields)
        self.addCleanup(self.cancel_if_active, started.name)
        return started.name

    def cancel_if_active(self, name):
        try:
            self.cancel(name, force=True)
        except grpc.RpcError as error:
            if error.code() not in (Code.FAILED_PRECONDITION, Code.NOT_FOUND):  # It has ended or was deleted.
                raise
        else:
            self.client.events(name)

    def follow_until(self, name, condition, **fields):
        """Cancels the stream after the first event that satisfies the condition; returns the events so far."""
        stream = self.client.stream(name, **fields)
        seen = []
        for response in stream:
            seen.append(response.event)
            if condition(response.event):
                stream.cancel()
                return seen
        self.fail("the stream ended early with {}".format(seen[-1:]))

    def follow_to_first_epoch(self, name):
        return self.follow_until(name, lambda event: event.HasField("epoch_completed"))


class TrainedTest(ClientTest):
    """A server with two trainings: the first is live, the second is version 2."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        client = cls.server.client
        health = client.health.Watch(health_pb2.HealthCheckRequest(service="visage.v1.PredictionService"))
        cls.health = [next(health).status]
        cls.request = dict(spec=spec(max_epochs=3, batch_size=16, optimizer=training.OptimizerSpec(learning_rate=1e-3)),
                           request_id=str(uuid.uuid4()), training_id="first", display_name="The first", labels={"order": "1"})
        cls.started = client.start(**cls.request)
        # Two clients follow it; the second one reads nothing before the end.
        watching = client.stream("trainings/first", progress=True)
        reading_late = client.stream("trainings/first")
        second = spec(max_epochs=2, batch_size=16, seed=7, promote=training.PROMOTE_NEVER)
        client.start(second, training_id="second")
        cls.watched = [response.event for response in watching]
        cls.read_late = [response.event for response in reading_late]
        client.events("trainings/second")
        cls.first, cls.second = client.get("trainings/first"), client.get("trainings/second")
        for ended in (cls.first, cls.second):
            if ended.state != training.TRAINING_STATE_SUCCEEDED:
                raise AssertionError("{} did not succeed:\n{}\n{}".format(ended.name, ended, cls.server.log()))
        cls.health.append(next(health).status)
        health.cancel()
