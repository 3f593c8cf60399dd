"""Triton's unmodified perf_analyzer. PERF_ANALYZER is the directory that setup_perf_analyzer.py filled."""

import base64
import csv
import json
import os
import re
import struct
import subprocess
import unittest

import api
import server
from api import training

DIRECTORY = os.environ.get("PERF_ANALYZER")
SIDE = 64
REQUESTS = 40


@unittest.skipUnless(DIRECTORY, "perf_analyzer is a download of its own: `make test-perf-analyzer`")
class PerfAnalyzerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # One thread, because libtorch's threads wait for each other by spinning and perf_analyzer
        # needs a core.
        cls.server = server.Server("--threads", "1")
        cls.addClassCleanup(cls.server.close)
        faces = server.draw_faces(cls.server.path("faces"), count=60, seed=1, size=200)
        spec = training.TrainingSpec(
            dataset=training.DatasetSpec(path=faces, validation_fraction=0.2), max_epochs=1, input_size=SIDE,
            init=training.InitSpec(kind=training.INIT_KIND_RANDOM))
        name = cls.server.client.start(spec).name
        cls.server.client.events(name)
        if not cls.server.client.get(name).model_version:
            raise AssertionError(cls.server.log())
        images = []
        for file in sorted(os.listdir(faces))[:8]:
            with open(os.path.join(faces, file), "rb") as image:
                content = image.read()
            # perf_analyzer sends the file as it is, so the file contains the length prefix of a
            # BYTES element.
            element = base64.b64encode(struct.pack("<I", len(content)) + content).decode()
            images.append({"image": {"b64": element, "shape": [1]}})
        pixels = [{"input": {"content": 3 * SIDE * SIDE * [0.25], "shape": [3, SIDE, SIDE]}}]
        for name, data in [("images", images), ("pixels", pixels)]:
            with open(cls.server.path(name), "w", encoding="utf-8") as file:
                json.dump({"data": data}, file)

    def measure(self, data, *options, protocol="grpc"):
        """Runs it, which must succeed; returns its output and the row of its table."""
        table = self.server.path("table.csv")
        address = self.server.grpc_address if protocol == "grpc" else self.server.http_address
        command = [os.path.join(DIRECTORY, "perf_analyzer"), "-m", "age", "-i", protocol, "-u", address, "--input-data", self.server.path(data),
                   "--concurrency-range", "4", "--request-count", str(REQUESTS), "-f", table, *options]
        done = subprocess.run(command, env=dict(os.environ, LD_LIBRARY_PATH=DIRECTORY), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, universal_newlines=True, timeout=api.DEADLINE_SECONDS)
        self.assertEqual(done.returncode, 0, done.stdout)
        with open(table, newline="", encoding="utf-8") as file:
            row, = csv.DictReader(file)
        self.assertEqual(row["Concurrency"], "4")
        self.assertGreater(float(row["Inferences/Second"]), 0)
        return done.stdout, row

    def test_every_way_of_sending_is_measured(self):
        ways = [("images", "grpc", []), ("images", "grpc", ["-a"]), ("images", "grpc", ["-a", "--streaming"]), ("images", "grpc", ["-b", "3"]),
                ("images", "grpc", ["-x", "1"]), ("images", "grpc", ["--grpc-compression-algorithm", "gzip"]), ("pixels", "grpc", []),
                ("images", "http", []), ("images", "http", ["-a"]), ("pixels", "http", ["-b", "2"])]
        for data, protocol, options in ways:
            with self.subTest(data, protocol=protocol, options=options):
                before = self.statistics()
                words, row = self.measure(data, *options, protocol=protocol)
                after = self.statistics()
                size = int(options[options.index("-b") + 1]) if "-b" in options else 1
                self.assertEqual(after["success"] - before["success"], REQUESTS, words)
                self.assertEqual(after["fail"] - before["fail"], 0, words)
                self.assertEqual(after["images"] - before["images"], size * REQUESTS, words)
                # The server's statistics as perf_analyzer computed them. Responses before its first
                # poll are missing in the difference.
                inferences, requests = (int(re.search(f"{what} count: (\\d+)", words).group(1)) for what in ("Inference", "Successful request"))
                self.assertEqual(inferences, size * requests, words)
                self.assertIn(requests, range(1, REQUESTS + 1), words)
                self.assertGreater(float(row["Server Compute Infer"]), 0, row)

    def test_a_version_that_is_not_there_is_told(self):
        command = [os.path.join(DIRECTORY, "perf_analyzer"), "-m", "age", "-x", "9", "-i", "grpc", "-u", self.server.grpc_address,
                   "--input-data", self.server.path("images"), "--request-count", "1"]
        done = subprocess.run(command, env=dict(os.environ, LD_LIBRARY_PATH=DIRECTORY), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, universal_newlines=True, timeout=api.DEADLINE_SECONDS)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("models/age/versions/9", done.stdout)

    def statistics(self):
        status, _, text = self.server.fetch("/v2/models/age/stats")
        self.assertEqual(status, 200, text)
        one, = json.loads(text)["model_stats"]
        return {"success": one["inference_stats"]["success"]["count"], "fail": one["inference_stats"]["fail"]["count"], "images": one["inference_count"]}


if __name__ == "__main__":
    unittest.main()
