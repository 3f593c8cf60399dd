#!/usr/bin/env python3
"""Installs libtorch, the only dependency that cargo cannot fetch, to `.libtorch`.

`make setup` runs this before a build. It checks the tools that a build needs, and then lets pip install the wheels of
PyTorch with the versions and hashes in `deploy/tools/libtorch`. It needs Python 3.8 with pip.

* A complete installation is recognised in a fraction of a second; a damaged one is replaced.
* The work happens in `.libtorch/.partial-PID`. The stamp file is removed before the first directory is renamed into place
  and written last, so an interrupted installation is never considered complete. The next run removes leftovers.
* An exported LIBTORCH is checked and used instead.

`site` keeps the layout of the wheels, because the libraries find each other by it (RPATH). `nvidia` resolves that RPATH
from `sdk/lib`. LIBTORCH is `sdk`, which contains no CUDA library even if they are installed, so that the program links
only the CPU part and loads the CUDA part if it finds one.
"""

import argparse
import contextlib
import ctypes
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None

VERSION = "2.11.0"
WHEEL_PYTHON = "3.11"  # The libraries and headers are the same for all versions of Python.
NEEDED_BYTES = {"cpu": 1.9e9, "gpu": 7.5e9}  # During the installation on x86-64: measured for CPU, estimated for GPU.
STAMP_FORMAT = 1
REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYTHON_LIBRARIES = {"libtorch.so", "libtorch_python.so", "libtorch_global_deps.so", "libshm.so"}
CUDA_LIBRARIES = {"libtorch_cuda.so", "libc10_cuda.so", "libtorch_cuda_linalg.so", "libcaffe2_nvrtc.so", "libtorch_nvshmem.so"}
CPU_NEEDS = {"libcudart.so.13", "libcupti.so.13"}
LINKS = [["nvidia", "site/nvidia"], ["sdk/include", "../site/torch/include"],
         ["sdk/lib/libtorch_cpu.so", "../../site/torch/lib/libtorch_cpu.so"], ["sdk/lib/libc10.so", "../../site/torch/lib/libc10.so"]]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG
OWN_LIBTORCH = "download libtorch {} yourself and export LIBTORCH with its directory".format(VERSION)


class SetupError(Exception):
    """An error with a message of one sentence for the user."""


def main():
    parser = argparse.ArgumentParser(description="Installs libtorch to .libtorch, or checks the one in LIBTORCH.")
    parser.add_argument("--gpu", action="store_true", help="also install the CUDA libraries (equivalent to GPU=1)")
    parser.add_argument("--libtorch-only", action="store_true", help="skip the check for cargo, a C++ compiler and nasm")
    parser.add_argument("--root", default=os.path.join(REPOSITORY, ".libtorch"), help="installation directory (default: %(default)s)")
    parser.add_argument("--requirements", default=os.path.join(REPOSITORY, "deploy/tools/libtorch"),
                        help="directory of pip's requirements files (default: %(default)s)")
    arguments = parser.parse_args()
    if not arguments.libtorch_only:
        check_tools()
    flavour = "gpu" if arguments.gpu or os.environ.get("GPU", "").lower() in ("1", "yes", "true") else "cpu"
    root = os.path.abspath(arguments.root)
    given = os.environ.get("LIBTORCH")
    if given is not None and os.path.realpath(given) != os.path.realpath(os.path.join(root, "sdk")):
        check_given(given, flavour)
        return
    if damage(root, flavour) is not None:
        check_platform()
        pip = find_pip()
        with locked(root):
            problem = damage(root, flavour)  # Another process may have finished the installation.
            if problem is not None:
                if problem:
                    print("{}: {}; installing libtorch again".format(root, problem), flush=True)
                install(root, flavour, pip, os.path.join(arguments.requirements, flavour + ".txt"))
                print("libtorch {} ({}) is ready in {}".format(VERSION, flavour.upper(), root))
                if root != os.path.join(REPOSITORY, ".libtorch"):
                    print("to build with it: export LIBTORCH={}".format(os.path.join(root, "sdk")))
                return
    print("libtorch {} ({}) is complete in {}".format(VERSION, flavour.upper(), root))


