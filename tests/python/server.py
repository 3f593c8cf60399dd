"""The program under test: servers in temporary directories, their HTTP pages, and drawn faces."""

import collections
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

import api

DEADLINE_SECONDS = api.DEADLINE_SECONDS


def binary():
    """Path of the program under test: VISAGE_BIN, or the release build of this repository."""
    path = os.environ.get("VISAGE_BIN") or os.path.join(api.REPOSITORY, "target", "release", "visage")
    if not os.access(path, os.X_OK):
        raise FileNotFoundError("{} is not executable; build it with `cargo build --release`, or set VISAGE_BIN".format(path))
    return path


def environment():
    """The environment without VISAGE_ variables, which would change settings; a server refuses unknown ones such as VISAGE_BIN."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VISAGE_")}


def draw_faces(directory, count, seed, size=96):
    """Fills a directory with drawn faces whose names start with the age."""
    run("synth", directory, "--count", str(count), "--seed", str(seed), "--size", str(size))
    return directory


def run(*arguments):
    """Runs the program, which must succeed, and returns its stdout."""
    done = subprocess.run([binary(), *arguments], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=DEADLINE_SECONDS)
    if done.returncode != 0:
        raise AssertionError("visage {} ended with {}: {}".format(" ".join(arguments), done.returncode, done.stderr))
    return done.stdout


def wait_for(condition, text, seconds=DEADLINE_SECONDS):
    """Polls the condition and returns its first true value; `text` names it in the error message."""
    limit = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > limit:
            raise AssertionError("timed out after {} s waiting until {}".format(seconds, text))
        time.sleep(0.02)


class Server:
    """A server on free ports in a temporary directory, which `close` removes. `data` is moved there as its data directory."""

    def __init__(self, *options, data=None):
        self.options = options
        self.directory = tempfile.mkdtemp(prefix="visage-test-")
        if data:
            shutil.move(data, self.path("data"))
        self.process = self.client = None
        self.start()

    def path(self, name):
        return os.path.join(self.directory, name)

    def start(self, grpc_listen="127.0.0.1:0", http_listen="127.0.0.1:0"):
        """Starts the process and waits until it is ready. It can be called again after `wait`, with the same data."""
        command = [binary(), "serve", "--data-dir", self.path("data"), "--grpc-listen", grpc_listen, "--http-listen", http_listen,
                   "--ready-file", self.path("ready"), *self.options]
        with open(self.path("log"), "ab") as log:
            # In the temporary directory, which has no visage.toml.
            self.process = subprocess.Popen(command, cwd=self.directory, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(self.has_answered, "the server is ready")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        with open(self.path("ready"), encoding="utf-8") as file:
            addresses = json.load(file)
        self.grpc_address, self.http_address = addresses["grpc"], addresses["http"]
        self.client = api.Client(self.grpc_address)

    def has_answered(self):
        if self.process.poll() is not None:
            raise AssertionError("the server ended with {}; its log says:\n{}".format(self.process.returncode, self.log()))
        return os.path.exists(self.path("ready"))

    def log(self):
        with open(self.path("log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def terminate(self):
        """Sends SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        """Waits for the end of the server, which must exit with 0 and without a panic."""
        try:
            code = self.process.wait(timeout=DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not end; its log says:\n" + self.log())
        finally:
            self.client.close()
        if code != 0 or "panicked" in self.log():
            raise AssertionError("the server ended with {}; its log says:\n{}".format(code, self.log()))

    def kill_and_restart(self):
        """Kills the process, and starts another one with the same data and addresses."""
        self.process.kill()
        self.process.wait()
        self.client.close()
        os.remove(self.path("ready"))
        self.start(self.grpc_address, self.http_address)

    def restart(self):
        """Stops the server and starts it again with the same data and addresses."""
        self.terminate()
        self.wait()
        self.start(self.grpc_address, self.http_address)

    def close(self):
        """Stops the server if it is running, and removes its directory."""
        try:
            if self.process.returncode is None:
                self.terminate()
                self.wait()
        finally:
            shutil.rmtree(self.directory)

    def fetch(self, path, method="GET"):
        """Returns status, headers and text of a page."""
        connection = http.client.HTTPConnection(self.http_address, timeout=DEADLINE_SECONDS)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()
        finally:
            connection.close()

    def metrics(self):
        """Returns the values of all series by `name{label="value",...}`; 0 for missing ones."""
        values = collections.defaultdict(float)
        for line in self.fetch("/metrics")[2].splitlines():
            if line and not line.startswith("#"):
                series, value = re.fullmatch(r"(\S+?(?:\{.*\})?) (\S+)", line).groups()
                values[series] = float(value)
        return values
