#!/usr/bin/env python3
"""Brings libtorch, the one thing that cargo cannot fetch, to `.libtorch`.

`make setup` runs this before anything is built. It first looks for what a build needs (cargo, a C++ compiler, nasm) and then takes
libtorch out of the wheels that PyPI has of PyTorch, because pip is on more machines than any other way to get it. It needs
Python 3.8 and nothing but its standard library. What it promises:

* A complete installation is recognised in a fraction of a second and left alone; a damaged one is replaced as a whole.
* What was downloaded has the SHA-256 written below, and what was unpacked has the one in the wheel's RECORD.
* All work happens in `.libtorch/.partial-PID`. The stamp file goes away before the first directory is renamed into place and comes
  back last, so an interrupted set-up never looks complete. The next run removes what a killed one left.
* An exported LIBTORCH is checked and used; then nothing is downloaded.

The result: `.libtorch/site` keeps the directories of the wheels, because the libraries find each other by them (their RPATH).
`.libtorch/nvidia` is a part of it once more, for a linker that follows that RPATH from `.libtorch/sdk/lib`, where it found a link.
`.libtorch/sdk` is what LIBTORCH points to. It names no CUDA library even when they are installed, so that the program is linked
to the CPU part only and loads the CUDA part when it finds one.
"""

import argparse
import base64
import csv
import errno
import hashlib
import io
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
import zlib

try:
    import ctypes
    import fcntl
except ImportError:  # Windows has no fcntl, some small Pythons no ctypes; both are used where they exist.
    ctypes = fcntl = None

# The wheels are for Python 3.11, whichever Python runs this: the libraries and headers in them are the same for all.
WHEEL_PYTHON = "3.11"
LIBTORCH_VERSION = "2.11.0"
# The CUDA packages are those that the METADATA of the torch wheel (through cuda-toolkit 13.0.2) asks for, without the compilers
# that only Python code uses. Even the CPU library is linked against the two that are marked "cpu".
PACKAGES = """
torch                  2.11.0    cpu x86_64=7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a aarch64=d91aac77f24082809d2c5a93f52a5f085032740a1ebc9252a7b052ef5a4fddc6
nvidia-cuda-runtime    13.0.96   cpu x86_64=7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548 aarch64=ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55
nvidia-cuda-cupti      13.0.85   cpu x86_64=4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8 aarch64=796bd679890ee55fb14a94629b698b6db54bcfd833d391d5e94017dd9d7d3151
nvidia-cublas          13.1.0.3  gpu x86_64=ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171 aarch64=c86fc7f7ae36d7528288c5d88098edcb7b02c633d262e7ddbb86b0ad91be5df2
nvidia-cuda-nvrtc      13.0.88   gpu x86_64=ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575 aarch64=d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b
nvidia-cudnn-cu13      9.19.0.56 gpu x86_64=d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf aarch64=6ed29ffaee1176c612daf442e4dd6cfeb6a0caa43ddcbeb59da94953030b1be4
nvidia-cufft           12.0.0.61 gpu x86_64=6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3 aarch64=2708c852ef8cd89d1d2068bdbece0aa188813a0c934db3779b9b1faa8442e5f5
nvidia-cufile          1.15.1.6  gpu x86_64=08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44 aarch64=bdc0deedc61f548bddf7733bdc216456c2fdb101d020e1ab4b88d232d5e2f6d1
nvidia-curand          10.4.0.35 gpu x86_64=1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc aarch64=133df5a7509c3e292aaa2b477afd0194f06ce4ea24d714d616ff36439cee349a
nvidia-cusolver        12.0.4.66 gpu x86_64=0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112 aarch64=02c2457eaa9e39de20f880f4bd8820e6a1cfb9f9a34f820eb12a155aa5bc92d2
nvidia-cusparse        12.6.3.3  gpu x86_64=2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b aarch64=80bcc4662f23f1054ee334a15c72b8940402975e0eab63178fc7e670aa59472c
nvidia-cusparselt-cu13 0.8.0     gpu x86_64=25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd aarch64=400c6ed1cf6780fc6efedd64ec9f1345871767e6a1a0a552a1ea0578117ea77c
nvidia-nccl-cu13       2.28.9    gpu x86_64=e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42 aarch64=01c873ba1626b54caa12272ed228dc5b2781545e0ae8ba3f432a8ef1c6d78643
nvidia-nvjitlink       13.0.88   gpu x86_64=13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b aarch64=e931536ccc7d467a98ba1d8b89ff7fa7f1fa3b13f2b0069118cd7f47bff07d0c
nvidia-nvshmem-cu13    3.4.5     gpu x86_64=290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80 aarch64=6dc2a197f38e5d0376ad52cd1a2a3617d3cdc150fd5966f4aee9bcebb1d68fe9
nvidia-nvtx            13.0.85   gpu x86_64=4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4 aarch64=cb7780edb6b14107373c835bf8b72e7a178bac7367e23da7acb108f973f157a6
"""
# Bytes: to download, at most needed while installing (pip keeps a wheel twice for a moment), and kept. Measured on x86_64.
SIZES = {"cpu": (545e6, 1.3e9, 0.55e9), "gpu": (2.5e9, 4.6e9, 3.8e9)}

