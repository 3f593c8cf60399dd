"""Acknowledged changes, and their comparison with the state of the server."""

import collections
import threading

import grpc

from api import dataset, model

Seen = collections.namedtuple("Seen", "state sequence version")
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED")


class Ledger:
    def __init__(self):
        self.lock = threading.Lock()
        self.trainings = {}
        # Files and ages of versions by name.
        self.files = {}
        self.ages = {}
        self.datasets = set()
        # Acknowledged values, and that of the open call.
        self.aliases = {}
        self.open_aliases = {}
        self.lost = []

    def lose(self, text):
        with self.lock:
            self.lost.append(text)
        print("LOST: " + text, flush=True)

    def started(self, name):
        with self.lock:
            self.trainings[name] = Seen("QUEUED", 1, "")

    def saw(self, name, state, sequence, version):
        with self.lock:
            before = self.trainings.get(name)
            if before is None:
                return
            if before.state in FINAL and state != before.state:
                self.lost.append("{} was {} and is {}".format(name, before.state, state))
            # A failure that the faults do not explain; they only interrupt.
            if state == "FAILED" and before.state != "FAILED":
                self.lost.append("{} failed".format(name))
            if sequence < before.sequence:
                self.lost.append("{} had {} events and has {}".format(name, before.sequence, sequence))
            self.trainings[name] = Seen(state, sequence, version)

    def forget(self, name):
        """Forgets a training that is about to be deleted, and returns its version."""
        with self.lock:
            version = self.trainings.pop(name).version
            self.files.pop(version, None)
            self.ages.pop(version, None)
            for alias, name in list(self.aliases.items()):
                if name == version:
                    del self.aliases[alias]
            return version

    def trainings_now(self):
        with self.lock:
            return list(self.trainings.items())

    def versions(self):
        with self.lock:
            return [seen.version for seen in self.trainings.values() if seen.version]

    def predicted(self, version, age):
        with self.lock:
            before = self.ages.setdefault(version, age)
        if before != age:
            self.lose("{} predicted {} and predicts {}".format(version, before, age))

    def alias_opens(self, alias, version):
        with self.lock:
            self.open_aliases[alias] = version

    def alias_set(self, alias, version):
        with self.lock:
            self.aliases[alias] = version
            self.open_aliases.pop(alias, None)

    def check(self, client, fault, state_of):
        for name, seen in self.trainings_now():
            try:
                found = client.get(name)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND:
                    raise
                # Deleted since the list was taken.
                if name in dict(self.trainings_now()):
                    self.lose("after {}: {} does not exist".format(fault, name))
                continue
            self.saw(name, state_of(found), found.last_sequence, found.model_version)
            if seen.version and found.model_version != seen.version:
                self.lose("after {}: {} lost its version {}".format(fault, name, seen.version))
            if seen.version:
                self.check_version(client, fault, seen.version)
        for name in list(self.datasets):
            try:
                client.datasets.GetDataset(dataset.GetDatasetRequest(name="datasets/" + name))
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND:
                    raise
                if name in self.datasets:
                    self.lose("after {}: datasets/{} does not exist".format(fault, name))

    def check_version(self, client, fault, name):
        with self.lock:
            aliases = dict(self.aliases)
            opened = dict(self.open_aliases)
        try:
            found = client.models.GetModelVersion(model.GetModelVersionRequest(name=name)).version
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            if name in self.versions():
                self.lose("after {}: {} does not exist".format(fault, name))
            return
        files = sorted((file.name, file.sha256) for file in found.files)
        with self.lock:
            before = self.files.setdefault(name, files)
        if before != files:
            self.lose("after {}: {} has other files".format(fault, name))
        with self.lock:
            for alias, value in aliases.items():
                # Written meanwhile, or by a call that is open.
                is_settled = self.aliases.get(alias) == value and alias not in self.open_aliases and alias not in opened
                if value == name and is_settled and alias not in found.aliases:
                    self.lost.append("after {}: the alias {} of {} is lost".format(fault, alias, name))
