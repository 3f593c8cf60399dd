"""Serving speed of Visage compared with raw engines and other servers, interleaved in one run.

    make bench-serve [DATA=directory] [ROUNDS=3] [BENCH_JSON=file.json]

JPEG bytes in, age out, a ResNet18 on 224x224 images. Each round measures once:

    raw libtorch         torch.jit, frozen and optimized for inference, channels last: forward passes only
    raw openvino         OpenVINO, the same
    grpc                 grpc.aio around PyTorch in f32, one request after the other: a first version by hand
    grpc frozen          the same around the raw libtorch engine
    grpc openvino        the same around OpenVINO: tuned by hand
    mlserver, torchserve, triton   as documented, batches of up to 32 collected for 5 ms, around PyTorch in f32
    ... openvino         the same three around OpenVINO: tuned by hand
    visage               default settings, over gRPC

The raw engines and the tuned servers compute in bf16 if the processor multiplies in it, otherwise in
f32. Missing engines are left out and reported; `make bench-peers` installs the three servers
(TorchServe needs Java 17). The load is closed: each client in one process sends its next image after
the response. With BENCH_JSON a plot is written beside the file. Ratios are Visage over another
system at the same concurrency, per round; a spread is the lowest and the highest round.
"""

import argparse
import asyncio
import importlib.util
import io
import json
import os
import random
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from peers import start
from train import Server, machine, images_of, summary

SIDE = 224
CONCURRENCY = (1, 8, 32)
IMAGES = 64
METHOD = "/visage.v1.PredictionService/Predict"
# Requirements besides PyTorch.
PEERS = {"grpc": "torch", "grpc frozen": "torch", "grpc openvino": "openvino"}
SERVERS = {server + suffix: package for server in ("mlserver", "torchserve", "triton") for suffix, package in (("", "torch"), (" openvino", "openvino"))}
# Systems without a choice of precision.
AS_SHIPPED = ["grpc", "mlserver", "torchserve", "triton"]
ENGINES = {"raw libtorch": "torch", "raw openvino": "openvino"}


def tuned_format():
    """The fastest precision of libtorch and OpenVINO on this processor."""
    with open("/proc/cpuinfo", encoding="ascii") as file:
        flags = file.read().split()
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "f32"


# The engines: functions of float32 [n, 3, 224, 224] to n ages.

def network(directory):
    """The network that Visage serves, in PyTorch."""
    import torch
    import torchvision
    from safetensors.torch import load_file

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    made = torchvision.models.resnet18(weights=None)
    made.fc = torch.nn.Linear(512, 1)
    made.load_state_dict(load_file(os.path.join(directory, "model.safetensors")))
    return made.eval()


def libtorch_f32(directory):
    import torch

    made = network(directory)

    def ages(images):
        with torch.inference_mode():
            return made(torch.from_numpy(images))[:, 0].numpy()
    return ages


def libtorch_frozen(directory):
    import torch

    made = network(directory).to(memory_format=torch.channels_last)
    example = torch.zeros(8, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False, enabled=tuned_format() == "bf16"):
        traced = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(made, example, check_trace=False)))

    def ages(images):
        with torch.inference_mode():
            batch = torch.from_numpy(images).to(memory_format=torch.channels_last)
            return traced(batch)[:, 0].float().numpy()
    return ages


