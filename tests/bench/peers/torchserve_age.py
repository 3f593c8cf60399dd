"""The handler that TorchServe's archive holds; `start.py` packs it."""

import os
import sys

sys.path.insert(0, os.environ["BENCH_PEERS"])

from engine import Engine  # noqa: E402


class Age:
    def initialize(self, context):
        self.engine = Engine()
        self.initialized = True

    def handle(self, data, context):
        return [str(age) for age in self.engine.ages([bytes(row.get("data") or row.get("body")) for row in data])]
