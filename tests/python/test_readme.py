"""The README's Python examples run as they are printed, with the names of this machine put in."""

import contextlib
import importlib.util
import io
import os
import re
import unittest

import server
# Importing api makes the stubs that the example imports.
from api import REPOSITORY


class ReadmeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server()
        cls.addClassCleanup(cls.server.close)
        cls.faces = server.draw_faces(cls.server.path("faces"), count=40, seed=5, size=64)

    def run_example(self, number, *replaced):
        """Runs one of the examples with what is replaced in it, and returns the lines that it prints."""
        with open(os.path.join(REPOSITORY, "README.md"), encoding="utf-8") as file:
            blocks = re.findall(r"```python\n(.*?)```", file.read(), re.S)
        self.assertEqual(len(blocks), 2)
        image = os.path.join(self.faces, sorted(os.listdir(self.faces))[0])
        code = blocks[number]
        for printed, here in [("localhost:50051", self.server.grpc_address), ("me.jpg", image), *replaced]:
            self.assertIn(printed, code)
            code = code.replace(printed, here)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code, "README.md", "exec"), {})
        return output.getvalue().split("\n")

    def test_the_python_examples_train_follow_and_predict(self):
        lines = self.run_example(
            0, ("/data/faces", self.faces),
            # ImageNet's weights need a network, and ten epochs need time.
            ("max_epochs=10", "max_epochs=2, input_size=64, init=training_pb2.InitSpec(kind=training_pb2.INIT_KIND_RANDOM)"))
        self.assertEqual([line.split()[0] for line in lines[:2]], ["1", "2"])
        self.assertTrue(0 < float(lines[2]) < 120, lines)
        if importlib.util.find_spec("tritonclient") is None:
            self.skipTest("tritonclient is not installed")
        by_triton = self.run_example(1)
        self.assertAlmostEqual(float(by_triton[0].strip("[]").split("]")[0]), float(lines[2]), places=2)
