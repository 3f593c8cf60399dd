"""Runs a server under trainings, writes, kills, full disks and losses of power, and checks that nothing is lost that it acknowledged.

    VISAGE_BIN=target/release/visage python tests/soak/soak.py --faces DIRECTORY --minutes 30

`--faces` has images whose names start with the age, such as UTKFace; some are copied to a temporary directory. The data directory is a tmpfs of 2 GiB in a
namespace of its own, so that a full disk affects nothing else; without the right to mount one, the disk is not filled. Without a C compiler no power is
lost. Prints one JSON object with what happened, and ends with 1 if something was lost.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import grpc

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(REPOSITORY, "tests", "python"))

import api  # noqa: E402
import server  # noqa: E402
from api import dataset, model, training  # noqa: E402
from ledger import Ledger  # noqa: E402
from power import Machine  # noqa: E402

MOUNTED = "VISAGE_SOAK_MOUNTED"
TMPFS_BYTES = 2 << 30
# Trainings whose versions are kept; older ones are deleted, so that the disk suffices.
KEPT = 5
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED")


def state_of(found):
    return training.TrainingState.Name(found.state)[len("TRAINING_STATE_"):]


def mount_and_run_again(arguments):
    """Runs this program in a namespace where it may mount; returns its exit code, or None if that is not allowed."""
    probe = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    if not shutil.which("unshare") or subprocess.run(probe, stderr=subprocess.DEVNULL).returncode != 0:
        return None
    process = subprocess.Popen(["unshare", "--map-root-user", "--mount", sys.executable, os.path.abspath(__file__), *arguments],
                               env={**os.environ, MOUNTED: "1"})
    try:
        return process.wait()
    except KeyboardInterrupt:
        return process.wait()


class Soak:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.directory = tempfile.mkdtemp(prefix="visage-soak-")
        self.data = os.path.join(self.directory, "disk", "data")
        os.makedirs(os.path.dirname(self.data))
        self.can_fill = MOUNTED in os.environ
        if self.can_fill:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size={}".format(TMPFS_BYTES), "none", os.path.dirname(self.data)], check=True)
        self.faces = self.copy_faces()
        self.machine = Machine(self.directory, self.data)
        self.ledger = Ledger()
        self.counts = collections.Counter()
        self.refusals = collections.Counter()
        self.process = self.client = None
        # Cleared while the server is down on purpose.
        self.up = threading.Event()
        self.end = time.monotonic() + 60 * options.minutes
        self.stopping = threading.Event()
        self.ports = None
        # Held during an upload and while syncs are recorded: the library does not see `syncfs`, which makes uploaded datasets durable.
        self.uploading = threading.Lock()

    def copy_faces(self):
        target = os.path.join(self.directory, "faces")
        os.makedirs(target)
        names = sorted(name for name in os.listdir(self.options.faces) if name.lower().endswith((".jpg", ".png")))
        for name in self.random.sample(names, min(self.options.images, len(names))):
            shutil.copy(os.path.join(self.options.faces, name), target)
        return target

    # The server.

    def start(self, records_syncs):
        command = ["nice", "-n", "10", server.binary(), "serve", "--data-dir", self.data, "--ready-file", self.path("ready"),
                   "--min-free-disk", "64MiB", "--max-restarts", "1000", "--worker-silence-timeout", "120s", "--worker-nice", "15", "--shutdown-grace", "5s",
                   "--grpc-listen", self.ports[0] if self.ports else "127.0.0.1:0",
                   "--http-listen", self.ports[1] if self.ports else "127.0.0.1:0"]
        if records_syncs:
            command = self.machine.command() + command
        if os.path.exists(self.path("ready")):
            os.remove(self.path("ready"))
        with open(self.path("log"), "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.directory, env=server.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        server.wait_for(self.has_answered, "the server is ready", seconds=300)
        with open(self.path("ready"), encoding="utf-8") as file:
            found = json.load(file)
        self.ports = found["grpc"], found["http"]
        self.client = api.Client(self.ports[0])
        # Checkpoints that a kill left unrecorded; the disk is too small to keep them until they expire.
        quarantine = os.path.join(self.data, "quarantine")
        self.counts["quarantined files"] += sum(len(files) for _, _, files in os.walk(quarantine))
        shutil.rmtree(quarantine, ignore_errors=True)

    def has_answered(self):
        if self.process.poll() is not None:
            with open(self.path("log"), encoding="utf-8", errors="replace") as log:
                raise AssertionError("the server ended with {}:\n{}".format(self.process.returncode, log.read()[-4000:]))
        return os.path.exists(self.path("ready"))

    def path(self, name):
        return os.path.join(self.directory, name)

    def stop(self, number):
        self.up.clear()
        self.process.send_signal(number)
        code = self.process.wait(timeout=120)
        self.client.close()
        if number == signal.SIGTERM and code != 0:
            self.ledger.lose("the server ended with {} after SIGTERM".format(code))

    # The load. Each thread repeats its action until the end; a refusal or a lost connection is counted, and tried again.

    def repeat(self, action, pause):
        source = random.Random(action.__name__)
        while not self.stopping.is_set():
            if not self.up.wait(1):
                continue
            try:
                action(source)
            except grpc.RpcError as error:
                self.refusals["{} {}".format(action.__name__, error.code().name)] += 1
            except ValueError as error:  # The channel was closed by a restart.
                if "closed" not in str(error):
                    raise
            self.stopping.wait(pause)

    def train(self, source):
        running = [name for name, seen in self.ledger.trainings_now() if seen.state not in FINAL]
        if len(running) < 2:
            spec = training.TrainingSpec(
                dataset=training.DatasetSpec(path=self.options.dataset or self.faces, validation_fraction=0.2), input_size=64, max_epochs=3,
                init=training.InitSpec(kind=training.INIT_KIND_RANDOM), promote=training.PROMOTE_ALWAYS)
            started = self.client.start(spec)
            self.ledger.started(started.name)
            self.counts["trainings"] += 1
        for name, _ in self.ledger.trainings_now():
            found = self.client.get(name)
            self.ledger.saw(name, state_of(found), found.last_sequence, found.model_version)

    def delete_old(self, source):
        ended = [name for name, seen in self.ledger.trainings_now() if seen.state in FINAL]
        for name in ended[:-KEPT]:
            version = self.ledger.forget(name)
            try:
                if version:
                    self.client.models.DeleteModelVersion(model.DeleteModelVersionRequest(name=version))
                self.client.trainings.DeleteTraining(training.DeleteTrainingRequest(name=name))
                self.counts["deleted"] += 1
            except grpc.RpcError as error:
                # An alias points to it; it stays, without further checks.
                self.refusals["delete_old {}".format(error.code().name)] += 1

    def flood(self, source):
        """One alias, written by this thread alone, so that its value is the last acknowledged one or that of the open call."""
        alias = "soak-{}".format(threading.get_ident() % 1000)
        versions = self.ledger.versions()
        if not versions:
            return
        name = source.choice(versions)
        self.ledger.alias_opens(alias, name)
        self.client.models.SetAlias(model.SetAliasRequest(name=name, alias=alias))
        self.ledger.alias_set(alias, name)
        self.counts["alias writes"] += 1

    def predict(self, source):
        for name in self.ledger.versions()[-2:]:
            with open(os.path.join(self.faces, sorted(os.listdir(self.faces))[0]), "rb") as file:
                response = self.client.predict(file.read(), model=name)
            self.ledger.predicted(name, response.predictions[0].age)
            self.counts["predictions"] += 1

    def upload(self, source):
        with self.uploading:
            self.upload_one()

    def upload_one(self):
        name = "soak-{}".format(self.counts["datasets"])
        code = self.visage("--server", self.ports[0], "dataset", "push", self.faces, "--id", name)
        if code == 0:
            self.ledger.datasets.add(name)
            self.counts["datasets"] += 1
            for old in sorted(self.ledger.datasets, key=lambda name: int(name.split("-")[1]))[:-3]:
                self.ledger.datasets.discard(old)
                self.client.datasets.DeleteDataset(dataset.DeleteDatasetRequest(name="datasets/" + old))

    def back_up(self, source):
        code = self.visage("backup", "--to", self.path("backups"), "--data-dir", self.data, "--keep", "2")
        self.counts["backups" if code == 0 else "failed backups"] += 1
        if code == 0 and self.visage("verify", self.path("backups")) != 0:
            self.ledger.lose("a backup is damaged")

    def visage(self, *arguments):
        with open(self.path("commands"), "ab") as log:
            log.write(("\n$ visage " + " ".join(arguments) + "\n").encode())
            log.flush()
            return subprocess.run([server.binary(), *arguments], env=server.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode

    # The faults.

    def fill_disk(self):
        filler = os.path.join(os.path.dirname(self.data), "filler")
        try:
            with open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 20))
        except OSError:
            pass  # It is full.
        time.sleep(self.random.uniform(3, 12))
        os.remove(filler)

    def disturb(self):
        faults = ["kill", "kill", "stop"] + ["power"] * self.machine.is_available + ["disk", "disk and kill"] * self.can_fill
        fault = self.random.choice(faults)
        self.counts[fault] += 1
        if "disk" in fault:
            self.fill_disk()
        if fault == "disk":
            self.check(fault)
            return
        if fault == "power":
            with self.uploading:
                self.lose_power()
        else:
            self.stop(signal.SIGTERM if fault == "stop" else signal.SIGKILL)
        self.start(records_syncs=False)
        # Before the load continues, which would overwrite the aliases.
        self.check(fault)
        self.up.set()

    def lose_power(self):
        # The syncs are recorded from a start on.
        self.stop(signal.SIGTERM)
        self.machine.survey()
        self.start(records_syncs=True)
        self.up.set()
        time.sleep(self.random.uniform(20, 60))
        self.up.clear()
        self.machine.lose_power(self.process)
        self.client.close()

    # The checks.

    def check(self, fault):
        try:
            self.ledger.check(self.client, fault, state_of)
        except grpc.RpcError as error:
            self.ledger.lose("after {}: {}".format(fault, api.Refusal(error)))
        self.counts["checks"] += 1

    def run(self):
        self.start(records_syncs=False)
        self.up.set()
        actions = [(self.train, 1), (self.delete_old, 5), (self.predict, 0.5), (self.upload, 45), (self.back_up, 60)]
        actions += [(self.flood, 0.01)] * 4
        threads = [threading.Thread(target=self.repeat, args=action, daemon=True) for action in actions]
        for thread in threads:
            thread.start()
        while time.monotonic() < self.end:
            time.sleep(max(0, min(self.random.uniform(15, 45), self.end - time.monotonic())))
            self.disturb()
            print("{:.0f} s left: {}".format(max(0, self.end - time.monotonic()), dict(self.counts)), file=sys.stderr, flush=True)
        self.stopping.set()
        for thread in threads:
            thread.join(120)
        self.check("the end")
        self.stop(signal.SIGTERM)
        if self.visage("verify", self.data) != 0:
            self.ledger.lose("the data directory is damaged")

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.can_fill:
            subprocess.run(["umount", "--lazy", os.path.dirname(self.data)], check=False)
        if not self.options.keep:
            shutil.rmtree(self.directory, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--faces", required=True, help="directory of face images")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--images", type=int, default=200, help="images of a training")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dataset", help="dataset of the trainings instead of the copied faces")
    parser.add_argument("--keep", action="store_true", help="keep the temporary directory")
    options = parser.parse_args()
    if MOUNTED not in os.environ:
        code = mount_and_run_again(sys.argv[1:])
        if code is not None:
            return code
        print("No tmpfs can be mounted here, so the disk is not filled.", file=sys.stderr)
    soak = Soak(options)
    if not soak.machine.is_available:
        print("There is no C compiler, so no power is lost.", file=sys.stderr)
    try:
        soak.run()
    finally:
        soak.close()
    print(json.dumps({"minutes": options.minutes, "directory": soak.directory, "counts": soak.counts, "refused": soak.refusals,
                      "lost": soak.ledger.lost}, indent=1, sort_keys=True))
    return 1 if soak.ledger.lost else 0


if __name__ == "__main__":
    sys.exit(main())