def check_tools():
    """Raises a single error for all missing build tools."""
    missing = []
    compiler = (os.environ.get("CXX", "").split() or ["c++"])[0]
    if not shutil.which(compiler):
        other = next((name for name in ("g++", "clang++") if shutil.which(name)), None)
        missing.append("the C++ compiler `{}` is missing, but {} is installed: run `export CXX={}`".format(compiler, other, other) if other
                       else "a C++ compiler is missing: " + package_hint("g++", "gcc-c++"))
    # The SIMD code of the JPEG decoder for x86-64 is written for nasm.
    if machine_name() == "x86_64" and not shutil.which("nasm"):
        missing.append("nasm is missing: " + package_hint("nasm", "nasm"))
    missing += cargo_problem()
    if missing:
        raise SetupError("\nsetup: ".join(missing))


def cargo_problem():
    """Returns a list with the error about cargo, or an empty list."""
    if not shutil.which("cargo"):
        if os.path.exists(os.path.expanduser("~/.cargo/bin/cargo")):
            return ["cargo is in ~/.cargo/bin, which is not in PATH: run `. ~/.cargo/env`"]
        return ["cargo is missing: install Rust from https://rustup.rs"]
    run = subprocess.run(["cargo", "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         universal_newlines=True, cwd=REPOSITORY)
    found = re.match(r"cargo (\d+)\.(\d+)", run.stdout)
    if run.returncode != 0 or not found:
        return ["failed to run cargo ({}): run `rustup default stable`".format((run.stderr.strip().splitlines() or ["no version"])[0])]
    needed = re.search(r'^rust-version = "(\d+)\.(\d+)', read_text(os.path.join(REPOSITORY, "Cargo.toml"), default=""), re.M)
    if needed and tuple(map(int, found.groups())) < tuple(map(int, needed.groups())):
        return ["cargo {}.{} is too old, {}.{} is required: run `rustup update stable`, or install Rust from "
                "https://rustup.rs".format(*(found.groups() + needed.groups()))]
    return []


def check_given(path, flavour):
    """Checks the libtorch that LIBTORCH names."""
    if not os.path.isabs(path):
        raise SetupError("LIBTORCH must be an absolute path, got `{}`: unset it, or export LIBTORCH={}".format(
            path, os.path.abspath(path or "libtorch")))
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    for name in ["include/torch"] + ["lib/lib" + name + suffix for name in ("torch", "torch_cpu", "c10")]:
        if not os.path.exists(os.path.join(path, name)):
            raise SetupError("LIBTORCH={} has no {}: unset LIBTORCH to install libtorch {}, or export the directory of a complete "
                             "one".format(path, name, VERSION))
    # Beside the real file, because `sdk/lib` contains no CUDA library.
    libraries = os.path.dirname(os.path.realpath(os.path.join(path, "lib/libtorch_cpu" + suffix)))
    if flavour == "gpu" and not os.path.exists(os.path.join(libraries, "libtorch_cuda" + suffix)):
        raise SetupError("LIBTORCH={} is a build for the CPU: unset GPU, or unset LIBTORCH to install the CUDA build".format(path))
    header = read_text(os.path.join(path, "include/torch/headeronly/version.h"), default="")
    macros = [re.search(r"#define TORCH_VERSION_{} (\d+)".format(part), header) for part in ("MAJOR", "MINOR", "PATCH")]
    build_version = read_text(os.path.join(path, "build-version"), default="").strip()
    version = build_version or (".".join(macro.group(1) for macro in macros) if all(macros) else "of an unknown version")
    minor = VERSION.rsplit(".", 1)[0]
    if not version.startswith(minor + "."):
        raise SetupError("LIBTORCH={} is libtorch {}, but {}.x is required: unset LIBTORCH to install it, or export another "
                         "directory".format(path, version, minor))
    # The build script of torch-sys compares the patch level of build-version.
    if build_version and version.split("+")[0] != VERSION and "LIBTORCH_BYPASS_VERSION_CHECK" not in os.environ:
        raise SetupError("LIBTORCH={} is libtorch {}, not {}: to use it nevertheless, run "
                         "`export LIBTORCH_BYPASS_VERSION_CHECK=1`".format(path, version, VERSION))
    print("using libtorch {} from LIBTORCH={}".format(version, path))


def check_platform():
    """Raises an error if PyPI has no wheel for this system."""
    library, version = platform.libc_ver()
    glibc = tuple(int(part) for part in re.findall(r"\d+", version)[:2]) if library == "glibc" else (0,)
    if sys.platform != "linux" or fcntl is None or machine_name() not in ("x86_64", "aarch64") or glibc < (2, 28):
        raise SetupError("there is no libtorch {} for {} on {} with {} {} on PyPI (Linux with glibc 2.28 or newer is required): {}".format(
            VERSION, sys.platform, machine_name(), library or "an unknown C library", version, OWN_LIBTORCH))


def find_pip():
    for command in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        try:
            run = subprocess.run(command + ["--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                 universal_newlines=True)
        except OSError:
            continue
        found = re.match(r"pip (\d+)\.(\d+)", run.stdout)
        if run.returncode != 0 or not found:
            continue
        # Older versions do not support the tag manylinux_2_28 of the wheels.
        if tuple(map(int, found.groups())) < (20, 3):
            raise SetupError("pip {}.{} is too old: run `{} install --user --upgrade pip`".format(*found.groups(), " ".join(command)))
        return command
    raise SetupError("pip is missing: " + package_hint("python3-pip", "python3-pip"))


def damage(root, flavour):
    """Returns None for a complete installation, "" for none, and otherwise the first problem found."""
    try:
        stamp = json.loads(read_text(os.path.join(root, "stamp.json")))
        if stamp["format"] != STAMP_FORMAT:
            return "it was installed by another version of this program"
        if (stamp["libtorch"], stamp["machine"]) != (VERSION, machine_name()):
            return "it contains libtorch {} for {}".format(stamp["libtorch"], stamp["machine"])
        if flavour == "gpu" and stamp["flavour"] != "gpu":
            return "it has no CUDA libraries yet"
        links, files = stamp["links"], stamp["files"]
    except FileNotFoundError:
        return "the last installation did not finish" if os.path.exists(os.path.join(root, "site")) else ""
    except (KeyError, TypeError, ValueError):
        return "stamp.json is damaged"
    for name, target in links:
        path = os.path.join(root, name)
        if not os.path.islink(path) or os.readlink(path) != target:
            return "{} is not a link to {}".format(name, target)
    for name, size, modified, checksum in files:
        path = os.path.join(root, name)
        try:
            status = os.lstat(path)
        except OSError:
            return "{} is missing".format(name)
        # Only files with another time, such as those of a copy, are hashed.
        if status.st_size != size or (status.st_mtime_ns != modified and sha256_of(path) != checksum):
            return "{} was changed".format(name)
    return None


@contextlib.contextmanager
def locked(root):
    """Locks the installation directory."""
    os.makedirs(root, exist_ok=True)
    directory = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for another set-up of {}".format(root), flush=True)
        fcntl.flock(directory, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # File systems without locks.
            raise
    try:
        yield
    finally:
        os.close(directory)


def install(root, flavour, pip, requirements):
    free = shutil.disk_usage(root).free
    if free < NEEDED_BYTES[flavour]:
        raise SetupError("not enough disk space in {}: the installation needs {:.1f} GB, but {:.1f} GB are free".format(
            root, NEEDED_BYTES[flavour] / 1e9, free / 1e9))
    for name in os.listdir(root):
        if name.startswith(".partial-"):
            shutil.rmtree(os.path.join(root, name))
    partial = os.path.join(root, ".partial-{}".format(os.getpid()))
    site, scratch = os.path.join(partial, "site"), os.path.join(partial, "tmp")
    try:
        os.makedirs(scratch)
        os.makedirs(os.path.join(partial, "sdk/lib"))
        run_pip(pip, requirements, site, scratch)
        for name, target in LINKS:
            os.symlink(target, os.path.join(partial, name))
        with open(os.path.join(partial, "sdk/lib/libtorch.so"), "w", encoding="ascii") as file:
            file.write("INPUT ( -ltorch_cpu )\n")
        files = [stamp_entry(partial, "sdk/lib/libtorch.so")]
        for parent, _, names in os.walk(site):
            for path in (os.path.join(parent, name) for name in names):
                if is_needed(os.path.relpath(path, site), flavour):
                    files.append(stamp_entry(partial, os.path.relpath(path, partial)))
                else:
                    os.unlink(path)
        if not os.path.exists(os.path.join(site, "torch/lib/libtorch_cpu.so")):
            raise SetupError("the torch wheel has no torch/lib/libtorch_cpu.so: " + OWN_LIBTORCH)
        with open(os.path.join(partial, "stamp.json"), "w", encoding="utf-8") as file:
            json.dump({"format": STAMP_FORMAT, "libtorch": VERSION, "flavour": flavour, "machine": machine_name(), "links": LINKS,
                       "files": files}, file)
        put_in_place(root, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def run_pip(pip, requirements, target, scratch):
    command = pip + ["install", "--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version", WHEEL_PYTHON, "--no-compile",
                     "--no-cache-dir", "--disable-pip-version-check", "--target", target, "-r", requirements]
    # pip is killed with this process, so that no later run deletes its files while it writes them.
    child = subprocess.run(command, stdin=subprocess.DEVNULL, preexec_fn=lambda: ctypes.CDLL(None).prctl(KILL_WITH_PARENT, signal.SIGKILL),
                           env=dict(os.environ, TMPDIR=scratch, PIP_REQUIRE_VIRTUALENV="0", PIP_USER="0", PIP_ROOT_USER_ACTION="ignore"))
    if child.returncode != 0:
        raise SetupError("pip failed to install libtorch (see its output above): check the network, set HTTPS_PROXY or PIP_INDEX_URL if "
                         "you need them, or {}".format(OWN_LIBTORCH))


def is_needed(name, flavour):
    library = os.path.basename(name)
    if name.startswith("torch/include/"):
        return True
    if re.match(r"[^/]+\.dist-info/", name):
        return re.search(r"licen[cs]e|notice|copying|eula", name, re.I) is not None
    if not re.search(r"\.so[.\d]*$", library):
        return False
    if re.match(r"torch/lib/[^/]+$", name):
        return library not in PYTHON_LIBRARIES and (flavour == "gpu" or library not in CUDA_LIBRARIES)
    return re.match(r"nvidia/.*lib/[^/]+$", name) is not None and (flavour == "gpu" or library in CPU_NEEDS)


def put_in_place(root, partial):
    """Replaces the installation, which is incomplete while its stamp is missing."""
    os.sync()  # Faster than syncing ten thousand headers one by one.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for name in ("stamp.json", "site", "nvidia", "sdk"):
        if os.path.lexists(os.path.join(root, name)):
            os.rename(os.path.join(root, name), os.path.join(partial, "old-" + name))
    for name in ("site", "nvidia", "sdk", "stamp.json"):
        os.rename(os.path.join(partial, name), os.path.join(root, name))
    os.sync()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def stamp_entry(partial, name):
    path = os.path.join(partial, name)
    status = os.lstat(path)
    return [name, status.st_size, status.st_mtime_ns, sha256_of(path)]


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_text(path, default=None):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        if default is None:
            raise
        return default


def machine_name():
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())


def package_hint(apt, dnf):
    return "install it with `sudo apt install {}` (Debian, Ubuntu) or `sudo dnf install {}` (Fedora, RHEL)".format(apt, dnf)


def exit_on_signal(number, _frame):
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    print("\nsetup: interrupted, nothing was installed", file=sys.stderr)
    sys.exit(128 + number)


if __name__ == "__main__":
    for number in SIGNALS:
        signal.signal(number, exit_on_signal)
    try:
        main()
    except SetupError as error:
        sys.exit("setup: {}".format(error))
    except OSError as error:
        sys.exit("setup: failed to use {}: {}".format(error.filename or "a file", error.strerror or error))
