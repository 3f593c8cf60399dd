"""The Python package is installed by pip, together with packages that restrict the versions of protobuf and grpcio.

Without a package index or pip the tests are skipped.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import server
from api import REPOSITORY

# All of them depend on protobuf. mlflow restricts it through mlflow-skinny, which resolves faster.
NEIGHBOURS = ["tritonclient[grpc,http]", "tensorboard", "mlflow-skinny", "wandb", "onnx"]
# A resolver that finds no solution downloads every old version before it gives up.
RESOLVE_SECONDS = 300
PROGRAM = """
import sys
import tritonclient.grpc
import visage_client
import visage.v1.training_pb2_grpc
address, image = sys.argv[1:]
assert tritonclient.grpc.InferenceServerClient(address).is_model_ready("age")
with visage_client.Client(address) as client:
    print(client.predict(image).age)
"""
directory = wheel = None


def setUpModule():
    global directory, wheel
    if sys.version_info < (3, 10):
        raise unittest.SkipTest("the package needs Python 3.10 or newer")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="visage-install-"))
    unittest.addModuleCleanup(shutil.rmtree, directory)
    probe = pip("install", "--dry-run", "--ignore-installed", "--no-deps", "--retries", "0", "--timeout", "15", "typing-extensions")
    if probe.returncode != 0:
        raise unittest.SkipTest("pip or the package index is not available: " + (probe.stdout.strip().splitlines() or ["no output"])[-1])
    for name in ("deploy/clients/python", "proto"):
        shutil.copytree(os.path.join(REPOSITORY, name), directory / "checkout" / name, ignore=shutil.ignore_patterns("build", "dist", "*.egg-info"))
    # With build isolation, so that pip installs the generator that pyproject.toml names.
    succeeded(pip("wheel", "--no-deps", "--wheel-dir", str(directory), str(directory / "checkout/deploy/clients/python")))
    wheel, = directory.glob("visage_client-*.whl")


def interpreter():
    """The interpreter of this virtual environment's origin: the environment of the tests lacks pip."""
    return os.path.join(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))


def pip(*arguments):
    command = [interpreter(), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          universal_newlines=True, timeout=RESOLVE_SECONDS)


def succeeded(done):
    if done.returncode != 0:
        raise AssertionError("{} ended with {}:\n{}".format(done.args, done.returncode, done.stdout))
    return done.stdout


class InstallTest(unittest.TestCase):
    def test_the_package_resolves_beside_packages_that_restrict_protobuf(self):
        report = succeeded(pip("install", "--dry-run", "--ignore-installed", str(wheel), *NEIGHBOURS))
        for name in ("visage-client", *NEIGHBOURS):
            self.assertRegex(report, r"Would install .*\b{}-\d".format(name.split("[")[0]))

    def test_the_package_works_beside_tritonclient(self):
        site = directory / "site"
        succeeded(pip("install", "--target", str(site), str(wheel), "tritonclient[grpc,http]"))
        running = server.Server("--starter")
        self.addCleanup(running.close)
        faces = server.draw_faces(running.path("faces"), count=1, seed=5)
        image = os.path.join(faces, os.listdir(faces)[0])
        environment = {**os.environ, "PYTHONPATH": str(site)}
        # Warnings are errors: an outdated generator is reported by a warning of protobuf.
        done = subprocess.run([interpreter(), "-W", "error::UserWarning:google.protobuf", "-c", PROGRAM, running.grpc_address, image], env=environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=RESOLVE_SECONDS)
        self.assertTrue(0 < float(succeeded(done)) < 120, done.stdout)


if __name__ == "__main__":
    unittest.main()
