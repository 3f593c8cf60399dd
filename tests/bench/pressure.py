"""Predict under pressure: while versions are swapped, at three times the possible load, and beside a training.

    make bench-pressure [DATA=directory] [SECONDS=60] [APART=1] [BENCH_JSON=file]

The starter at its own size, JPEG bytes over gRPC, default settings. One run measures, all but the
last two against the same server:

    quiet       four clients; each sends its next image after the response
    swaps       the same while the alias `live` moves between two loaded versions twice a second
    quiet too   as quiet, on a server that keeps two of three versions loaded
    cold swaps  the same there while `live` moves among the three, so that each move loads one
    peak        32 clients: the maximum throughput in images per second
    overload    three times that rate at fixed times, each call with a deadline of 2 s; then the peak again
    moderate    a quarter of the peak at fixed times
    training    the same beside a training of layer4 and the head

Latencies are those of successful calls. Clients and server share the processors, so the processor
time of both is reported: the share of the clients is missing for the server. The clients are
`visage-load` in Rust, because Python clients take a quarter of two processors. With APART they are
separated, as on two machines: the server and its training use the first half of the processors, the
clients the second. The benchmark never fails; the reader judges the ratios.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import tempfile
import time

from serve import field, resident
from train import Server, machine, images_of

IMAGES = 64
# Deadline of the overload's clients in seconds.
DEADLINE = 2
SET_ALIAS = "/visage.v1.ModelService/SetAlias"


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def processor_time(process):
    """Seconds of processor time that a process and its threads have used, by the clock of clock_getcpuclockid(3)."""
    return time.clock_gettime((~process.pid << 3) | 2)


class Load:
    """Load on one server by `visage-load`."""

    def __init__(self, program, address, images):
        self.program, self.address, self.images = program, address, images

    async def closed(self, clients, seconds, beside=None):
        """Runs clients that wait for responses; `beside` runs meanwhile with a function that returns whether they are done."""
        return await self.run(seconds, beside, "--clients", clients)

    async def opened(self, rate, seconds, timeout, beside=None):
        """Calls at fixed times, independent of responses."""
        return await self.run(seconds, beside, "--rate", rate, "--timeout", timeout)

    async def run(self, seconds, beside, *flags):
        limit = time.perf_counter() + seconds
        others = [beside(lambda: time.perf_counter() >= limit)] if beside else []
        found, *_ = await asyncio.gather(self.answers(seconds, *flags), *others)
        return found

    async def answers(self, seconds, *flags):
        command = [self.program, self.address, *flags, "--seconds", seconds, *self.images]
        process = await asyncio.create_subprocess_exec(*map(str, command), stdout=subprocess.PIPE)
        output, _ = await process.communicate()
        if process.returncode != 0:
            raise SystemExit("bench: {} ended with {}".format(self.program, process.returncode))
        found = json.loads(output)
        latencies = found["latencies_ms"]
        return {"rate": found["outcomes"].get("Ok", 0) / found["seconds"], "p50": quantile(latencies, 0.5), "p99": quantile(latencies, 0.99),
                "max": max(latencies, default=float("nan")), "outcomes": found["outcomes"]}


def own_time():
    """Seconds of processor time that this process and those that it has waited for have used."""
    return sum(os.times()[:4])


def mover(address, moves, versions):
    """Moves the alias `live` around the first versions twice a second; `moves` gets how long each took."""
    async def move(is_over):
        import grpc

        async with grpc.aio.insecure_channel(address) as channel:
            set_alias = channel.unary_unary(SET_ALIAS)
            while not is_over():
                version = "models/age/versions/{}".format(1 + (len(moves) + 1) % versions)
                begun = time.perf_counter()
                await set_alias(field(1, version.encode()) + field(2, b"live"), timeout=60)
                moves.append(time.perf_counter() - begun)
                await asyncio.sleep(0.5)
    return move


def watcher(process, seen):
    """Adds the server's memory in MB to `seen` every second."""
    async def watch(is_over):
        while not is_over():
            seen.append(resident(process.pid))
            await asyncio.sleep(1)
    return watch


def starter(given, directory, processors, *flags):
    """A server on the processors; with APART on the first half of them, and this process from now on on the others."""
    half = len(processors) // 2 if given.apart else 0
    os.sched_setaffinity(0, processors[:half] or processors)
    server = Server(given.visage, directory, "--starter", *flags)
    os.sched_setaffinity(0, processors[half:])
    return server


