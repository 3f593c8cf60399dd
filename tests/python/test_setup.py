"""Tests of deploy/tools/setup-libtorch.py in a temporary directory and without network.

A stand-in for pip unpacks small wheels that the test creates; one test uses the real pip. Only the standard library is used.
"""

import base64
import hashlib
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile

SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "deploy", "tools", "setup-libtorch.py")
DEADLINE_SECONDS = 20

# Supports `--version` and `install`, logs each wheel, and waits for the file GATE if there is one.
# FAIL is an error message instead of an installation.
STAND_IN_PIP = """
import os, sys, time, zipfile
if "--version" in sys.argv:
    print("pip " + os.environ.get("PIP_VERSION_SHOWN", "24.0") + " from nowhere")
    sys.exit(0)
if "FAIL" in os.environ:
    sys.exit(os.environ["FAIL"])
def lines(path):
    for line in open(path):
        if line.startswith("-r "):
            yield from lines(os.path.join(os.path.dirname(path), line[3:].strip()))
        elif "===" in line:
            yield line
target = sys.argv[sys.argv.index("--target") + 1]
for line in lines(sys.argv[sys.argv.index("-r") + 1]):
    name, version = line.split()[0].split("===")
    with open(os.environ["PIP_LOG"], "a") as log:
        log.write("%s %d\\n" % (name, os.getpid()))
    with open(os.path.join(os.environ["TMPDIR"], "half.whl"), "w") as half:
        half.write("half")
    while "GATE" in os.environ and not os.path.exists(os.environ["GATE"]):
        time.sleep(0.02)
    with zipfile.ZipFile(os.path.join(os.environ["WHEELS"], "%s-%s-py3-none-any.whl" % (name.replace("-", "_"), version))) as wheel:
        wheel.extractall(target)
"""

WHEELS = {
    ("torch", "2.11.0", "cpu"): [
        "torch/include/torch/headeronly/version.h", "torch/include/ATen/ATen.h", "torch/__init__.py", "torch/lib/libtorch.so",
        "torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1", "torch/lib/libtorch_python.so",
        "torch/lib/libtorch_cuda.so", "torch/lib/libc10_cuda.so", "torch-2.11.0.dist-info/licenses/LICENSE"],
    ("nvidia-cuda-runtime", "13.0.96", "cpu"): [
        "nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/lib/libcudart_static.a", "nvidia/cu13/include/cuda.h",
        "nvidia_cuda_runtime-13.0.96.dist-info/licenses/License.txt"],
    ("nvidia-cublas", "13.1.0.3", "gpu"): ["nvidia/cu13/lib/libcublas.so.13", "nvidia/cu13/include/cublas.h"],
}
CPU_FILES = {
    "site/torch/include/torch/headeronly/version.h", "site/torch/include/ATen/ATen.h", "site/torch/lib/libtorch_cpu.so",
    "site/torch/lib/libc10.so", "site/torch/lib/libgomp.so.1", "site/torch-2.11.0.dist-info/licenses/LICENSE",
    "site/nvidia/cu13/lib/libcudart.so.13", "site/nvidia_cuda_runtime-13.0.96.dist-info/licenses/License.txt",
    "nvidia", "sdk/include", "sdk/lib/libtorch.so", "sdk/lib/libtorch_cpu.so", "sdk/lib/libc10.so", "stamp.json"}
GPU_FILES = CPU_FILES | {
    "site/torch/lib/libtorch_cuda.so", "site/torch/lib/libc10_cuda.so", "site/nvidia/cu13/lib/libcublas.so.13"}


def content_of(name):
    return ("content of " + name + "\n").encode() * 50


