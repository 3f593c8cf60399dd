"""The Python package and the examples in `deploy/clients/`, with servers that are killed while they run."""

import asyncio
import importlib.util
import io
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import types
import unittest
import unittest.mock
import uuid

import numpy
from google.protobuf import duration_pb2
from PIL import Image

import api
import package
import server
from api import DEADLINE_SECONDS
from package import finished

EPOCHS = 12
# Small, so that a directory needs several calls: 96x96 pixels of noise are 28 kB as PNG.
LIMITS = ("--max-message-bytes", "128KiB", "--max-image-bytes", "96KiB", "--max-images-per-request", "8", "--max-queued-trainings", "1")
QUICK = {"init": "RANDOM", "input_size": 64, "promote": "NEVER"}
checkout = site = faces = None


def setUpModule():
    global checkout, site, faces
    checkout, site, faces = package.checkout(), package.site(), package.faces()


def face_paths():
    return sorted(os.path.join(faces, name) for name in os.listdir(faces))


@unittest.skipIf(sys.version_info < (3, 10), "the package needs Python 3.10 or newer")
class PackageTest(package.ServerTest):
    OPTIONS = LIMITS

    def setUp(self):
        import visage_client
        self.visage = visage_client
        self.client = visage_client.Client(self.server.grpc_address)
        self.addCleanup(self.client.close)

    def start(self, epochs=EPOCHS, **fields):
        started = self.client.train(faces, epochs, **{**QUICK, **fields})
        self.addCleanup(self.give_up, started)
        return started

    def give_up(self, training):
        """Cancels a training that a failed test left behind."""
        try:
            training.cancel(force=True)
        except self.visage.FailedPrecondition:
            pass

    def stored(self, name):
        """The stored events of a training, by the paged list, which the clients under test do not use."""
        return self.server.client.trainings.ListEpochMetrics(api.training.ListEpochMetricsRequest(name=name, page_size=1000)).events

    def predict_calls(self):
        return self.server.metrics()['visage_rpc_requests_total{method="visage.v1.PredictionService/Predict",code="ok"}']

    def assert_followed(self, training, events):
        """Checks that all events were received once, in order, and that all epochs are known at the end."""
        self.assertEqual([event.sequence for event in events], list(range(1, len(events) + 1)))
        self.assertEqual(events, list(self.stored(training.name)))
        self.assertEqual(training.state, "SUCCEEDED", events[-1])
        self.assertEqual([epoch.epoch for epoch in training.epochs], list(range(1, EPOCHS + 1)))
        self.assertEqual(events[-1].attempt, 2, "the training was not interrupted")
        self.assertEqual(training.result.stop_reason, "MAX_EPOCHS")
        self.assertEqual(training.result.model_version, self.server.client.get(training.name).model_version)

    def test_a_training_is_followed_across_a_killed_server(self):
        training = self.start()
        events = training.events()
        seen = list(until_epoch(events, 3))
        self.server.kill_and_restart()
        seen.extend(events)
        self.assert_followed(training, seen)
        self.assertIn("metrics_rewound", [event.WhichOneof("kind") for event in seen])

    def test_a_training_is_followed_by_asyncio_across_a_restart(self):
        async def follow():
            async with self.visage.AsyncClient(self.server.grpc_address) as client:
                training, seen = await client.train(faces, EPOCHS, **QUICK), []
                async for event in training.events():
                    seen.append(event)
                    if event.epoch_completed.epoch == 3 and event.attempt == 1:
                        # The server waits for its streams, which need another task to continue.
                        await asyncio.to_thread(self.server.restart)
                return training, seen
        training, seen = asyncio.run(follow())
        self.assert_followed(training, seen)

    def test_iterating_gives_epochs_and_goes_on_where_it_was_left(self):
        training = self.start(4)
        self.assertIsNone(training.result)
        first = next(iter(training))
        rest = list(training)
        self.assertEqual([epoch.epoch for epoch in [first, *rest]], [1, 2, 3, 4])
        self.assertEqual(training.wait(), training.result)
        again = self.client.training(training.name.split("/")[1])
        self.assertEqual([epoch.epoch for epoch in again], [1, 2, 3, 4])

    def test_epochs_that_are_made_anew_take_the_place_of_earlier_ones(self):
        from visage_client.backoff import Backoff
        from visage_client.following import Record
        record = Record("trainings/x", Backoff(patience=1.0))

        def event(sequence, **kind):
            return api.training.TrainingEvent(training="trainings/x", sequence=sequence, **kind)

        def epoch(number, attempt):
            return {"epoch_completed": api.training.EpochMetrics(epoch=number, attempt=attempt)}
        taken = [record.take(one) for one in (
            event(1, **epoch(1, 1)), event(2, **epoch(2, 1)), event(2, **epoch(2, 1)), event(0, heartbeat=api.training.Heartbeat()),
            event(3, metrics_rewound=api.training.MetricsRewound(from_epoch=2)), event(4, **epoch(2, 2)))]
        self.assertEqual(taken, [True, True, False, False, True, True])
        self.assertEqual([(one.epoch, one.attempt) for one in record.epochs], [(1, 1), (2, 2)])
        self.assertEqual(record.request().after_sequence, 4)

    def test_waiting_before_the_next_try_is_no_shorter_than_the_server_asks(self):
        import grpc
        from visage_client.backoff import Backoff
        backoff = Backoff(patience=60.0)
        asked = self.visage.Unavailable(grpc.StatusCode.UNAVAILABLE, "ends", "SHUTTING_DOWN", (), 7.0)
        self.assertGreaterEqual(backoff.delay_after(asked), 7.0)
        lost = self.visage.Unavailable(grpc.StatusCode.UNAVAILABLE, "gone")
        delays = [backoff.delay_after(lost) for _ in range(10)]
        self.assertTrue(0 < delays[0] < 1 and 2.5 <= delays[-1] <= 5, delays)
        with self.assertRaises(self.visage.NotFound):
            backoff.delay_after(self.visage.NotFound(grpc.StatusCode.NOT_FOUND, "no such training", "NOT_FOUND"))
        with self.assertRaises(self.visage.Unavailable):
            Backoff(patience=-1.0).delay_after(lost)

    def test_pause_resume_and_stop(self):
        training = self.start(10_000, input_size=32)
        epochs = iter(training)
        next(epochs)
        training.pause()
        training.resume()
        next(epoch for epoch in epochs if epoch.attempt == 2)
        training.stop()
        self.assertEqual((training.wait().state, training.result.stop_reason), ("SUCCEEDED", "USER_STOP"))
        with self.assertRaises(self.visage.FailedPrecondition) as caught:
            training.pause()
        self.assertEqual(caught.exception.reason, "TRAINING_TERMINAL")

    def test_a_training_that_is_cancelled_has_no_version(self):
        training = self.start(10_000)
        training.cancel()
        result = training.wait()
        self.assertEqual((result.state, result.model_version), ("CANCELLED", None))

    def test_a_training_that_fails_raises_its_reason(self):
        directory = pathlib.Path(self.server.path("broken"))
        shutil.copytree(faces, directory)
        (directory / "30_0_0_1.jpg").write_bytes(b"no image")
        training = self.client.train({"path": str(directory), "max_reject_share": 0.0}, 1, **QUICK)
        with self.assertRaises(self.visage.TrainingFailed) as caught:
            training.wait()
        failure = training.get().failure
        self.assertEqual((caught.exception.reason, caught.exception.message), (failure.reason, failure.message))

    def test_the_short_form_of_a_spec(self):
        training = self.start(10_000, optimizer={"kind": "SGD", "learning_rate": 0.003, "groups": [{"prefix": "fc", "factor": 2.0}]}, max_duration=3600,
                              checkpoint_interval=duration_pb2.Duration(seconds=90), trainable=["fc"], recipe="RECIPE_FAST",
                              display_name="by keywords", labels={"who": "test"})
        known = training.get()
        expected = api.training.TrainingSpec(
            dataset=api.training.DatasetSpec(path=faces), init=api.training.InitSpec(kind=api.training.INIT_KIND_RANDOM), max_epochs=10_000, input_size=64,
            promote=api.training.PROMOTE_NEVER, trainable=["fc"], recipe=api.training.RECIPE_FAST, max_duration=duration_pb2.Duration(seconds=3600),
            checkpoint_interval=duration_pb2.Duration(seconds=90),
            optimizer=api.training.OptimizerSpec(kind=api.training.OPTIMIZER_KIND_SGD, learning_rate=0.003,
                                                 groups=[api.training.LearningRateGroup(prefix="fc", factor=2.0)]))
        self.assertEqual(known.spec, expected)
        self.assertEqual((known.display_name, dict(known.labels)), ("by keywords", {"who": "test"}))

    def test_a_request_id_starts_one_training(self):
        request_id = str(uuid.uuid4())
        first = self.start(request_id=request_id)
        self.assertEqual(self.client.train(faces, EPOCHS, request_id=request_id, **QUICK).name, first.name)
        # The queue holds one training: the first one, while the server ends those of earlier tests.
        next(iter(first))
        self.assertNotEqual(self.start().name, first.name)

    def test_errors_carry_what_the_server_says(self):
        with self.assertRaises(self.visage.InvalidArgument) as caught:
            self.client.train(os.path.join(tempfile.gettempdir(), "nowhere"), 0, batch_size=0)
        self.assertEqual(caught.exception.reason, "INVALID_FIELDS")
        self.assertEqual([one.field for one in caught.exception.violations], ["spec.dataset.path", "spec.max_epochs", "spec.batch_size"])
        self.assertIn("no such file or directory on the server", caught.exception.violations[0].description)
        with self.assertRaises(self.visage.NotFound) as caught:
            self.client.training("nobody").wait()
        self.assertEqual((caught.exception.reason, caught.exception.retry_delay), ("NOT_FOUND", None))
        with self.assertRaises(self.visage.InvalidArgument) as caught:
            self.client.predict(b"no image")
        self.assertEqual((caught.exception.reason, caught.exception.violations[0].field), ("INVALID_IMAGE", "images[0]"))
        # One runs, one is queued, and the third is refused.
        with self.assertRaises(self.visage.ResourceExhausted) as caught:
            for _ in range(3):
                self.start(10_000, input_size=32)
        self.assertEqual((caught.exception.reason, caught.exception.retry_delay), ("TRAINING_QUEUE_FULL", 1.0))

    def test_a_server_that_stays_away_is_given_up(self):
        with self.visage.Client("127.0.0.1:1", patience=0.0) as client, self.assertRaises(self.visage.Unavailable) as caught:
            client.training("any").wait()
        self.assertIsNone(caught.exception.reason)

    def test_every_kind_of_image_gives_the_same(self):
        path = pathlib.Path(self.server.path("face.png"))
        image = Image.open(face_paths()[0])
        image.save(path)
        kinds = [str(path), path, path.read_bytes(), Image.open(path), numpy.asarray(image)]
        raw = self.server.client.predict(path.read_bytes())
        found = [self.client.predict(one) for one in kinds]
        for one in found:
            self.assertEqual((one.age, one.width, one.height, one.model_version), (raw.predictions[0].age, 64, 64, raw.model_version))
        self.assertEqual([one.source for one in found], [path, path, None, None, None])
        # The order of additions depends on the batch.
        together = self.client.predict(kinds)
        self.assertEqual(len(together), len(kinds))
        for one in together:
            self.assertAlmostEqual(one.age, raw.predictions[0].age, places=1)
        by_asyncio = asyncio.run(self.predict_by_asyncio(kinds))
        self.assertEqual(by_asyncio, together)

    async def predict_by_asyncio(self, images):
        async with self.visage.AsyncClient(self.server.grpc_address) as client:
            self.assertEqual((await client.predict(images[0])).age, self.client.predict(images[0]).age)
            return await client.predict(images)

    def test_pixels_of_other_forms_are_encoded_or_refused(self):
        image = Image.open(face_paths()[0]).resize((40, 64))
        turned = pathlib.Path(self.server.path("turned.png"))
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(turned, exif=exif)
        by_file, by_pixels = self.client.predict(turned), self.client.predict(Image.open(turned))
        self.assertEqual((by_file.width, by_file.height, by_file.age), (64, 40, by_pixels.age))
        grey = numpy.asarray(image.convert("L"))
        self.assertEqual(self.client.predict(grey).age, self.client.predict(numpy.stack([grey] * 3, axis=-1)).age)
        self.assertEqual(self.client.predict(image.convert("CMYK")).width, 40)
        for bad, text in [(grey.astype("float32"), "must be uint8"), (numpy.zeros((2, 8, 8, 3), "uint8"), "several images as a list"), (7, "must be a path, bytes, a PIL image or a numpy array, got int")]:
            with self.assertRaisesRegex(TypeError, text):
                self.client.predict(bad)

    def test_options_of_a_prediction(self):
        version = self.client.version("live")
        found = self.client.predict(face_paths()[0], version=version.version, annotate=True)
        self.assertEqual(found.model_version, version.name)
        self.assertEqual(Image.open(io.BytesIO(found.annotated_png)).format, "PNG")
        if found.interval is not None:
            self.assertTrue(found.interval.lower <= found.age <= found.interval.upper, found)
            self.assertGreaterEqual(found.interval.confidence, 0.9)
        self.assertIsNone(self.client.predict(face_paths()[0]).annotated_png)

    def test_a_directory_is_predicted_in_calls_under_the_limits(self):
        directory = pathlib.Path(self.server.path("images"))
        (directory / "below").mkdir(parents=True)
        noise = numpy.random.default_rng(3)
        for number in range(10):
            Image.fromarray(noise.integers(0, 256, (96, 96, 3), "uint8")).save(directory / "below" / "{}.png".format(number))
        for number, path in enumerate(face_paths()[:20]):
            shutil.copy(path, directory / "{:02}.jpg".format(number))
        (directory / "notes.txt").write_text("no image")
        before = self.predict_calls()
        found = list(self.client.predict_directory(directory))
        self.assertEqual([one.source.relative_to(directory).as_posix() for one in found],
                         ["{:02}.jpg".format(number) for number in range(20)] + ["below/{}.png".format(number) for number in range(10)])
        # Thirty images would be four calls of eight, but only four images of 28 kB fit into a
        # message.
        server.wait_for(lambda: self.predict_calls() - before >= 5, "five calls are counted")
        self.assertLessEqual(self.predict_calls() - before, 6)
        self.assertAlmostEqual(found[7].age, self.client.predict(directory / "07.jpg").age, places=1)

        async def by_asyncio():
            async with self.visage.AsyncClient(self.server.grpc_address) as client:
                return [one async for one in client.predict_directory(directory)]
        self.assertEqual([one.source for one in asyncio.run(by_asyncio())], [one.source for one in found])

        (directory / "03.jpg").write_bytes(b"no image")
        with self.assertRaises(self.visage.InvalidArgument):
            list(self.client.predict_directory(directory))
        bad = []
        left = list(self.client.predict_directory(directory, on_error=lambda image, error: bad.append((image.source.name, error.reason))))
        self.assertEqual((len(left), bad), (29, [("03.jpg", "INVALID_IMAGE")]))

    def test_images_are_read_only_as_they_are_needed(self):
        taken = itertools.count()
        images = (path for path in itertools.cycle(face_paths()) if next(taken) >= 0)
        found = self.client.predict_many(images, parallel=2)
        next(found)
        # Two calls of eight, and one with the last image.
        self.assertLessEqual(next(taken), 18)
        found.close()

    def test_a_directory_is_predicted_across_a_killed_server(self):
        expected = [one.age for one in self.client.predict_directory(faces)]
        found = self.client.predict_directory(faces, parallel=2)
        ages = [next(found).age]
        self.server.kill_and_restart()
        ages.extend(one.age for one in found)
        self.assertEqual(len(ages), 40)
        for age, before in zip(ages, expected):
            self.assertAlmostEqual(age, before, places=1)

    def test_promote_and_roll_back(self):
        new = self.start(1).wait().model_version
        number = int(new.rsplit("/", 1)[1])
        before = self.client.version("live").version
        self.assertEqual([one.name for one in self.client.models()][0], new)
        self.assertEqual(self.client.promote(number).name, new)
        self.assertEqual(self.client.predict(face_paths()[0]).model_version, new)
        self.assertEqual(self.client.version("previous").version, before)
        self.assertEqual(self.client.rollback().version, before)
        self.assertEqual({alias: one.version for one in self.client.models() for alias in one.aliases}, {"live": before, "previous": number})
        with self.assertRaises(self.visage.NotFound):
            self.client.promote(999)
        self.assertEqual(asyncio.run(self.promoted_by_asyncio(number)), (new, before, new))

    async def promoted_by_asyncio(self, number):
        """The live version, the one after the rollback, and the newest one."""
        async with self.visage.AsyncClient(self.server.grpc_address) as client:
            promoted = await client.promote(number)
            self.assertEqual((await client.version()).name, promoted.name)
            back = await client.rollback()
            return promoted.name, back.version, (await client.models())[0].name

    def test_curves_are_drawn_without_a_screen(self):
        if importlib.util.find_spec("matplotlib") is None:
            self.skipTest("matplotlib is not installed: `pip install matplotlib`")
        training = self.start(3)
        shown = []

        class Display:
            """Stand-in for IPython's display that records each image."""

            Image = staticmethod(lambda data: data)

            def display(self, image, display_id):
                shown.append(image)
                return types.SimpleNamespace(update=shown.append)
        # matplotlib reads the version to select a backend.
        notebook = types.SimpleNamespace(display=Display(), get_ipython=lambda: object(), version_info=(9, 0))
        with unittest.mock.patch.dict(os.environ), unittest.mock.patch.dict(sys.modules, IPython=notebook):
            os.environ.pop("DISPLAY", None)
            figure = training.plot()
        losses, errors = figure.axes
        self.assertEqual([list(line.get_ydata()) for line in losses.lines],
                         [[epoch.train_loss for epoch in training.epochs], [epoch.val_loss for epoch in training.epochs]])
        self.assertEqual(list(errors.lines[0].get_ydata()), [epoch.val_mae for epoch in training.epochs])
        self.assertEqual(len(training.epochs), 3)
        # One image after each epoch and at the end, all different.
        self.assertEqual(len(shown), 4)
        self.assertTrue(all(png.startswith(b"\x89PNG") for png in shown) and len(set(shown)) == 4)
        path = self.server.path("curves.png")
        training.plot(follow=False).savefig(path)
        with Image.open(path) as saved:
            self.assertEqual(saved.format, "PNG")

    def test_the_readme_runs_as_it_is_printed(self):
        code, = re.findall(r"```python\n(.*?)```", (checkout / "deploy" / "clients" / "python" / "README.md").read_text(encoding="utf-8"), re.S)
        self.assertLessEqual(len(code.splitlines()), 12)
        for printed, here in [("localhost:50051", self.server.grpc_address), ("/data/faces", faces), ("me.jpg", face_paths()[0]), ('"images"', repr(faces)),
                              # ImageNet weights need a network, and ten epochs take long.
                              ("epochs=10", 'epochs=2, input_size=64, init="RANDOM"')]:
            self.assertIn(printed, code)
            code = code.replace(printed, here)
        lines = finished([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(site)}).splitlines()
        self.assertEqual([line.split()[0] for line in lines[:2]], ["1", "2"])
        self.assertRegex(lines[2], r"models/age/versions/\d+")
        self.assertTrue(0 < float(lines[3]) < 120, lines)
        self.assertEqual(len(lines), 4 + 40)

    def test_all_types_hold(self):
        if importlib.util.find_spec("mypy") is None:
            self.skipTest("mypy is not installed: `pip install mypy types-grpcio types-protobuf`")
        printed = finished([sys.executable, "-m", "mypy", "--cache-dir", str(site.parent / "mypy"), "-p", "visage_client"], cwd=checkout / "deploy" / "clients" / "python",
                           env={**os.environ, "MYPYPATH": str(site)})
        self.assertIn("no issues found", printed)


