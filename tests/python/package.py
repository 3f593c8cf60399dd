"""The Python package, built in a copy of `deploy/clients` and `proto` so that the work tree stays clean, and a test case with a server."""

import atexit
import functools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

import server
from api import DEADLINE_SECONDS, REPOSITORY


@functools.lru_cache(maxsize=None)
def directory():
    """A directory that is removed at the end of the process."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="visage-clients-"))
    atexit.register(shutil.rmtree, path)
    return path


@functools.lru_cache(maxsize=None)
def checkout():
    """The copy of the clients."""
    for name in ("deploy/clients", "proto"):
        shutil.copytree(os.path.join(REPOSITORY, name), directory() / "checkout" / name,
                        ignore=shutil.ignore_patterns("node_modules", "build", "dist", "*.egg-info", "__pycache__"))
    return directory() / "checkout"


@functools.lru_cache(maxsize=None)
def site():
    """The installed package, which is importable afterwards; an empty directory before Python 3.10."""
    path = directory() / "site"
    if sys.version_info >= (3, 10):
        # pip's build hook, without its download of the generator.
        code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
        finished([sys.executable, "-c", code, str(directory() / "wheel")], cwd=checkout() / "deploy" / "clients" / "python")
        wheel, = (directory() / "wheel").glob("visage_client-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(path)
        sys.path.append(str(path))
    return path


@functools.lru_cache(maxsize=None)
def faces():
    """Forty drawn faces of 64x64 pixels."""
    return server.draw_faces(str(directory() / "faces"), count=40, seed=5, size=64)


def finished(command, **options):
    """Runs a program, which must succeed, and returns its output."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
                          timeout=5 * DEADLINE_SECONDS, **options)
    if done.returncode != 0:
        raise AssertionError("{} ended with {}: {}".format(command, done.returncode, done.stdout))
    return done.stdout


class ServerTest(unittest.TestCase):
    """Tests with one server that has a live version."""

    OPTIONS = ()
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.server = server.Server("--starter", *cls.OPTIONS)
        cls.addClassCleanup(cls.server.close)
