"""Model versions, aliases, health and metrics."""

import uuid

from grpc_health.v1 import health_pb2

import server
from api import model, system, training
from client.base import Code, METRICS_SECONDS, TrainedTest, read_face


class ModelsTest(TrainedTest):
    def copies(self, *trainings):
        """Registers the best checkpoints of the trainings as versions of a new model; returns its name."""
        parent = "models/m" + uuid.uuid4().hex
        for position, name in enumerate(trainings):
            request = model.RegisterVersionRequest(checkpoint=name + "/checkpoints/best", parent=parent)
            version = self.client.models.RegisterVersion(request).version
            self.assertEqual((version.name, version.version), ("{}/versions/{}".format(parent, position + 1), position + 1))
        return parent

    def set_alias(self, parent, version, alias, **fields):
        request = model.SetAliasRequest(name="{}/versions/{}".format(parent, version), alias=alias, **fields)
        return self.client.models.SetAlias(request).version

    def delete_live(self):
        """Deletes `live` of the default model, and restores the aliases after the test."""
        self.client.models.DeleteAlias(model.DeleteAliasRequest(alias="live"))
        self.addCleanup(self.set_alias, "models/age", 1, "live")

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
            self.assertEqual({file.name for file in version.files}, {"model.safetensors", "manifest.json", "training-images.bin"})
            self.assertTrue(version.training_images_recorded)
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
        # Setting it again is a no-op without an event. The moves of `live` and `previous` may be in
        # either order.
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

    def test_an_evaluation_names_all_bad_fields_at_once(self):
        bad = training.DatasetSpec(path="/no/such/directory", min_age=-1, max_reject_share=2)
        fields = {"split", "dataset.path", "dataset.min_age", "dataset.max_reject_share"}
        with self.refused(Code.INVALID_ARGUMENT, "INVALID_FIELDS") as refusals:
            list(self.client.models.EvaluateModelVersion(model.EvaluateModelVersionRequest(dataset=bad, split=77)))
        self.assertEqual(set(refusals[0].fields), fields)

    def test_health_of_prediction_follows_the_live_alias(self):
        status = health_pb2.HealthCheckResponse
        self.assertEqual(self.health, [status.NOT_SERVING, status.SERVING])  # Before and after the first training.
        self.assertEqual(self.health_of("visage.v1.PredictionService"), "SERVING")
        health = self.client.health.Watch(health_pb2.HealthCheckRequest(service="visage.v1.PredictionService"))
        self.addCleanup(health.cancel)
        self.assertEqual(next(health).status, status.SERVING)
        self.delete_live()
        self.assertEqual(next(health).status, status.NOT_SERVING)
        with self.refused(Code.FAILED_PRECONDITION, "NO_LIVE_MODEL"):
            self.client.predict(read_face(0))
        self.assertEqual(len(self.client.ages(read_face(0), model="models/age/versions/1")), 1)
        self.set_alias("models/age", 1, "live")
        self.assertEqual(next(health).status, status.SERVING)
        self.assertEqual(len(self.client.ages(read_face(0))), 1)

    def test_a_health_watch_receives_changes_only(self):
        health = self.client.health.Watch(health_pb2.HealthCheckRequest(service="visage.v1.PredictionService"))
        self.addCleanup(health.cancel)
        received = [next(health).status]
        self.set_alias("models/age", 2, "candidate")
        self.client.models.DeleteAlias(model.DeleteAliasRequest(alias="candidate"))
        self.delete_live()
        while received[-1] != health_pb2.HealthCheckResponse.NOT_SERVING:
            received.append(next(health).status)
        self.assertEqual(len(received), 2, "another alias caused a health update")

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

    def test_metrics_describe_trainings_and_the_live_version(self):
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
