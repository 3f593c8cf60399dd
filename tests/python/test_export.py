"""Exported files in the programs that they are for: ONNX in onnxruntime and OpenVINO, and the printed Python code.

Tests of programs that are not installed are skipped; requirements-onnx.txt and requirements-torch.txt have them.
"""

import importlib
import io
import json
import os
import re
import subprocess
import sys
import unittest

import numpy
from PIL import Image

import server

# All of them compute in f32, and differ in the order of their sums only.
TOLERANCE_YEARS = 1e-3
# Pillow and the server round resized samples to 8 bits, and about one in a thousand differs by one
# level.
RESIZED_TOLERANCE_YEARS = 0.05
SIDE = 192
BATCHES = (1, 3, 32)


def installed(name):
    """The module, or a skipped test."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise unittest.SkipTest("install tests/python/requirements-onnx.txt or requirements-torch.txt: {}".format(error))


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class ExportTest(unittest.TestCase):
    """The starter on a server that computes in f32."""

    @classmethod
    def setUpClass(cls):
        cls.server = server.Server("--starter", "--precision", "f32", "--threads", "1")
        cls.addClassCleanup(cls.server.close)
        faces = server.draw_faces(cls.server.path("faces"), count=max(BATCHES), seed=5, size=SIDE)
        cls.faces = [os.path.join(faces, name) for name in sorted(os.listdir(faces))]
        # Pixels of the size of the input, which no resizing changes.
        cls.pixels = numpy.stack([numpy.asarray(Image.open(face).convert("RGB")) for face in cls.faces])
        assert cls.pixels.shape == (max(BATCHES), SIDE, SIDE, 3), cls.pixels.shape
        cls.ages = numpy.array(cls.server.client.ages(*[png(pixels) for pixels in cls.pixels]))
        assert numpy.ptp(cls.ages) > 1000 * TOLERANCE_YEARS, cls.ages
        mean, std = numpy.float32([0.485, 0.456, 0.406]), numpy.float32([0.229, 0.224, 0.225])
        cls.planes = ((cls.pixels.astype(numpy.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)

    def export(self, form, *options, **named):
        """Exports the live version; returns the path and the JSON object that the command printed."""
        path = self.server.path(named.get("name", "exported-{}".format("-".join((form,) + options))))
        printed = server.run("--server", self.server.grpc_address, "--json", "models", "export", "live", "--format", form, "--output", path, *options)
        said = json.loads(printed)
        self.assertEqual((said["path"], said["format"], said["size_bytes"]), (path, form, os.path.getsize(path)))
        return path, said

    def onnx(self):
        """Both ONNX files, each with the input for all images."""
        return [("f32", self.export("onnx")[0], self.planes), ("uint8", self.export("onnx", "--input", "uint8")[0], self.pixels)]

    def assert_predicts(self, predict, images, expected):
        """Checks the ages of a function from a batch of images to ages, for each batch size."""
        for count in BATCHES:
            ages = numpy.asarray(predict(images[:count]))
            self.assertEqual((ages.dtype, ages.shape), (numpy.float32, (count,)))
            self.assertLess(numpy.abs(ages - expected[:count]).max(), TOLERANCE_YEARS)

    def test_onnx_files_are_valid_and_describe_themselves(self):
        onnx = installed("onnx")
        for name, path, images in self.onnx():
            with self.subTest(name):
                onnx.checker.check_model(path, full_check=True)
                model = onnx.load(path)
                operators = {node.op_type for node in model.graph.node}
                self.assertNotIn("BatchNormalization", operators)
                self.assertEqual([node.op_type for node in model.graph.node].count("Conv"), 20)
                self.assertEqual((model.producer_name, model.ir_version, model.opset_import[0].version, model.model_version), ("visage", 8, 17, 1))
                properties = {entry.key: entry.value for entry in model.metadata_props}
                self.assertEqual((properties["model_version"], properties["input_size"]), ("models/age/versions/1", str(SIDE)))
                self.assertEqual((properties["mean"], properties["std"]), ("0.485,0.456,0.406", "0.229,0.224,0.225"))
                self.assertIn("UTKFace", properties["model_license"])
                given, = model.graph.input
                dimensions = [one.dim_param or one.dim_value for one in given.type.tensor_type.shape.dim]
                self.assertEqual((given.name, dimensions), ("input", ["batch", *images.shape[1:]]))
                self.assertEqual([(output.name, output.type.tensor_type.shape.dim[0].dim_param) for output in model.graph.output], [("age", "batch")])

    def test_onnxruntime_predicts_the_ages_of_the_server(self):
        onnxruntime = installed("onnxruntime")
        for name, path, images in self.onnx():
            with self.subTest(name):
                session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                self.assert_predicts(lambda batch: session.run(["age"], {"input": batch})[0], images, self.ages)

    def test_openvino_predicts_the_ages_of_the_server(self):
        openvino = installed("openvino")
        for name, path, images in self.onnx():
            with self.subTest(name):
                # The default is bf16 on CPUs that have it.
                model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
                self.assert_predicts(lambda batch: model({"input": batch})["age"], images, self.ages)

    def test_onnx_predicts_the_ages_of_the_torchscript_module(self):
        onnxruntime, torch = installed("onnxruntime"), installed("torch")
        module = torch.jit.load(self.export("torchscript")[0])
        with torch.no_grad():
            ages = module(torch.from_numpy(self.planes)).numpy()
        session = onnxruntime.InferenceSession(self.export("onnx")[0], providers=["CPUExecutionProvider"])
        self.assert_predicts(lambda batch: session.run(["age"], {"input": batch})[0], self.planes, ages)

    def test_the_same_version_results_in_the_same_onnx_file(self):
        files = []
        for name in ("first.onnx", "second.onnx"):
            with open(self.export("onnx", name=name)[0], "rb") as file:
                files.append(file.read())
        self.assertTrue(files[0] == files[1])

    def test_the_printed_code_predicts_the_age_of_the_server(self):
        # A JPEG of another size, so that the code resizes it as the server does.
        image = Image.open(self.faces[0]).convert("RGB").resize((301, 257), Image.Resampling.BICUBIC)
        image.save(self.server.path("me.jpg"), quality=90)
        with open(self.server.path("me.jpg"), "rb") as file:
            expected, = self.server.client.ages(file.read())
        for options in (("onnx",), ("onnx", "--input", "uint8"), ("torchscript",), ("pth",), ("safetensors",)):
            code = self.export(*options)[1]["python"]
            with self.subTest(" ".join(options)):
                for module in re.findall(r"^import (\w+)", code, re.M):
                    installed(module)
                done = subprocess.run([sys.executable, "-c", code], cwd=self.server.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      universal_newlines=True, timeout=server.DEADLINE_SECONDS, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
                self.assertEqual(done.returncode, 0, done.stderr)
                age = float(re.search(r"\[([-\d.]+)\]", done.stdout).group(1))
                self.assertAlmostEqual(age, expected, delta=RESIZED_TOLERANCE_YEARS)

    def test_the_command_reports_the_precision_of_the_server_and_what_to_expect(self):
        said = self.export("onnx")[1]["server"]
        self.assertEqual(said["precision"], "f32")
        self.assertLess(said["difference_years"], TOLERANCE_YEARS)
        for form, words in (("onnx", "Precision: f32, as on the server"), ("torchscript", "PyTorch deprecates TorchScript")):
            done = self.run_export("--format", form, "--output", self.server.path("described"))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(words, done.stderr)
            self.assertIn("UTKFace", done.stderr)
            self.assertIn("Image.Resampling.BILINEAR", done.stderr)

    def test_other_formats_have_no_uint8_input(self):
        path = self.server.path("refused.pth")
        done = self.run_export("--format", "pth", "--input", "uint8", "--output", path)
        self.assertEqual((done.returncode, os.path.exists(path)), (2, False))
        self.assertIn("--input must be f32 for --format pth, got uint8; use --format onnx", done.stderr)

    def run_export(self, *options):
        return subprocess.run([server.binary(), "--server", self.server.grpc_address, "models", "export", *options], env=server.environment(),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=server.DEADLINE_SECONDS)


if __name__ == "__main__":
    unittest.main()