PYTHON_LIBRARIES = {"libtorch.so", "libtorch_python.so", "libtorch_global_deps.so", "libshm.so"}
CUDA_LIBRARIES = {"libtorch_cuda.so", "libc10_cuda.so", "libtorch_cuda_linalg.so", "libcaffe2_nvrtc.so", "libtorch_nvshmem.so"}
CPU_NEEDS = {"libcudart.so.13", "libcupti.so.13"}
LINKER_SCRIPT = "INPUT ( -ltorch_cpu )\n"
STAMP_FORMAT = 1
REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SIGNALS = (signal.SIGINT, signal.SIGTERM) + ((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ())
OWN_LIBTORCH = "download libtorch {} yourself and export LIBTORCH with its directory".format(LIBTORCH_VERSION)


class SetupError(Exception):
    """A problem whose text is one sentence for the person at the keyboard."""


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP came; the argument is its number."""


class Plan:
    """What to install: the packages of one flavour with their checksums for this machine, and the disk space that takes."""

    def __init__(self, flavour, machine, pins_file=None):
        table, sizes = PACKAGES, SIZES
        self.version, self.flavour, self.machine = LIBTORCH_VERSION, flavour, machine
        if pins_file:
            with open(pins_file, encoding="utf-8") as file:
                pins = json.load(file)
            table, sizes, self.version = pins["packages"], pins["sizes"], pins["version"]
        self.download, self.needed, self.kept = sizes[flavour]
        self.packages = []  # (name, version, SHA-256 or None where no checksum is known for this machine)
        for name, version, least, *pinned in (line.split() for line in table.split("\n") if line):
            if least in ("cpu", flavour):
                checksums = dict(item.split("=") for item in pinned)
                self.packages.append((name, version, checksums.get(machine)))

    @property
    def title(self):
        return "libtorch {} ({})".format(self.version, self.flavour.upper())


class Progress:
    """A live line on a terminal, a line every few seconds elsewhere."""

    def __init__(self):
        self.live = sys.stdout.isatty()
        self.last = time.monotonic()

    def show(self, text):
        if time.monotonic() - self.last < (0.2 if self.live else 5.0):
            return
        self.last = time.monotonic()
        say("\r\033[K" + text if self.live else text, end="" if self.live else "\n")

    def clear(self):
        if self.live:
            say("\r\033[K", end="")


class Workplace:
    """The lock on the installation directory and the temporary directory in it; both are gone at the end, whatever happened."""

    def __init__(self, root):
        self.root = root
        self.lock_path = os.path.join(root, ".lock")
        self.partial = os.path.join(root, ".partial-{}".format(os.getpid()))
        self.lock = None

    def __enter__(self):
        self._acquire()
        try:
            # Whoever holds the lock is the only set-up that runs, so every other temporary directory belongs to a killed one.
            for name in os.listdir(self.root):
                if name.startswith(".partial-"):
                    shutil.rmtree(os.path.join(self.root, name))
            os.mkdir(self.partial)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        shutil.rmtree(self.partial, ignore_errors=True)
        try:
            os.unlink(self.lock_path)
            os.rmdir(self.root)  # Succeeds only when nothing was installed, neither now nor before.
        except OSError:
            pass
        os.close(self.lock)

    def _acquire(self):
        told = False
        while True:
            os.makedirs(self.root, exist_ok=True)
            try:
                self.lock = os.open(self.lock_path, os.O_RDWR | os.O_CREAT, 0o644)
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder before us deletes the file; a lock on a deleted file protects nothing.
                if os.path.samestat(os.fstat(self.lock), os.stat(self.lock_path)):
                    return
            except FileNotFoundError:
                pass  # The holder before us failed and took its empty directory away.
            except BlockingIOError:
                if not told:
                    say("waiting for another set-up of {} to finish".format(shown(self.root)))
                    told = True
            except OSError as error:
                if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
                    return  # A file system without locks: go on without one.
                raise
            if self.lock is not None:
                os.close(self.lock)
                self.lock = None
            time.sleep(0.1)


def main():
    if sys.version_info < (3, 8):
        raise SetupError("Python {}.{} is too old: 3.8 or newer is needed; {}".format(
            sys.version_info[0], sys.version_info[1], package_hint("python3", "python3")))
    arguments = parse_arguments()
    if not arguments.libtorch_only:
        check_tools()
    gpu = arguments.gpu or os.environ.get("GPU", "").lower() in ("1", "yes", "true")
    root = os.path.abspath(arguments.root)
    given = os.environ.get("LIBTORCH")
    if given is not None and os.path.realpath(given) != os.path.realpath(os.path.join(root, "sdk")):
        check_given(given, gpu)
        return

    plan = Plan("gpu" if gpu else "cpu", machine_name(), arguments.pins)
    damage = installation_damage(root, plan)
    if damage is not None:
        check_platform()
        pip = find_pip()
        with Workplace(root) as workplace:
            damage = installation_damage(root, plan)  # Another set-up may have finished while this one waited.
            if damage is not None:
                if damage:
                    say("{}: {}; installing libtorch again".format(shown(root), damage))
                install(workplace, plan, pip)
                return
    say("{} is complete in {}".format(plan.title, shown(root)))


def parse_arguments():
    parser = argparse.ArgumentParser(description="Brings libtorch to .libtorch, or checks the one in LIBTORCH.")
    parser.add_argument("--gpu", action="store_true", help="also install the CUDA libraries (the same as GPU=1)")
    parser.add_argument("--libtorch-only", action="store_true", help="do not look for cargo, a C++ compiler and nasm")
    parser.add_argument("--root", default=os.path.join(REPOSITORY, ".libtorch"), help="where to install (default: %(default)s)")
    parser.add_argument("--pins", help="a JSON file with other packages, checksums and sizes than the built-in ones")
    return parser.parse_args()


# What has to be there before.


def check_tools():
    """Raises one error that names everything a build will miss."""
    missing = []
    compiler = (os.environ.get("CXX", "").split() or ["c++"])[0]
    if not shutil.which(compiler):
        other = next((name for name in ("g++", "clang++") if shutil.which(name)), None)
        if other:
            missing.append("the C++ compiler `{}` is missing, but {} is here: run `export CXX={}`".format(compiler, other, other))
        else:
            missing.append("a C++ compiler is missing: " + package_hint("g++", "gcc-c++"))
    # The JPEG decoder's SIMD code for Intel and AMD is written for it; other processors' is for the C compiler.
    if platform.machine().lower() in ("x86_64", "amd64") and not shutil.which("nasm"):
        missing.append("nasm is missing: " + package_hint("nasm", "nasm"))
    missing += cargo_problem()
    if missing:
        raise SetupError("\nsetup: ".join(missing))


def cargo_problem():
    """Returns a list with the one sentence about cargo, or an empty list."""
    if not shutil.which("cargo"):
        if os.path.exists(os.path.expanduser("~/.cargo/bin/cargo")):
            return ["cargo is in ~/.cargo/bin, but that is not on the PATH: run `. ~/.cargo/env`"]
        return ["cargo is missing: install Rust from https://rustup.rs"]
    answer = subprocess.run(["cargo", "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            universal_newlines=True, cwd=REPOSITORY)
    found = re.match(r"cargo (\d+)\.(\d+)", answer.stdout)
    if answer.returncode != 0 or not found:
        lines = answer.stderr.strip().splitlines() or ["no version"]
        return ["cargo does not run (it says: {}): run `rustup default stable`".format(lines[0])]
    try:
        with open(os.path.join(REPOSITORY, "Cargo.toml"), encoding="utf-8") as file:
            needed = re.search(r'^rust-version = "(\d+)\.(\d+)', file.read(), re.M)
    except FileNotFoundError:
        return []
    if needed and tuple(map(int, found.groups())) < tuple(map(int, needed.groups())):
        return ["cargo {}.{} is too old, {}.{} is needed: run `rustup update stable`, or install Rust from "
                "https://rustup.rs".format(*(found.groups() + needed.groups()))]
    return []


def check_given(path, gpu):
    """Checks the libtorch that LIBTORCH names, the way the build will use it."""
    if not os.path.isabs(path):
        raise SetupError("LIBTORCH=`{}` is not an absolute path, which cargo needs: unset it, or export LIBTORCH={}".format(
            path, os.path.abspath(path or "libtorch")))
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    for name in ["include/torch"] + ["lib/lib" + name + suffix for name in ("torch", "torch_cpu", "c10")]:
        if not os.path.exists(os.path.join(path, name)):
            raise SetupError("LIBTORCH={} has no {}: unset LIBTORCH to have libtorch {} downloaded, or export the directory of a "
                             "complete one".format(path, name, LIBTORCH_VERSION))
    # Beside the real file, because a directory made by this program names no CUDA library itself.
    libraries = os.path.dirname(os.path.realpath(os.path.join(path, "lib/libtorch_cpu" + suffix)))
    if gpu and not os.path.exists(os.path.join(libraries, "libtorch_cuda" + suffix)):
        raise SetupError("LIBTORCH={} is a build for the CPU: unset GPU, or unset LIBTORCH to have the CUDA build downloaded".format(path))
    version, build_version = None, os.path.join(path, "build-version")
    if os.path.exists(build_version):
        version = read_text(build_version).strip()
    else:
        for header in ("include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"):
            if os.path.exists(os.path.join(path, header)):
                text = read_text(os.path.join(path, header))
                numbers = [re.search(r"#define TORCH_VERSION_{} (\d+)".format(part), text) for part in ("MAJOR", "MINOR", "PATCH")]
                if all(numbers):
                    version = ".".join(number.group(1) for number in numbers)
                    break
    minor = LIBTORCH_VERSION.rsplit(".", 1)[0]
    if version is None or not re.match(re.escape(minor) + r"\.\d", version):
        raise SetupError("LIBTORCH={} is libtorch {}, but {}.x is needed: unset LIBTORCH to have it downloaded, or export another "
                         "directory".format(path, version or "of an unknown version", minor))
    # The build script of torch-sys compares this file, and only this file, to the patch level.
    exact = version.split("+")[0] == LIBTORCH_VERSION or not os.path.exists(build_version)
    if not exact and "LIBTORCH_BYPASS_VERSION_CHECK" not in os.environ:
        raise SetupError("LIBTORCH={} is libtorch {}, not {}: to build with it all the same, run "
                         "`export LIBTORCH_BYPASS_VERSION_CHECK=1`".format(path, version, LIBTORCH_VERSION))
    say("using libtorch {} from LIBTORCH={}".format(version, path))


def check_platform():
    """Raises where PyPI has no wheel that could be used."""
    if sys.platform != "linux" or fcntl is None:
        system = {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
        raise SetupError("libtorch cannot be downloaded on {}: export LIBTORCH with the directory of the CPU build of libtorch {} "
                         "from https://pytorch.org/get-started/locally".format(system, LIBTORCH_VERSION))
    library, version = platform.libc_ver()
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if library != "glibc" or numbers < (2, 28):
        raise SetupError("the libtorch of PyPI needs glibc 2.28 or newer and this system has {}: use a newer distribution, "
                         "or build libtorch {} yourself and export LIBTORCH with its directory".format(
                             "glibc " + version if library == "glibc" else "another C library", LIBTORCH_VERSION))


def find_pip():
    for command in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        try:
            answer = subprocess.run(command + ["--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL, universal_newlines=True)
        except OSError:
            continue
        found = re.match(r"pip (\d+)\.(\d+)", answer.stdout)
        if answer.returncode != 0 or not found:
            continue
        # Older ones do not know the tag manylinux_2_28 of the wheels.
        if (int(found.group(1)), int(found.group(2))) < (20, 3):
            raise SetupError("pip {}.{} is too old: run `{} install --user --upgrade pip`".format(
                found.group(1), found.group(2), " ".join(command)))
        return command
    raise SetupError("pip is missing: " + package_hint("python3-pip", "python3-pip"))


def check_space(directory, plan):
    free = shutil.disk_usage(directory).free
    if free < plan.needed:
        raise SetupError("not enough disk space in {}: {} needs {} while it is installed ({} afterwards) and {} are free".format(
            shown(directory), plan.title, size(plan.needed), size(plan.kept), size(free)))


# What is there already.


def installation_damage(root, plan):
    """Returns None for a complete installation, "" where there is none, else a few words on what is wrong with it."""
    stamp_path = os.path.join(root, "stamp.json")
    try:
        return difference(root, plan, json.loads(read_text(stamp_path)), stamp_path)
    except FileNotFoundError:
        return "the last set-up did not finish" if os.path.exists(os.path.join(root, "site")) else ""
    except (KeyError, TypeError, ValueError):
        return "stamp.json is damaged"


def difference(root, plan, stamp, stamp_path):
    """Compares the installation to its stamp: links, sizes and times; a file whose time differs (a copied directory) is hashed."""
    if stamp["format"] != STAMP_FORMAT:
        return "stamp.json was written by another version of this program"
    if stamp["libtorch"] != plan.version or stamp["machine"] != plan.machine:
        return "it holds libtorch {} for {}".format(stamp["libtorch"], stamp["machine"])
    if plan.flavour == "gpu" and stamp["flavour"] != "gpu":
        return "it has no CUDA libraries yet"
    for name, target in stamp["links"]:
        path = os.path.join(root, name)
        if not os.path.islink(path) or os.readlink(path) != target:
            return "{} is not a link to {}".format(name, target)
    moved = False
    for entry in stamp["files"]:
        name, length, modified, checksum = entry
        path = os.path.join(root, name)
        try:
            status = os.lstat(path)
        except OSError:
            return "{} is missing".format(name)
        if status.st_size != length:
            return "{} has {} bytes instead of {}".format(name, status.st_size, length)
        if status.st_mtime_ns != modified:
            if sha256_of(path) != checksum:
                return "{} was changed".format(name)
            entry[2], moved = status.st_mtime_ns, True
    if moved:
        try:
            write_stamp(stamp, stamp_path)
        except OSError:
            pass  # A read-only installation stays as it is and is hashed each time.
    return None


# Installing.


def install(workplace, plan, pip):
    """Downloads and unpacks one package after the other, then puts all of it in place."""
    check_space(workplace.root, plan)
    started, progress = time.monotonic(), Progress()
    say("fetching {}: about {} to download".format(plan.title, size(plan.download)))
    files, wheels, done = [], {}, 0
    for name, version, checksum in plan.packages:
        def downloading(count):
            progress.show("downloading {}: {} of about {}".format(name, size(done + count), size(plan.download)))

        wheel = download(workplace, pip, name, version, downloading)
        done += os.path.getsize(wheel)
        actual = sha256_of(wheel)
        if checksum is None:
            progress.clear()
            say("no checksum of {} {} is known for {}: relying on those in the wheel itself".format(name, version, plan.machine))
        elif actual != checksum:
            raise SetupError("{} has the SHA-256 {} and not {}: the download was damaged, or an index in pip's configuration offers "
                             "another file under this name; nothing was installed".format(os.path.basename(wheel), actual, checksum))
        progress.show("unpacking {}".format(name))
        files += unpack(wheel, workplace.partial, plan.flavour)
        wheels[os.path.basename(wheel)] = actual
        os.unlink(wheel)
    if not any(entry[0] == "site/torch/lib/libtorch_cpu.so" for entry in files):
        raise SetupError("the torch wheel has no torch/lib/libtorch_cpu.so: " + OWN_LIBTORCH)
    links = make_sdk(workplace.partial, files)
    write_stamp({"format": STAMP_FORMAT, "libtorch": plan.version, "flavour": plan.flavour, "machine": plan.machine,
                 "wheels": wheels, "links": links, "files": files}, os.path.join(workplace.partial, "stamp.json"))
    put_in_place(workplace)
    progress.clear()
    say("{} is ready in {} ({:.0f} s)".format(plan.title, shown(workplace.root), time.monotonic() - started))
    if workplace.root != os.path.join(REPOSITORY, ".libtorch"):
        say("to build with it: export LIBTORCH={}".format(os.path.join(workplace.root, "sdk")))


def download(workplace, pip, name, version, report):
    """Lets pip fetch one wheel and returns its path; `report` is called with the bytes so far."""
    directory, scratch = os.path.join(workplace.partial, "wheels"), os.path.join(workplace.partial, "tmp")
    log = os.path.join(workplace.partial, "pip.log")
    os.makedirs(directory, exist_ok=True)
    os.makedirs(scratch, exist_ok=True)
    # `===` keeps out 2.11.0+cpu and the like, which an extra index may offer. No cache: it would keep half a gigabyte for nobody.
    command = pip + ["download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar", "off",
                     "--only-binary=:all:", "--python-version", WHEEL_PYTHON, "--dest", directory, "{}==={}".format(name, version)]
    environment = dict(os.environ, TMPDIR=scratch, PIP_REQUIRE_VIRTUALENV="0", PIP_NO_INPUT="1")
    # pip must not outlive us, however we end; and it keeps the lock, so that no one cleans up below its feet.
    libc = ctypes.CDLL(None)
    death_signal_option = 1  # PR_SET_PDEATHSIG
    with open(log, "wb") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
                                 start_new_session=True, pass_fds=(workplace.lock,),
                                 preexec_fn=lambda: libc.prctl(death_signal_option, signal.SIGKILL))
        try:
            while True:
                try:
                    child.wait(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    report(largest_file(scratch, directory))
        finally:
            if child.returncode is None:
                end_group(child)
    if child.returncode != 0:
        raise SetupError(pip_failure("{}=={}".format(name, version), read_text(log)))
    shutil.rmtree(scratch, ignore_errors=True)
    wheels = [entry for entry in os.listdir(directory) if entry.endswith(".whl")]
    if len(wheels) != 1:
        raise SetupError("pip downloaded {} wheels of {} instead of one: {}".format(len(wheels), name, OWN_LIBTORCH))
    return os.path.join(directory, wheels[0])


def end_group(child):
    """Ends pip and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(timeout=3)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def pip_failure(requirement, log):
    """One sentence out of what pip printed."""
    errors = [line for line in log.splitlines() if line.startswith("ERROR")] or log.strip().splitlines()[-1:] or ["nothing"]
    if re.search(r"No space left on device", log):
        return "the disk became full while {} was downloaded".format(requirement)
    # An index that knows no version at all is one that was not reached; pip says why only when it tried more than once.
    network = re.search(r"[^\n]*(\(from versions: none\)|\w+Error\(|timed out|SSLError|ProxyError)[^\n]*", log)
    if network:
        reason = re.search(r"\[Errno[^'\")]*|timed out|SSLError|Tunnel connection failed[^'\")]*|ProxyError", log)
        return ("{} could not be downloaded, the package index was not reached{}: check the network, set HTTPS_PROXY or PIP_INDEX_URL "
                "if you need them, or {}").format(requirement, " ({})".format(reason.group(0).strip()) if reason else "", OWN_LIBTORCH)
    return "pip could not download {} (it says: {}): try again later, or {}".format(
        requirement, re.sub(r"^ERROR: *", "", errors[-1]).strip(), OWN_LIBTORCH)


def unpack(wheel, partial, flavour):
    """Extracts what the build needs to `site`, compares it to the wheel's RECORD, and returns entries for the stamp."""
    entries = []
    try:
        with zipfile.ZipFile(wheel) as archive:
            record = next((name for name in archive.namelist() if re.match(r"[^/]+\.dist-info/RECORD$", name)), None)
            if record is None:
                raise SetupError("{} has no RECORD: nothing was installed".format(os.path.basename(wheel)))
            rows = csv.reader(io.TextIOWrapper(archive.open(record), encoding="utf-8"))
            checksums = {row[0]: row[1] for row in rows if len(row) > 1}
            for name in archive.namelist():
                if is_needed(name, flavour):
                    entries.append(extract(archive, name, checksums.get(name), partial))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SetupError("{} is damaged ({}): run the set-up again".format(os.path.basename(wheel), error))
    return entries


def is_needed(name, flavour):
    if name.endswith("/") or ".." in name.split("/") or name.startswith("/"):
        return False
    if name.startswith("torch/include/"):
        return True
    if re.match(r"[^/]+\.dist-info/", name):
        return re.search(r"licen[cs]e|notice|copying|eula", name, re.I) is not None
    library = os.path.basename(name)
    if not re.search(r"\.so[.\d]*$", library):
        return False
    if re.match(r"torch/lib/[^/]+$", name):
        return library not in PYTHON_LIBRARIES and (flavour == "gpu" or library not in CUDA_LIBRARIES)
    return re.match(r"nvidia/.*lib/[^/]+$", name) is not None and (flavour == "gpu" or library in CPU_NEEDS)


def extract(archive, name, expected, partial):
    path = os.path.join(partial, "site", *name.split("/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    digest = hashlib.sha256()
    with archive.open(name) as source, open(path, "wb") as target:
        for block in iter(lambda: source.read(1 << 20), b""):
            digest.update(block)
            target.write(block)
    found = "sha256=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    if found != expected:
        raise SetupError("{} in {} does not match the wheel's RECORD ({} instead of {}): nothing was installed".format(
            name, os.path.basename(archive.filename), found, expected))
    return stamp_entry(partial, "site/" + name, digest.hexdigest())


def make_sdk(partial, files):
    """Makes the directory that LIBTORCH points to and the links; appends the one file of it to `files` and returns the links."""
    links = [("nvidia", "site/nvidia"), ("sdk/include", "../site/torch/include")]
    links += [("sdk/lib/" + name, "../../site/torch/lib/" + name) for name in ("libtorch_cpu.so", "libc10.so")]
    os.makedirs(os.path.join(partial, "sdk", "lib"))
    for name, target in links:
        os.symlink(target, os.path.join(partial, name))
    with open(os.path.join(partial, "sdk/lib/libtorch.so"), "w", encoding="ascii") as file:
        file.write(LINKER_SCRIPT)
    files.append(stamp_entry(partial, "sdk/lib/libtorch.so", hashlib.sha256(LINKER_SCRIPT.encode()).hexdigest()))
    return links


def put_in_place(workplace):
    """Replaces the installation. Without its stamp it counts as incomplete, so a crash between the renames is harmless."""
    os.sync()  # Ten thousand fsyncs, one for each header, would take minutes on a slow disk.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    stamp = os.path.join(workplace.root, "stamp.json")
    if os.path.exists(stamp):
        os.unlink(stamp)
    for name in ("site", "nvidia", "sdk"):
        target = os.path.join(workplace.root, name)
        if os.path.lexists(target):
            os.rename(target, os.path.join(workplace.partial, "old-" + name))
        os.rename(os.path.join(workplace.partial, name), target)
    os.rename(os.path.join(workplace.partial, "stamp.json"), stamp)
    directory = os.open(workplace.root, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    # The work is done; a signal that waited would only report a failure that did not happen.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


# Small things.


def stamp_entry(partial, name, checksum):
    status = os.lstat(os.path.join(partial, name))
    return [name, status.st_size, status.st_mtime_ns, checksum]


def write_stamp(stamp, path):
    aside = "{}.{}".format(path, os.getpid())
    with open(aside, "w", encoding="utf-8") as file:
        json.dump(stamp, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, path)


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def largest_file(*directories):
    sizes = [0]
    for directory in directories:
        for parent, _, names in os.walk(directory):
            for name in names:
                try:
                    sizes.append(os.lstat(os.path.join(parent, name)).st_size)
                except OSError:
                    continue  # pip has just moved it.
    return max(sizes)


def read_text(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def machine_name():
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())


def package_hint(apt, dnf):
    return "install it with `sudo apt install {}` (Debian, Ubuntu) or `sudo dnf install {}` (Fedora, RHEL)".format(apt, dnf)


def size(count):
    return "{:.1f} GB".format(count / 1e9) if count >= 1e9 else "{:.0f} MB".format(count / 1e6)


def shown(path):
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def say(text, end="\n"):
    print(text, end=end, flush=True)


def on_signal(number, _frame):
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)


def run():
    """Runs `main` and turns whatever happens into one sentence and an exit code."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup and background jobs ignore some on purpose.
            signal.signal(number, on_signal)
    try:
        main()
        return 0
    except SetupError as error:
        problem = str(error)
    except Interrupted as interruption:
        print("\nsetup: interrupted, nothing was left behind", file=sys.stderr)
        return 128 + interruption.args[0]
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = "the disk became full: free some space and run the set-up again"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            problem = "cannot write to {} ({}): make it writable for you".format(error.filename, error.strerror)
        else:
            problem = "cannot use {}: {}".format(error.filename or "a file", error.strerror or error)
    except Exception as error:  # A bug of ours; still no traceback for someone who only wants to build.
        if os.environ.get("VISAGE_SETUP_DEBUG"):
            raise
        problem = "unexpected {}: {} (run again with VISAGE_SETUP_DEBUG=1 for the details)".format(type(error).__name__, error)
    print("setup: " + problem, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(run())
