"""Cost of traces: Predict on servers with and without them, side by side.

    make bench-tracing [DATA=directory] [ROUNDS=10] [SECONDS=10] [BENCH_JSON=file]

The starter at its own size, JPEG bytes over gRPC, default settings. Each round restarts its servers,
because two processes of the same program differ in speed by their memory layout. Then they receive
the same images in turns of one second, in random order, so that other load on the machine affects
all of them equally:

    off        without `otlp_endpoint`
    off again  the same once more: its difference from `off` is noise
    1 %        one call in a hundred is traced, the default
    100 %      every call is traced
    away       one in a hundred, with a collector that is not running

The collector is a separate process that discards everything. The server's processor time per call,
which other processes hardly affect, and the throughput, which they do, are compared with `off` of
the same round; the geometric mean of the rounds is reported with its 95 % interval by Student's
distribution. The benchmark never fails; the reader judges the numbers.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import random
import socket
import statistics
import subprocess
import tempfile
import time

from pressure import IMAGES, Load, processor_time
from train import Server, machine, images_of

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
CLIENTS = 8
# Seconds of load before the first turn, in which a server grows its buffers.
WARM_UP = 1


def collect(port):
    """A collector that reports its port and runs until it is killed."""
    import grpc
    from concurrent import futures

    class Sink(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"") if details.method == EXPORT else None

    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Sink()])
    port.put(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


def unused_port():
    """A bound port without a listener, so that no other process takes it."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held, held.getsockname()[1]


def measure(given, directory):
    faces = os.path.join(directory, "faces")
    subprocess.run([given.visage, "synth", faces, "--count", "200", "--size", "200", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    paths = images_of(os.path.abspath(given.data or faces), IMAGES)
    random.Random(0).shuffle(paths)
    # Before any thread is started, because a fork does not copy threads.
    process = multiprocessing.get_context("spawn")
    ports = process.Queue()
    collector = process.Process(target=collect, args=(ports,), daemon=True)
    collector.start()
    held, away = unused_port()
    endpoint = ["--otlp-endpoint", "http://127.0.0.1:{}".format(ports.get(timeout=60))]
    flags = {
        "off": [],
        "off again": [],
        "1 %": [*endpoint, "--trace-sample-ratio", "0.01"],
        "100 %": [*endpoint, "--trace-sample-ratio", "1"],
        "away": ["--otlp-endpoint", "http://127.0.0.1:{}".format(away), "--trace-sample-ratio", "0.01"],
    }
    found = {name: [] for name in flags}
    try:
        for number in range(given.rounds):
            for name, result in one_round(given, os.path.join(directory, str(number)), flags, paths).items():
                found[name].append(result)
            print("round {:2}  ".format(number + 1) + "  ".join("{}: {cpu_ms:.3f} ms, {rate:.0f}/s".format(
                name, **runs[-1]) for name, runs in found.items()), flush=True)
    finally:
        collector.kill()
        held.close()
    report(given, found)


def one_round(given, directory, flags, paths):
    """Starts servers; returns the processor time per call in ms and the calls per second of each."""
    servers, calls, used, took = {}, dict.fromkeys(flags, 0), dict.fromkeys(flags, 0.0), dict.fromkeys(flags, 0.0)
    try:
        for name, options in flags.items():
            own = os.path.join(directory, name.replace(" ", ""))
            os.makedirs(own)
            servers[name] = Server(given.visage, own, "--starter", *options)
            asyncio.run(Load(given.load, servers[name].address, paths).closed(CLIENTS, WARM_UP))
        for _ in range(given.seconds):
            for name in random.sample(list(flags), len(flags)):
                before, begun = processor_time(servers[name].process), time.perf_counter()
                result = asyncio.run(Load(given.load, servers[name].address, paths).closed(CLIENTS, 1))
                took[name] += time.perf_counter() - begun
                used[name] += processor_time(servers[name].process) - before
                calls[name] += result["outcomes"].get("Ok", 0)
    finally:
        for server in servers.values():
            server.close()
    return {name: {"cpu_ms": 1000 * used[name] / calls[name], "rate": calls[name] / took[name]} for name in flags}


def compared(runs, others, what):
    """Geometric mean of the ratios of the rounds, and its interval of 95 %."""
    logs = [math.log(run[what] / other[what]) for run, other in zip(runs, others)]
    mean = statistics.fmean(logs)
    half = student(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else float("nan")
    return {"mean": math.exp(mean), "low": math.exp(mean - half), "high": math.exp(mean + half)}


def student(freedom):
    """The 0.975 quantile of Student's distribution, rounded up to the next row of the usual table."""
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 15: 2.131, 20: 2.086, 30: 2.042}
    return table[max(row for row in table if row <= freedom)]


def report(given, found):
    ratios = {}
    for name, runs in found.items():
        if name != "off":
            ratios[name] = {what: compared(runs, found["off"], what) for what in ("cpu_ms", "rate")}
            print("{:10}over off: processor time for a call {cpu[mean]:.4f} ({cpu[low]:.4f} to {cpu[high]:.4f}), throughput {rate[mean]:.3f} ({rate[low]:.3f} to {rate[high]:.3f})".format(
                name, cpu=ratios[name]["cpu_ms"], rate=ratios[name]["rate"]))
    if given.json:
        content = {"ratios": ratios, "runs": found, "machine": machine(), "data": given.data or "drawn faces"}
        with open(given.json + ".tmp", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        os.replace(given.json + ".tmp", given.json)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visage", required=True, help="the release binary")
    parser.add_argument("--load", required=True, help="the binary visage-load")
    parser.add_argument("--data", help="directory of images; drawn ones without it")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=10, help="turns of a second of each server in each round")
    parser.add_argument("--json", help="file for the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visage-bench-") as directory:
        measure(given, directory)


if __name__ == "__main__":
    main()
