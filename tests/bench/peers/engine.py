"""The model of the servers that Visage is compared with: encoded images in, ages out, by an engine of serve.py.

Environment: BENCH_ENGINE is the name of the engine, BENCH_WEIGHTS the directory of its weights.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy  # noqa: E402
import serve  # noqa: E402


class Engine:
    """A network with one compute thread and one decoding thread per core."""

    def __init__(self):
        # One compute thread, warm-up included, because a second one would create another OpenMP
        # pool.
        self.computing = ThreadPoolExecutor(1)
        self.decoding = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self.forward = self.computing.submit(serve.FORWARD[os.environ["BENCH_ENGINE"]], os.environ["BENCH_WEIGHTS"]).result()
        self.ages([serve.blank()] * 2)

    def ages(self, images):
        """Ages in years of encoded images."""
        images = numpy.stack(list(self.decoding.map(serve.decode, images)))
        return [float(age) for age in self.computing.submit(self.forward, images).result()]
