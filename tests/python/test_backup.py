"""Backups: taken during a training, killed at random, verified, and restored elsewhere."""

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
import unittest

import server
from api import model, training
from client.base import endless, faces, read_face, spec


def run(*arguments):
    """Runs the program; returns exit code, stdout and stderr."""
    done = subprocess.run([server.binary(), *arguments], env=server.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=server.DEADLINE_SECONDS)
    return done.returncode, done.stdout, done.stderr


class BackupTest(unittest.TestCase):
    def setUp(self):
        self.server = server.Server()
        self.addCleanup(self.server.close)
        self.data = self.server.path("data")
        self.directory = tempfile.mkdtemp(prefix="visage-backups-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.root = os.path.join(self.directory, "backups")

    @property
    def client(self):
        return self.server.client

    def back_up(self, *options):
        code, stdout, stderr = run("--json", "backup", "--to", self.root, "--data-dir", self.data, *options)
        self.assertEqual(code, 0, stderr)
        return json.loads(stdout)

    def restore(self, name, *options):
        target = os.path.join(self.directory, name)
        code, _, stderr = run("restore", self.root, "--to", target, *options)
        self.assertEqual(code, 0, stderr)
        return target

    def ages(self, client):
        return client.ages(*[read_face(position) for position in range(4)])

    def wait_for_epoch(self, client, name, epoch):
        server.wait_for(lambda: client.get(name).last.epoch >= epoch, "epoch {} of {} is complete".format(epoch, name))

    def uploaded(self, **fields):
        """A spec of the uploaded faces."""
        found = spec(**fields)
        found.dataset.CopyFrom(training.DatasetSpec(name="datasets/faces", validation_fraction=0.2))
        return found

    def push(self):
        code, _, stderr = run("--server", self.server.grpc_address, "dataset", "push", faces(), "--id", "faces")
        self.assertEqual(code, 0, stderr)

    def test_backups_during_a_training_are_restored_with_equal_predictions(self):
        self.push()
        trained = self.client.start(self.uploaded(max_epochs=2, promote=training.PROMOTE_ALWAYS))
        self.client.events(trained.name)
        expected = self.ages(self.client)
        running = self.client.start(endless())
        self.wait_for_epoch(self.client, running.name, 1)

        # Killed backups leave nothing that a later one trusts.
        for seed in range(8):
            process = subprocess.Popen([server.binary(), "backup", "--to", self.root, "--data-dir", self.data], env=server.environment(),
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(random.Random(seed).uniform(0, 0.3))
            process.kill()
            process.wait()
        first = self.back_up()
        self.assertEqual(first["damaged"], [])
        code, stdout, stderr = run("verify", self.root)
        self.assertEqual(code, 0, stdout + stderr)
        code, stdout, stderr = run("verify", self.data)
        self.assertEqual(code, 0, stdout + stderr)
        second = self.back_up("--keep", "1")
        self.assertIn(os.path.basename(first["path"]), second["removed_backups"])
        self.assertLess(second["copied_bytes"], second["bytes"])

        restored = server.Server(data=self.restore("restored"))
        self.addCleanup(restored.close)
        self.assertEqual(self.ages(restored.client), expected)
        versions = restored.client.models.ListModelVersions(model.ListModelVersionsRequest()).versions
        self.assertEqual([version.name for version in versions], ["models/age/versions/1"])
        # The running training continues in the copy.
        self.wait_for_epoch(restored.client, running.name, 2)
        again = restored.client.start(self.uploaded(max_epochs=1))
        restored.client.trainings.CancelTraining(training.CancelTrainingRequest(name=running.name, force=True))
        restored.client.events(again.name)
        self.assertEqual(training.TrainingState.Name(restored.client.get(again.name).state), "TRAINING_STATE_SUCCEEDED")
        self.client.trainings.CancelTraining(training.CancelTrainingRequest(name=running.name, force=True))

    def test_damage_is_found_named_and_not_restored(self):
        trained = self.client.start(spec(max_epochs=1, promote=training.PROMOTE_ALWAYS))
        self.client.events(trained.name)
        self.back_up()
        files = self.client.models.GetModelVersion(model.GetModelVersionRequest(name="models/age/versions/1")).version.files
        weights = next(file for file in files if file.name == "model.safetensors")
        path = os.path.join(self.root, "content", weights.sha256[:2], weights.sha256)
        damaged = path + ".new"
        # Not in place, because the file is a link to that of the server.
        with open(path, "rb") as source, open(damaged, "wb") as target:
            content = bytearray(source.read())
            content[len(content) // 2] ^= 1
            target.write(content)
        os.replace(damaged, path)
        code, stdout, stderr = run("verify", self.root)
        self.assertEqual(code, 1)
        self.assertIn("models/age/versions/1", stderr)
        self.assertIn("1 damaged", stdout)
        target = os.path.join(self.directory, "restored")
        code, _, stderr = run("restore", self.root, "--to", target)
        self.assertEqual(code, 1)
        self.assertIn("1 files of the backup are damaged", stderr)
        self.assertFalse(os.path.exists(os.path.join(target, "visage.db")))
        self.assertEqual(run("verify", self.data)[0], 0)

    def test_an_older_database_is_refused_until_it_is_adopted(self):
        self.client.events(self.client.start(spec(max_epochs=1)).name)
        older = self.back_up()["path"]
        self.server.restart()
        self.server.terminate()
        self.server.wait()
        for name in os.listdir(self.data):
            if name.startswith("visage.db"):
                os.remove(os.path.join(self.data, name))
        shutil.copy(os.path.join(older, "visage.db"), self.data)
        with self.assertRaises(AssertionError) as caught:
            self.server.start()
        self.assertIn("it is an older copy", str(caught.exception))
        self.assertIn("visage repair", str(caught.exception))
        self.assertIn("Nothing was changed", run("repair", self.data)[2])
        code, _, stderr = run("repair", self.data, "--adopt")
        self.assertEqual(code, 0, stderr)
        os.replace(self.server.path("log"), self.server.path("earlier"))
        self.server.start()


if __name__ == "__main__":
    unittest.main()
