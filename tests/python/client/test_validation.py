"""Requests that a server without trainings refuses, and dry runs."""

import math
import os
import shutil
import tempfile

import grpc
from google.protobuf import duration_pb2
from PIL import Image, ImageOps

from api import dataset, model, training
from client.base import Code, MIB, ClientTest, faces, read_face, spec


class ValidationTest(ClientTest):
    """A server without trainings; no test starts one."""

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
        # The check of the initial weights looks for the file, which this test does not download.
        weights = self.server.path("data/weights/resnet18-f37072fd.pth")
        open(weights, "wb").close()
        self.addCleanup(os.remove, weights)
        asked = training.TrainingSpec(dataset=training.DatasetSpec(path=faces()))
        resolved = self.client.start(asked, validate_only=True).resolved_spec
        expected = training.TrainingSpec(
            dataset=training.DatasetSpec(path=os.path.realpath(faces()), validation_fraction=0.1, test_fraction=0.1, min_age=0, max_age=120,
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
            checkpoint_interval=duration_pb2.Duration(seconds=300), recipe=training.RECIPE_REFERENCE, create_version=True, shards=1)
        self.assertEqual(resolved, expected)

    def test_a_dataset_check_finds_duplicates(self):
        with tempfile.TemporaryDirectory() as directory:
            for part in ("train", "val"):
                os.mkdir(os.path.join(directory, part))
            names = sorted(os.listdir(faces()))[:12]
            for index, name in enumerate(names):
                shutil.copy(os.path.join(faces(), name), os.path.join(directory, "train" if index < 8 else "val", name))
            shutil.copy(os.path.join(faces(), names[0]), os.path.join(directory, "val", names[0]))
            with Image.open(os.path.join(faces(), names[1])) as image:
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
        asked = training.TrainingSpec(dataset=training.DatasetSpec(path=faces()), recipe=training.RECIPE_BEST, max_epochs=3,
                                      augmentation=training.AugmentationSpec(horizontal_flip=False))
        resolved = self.client.start(asked, validate_only=True).resolved_spec
        self.assertEqual((resolved.recipe, resolved.max_epochs), (training.RECIPE_BEST, 3))
        self.assertEqual((resolved.init.kind, resolved.head_bias), (training.INIT_KIND_STARTER, training.HEAD_BIAS_KEEP))
        self.assertEqual(list(resolved.trainable), ["layer3", "layer4", "fc"])
        self.assertFalse(resolved.augmentation.horizontal_flip)
        self.assertLess(resolved.augmentation.min_crop_area, 1)
        # The resolved spec is complete: without its recipe it is the same training.
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
        # Fractions of 0.95 and 0.1 leave too few training images, which either field may report.
        self.assertEqual(set(refusals[0].fields) - {"spec.dataset.test_fraction"}, expected)
        for violation in refusals[0].violations.field_violations:
            self.assertTrue(violation.description, violation.field)

    def test_a_missing_dataset_is_reported_with_the_other_bad_fields(self):
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

    def test_predict_without_a_live_model_is_failed_precondition(self):
        with self.refused(Code.FAILED_PRECONDITION, "NO_LIVE_MODEL"):
            self.client.predict(read_face(0))

    def test_a_request_above_the_limit_is_refused_and_the_server_keeps_serving(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.client.predict(bytes(17 * MIB))
        self.assertIn(caught.exception.code(), (Code.RESOURCE_EXHAUSTED, Code.OUT_OF_RANGE), caught.exception.details())
        with self.refused(Code.FAILED_PRECONDITION, "NO_LIVE_MODEL"):  # Just below the limit it is read.
            self.client.predict(bytes(16 * MIB - 1024))

    def test_a_model_without_versions_is_an_empty_list(self):
        self.assertEqual(len(self.list_versions()), 0)
        self.assertEqual(len(self.client.models.ListAliasEvents(model.ListAliasEventsRequest()).events), 0)
        with self.refused(Code.NOT_FOUND, "NOT_FOUND"):
            self.client.models.GetModelVersion(model.GetModelVersionRequest(name="models/age/versions/1"))