def make_wheel(path, name, version, names):
    """Writes a wheel that the real pip accepts."""
    info = "{}-{}.dist-info/".format(name.replace("-", "_"), version)
    files = {file: content_of(file) for file in names}
    files[info + "METADATA"] = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n".format(name, version).encode()
    files[info + "WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-any\n"
    record = ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += "{},sha256={},{}\n".format(file, digest, len(content))
            archive.writestr(file, content)
        archive.writestr(info + "RECORD", record + info + "RECORD,,\n")


def files_below(directory):
    """Returns the relative paths of all files and links below the directory."""
    paths = [os.path.join(parent, name) for parent, directories, names in os.walk(directory) for name in directories + names]
    return {os.path.relpath(path, directory) for path in paths if os.path.islink(path) or os.path.isfile(path)}


@unittest.skipUnless(sys.platform == "linux", "libtorch is installed on Linux only")
class SetupTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="setup-test-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.root = self.path(".libtorch")
        os.makedirs(self.path("wheels"))
        self.write("modules/pip/__init__.py", "")
        self.write("modules/pip/__main__.py", STAND_IN_PIP)
        self.tool("cargo", "echo 'cargo 1.999.0 (0000000 2030-01-01)'")
        self.tool("c++", "exit 1")
        self.tool("nasm", "exit 1")
        requirements = {"cpu": "", "gpu": "-r cpu.txt\n"}
        for (name, version, flavour), names in WHEELS.items():
            wheel = self.path("wheels", "{}-{}-py3-none-any.whl".format(name.replace("-", "_"), version))
            make_wheel(wheel, name, version, names)
            with open(wheel, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            requirements[flavour] += "{}==={} --hash=sha256:{}\n".format(name, version, digest)
        for flavour, text in requirements.items():
            self.write("requirements/{}.txt".format(flavour), text)
        self.environment = {"PATH": self.path("bin"), "PYTHONPATH": self.path("modules"), "HOME": self.directory,
                            "PIP_LOG": self.path("pip.log"), "WHEELS": self.path("wheels")}

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def tool(self, name, command):
        self.write("bin/" + name, "#!/bin/sh\n" + command + "\n")
        os.chmod(self.path("bin", name), stat.S_IRWXU)

    def start(self, *arguments, program=(SCRIPT,), **environment):
        """Starts the set-up with default signal handlers, which background jobs lack."""
        def default_signals():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)

        command = [sys.executable, *program, "--root", self.root, "--requirements", self.path("requirements"), *arguments]
        child = subprocess.Popen(command, env=dict(self.environment, **environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, universal_newlines=True, preexec_fn=default_signals)
        self.addCleanup(self.end, child)
        return child

    def end(self, child):
        if child.poll() is None:
            child.kill()
        child.communicate()

    def run_setup(self, *arguments, code=0, says=(), **options):
        child = self.start(*arguments, **options)
        out, err = child.communicate(timeout=DEADLINE_SECONDS)
        self.assertEqual(child.returncode, code, out + err)
        self.assertNotIn("Traceback", err)
        for text in says:
            self.assertIn(text, out + err)
        return out + err

    def run_patched(self, patch, **options):
        """Runs the set-up after a patch of the standard library."""
        self.write("driver.py", patch + "\nimport runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n")
        return self.run_setup(program=(self.path("driver.py"), SCRIPT), **options)

    def assert_nothing_installed(self):
        self.assertEqual(files_below(self.root), set())

    def wait_for(self, condition):
        limit = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            self.assertLess(time.monotonic(), limit, "timed out")
            time.sleep(0.01)

    def downloads(self):
        """Names of the packages that pip installed, and the id of its last process."""
        if not os.path.exists(self.path("pip.log")):
            return [], None
        with open(self.path("pip.log"), encoding="utf-8") as file:
            lines = [line.split() for line in file.read().splitlines(True) if line.endswith("\n")]
        return [line[0] for line in lines], int(lines[-1][1]) if lines else None

    def assert_gone(self, process):
        def gone():
            try:
                with open("/proc/{}/stat".format(process), encoding="ascii") as file:
                    return file.read().rsplit(")", 1)[1].split()[0] == "Z"  # Dead, but not yet reaped.
            except (FileNotFoundError, ProcessLookupError):
                return True

        self.wait_for(gone)

    # Installation.

    def test_fresh_installation_has_exactly_the_needed_files(self):
        self.run_setup(says=["libtorch 2.11.0 (CPU) is ready"])
        self.assertEqual(files_below(self.root), CPU_FILES)
        with open(os.path.join(self.root, "sdk/lib/libtorch.so"), encoding="ascii") as file:
            self.assertEqual(file.read(), "INPUT ( -ltorch_cpu )\n")
        with open(os.path.join(self.root, "sdk/lib/libtorch_cpu.so"), "rb") as file:
            self.assertEqual(file.read(), content_of("torch/lib/libtorch_cpu.so"))
        with open(os.path.join(self.root, "sdk/include/ATen/ATen.h"), "rb") as file:
            self.assertEqual(file.read(), content_of("torch/include/ATen/ATen.h"))

    def test_the_rpath_of_the_wheel_resolves_from_the_real_library_and_from_the_link_to_it(self):
        self.run_setup()
        for directory in ("site/torch/lib", "sdk/lib"):
            self.assertTrue(os.path.exists(os.path.join(self.root, directory, "../../nvidia/cu13/lib/libcudart.so.13")), directory)

    def test_second_run_downloads_nothing_and_reports_it_in_one_line(self):
        self.run_setup()
        before = self.downloads()
        text = self.run_setup(says=["is complete"])
        self.assertEqual(len(text.splitlines()), 1)
        self.assertEqual(self.downloads(), before)

    def test_copied_installation_is_complete_although_its_times_differ(self):
        self.run_setup()
        before = self.downloads()
        os.utime(os.path.join(self.root, "site/torch/lib/libc10.so"), (1, 1))
        self.run_setup(says=["is complete"])
        self.assertEqual(self.downloads(), before)

    def test_every_kind_of_damage_is_repaired(self):
        def truncate(path):
            os.truncate(path, 3)

        def change_one_byte(path):
            with open(path, "r+b") as file:
                file.write(b"X")

        self.run_setup()
        library = os.path.join(self.root, "site/torch/lib/libtorch_cpu.so")
        for name, path, damage in [
                ("truncated", library, truncate), ("changed", library, change_one_byte), ("missing", library, os.unlink),
                ("no link", os.path.join(self.root, "sdk/include"), os.unlink),
                ("no stamp", os.path.join(self.root, "stamp.json"), os.unlink),
                ("bad stamp", os.path.join(self.root, "stamp.json"), truncate)]:
            with self.subTest(name):
                damage(path)
                self.run_setup(says=["installing libtorch again", "is ready"])
                self.assertEqual(files_below(self.root), CPU_FILES)
                with open(library, "rb") as file:
                    self.assertEqual(file.read(), content_of("torch/lib/libtorch_cpu.so"))

    def test_gpu_adds_the_cuda_libraries_but_not_to_the_sdk_and_cpu_keeps_them(self):
        self.run_setup()
        self.run_setup(GPU="1", says=["no CUDA libraries yet", "libtorch 2.11.0 (GPU) is ready"])
        self.assertEqual(files_below(self.root), GPU_FILES)
        self.assertNotIn("libtorch_cuda.so", os.listdir(os.path.join(self.root, "sdk/lib")))
        before = self.downloads()
        self.run_setup(says=["is complete"])
        self.run_setup("--gpu", says=["is complete"])
        self.assertEqual(self.downloads(), before)

    # Errors.

    @unittest.skipIf(shutil.which("pip3") is None, "pip3 is not installed")
    def test_real_pip_installs_and_refuses_another_hash(self):
        shutil.rmtree(self.path("modules"))
        # Not this interpreter's pip, which a virtual environment may lack.
        self.tool("pip3", 'PATH="{}" exec {} "$@"'.format(os.environ["PATH"], shutil.which("pip3")))
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.path("wheels")}
        self.run_setup(says=["is ready"], **offline)
        self.assertEqual(files_below(self.root), CPU_FILES)
        shutil.rmtree(self.root)
        make_wheel(self.path("wheels/nvidia_cuda_runtime-13.0.96-py3-none-any.whl"), "nvidia-cuda-runtime", "13.0.96", [])
        self.run_setup(code=1, says=["nvidia", "HASH", "pip failed to install libtorch"], **offline)
        self.assert_nothing_installed()

    def test_failed_upgrade_keeps_the_working_installation(self):
        self.run_setup()
        self.run_setup(code=1, GPU="1", FAIL="ERROR: no network", says=["ERROR: no network", "HTTPS_PROXY", "LIBTORCH"])
        self.run_setup(says=["is complete"])
        self.assertEqual(files_below(self.root), CPU_FILES)

    def test_insufficient_disk_space_is_reported_before_any_download(self):
        self.run_patched("import shutil\nshutil.disk_usage = lambda path: shutil._ntuple_diskusage(1, 1, 1000000)", code=1,
                         says=["not enough disk space", "0.0 GB are free"])
        self.assertEqual(self.downloads(), ([], None))
        self.assert_nothing_installed()

    def test_all_missing_tools_are_reported_with_their_packages(self):
        os.unlink(self.path("bin/c++"))
        os.unlink(self.path("bin/cargo"))
        os.unlink(self.path("bin/nasm"))
        assembler = ["nasm is missing", "apt install nasm"] if platform.machine() == "x86_64" else []
        self.run_setup(code=1, says=["C++ compiler is missing", "apt install g++", "dnf install gcc-c++",
                                       "cargo is missing", "https://rustup.rs", *assembler])
        self.run_setup("--libtorch-only", says=["is ready"])

    def test_another_compiler_is_offered_and_an_old_or_broken_cargo_refused(self):
        os.rename(self.path("bin/c++"), self.path("bin/clang++"))
        self.run_setup(code=1, says=["export CXX=clang++"])
        self.tool("cargo", "echo 'cargo 1.63.0 (0000000 2022-01-01)'")
        self.run_setup(code=1, CXX="clang++ -O2", says=["cargo 1.63 is too old", "rustup update stable"])
        self.tool("cargo", "echo 'error: no default toolchain' >&2; exit 1")
        self.run_setup(code=1, CXX="clang++", says=["failed to run cargo (error: no default toolchain)"])

    def test_missing_or_old_pip_is_reported_with_its_package(self):
        self.run_setup(code=1, PIP_VERSION_SHOWN="20.0.2", says=["pip 20.0 is too old"])
        self.write("modules/pip/__main__.py", "raise SystemExit(1)")
        self.run_setup(code=1, says=["pip is missing", "apt install python3-pip"])
        self.assert_nothing_installed()

    def test_directory_that_cannot_be_created_is_one_sentence(self):
        self.write("file", "")
        self.root = self.path("file", "libtorch")
        text = self.run_setup(code=1, says=[self.root])
        self.assertEqual(len(text.splitlines()), 1)

    # LIBTORCH.

    def make_libtorch(self, version):
        for name in ("lib/libtorch.so", "lib/libtorch_cpu.so", "lib/libc10.so", "include/torch/torch.h"):
            self.write("own/" + name, "")
        self.write("own/build-version", version + "\n")
        return self.path("own")

    def test_exported_libtorch_is_used_and_nothing_downloaded(self):
        own = self.make_libtorch("2.11.0+cpu")
        self.run_setup(LIBTORCH=own, says=["using libtorch 2.11.0+cpu from LIBTORCH=" + own])
        os.unlink(self.path("own/build-version"))
        macros = "".join("#define TORCH_VERSION_{} {}\n".format(*pair) for pair in (("MAJOR", 2), ("MINOR", 11), ("PATCH", 0)))
        self.write("own/include/torch/headeronly/version.h", macros)
        self.run_setup(LIBTORCH=own, says=["using libtorch 2.11.0 from"])
        self.assertEqual(self.downloads(), ([], None))
        self.assertFalse(os.path.exists(self.root))

    def test_exported_libtorch_of_another_version_or_incomplete_is_refused(self):
        for version in ("2.10.0+cpu", "2.1.1", "3.11.0"):
            own = self.make_libtorch(version)
            self.run_setup(code=1, LIBTORCH=own, says=["is libtorch " + version, "2.11.x is required"])
        own = self.make_libtorch("2.11.1")
        self.run_setup(code=1, LIBTORCH=own, says=["LIBTORCH_BYPASS_VERSION_CHECK"])
        self.run_setup(LIBTORCH=own, LIBTORCH_BYPASS_VERSION_CHECK="1", says=["using libtorch 2.11.1"])
        self.run_setup(code=1, LIBTORCH=own, GPU="1", says=["is a build for the CPU"])
        os.unlink(self.path("own/lib/libtorch_cpu.so"))
        self.run_setup(code=1, LIBTORCH=own, says=["has no lib/libtorch_cpu.so"])
        self.run_setup(code=1, LIBTORCH="own", says=["must be an absolute path"])

    def test_exported_libtorch_that_is_our_own_directory_is_ignored(self):
        self.run_setup(LIBTORCH=os.path.join(self.root, "sdk"), says=["is ready"])

    # Interruptions.

    def test_signal_during_the_download_ends_pip_and_leaves_nothing(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                count = len(self.downloads()[0])
                child = self.start(GATE=self.path("never"))
                self.wait_for(lambda: len(self.downloads()[0]) > count)
                child.send_signal(number)
                _, err = child.communicate(timeout=DEADLINE_SECONDS)
                self.assertEqual(child.returncode, 128 + number)
                self.assertEqual(err.strip(), "setup: interrupted, nothing was installed")
                self.assert_nothing_installed()
                self.assert_gone(self.downloads()[1])

    def test_signal_after_the_download_leaves_nothing(self):
        self.run_patched("import os, signal\nos.symlink = lambda *_: os.kill(os.getpid(), signal.SIGTERM)", code=128 + signal.SIGTERM,
                         says=["nothing was installed"])
        self.assert_nothing_installed()

    def test_kill_leaves_no_pip_running_and_the_next_run_cleans_up(self):
        child = self.start(GATE=self.path("never"))
        self.wait_for(lambda: self.downloads()[0])
        child.kill()
        child.communicate(timeout=DEADLINE_SECONDS)
        self.assert_gone(self.downloads()[1])
        self.assertTrue(os.path.exists(os.path.join(self.root, ".partial-{}".format(child.pid))))
        self.run_setup(says=["is ready"])
        self.assertEqual(files_below(self.root), CPU_FILES)

    def test_two_at_once_download_once_and_both_succeed(self):
        first = self.start(GATE=self.path("gate"))
        self.wait_for(lambda: self.downloads()[0])
        second = self.start(GATE=self.path("gate"))
        self.assertIn("waiting for another set-up", second.stdout.readline())
        self.write("gate", "")
        for child, says in ((first, "is ready"), (second, "is complete")):
            out, err = child.communicate(timeout=DEADLINE_SECONDS)
            self.assertEqual(child.returncode, 0, err)
            self.assertIn(says, out)
        self.assertEqual(sorted(self.downloads()[0]), ["nvidia-cuda-runtime", "torch"])
        self.assertEqual(files_below(self.root), CPU_FILES)


if __name__ == "__main__":
    unittest.main()