def until_epoch(events, number):
    """Events up to this epoch."""
    for event in events:
        yield event
        if event.epoch_completed.epoch == number:
            return


class ExamplesTest(package.ServerTest):
    """Each example starts a training, loses its server in the third epoch, resumes following, and predicts a directory."""

    def run_example(self, *command, **environment):
        process = subprocess.Popen([*command, self.server.grpc_address, faces, faces, str(EPOCHS)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, universal_newlines=True, env={**os.environ, **environment})
        watchdog = threading.Timer(DEADLINE_SECONDS, process.kill)
        watchdog.start()
        lines = []
        try:
            for line in process.stdout:
                lines.append(line.strip())
                if line.startswith("epoch 2/") and sum(one.startswith("epoch 2/") for one in lines) == 1:
                    self.server.kill_and_restart()
            errors = process.stderr.read()
            self.assertEqual(process.wait(), 0, "\n".join([*lines, errors]))
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
        self.assertIn("reconnecting after event", errors)
        self.check(lines)

    def check(self, lines):
        name = re.fullmatch(r"training (trainings/\S+)", lines[0]).group(1)
        events = self.server.client.events(name, follow=False)
        output = [line for line in lines[1:] if not re.fullmatch(r"\S+\.jpg \d+\.\d", line)]
        expected = []
        for event in events:
            kind = event.WhichOneof("kind")
            if kind == "epoch_completed":
                expected.append("epoch {}/{}: {:.2f} years".format(event.epoch_completed.epoch, EPOCHS, event.epoch_completed.val_mae))
            elif kind == "metrics_rewound":
                expected.append("rewound to epoch {}".format(event.metrics_rewound.from_epoch))
            elif kind == "model_version_created":
                expected.append("model " + event.model_version_created.model_version)
        self.assertEqual(output, expected)
        self.assertEqual(self.server.client.get(name).attempt, 2, "the training was not interrupted")
        predicted = [line.split() for line in lines if re.fullmatch(r"\S+\.jpg \d+\.\d", line)]
        self.assertEqual([name for name, _ in predicted], [os.path.basename(path) for path in face_paths()])
        for (_, printed), path in zip(predicted, face_paths()):
            with open(path, "rb") as file:
                self.assertAlmostEqual(float(printed), self.server.client.ages(file.read())[0], delta=0.2)

    def need(self, programs, hint):
        missing = [program for program in programs if shutil.which(program) is None]
        if missing:
            self.skipTest("{} is not installed: {}".format(", ".join(missing), hint))

    @unittest.skipIf(sys.version_info < (3, 9), "asyncio.to_thread came with Python 3.9")
    def test_python_by_asyncio(self):
        self.run_example(sys.executable, str(checkout / "deploy/clients/examples/python_asyncio.py"))

    def test_python(self):
        self.run_example(sys.executable, str(checkout / "deploy/clients/examples/python_sync.py"))

    def test_node(self):
        self.need(["node", "npm"], "`apt install nodejs npm`, 20 or newer")
        if int(finished(["node", "--version"]).lstrip("v").split(".")[0]) < 20:
            self.skipTest("node is older than 20")
        directory = checkout / "deploy/clients/examples/node"
        finished(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=directory)
        finished(["npm", "run", "build"], cwd=directory)
        self.run_example("node", str(directory / "dist/main.js"))

    def test_go(self):
        hint = "`apt install golang-go golang-google-grpc-dev golang-google-genproto-dev golang-google-protobuf-dev protobuf-compiler protoc-gen-go protoc-gen-go-grpc`"
        self.need(["go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc"], hint)
        if not os.path.isdir("/usr/share/gocode/src/google.golang.org/grpc"):
            self.skipTest("golang-google-grpc-dev is not installed: " + hint)
        directory = checkout / "deploy/clients/examples/go"
        environment = {**os.environ, "GOCACHE": str(checkout / "go-cache")} if "HOME" not in os.environ else os.environ
        finished([str(directory / "build.sh")], env=environment)
        self.run_example(str(directory / "build/example"), GRPC_GO_RETRY="on")
