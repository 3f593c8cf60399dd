"""Makes an environment for each server that serve.py measures beside Visage: install.py DIRECTORY. It uses PyTorch of the environment that runs it.

An environment that is there is kept, one that could not be filled is taken away again, and serve.py leaves out what is not there.
"""

import os
import shutil
import subprocess
import sys
import sysconfig

# TorchServe also needs Java 17. PyTriton's own stub loads the system's libpython, so its
# interpreter must be the system's too.
PACKAGES = {
    "mlserver": ["mlserver==1.7.1"],
    "torchserve": ["torchserve==0.12.0", "torch-model-archiver==0.12.0", "psutil", "requests", "packaging", "pyyaml"],
    "triton": ["nvidia-pytriton==0.7.0"],
}


def install(directory, name, packages):
    # The mark comes last; the environment cannot be made aside, for its programs name their
    # interpreter by its path.
    place = os.path.join(directory, name)
    mark = os.path.join(place, "installed")
    if os.path.exists(mark):
        return
    version = "python{}.{}".format(*sys.version_info)
    system = os.path.join("/usr/bin", version)
    interpreter = system if name == "triton" and os.path.exists(system) else sys.executable
    shutil.rmtree(place, ignore_errors=True)
    print("installing {} to {}".format(name, place))
    try:
        subprocess.run([interpreter, "-m", "venv", "--without-pip", place], check=True)
        subprocess.run([os.environ.get("PYTHON", "python3"), "-m", "pip", "--python", os.path.join(place, "bin", "python"), "install", "--quiet",
                        "--disable-pip-version-check", "--root-user-action=ignore", *packages], check=True)
        with open(os.path.join(place, "lib", version, "site-packages", "zz_torch.pth"), "w", encoding="utf-8") as file:
            file.write(sysconfig.get_path("purelib") + "\n")
        with open(mark, "w", encoding="utf-8"):
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(place, ignore_errors=True)
        print("bench: {} is left out: {}".format(name, error), file=sys.stderr)


if __name__ == "__main__":
    os.makedirs(sys.argv[1], exist_ok=True)
    for server, wanted in PACKAGES.items():
        install(os.path.abspath(sys.argv[1]), server, wanted)
