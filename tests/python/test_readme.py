"""Runs the Python examples of the README and of the book's page on Triton with the test's addresses and files."""

import importlib.util
import os
import re
import subprocess
import sys
import unittest

import server
# Importing api generates the stubs that the examples import.
from api import DEADLINE_SECONDS, REPOSITORY


def example(page):
    """The only Python block of a page."""
    with open(os.path.join(REPOSITORY, page), encoding="utf-8") as file:
        code, = re.findall(r"```python\n(.*?)```", file.read(), re.S)
    return code


class LinksTest(unittest.TestCase):
    def test_links_lead_to_files(self):
        for page in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md"):
            with open(os.path.join(REPOSITORY, page), encoding="utf-8") as file:
                targets = re.findall(r"\]\(([^)\s#]+)", file.read())
            for target in targets:
                if not target.startswith("https://"):
                    path = os.path.join(REPOSITORY, os.path.dirname(page), target)
                    self.assertTrue(os.path.exists(path), "{} links to {}".format(page, target))


class ReadmeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server()
        cls.addClassCleanup(cls.server.close)
        cls.faces = server.draw_faces(cls.server.path("faces"), count=40, seed=5, size=64)

    def run_example(self, page, *replacements):
        """Runs the example of a page with replacements and returns the lines that it prints."""
        image = os.path.join(self.faces, sorted(os.listdir(self.faces))[0])
        code = example(page)
        for printed, actual in [("localhost:50051", self.server.grpc_address), ("me.jpg", image), *replacements]:
            self.assertIn(printed, code)
            code = code.replace(printed, actual)
        modules = os.pathsep.join([os.path.join(REPOSITORY, "deploy", "clients", "python", "src"), *sys.path])
        run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": modules}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             universal_newlines=True, timeout=DEADLINE_SECONDS)
        self.assertEqual(run.returncode, 0, run.stderr)
        return run.stdout.splitlines()

    @unittest.skipIf(sys.version_info < (3, 10), "visage_client needs Python 3.10")
    def test_the_examples_train_follow_and_predict(self):
        lines = self.run_example("README.md", ("/data/faces", self.faces),
                                 # ImageNet weights need a network, and ten epochs take long.
                                 ("epochs=10", 'epochs=2, input_size=64, init="RANDOM"'))
        self.assertEqual([line.split()[0] for line in lines[:2]], ["1", "2"])
        self.assertTrue(0 < float(lines[2]) < 120, lines)
        self.assertEqual(len(lines), 3)
        if importlib.util.find_spec("tritonclient") is None:
            self.skipTest("tritonclient is not installed")
        by_triton = self.run_example("deploy/book/src/how-to/open-inference.md")
        self.assertAlmostEqual(float(by_triton[0].strip("[]").split("]")[0]), float(lines[2]), places=2)
