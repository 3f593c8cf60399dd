"""What traces cost: Predict of servers with and without them, side by side.

    make bench-tracing [DATA=folder] [ROUNDS=10] [SECONDS=5] [BENCH_JSON=file]

The starter's network at its own 112x112, JPEG bytes through gRPC, the server's default settings. All servers run from beginning to end, and each round puts the
same pictures to one after the other for some seconds, in an order that turns with every round, so that what the machine does beside this meets all of them alike:

    off        without `otlp_endpoint`
    1 %        one call in a hundred is traced, as by default
    100 %      every call is traced
    away       one in a hundred, to a collector that is not there

The collector is a process of its own that takes what comes and looks at nothing. The ratios are of the throughput in the same round to that of `off`; the median of
the rounds and their range are reported. It fails nothing by itself: the ratios are for the reader.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import socket
import statistics
import subprocess
import tempfile

from pressure import PICTURES, closed
from serve import field
from train import Server, machine, pictures_of

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
CLIENTS = 8


def collect(port):
    """A collector; tells its port and runs until it is killed."""
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
    """A port that nobody listens on, held so that nobody will."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held, held.getsockname()[1]


def measure(given, folder):
    faces = os.path.join(folder, "faces")
    subprocess.run([given.visage, "synth", faces, "--count", "200", "--size", "200", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    paths = pictures_of(os.path.abspath(given.data or faces), PICTURES)
    random.Random(0).shuffle(paths)
    requests = []
    for path in paths:
        with open(path, "rb") as file:
            requests.append(field(1, file.read()))
    # Before there are threads, which a fork would not take along.
    process = multiprocessing.get_context("spawn")
    told = process.Queue()
    collector = process.Process(target=collect, args=(told,), daemon=True)
    collector.start()
    held, away = unused_port()
    endpoint = ["--otlp-endpoint", "http://127.0.0.1:{}".format(told.get(timeout=60))]
    flags = {
        "off": [],
        "1 %": [*endpoint, "--trace-sample-ratio", "0.01"],
        "100 %": [*endpoint, "--trace-sample-ratio", "1"],
        "away": ["--otlp-endpoint", "http://127.0.0.1:{}".format(away), "--trace-sample-ratio", "0.01"],
    }
    servers, found = {}, {name: [] for name in flags}
    try:
        for name, options in flags.items():
            own = os.path.join(folder, name.replace(" %", ""))
            os.mkdir(own)
            servers[name] = Server(given.visage, own, "--starter", *options)
            asyncio.run(closed(servers[name].address, requests, CLIENTS, 2))
        names = list(flags)
        for number in range(given.rounds):
            turn = number % len(names)
            order = names[turn:] + names[:turn]
            for name in order if number % 2 == 0 else reversed(order):
                found[name].append(asyncio.run(closed(servers[name].address, requests, CLIENTS, given.seconds)))
            print("round {:2}  ".format(number + 1) + "  ".join("{}: {:7.1f}/s p99 {:5.1f} ms".format(
                name, found[name][-1]["rate"], found[name][-1]["p99"]) for name in names), flush=True)
    finally:
        for server in servers.values():
            server.close()
        collector.kill()
        held.close()
    report(given, found)


def report(given, found):
    ratios = {}
    for name, runs in found.items():
        if name != "off":
            each = [run["rate"] / other["rate"] for run, other in zip(runs, found["off"])]
            ratios[name] = {"median": statistics.median(each), "least": min(each), "most": max(each)}
            print("{:6} throughput over off: median {median:.3f}, {least:.3f} to {most:.3f}".format(name, **ratios[name]))
    if given.json:
        content = {"ratios": ratios, "runs": found, "machine": machine(), "data": given.data or "drawn faces"}
        with open(given.json + ".tmp", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        os.replace(given.json + ".tmp", given.json)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visage", required=True, help="the release binary")
    parser.add_argument("--data", help="folder of pictures; drawn ones without it")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5, help="of each server in each round")
    parser.add_argument("--json", help="file for the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visage-bench-") as folder:
        measure(given, folder)


if __name__ == "__main__":
    main()
