"""The maintainers' tool deploy/tools/round_starter.py writes a checkpoint as the built-in starter."""

import hashlib
import importlib.util
import json
import os
import struct
import subprocess
import sys
import unittest

import api
import server

TOOL = os.path.join(api.REPOSITORY, "deploy", "tools", "round_starter.py")


def load_tool():
    spec = importlib.util.spec_from_file_location("round_starter", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load_tool()


def floats(*values):
    return struct.pack("<{}f".format(len(values)), *values)


class Rounding(unittest.TestCase):
    def test_only_convolutions_are_rounded(self):
        tensors = {
            "conv1.weight": ("F32", [2, 1, 1, 1], floats(0.1, -2.0)),
            "fc.bias": ("F32", [1], floats(31.3)),
            "bn1.num_batches_tracked": ("I64", [], bytes(8)),
        }
        rounded = tool.round_convolutions(tensors)
        dtype, shape, data = rounded.pop("conv1.weight")
        self.assertEqual((dtype, shape), ("F16", [2, 1, 1, 1]))
        # 0.1 in half precision, computed by hand.
        self.assertEqual(struct.unpack("<2e", data), (0.0999755859375, -2.0))
        del tensors["conv1.weight"]
        self.assertEqual(rounded, tensors)

    def test_values_beyond_half_precision_are_refused(self):
        tensors = {"conv1.weight": ("F32", [1, 1, 1, 1], floats(70_000.0))}
        with self.assertRaisesRegex(tool.Refused, "conv1.weight has values beyond 65,504"):
            tool.round_convolutions(tensors)

    def test_a_written_file_is_read_back_with_wider_types_first(self):
        tensors = {
            "a": ("F16", [1, 1, 1, 1], bytes(2)),
            "b": ("F32", [1], floats(1.5)),
            "c": ("I64", [], bytes(8)),
        }
        content = tool.write_safetensors({"visage": "{}"}, tensors)
        self.assertEqual(tool.read_safetensors(content), ({"visage": "{}"}, tensors))
        (length,) = struct.unpack_from("<Q", content)
        self.assertEqual(length % 8, 0)
        self.assertEqual(content[8 + length:], bytes(8) + floats(1.5) + bytes(2))

    def test_the_manifest_keeps_no_directories_and_no_image_names(self):
        manifest = {
            "dataset": {"path": "/home/someone/faces"},
            "spec": {"dataset": {"path": "/home/someone/faces"}, "init": {"path": "/home/someone/resnet18.pth"}},
            "calibration": {"confidence": 0.9},
        }
        written = tool.without_names(manifest, {"mae": 4.5, "worst_predictions": [{"file": "34_me.jpg"}]})
        self.assertEqual(written["dataset"]["path"], "faces")
        self.assertEqual(written["spec"]["dataset"]["path"], "faces")
        self.assertEqual(written["spec"]["init"]["path"], "resnet18.pth")
        self.assertEqual(written["test"], {"mae": 4.5, "worst_predictions": []})
        self.assertEqual(written["calibration"], manifest["calibration"])
        self.assertNotIn("test", tool.without_names(manifest, None))


class Starter(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server("--device", "cpu", "--threads", "1")

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    def run_tool(self, *arguments):
        command = [sys.executable, TOOL, *arguments, "--visage", server.binary(), "--server", self.server.grpc_address]
        return subprocess.run(command, env=server.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, universal_newlines=True, timeout=api.DEADLINE_SECONDS)

    def test_a_training_becomes_a_starter(self):
        faces = server.draw_faces(self.server.path("faces"), 40, seed=3)
        checked = server.draw_faces(self.server.path("checked"), 8, seed=6)
        images = sorted(os.path.join(checked, name) for name in os.listdir(checked))
        self.assertEqual(len(images), 8)
        server.run("--server", self.server.grpc_address, "train", "--id", "small", "--dataset", faces, "--init", "RANDOM",
                   "--input-size", "64", "--epochs", "1", "--test-fraction", "0.2", "--quiet")
        target = self.server.path("starter")
        # The images of the check are required.
        self.assertEqual(self.run_tool("small", "--output", target).returncode, 2)
        done = self.run_tool("small", "--output", target, "--check", *images)
        self.assertEqual(done.returncode, 0, done.stderr)
        # Rounding changes ages, but only slightly.
        change = json.loads(done.stdout)["largest_change_years"]
        self.assertGreater(change, 0.0)
        self.assertLess(change, 0.05)

        with open(os.path.join(target, "model.safetensors"), "rb") as file:
            model = file.read()
        self.assertLess(len(model), 23_000_000)
        with open(os.path.join(target, "manifest.json"), encoding="utf-8") as file:
            manifest = json.load(file)
        with open(os.path.join(target, "training-images.bin"), "rb") as file:
            images = file.read()
        digests = {"model.safetensors": model, "training-images.bin": images}
        self.assertEqual(manifest["sha256"], {name: hashlib.sha256(content).hexdigest() for name, content in digests.items()})
        # The hashes of the training images, which start with those of `sha256sum`.
        hashes = set()
        for name in os.listdir(faces):
            with open(os.path.join(faces, name), "rb") as file:
                hashes.add(hashlib.sha256(file.read()).digest()[:8])
        self.assertEqual(images[:16], b"VISAGETI" + struct.pack("<II", 1, 8))
        found = [images[start:start + 8] for start in range(24, len(images), 8)]
        self.assertEqual(struct.unpack("<Q", images[16:24]), (len(found),))
        self.assertEqual(found, sorted(set(found)))
        self.assertLess(set(found), hashes)
        training = json.loads(server.run("--server", self.server.grpc_address, "--json", "trainings", "get", "small"))
        counts = {split["split"]: int(split["images"]) for split in training["dataset"]["splits"]}
        self.assertEqual(len(found), counts["train"])
        self.assertEqual(manifest["dataset"]["path"], "faces")
        version = json.loads(server.run("--server", self.server.grpc_address, "--json", "models", "get", "1"))
        self.assertAlmostEqual(manifest["test"]["mae"], version["test"]["mae"], places=9)
        self.assertEqual(manifest["test"]["worst_predictions"], [])

        # Each half is the nearest to its float: at most half a unit in the last place away.
        stored = self.server.path("stored.safetensors")
        server.run("--server", self.server.grpc_address, "trainings", "download", "small", "--output", stored)
        with open(stored, "rb") as file:
            before = tool.read_safetensors(file.read())[1]
        after = tool.read_safetensors(model)[1]
        self.assertEqual(before.keys(), after.keys())
        name = "layer1.0.conv1.weight"
        originals = struct.unpack("<{}f".format(64 * 64 * 9), before[name][2])
        halves = struct.unpack("<{}e".format(64 * 64 * 9), after[name][2])
        for original, half in zip(originals, halves):
            # Numbers below 2**-14 are subnormal, with a constant unit.
            unit = 2.0**-24
            while abs(half) >= 2048 * unit:
                unit *= 2
            self.assertLessEqual(abs(half - original), unit / 2)


if __name__ == "__main__":
    unittest.main()
