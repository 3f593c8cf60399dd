"""A foreign client proves the wire: Python's gRPC and stubs made from our protos against the release binary.

Each class starts one server. The tests of a class do not depend on their order: what they change they name themselves or put back.
"""

import contextlib
import io
import json
import math
import os
import shutil
import tempfile
import unittest
import uuid

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from google.protobuf import descriptor_pb2, duration_pb2
from PIL import Image, ImageOps

import api
import server
from api import dataset, model, prediction, system, training

Code = grpc.StatusCode
SERVICES = ["visage.v1." + name for name in ("DatasetService", "ModelService", "PredictionService", "SystemService", "TrainingService")]
EPOCHS_WITHOUT_END = 10_000
MIB = 1 << 20
# Metrics follow a call at once, but for images that are being decoded when it ends.
METRICS_SECONDS = 30

faces = None


def setUpModule():
    global faces
    directory = tempfile.mkdtemp(prefix="visage-faces-")
    unittest.addModuleCleanup(shutil.rmtree, directory)
    faces = server.draw_faces(os.path.join(directory, "faces"), count=100, seed=1)


def spec(path=None, **fields):
    """A training that takes seconds: random weights and small images."""
    dataset = training.DatasetSpec(path=path or faces, validation_fraction=0.2)
    fields.setdefault("input_size", 64)
    return training.TrainingSpec(dataset=dataset, init=training.InitSpec(kind=training.INIT_KIND_RANDOM), **fields)


def endless():
    return spec(max_epochs=EPOCHS_WITHOUT_END, input_size=32, promote=training.PROMOTE_NEVER)


def kinds(events):
    return [event.WhichOneof("kind") for event in events]


def states(events):
    """The names of the states that a training went through, without their prefix."""
    changes = [event.state_changed.state for event in events if event.HasField("state_changed")]
    return [state_name(state) for state in changes]


def state_name(state):
    return training.TrainingState.Name(state)[len("TRAINING_STATE_"):]


def stop_reason(message):
    return training.StopReason.Name(message.stop_reason)[len("STOP_REASON_"):]


def clear_json_names(messages):
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        clear_json_names(message.nested_type)


def read_face(position):
    """The bytes of one of the drawn faces."""
    name = sorted(os.listdir(faces))[position]
    with open(os.path.join(faces, name), "rb") as file:
        return file.read()


def seconds_of_work():
    """As many images as a call may have, of 16 million pixels each, in 3 MB."""
    return 64 * [encoded(Image.new("RGB", (4000, 4000), (90, 60, 30)), "PNG")]


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


class ClientTest(unittest.TestCase):
    """A class of tests with one server."""

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
        """The call inside fails in this way; what it said can be read from the list that `with` gives."""
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
        """Starts a training that ends on request only, and at the latest with the test."""
        started = self.client.start(endless(), **fields)
        self.addCleanup(self.give_up, started.name)
        return started.name

    def give_up(self, name):
        try:
            self.cancel(name, force=True)
        except grpc.RpcError as error:
            if error.code() not in (Code.FAILED_PRECONDITION, Code.NOT_FOUND):  # It has ended, or is gone already.
                raise
        else:
            self.client.events(name)

    def follow_until(self, name, condition, **fields):
        """Returns the events up to the first that the condition is true of, and leaves the stream."""
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


