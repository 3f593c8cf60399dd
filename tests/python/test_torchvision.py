"""Checkpoints in torchvision's resnet18, which must predict the ages of the server.

Requires requirements-torch.txt, and is skipped without it.
"""

import io
import json
import os
import unittest

try:
    import numpy
    import safetensors.torch
    import torch
    import torchvision
except ImportError as error:
    missing = str(error)
else:
    missing = None

from PIL import Image, ImageOps

import server
from api import training

# Pillow and the server round resized samples to 8 bits, and about one in a thousand differs by one
# level: about 0.01 years on this network, whose ages span 70 years. A wrong mean, filter or channel
# order results in years.
TOLERANCE_YEARS = 0.05


def age_of(name):
    """The age in years at the start of a file name."""
    return float(name.split("_")[0])


def as_png(image, size=None):
    """The image as a lossless file, resized if a size is given."""
    opened = Image.open(io.BytesIO(image)).convert("RGB")
    buffer = io.BytesIO()
    opened.resize(size or opened.size, Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


class Trained:
    """A server with a small training, and its best checkpoint in torchvision."""

    OPTIONS = ()

    @classmethod
    def setUpClass(cls):
        cls.server = server.Server(*cls.OPTIONS)
        cls.addClassCleanup(cls.server.close)
        cls.client = cls.server.client
        cls.faces = server.draw_faces(cls.server.path("faces"), count=60, seed=3)
        cls.names = sorted(os.listdir(cls.faces))
        # A manifest with the split, so that the validation images are known: every fourth.
        with open(cls.server.path("manifest.csv"), "w", encoding="utf-8") as file:
            file.write("path,age,split\n")
            for position, name in enumerate(cls.names):
                file.write("faces/{},{},{}\n".format(name, age_of(name), "val" if position % 4 == 0 else "train"))
        # The whole network is trained, including the BatchNorm statistics.
        spec = training.TrainingSpec(
            dataset=training.DatasetSpec(path=cls.server.path("manifest.csv")), init=training.InitSpec(kind=training.INIT_KIND_RANDOM),
            trainable=["ALL"], max_epochs=3, batch_size=16, input_size=64, precision=training.PRECISION_F32,
            optimizer=training.OptimizerSpec(learning_rate=1e-3))
        cls.name = cls.client.start(spec).name
        cls.client.events(cls.name)
        ended = cls.client.get(cls.name)
        if ended.state != training.TRAINING_STATE_SUCCEEDED:
            raise AssertionError("{}\n{}".format(ended, cls.server.log()))
        cls.best = ended.best
        cls.weights = cls.client.download(cls.name + "/checkpoints/best")[1]
        cls.manifest = json.loads(cls.client.download(cls.name + "/checkpoints/best", "manifest.json")[1])
        cls.network = torchvision.models.resnet18(weights=None, num_classes=1)
        cls.network.load_state_dict(safetensors.torch.load(cls.weights), strict=True)
        cls.network.eval()

    def read_faces(self, names):
        images = []
        for name in names:
            with open(os.path.join(self.faces, name), "rb") as file:
                images.append(file.read())
        return images

    def prepare(self, images):
        """The network's input, computed with torchvision and Pillow from the manifest's values."""
        how = self.manifest["input"]
        self.assertEqual((how["fit"], how["filter"]), ("stretch", "bilinear_antialiased"))
        prepare = torchvision.transforms.Compose([
            torchvision.transforms.Resize((how["size"], how["size"]), torchvision.transforms.InterpolationMode.BILINEAR, antialias=True),
            torchvision.transforms.ToTensor(), torchvision.transforms.Normalize(how["mean"], how["std"])])
        opened = [ImageOps.exif_transpose(Image.open(io.BytesIO(image))).convert("RGB") for image in images]
        return torch.stack([prepare(image) for image in opened])

    def outputs(self, images):
        """The network's outputs in years, from which a training's metrics are computed."""
        with torch.no_grad():
            outputs = self.network(self.prepare(images)).squeeze(1).double().numpy()
        return outputs * self.manifest["label"]["scale"] + self.manifest["label"]["offset"]

    def predict(self, images):
        """Ages in years, which are not negative."""
        return numpy.maximum(self.outputs(images), 0.0)

    def assert_same_ages(self, images, tolerance=TOLERANCE_YEARS):
        ours, theirs = numpy.array(self.client.ages(*images)), self.predict(images)
        self.assertGreater(numpy.ptp(theirs), 20 * tolerance, "the images are too alike for the comparison to mean anything")
        self.assertLess(numpy.abs(ours - theirs).max(), tolerance, (ours, theirs))


@unittest.skipIf(missing, "install tests/python/requirements-torch.txt to compare with torchvision: {}".format(missing))
class DefaultFormatTest(Trained, unittest.TestCase):
    def test_the_default_number_format_changes_ages_by_little(self):
        images = [as_png(image) for image in self.read_faces(self.names)]
        changes = numpy.abs(numpy.array(self.client.ages(*images)) - self.predict(images))
        # A version that changes the ages of drawn faces by more than 0.1 years on average would be
        # served in f32.
        self.assertLess(changes.mean(), 0.1, changes)
        self.assertLess(changes.max(), 0.5, changes)


@unittest.skipIf(missing, "install tests/python/requirements-torch.txt to compare with torchvision: {}".format(missing))
class TorchvisionTest(Trained, unittest.TestCase):
    # In f32, because the rounding of 16 bits would hide small differences.
    OPTIONS = ("--precision", "f32")

    def test_the_weights_load_into_torchvision_with_every_name_and_shape(self):
        stored = safetensors.torch.load(self.weights)
        expected = torchvision.models.resnet18(weights=None, num_classes=1).state_dict()
        self.assertEqual({name: (tensor.shape, tensor.dtype) for name, tensor in stored.items()},
                         {name: (tensor.shape, tensor.dtype) for name, tensor in expected.items()})
        self.assertGreater(stored["bn1.num_batches_tracked"].item(), 0)

    def test_torchvision_predicts_the_ages_of_the_server(self):
        self.assert_same_ages([as_png(image) for image in self.read_faces(self.names)])
        # The server decodes JPEG like Pillow, so JPEG is as close as PNG.
        self.assert_same_ages(self.read_faces(self.names))

    def grad_cam(self, images):
        """Equation 2 of the paper without its ReLU, by hooks and autograd: [images, rows, columns] in years; and the ages."""
        kept = {}

        def keep(_, __, output):
            output.retain_grad()
            kept["features"] = output

        hook = self.network.layer4.register_forward_hook(keep)
        try:
            ages = self.network(self.prepare(images)).squeeze(1) * self.manifest["label"]["scale"] + self.manifest["label"]["offset"]
            ages.sum().backward()
        finally:
            hook.remove()
        features = kept["features"]
        weights = features.grad.mean(dim=(2, 3), keepdim=True)
        return (weights * features).sum(dim=1).detach().double().numpy(), ages.detach().double().numpy()

    def test_autograd_explains_ages_as_the_server_does(self):
        images = [as_png(image) for image in self.read_faces(self.names)]
        # The parts of a negative output do not sum to the predicted age of 0.
        images = [image for image, output in zip(images, self.outputs(images)) if output > 0.0]
        self.assertGreater(len(images), 40)
        expected, ages = self.grad_cam(images)
        predictions = self.client.predict(*images, explain=True).predictions
        found = numpy.array([numpy.reshape(one.explanation.years, (one.explanation.rows, one.explanation.columns)) for one in predictions])
        self.assertEqual(found.shape, expected.shape)
        self.assertGreater(numpy.abs(expected).max(), 1.0, "nothing adds a year, so the comparison means nothing")
        # The tolerance of the ages, which are sums of these; swapped rows and columns would exceed
        # it by far.
        self.assertGreater(numpy.abs(expected - expected.transpose(0, 2, 1)).max(), 10 * TOLERANCE_YEARS)
        self.assertLess(numpy.abs(found - expected).max(), TOLERANCE_YEARS, (found, expected))
        base = self.network.fc.bias.item() * self.manifest["label"]["scale"] + self.manifest["label"]["offset"]
        for one, age in zip(predictions, ages):
            self.assertAlmostEqual(one.explanation.base_years, base, delta=1e-3)
            self.assertAlmostEqual(sum(one.explanation.years) + base, age, delta=TOLERANCE_YEARS)

    def test_images_of_another_shape_are_resized_as_pillow_does(self):
        faces = self.read_faces(self.names[::5])
        self.assert_same_ages([as_png(face, (37 + 41 * position, 300 - 19 * position)) for position, face in enumerate(faces)])

    def test_torchvision_finds_the_validation_error_that_the_training_reported(self):
        names = self.names[::4]
        errors = self.outputs(self.read_faces(names)) - numpy.array([age_of(name) for name in names])
        self.assertEqual(self.best.val_images, len(names))
        self.assertAlmostEqual(numpy.abs(errors).mean(), self.best.val_mae, delta=TOLERANCE_YEARS)
        self.assertAlmostEqual(numpy.sqrt((errors ** 2).mean()), self.best.val_rmse, delta=TOLERANCE_YEARS)

    def export(self, form, *version):
        """Exports a model; returns its path and the output of the command."""
        path = self.server.path("exported." + form)
        printed = server.run("--server", self.server.grpc_address, "--json", "models", "export", "--format", form, "--output", path, *version)
        said = json.loads(printed)
        self.assertEqual((said["path"], said["format"], said["size_bytes"]), (path, form, os.path.getsize(path)))
        self.assertEqual(said["input"], self.manifest["input"])
        return path

    def assert_same_state(self, found):
        stored = safetensors.torch.load(self.weights)
        self.assertEqual(set(found), set(stored))
        for name, tensor in stored.items():
            self.assertEqual((found[name].dtype, found[name].shape), (tensor.dtype, tensor.shape), name)
            self.assertTrue(torch.equal(found[name], tensor), name)

    def test_an_exported_pth_is_a_state_dict_for_torch_load(self):
        path = self.export("pth")
        state = torch.load(path, weights_only=True)
        self.assert_same_state(state)
        # The order of torchvision, by which optimizers number the parameters.
        self.assertEqual(list(state), list(self.network.state_dict()))
        self.assert_same_state(torch.load(path, weights_only=True, mmap=True))
        torchvision.models.resnet18(weights=None, num_classes=1).load_state_dict(state, strict=True)

    def test_an_exported_safetensors_file_is_the_stored_one(self):
        with open(self.export("safetensors", "1"), "rb") as file:
            self.assertEqual(file.read(), self.weights)

    def test_an_exported_torchscript_module_predicts_ages_for_any_number_of_images(self):
        module = torch.jit.load(self.export("torchscript", "models/age/versions/live"))
        images = [as_png(image) for image in self.read_faces(self.names[:6])]
        inputs = self.prepare(images)
        with torch.no_grad():
            for count in (6, 3, 1):
                ages = module(inputs[:count])
                self.assertEqual((ages.dtype, ages.shape), (torch.float32, (count,)))
                self.assertLess(numpy.abs(ages.numpy() - self.predict(images[:count])).max(), 1e-3)
        ages = module(inputs).detach().numpy()
        self.assertGreater(numpy.ptp(ages), 20 * TOLERANCE_YEARS)
        self.assertLess(numpy.abs(ages - numpy.array(self.client.ages(*images))).max(), TOLERANCE_YEARS)

    def test_a_version_is_exported_after_its_training_is_deleted(self):
        spec = training.TrainingSpec(
            dataset=training.DatasetSpec(path=self.faces), init=training.InitSpec(kind=training.INIT_KIND_RANDOM), max_epochs=1, batch_size=16,
            input_size=32, promote=training.PROMOTE_NEVER)
        name = self.client.start(spec).name
        self.client.events(name)
        version = self.client.get(name).model_version
        stored = safetensors.torch.load(self.client.download(name + "/checkpoints/best")[1])
        self.client.trainings.DeleteTraining(training.DeleteTrainingRequest(name=name))
        path = self.server.path("orphan.pth")
        server.run("--server", self.server.grpc_address, "models", "export", version, "--format", "pth", "-o", path)
        state = torch.load(path, weights_only=True)
        self.assertTrue(all(torch.equal(state[name], tensor) for name, tensor in stored.items()))


if __name__ == "__main__":
    unittest.main()
