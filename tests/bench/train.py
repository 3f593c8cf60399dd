"""Fine-tuning speed of Visage compared with PyTorch scripts: same images, trained layers and batch size, interleaved.

    make bench-train [DATA=directory] [ROUNDS=3] [IMAGES=1000] [TRAINABLE=ALL] [BENCH_JSON=file]

Both sides train layer4 and fc of a ResNet18, or all layers, on 224x224 images in batches of 32 with
Adam 1e-4 and MSE, and validate after each epoch. The scripts:

    plain    a first version by hand: f32, a DataLoader with two workers, Pillow
    tuned    the same with bf16 autocast and channels last
    cached   as tuned, with the outputs of the frozen layers computed once and kept in memory

All epochs of a script after the first cost the same, so each round runs two and reports ten as the
first plus nine times the second. Visage runs all ten through its server with default settings.
Ratios are Visage over the plain script; a spread is the lowest and the highest round.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

EPOCHS = 10
BATCH = 32
SIDE = 224


def age_of(path):
    """The age in years at the start of a file name."""
    return float(os.path.basename(path).split("_")[0])


# The scripts, each in a process of its own.

def run_script(mode, trainable, train, validation):
    """Trains two epochs and prints a JSON line with the images and seconds of each."""
    import numpy
    import torch
    import torchvision
    from PIL import Image

    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    class Faces(torch.utils.data.Dataset):
        def __init__(self, paths):
            self.paths = paths

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, position):
            image = Image.open(self.paths[position]).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1).float() / 255
            return (pixels - mean) / deviation, torch.tensor([age_of(self.paths[position])])

    network = torchvision.models.resnet18(weights=None)
    network.fc = torch.nn.Linear(512, 1)
    for name, parameter in network.named_parameters():
        parameter.requires_grad = trainable == "ALL" or name.startswith(("layer4", "fc"))
    fast = mode != "plain"
    if fast:
        network = network.to(memory_format=torch.channels_last)
    autocast = (lambda: torch.autocast("cpu", torch.bfloat16)) if fast else contextlib.nullcontext
    optimizer = torch.optim.Adam([one for one in network.parameters() if one.requires_grad], lr=1e-4)
    criterion = torch.nn.MSELoss()
    stem = torch.nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool, network.layer1, network.layer2, network.layer3)
    top = torch.nn.Sequential(network.layer4, network.avgpool, torch.nn.Flatten(1), network.fc)

    def load(paths, shuffle):
        return torch.utils.data.DataLoader(Faces(paths), batch_size=BATCH, shuffle=shuffle, num_workers=2)

    def prepare(images):
        return images.contiguous(memory_format=torch.channels_last) if fast else images

    def update(outputs, ages):
        loss = criterion(outputs.float(), ages)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    kept = {}

    def batches(name, paths, shuffle):
        """Inputs of the trained layers: images, or features for `cached`."""
        if mode != "cached":
            for images, ages in load(paths, shuffle):
                yield prepare(images), ages
            return
        if name not in kept:
            stem.eval()
            features, labels = [], []
            with torch.no_grad(), autocast():
                for images, ages in load(paths, False):
                    features.append(stem(prepare(images)).to(torch.bfloat16))
                    labels.append(ages)
            kept[name] = torch.cat(features), torch.cat(labels)
        features, labels = kept[name]
        order = torch.randperm(len(labels)) if shuffle else torch.arange(len(labels))
        for positions in order.split(BATCH):
            yield prepare(features[positions]), labels[positions]

    forward = top if mode == "cached" else network
    epochs = []
    for _ in range(2):
        begun = time.perf_counter()
        (top if mode == "cached" else network).train()
        for inputs, ages in batches("train", train, True):
            with autocast():
                outputs = forward(inputs)
            update(outputs, ages)
        trained = time.perf_counter()
        network.eval()
        errors = []
        with torch.no_grad(), autocast():
            for inputs, ages in batches("validation", validation, False):
                errors.append((forward(inputs).float() - ages).square())
        torch.cat(errors).mean().item()
        epochs.append({"train_seconds": trained - begun, "seconds": time.perf_counter() - begun})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"mode": mode, "epochs": epochs, "peak_mb": round(peak)}))


# Visage.

class Server:
    """A server with its data in a temporary directory."""

    def __init__(self, program, directory, *options):
        self.program = program = os.path.abspath(program)
        ready = os.path.join(directory, "ready")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VISAGE_")}
        with open(os.path.join(directory, "log"), "wb") as log:
            self.process = subprocess.Popen(
                [program, "serve", "--data-dir", os.path.join(directory, "data"), "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0",
                 "--ready-file", ready, *options], cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        limit = time.monotonic() + 60
        while not os.path.exists(ready):
            if self.process.poll() is not None or time.monotonic() > limit:
                raise SystemExit("bench: the server did not start; its log is {}".format(os.path.join(directory, "log")))
            time.sleep(0.05)
        with open(ready, encoding="utf-8") as file:
            self.address = json.load(file)["grpc"]
        self.environment = environment

    def train(self, manifest, trainable, *flags):
        """Runs a training; returns its epochs and the peak memory of its process in MB."""
        command = [self.program, "train", "--server", self.address, "--json", "--dataset", manifest, "--init", "RANDOM", "--epochs", str(EPOCHS),
                   "--batch-size", str(BATCH), "--input-size", str(SIDE), "--trainable", trainable, *flags]
        peak, epochs = 0, []
        with subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, universal_newlines=True) as client:
            for line in client.stdout:
                epoch = json.loads(line).get("epoch_completed")
                if epoch:
                    epochs.append(epoch)
                    peak = max(peak, self.worker_peak())
        if client.returncode != 0 or len(epochs) != EPOCHS:
            raise SystemExit("bench: `{}` ended with {}".format(" ".join(command), client.returncode))
        return {"mode": "visage", "peak_mb": peak, "epochs": [
            {"train_seconds": epoch["train_images"] / epoch["images_per_second"], "seconds": epoch["seconds"]["total"],
             "phases": epoch["seconds"]} for epoch in epochs]}

    def worker_peak(self):
        """VmHWM of the server's children in MB."""
        peak = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open("/proc/{}/status".format(pid), encoding="utf-8") as file:
                    status = file.read()
                if re.search(r"^PPid:\s+{}$".format(self.process.pid), status, re.M):
                    peak = max(peak, int(re.search(r"^VmHWM:\s+(\d+)", status, re.M).group(1)) // 1024)
        return peak

    def close(self):
        self.process.terminate()
        self.process.wait()


def images_of(directory, count):
    """This many images of a directory whose names start with an age, evenly spaced."""
    paths = [os.path.join(parent, name) for parent, _, names in os.walk(directory) for name in names
             if re.match(r"\d+_.*\.(jpe?g|png)$", name, re.I)]
    paths.sort()
    if len(paths) < count:
        raise SystemExit("bench: {} has {} images, {} are needed".format(directory, len(paths), count))
    return [paths[position * len(paths) // count] for position in range(count)]


def summary(values):
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def figures(run, images):
    """Images per second of the first epoch and of later ones, and the seconds of ten epochs with their validations."""
    first, later = run["epochs"][0], run["epochs"][1:]
    training = sum(epoch["train_seconds"] for epoch in later) / len(later)
    whole = sum(epoch["seconds"] for epoch in later) / len(later)
    return {"first_epoch": images / first["train_seconds"], "later_epochs": images / training,
            "ten_epochs": first["seconds"] + (EPOCHS - 1) * whole}


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"^model name\s*:\s*(.*)$", file.read(), re.M)
    return {"cpu": model.group(1) if model else platform.machine(), "cores": len(os.sched_getaffinity(0)), "system": platform.platform()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visage", required=True, help="the release binary")
    parser.add_argument("--data", help="directory of images whose names begin with the age; drawn ones without it")
    parser.add_argument("--images", type=int, default=1000, help="training images; a fifth as many are validated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", default="plain,tuned,cached")
    parser.add_argument("--trainable", default="layer4,fc", choices=["layer4,fc", "ALL"], help="what is trained")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--script", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.trainable == "ALL":
        given.modes = ",".join(mode for mode in given.modes.split(",") if mode != "cached")
    if given.script:
        with open(given.data, encoding="utf-8") as file:
            parts = json.load(file)
        run_script(given.script, given.trainable, parts["train"], parts["val"])
        return
    with tempfile.TemporaryDirectory(prefix="visage-bench-") as directory:
        measure(given, directory)


def measure(given, directory):
    data = given.data
    needed = given.images + given.images // 5
    if not data:
        data = os.path.join(directory, "faces")
        subprocess.run([given.visage, "synth", data, "--count", str(needed), "--size", "200", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    paths = images_of(os.path.abspath(data), needed)
    random.Random(0).shuffle(paths)
    parts = {"train": paths[:given.images], "val": paths[given.images:]}
    listing, manifest = os.path.join(directory, "parts.json"), os.path.join(directory, "faces.csv")
    with open(listing, "w", encoding="utf-8") as file:
        json.dump(parts, file)
    with open(manifest, "w", encoding="utf-8") as file:
        file.write("path,age,split\n")
        for part, members in parts.items():
            file.writelines('"{}",{},{}\n'.format(path, age_of(path), part) for path in members)
    runs = []
    server = Server(given.visage, directory)
    try:
        for number in range(given.rounds):
            for mode in given.modes.split(",") + ["visage"]:
                if mode == "visage":
                    run = server.train(manifest, given.trainable)
                else:
                    command = [sys.executable, __file__, "--visage", given.visage, "--script", mode, "--data", listing, "--trainable", given.trainable]
                    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout
                    run = json.loads(output.splitlines()[-1])
                run.update(round=number, **figures(run, given.images))
                runs.append(run)
                print("round {} {:7} first epoch {:6.1f} images/s, later {:6.1f}, ten epochs {:6.1f} s, peak {} MB".format(
                    number + 1, mode, run["first_epoch"], run["later_epochs"], run["ten_epochs"], run["peak_mb"]), flush=True)
    finally:
        server.close()
    report(given, runs)


def report(given, runs):
    modes = given.modes.split(",")

    def ratios(other, key):
        """Visage over another mode, round by round; above 1 is faster."""
        pairs = [(ours, theirs) for ours in runs for theirs in runs
                 if ours["mode"] == "visage" and theirs["mode"] == other and ours["round"] == theirs["round"]]
        return summary([theirs[key] / ours[key] if key == "ten_epochs" else ours[key] / theirs[key] for ours, theirs in pairs])

    spreads = {other: {key: ratios(other, key) for key in ("first_epoch", "later_epochs", "ten_epochs")} for other in modes}
    print("\nVisage over      first epoch         later epochs        ten epochs")
    for other, found in spreads.items():
        cells = ["{median:5.2f} ({low:.2f} to {high:.2f})".format(**found[key]) for key in ("first_epoch", "later_epochs", "ten_epochs")]
        print("{:12} {}".format(other, "  ".join("{:>18}".format(cell) for cell in cells)))
    last = [run for run in runs if run["mode"] == "visage"][-1]["epochs"][-1]["phases"]
    print("\nA later epoch of Visage in seconds: " + ", ".join("{} {:.2f}".format(name, value) for name, value in last.items()))
    if given.json:
        first = spreads.get("plain", {})
        content = {"ratios": {key: spread["median"] for key, spread in first.items()}, "spreads": spreads, "runs": runs, "machine": machine(),
                   "images": given.images, "trainable": given.trainable, "data": given.data or "drawn faces"}
        with open(given.json + ".tmp", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        os.replace(given.json + ".tmp", given.json)


if __name__ == "__main__":
    main()