class WithoutModelTest(ClientTest):
    """What a server says that has trained nothing yet; no test here starts a training."""

    # The server itself.

    def test_server_info_names_versions_limits_and_roots(self):
        info = self.client.system.GetServerInfo(system.GetServerInfoRequest())
        self.assertRegex(info.version, r"^\d+\.\d+\.\d+")
        self.assertRegex(info.libtorch_version, r"^2\.")
        self.assertRegex(info.device, r"^(cpu|cuda:\d+)$")
        self.assertGreaterEqual(info.threads, 1)
        self.assertEqual(info.limits.max_message_bytes, 16 * MIB)
        self.assertEqual(info.limits.max_image_bytes, 16 * MIB)
        self.assertEqual(info.limits.max_image_pixels, 50_000_000)
        self.assertEqual(info.limits.max_images_per_request, 64)
        self.assertEqual(info.limits.max_queued_images, 256)
        self.assertEqual(info.limits.max_queued_trainings, 100)
        self.assertEqual(info.limits.heartbeat_interval, duration_pb2.Duration(seconds=15))
        self.assertLessEqual({"annotate", "explain", "detect_faces"}, set(info.features))
        self.assertEqual((list(info.data_roots), list(info.weights_roots)), (["/"], ["/"]))
        self.assertGreater(info.start_time.seconds, 1_700_000_000)
        self.assertEqual(info.live_model, "")
        self.assertEqual(info.http_port, int(self.server.http_address.rsplit(":", 1)[1]))

    def test_health_is_told_for_each_service_and_prediction_does_not_serve_without_a_model(self):
        expected = {service: "SERVING" for service in [""] + SERVICES}
        expected["visage.v1.PredictionService"] = "NOT_SERVING"
        self.assertEqual({service: self.health_of(service) for service in expected}, expected)
        with self.refused(Code.NOT_FOUND):
            self.health_of("visage.v1.NoService")

    def test_reflection_lists_the_services_and_describes_them_as_the_protos_do(self):
        for version in ("v1", "v1alpha"):
            with self.subTest(version):
                # Both versions have the same messages, and the Python package brings one of them only.
                ask = self.client.channel.stream_stream(
                    "/grpc.reflection.{}.ServerReflection/ServerReflectionInfo".format(version),
                    request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                    response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)
                requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
                requests += [reflection_pb2.ServerReflectionRequest(file_containing_symbol=service) for service in SERVICES]
                listed, *described = ask(iter(requests))
                names = {service.name for service in listed.list_services_response.service}
                self.assertLessEqual(set(SERVICES) | {"grpc.health.v1.Health"}, names)
                for service, answer, module in zip(SERVICES, described, (dataset, model, prediction, system, training)):
                    ours = descriptor_pb2.FileDescriptorProto()
                    module.DESCRIPTOR.CopyToProto(ours)
                    files = [descriptor_pb2.FileDescriptorProto.FromString(file)
                             for file in answer.file_descriptor_response.file_descriptor_proto]
                    theirs = next(file for file in files if file.name == ours.name)
                    clear_json_names(theirs.message_type)  # Python leaves them out, because they follow from the names.
                    self.assertEqual(theirs.service, ours.service, service)
                    self.assertEqual(theirs.message_type, ours.message_type, service)

    def test_http_pages_answer(self):
        status, _, text = self.server.fetch("/livez")
        self.assertEqual((status, text), (200, "ok\n"))
        status, headers, text = self.server.fetch("/readyz")
        self.assertEqual((status, headers["content-type"]), (200, "application/json"))
        readiness = json.loads(text)
        self.assertTrue(readiness["ready"])
        self.assertEqual({component["name"] for component in readiness["components"]}, {"server", "model"})
        self.assertEqual(self.server.fetch("/")[0], 200)
        status, _, text = self.server.fetch("/endpoints")
        self.assertEqual(status, 200)
        for page in ("/metrics", "/livez", "/readyz"):
            self.assertIn(page, text)
        self.assertEqual(self.server.fetch("/nothing")[0], 404)
        self.assertEqual(self.server.fetch("/metrics", method="POST")[0], 405)

    def test_an_unknown_method_is_unimplemented(self):
        call = self.client.channel.unary_unary("/visage.v1.TrainingService/Nothing", request_serializer=bytes, response_deserializer=bytes)
        with self.refused(Code.UNIMPLEMENTED):
            call(b"")

    # Trainings.

    def test_a_dry_run_reports_dataset_and_needs_and_creates_nothing(self):
        request = training.StartTrainingRequest(spec=spec(batch_size=16), validate_only=True, display_name="a try", labels={"who": "me"})
        response = self.client.trainings.StartTraining(request)
        self.assertEqual((response.training.name, response.training.display_name), ("", "a try"))
        self.assertEqual(dict(response.training.labels), {"who": "me"})
        report = response.training.dataset
        images = {split.split: split.images for split in report.splits}
        self.assertEqual(set(images), {"train", "validation", "test"})
        self.assertEqual(sum(images.values()), 100)
        for split in report.splits:
            self.assertTrue(1 <= split.age_min <= split.age_mean <= split.age_max <= 90, split)
        self.assertRegex(report.digest, "^[0-9a-f]{64}$")
        self.assertRegex(report.val_digest, "^[0-9a-f]{64}$")
        self.assertEqual(response.estimate.steps_per_epoch, math.ceil(images["train"] / 16))
        self.assertGreater(response.estimate.memory_bytes, 100 * MIB)
        self.assertGreater(response.estimate.disk_bytes, 40 * MIB)
        self.assertEqual(len(self.list_trainings()), 0)

    def test_a_dry_run_fills_in_the_defaults_that_the_protos_name(self):
        asked = training.TrainingSpec(dataset=training.DatasetSpec(path=faces))
        resolved = self.client.start(asked, validate_only=True).resolved_spec
        expected = training.TrainingSpec(
            dataset=training.DatasetSpec(path=os.path.realpath(faces), validation_fraction=0.1, test_fraction=0.1, min_age=0, max_age=120,
                                         max_reject_share=0.2, split_grouping=training.SPLIT_GROUPING_EXACT),
            init=training.InitSpec(kind=training.INIT_KIND_IMAGENET1K_V1), trainable=["layer4", "fc"], max_epochs=10, batch_size=32,
            input_size=224, seed=42, promote=training.PROMOTE_IF_BETTER, head_bias=training.HEAD_BIAS_MEAN_AGE,
            optimizer=training.OptimizerSpec(learning_rate=1e-4, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0,
                                             kind=training.OPTIMIZER_KIND_ADAM, momentum=0.9),
            early_stopping=training.EarlyStoppingSpec(patience=0, min_delta=0), feature_cache=training.FEATURE_CACHE_AUTO,
            precision=training.PRECISION_AUTO, loss=training.LossSpec(kind=training.LOSS_KIND_MSE, beta=1),
            schedule=training.ScheduleSpec(kind=training.SCHEDULE_KIND_CONSTANT, warmup_epochs=0, min_factor=0, plateau_factor=0.1,
                                           plateau_patience=5),
            ema_decay=0, target_scale=training.TARGET_SCALE_YEARS,
            augmentation=training.AugmentationSpec(horizontal_flip=False, min_crop_area=1, brightness=0, contrast=0, saturation=0, erasing=0),
            batch_norm=training.BATCH_NORM_POLICY_UPDATE, monitor=training.METRIC_VAL_LOSS,
            restart_policy=training.RestartPolicy(max_restarts=3), on_oom=training.ON_OUT_OF_MEMORY_REDUCE_BATCH,
            checkpoint_interval=duration_pb2.Duration(seconds=300), recipe=training.RECIPE_REFERENCE)
        self.assertEqual(resolved, expected)

    def test_a_check_of_a_dataset_tells_what_is_twice_in_it(self):
        with tempfile.TemporaryDirectory() as directory:
            for part in ("train", "val"):
                os.mkdir(os.path.join(directory, part))
            names = sorted(os.listdir(faces))[:12]
            for index, name in enumerate(names):
                shutil.copy(os.path.join(faces, name), os.path.join(directory, "train" if index < 8 else "val", name))
            shutil.copy(os.path.join(faces, names[0]), os.path.join(directory, "val", names[0]))
            with Image.open(os.path.join(faces, names[1])) as image:
                ImageOps.mirror(image).save(os.path.join(directory, "train", "99_mirrored.png"))
            request = dataset.CheckDatasetRequest(dataset=training.DatasetSpec(path=directory))
            responses = list(self.client.datasets.CheckDataset(request))
            with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["near_distance", "dataset.path"]):
                list(self.client.datasets.CheckDataset(dataset.CheckDatasetRequest(near_distance=41)))
        self.assertEqual([response.WhichOneof("kind") for response in responses].count("report"), 1)
        report = responses[-1].report
        self.assertEqual({split.split: split.images for split in report.dataset.splits}, {"train": 9, "validation": 5, "test": 0})
        self.assertEqual((report.exact.groups, report.exact.straddling_groups, report.exact.conflicting_groups), (1, 1, 0))
        self.assertEqual([image.file for image in report.exact.listed[0].images], ["train/" + names[0], "val/" + names[0]])
        self.assertEqual((report.near.groups, report.near.straddling_groups), (1, 0))
        self.assertEqual([image.mirrored for image in report.near.listed[0].images], [False, True])
        self.assertFalse(report.HasField("outliers"))

    def test_a_recipe_fills_in_what_is_not_set_and_what_is_set_wins(self):
        asked = training.TrainingSpec(dataset=training.DatasetSpec(path=faces), recipe=training.RECIPE_BEST, max_epochs=3,
                                      augmentation=training.AugmentationSpec(horizontal_flip=False))
        resolved = self.client.start(asked, validate_only=True).resolved_spec
        self.assertEqual((resolved.recipe, resolved.max_epochs), (training.RECIPE_BEST, 3))
        self.assertEqual((resolved.init.kind, resolved.head_bias), (training.INIT_KIND_STARTER, training.HEAD_BIAS_KEEP))
        self.assertEqual(list(resolved.trainable), ["layer3", "layer4", "fc"])
        self.assertFalse(resolved.augmentation.horizontal_flip)
        self.assertLess(resolved.augmentation.min_crop_area, 1)
        # All of it is told: the resolved spec without its recipe is the same training.
        again = training.TrainingSpec()
        again.CopyFrom(resolved)
        again.ClearField("recipe")
        again = self.client.start(again, validate_only=True).resolved_spec
        again.recipe = training.RECIPE_BEST
        self.assertEqual(again, resolved)
        asked.recipe = 77
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["spec.recipe"]):
            self.client.start(asked, validate_only=True)

    def test_a_bad_spec_names_every_bad_field_at_once(self):
        bad = training.TrainingSpec(
            dataset=training.DatasetSpec(validation_fraction=0.95, max_reject_share=2),
            init=training.InitSpec(kind=training.INIT_KIND_PATH), trainable=["layer9"], max_epochs=0, batch_size=0, input_size=16,
            optimizer=training.OptimizerSpec(learning_rate=-1, beta1=1, epsilon=0), early_stopping=training.EarlyStoppingSpec(min_delta=-1),
            max_duration=duration_pb2.Duration(seconds=-1))
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS") as refusals:
            self.client.start(bad, request_id="no UUID", training_id="Not an id", display_name="x" * 257, labels={"": ""})
        expected = {
            "spec.dataset.path", "spec.dataset.validation_fraction", "spec.dataset.max_reject_share", "spec.init.path", "spec.trainable",
            "spec.max_epochs", "spec.batch_size", "spec.input_size", "spec.optimizer.learning_rate", "spec.optimizer.beta1",
            "spec.optimizer.epsilon", "spec.early_stopping.min_delta", "spec.max_duration", "request_id", "training_id", "display_name",
            "labels"}
        # Shares of 0.95 and 0.1 leave too little for training, which may be told of either of them.
        self.assertEqual(set(refusals[0].fields) - {"spec.dataset.test_fraction"}, expected)
        for violation in refusals[0].violations.field_violations:
            self.assertTrue(violation.description, violation.field)

    def test_a_dataset_that_is_not_there_is_told_together_with_the_other_bad_fields(self):
        bad = spec(path="/no/such/directory", batch_size=0, optimizer=training.OptimizerSpec(learning_rate=-1))
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS") as refusals:
            self.client.start(bad)
        self.assertEqual(set(refusals[0].fields), {"spec.dataset.path", "spec.batch_size", "spec.optimizer.learning_rate"})

    def test_a_missing_spec_and_an_unusable_dataset_are_invalid(self):
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["spec"]):
            self.client.trainings.StartTraining(training.StartTrainingRequest())
        with tempfile.TemporaryDirectory() as empty, self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["spec.dataset.path"]):
            self.client.start(spec(path=empty), validate_only=True)

    def test_trainings_that_do_not_exist_are_not_found(self):
        name = "trainings/nobody"
        calls = {
            "GetTraining": lambda: self.client.get(name), "StopTraining": lambda: self.stop(name),
            "CancelTraining": lambda: self.cancel(name), "DeleteTraining": lambda: self.delete(name),
            "StreamEpochMetrics": lambda: self.client.events(name),
            "ListEpochMetrics": lambda: self.client.trainings.ListEpochMetrics(training.ListEpochMetricsRequest(name=name)),
            "ListCheckpoints": lambda: self.client.trainings.ListCheckpoints(training.ListCheckpointsRequest(parent=name)),
            "DownloadCheckpoint": lambda: self.client.download(name + "/checkpoints/1"),
            "RegisterVersion": lambda: self.client.models.RegisterVersion(
                model.RegisterVersionRequest(checkpoint=name + "/checkpoints/best"))}
        for method, call in calls.items():
            with self.subTest(method), self.refused(Code.NOT_FOUND, "NOT_FOUND"):
                call()

    def test_names_of_another_form_are_invalid(self):
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["name"]):
            self.client.get("nobody")
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["name"]):
            self.client.download("trainings/nobody")
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["page_size"]):
            self.list_trainings(page_size=-1)
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["page_token"]):
            self.list_trainings(page_token="?")

    # Predictions.

    def test_predict_without_a_live_model_is_failed_precondition(self):
        with self.refused(Code.FAILED_PRECONDITION, "NO_LIVE_MODEL"):
            self.client.predict(read_face(0))

    def test_a_request_above_the_limit_is_refused_and_the_server_goes_on(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.client.predict(bytes(17 * MIB))
        self.assertIn(caught.exception.code(), (Code.RESOURCE_EXHAUSTED, Code.OUT_OF_RANGE), caught.exception.details())
        with self.refused(Code.FAILED_PRECONDITION, "NO_LIVE_MODEL"):  # Just below the limit it is read.
            self.client.predict(bytes(16 * MIB - 1024))

    # Models.

    def test_a_model_without_versions_is_an_empty_list(self):
        self.assertEqual(len(self.list_versions()), 0)
        self.assertEqual(len(self.client.models.ListAliasEvents(model.ListAliasEventsRequest()).events), 0)
        with self.refused(Code.NOT_FOUND, "NOT_FOUND"):
            self.client.models.GetModelVersion(model.GetModelVersionRequest(name="models/age/versions/1"))


class WithModelTest(ClientTest):
    """Two trainings: the first becomes live, the second is kept as version 2. Then what came of them is read and served."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        client = cls.server.client
        health = client.health.Watch(health_pb2.HealthCheckRequest(service="visage.v1.PredictionService"))
        cls.health = [next(health).status]
        cls.request = dict(spec=spec(max_epochs=3, batch_size=16, optimizer=training.OptimizerSpec(learning_rate=1e-3)),
                           request_id=str(uuid.uuid4()), training_id="first", display_name="The first", labels={"order": "1"})
        cls.started = client.start(**cls.request)
        # Two clients follow it live; the second one reads nothing before the end.
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

    def epochs(self):
        return [event.epoch_completed for event in self.read_late if event.HasField("epoch_completed")]

    # Starting.

    def test_a_started_training_is_queued_with_all_that_was_asked(self):
        self.assertEqual(self.started.name, "trainings/first")
        self.assertEqual(state_name(self.started.state), "QUEUED")
        self.assertEqual((self.started.queue_position, self.started.attempt), (1, 0))
        self.assertEqual((self.started.display_name, dict(self.started.labels)), ("The first", {"order": "1"}))
        self.assertEqual(self.started.spec, self.request["spec"])
        self.assertEqual(self.started.resolved_spec.batch_size, 16)
        self.assertEqual(self.started.resolved_spec.optimizer.beta2, 0.999)

    def test_a_repeated_request_id_returns_the_training_of_the_first_call(self):
        self.assertEqual(self.client.start(**self.request), self.first)
        self.assertEqual([listed.name for listed in self.list_trainings()], ["trainings/second", "trainings/first"])

    def test_a_request_id_with_another_spec_is_refused(self):
        with self.refused(Code.INVALID_ARGUMENT, "REQUEST_ID_REUSED"):
            self.client.start(**dict(self.request, spec=spec(max_epochs=4)))

    def test_a_training_id_that_is_taken_already_exists(self):
        with self.refused(Code.ALREADY_EXISTS, "ALREADY_EXISTS"):
            self.client.start(endless(), training_id="first")

    def test_trainings_are_listed_newest_first_in_pages_and_by_state(self):
        request = training.ListTrainingsRequest(page_size=1)
        newest = self.client.trainings.ListTrainings(request)
        self.assertEqual([listed.name for listed in newest.trainings], ["trainings/second"])
        request.page_token = newest.next_page_token
        oldest = self.client.trainings.ListTrainings(request)
        self.assertEqual((list(oldest.trainings), oldest.next_page_token), ([self.first], ""))
        self.assertEqual(len(self.list_trainings(states=[training.TRAINING_STATE_FAILED])), 0)
        self.assertEqual(len(self.list_trainings(states=[training.TRAINING_STATE_FAILED, training.TRAINING_STATE_SUCCEEDED])), 2)

    def test_a_dry_run_tells_the_time_from_the_pace_of_an_earlier_training(self):
        response = self.client.trainings.StartTraining(training.StartTrainingRequest(spec=spec(), validate_only=True))
        self.assertGreater(response.estimate.duration.ToNanoseconds(), 0)
        self.assertEqual(response.training.dataset.val_digest, self.first.dataset.val_digest)

    # Events.

    def test_a_stream_tells_the_whole_training_in_order(self):
        events = self.read_late
        self.assertEqual([event.sequence for event in events], list(range(1, len(events) + 1)))
        self.assertEqual({event.training for event in events}, {"trainings/first"})
        self.assertEqual(states(events), ["QUEUED", "PREPARING", "RUNNING", "SUCCEEDED"])
        self.assertEqual(kinds(events)[-3:], ["test_evaluated", "model_version_created", "state_changed"])
        told = [kind for kind in kinds(events) if kind not in ("state_changed", "checkpoint_saved")]
        self.assertEqual(told, ["dataset_scanned"] + 3 * ["epoch_completed"] + ["test_evaluated", "model_version_created"])
        running = next(event.sequence for event in events if event.state_changed.state == training.TRAINING_STATE_RUNNING)
        first_epoch = next(event.sequence for event in events if event.HasField("epoch_completed"))
        self.assertLess(running, first_epoch)
        self.assertEqual([event.attempt for event in events], [0] + (len(events) - 1) * [1])
        times = [event.event_time.ToNanoseconds() for event in events]
        self.assertEqual(times, sorted(times))
        self.assertEqual(len({event.resume_token for event in events} - {""}), len(events))
        self.assertEqual(stop_reason(events[-1].state_changed), "MAX_EPOCHS")

    def test_epochs_have_dense_numbers_and_plausible_figures(self):
        epochs = self.epochs()
        self.assertEqual([epoch.epoch for epoch in epochs], [1, 2, 3])
        images = {split.split: split.images for split in self.first.dataset.splits}
        best = math.inf
        for epoch in epochs:
            for years in (epoch.train_loss, epoch.val_loss, epoch.val_mae, epoch.train_mae):
                self.assertTrue(math.isfinite(years) and years > 0, epoch)
            self.assertTrue(math.isclose(epoch.val_rmse, math.sqrt(epoch.val_loss), rel_tol=1e-9), epoch)
            self.assertLessEqual(epoch.val_mae, epoch.val_rmse)
            self.assertLessEqual(epoch.train_mae, math.sqrt(epoch.train_loss))
            self.assertLess(epoch.val_mae, 120)
            self.assertEqual((epoch.train_images, epoch.val_images), (images["train"], images["validation"]))
            self.assertEqual((epoch.attempt, epoch.max_epochs, epoch.skipped_images), (1, 3, 0))
            self.assertEqual(epoch.learning_rate, 1e-3)
            self.assertGreater(epoch.images_per_second, 0)
            self.assertGreater(epoch.seconds.total, 0)
            self.assertEqual(epoch.is_best, epoch.val_loss < best, epoch)
            best = min(best, epoch.val_loss)

    def test_the_training_repeats_what_its_events_said(self):
        epochs = self.epochs()
        self.assertEqual(self.first.last, epochs[-1])
        self.assertEqual(self.first.best, min(epochs, key=lambda epoch: epoch.val_loss))
        self.assertEqual(self.first.last_sequence, self.read_late[-1].sequence)
        self.assertEqual(stop_reason(self.first), "MAX_EPOCHS")
        self.assertEqual((self.first.model_version, self.first.attempt, self.first.queue_position), ("models/age/versions/1", 1, 0))
        for event in self.read_late:
            if event.HasField("dataset_scanned"):
                self.assertEqual(event.dataset_scanned, self.first.dataset)
            if event.HasField("test_evaluated"):
                self.assertEqual(event.test_evaluated, self.first.test)
            if event.HasField("model_version_created"):
                self.assertEqual(event.model_version_created.model_version, self.first.model_version)
                self.assertTrue(event.model_version_created.promoted)
        times = [moment.ToNanoseconds() for moment in (self.first.create_time, self.first.start_time, self.first.end_time)]
        self.assertEqual(times, sorted(times))

    def test_the_test_evaluation_is_consistent(self):
        found = self.first.test
        images = {split.split: split.images for split in self.first.dataset.splits}
        self.assertEqual(found.images, images["test"])
        self.assertTrue(math.isclose(found.rmse, math.sqrt(found.mse), rel_tol=1e-9), found)
        self.assertLessEqual(found.mae, found.rmse)
        self.assertTrue(0 <= found.cs5 <= 1, found)
        self.assertGreater(found.baseline_mae, 0)
        by_age = [group for group in found.groups if group.key == "age"]
        self.assertEqual(sum(group.images for group in by_age), found.images)

    def test_progress_reports_have_no_sequence_and_are_not_stored(self):
        reports = [event for event in self.watched if event.HasField("progress")]
        self.assertGreater(len(reports), 0)
        for event in reports:
            self.assertEqual((event.training, event.sequence, event.resume_token), ("trainings/first", 0, ""))
            self.assertIn(event.progress.phase, ("scan", "load", "train", "validate", "checkpoint", "test"))
            self.assertTrue(0 <= event.progress.epoch <= 3 and event.progress.max_epochs == 3, event)
            self.assertTrue(0 <= event.progress.fraction <= 1, event)
            self.assertLessEqual(event.progress.step, event.progress.steps)
        self.assertEqual([event for event in self.watched if not event.HasField("progress")], self.read_late)

    def test_a_client_that_comes_back_gets_exactly_the_rest(self):
        for position in range(len(self.read_late) + 1):
            self.assertEqual(self.client.events("trainings/first", after_sequence=position), self.read_late[position:])
        middle = self.read_late[4]
        self.assertEqual(self.client.events("trainings/first", resume_token=middle.resume_token), self.read_late[5:])
        self.assertEqual(self.client.events("trainings/first", follow=False), self.read_late)

    def test_pages_of_events_join_to_the_stream(self):
        for size in (1, 3, len(self.read_late), 1000):
            request = training.ListEpochMetricsRequest(name="trainings/first", page_size=size)
            joined, pages = [], 0
            while pages == 0 or request.page_token:
                page = self.client.trainings.ListEpochMetrics(request)
                self.assertLessEqual(len(page.events), size)
                joined.extend(page.events)
                request.page_token, pages = page.next_page_token, pages + 1
            self.assertEqual(joined, self.read_late, size)
        request = training.ListEpochMetricsRequest(name="trainings/first", page_size=2, after_sequence=5)
        self.assertEqual(list(self.client.trainings.ListEpochMetrics(request).events), self.read_late[5:7])

    def test_a_cursor_ahead_of_the_head_is_out_of_range(self):
        ahead = self.first.last_sequence + 1
        with self.refused(Code.OUT_OF_RANGE, "CURSOR_AHEAD"):
            self.client.events("trainings/first", after_sequence=ahead)
        with self.refused(Code.OUT_OF_RANGE, "CURSOR_AHEAD"):
            self.client.trainings.ListEpochMetrics(training.ListEpochMetricsRequest(name="trainings/first", after_sequence=ahead))

    def test_bad_tokens_and_intervals_are_invalid(self):
        with self.refused(Code.INVALID_ARGUMENT, fields=["resume_token"]):
            self.client.events("trainings/-", resume_token="no token")
        with self.refused(Code.INVALID_ARGUMENT, fields=["after_sequence"]):
            self.client.events("trainings/-", after_sequence=1)
        for nanos in (99_000_000, -1):
            with self.refused(Code.INVALID_ARGUMENT, fields=["heartbeat_interval"]):
                self.client.events("trainings/first", heartbeat_interval=duration_pb2.Duration(nanos=nanos))

    def test_all_trainings_are_followed_with_a_token_and_heartbeats(self):
        interval = duration_pb2.Duration(nanos=100_000_000)

        def follow(**fields):
            """The events up to the head, which three heartbeats show to be it."""
            events, beats = [], []
            stream = self.client.stream("trainings/-", heartbeat_interval=interval, **fields)
            while len(beats) < 3:
                event = next(stream).event
                (beats if event.HasField("heartbeat") else events).append(event)
            stream.cancel()
            for beat in beats:
                self.assertEqual((beat.training, beat.sequence, beat.resume_token), ("", 0, ""))
            times = [beat.event_time.ToNanoseconds() for beat in beats]
            for earlier, later in zip(times, times[1:]):
                self.assertGreater(later - earlier, 90_000_000)
            return events

        every = follow()
        for name, expected in (("trainings/first", self.read_late), ("trainings/second", self.client.events("trainings/second"))):
            self.assertEqual([event for event in every if event.training == name], expected)
        middle = len(every) // 2
        self.assertEqual(follow(resume_token=every[middle].resume_token), every[middle + 1:])
        request = training.ListEpochMetricsRequest(name="trainings/-", page_size=1000)
        self.assertEqual(list(self.client.trainings.ListEpochMetrics(request).events), every)

    # Checkpoints.

    def test_the_best_checkpoint_is_listed_and_downloads_whole(self):
        request = training.ListCheckpointsRequest(parent="trainings/first")
        checkpoints = self.client.trainings.ListCheckpoints(request).checkpoints
        epochs = [checkpoint.epoch for checkpoint in checkpoints]
        self.assertEqual(epochs, sorted(epochs, reverse=True))
        best = [checkpoint for checkpoint in checkpoints if checkpoint.best]
        self.assertEqual([checkpoint.epoch for checkpoint in best], [self.first.best.epoch])
        self.assertEqual(best[0].name, "trainings/first/checkpoints/{}".format(self.first.best.epoch))
        self.assertEqual((best[0].val_loss, best[0].val_mae), (self.first.best.val_loss, self.first.best.val_mae))
        self.assertEqual({file.name for file in best[0].files}, {"model.safetensors", "manifest.json"})
        for file in best[0].files:
            for name in (best[0].name, "trainings/first/checkpoints/best"):
                described, content, chunks = self.client.download(name, file.name)
                self.assertEqual(described, file)
                self.assertLessEqual(max(chunks), MIB)
                self.assertGreater(len(content), 100)
                if name == best[0].name:
                    self.assertEqual(self.client.download_version("models/age/versions/1", file.name)[1], content)
        self.assertEqual(self.client.download(best[0].name)[0].name, "model.safetensors")
        self.assertEqual(self.client.download_version("models/age/versions/1")[0].name, "model.safetensors")

    def test_the_manifest_says_where_the_weights_come_from(self):
        weights = self.client.download("trainings/first/checkpoints/best")[0]
        manifest = json.loads(self.client.download("trainings/first/checkpoints/best", "manifest.json")[1])
        self.assertEqual((manifest["format_version"], manifest["architecture"]), (1, "resnet18"))
        self.assertEqual((manifest["training"], manifest["epoch"]), ("trainings/first", self.first.best.epoch))
        self.assertEqual(manifest["input"]["size"], 64)
        self.assertEqual(manifest["sha256"], {"model.safetensors": weights.sha256})
        self.assertEqual(manifest["dataset"]["digest"], self.first.dataset.digest)

    def test_a_checkpoint_or_file_that_does_not_exist_is_not_found(self):
        with self.refused(Code.NOT_FOUND, "NOT_FOUND"):
            self.client.download("trainings/first/checkpoints/99")
        with self.refused(Code.NOT_FOUND):
            self.client.download("trainings/first/checkpoints/best", "nothing.bin")
        with self.refused(Code.NOT_FOUND, "NOT_FOUND"):
            self.client.download_version("models/age/versions/99")
        with self.refused(Code.NOT_FOUND):
            self.client.download_version("models/age/versions/1", "nothing.bin")
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["name"]):
            self.client.download_version("trainings/first")

    # Predictions.

    def test_several_images_are_predicted_in_order_and_as_alone(self):
        images = [read_face(position) for position in (0, 40, 80)]
        response = self.client.predict(*images)
        self.assertEqual(response.model_version, "models/age/versions/1")
        ages = [predicted.age for predicted in response.predictions]
        self.assertEqual(len(set(ages)), 3)
        for predicted in response.predictions:
            self.assertTrue(0 <= predicted.age <= 120, predicted)
            self.assertTrue(0 <= predicted.interval.lower <= predicted.age <= predicted.interval.upper, predicted)
            self.assertEqual(predicted.interval.confidence, 0.9)
            self.assertEqual((predicted.width, predicted.height, predicted.annotated_png), (96, 96, b""))
        durations = {field.name: getattr(response.durations, field.name).ToNanoseconds()
                     for field in prediction.PredictDurations.DESCRIPTOR.fields}
        for name in ("decode", "inference", "total"):
            self.assertGreater(durations[name], 0, name)
        self.assertEqual(max(durations.values()), durations["total"])
        for image, age in zip(images, ages):
            self.assertAlmostEqual(self.client.ages(image)[0], age, delta=1e-3)  # Another size of the batch rounds differently.

    def test_a_version_is_predicted_with_by_number_and_by_alias(self):
        face = read_face(10)
        by_number = self.client.predict(face, model="models/age/versions/1")
        by_alias = self.client.predict(face, model="models/age/versions/live")
        other = self.client.predict(face, model="models/age/versions/2")
        self.assertEqual(by_alias.model_version, by_number.model_version)
        self.assertAlmostEqual(by_alias.predictions[0].age, by_number.predictions[0].age, delta=1e-3)
        self.assertEqual(other.model_version, "models/age/versions/2")
        self.assertNotAlmostEqual(other.predictions[0].age, by_number.predictions[0].age, delta=1e-2)

    def test_versions_that_do_not_exist_are_not_found_and_other_names_invalid(self):
        for version in ("3", "nobody"):
            with self.refused(Code.NOT_FOUND, "NOT_FOUND"):
                self.client.predict(read_face(0), model="models/age/versions/" + version)
        for name in ("models/age", "age", "models/age/versions/0"):
            with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["model"]):
                self.client.predict(read_face(0), model=name)

    def test_every_format_of_the_same_image_gives_the_same_age(self):
        image = Image.open(io.BytesIO(read_face(20))).convert("RGB")
        lossless = [encoded(image, "PNG"), encoded(image, "BMP"), encoded(image, "WEBP", lossless=True)]
        ages = self.client.ages(*lossless)
        for age in ages[1:]:
            self.assertAlmostEqual(age, ages[0], delta=1e-3)
        # Decoders of JPEG may round by a level.
        self.assertAlmostEqual(self.client.ages(read_face(20))[0], ages[0], delta=0.2)

    def test_annotated_images_have_their_size_and_differ_below_only(self):
        image = Image.open(io.BytesIO(read_face(30))).convert("RGB").resize((180, 120))
        predicted = self.client.predict(encoded(image, "PNG"), read_face(31), annotate=True).predictions
        drawn = [Image.open(io.BytesIO(one.annotated_png)) for one in predicted]
        self.assertEqual([(one.format, one.size) for one in drawn], [("PNG", (180, 120)), ("PNG", (96, 96))])
        upper = (0, 0, 180, 60)
        self.assertEqual(drawn[0].convert("RGB").crop(upper).tobytes(), image.crop(upper).tobytes())
        self.assertNotEqual(drawn[0].convert("RGB").tobytes(), image.tobytes())

    def test_faces_of_a_photograph_are_found_and_each_has_an_age_and_an_explanation(self):
        # The detector knows adults best.
        directory = server.draw_faces(self.server.path("portraits"), count=12, seed=8, size=200)
        adults = [name for name in sorted(os.listdir(directory)) if 25 <= int(name.split("_")[0]) <= 70]
        photograph = Image.new("RGB", (700, 400), (120, 130, 140))
        for name, place in zip(adults, ((60, 50), (420, 150))):
            photograph.paste(Image.open(os.path.join(directory, name)), place)
        wall = Image.new("RGB", (300, 200), (90, 90, 90))
        answer = self.client.predict(encoded(photograph, "PNG"), encoded(wall, "PNG"), detect_faces=True, explain=True)
        with_faces, without = answer.predictions
        self.assertEqual(with_faces.face_detection, prediction.FACE_DETECTION_FOUND)
        self.assertEqual(sorted((face.box.left + face.box.width // 2) // 350 for face in with_faces.faces), [0, 1])
        self.assertEqual(with_faces.age, with_faces.faces[0].age)
        for face in with_faces.faces:
            box = face.box
            cut = photograph.crop((box.left, box.top, box.left + box.width, box.top + box.height))
            self.assertAlmostEqual(self.client.ages(encoded(cut, "PNG"))[0], face.age, delta=1e-3)
            self.assertAlmostEqual(sum(face.explanation.years) + face.explanation.base_years, face.age, delta=1e-3)
            self.assertEqual(Image.open(io.BytesIO(face.explanation_png)).format, "PNG")
        self.assertEqual((without.face_detection, len(without.faces)), (prediction.FACE_DETECTION_NO_FACE, 0))
        self.assertTrue(math.isnan(without.age))
        self.assertFalse(without.HasField("interval"))

    def test_a_image_is_turned_upright_as_its_exif_orientation_says(self):
        upright = Image.open(io.BytesIO(read_face(50))).convert("RGB").resize((160, 112))
        reference = self.client.ages(encoded(upright, "PNG"))[0]
        turn = Image.Transpose
        # What a camera would store for each orientation: the inverse of what a viewer does.
        stored = {2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE, 6: turn.ROTATE_90,
                  7: turn.TRANSVERSE, 8: turn.ROTATE_270}
        for orientation, how in sorted(stored.items()):
            turned = upright.transpose(how)
            exif = Image.Exif()
            exif[0x0112] = orientation
            viewed = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(turned, "PNG", exif=exif))))
            self.assertEqual(viewed.tobytes(), upright.tobytes())
            forms = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
            for form, options in forms.items():
                with self.subTest(orientation=orientation, form=form):
                    predicted = self.client.predict(encoded(turned, form, exif=exif, **options), annotate=True).predictions[0]
                    self.assertEqual((predicted.width, predicted.height), upright.size)
                    # Only JPEG loses something: at this quality a level or two, which is far below what a wrong turn does.
                    self.assertAlmostEqual(predicted.age, reference, delta=0.2 if form == "JPEG" else 1e-3)
                    drawn = Image.open(io.BytesIO(predicted.annotated_png)).convert("RGB")
                    upper = (0, 0, upright.width, upright.height // 2)
                    worst = max(abs(ours - theirs) for ours, theirs in zip(drawn.crop(upper).tobytes(), upright.crop(upper).tobytes()))
                    self.assertLessEqual(worst, 12 if form == "JPEG" else 0)

    def test_a_bad_image_is_named_by_its_index(self):
        face = read_face(0)
        bad = {"nothing": b"", "text": b"hello", "half a JPEG": face[:len(face) // 2], "a GIF": encoded(Image.new("RGB", (9, 9)), "GIF"),
               "too many pixels": encoded(Image.new("1", (8000, 8000)), "PNG")}
        for name, image in bad.items():
            with self.subTest(name), self.refused(Code.INVALID_ARGUMENT, "INVALID_IMAGE", ["images[1]"]) as refusals:
                self.client.predict(face, image, face)
            self.assertEqual(refusals[0].info.metadata["index"], "1")

    def test_no_image_and_too_many_are_invalid(self):
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["images"]):
            self.client.predict()
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["images"]):
            self.client.predict(*65 * [read_face(0)])
        self.assertEqual(len(self.client.ages(*64 * [read_face(0)])), 64)

    def until_none_waits(self):
        """A call that finds others waiting is refused at once if its deadline is too soon for both."""
        server.wait_for(lambda: self.server.metrics()["visage_predict_queue_depth"] == 0, "no image is said to wait", seconds=METRICS_SECONDS)

    def test_a_deadline_that_passes_ends_the_call_and_drops_its_work(self):
        series = ['visage_predict_images_total{{outcome="{}"}}'.format(outcome) for outcome in ("cancelled", "expired")]
        self.until_none_waits()
        before = self.server.metrics()
        with self.refused(Code.DEADLINE_EXCEEDED):
            self.client.predict(*seconds_of_work(), timeout=0.2)
        self.assertEqual(len(self.client.ages(read_face(0))), 1)

        def dropped():
            now = self.server.metrics()
            return sum(now[one] - before[one] for one in series) > 0

        server.wait_for(dropped, "images were dropped", seconds=METRICS_SECONDS)

    def test_every_image_is_counted_when_a_deadline_passes(self):
        series = ['visage_predict_images_total{{outcome="{}"}}'.format(outcome) for outcome in ("ok", "cancelled", "expired")]
        self.until_none_waits()
        before = self.server.metrics()
        with self.assertRaises(grpc.RpcError):
            self.client.predict(*seconds_of_work(), timeout=0.5)

        def all_counted():
            now = self.server.metrics()
            return sum(now[one] - before[one] for one in series) >= 64

        server.wait_for(all_counted, "each of 64 images is counted", seconds=METRICS_SECONDS)

    def test_the_server_itself_ends_a_call_whose_deadline_passes(self):
        # The header of a client with a deadline, from one that waits on: only the server can end the call. Several timers may end it.
        request = prediction.PredictRequest(images=seconds_of_work())
        for _ in range(5):
            self.until_none_waits()
            with self.refused(Code.DEADLINE_EXCEEDED):
                self.client.predictions.Predict(request, metadata=[("grpc-timeout", "200m")])

    def test_no_image_is_said_to_wait_once_all_calls_have_ended(self):
        self.client.predict(read_face(0))
        self.until_none_waits()
        with self.assertRaises(grpc.RpcError):
            self.client.predict(*seconds_of_work(), timeout=0.2)
        self.until_none_waits()

    def test_calls_beyond_the_queue_are_refused_at_once_with_a_time_to_come_back(self):
        # Four of them fill the queue of 256 images for seconds.
        request = prediction.PredictRequest(images=seconds_of_work())
        calls = [self.client.predictions.Predict.future(request) for _ in range(8)]
        failed = server.wait_for(lambda: [call for call in calls if call.done() and call.code() != Code.OK], "a call is refused")
        refusal = api.Refusal(failed[0])
        for call in calls:
            call.cancel()
        self.assertEqual((refusal.code, refusal.reason), (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL"), refusal)
        self.assertGreater(refusal.retry.retry_delay.ToNanoseconds(), 0)

        def is_served():
            try:
                return self.client.ages(read_face(0))
            except grpc.RpcError as error:
                self.assertEqual(error.code(), Code.RESOURCE_EXHAUSTED)

        server.wait_for(is_served, "an image is taken again")

    # Models.

    def copies(self, *trainings):
        """Versions of the trainings' best checkpoints under a model of the test's own; returns its name."""
        parent = "models/m" + uuid.uuid4().hex
        for position, name in enumerate(trainings):
            request = model.RegisterVersionRequest(checkpoint=name + "/checkpoints/best", parent=parent)
            version = self.client.models.RegisterVersion(request).version
            self.assertEqual((version.name, version.version), ("{}/versions/{}".format(parent, position + 1), position + 1))
        return parent

    def set_alias(self, parent, version, alias, **fields):
        request = model.SetAliasRequest(name="{}/versions/{}".format(parent, version), alias=alias, **fields)
        return self.client.models.SetAlias(request).version

    def aliases_of(self, parent):
        return {alias: version.version for version in self.list_versions(parent=parent) for alias in version.aliases}

    def alias_events(self, parent):
        events = self.client.models.ListAliasEvents(model.ListAliasEventsRequest(parent=parent)).events
        for event in events:
            self.assertEqual(event.model, parent)
        times = [event.event_time.ToNanoseconds() for event in events]
        self.assertEqual(times, sorted(times, reverse=True))
        return [(event.alias, event.from_version, event.to_version, event.cause) for event in events]

    def test_a_training_makes_a_version_and_the_first_becomes_live(self):
        newest, oldest = self.list_versions(parent="models/age")
        self.assertEqual((newest.name, oldest.name), ("models/age/versions/2", "models/age/versions/1"))
        self.assertEqual((list(newest.aliases), list(oldest.aliases)), ([], ["live"]))
        self.assertEqual(self.alias_events("models/age")[-1], ("live", 0, 1, "promote"))
        for version, source in ((oldest, self.first), (newest, self.second)):
            self.assertEqual(version.checkpoint, "{}/checkpoints/{}".format(source.name, source.best.epoch))
            self.assertEqual((version.spec, version.metrics, version.test), (source.resolved_spec, source.best, source.test))
            self.assertEqual((version.dataset_digest, version.val_digest), (source.dataset.digest, source.dataset.val_digest))
            self.assertEqual(version.input_size, 64)
            self.assertEqual({file.name for file in version.files}, {"model.safetensors", "manifest.json"})
        for name in ("1", "live"):
            request = model.GetModelVersionRequest(name="models/age/versions/" + name)
            self.assertEqual(self.client.models.GetModelVersion(request).version, oldest)
        self.assertEqual(self.client.system.GetServerInfo(system.GetServerInfoRequest()).live_model, "models/age/versions/1")

    def test_versions_are_listed_in_pages(self):
        request = model.ListModelVersionsRequest(page_size=1)
        newest = self.client.models.ListModelVersions(request)
        request.page_token = newest.next_page_token
        oldest = self.client.models.ListModelVersions(request)
        self.assertEqual([version.version for page in (newest, oldest) for version in page.versions], [2, 1])
        self.assertEqual(oldest.next_page_token, "")

    def test_live_goes_back_to_an_older_version_and_previous_follows(self):
        parent = self.copies("trainings/first", "trainings/second")
        face, live = read_face(0), parent + "/versions/live"
        with self.refused(Code.FAILED_PRECONDITION, "NO_LIVE_MODEL"):
            self.client.predict(face, model=live)
        self.set_alias(parent, 1, "live")
        self.assertEqual(self.aliases_of(parent), {"live": 1})
        self.assertEqual(list(self.set_alias(parent, 2, "live").aliases), ["live"])
        self.assertEqual(self.aliases_of(parent), {"live": 2, "previous": 1})
        self.assertEqual(self.client.predict(face, model=live).model_version, parent + "/versions/2")
        self.set_alias(parent, "previous", "live")
        self.assertEqual(self.aliases_of(parent), {"live": 1, "previous": 2})
        answer = self.client.predict(face, model=live)
        self.assertEqual(answer.model_version, parent + "/versions/1")
        self.assertAlmostEqual(answer.predictions[0].age, self.client.ages(face, model="models/age/versions/1")[0], delta=1e-3)
        # Setting it again changes nothing and is no event. Of a change and the move of `previous` with it either may stand first.
        self.set_alias(parent, 1, "live")
        events = self.alias_events(parent)
        self.assertEqual(sorted(events[0:2]), [("live", 2, 1, "set"), ("previous", 1, 2, "set")])
        self.assertEqual(sorted(events[2:4]), [("live", 1, 2, "set"), ("previous", 0, 1, "set")])
        self.assertEqual(events[4:], [("live", 0, 1, "set")])

    def test_an_alias_moves_only_from_the_version_that_was_expected(self):
        parent = self.copies("trainings/first", "trainings/second")
        with self.refused(Code.ABORTED, "ALIAS_MOVED"):
            self.set_alias(parent, 1, "live", expected_version=2)
        self.set_alias(parent, 1, "live", expected_version=0)
        for expected in (0, 2):
            with self.refused(Code.ABORTED, "ALIAS_MOVED"):
                self.set_alias(parent, 2, "live", expected_version=expected)
        self.assertEqual(self.aliases_of(parent), {"live": 1})
        self.set_alias(parent, 2, "live", expected_version=1)
        self.assertEqual(self.aliases_of(parent), {"live": 2, "previous": 1})

    def test_other_aliases_are_free(self):
        parent = self.copies("trainings/first", "trainings/second")
        self.set_alias(parent, 1, "candidate-7")
        self.set_alias(parent, 2, "candidate-7")
        self.assertEqual(self.aliases_of(parent), {"candidate-7": 2})
        self.assertEqual(self.client.predict(read_face(0), model=parent + "/versions/candidate-7").model_version, parent + "/versions/2")
        self.client.models.DeleteAlias(model.DeleteAliasRequest(parent=parent, alias="candidate-7"))
        self.assertEqual(self.aliases_of(parent), {})
        expected = [("candidate-7", 2, 0, "delete"), ("candidate-7", 1, 2, "set"), ("candidate-7", 0, 1, "set")]
        self.assertEqual(self.alias_events(parent), expected)
        with self.refused(Code.NOT_FOUND, "NOT_FOUND"):
            self.client.models.DeleteAlias(model.DeleteAliasRequest(parent=parent, alias="candidate-7"))
        with self.refused(Code.NOT_FOUND, "NOT_FOUND"):
            self.client.predict(read_face(0), model=parent + "/versions/candidate-7")

    def test_bad_aliases_and_names_are_invalid_and_unknown_versions_not_found(self):
        for alias in ("", "7", "Live", "a_b", "a" * 64):
            with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["alias"]):
                self.set_alias("models/age", 1, alias)
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["name"]):
            self.client.models.SetAlias(model.SetAliasRequest(name="models/age", alias="free"))
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["parent"]):
            self.list_versions(parent="age")
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS", ["checkpoint"]):
            self.client.models.RegisterVersion(model.RegisterVersionRequest(checkpoint="trainings/first"))
        with self.refused(Code.NOT_FOUND, "NOT_FOUND"):
            self.set_alias("models/age", 9, "free")

    def test_health_of_prediction_follows_the_live_alias(self):
        status = health_pb2.HealthCheckResponse
        self.assertEqual(self.health, [status.NOT_SERVING, status.SERVING])  # Before and after the first training.
        self.assertEqual(self.health_of("visage.v1.PredictionService"), "SERVING")
        health = self.client.health.Watch(health_pb2.HealthCheckRequest(service="visage.v1.PredictionService"))
        self.addCleanup(health.cancel)
        self.assertEqual(next(health).status, status.SERVING)
        self.addCleanup(self.set_alias, "models/age", 1, "live")
        self.client.models.DeleteAlias(model.DeleteAliasRequest(alias="live"))
        self.assertEqual(next(health).status, status.NOT_SERVING)
        with self.refused(Code.FAILED_PRECONDITION, "NO_LIVE_MODEL"):
            self.client.predict(read_face(0))
        self.assertEqual(len(self.client.ages(read_face(0), model="models/age/versions/1")), 1)
        self.set_alias("models/age", 1, "live")
        self.assertEqual(next(health).status, status.SERVING)
        self.assertEqual(len(self.client.ages(read_face(0))), 1)

    def test_a_watch_of_the_health_is_told_of_changes_only(self):
        health = self.client.health.Watch(health_pb2.HealthCheckRequest(service="visage.v1.PredictionService"))
        self.addCleanup(health.cancel)
        told = [next(health).status]
        self.set_alias("models/age", 2, "candidate")
        self.client.models.DeleteAlias(model.DeleteAliasRequest(alias="candidate"))
        self.addCleanup(self.set_alias, "models/age", 1, "live")
        self.client.models.DeleteAlias(model.DeleteAliasRequest(alias="live"))
        while told[-1] != health_pb2.HealthCheckResponse.NOT_SERVING:
            told.append(next(health).status)
        self.assertEqual(len(told), 2, "serving was told again when another alias moved")

    # Metrics.

    def test_calls_are_counted_by_method_and_code(self):
        before = self.server.metrics()
        self.client.predict(read_face(0), read_face(1))
        with self.refused(Code.INVALID_ARGUMENT):
            self.client.predict()
        with self.refused(Code.NOT_FOUND):
            self.client.get("trainings/nobody")
        self.client.events("trainings/first")
        expected = {
            'visage_rpc_requests_total{method="visage.v1.PredictionService/Predict",code="ok"}': 1,
            'visage_rpc_requests_total{method="visage.v1.PredictionService/Predict",code="invalid_argument"}': 1,
            'visage_rpc_requests_total{method="visage.v1.TrainingService/GetTraining",code="not_found"}': 1,
            'visage_rpc_requests_total{method="visage.v1.TrainingService/StreamEpochMetrics",code="ok"}': 1,
            'visage_rpc_duration_seconds_count{method="visage.v1.PredictionService/Predict"}': 2,
            'visage_predict_images_total{outcome="ok"}': 2,
            "visage_predict_decode_seconds_count": 2}

        def counted():
            now = self.server.metrics()
            return {series: now[series] - before[series] for series in expected} == expected

        server.wait_for(counted, "the calls are counted as {}".format(expected), seconds=METRICS_SECONDS)

    def test_metrics_tell_what_was_trained_and_is_served(self):
        now = self.server.metrics()
        self.assertEqual(now['visage_trainings_finished_total{stop_reason="max_epochs"}'], 2)
        self.assertEqual(now['visage_trainings{state="succeeded"}'], 2)
        self.assertEqual(now["visage_training_images_total"], 3 * self.first.last.train_images + 2 * self.second.last.train_images)
        self.assertEqual(now['visage_training_loss_square_years{split="validation"}'], self.second.last.val_loss)
        self.assertEqual(now["visage_training_mae_years"], self.second.last.val_mae)
        self.assertEqual(now['visage_live_model_info{model="age",version="1"}'], 1)

    def test_versions_of_all_models_are_counted(self):
        before = self.server.metrics()["visage_model_versions"]
        self.copies("trainings/first", "trainings/second")
        self.assertEqual(self.server.metrics()["visage_model_versions"] - before, 2)

    def test_every_metric_has_help_and_type(self):
        status, headers, text = self.server.fetch("/metrics")
        self.assertEqual((status, headers["content-type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        described = {"HELP": set(), "TYPE": set()}
        for line in text.splitlines():
            if line.startswith("# "):
                _, what, name, said = line.split(" ", 3)
                self.assertTrue(said.strip(), line)
                described[what].add(name)
        self.assertEqual(described["HELP"], described["TYPE"])
        for series in self.server.metrics():
            name = series.split("{")[0]
            family = next((name[:-len(end)] for end in ("_bucket", "_sum", "_count") if name.endswith(end)), name)
            self.assertTrue({name, family} & described["HELP"], series)


class StarterTest(ClientTest):
    """A server that has trained nothing, with the face model that is part of the program."""

    OPTIONS = ("--starter",)

    def test_the_first_call_is_a_prediction_and_the_version_says_where_it_is_from(self):
        self.assertEqual(self.health_of("visage.v1.PredictionService"), "SERVING")
        answer = self.client.predict(read_face(0))
        self.assertEqual(answer.model_version, "models/age/versions/1")
        self.assertTrue(math.isfinite(answer.predictions[0].age))
        with open(os.path.join(api.REPOSITORY, "assets", "starter", "manifest.json"), encoding="utf-8") as file:
            manifest = json.load(file)
        self.assertEqual(answer.predictions[0].HasField("interval"), manifest["calibration"] is not None)
        live = self.client.models.GetModelVersion(model.GetModelVersionRequest(name="models/age/versions/live")).version
        self.assertEqual((live.origin, live.checkpoint, list(live.aliases)), (model.VERSION_ORIGIN_STARTER, "", ["live"]))
        files = {file.name: file.sha256 for file in live.files}
        self.assertEqual(files["model.safetensors"], manifest["sha256"]["model.safetensors"])
        self.assertAlmostEqual(live.metrics.val_mae, manifest["metrics"]["val_mae"], places=9)
        events = self.client.models.ListAliasEvents(model.ListAliasEventsRequest()).events
        self.assertEqual([(event.alias, event.from_version, event.to_version, event.cause) for event in events], [("live", 0, 1, "starter")])


class ControlTest(ClientTest):
    """Trainings that are stopped, cancelled and deleted. None becomes live."""

    OPTIONS = ("--max-queued-trainings", "2")

    def test_a_stop_after_an_epoch_keeps_the_best_checkpoint_as_a_version(self):
        name = self.start_endless()
        self.follow_to_first_epoch(name)
        self.assertIn(state_name(self.stop(name).state), ("STOPPING", "SUCCEEDED"))
        try:
            self.stop(name)  # A second call is a no-op.
        except grpc.RpcError as error:
            self.assertEqual(error.code(), Code.FAILED_PRECONDITION)  # It came too late.
        events = self.client.events(name)
        self.assertEqual(states(events), ["QUEUED", "PREPARING", "RUNNING", "STOPPING", "SUCCEEDED"])
        ended = self.client.get(name)
        self.assertEqual(stop_reason(ended), "USER_STOP")
        epochs = [event.epoch_completed for event in events if event.HasField("epoch_completed")]
        self.assertEqual([epoch.epoch for epoch in epochs], list(range(1, len(epochs) + 1)))
        self.assertEqual(ended.best, min(epochs, key=lambda epoch: epoch.val_loss))
        created = next(event.model_version_created for event in events if event.HasField("model_version_created"))
        self.assertEqual((created.model_version, created.promoted), (ended.model_version, False))
        self.assertEqual(len(self.client.ages(read_face(0), model=ended.model_version)), 1)
        with self.refused(Code.FAILED_PRECONDITION, "NO_LIVE_MODEL"):
            self.client.predict(read_face(0))
        for late in (self.stop, self.cancel):
            with self.refused(Code.FAILED_PRECONDITION, "TRAINING_TERMINAL"):
                late(name)
        # Deleted, it is gone but for what the version uses.
        self.delete(name)
        for gone in (self.client.get, self.client.events, self.delete, self.stop):
            with self.refused(Code.NOT_FOUND, "NOT_FOUND"):
                gone(name)
        self.assertNotIn(name, [listed.name for listed in self.list_trainings()])
        self.assertEqual(len(self.client.ages(read_face(0), model=ended.model_version)), 1)

    def test_queued_trainings_wait_in_order_and_leave_at_once(self):
        running = self.start_endless()
        self.follow_until(running, lambda event: event.state_changed.state == training.TRAINING_STATE_PREPARING)
        second, third = self.start_endless(), self.start_endless()
        self.assertEqual([self.client.get(name).queue_position for name in (running, second, third)], [0, 1, 2])
        with self.refused(Code.RESOURCE_EXHAUSTED, "TRAINING_QUEUE_FULL") as refusals:
            self.client.start(endless())
        self.assertGreater(refusals[0].retry.retry_delay.ToNanoseconds(), 0)
        with self.refused(Code.FAILED_PRECONDITION, "TRAINING_LIVE"):
            self.delete(second)

        cancelled = self.cancel(second)
        self.assertEqual((state_name(cancelled.state), stop_reason(cancelled)), ("CANCELLED", "USER_STOP"))
        self.assertEqual((cancelled.attempt, cancelled.model_version), (0, ""))
        self.assertEqual(states(self.client.events(second)), ["QUEUED", "CANCELLED"])
        self.assertEqual(self.client.get(third).queue_position, 1)
        # Without a complete epoch there is nothing to keep.
        self.assertEqual(state_name(self.stop(third).state), "CANCELLED")
        listed = self.list_trainings(states=[training.TRAINING_STATE_CANCELLED])
        self.assertEqual([one.name for one in listed if one.name in (second, third)], [third, second])

    def test_a_live_training_cannot_be_deleted_and_is_read_to_its_head(self):
        name = self.start_endless()
        seen = self.follow_to_first_epoch(name)
        with self.refused(Code.FAILED_PRECONDITION, "TRAINING_LIVE"):
            self.delete(name)
        read = self.client.events(name, follow=False)
        self.assertEqual(read[:len(seen)], seen)
        # Left in the middle and taken up again, the stream has neither a gap nor a repeat.
        self.cancel(name)
        rest = self.client.events(name, after_sequence=seen[-1].sequence)
        every = self.client.events(name)
        self.assertEqual(seen + rest, every)
        self.assertEqual(states(every), ["QUEUED", "PREPARING", "RUNNING", "CANCELLING", "CANCELLED"])
        self.delete(name)

    def test_a_training_runs_before_its_first_epoch_is_complete_however_short_epochs_are(self):
        with tempfile.TemporaryDirectory() as directory:
            few = server.draw_faces(directory, count=12, seed=2, size=32)
            for _ in range(4):
                name = self.client.start(spec(few, max_epochs=1, input_size=32, promote=training.PROMOTE_NEVER)).name
                events = self.client.events(name)
                self.assertEqual(states(events), ["QUEUED", "PREPARING", "RUNNING", "SUCCEEDED"])
                running = next(event.sequence for event in events if event.state_changed.state == training.TRAINING_STATE_RUNNING)
                self.assertLess(running, next(event.sequence for event in events if event.HasField("epoch_completed")))

    def test_a_forced_cancel_kills_the_training_at_once(self):
        versions = len(self.list_versions())
        name = self.start_endless()
        self.follow_to_first_epoch(name)
        self.cancel(name, force=True)
        events = self.client.events(name)
        self.assertEqual(states(events), ["QUEUED", "PREPARING", "RUNNING", "CANCELLING", "CANCELLED"])
        ended = self.client.get(name)
        self.assertEqual((stop_reason(ended), ended.model_version), ("USER_STOP", ""))
        self.assertFalse(ended.HasField("failure"))
        self.assertEqual(len(self.list_versions()), versions)


class RestartTest(ClientTest):
    def test_a_server_that_ends_says_so_and_the_next_one_goes_on(self):
        request = dict(spec=endless(), request_id=str(uuid.uuid4()))
        name = self.client.start(**request).name
        stream = self.client.stream(name)
        seen = []
        with self.refused(Code.UNAVAILABLE, "SHUTTING_DOWN") as refusals:
            for response in stream:
                seen.append(response.event)
                if kinds(seen).count("epoch_completed") == 1 and response.event.HasField("epoch_completed"):
                    self.server.terminate()
        self.assertGreater(refusals[0].retry.retry_delay.ToNanoseconds(), 0)
        self.server.wait()

        self.server.start()
        self.addCleanup(self.give_up, name)
        self.assertEqual(self.client.start(**request).name, name)
        again = self.follow_until(name, lambda event: event.HasField("epoch_completed") and event.attempt == 2,
                                  after_sequence=seen[-1].sequence)
        both = seen + again
        self.assertEqual([event.sequence for event in both], list(range(1, len(both) + 1)))
        self.assertEqual(states(again)[-3:], ["QUEUED", "PREPARING", "RUNNING"])
        # It goes on where it was when the server was asked to end: no epoch is lost, and none is made twice.
        epochs = [event.epoch_completed.epoch for event in both if event.HasField("epoch_completed")]
        self.assertEqual(epochs, list(range(1, len(epochs) + 1)))
        rewound = [event.metrics_rewound.from_epoch for event in again if event.HasField("metrics_rewound")]
        self.assertEqual(rewound, [epochs[-1]])
        self.assertEqual((again[-1].epoch_completed.epoch, again[-1].epoch_completed.attempt), (epochs[-1], 2))


if __name__ == "__main__":
    unittest.main()