def openvino_tuned(directory):
    import openvino
    import torch

    core = openvino.Core()
    converted = openvino.convert_model(network(directory), example_input=torch.zeros(1, 3, SIDE, SIDE), input=[-1, 3, SIDE, SIDE])
    compiled = core.compile_model(converted, "CPU", {
        "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)), "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": tuned_format()})
    request = compiled.create_infer_request()
    return lambda images: request.infer({0: images})[0][:, 0]


FORWARD = {"libtorch f32": libtorch_f32, "libtorch": libtorch_frozen, "openvino": openvino_tuned}


def decode(data):
    """Encoded bytes to normalised float32 [3, 224, 224]."""
    import numpy
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    mean, deviation = (numpy.array(values, numpy.float32) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    pixels = (numpy.asarray(image, numpy.float32) / 255 - mean) / deviation
    return numpy.ascontiguousarray(pixels.transpose(2, 0, 1))


def blank():
    """A grey image as JPEG, for warming up."""
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "grey").save(data, "JPEG")
    return data.getvalue()


def raw(name, directory, paths, seconds):
    """Prints images per second of forward passes at the batch sizes that the concurrencies allow."""
    import numpy

    engine = FORWARD[name[len("raw "):]](directory)
    images = numpy.stack([decode(open(path, "rb").read()) for path in paths])
    rates = {}
    for batch in CONCURRENCY:
        for _ in range(5):
            engine(images[:batch])
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            engine(images[:batch])
            done += batch
        rates[batch] = done / (time.perf_counter() - begun)
    print(json.dumps({"rates": rates, "ages": [float(age) for age in engine(images[:4])]}))


# The peers, each a server in a process of its own that prints its address.

def serve_grpc(engine):
    import grpc
    from concurrent.futures import ThreadPoolExecutor

    # One compute thread, warm-up included, because a second one would create another OpenMP pool.
    pool = ThreadPoolExecutor(1)

    async def run():
        import numpy

        compute = await asyncio.get_running_loop().run_in_executor(pool, engine)

        def answer(data):
            return struct.pack("<f", compute(decode(data)[numpy.newaxis])[0])

        async def predict(request, _):
            return await asyncio.get_running_loop().run_in_executor(pool, answer, request)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(
            "bench.Age", {"Predict": grpc.unary_unary_rpc_method_handler(predict)})])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print("127.0.0.1:{}".format(port), flush=True)
        await server.wait_for_termination()
    asyncio.run(run())


def serve(name, directory):
    engine = {"grpc": libtorch_f32, "grpc frozen": libtorch_frozen, "grpc openvino": openvino_tuned}[name]
    serve_grpc(lambda: engine(directory))


# The load.

def field(number, value):
    """A length-delimited field of a protobuf message."""
    length, head = len(value), bytes([number << 3 | 2])
    while length > 127:
        head += bytes([length & 127 | 128])
        length >>= 7
    return head + bytes([length]) + value


async def callers(name, address, images):
    """A function that predicts the n-th image, and one that closes the connection."""
    import grpc

    channel = grpc.aio.insecure_channel(address)
    if name == "visage":
        call, requests = channel.unary_unary(METHOD), [field(1, image) for image in images]
    elif name in SERVERS:
        calls = [start.call(name.split()[0], field, image) for image in images]
        call, requests = channel.unary_unary(calls[0][0]), [request for _, request in calls]
    else:
        call, requests = channel.unary_unary("/bench.Age/Predict"), images

    async def predict(number):
        await call(requests[number % len(requests)], timeout=60)
    return predict, channel.close


async def load(name, address, images, concurrency, seconds):
    """Images per second, latencies in ms, after a warm-up of a fifth of the time."""
    predict, close = await callers(name, address, images)
    latencies, numbers, stop = [], iter(range(10 ** 9)), False

    async def client():
        while not stop:
            begun = time.perf_counter()
            await predict(next(numbers))
            latencies.append(1000 * (time.perf_counter() - begun))
    clients = [asyncio.create_task(client()) for _ in range(concurrency)]
    await asyncio.sleep(seconds / 5)
    latencies.clear()
    begun = time.perf_counter()
    await asyncio.sleep(seconds)
    taken, measured = time.perf_counter() - begun, sorted(latencies)
    stop = True
    await asyncio.gather(*clients)
    await close()
    place = lambda share: measured[min(len(measured) - 1, int(share * len(measured)))]
    return {"rate": len(measured) / taken, "p50": place(0.5), "p95": place(0.95), "p99": place(0.99)}


