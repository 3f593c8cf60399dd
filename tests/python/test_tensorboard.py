"""Event files of a training, read by TensorBoard's own reader and compared with ListEpochMetrics."""

import json
import os
import struct
import unittest

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as error:
    missing = str(error)
else:
    missing = None

from google.protobuf import json_format

import server
from api import training

FIGURES = {
    "loss/train": lambda epoch: epoch.train_loss,
    "loss/validation": lambda epoch: epoch.val_loss,
    "error/validation_rmse_years": lambda epoch: epoch.val_rmse,
    "error/validation_mae_years": lambda epoch: epoch.val_mae,
    "error/train_mae_years": lambda epoch: epoch.train_mae,
    "learning_rate": lambda epoch: epoch.learning_rate,
    "speed/images_per_second": lambda epoch: epoch.images_per_second,
    "seconds/data": lambda epoch: epoch.seconds.data,
    "seconds/forward": lambda epoch: epoch.seconds.forward,
    "seconds/backward": lambda epoch: epoch.seconds.backward,
    "seconds/update": lambda epoch: epoch.seconds.update,
    "seconds/validate": lambda epoch: epoch.seconds.validate,
    "seconds/checkpoint": lambda epoch: epoch.seconds.checkpoint,
    "seconds/total": lambda epoch: epoch.seconds.total,
}


def as_float(figure):
    """The value rounded to the 32 bits of an event file."""
    return struct.unpack("f", struct.pack("f", figure))[0]


@unittest.skipIf(missing, "TensorBoard is not installed: {}".format(missing))
class TensorBoardTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server("--threads", "1")
        cls.addClassCleanup(cls.server.close)
        cls.faces = server.draw_faces(cls.server.path("faces"), count=40, seed=9, size=64)

    def spec(self, **fields):
        return training.TrainingSpec(dataset=training.DatasetSpec(path=self.faces), init=training.InitSpec(kind=training.INIT_KIND_RANDOM),
                                     batch_size=8, input_size=32, promote=training.PROMOTE_NEVER, **fields)

    def directory(self, name):
        return os.path.join(self.server.path("data"), "runs", name.split("/")[1])

    def epochs(self, name):
        """The valid metrics: the later ones of a repeated epoch."""
        epochs = {}
        for event in self.list_events(name):
            if event.HasField("metrics_rewound"):
                epochs = {number: epoch for number, epoch in epochs.items() if number < event.metrics_rewound.from_epoch}
            elif event.HasField("epoch_completed"):
                epochs[event.epoch_completed.epoch] = event.epoch_completed
        return [epochs[number] for number in sorted(epochs)]

    def list_events(self, name):
        request = training.ListEpochMetricsRequest(name=name, page_size=1000)
        return self.server.client.trainings.ListEpochMetrics(request).events

    def read(self, name):
        reader = EventAccumulator(self.directory(name))
        reader.Reload()
        return reader

    def assert_read_as_listed(self, name):
        reader, epochs = self.read(name), self.epochs(name)
        self.assertEqual(sorted(reader.Tags()["scalars"]), sorted(FIGURES))
        for tag, figure in FIGURES.items():
            found = [(scalar.step, scalar.value) for scalar in reader.Scalars(tag)]
            self.assertEqual(found, [(epoch.epoch, as_float(figure(epoch))) for epoch in epochs], tag)

    def test_the_figures_are_those_of_the_api_and_go_with_the_training(self):
        client = self.server.client
        name = client.start(self.spec(max_epochs=3), training_id="plain").name
        client.events(name)
        self.assertEqual(len(self.epochs(name)), 3)
        self.assertEqual(len(os.listdir(self.directory(name))), 1)
        self.assert_read_as_listed(name)
        text, = self.read(name).Tensors("spec")
        self.assertEqual(text.step, 0)
        written = text.tensor_proto.string_val[0].decode()
        head, tail = "```json\n", "\n```"
        self.assertTrue(written.startswith(head) and written.endswith(tail), written)
        resolved = json_format.ParseDict(json.loads(written[len(head):-len(tail)]), training.TrainingSpec())
        self.assertEqual(resolved, client.get(name).resolved_spec)
        client.trainings.DeleteTraining(training.DeleteTrainingRequest(name=name))
        self.assertFalse(os.path.exists(self.directory(name)))

    def test_repeated_epochs_void_those_before_a_kill_of_the_server(self):
        name = self.server.client.start(self.spec(max_epochs=10_000), training_id="killed").name
        server.wait_for(lambda: len(self.epochs(name)) >= 3, "three epochs are complete")
        self.server.process.kill()
        self.server.process.wait()
        self.server.client.close()
        before, = os.listdir(self.directory(name))
        os.remove(self.server.path("ready"))
        self.server.start()
        has_begun_again = lambda: self.server.client.get(name).last.attempt == 2
        server.wait_for(has_begun_again, "an epoch of the second start is complete")
        self.server.client.trainings.StopTraining(training.StopTrainingRequest(name=name))
        self.server.client.events(name)
        self.assertIn("metrics_rewound", [event.WhichOneof("kind") for event in self.list_events(name)])
        first, second = sorted(os.listdir(self.directory(name)))
        self.assertEqual(first, before)
        self.assert_read_as_listed(name)
        # Without the session start of the second file, both would be valid.
        os.remove(os.path.join(self.directory(name), second))
        self.assertGreaterEqual(len(self.read(name).Scalars("loss/train")), 3)
        self.assertEqual(len(self.read(name).Tensors("spec")), 1)


if __name__ == "__main__":
    unittest.main()
