"""The README's Python example runs as it is printed, with the names of this machine put in."""

import contextlib
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

    def test_the_python_example_trains_follows_and_predicts(self):
        with open(os.path.join(REPOSITORY, "README.md"), encoding="utf-8") as file:
            blocks = re.findall(r"```python\n(.*?)```", file.read(), re.S)
        self.assertEqual(len(blocks), 1)
        picture = os.path.join(self.faces, sorted(os.listdir(self.faces))[0])
        code = blocks[0]
        for printed, here in [
                ("localhost:50051", self.server.grpc_address), ("/data/faces", self.faces), ("me.jpg", picture),
                # ImageNet's weights need a network, and ten epochs need time.
                ("max_epochs=10", "max_epochs=2, input_size=64, init=training_pb2.InitSpec(kind=training_pb2.INIT_KIND_RANDOM)")]:
            self.assertIn(printed, code)
            code = code.replace(printed, here)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code, "README.md", "exec"), {})
        lines = output.getvalue().split("\n")
        self.assertEqual([line.split()[0] for line in lines[:2]], ["1", "2"])
        self.assertTrue(0 < float(lines[2]) < 120, lines)
