"""Installs Triton's unmodified perf_analyzer into a directory: `setup_perf_analyzer.py DIRECTORY`.

NVIDIA publishes the program in the tritonclient wheels up to 2.50 for Linux on x86-64. It requires libb64, a package of Debian and Ubuntu that
is unpacked here without root, and CUDA's run-time library, a wheel; no GPU is used. Libraries of the system take precedence.
"""

import ctypes
import glob
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile

WHEELS = [("tritonclient==2.50.0", "manylinux1_x86_64", "*/bin/perf_analyzer"),
          ("nvidia-cuda-runtime-cu12==12.9.79", "manylinux2014_x86_64", "*/lib/libcudart.so.12")]
LIBB64 = "libb64.so.0d"


def main(directory):
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SystemExit("perf_analyzer exists for Linux on x86-64 only")
    shutil.rmtree(directory, ignore_errors=True)
    with tempfile.TemporaryDirectory() as work:
        for requirement, tag, wanted in WHEELS:
            run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
                 "--python-version", "3.11", "--platform", tag, "--dest", work, requirement], work)
            extract(glob.glob(os.path.join(work, requirement.split("==")[0].replace("-", "_") + "-*.whl"))[0], wanted, directory)
        if not is_installed(LIBB64):
            run(["apt-get", "download", "libb64-0d"], work)
            run(["dpkg-deb", "--extract", glob.glob(os.path.join(work, "libb64-0d*.deb"))[0], os.path.join(work, "libb64")], work)
            shutil.copy(glob.glob(os.path.join(work, "libb64", "usr", "lib", "*", LIBB64))[0], directory)
    os.chmod(os.path.join(directory, "perf_analyzer"), 0o755)


def extract(wheel, wanted, directory):
    """Extracts the file of the wheel with this suffix into the directory."""
    os.makedirs(directory, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        name, = [name for name in archive.namelist() if name.endswith(wanted.lstrip("*"))]
        with archive.open(name) as source, open(os.path.join(directory, os.path.basename(name)), "wb") as target:
            shutil.copyfileobj(source, target)


def is_installed(library):
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def run(command, directory):
    try:
        subprocess.run(command, cwd=directory, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit("cannot bring perf_analyzer: {} (install libb64-0d with `sudo apt install libb64-0d`, or check the network)".format(error))


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]))
