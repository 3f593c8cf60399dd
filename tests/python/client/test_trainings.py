"""Ended trainings: their messages, events, cursors and checkpoints."""

import json
import math

from google.protobuf import duration_pb2

from api import training
from client.base import Code, MIB, TrainedTest, endless, kinds, spec, state_name, states, stop_reason


class TrainingsTest(TrainedTest):
    def epochs(self):
        return [event.epoch_completed for event in self.read_late if event.HasField("epoch_completed")]

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

    def test_a_dry_run_estimates_the_duration_from_an_earlier_training(self):
        response = self.client.trainings.StartTraining(training.StartTrainingRequest(spec=spec(), validate_only=True))
        self.assertGreater(response.estimate.duration.ToNanoseconds(), 0)
        self.assertEqual(response.training.dataset.val_digest, self.first.dataset.val_digest)

    def test_a_stream_has_all_events_in_order(self):
        events = self.read_late
        self.assertEqual([event.sequence for event in events], list(range(1, len(events) + 1)))
        self.assertEqual({event.training for event in events}, {"trainings/first"})
        self.assertEqual(states(events), ["QUEUED", "PREPARING", "RUNNING", "SUCCEEDED"])
        self.assertEqual(kinds(events)[-3:], ["test_evaluated", "model_version_created", "state_changed"])
        received = [kind for kind in kinds(events) if kind not in ("state_changed", "checkpoint_saved")]
        self.assertEqual(received, ["dataset_scanned"] + 3 * ["epoch_completed"] + ["test_evaluated", "model_version_created"])
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
            """The events up to the latest one, which three heartbeats confirm."""
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

    def test_the_best_checkpoint_is_listed_and_downloads_whole(self):
        request = training.ListCheckpointsRequest(parent="trainings/first")
        checkpoints = self.client.trainings.ListCheckpoints(request).checkpoints
        epochs = [checkpoint.epoch for checkpoint in checkpoints]
        self.assertEqual(epochs, sorted(epochs, reverse=True))
        best = [checkpoint for checkpoint in checkpoints if checkpoint.best]
        self.assertEqual([checkpoint.epoch for checkpoint in best], [self.first.best.epoch])
        self.assertEqual(best[0].name, "trainings/first/checkpoints/{}".format(self.first.best.epoch))
        self.assertEqual((best[0].val_loss, best[0].val_mae), (self.first.best.val_loss, self.first.best.val_mae))
        self.assertEqual({file.name for file in best[0].files}, {"model.safetensors", "manifest.json", "training-images.bin"})
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
        images = self.client.download("trainings/first/checkpoints/best", "training-images.bin")[0]
        self.assertEqual(manifest["sha256"], {"model.safetensors": weights.sha256, "training-images.bin": images.sha256})
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