def measure(given, directory):
    faces = os.path.join(directory, "faces")
    subprocess.run([given.visage, "synth", faces, "--count", "400", "--size", "200", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    paths = images_of(os.path.abspath(given.data or faces), IMAGES)
    random.Random(0).shuffle(paths)
    found, seconds = {}, given.seconds

    def measured(name, calls):
        clocks = (time.perf_counter, own_time, lambda: processor_time(server.process))
        begun = [clock() for clock in clocks]
        found[name] = result = asyncio.run(calls)
        took, client, served = (clock() - before for clock, before in zip(clocks, begun))
        result["cores"] = {"client": client / took, "server": served / took}
        print("{:11} {rate:7.1f} images/s, p50 {p50:6.1f} ms, p99 {p99:6.1f}, max {max:6.1f}, {outcomes}, processors: clients {cores[client]:.2f}, server {cores[server]:.2f}".format(
            name, **result), flush=True)

    processors = sorted(os.sched_getaffinity(0))
    server = starter(given, directory, processors)
    load = Load(given.load, server.address, paths)
    client = [given.visage, "--server", server.address, "--quiet"]
    train = [*client, "train", "--dataset", faces, "--init", "STARTER", "--promote", "never"]
    quiet = dict(env=server.environment, check=True, stdout=subprocess.DEVNULL)
    try:
        for seed in ("1", "2"):
            subprocess.run([*train, "--epochs", "1", "--set", "seed=" + seed], **quiet)
        asyncio.run(load.closed(4, 3))
        measured("quiet", load.closed(4, seconds / 2))
        moves = []
        measured("swaps", load.closed(4, seconds / 2, mover(server.address, moves, 2)))
        found["swaps"]["moves"] = len(moves)
        measured("peak", load.closed(32, seconds / 4))
        peak, memory = found["peak"]["rate"], []
        measured("overload", load.opened(3 * peak, seconds, DEADLINE, watcher(server.process, memory)))
        found["overload"]["memory_mb"] = memory
        measured("peak again", load.closed(32, seconds / 4))
        measured("moderate", load.opened(peak / 4, seconds / 2, 60))
        subprocess.run([*train, "--id", "beside", "--epochs", "1000", "--detach"], **quiet)
        # From the second epoch on the features are cached, and the training only computes.
        while epochs_of(client, quiet) < 1:
            time.sleep(1)
        measured("training", load.opened(peak / 4, seconds / 2, 60))
        subprocess.run([*client, "trainings", "cancel", "beside"], **quiet)
    finally:
        server.close()
    server = starter(given, directory, processors, "--max-loaded-models", "2")
    load = Load(given.load, server.address, paths)
    try:
        asyncio.run(load.closed(4, 3))
        measured("quiet too", load.closed(4, seconds / 2))
        moves = []
        measured("cold swaps", load.closed(4, seconds / 2, mover(server.address, moves, 3)))
        found["cold swaps"]["moves"] = len(moves)
    finally:
        server.close()
    report(given, found)


def epochs_of(client, quiet):
    """Completed epochs of the concurrent training."""
    output = subprocess.run([*client, "trainings", "get", "beside", "--json"], **{**quiet, "stdout": subprocess.PIPE}).stdout
    return json.loads(output).get("last", {}).get("epoch", 0)


def report(given, found):
    # The speed of a shared machine changes within a minute.
    peak = (found["peak"]["rate"] + found["peak again"]["rate"]) / 2
    ratios = {
        "p99_swaps_over_quiet": found["swaps"]["p99"] / found["quiet"]["p99"],
        "p99_cold_swaps_over_quiet": found["cold swaps"]["p99"] / found["quiet too"]["p99"],
        "goodput_overload_over_peak": found["overload"]["rate"] / peak,
        "p99_training_over_moderate": found["training"]["p99"] / found["moderate"]["p99"],
    }
    memory = found["overload"]["memory_mb"]
    places = {name: int(share * (len(memory) - 1)) for name, share in (("at the beginning", 0), ("after a quarter", 0.25), ("after a half", 0.5), ("at the end", 1))}
    print("\n{} moves, {} cold; memory in MB during the overload: {}".format(
        found["swaps"]["moves"], found["cold swaps"]["moves"], ", ".join("{} {}".format(memory[place], name) for name, place in places.items())))
    for name, value in ratios.items():
        print("{}: {:.2f}".format(name, value))
    if given.json:
        content = {"ratios": ratios, "runs": found, "apart": given.apart, "machine": machine(), "data": given.data or "drawn faces"}
        with open(given.json + ".tmp", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        os.replace(given.json + ".tmp", given.json)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visage", required=True, help="the release binary")
    parser.add_argument("--load", required=True, help="the binary visage-load")
    parser.add_argument("--data", help="directory of images; drawn ones without it")
    parser.add_argument("--seconds", type=float, default=60, help="of overload; the others take a half or a quarter")
    parser.add_argument("--apart", action="store_true", help="the server and the clients on processors of their own")
    parser.add_argument("--json", help="file for the figures")
    given = parser.parse_args()
    if given.apart and len(os.sched_getaffinity(0)) < 2:
        parser.error("--apart needs two processors")
    with tempfile.TemporaryDirectory(prefix="visage-bench-") as directory:
        measure(given, directory)


if __name__ == "__main__":
    main()
