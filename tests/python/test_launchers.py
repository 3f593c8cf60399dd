"""Trainings whose processes a launcher starts: the result is that of one process.

A launcher that is not installed is skipped with a sentence.
"""

import importlib.util
import os
import shutil
import sys
import unittest

import server
import slurm
from api import training

FACES = 96
TORCHRUN = "{} -m torch.distributed.run --standalone --no-python --nproc-per-node 2 --max-restarts 0".format(sys.executable)


def figures(epoch):
    return (epoch.epoch, epoch.train_loss, epoch.train_mae, epoch.train_objective, epoch.val_loss, epoch.val_mae, epoch.train_images, epoch.val_images)


def processes_of(directory):
    """Ids of the worker processes of the server in this directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/{}/cmdline".format(pid), "rb") as file:
                arguments = file.read().split(b"\0")
            working_directory = os.readlink("/proc/{}/cwd".format(pid))
        except OSError:
            continue
        if b"worker" in arguments and working_directory.startswith(directory):
            found.append(int(pid))
    return found


class LauncherTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.expected = cls.train("")

    @classmethod
    def train(cls, launcher, shards=4):
        """Trains under a launcher and returns the metrics and the SHA-256 of the best weights."""
        options = ["--worker-launcher", launcher] if launcher else []
        served = server.Server("--rank-timeout", "30s", *options)
        try:
            faces = server.draw_faces(served.path("faces"), FACES, seed=5, size=64)
            spec = training.TrainingSpec(dataset=training.DatasetSpec(path=faces), init=training.InitSpec(kind=training.INIT_KIND_RANDOM),
                                         batch_size=16, input_size=64, max_epochs=2, precision=training.PRECISION_F32, shards=shards,
                                         promote=training.PROMOTE_NEVER)
            name = served.client.start(spec).name
            served.client.events(name)
            ended = served.client.get(name)
            if ended.state != training.TRAINING_STATE_SUCCEEDED:
                raise AssertionError("{}\n{}".format(ended.failure, served.log()))
            checkpoints = served.client.trainings.ListCheckpoints(training.ListCheckpointsRequest(parent=name)).checkpoints
            weights = {one.epoch: file.sha256 for one in checkpoints for file in one.files if file.name == "model.safetensors"}
            server.wait_for(lambda: not processes_of(served.directory), "no process of the training is left", 25)
            connected = "ranks of the training connected" in served.log()
            return figures(ended.last), figures(ended.best), weights, connected
        finally:
            served.close()

    def assert_launched(self, launcher):
        last, best, weights, connected = self.train(launcher)
        self.assertTrue(connected, "the launched processes did not connect")
        self.assertEqual((last, best, weights), self.expected[:3])

    def test_open_mpi(self):
        if not shutil.which("mpirun.openmpi"):
            self.skipTest("install Open MPI (Debian: openmpi-bin)")
        self.assert_launched("mpirun.openmpi --allow-run-as-root --oversubscribe -np 2")

    def test_mpich(self):
        mpiexec = shutil.which("mpiexec.mpich") or shutil.which("mpiexec.hydra")
        if not mpiexec:
            self.skipTest("install MPICH (Debian: mpich)")
        self.assert_launched(mpiexec + " -n 2")

    def test_torchrun(self):
        if not importlib.util.find_spec("torch"):
            self.skipTest("install tests/python/requirements-torch.txt")
        self.assert_launched(TORCHRUN)

    def test_slurm(self):
        missing = slurm.missing()
        if missing:
            self.skipTest(missing)
        cluster = slurm.Cluster()
        self.addCleanup(cluster.close)
        self.assert_launched("srun -n 4 --input=0 -K1")

    def test_a_launcher_of_one_process_uses_one(self):
        if not shutil.which("taskset"):
            self.skipTest("install taskset (Debian: util-linux)")
        # Variables of a job in which the server itself runs name no process of the training.
        job = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "RANK": "1", "WORLD_SIZE": "2"}
        os.environ.update(job)
        self.addCleanup(lambda: [os.environ.pop(name) for name in job])
        last, best, weights, connected = self.train("taskset -c 0")
        self.assertFalse(connected)
        self.assertEqual((last, best, weights), self.expected[:3])

    def test_processes_that_cannot_divide_the_shards_leave(self):
        if not shutil.which("mpirun.openmpi"):
            self.skipTest("install Open MPI (Debian: openmpi-bin)")
        _, _, _, connected = self.train("mpirun.openmpi --allow-run-as-root --oversubscribe -np 2", shards=1)
        self.assertFalse(connected)


if __name__ == "__main__":
    unittest.main()
