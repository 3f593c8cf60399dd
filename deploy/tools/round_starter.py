#!/usr/bin/env python3
"""Writes the best checkpoint of a training as the built-in starter.

Convolutions are stored in IEEE half precision, which rounds eight times finer than bfloat16 and holds every weight up
to 65,504. BatchNorms and the head stay in 32 bits: they are small, and their errors would affect whole channels and
ages. The manifest keeps no directory and no image names, and the record of the training images has hashes only.

Nothing is written if the rounding changes the age on any of the --check images by 0.05 years or more. The ages are
computed by a temporary server in 32 bits, with a model of the original and one of the rounded weights.

Needs a running server with the training (--server, or VISAGE_SERVER) and the standard library only.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import time

MAX_CHANGE_YEARS = 0.05
MODEL_FILE, MANIFEST_FILE, IMAGES_FILE = "model.safetensors", "manifest.json", "training-images.bin"
START_SECONDS = 120


class Refused(Exception):
    """The checkpoint cannot become the starter."""


def read_safetensors(content):
    """Returns the metadata, and a dict from names to (dtype, shape, bytes)."""
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8:8 + length])
    metadata = header.pop("__metadata__", {})
    data = memoryview(content)[8 + length:]
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        tensors[name] = (entry["dtype"], entry["shape"], bytes(data[start:end]))
    return metadata, tensors


def write_safetensors(metadata, tensors):
    """Returns the bytes of a file, with wider types first as in the safetensors library, so that all data is aligned."""
    width = {"I64": 8, "F32": 4, "F16": 2}
    header, offset = {"__metadata__": metadata}, 0
    names = sorted(tensors, key=lambda name: (-width[tensors[name][0]], name))
    for name in names:
        dtype, shape, data = tensors[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(tensors[name][2] for name in names)])


def round_convolutions(tensors):
    """Returns the tensors with the weights of convolutions, those of four dimensions, in f16."""
    rounded = {}
    for name, (dtype, shape, data) in tensors.items():
        if len(shape) == 4:
            if dtype != "F32":
                raise Refused("tensor {} must be F32, got {}".format(name, dtype))
            count = len(data) // 4
            try:
                # `e` rounds to the nearest, ties to even.
                data = struct.pack("<{}e".format(count), *struct.unpack("<{}f".format(count), data))
            except OverflowError:
                raise Refused("tensor {} has values beyond 65,504, the largest of f16".format(name)) from None
            dtype = "F16"
        rounded[name] = (dtype, shape, data)
    return rounded


def without_names(manifest, test):
    """Returns the manifest without directories and image names, and with the record of the test images."""
    last_name = lambda path: os.path.basename(path.rstrip("/"))
    manifest = json.loads(json.dumps(manifest))
    manifest["dataset"]["path"] = last_name(manifest["dataset"]["path"])
    for part in ("dataset", "init"):
        section = manifest["spec"].get(part) or {}
        if section.get("path"):
            section["path"] = last_name(section["path"])
    manifest.pop("test", None)
    if test is not None:
        manifest["test"] = {**test, "worst_predictions": []}
    return manifest


class Program:
    """The visage command, optionally for a given server."""

    def __init__(self, path, server=None):
        self.path = path
        self.server = server

    def run(self, *arguments):
        """Returns the standard output of a successful command."""
        server = ["--server", self.server] if self.server else []
        done = subprocess.run([self.path, *server, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, universal_newlines=True)
        if done.returncode != 0:
            raise Refused("visage {} failed: {}".format(" ".join(arguments[:3]), done.stderr.strip()))
        return done.stdout

    def training(self, name):
        return json.loads(self.run("--json", "trainings", "get", name))

    def ages(self, version, images):
        lines = self.run("--json", "predict", "--model", version, *images).splitlines()
        return [json.loads(line)["age"] for line in lines]


@contextlib.contextmanager
def temporary_server(path, directory):
    """Runs a server that predicts in 32 bits, and yields its command."""
    ready, log = os.path.join(directory, "ready"), os.path.join(directory, "log")
    command = [path, "serve", "--data-dir", os.path.join(directory, "data"), "--precision", "f32",
               "--data-roots", directory, "--weights-roots", directory,
               "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--ready-file", ready]
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        limit = time.monotonic() + START_SECONDS
        while not os.path.exists(ready):
            if process.poll() is not None or time.monotonic() > limit:
                with open(log, encoding="utf-8", errors="replace") as file:
                    raise Refused("the temporary server did not start: {}".format(file.read()))
            time.sleep(0.1)
        with open(ready, encoding="utf-8") as file:
            yield Program(path, json.load(file)["grpc"])
    finally:
        process.terminate()
        process.wait()


def largest_change(path, original, rounded, images):
    """Returns the largest change of an age in years that the rounding causes."""
    with tempfile.TemporaryDirectory(prefix="visage-starter-") as directory:
        directory = os.path.realpath(directory)
        faces = os.path.join(directory, "faces")
        Program(path).run("synth", faces, "--count", "40", "--size", "64")
        with temporary_server(path, directory) as program:
            ages = []
            for name, content in (("original", original), ("rounded", rounded)):
                weights = os.path.join(directory, name + ".safetensors")
                with open(weights, "wb") as file:
                    file.write(content)
                # A model version of these weights: steps this small change nothing.
                program.run("train", "--id", name, "--dataset", faces, "--init", weights, "--trainable", "fc",
                            "--epochs", "1", "--lr", "1e-12", "--precision", "f32", "--set", "head_bias=KEEP",
                            "--promote", "never", "--quiet")
                ages.append(program.ages(program.training(name)["model_version"], images))
    changes = [abs(before - after) for before, after in zip(*ages)]
    # `max` would skip NaN.
    return math.nan if any(math.isnan(change) for change in changes) else max(changes)


def write(directory, name, content):
    """Replaces a file as a whole."""
    path = os.path.join(directory, name)
    with open(path + ".new", "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", help="training whose best checkpoint becomes the starter")
    parser.add_argument("--output", required=True, help="directory of the three files")
    parser.add_argument("--check", required=True, nargs="+", metavar="IMAGE", help="images whose ages must not change")
    parser.add_argument("--visage", default="visage", help="the program [default: visage]")
    parser.add_argument("--server", help="the server with the training [default: VISAGE_SERVER]")
    arguments = parser.parse_args()
    program = Program(arguments.visage, arguments.server)
    files = {}
    with tempfile.TemporaryDirectory(prefix="visage-starter-") as directory:
        for name in (MODEL_FILE, MANIFEST_FILE, IMAGES_FILE):
            path = os.path.join(directory, name)
            program.run("trainings", "download", arguments.training, "--file", name, "--output", path)
            with open(path, "rb") as file:
                files[name] = file.read()
    metadata, tensors = read_safetensors(files[MODEL_FILE])
    model = write_safetensors(metadata, round_convolutions(tensors))
    change = largest_change(arguments.visage, files[MODEL_FILE], model, arguments.check)
    if not change < MAX_CHANGE_YEARS:
        raise Refused("rounding to f16 changes an age by {:.4f} years; the limit is {}".format(change, MAX_CHANGE_YEARS))
    version = program.training(arguments.training)["model_version"]
    test = json.loads(program.run("--json", "models", "get", version)).get("test")
    manifest = without_names(json.loads(files[MANIFEST_FILE]), test)
    written = {MODEL_FILE: model, IMAGES_FILE: files[IMAGES_FILE]}
    manifest["sha256"] = {name: hashlib.sha256(content).hexdigest() for name, content in written.items()}
    os.makedirs(arguments.output, exist_ok=True)
    # The manifest last, so that it never describes tensors that are missing.
    for name, content in written.items():
        write(arguments.output, name, content)
    write(arguments.output, MANIFEST_FILE, json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")
    print(json.dumps({"path": arguments.output, "largest_change_years": change, "images": len(arguments.check)}))


if __name__ == "__main__":
    try:
        main()
    except Refused as error:
        sys.exit("round_starter: {}".format(error))
