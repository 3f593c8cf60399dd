"""What the servers beside Visage serve: encoded images in, ages out, by an engine of serve.py.

Their processes find it by the environment: BENCH_ENGINE names the engine, BENCH_WEIGHTS the directory of its weights.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy  # noqa: E402
import serve  # noqa: E402


class Engine:
    """A network, a thread that computes, and one for each core that decodes."""

    def __init__(self):
        # One thread computes, warm-up included: a second one would make a second pool of OpenMP threads.
        self.computing = ThreadPoolExecutor(1)
        self.decoding = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self.forward = self.computing.submit(serve.FORWARD[os.environ["BENCH_ENGINE"]], os.environ["BENCH_WEIGHTS"]).result()
        self.ages([serve.blank()] * 2)

    def ages(self, images):
        """Ages in years of encoded images."""
        images = numpy.stack(list(self.decoding.map(serve.decode, images)))
        return [float(age) for age in self.computing.submit(self.forward, images).result()]
