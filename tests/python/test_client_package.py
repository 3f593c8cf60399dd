"""Arguments, errors and resources of the Python package; `test_clients.py` has its predictions and followed trainings."""

import asyncio
import base64
import concurrent.futures
import dataclasses
import hashlib
import http.client
import inspect
import os
import pathlib
import subprocess
import sys
import tarfile
import time
import unittest
import unittest.mock

import grpc
from google.rpc import error_details_pb2, status_pb2

import api
import package
import server

QUICK = {"init": "RANDOM", "input_size": 64, "promote": "NEVER"}
# Starts of a connection, on a loaded machine.
QUICKLY_SECONDS = 5
PROGRAM = """
from visage_client import AsyncClient, Client, Dataset, Evaluation, ModelVersion, Prediction, TrainingInfo
client = Client()
one: Prediction = client.predict("me.jpg", detect_faces=True, timeout=1.0)
several: list[Prediction] = client.predict(["me.jpg"], version=3)
found: list[TrainingInfo] = client.trainings(labels={"a": "b"})
versions: list[ModelVersion] = client.models()
mae: float = client.evaluate("faces", split="TEST").evaluation.mae
dataset: Dataset = client.push_dataset("a", "faces")
train = client.train(dataset, epochs=3, optimizer={"learning_rate": 0.1})
for epoch in train:
    loss: float = epoch.val_loss
async def main() -> None:
    async with AsyncClient() as asynchronous:
        version: ModelVersion = await asynchronous.promote(2)
        async for prediction in asynchronous.predict_directory("faces", explain=True):
            age: float = prediction.age
"""
WRONG = ['client.predict("me.jpg", detect_face=True)', 'client.train("faces", batch_size="large")', 'client.evaluate("faces", split="SOME")',
         'client.version([])', 'client.predict_directory(3)']
faces = None


def setUpModule():
    global faces
    if sys.version_info < (3, 10):
        raise unittest.SkipTest("the package needs Python 3.10 or newer")
    package.site()
    faces = package.faces()


def face_paths():
    return sorted(os.path.join(faces, name) for name in os.listdir(faces))


class PackageTest(package.ServerTest):
    def setUp(self):
        import visage_client
        self.visage = visage_client
        self.client = visage_client.Client(self.server.grpc_address)
        self.addCleanup(self.client.close)

    def asynchronously(self, function):
        """Runs a function of an asynchronous client."""
        async def main():
            async with self.visage.AsyncClient(self.server.grpc_address) as client:
                return await function(client)
        return asyncio.run(main())

    def empty_directory(self):
        directory = self.server.path("empty")
        os.makedirs(directory, exist_ok=True)
        return directory

    def refused(self, kind, text):
        return self.assertRaisesRegex(kind, text)


