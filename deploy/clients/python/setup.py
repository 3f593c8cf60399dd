"""Generates the modules of Visage's protos when the package is built.

They become the package `visage.v1` beside `visage_client`, importable like stubs that were made by hand.
"""

import importlib.resources
import pathlib
import shutil

from grpc_tools import protoc
from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
NAMES = ("dataset", "model", "prediction", "system", "training")
# The protos are beside this file in a source distribution, and at the top of a checkout.
PROTOS = next((directory for directory in (HERE / "proto", HERE.parents[2] / "proto") if directory.is_dir()), None)


class BuildWithStubs(build_py):
    """Copies the package, then adds the generated modules, with types for editors and mypy."""

    def run(self):
        super().run()
        if PROTOS is None:
            raise FileNotFoundError(f"no directory proto beside {HERE} or three directories above: build from a checkout of the repository or from a source distribution")
        if self.editable_mode:
            raise RuntimeError("an editable install would lack the generated modules: install with `pip install`, without -e")
        arguments = ["protoc", f"-I{PROTOS}", f"-I{importlib.resources.files('grpc_tools') / '_proto'}",
                     *(f"--{kind}_out={self.build_lib}" for kind in ("python", "pyi", "grpc_python")),
                     *(f"visage/v1/{name}.proto" for name in NAMES)]
        if protoc.main(arguments) != 0:
            raise RuntimeError("protoc refused the protos; its reason is above")


class SourceWithProtos(sdist):
    """A source distribution that can be built without the rest of the repository."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        for name in NAMES:
            target = pathlib.Path(base_dir, "proto", "visage", "v1", f"{name}.proto")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROTOS / "visage" / "v1" / target.name, target)


setup(cmdclass={"build_py": BuildWithStubs, "sdist": SourceWithProtos})
