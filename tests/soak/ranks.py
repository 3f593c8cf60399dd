"""Kills processes of trainings that several ranks share, and checks that the result has the same bits.

    VISAGE_BIN=target/release/visage python tests/soak/ranks.py --kills 20 --seed 1

One training runs without a disturbance in one process. Then trainings with the same spec run in 1, 2 or 4 processes; each kill of the server changes the
number. The victim is a random rank or the server. Weights and losses must equal those of the first training, the sequences of the events must be complete,
and no process may be left. Prints one JSON object, and ends with 1 if a check failed.
"""

import argparse
import glob
import hashlib
import json
import os
import random
import signal
import sys
import time

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(REPOSITORY, "tests", "python"))

import server  # noqa: E402
from api import training  # noqa: E402

# Time in which the processes of a killed training must end.
LEFT_SECONDS = 25
FINAL = (training.TRAINING_STATE_SUCCEEDED, training.TRAINING_STATE_FAILED, training.TRAINING_STATE_CANCELLED)
OPTIONS = ("--rank-timeout", "10s", "--worker-silence-timeout", "10s", "--max-restarts", "1000")


def children(pid):
    """The processes that a process started, and those that they started."""
    found = []
    for thread in glob.glob("/proc/{}/task/*/children".format(pid)):
        try:
            with open(thread, encoding="utf-8") as file:
                found += [int(child) for child in file.read().split()]
        except OSError:
            # The thread has ended.
            pass
    return found + [grandchild for child in found for grandchild in children(child)]


def is_alive(pid):
    try:
        with open("/proc/{}/stat".format(pid), encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def spec(faces, epochs):
    return training.TrainingSpec(
        dataset=training.DatasetSpec(path=faces), init=training.InitSpec(kind=training.INIT_KIND_RANDOM), max_epochs=epochs, batch_size=16,
        input_size=64, precision=training.PRECISION_F32, promote=training.PROMOTE_NEVER, shards=4)


def result(client, name):
    """Weights, losses by epoch, and whether the sequences of the events are complete."""
    found = client.get(name)
    if found.state != training.TRAINING_STATE_SUCCEEDED:
        raise AssertionError(str(found))
    losses, sequences, token = {}, [], ""
    while True:
        page = client.trainings.ListEpochMetrics(training.ListEpochMetricsRequest(name=name, page_size=1000, page_token=token))
        for event in page.events:
            sequences.append(event.sequence)
            if event.HasField("epoch_completed"):
                epoch = event.epoch_completed
                losses[epoch.epoch] = (epoch.train_loss, epoch.val_loss)
        token = page.next_page_token
        if not token:
            break
    weights = hashlib.sha256(client.download(name + "/checkpoints/best")[1]).hexdigest()
    return weights, losses, sequences == list(range(1, len(sequences) + 1))


def run(options):
    chance = random.Random(options.seed)
    running = server.Server("--worker-processes", "1", *OPTIONS)
    report = {"kills": 0, "trainings": 0, "victims": {}, "processes": {}, "slowest_end_seconds": 0.0, "failures": []}
    try:
        faces = server.draw_faces(running.path("faces"), 120, 5, 64)
        first = running.client.start(spec(faces, options.epochs)).name
        running.client.events(first)
        expected = result(running.client, first)
        while report["kills"] < options.kills:
            name = running.client.start(spec(faces, options.epochs)).name
            report["trainings"] += 1
            while disturb(running, name, chance, report) and report["kills"] < options.kills:
                pass
            running.client.events(name)
            found = result(running.client, name)
            for what, is_same in (("weights", found[0] == expected[0]), ("losses", found[1] == expected[1]), ("sequences", found[2])):
                if not is_same:
                    report["failures"].append("{} of {}".format(what, name))
    finally:
        log = running.log()
        running.close()
    report["weights"] = expected[0]
    if "panicked" in log:
        report["failures"].append("a panic is in the log")
    return report


def disturb(running, name, chance, report):
    """Waits for a random time and kills a process; returns whether the training still runs."""
    client = running.client
    attempt = client.get(name).attempt

    def is_training():
        found = client.get(name)
        return found.state in FINAL or (found.state == training.TRAINING_STATE_RUNNING and children(running.process.pid))

    server.wait_for(is_training, "the training runs")
    time.sleep(chance.uniform(0, 2))
    processes = children(running.process.pid)
    if client.get(name).state in FINAL or not processes:
        return False
    victim = chance.choice(["server"] + ["rank"] * 3)
    sent = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP]) if victim == "rank" else signal.SIGKILL
    started = time.monotonic()
    if victim == "rank":
        pid = chance.choice(processes)
        processes = [pid]
        try:
            os.kill(pid, sent)
        except ProcessLookupError:
            return True
    else:
        count = chance.choice(("1", "2", "4"))
        running.options = ("--worker-processes", count, *OPTIONS)
        report["processes"][count] = report["processes"].get(count, 0) + 1
        running.kill_and_restart()
    key = "{} {}".format(victim, sent.name)
    report["kills"] += 1
    report["victims"][key] = report["victims"].get(key, 0) + 1
    try:
        server.wait_for(lambda: not any(map(is_alive, processes)), "the processes ended", LEFT_SECONDS)
    except AssertionError:
        report["failures"].append("{}: processes left after {}".format(name, key))
    report["slowest_end_seconds"] = max(report["slowest_end_seconds"], round(time.monotonic() - started, 1))
    client = running.client
    found = server.wait_for(lambda: next((now for now in [client.get(name)] if now.attempt > attempt or now.state in FINAL), None),
                            "the training starts again", 60)
    return found.state not in FINAL


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    report = run(parser.parse_args())
    print(json.dumps(report, indent=2))
    sys.exit(1 if report["failures"] else 0)


if __name__ == "__main__":
    main()