def resident(pid):
    """VmRSS in MB of a process and all below it."""
    total, below = 0, {pid}
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/{}/status".format(entry), encoding="utf-8") as file:
                status = dict(line.split(":", 1) for line in file if ":" in line)
        except OSError:
            continue
        parents[int(entry)] = (int(status["PPid"]), int(status.get("VmRSS", "0 kB").split()[0]) // 1024)
    for _ in range(8):
        below |= {child for child, (parent, _) in parents.items() if parent in below}
    for child in below:
        total += parents.get(child, (0, 0))[1]
    return total


class Peer:
    """A peer's process group and its address."""

    def __init__(self, name, directory, environments):
        if name in SERVERS:
            server, _, engine = name.partition(" ")
            self.process, self.address = start.start(server, engine or "libtorch f32", environments, directory, os.path.join(directory, name.replace(" ", "-")))
            return
        command = [sys.executable, __file__, "--serve", name, "--directory", directory]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True, start_new_session=True)
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            raise SystemExit("bench: {} did not start; run `{}`".format(name, " ".join(command)))

    def close(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


async def until_it_answers(name, address, image):
    predict, close = await callers(name, address, [image])
    limit = time.monotonic() + 120
    while True:
        try:
            await predict(0)
            break
        except Exception:  # Each client has its own; what matters is that it answers in the end.
            if time.monotonic() > limit:
                raise
            await asyncio.sleep(0.2)
    await close()


def trained(given, directory, paths):
    """A server of Visage with a small trained version, whose weights lie in `directory` too."""
    manifest = os.path.join(directory, "faces.csv")
    with open(manifest, "w", encoding="utf-8") as file:
        file.write("path,age,split\n")
        for number, path in enumerate(paths):
            age = os.path.basename(path).split("_")[0]
            file.write('"{}",{},{}\n'.format(path, age, "val" if number % 4 == 0 else "train"))
    server = Server(given.visage, directory)
    client = [given.visage, "--server", server.address, "--quiet"]
    subprocess.run([*client, "train", "--dataset", manifest, "--init", "RANDOM", "--epochs", "2", "--promote", "always"], check=True,
                   env=server.environment, stdout=subprocess.DEVNULL)
    weights = os.path.join(directory, "model.safetensors")
    subprocess.run([*client, "models", "export", "live", "--format", "safetensors", "--output", weights], check=True, env=server.environment,
                   stdout=subprocess.DEVNULL)
    return server


def measure(given, directory):
    data = given.data
    if not data:
        data = os.path.join(directory, "faces")
        subprocess.run([given.visage, "synth", data, "--count", str(IMAGES), "--size", "200", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    paths = images_of(os.path.abspath(data), IMAGES)
    random.Random(0).shuffle(paths)
    images = [open(path, "rb").read() for path in paths]
    listing = os.path.join(directory, "images.json")
    with open(listing, "w", encoding="utf-8") as file:
        json.dump(paths, file)
    every = [*ENGINES, *PEERS, *SERVERS]
    wanted = set(given.peers.split(",")) if given.peers else set(every)
    there = lambda known: [name for name, package in known.items() if name in wanted and importlib.util.find_spec(package)]
    engines, peers = there(ENGINES), there(PEERS)
    complete = start.available(given.environments)
    peers += [name for name in there(SERVERS) if name.split()[0] in complete]
    missing = [name for name in every if name in wanted and name not in engines and name not in peers]
    if missing:
        print("not installed, left out: {}".format(", ".join(missing)))
    server, runs = trained(given, directory, paths), []
    try:
        for number in range(given.rounds):
            for name in [*engines, *peers, "visage"]:
                for found in one(name, directory, listing, images, server, given):
                    found.update(name=name, round=number)
                    runs.append(found)
                    line = "round {} {:24} {:2} at once {:7.1f} images/s".format(number + 1, name, found["concurrency"], found["rate"])
                    if "p50" in found:
                        line += ", p50 {p50:6.1f} ms, p95 {p95:6.1f}, p99 {p99:6.1f}, {mb} MB".format(**found)
                    print(line, flush=True)
    finally:
        server.close()
    report(given, runs)


def one(name, directory, listing, images, server, given):
    """Measures one system in a round."""
    if name in ENGINES:
        command = [sys.executable, __file__, "--raw", name, "--directory", directory, "--images", listing, "--seconds", str(given.seconds)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True).stdout
        rates = json.loads(output.splitlines()[-1])["rates"]
        return [{"concurrency": int(batch), "rate": rate} for batch, rate in rates.items()]
    peer = None if name == "visage" else Peer(name, directory, given.environments)
    address, pid = (server.address, server.process.pid) if peer is None else (peer.address, peer.process.pid)
    found = []
    try:
        asyncio.run(until_it_answers(name, address, images[0]))
        for concurrency in CONCURRENCY:
            result = asyncio.run(load(name, address, images, concurrency, given.seconds))
            found.append({"concurrency": concurrency, "mb": resident(pid), **result})
    finally:
        if peer:
            peer.close()
    return found


def report(given, runs):
    def rate(name, concurrency, number):
        return next((run["rate"] for run in runs if (run["name"], run["concurrency"], run["round"]) == (name, concurrency, number)), None)

    names = [name for name in dict.fromkeys(run["name"] for run in runs) if name != "visage"]
    rounds = sorted({run["round"] for run in runs})
    spreads = {name: {concurrency: summary([rate("visage", concurrency, number) / rate(name, concurrency, number) for number in rounds])
                      for concurrency in CONCURRENCY} for name in names}
    print("\nVisage over              " + "".join("{:>24}".format("{} at once".format(concurrency)) for concurrency in CONCURRENCY))
    for name, found in spreads.items():
        cells = ["{median:5.2f} ({low:.2f} to {high:.2f})".format(**found[concurrency]) for concurrency in CONCURRENCY]
        print("{:25}{}".format(name, "".join("{:>24}".format(cell) for cell in cells)))
    # Ratio to the best system of each kind per round, at the concurrencies that saturate the
    # machine; the smaller of both.
    def over_best(known):
        kind = [name for name in names if name in known]
        if not kind:
            return None
        return min(statistics.median(rate("visage", concurrency, number) / max(rate(name, concurrency, number) for name in kind) for number in rounds)
                   for concurrency in (8, 32))

    ratios = {"vs_raw_libtorch_bf16": over_best(["raw libtorch"]), "vs_best_raw": over_best(ENGINES), "vs_best_peer": over_best([*PEERS, *SERVERS]),
              "vs_best_as_shipped": over_best(AS_SHIPPED)}
    for name, value in ratios.items():
        print("{}: {}".format(name, "not measured" if value is None else "{:.2f}".format(value)))
    if given.json:
        content = {"ratios": ratios, "spreads": spreads, "runs": runs, "machine": machine(), "tuned_format": tuned_format(), "data": given.data or "drawn faces"}
        with open(given.json + ".tmp", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        os.replace(given.json + ".tmp", given.json)
        plot(runs, os.path.splitext(given.json)[0] + ".png")


def plot(runs, path):
    """Images per second of all, at each concurrency, the range of the rounds as a line."""
    if not importlib.util.find_spec("matplotlib"):
        print("not installed, so there is no plot: matplotlib")
        return
    from matplotlib.figure import Figure

    names = sorted({run["name"] for run in runs}, key=lambda name: max(run["rate"] for run in runs if run["name"] == name))
    figure = Figure(figsize=(9, 1.2 + 0.55 * len(names)), layout="constrained")
    axes = figure.subplots()
    for index, concurrency in enumerate(CONCURRENCY):
        rates = [[run["rate"] for run in runs if (run["name"], run["concurrency"]) == (name, concurrency)] for name in names]
        middles = [statistics.median(found) for found in rates]
        spread = [[middle - min(found) for middle, found in zip(middles, rates)], [max(found) - middle for middle, found in zip(middles, rates)]]
        places = [place + 0.26 * (1 - index) for place in range(len(names))]
        axes.barh(places, middles, height=0.26, xerr=spread, label="{} at once".format(concurrency))
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("images/s")
    axes.legend(loc="lower right")
    axes.set_title("JPEG in, age out, ResNet18 at {0}x{0}".format(SIDE))
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visage", help="the release binary")
    parser.add_argument("--data", help="directory of images whose names begin with the age; drawn ones without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--peers", help="only these engines and peers, by commas")
    parser.add_argument("--environments", default="", help="directory with the environments of the other servers")
    parser.add_argument("--json", help="file for the figures")
    for hidden in ("--raw", "--serve", "--directory", "--images"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.raw:
        with open(given.images, encoding="utf-8") as file:
            raw(given.raw, given.directory, json.load(file)[:max(CONCURRENCY)], given.seconds)
    elif given.serve:
        serve(given.serve, given.directory)
    elif given.visage:
        with tempfile.TemporaryDirectory(prefix="visage-bench-") as directory:
            measure(given, directory)
    else:
        parser.error("--visage is required")


if __name__ == "__main__":
    main()