class ArgumentsTest(PackageTest):
    """Nothing in these tests is changed on the server."""

    def test_options_of_a_prediction_are_those_of_the_api(self):
        image = pathlib.Path(face_paths()[0]).read_bytes()
        raw = self.server.client.predict(image, explain=True, average_flip=True, annotate=True, interval_level=0.8).predictions[0]
        found = self.client.predict(image, explain=True, average_flip=True, annotate=True, interval_level=0.8, priority="BATCH", timeout=60.0)
        self.assertEqual((found.age, found.interval.lower, found.interval.confidence), (raw.age, raw.interval.lower, raw.interval.confidence))
        self.assertEqual((found.explanation.rows, found.explanation.years), (raw.explanation.rows, tuple(raw.explanation.years)))
        self.assertEqual((found.explanation_png, found.annotated_png), (raw.explanation_png, raw.annotated_png))
        self.assertNotEqual(found.age, self.client.predict(image).age)
        # A drawn face on a larger image is detected, and a white image has none.
        raw = self.server.client.predict(image, detect_faces=True).predictions[0]
        found = self.client.predict(image, detect_faces=True)
        self.assertEqual([(face.age, face.box.left, face.box.width) for face in found.faces], [(face.age, face.box.left, face.box.width) for face in raw.faces])
        self.assertEqual(self.asynchronously(lambda client: client.predict(image, explain=True)), self.client.predict(image, explain=True))

    def test_a_deadline_that_passes_is_an_error(self):
        with self.assertRaises(self.visage.DeadlineExceeded):
            self.client.predict(face_paths()[0], timeout=1e-6)
        with self.refused(self.visage.InvalidArgument, "timeout must be above 0 seconds, got 0"):
            self.client.predict(face_paths()[0], timeout=0)

    def test_unknown_keywords_are_type_errors_that_list_the_accepted_ones(self):
        for call in (self.client.predict, self.client.predict_many, self.client.predict_directory):
            with self.refused(TypeError, r"detect_face is not a keyword argument of predict.*did you mean `detect_faces`\? Accepted: annotate, average_flip"):
                call(faces, detect_face=True)
        with self.refused(TypeError, r"labls is not a keyword argument of trainings; did you mean `labels`\? Accepted: labels, limit, states"):
            self.client.trainings(labls={})
        with self.refused(TypeError, "epoch is not a keyword argument of train; did you mean `epochs`"):
            self.client.train(faces, epoch=1)
        with self.refused(TypeError, "batchsize is not a keyword argument of train; did you mean `batch_size`"):
            self.client.train(faces, 1, batchsize=3)
        with self.refused(TypeError, "on_error is not a keyword argument of predict for one image"):
            self.client.predict(face_paths()[0], on_error=print)
        with self.assertRaises(TypeError) as caught:
            self.asynchronously(lambda client: client.predict(face_paths()[0], explian=True))
        self.assertIsInstance(caught.exception, self.visage.VisageError)

    def test_a_directory_that_is_missing_or_a_file_is_refused_at_the_call(self):
        missing = self.server.path("missing")
        with self.refused(FileNotFoundError, "the directory does not exist: '{}'".format(missing)):
            self.client.predict_directory(missing)
        with self.refused(NotADirectoryError, "not a directory; use predict for an image"):
            self.client.predict_folder(face_paths()[0])

        async def by_asyncio(client):
            client.predict_directory(missing)
        with self.assertRaises(FileNotFoundError):
            self.asynchronously(by_asyncio)
        self.assertEqual(list(self.client.predict_directory(self.empty_directory())), [])

    def test_values_that_a_message_cannot_hold_are_named_with_their_range(self):
        with self.assertRaises(self.visage.InvalidArgument) as caught:
            self.client.train(faces, epochs=-3, batch_size="large", optimizer={"lr": 1, "learning_rate": "x"}, recipe="GOOD", labels={"a": 1},
                              max_duration="soon", trainable="fc", create_version=1, loss=3)
        self.assertIsInstance(caught.exception, ValueError)
        expected = {"epochs": "must be an integer from 1 to 10000, got -3", "batch_size": "must be an integer from 1 to 4096, got 'large'",
                    "optimizer.learning_rate": "must be a number, got 'x'", "recipe": "must be one of REFERENCE, BEST, FAST, got 'GOOD'",
                    "max_duration": "must be a number of seconds or a timedelta, got 'soon'", "trainable": "must be a list, got 'fc'",
                    "create_version": "must be True or False, got 1"}
        found = {one.field: one.description for one in caught.exception.violations}
        self.assertEqual({name: found.get(name) for name in expected}, expected)
        self.assertRegex(found["optimizer.lr"], "is not a field of OptimizerSpec.* learning_rate")
        self.assertRegex(found["loss"], "must be a mapping of fields")
        self.assertRegex(str(caught.exception), "^9 fields are invalid: epochs must be .*; ")
        with self.refused(self.visage.InvalidArgument, r"^labels must have texts as keys and values, got \{'a': 1\}$"):
            self.client.train(faces, labels={"a": 1})
        with self.refused(self.visage.InvalidArgument, "split must be one of ALL, TRAIN, VALIDATION, TEST, got 'SOME'"):
            self.client.evaluate(faces, split="SOME")

    def test_ranges_are_those_of_the_server(self):
        from visage_client.requests import RANGES
        at = {"batch_size": lambda value: self.client.validate(faces, batch_size=value), "input_size": lambda value: self.client.validate(faces, input_size=value),
              "max_epochs": lambda value: self.client.validate(faces, epochs=value), "plateau_patience": lambda value: self.client.validate(
                  faces, schedule={"kind": "PLATEAU", "plateau_patience": value}),
              "max_listed": lambda value: self.client.check_dataset(faces, max_listed=value),
              "near_distance": lambda value: self.client.check_dataset(faces, near_distance=value)}
        self.assertEqual(at.keys(), RANGES.keys())
        for name, (low, high) in RANGES.items():
            for value in (low - 1, high + 1):
                with self.subTest(name, value=value), self.assertRaises(self.visage.InvalidArgument) as caught:
                    at[name](value)
                text = caught.exception.violations[0].description.replace(",", "").replace("between", "from").replace(" and ", " to ")
                self.assertIn("{} to {}".format(low, high), text)

    def test_errors_do_not_repeat_their_reason(self):
        for call, text in [(lambda: self.client.training("nobody").get(), "training trainings/nobody does not exist"),
                           (lambda: self.client.version(99), "model version models/age/versions/99 does not exist")]:
            with self.assertRaises(self.visage.NotFound) as caught:
                call()
            self.assertEqual((str(caught.exception), caught.exception.reason), (text, "NOT_FOUND"))
        with self.refused(self.visage.NotFound, r"\(NO_EVALUATION\)$"):
            self.client.evaluation("live")
        with self.refused(self.visage.InvalidArgument, "^2 fields are invalid: spec.max_epochs.*; spec.batch_size"):
            self.client.train(faces, 0, batch_size=0)

    def test_unavailable_weights_name_arguments_of_the_package(self):
        details = status_pb2.Status(code=3, message="spec.init: as the API says it")
        info = error_details_pb2.ErrorInfo(reason="WEIGHTS_UNAVAILABLE", domain="visage", metadata={"cause": "no response", "place": "/data/weights"})
        details.details.add().Pack(info)
        call = unittest.mock.Mock()
        call.code.return_value = grpc.StatusCode.INVALID_ARGUMENT
        call.details.return_value = details.message
        call.trailing_metadata.return_value = [("grpc-status-details-bin", details.SerializeToString())]
        text = str(self.visage.errors.from_rpc(call))
        for part in ("hub is not available: no response; ", 'recipe="FAST"', 'init="STARTER"', "into /data/weights"):
            self.assertIn(part, text)
        self.assertNotIn("--", text)

    def test_an_import_of_the_sources_says_how_to_install(self):
        sources = os.path.join(api.REPOSITORY, "deploy/clients/python/src")
        command = [sys.executable, "-c", "import visage_client"]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": sources}, cwd=self.server.path("."), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, universal_newlines=True)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("run `pip install ./deploy/clients/python`", done.stdout)

    def test_a_missing_server_is_reported_quickly_with_its_address(self):
        text = "failed to connect to 127.0.0.1:1: .*refused.*; start a server with `visage serve`, or pass its address"
        for call in (lambda client: client.info(), lambda client: client.predict(face_paths()[0]), lambda client: client.training("any").wait(),
                     lambda client: client.evaluate("faces")):
            begun = time.monotonic()
            with self.visage.Client("127.0.0.1:1") as client, self.refused(self.visage.Unavailable, text):
                call(client)
            self.assertLess(time.monotonic() - begun, QUICKLY_SECONDS)

        async def by_asyncio():
            async with self.visage.AsyncClient("127.0.0.1:1", connect_timeout=0.0) as client:
                await client.info()
        with self.refused(self.visage.Unavailable, text):
            asyncio.run(by_asyncio())

    def test_everything_has_a_short_text(self):
        training = self.client.training("any")
        values = [self.client, training, self.client.info(), self.client.info().limits, self.client.version(), self.client.predict(face_paths()[0]),
                  self.client.predict(face_paths()[0], explain=True).explanation, self.client.alias_history()[0], self.client.evaluate(faces, plots=True),
                  self.client.check_dataset(faces).exact]
        for value in values:
            text = repr(value)
            self.assertRegex(text, r"^{}\(.+\)$".format(type(value).__name__))
            self.assertLess(len(text), 500, text)
            self.assertNotIn("object at 0x", text)
        self.assertRegex(repr(values[5]), r"^Prediction\(\d+\.\d years, \d+\.\d to \d+\.\d at 90 %, models/age/versions/1, .*\.jpg\)$")

    def test_a_call_continues_across_a_killed_server(self):
        self.client.info()
        self.server.process.kill()
        self.server.process.wait()
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            version = thread.submit(self.client.version)
            self.server.kill_and_restart()
            self.assertEqual(version.result().origin, "STARTER")
        without_patience = self.visage.Client(self.server.grpc_address)
        self.addCleanup(without_patience.close)
        without_patience.info()
        self.server.process.kill()
        self.server.process.wait()
        with unittest.mock.patch("visage_client.session.RETRY_SECONDS", 0.0), self.refused(self.visage.Unavailable, "the connection to .* was lost: "):
            without_patience.version()
        self.server.kill_and_restart()

    def test_relative_paths_are_those_of_the_caller_if_the_server_is_local(self):
        from visage_client import names
        from visage_client.operations.training import dataset_fields
        directory = self.server.path("home")
        os.makedirs(directory)
        os.symlink(faces, os.path.join(directory, "images"))
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(directory)
        local = self.client._state
        self.assertEqual(names.path(local, "images"), os.path.join(directory, "images"))
        self.assertEqual(names.path(local, "elsewhere"), "elsewhere")
        for target, is_local in [("localhost:1", True), ("127.0.0.2:1", True), ("[::1]:1", True), ("dns:///localhost:1", True), ("unix:/run/visage", True),
                                 ("example.org:1", False), ("10.0.0.1:1", False), ("ipv4:127.0.0.1:1", True), ("[2001:db8::1]:1", False)]:
            with self.visage.Client(target) as client:
                self.assertEqual(client._state.is_local, is_local, target)
                self.assertEqual(names.path(client._state, "images"), os.path.join(directory, "images") if is_local else "images")
        self.assertEqual(dataset_fields(local, "datasets/faces"), {"name": "datasets/faces"})
        self.assertEqual(dataset_fields(local, "./datasets/faces"), {"path": "./datasets/faces"})
        self.assertEqual(dataset_fields(local, pathlib.Path("images")), {"path": os.path.join(directory, "images")})
        self.assertEqual(dataset_fields(local, {"path": "images", "min_age": 3.0}), {"path": os.path.join(directory, "images"), "min_age": 3.0})
        # 40 images in batches of at most 8, of which the server leaves out validation and test.
        estimate = self.client.validate("images", epochs=1, batch_size=8, **QUICK)
        self.assertIn(estimate.steps_per_epoch, (4, 5))

    def test_initial_weights_are_a_kind_a_version_or_a_file(self):
        from visage_client.operations.training import initial_weights
        session = self.client._state
        weights = self.server.path("my.pth")
        pathlib.Path(weights).write_bytes(b"")
        for given, expected in [("STARTER", {"kind": "STARTER"}), ("random", {"kind": "random"}), (4, {"version": "models/age/versions/4"}),
                                ("4", {"version": "models/age/versions/4"}), ("live", {"version": "models/age/versions/live"}),
                                ("models/age/versions/4", {"version": "models/age/versions/4"}), (weights, {"kind": "PATH", "path": weights}),
                                ("weights/new.pth", {"kind": "PATH", "path": "weights/new.pth"}), ({"kind": "PATH", "path": "x"}, {"kind": "PATH", "path": "x"})]:
            self.assertEqual(initial_weights(session, given), expected, given)
        with self.refused(self.visage.InvalidArgument, "init must be IMAGENET1K_V1, RANDOM, STARTER, a version such as 4.*got 'IMAGENET'"):
            self.client.train(faces, init="IMAGENET")

    def test_keywords_and_values_are_those_of_the_protos(self):
        from visage_client.operations.training import REQUEST_FIELDS
        from visage_client.values.message import CLASSES
        fields = set(api.training.TrainingSpec.DESCRIPTOR.fields_by_name) - {"dataset", "max_epochs"}
        self.assertEqual(set(self.visage.TrainOptions.__annotations__), fields | REQUEST_FIELDS)
        request = set(api.prediction.PredictRequest.DESCRIPTOR.fields_by_name) - {"images"}
        self.assertLessEqual(request, set(self.visage.PredictOptions.__annotations__))
        added = {"Prediction": {"model_version", "source"}, "EvaluationReport": {"predictions"}}
        modules = (api.dataset, api.model, api.prediction, api.system, api.training)
        messages = {one.full_name: one for module in modules for one in module.DESCRIPTOR.message_types_by_name.values()}
        self.assertGreater(len(CLASSES), 30)
        for name, kind in CLASSES.items():
            unknown = {field.name for field in dataclasses.fields(kind)} - set(messages[name].fields_by_name)
            self.assertEqual(unknown, added.get(kind.__name__, set()), name)

    def test_both_clients_have_the_same_methods_and_documentation(self):
        for blocking, asynchronous in [(self.visage.Client, self.visage.AsyncClient), (self.visage.Training, self.visage.AsyncTraining)]:
            names = [name for name in dir(blocking) if not name.startswith("_")]
            self.assertEqual(names, [name for name in dir(asynchronous) if not name.startswith("_")])
            for name in names:
                method = getattr(blocking, name)
                self.assertTrue(method.__doc__, name)
                if callable(method):
                    self.assertEqual(list(inspect.signature(method).parameters)[1:], list(inspect.signature(getattr(asynchronous, name)).parameters)[1:], name)

    def test_a_missing_matplotlib_names_the_extra(self):
        with unittest.mock.patch.dict(sys.modules, {"matplotlib.figure": None, "visage_client.plotting": None}):
            with self.refused(ImportError, r"plotting a training requires matplotlib: `pip install 'visage-client\[notebook\]'`"):
                self.client.training("any").plot()
        with unittest.mock.patch.dict(sys.modules, {"PIL": None}), self.refused(ImportError, r"requires Pillow: `pip install 'visage-client\[images\]'`"):
            import numpy
            self.client.predict(numpy.zeros((8, 8, 3), "uint8"))

    def test_programs_are_checked_by_their_types(self):
        try:
            import mypy.api
        except ImportError:
            self.skipTest("mypy is not installed: `pip install mypy types-grpcio types-protobuf`")
        program = pathlib.Path(self.server.path("program.py"))
        program.write_text(PROGRAM + "".join("{}\n".format(line) for line in WRONG))
        with unittest.mock.patch.dict(os.environ, MYPYPATH=str(package.site())):
            configuration = str(package.checkout() / "deploy" / "clients" / "python" / "pyproject.toml")
            printed, _, _ = mypy.api.run(["--config-file", configuration, "--cache-dir", str(package.directory() / "mypy"), str(program)])
        first = PROGRAM.count("\n") + 1
        errors = [line for line in printed.splitlines() if ": error:" in line]
        self.assertEqual(sorted({int(line.split(":")[1]) for line in errors}), list(range(first, first + len(WRONG))), printed)


