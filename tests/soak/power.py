"""Loss of power: the data directory as of its last syncs, which `tests/fixtures/power_loss/durable.c` records."""

import os
import shutil
import signal
import subprocess
import time

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fixtures", "power_loss", "durable.c")


def identities(paths):
    """Numbers and creation times of inodes, as the library writes them."""
    found = {}
    for start in range(0, len(paths), 500):
        part = paths[start:start + 500]
        lines = subprocess.run(["stat", "--format=%i %.9W", *part], stdout=subprocess.PIPE, universal_newlines=True, check=True).stdout.splitlines()
        for path, line in zip(part, lines):
            inode, born = line.split()
            seconds, nanoseconds = born.split(".")
            found[path] = "{}-{}-{}".format(inode, int(seconds), int(nanoseconds))
    return found


class Machine:
    def __init__(self, directory, data):
        self.library = os.path.join(directory, "durable.so")
        self.copy = os.path.join(directory, "synced")
        self.data = data
        compiler = shutil.which("cc")
        command = [compiler or "", "-shared", "-fPIC", "-O1", "-o", self.library, SOURCE, "-ldl"]
        self.is_available = bool(compiler) and subprocess.run(command).returncode == 0

    def command(self):
        """Runs a server whose syncs are recorded."""
        return ["env", "LD_PRELOAD=" + self.library, "DURABLE_ROOT=" + self.data, "DURABLE_COPY=" + self.copy]

    def survey(self):
        """Records everything in the directory as synced."""
        shutil.rmtree(self.copy, ignore_errors=True)
        for name in ("files", "directories"):
            os.makedirs(os.path.join(self.copy, name))
        paths = [self.data]
        for directory, directories, files in os.walk(self.data):
            paths += [os.path.join(directory, name) for name in directories + files]
        known = identities(paths)
        for directory, directories, files in os.walk(self.data):
            lines = ["{} {} {}\n".format(kind, known[os.path.join(directory, name)], name)
                     for kind, names in (("d", directories), ("f", files)) for name in names]
            with open(os.path.join(self.copy, "directories", known[directory]), "w", encoding="utf-8") as out:
                out.writelines(lines)
            for name in files:
                path = os.path.join(directory, name)
                shutil.copyfile(path, os.path.join(self.copy, "files", known[path]))

    def lose_power(self, process):
        """Kills the server and its workers at once, and reduces the directory to its synced state."""
        workers = descendants(process.pid)
        process.send_signal(signal.SIGSTOP)
        for worker in workers:
            try:
                os.kill(worker, signal.SIGKILL)
            except ProcessLookupError:
                pass  # It has ended.
        process.kill()
        process.wait()
        limit = time.monotonic() + 60
        while any(is_running(worker) for worker in workers):
            if time.monotonic() > limit:
                raise AssertionError("a worker did not end")
            time.sleep(0.01)
        found = self.data + ".found"
        self.build(identities([self.data])[self.data], found)
        shutil.rmtree(self.data)
        os.rename(found, self.data)

    def build(self, identity, target):
        os.mkdir(target, 0o700)
        entries = os.path.join(self.copy, "directories", identity)
        if not os.path.exists(entries):
            return
        with open(entries, encoding="utf-8") as file:
            lines = file.read().splitlines()
        for line in lines:
            kind, identity, name = line.split(" ", 2)
            path = os.path.join(target, name)
            if kind == "d":
                self.build(identity, path)
                continue
            kept = os.path.join(self.copy, "files", identity)
            if os.path.exists(kept):
                shutil.copyfile(kept, path)
            else:  # Its entry was synced, but not its bytes.
                open(path, "wb").close()


def is_running(pid):
    try:
        with open("/proc/{}/stat".format(pid), encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def descendants(pid):
    """All processes below a process."""
    parents = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/{}/stat".format(name), encoding="utf-8", errors="replace") as file:
                parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            continue  # It has ended.
    found, ahead = [], [pid]
    while ahead:
        parent = ahead.pop()
        below = [child for child, its in parents.items() if its == parent]
        found += below
        ahead += below
    return found
