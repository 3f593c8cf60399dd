"""Accuracy of initial weights and recipes on one split: the table of the documentation.

    make bench-accuracy DATA=directory [ROWS=...] [SEEDS=3] [IMAGES=0] [EPOCHS=3] [SIDE=224] [BENCH_JSON=file]

DATA has the directories `train` and `val` of images whose names start with the age. Every row is a
training by `visage train` and an evaluation of its best checkpoint by `visage evaluate` on `val`,
which also selected the epoch, so all rows are slightly optimistic in the same way:

    mean        the mean age of the training images, for every image
    starter     the unchanged starter
    finetuned   layer4 and the head, from the starter, with MSE and Adam 1e-4 (EPOCHS at SIDE)
    random      the same from random weights, whose frozen layers are untrained
    reference   the recipe REFERENCE from the starter at its own size, because ImageNet weights need a network
    best, fast  the recipes of these names

IMAGES is the number of training images, evenly spaced; 0 is all. A row with several seeds shows the
mean, followed by the lowest and the highest value.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import time

from train import Server, machine, images_of

BANDS = [(0, 9), (10, 19), (20, 39), (40, 59), (60, 120)]
ROWS = {
    "finetuned": ["--init", "STARTER", "--epochs", "{epochs}", "--input-size", "{side}"],
    "random": ["--init", "RANDOM", "--epochs", "{epochs}", "--input-size", "{side}"],
    "reference": ["--recipe", "reference", "--init", "STARTER"],
    "best": ["--recipe", "best"],
    "fast": ["--recipe", "fast"],
}


def age_of(path):
    return float(os.path.basename(path).split("_")[0])


def figures(pairs):
    """Errors of pairs of a predicted and a true age, in years."""
    errors = [predicted - true for predicted, true in pairs]
    found = {"images": len(errors), "mae": sum(map(abs, errors)) / len(errors), "rmse": math.sqrt(sum(error * error for error in errors) / len(errors)),
             "cs5": 100 * sum(abs(error) <= 5 for error in errors) / len(errors), "bias": sum(errors) / len(errors)}
    for low, high in BANDS:
        inside = [predicted - true for predicted, true in pairs if low <= true <= high]
        found["bias {}-{}".format(low, high)] = sum(inside) / len(inside) if inside else float("nan")
    return found


def run(server, *command):
    """The JSON lines of a command."""
    done = subprocess.run([server.program, *command, "--server", server.address, "--json"], env=server.environment, stdout=subprocess.PIPE,
                          universal_newlines=True)
    if done.returncode != 0:
        raise SystemExit("bench: `{}` ended with {}".format(" ".join(command), done.returncode))
    return [json.loads(line) for line in done.stdout.splitlines()]


def evaluated(server, version, manifest):
    """The pairs of predicted and true ages of a version on the validation images."""
    report, = run(server, "evaluate", "--version", version, "--dataset", manifest, "--split", "validation", "--predictions")
    return [(one["predicted"], one["age"]) for one in report["predictions"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visage", required=True, help="the release binary")
    parser.add_argument("--data", required=True, help="directory with the directories `train` and `val`")
    parser.add_argument("--rows", default="mean,starter,finetuned,random")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--json", help="file for the figures")
    given = parser.parse_args()
    directories = {split: os.path.join(os.path.abspath(given.data), name) for split, name in (("train", "train"), ("validation", "val"))}
    counts = {split: sum(name.lower().endswith((".jpg", ".jpeg", ".png")) for _, _, names in os.walk(directory) for name in names)
              for split, directory in directories.items()}
    train = images_of(directories["train"], given.images or counts["train"])
    validation = images_of(directories["validation"], counts["validation"])
    found = {"machine": machine(), "train_images": len(train), "validation_images": len(validation), "epochs": given.epochs, "side": given.side, "rows": {}}
    with tempfile.TemporaryDirectory(prefix="visage-accuracy-") as directory:
        manifest = os.path.join(directory, "faces.csv")
        with open(manifest, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "age", "split"])
            for split, paths in (("train", train), ("validation", validation)):
                writer.writerows([path, age_of(path), split] for path in paths)
        server = Server(given.visage, directory, "--starter")
        try:
            for row in given.rows.split(","):
                measure(server, row, given, manifest, train, validation, found["rows"])
                if given.json:
                    with open(given.json, "w", encoding="utf-8") as file:
                        json.dump(found, file, indent=2)
        finally:
            server.close()
    print(table(found))


def measure(server, row, given, manifest, train, validation, rows):
    """Adds the metrics of each seed and the duration of its training to a row."""
    results = rows.setdefault(row, [])
    if row == "mean":
        mean = sum(map(age_of, train)) / len(train)
        results.append({"seconds": 0.0, **figures([(mean, age_of(path)) for path in validation])})
        return
    if row == "starter":
        results.append({"seconds": 0.0, **figures(evaluated(server, "1", manifest))})
        return
    flags = [flag.format(epochs=given.epochs, side=given.side) for flag in ROWS[row]]
    for seed in range(1, given.seeds + 1):
        begun = time.monotonic()
        events = run(server, "train", "--dataset", manifest, *flags, "--set", "seed={}".format(seed))
        seconds = time.monotonic() - begun
        version = next(event["model_version_created"]["model_version"] for event in events if "model_version_created" in event)
        results.append({"seconds": seconds, "version": version, **figures(evaluated(server, version, manifest))})
        print(row, seed, {key: value if isinstance(value, str) else round(value, 2) for key, value in results[-1].items()}, file=sys.stderr, flush=True)


def table(found):
    """The rows as Markdown."""
    names = ["mae", "rmse", "cs5", "bias"] + ["bias {}-{}".format(*band) for band in BANDS] + ["seconds"]
    heads = ["MAE", "RMSE", "within 5 years, %", "bias"] + ["bias {}-{}".format(*band) for band in BANDS] + ["seconds"]
    lines = ["{train_images} training and {validation_images} validation images; {machine[cores]} cores of {machine[cpu]}".format(**found), "",
             "| | {} |".format(" | ".join(heads)), "|---|" + "---|" * len(heads)]
    for row, results in found["rows"].items():
        cells = []
        for name in names:
            values = [result[name] for result in results]
            digits = 0 if name == "seconds" else 1 if name == "cs5" else 2
            mean = "{:.{}f}".format(sum(values) / len(values), digits)
            cells.append(mean if len(values) == 1 else "{} ({:.{}f} to {:.{}f})".format(mean, min(values), digits, max(values), digits))
        lines.append("| {} | {} |".format(row, " | ".join(cells)))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