class ResourcesTest(PackageTest):
    def trained(self, **fields):
        training = self.client.train(faces, **{"epochs": 1, **QUICK, **fields})
        training.wait()
        return training

    def test_an_ended_training_is_found_with_its_result(self):
        training = self.trained(epochs=2, id="ended", labels={"suite": "ended"})
        again = self.client.training("ended")
        self.assertEqual(repr(again), "Training(trainings/ended)")
        self.assertEqual((again.result, again.state, again.epochs), (training.result, "SUCCEEDED", training.epochs))
        self.assertEqual(again.result.model_version, self.server.client.get("trainings/ended").model_version)
        # Reading the result leaves the iteration at its start.
        self.assertEqual([epoch.epoch for epoch in again], [1, 2])
        self.assertRegex(repr(again), r"Training\(trainings/ended, SUCCEEDED, 2 epochs, best validation MAE [\d.]+, models/age/versions/\d+\)")

        async def by_asyncio(client):
            training = client.training("ended")
            self.assertIsNone(training.result)
            await training.refresh()
            return training.result, training.epochs
        self.assertEqual(self.asynchronously(by_asyncio), (training.result, training.epochs))

    def test_trainings_are_listed_filtered_and_compared(self):
        first = self.trained(labels={"suite": "list", "rate": "low"}, optimizer={"learning_rate": 1e-4})
        second = self.trained(labels={"suite": "list", "rate": "high"}, optimizer={"learning_rate": 1e-3})
        found = self.client.trainings(labels={"suite": "list"})
        self.assertEqual([one.name for one in found], [second.name, first.name])
        self.assertEqual([one.name for one in self.client.trainings(labels={"suite": "list", "rate": "low"})], [first.name])
        self.assertEqual(self.client.trainings(["RUNNING"], {"suite": "list"}), [])
        self.assertEqual([one.name for one in self.client.trainings(limit=1)], [second.name])
        self.assertEqual(self.client.training(found[0]).result, second.result)
        compared = self.client.compare(first.name, second.name.split("/")[1])
        self.assertEqual(compared.settings, {"optimizer.learning_rate": (1e-4, 1e-3)})
        self.assertTrue(compared.is_comparable)
        self.assertEqual(compared.best.name, min(found, key=lambda one: one.best.val_mae).name)
        self.assertRegex(repr(compared), r"(?m)^optimizer.learning_rate +0\.0001 +0\.001$")
        other = self.trained(seed=7)
        compared = self.client.compare(first.name, other.name)
        self.assertEqual((compared.is_comparable, compared.best), (False, None))
        self.assertIn("cannot be compared", repr(compared))

    def test_a_training_is_changed_downloaded_and_deleted(self):
        training = self.client.train(faces, 10_000, **QUICK)
        next(iter(training))
        self.assertEqual(training.update(epochs=2).resolved_spec.max_epochs, 2)
        training.wait()
        best = next(one for one in training.checkpoints() if one.best)
        path = pathlib.Path(self.server.path("manifest.json"))
        training.download(path, epoch=best.epoch, file="manifest.json")
        described, content, _ = self.server.client.download(best.name, "manifest.json")
        self.assertEqual(path.read_bytes(), content)
        training.delete()
        with self.assertRaises(self.visage.NotFound):
            training.get()

    def test_versions_are_exported_whole_or_not_at_all(self):
        version = self.client.version("live")
        path = pathlib.Path(self.server.path("age.safetensors"))
        self.client.export("live", path)
        expected = next(file for file in version.files if file.name == "model.safetensors")
        self.assertEqual((path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()), (expected.size_bytes, expected.sha256))
        path.unlink()
        with self.assertRaises(self.visage.NotFound):
            self.client.export(99, path)
        self.asynchronously(lambda client: client.export("live", path))
        self.assertEqual(path.stat().st_size, expected.size_bytes)
        self.assertEqual([name for name in os.listdir(self.server.directory) if name.startswith(".age")], [])

    def test_versions_are_registered_and_deleted(self):
        training = self.trained(create_version=False)
        self.assertIsNone(training.result.model_version)
        version = self.client.register_version(training.name + "/checkpoints/best")
        self.assertEqual((version.origin, version.checkpoint), ("TRAINING", training.name + "/checkpoints/1"))
        with self.refused(self.visage.FailedPrecondition, "VERSION_IN_USE"):
            self.client.delete_version(self.client.version("live"))
        with self.refused(self.visage.InvalidArgument, "version must be a number"):
            self.client.delete_version("live")
        training.delete()
        self.assertGreater(self.client.delete_version(version), 0)
        with self.assertRaises(self.visage.NotFound):
            self.client.version(version.version)
        starter = self.client.register_starter()
        self.assertEqual((starter.origin, starter.name), ("STARTER", self.client.version("live").name))
        self.assertEqual(self.client.alias_history()[-1].cause, "starter")

    def test_an_evaluation_is_that_of_the_api(self):
        progress = []
        report = self.client.evaluate(faces, split="VALIDATION", interval_level=0.8, plots=True, predictions=True, on_progress=progress.append)
        request = api.model.EvaluateModelVersionRequest(dataset=api.training.DatasetSpec(path=faces), split=api.model.DATASET_SPLIT_VALIDATION, interval_level=0.8)
        raw = list(self.server.client.models.EvaluateModelVersion(request))[-1].report
        self.assertEqual((report.split, report.model_version, report.evaluation.images), ("VALIDATION", raw.model_version, raw.evaluation.images))
        self.assertAlmostEqual(report.evaluation.mae, raw.evaluation.mae, places=2)
        self.assertEqual(report.evaluation.interval_coverage.level, raw.evaluation.interval_coverage.level)
        self.assertEqual(len(report.predictions), report.evaluation.images)
        errors = [abs(one.predicted - one.age) for one in report.predictions]
        self.assertAlmostEqual(sum(errors) / len(errors), report.evaluation.mae, places=4)
        self.assertTrue(report.predicted_plot_png.startswith(b"\x89PNG"))
        self.assertIn("scan", [one.phase for one in progress])

    def test_datasets_are_registered_checked_and_deleted(self):
        registered = self.client.register_dataset("registered", faces, display_name="Faces")
        self.assertEqual((registered.name, registered.state, registered.kind, registered.images), ("datasets/registered", "READY", "REGISTERED", 40))
        self.assertEqual(sum(split.images for split in registered.report.splits), 40)
        self.assertEqual(self.client.dataset("registered"), registered)
        self.assertIn(registered.name, [one.name for one in self.client.datasets()])
        check = self.client.check_dataset(registered, version="live", max_listed=3)
        self.assertEqual((check.dataset.digest, check.outliers.images), (registered.report.digest, 40))
        self.assertEqual(self.client.validate(registered, **QUICK).steps_per_epoch, self.client.validate(faces, **QUICK).steps_per_epoch)
        with self.assertRaises(self.visage.AlreadyExists):
            self.client.register_dataset("registered", faces)
        with self.refused(self.visage.InvalidArgument, "path"):
            self.client.register_dataset("other", "/nowhere")
        self.client.delete_dataset(registered)
        with self.assertRaises(self.visage.NotFound):
            self.client.dataset("registered")
        self.assertEqual(len(os.listdir(faces)), 40)

    def test_a_directory_is_pushed_with_progress(self):
        progress = []
        pushed = self.client.push_dataset("pushed", faces, on_progress=progress.append)
        self.assertEqual((pushed.state, pushed.kind, pushed.images), ("READY", "UPLOADED", 40))
        self.assertLessEqual({"pack", "upload"}, {one.phase for one in progress})
        with self.refused(self.visage.AlreadyExists, "choose another name"):
            self.client.push_dataset("pushed", faces)
        self.assertEqual(self.asynchronously(lambda client: client.push_dataset("again", faces)).report.digest, pushed.report.digest)
        with self.refused(FileNotFoundError, "nowhere"):
            self.client.push_dataset("other", "/nowhere")
        with self.refused(ValueError, "contains no image"):
            self.client.push_dataset("other", self.empty_directory())

    def test_a_refused_archive_is_an_error(self):
        archive = self.server.path("bad.tar")
        with tarfile.open(archive, "w") as tar:
            tar.add(face_paths()[0], "../30_escaped.jpg")
        with self.refused(self.visage.DatasetFailed, r"datasets/bad failed: .*\.\./30_escaped\.jpg"):
            self.client.push_dataset("bad", archive)

    def test_an_upload_continues_across_a_killed_server_and_by_a_later_call(self):
        from visage_client.archive import Archive
        archive = Archive(faces)
        self.addCleanup(archive.close)
        archive.file.seek(0)
        digest = "sha256 " + base64.b64encode(hashlib.sha256(archive.file.read()).digest()).decode()
        archive.file.seek(0)
        upload = self.begin_upload(archive.length, archive.file.read(50_000), {"Upload-Metadata": digest})
        killed = []

        def kill(progress):
            if progress.phase == "upload" and not killed:
                killed.append(progress.done)
                self.server.kill_and_restart()
        pushed = self.client.push_dataset("continued", faces, resume=upload, on_progress=kill)
        self.assertEqual((killed, pushed.upload, pushed.images), ([50_000], upload, 40))

    def test_an_upload_with_other_contents_is_not_continued(self):
        from visage_client.archive import Archive
        archive = Archive(faces)
        self.addCleanup(archive.close)
        other = "sha256 " + base64.b64encode(hashlib.sha256(b"other").digest()).decode()
        for headers, message in [({"Upload-Metadata": other}, "was started with other contents"), ({}, "does not know with which contents")]:
            upload = self.begin_upload(archive.length, b"other", headers)
            with self.refused(self.visage.InvalidArgument, message):
                self.client.push_dataset("mixed", faces, resume=upload)

    def begin_upload(self, length, content, headers=None):
        """Starts an upload by the plain protocol and returns its id."""
        connection = http.client.HTTPConnection(self.server.http_address)
        self.addCleanup(connection.close)
        connection.request("POST", "/datasets/uploads", headers={"Upload-Length": str(length), **(headers or {})})
        response = connection.getresponse()
        response.read()
        upload = response.headers["location"].rsplit("/", 1)[1]
        connection.request("PATCH", "/datasets/uploads/" + upload, content, {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"})
        connection.getresponse().read()
        return upload

    def test_uploads_are_listed_and_deleted(self):
        upload = self.begin_upload(1000, b"x" * 100)
        found = next(one for one in self.client.uploads() if one.upload == upload)
        self.assertEqual((found.size_bytes, found.received_bytes), (1000, 100))
        self.client.delete_upload(found)
        self.assertNotIn(upload, [one.upload for one in self.client.uploads()])
        with self.assertRaises(self.visage.NotFound):
            self.client.delete_upload(upload)


if __name__ == "__main__":
    unittest.main()
