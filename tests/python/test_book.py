"""Runs every command of the book in `deploy/book`, page by page, against a real server, and compares the output.

Invisible comments of a page control its blocks:

- `<!-- needs: faces server -->` at the top: a directory `faces` with drawn faces, a server with the starter. Each page has its own directory.
- `<!-- background -->` before a block: it starts a server, which keeps running during the next blocks.
- `<!-- fails: 2 -->` before a block: its last command exits with this code.
- `<!-- not run: REASON -->` before a block: it cannot run here. `NOT_RUN` lists all of them.

`sh` blocks are scripts. In `console` blocks, lines that start with `$ ` are commands, lines with `> ` continue them, and the rest is their stdout and
stderr. In the output, a number matches any number, `...` any text within a line, and a line `...` any lines; the amount of white space is ignored.
`python` blocks run with the API's modules and the package `visage_client`.
"""

import concurrent.futures
import importlib.util
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

import server
from api import DEADLINE_SECONDS, REPOSITORY

BOOK = pathlib.Path(REPOSITORY, "deploy", "book")
SOURCE = BOOK / "src"
GENERATED = "reference"
# Blocks that are not run, by page and first line; the page has the reason of each.
NOT_RUN = {
    "how-to/clients.md": ["grpcurl -plaintext localhost:50051 list"],
    "how-to/expose.md": [
        "cat > visage.toml <<'END'", "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj \"/CN=Visage test authority\" -keyout ca.key -out ca.crt",
        "visage token new ci --role trainer --expires 90d      # prints the token once",
        "visage --server https://visage.example.org:50051 --ca ca.crt --token-file token info"],
    "how-to/gpu.md": ["make setup GPU=1", "visage serve --device cuda:0", "visage train --dataset faces --set feature_cache=DEVICE"],
    "how-to/imagenet-weights.md": ["curl -O https://download.pytorch.org/models/resnet18-f37072fd.pth"],
    "how-to/kubernetes.md": ["visage token new admin --role admin --tokens-file tokens.toml > admin.token"],
    "how-to/monitor.md": ["docker compose -f deploy/docker/compose.yml up --build"],
    "how-to/open-inference.md": [
        "LD_LIBRARY_PATH=.venv/perf-analyzer .venv/perf-analyzer/perf_analyzer -m age -i grpc -u localhost:50051 --input-data images.json --concurrency-range 8 "
        "--request-count 400"],
    "how-to/processes.md": ["visage train --dataset faces --shards 4 --batch-size 32", "visage serve --worker-processes 4"],
    "how-to/proxy.md": ["import base64", "ssh -N -L 50051:127.0.0.1:50051 -L 50052:127.0.0.1:50052 SERVER"],
    "how-to/run.md": ["git clone REPOSITORY /opt/visage && cd /opt/visage && make build", "docker build -f deploy/docker/Dockerfile -t visage .",
                      "docker compose -f deploy/docker/compose.yml up --build"],
    "how-to/tls.md": [
        "visage --server https://visage.example.org:50051 --ca ca.pem info",
        "visage servers add prod https://visage.example.org:50051 --ca ca.pem --token-file ~/visage.token"],
    "how-to/trace.md": ["docker run --rm -p 4317:4317 -p 16686:16686 jaegertracing/all-in-one"],
    "tutorial/first-model.md": ["make build", "visage serve --starter --grpc-listen 127.0.0.1:60051 --http-listen 127.0.0.1:60052"],
}
RUNNABLE = ("sh", "console", "python")
# Languages of blocks without commands.
TEXTS = ("text", "toml", "csv", "promql", "json", "yaml", "nginx")
# BOOK_PAGES=cursor runs only matching pages and prints their output.
ONLY = os.environ.get("BOOK_PAGES", "")
# Concurrent pages, which mostly wait for processes.
AT_ONCE = 3
# Time limit of a command, such as a training on a busy machine.
LONGEST_COMMAND_SECONDS = 300
NUMBER = r"[-+]?\d+(?:\.\d+)?"


def pages():
    """Names of all pages, relative to the source directory."""
    return sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.md") if path.name != "SUMMARY.md")


def text_of(page):
    return (SOURCE / page).read_text(encoding="utf-8")


class Block:
    """A fenced block of a page."""

    def __init__(self, page, line, language, body, marks):
        self.page, self.line, self.language, self.body = page, line, language, body
        self.not_run = marks.get("not run")
        self.is_background = "background" in marks
        self.exit_code = int(marks.get("fails", 0))

    @property
    def place(self):
        return "{}:{}".format(self.page, self.line)

    def commands(self):
        """Pairs of a command and its output, None if the page shows no output."""
        if self.language != "console":
            return [(self.body, None)]
        found = []
        for line in self.body.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line.startswith("> ") and found and not found[-1][1]:
                found[-1] = (found[-1][0] + "\n" + line[2:], [])
            elif found:
                found[-1][1].append(line)
            else:
                raise AssertionError("{}: output without a command: {}".format(self.place, line))
        return [(command, "\n".join(output) if output else None) for command, output in found]


def blocks(page):
    """The fenced blocks of a page, with the comments before them."""
    found, marks, opened = [], {}, None
    for number, line in enumerate(text_of(page).splitlines(), 1):
        if opened is not None:
            if line == "```":
                found.append(Block(page, opened[0], opened[1], "\n".join(opened[2]), marks))
                opened, marks = None, {}
            else:
                opened[2].append(line)
        elif line.startswith("```"):
            opened = (number, line[3:].strip(), [])
        elif line.startswith("<!-- ") and line.endswith(" -->"):
            name, _, value = line[len("<!-- "):-len(" -->")].partition(": ")
            marks[name] = value
        elif line.strip():
            marks = {}
    if opened is not None:
        raise AssertionError("{}: a block is not closed".format(page))
    return found


def needs(page):
    found = re.search(r"^<!-- needs: (.*) -->$", text_of(page), re.M)
    return found.group(1).split() if found else []


def as_pattern(shown):
    """The shown output as a pattern for the printed output."""
    pattern = ""
    for line in normalised(shown):
        if line == "...":
            pattern += r"(?:.*\n)*?"
            continue
        # `...` also matches nothing, together with one of the spaces around it.
        texts = [NUMBER.join(re.escape(text) for text in re.split(NUMBER, part)) for part in re.split(r" ?\.\.\. ?", line)]
        pattern += ".*".join(texts) + r"\n"
    return pattern


def normalised(text):
    return [" ".join(line.split()) for line in text.strip("\n").splitlines()]


def matches(shown, printed):
    return re.fullmatch(as_pattern(shown), "".join(line + "\n" for line in normalised(printed))) is not None


def free_ports(count):
    """Free ports. If the server chose them, the commands of a page would not know them after a restart."""
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


class Terminal:
    """A shell in a temporary directory, in which the blocks of a page run in order."""

    def __init__(self, faces, modules):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="visage-book-"))
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="visage-book-home-"))
        self.faces = faces
        grpc, self.http = ("127.0.0.1:{}".format(port) for port in free_ports(2))
        self.addresses = {"localhost:50051": grpc, "127.0.0.1:50051": grpc, "localhost:50052": self.http, "127.0.0.1:50052": self.http}
        programs = self.home / "bin"
        programs.mkdir()
        (programs / "visage").symlink_to(os.path.abspath(server.binary()))
        for name in ("python", "python3"):
            (programs / name).symlink_to(sys.executable)
        environment = {
            **server.environment(),
            "PATH": "{}:{}".format(programs, os.environ["PATH"]), "HOME": str(self.home), "PYTHONPATH": modules, "NO_COLOR": "1",
            # No page may access the network.
            "HF_HUB_OFFLINE": "1",
            "VISAGE_GRPC_LISTEN": grpc, "VISAGE_HTTP_LISTEN": self.http, "VISAGE_SERVER": grpc,
        }
        self.shell = subprocess.Popen(["bash", "--norc", "--noprofile"], cwd=str(self.directory), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, universal_newlines=True, bufsize=1, start_new_session=True)
        # Job control, as in an interactive shell.
        self.send("set -m")

    def send(self, line):
        self.shell.stdin.write(line + "\n")
        self.shell.stdin.flush()

    def run(self, command, is_strict=False):
        """Runs a command and returns its exit code and output."""
        for printed, here in self.addresses.items():
            command = command.replace(printed, here)
        script, output = self.home / "command", self.home / "output"
        script.write_text(command + "\n", encoding="utf-8")
        strict = ("set -e; ", "set +e; ") if is_strict else ("", "")
        self.send("{}source {} </dev/null >{} 2>&1; code=$?; {}echo $code".format(strict[0], script, output, strict[1]))
        # A command that hangs is killed with its shell.
        alarm = threading.Timer(LONGEST_COMMAND_SECONDS, self.kill)
        alarm.daemon = True
        alarm.start()
        code = self.shell.stdout.readline().strip()
        alarm.cancel()
        text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
        if not code:
            return (self.shell.wait(timeout=DEADLINE_SECONDS) or 1), text
        return int(code), text

    def prepare(self, wanted):
        """Creates the requirements of a page."""
        for name in wanted:
            if name == "faces":
                shutil.copytree(self.faces, str(self.directory / "faces"))
            elif name == "server":
                self.start_server("visage serve --starter")
            else:
                raise AssertionError("unknown requirement of a page: {}".format(name))

    def start_server(self, command):
        """Starts a server in the background and waits until it is ready."""
        code, printed = self.run("{{ {} ; }} >>{} 2>&1 &".format(command.strip(), self.home / "server.log"))
        if code != 0:
            raise AssertionError(printed)
        server.wait_for(self.is_ready, "the server of the page is ready; its log says:\n" + self.log())

    def is_ready(self):
        try:
            with urllib.request.urlopen("http://{}/readyz".format(self.http), timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def log(self):
        path = self.home / "server.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def kill(self):
        """Kills all remaining processes: each job is a process group, and all are in the shell's session."""
        for entry in pathlib.Path("/proc").iterdir():
            try:
                # Fields after the name, which may contain anything: state, parent, group, session.
                session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
                if session == self.shell.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
            except (OSError, ValueError, IndexError):
                # Not a process, or one that has just ended.
                continue

    def close(self):
        """Stops all processes and removes the directories."""
        try:
            if self.shell.poll() is None:
                self.run('for job in $(jobs -p); do kill -TERM -- "-$job"; done; wait')
                self.shell.stdin.close()
                self.shell.wait(timeout=DEADLINE_SECONDS)
        finally:
            self.kill()
            self.shell.wait()
            self.shell.stdout.close()
            shutil.rmtree(str(self.directory), ignore_errors=True)
            shutil.rmtree(str(self.home), ignore_errors=True)


def run_page(page, faces, modules):
    """Runs the blocks of a page. Returns a list of problems and the duration in seconds."""
    begun = time.monotonic()
    terminal = Terminal(faces, modules)
    wrong = []
    try:
        terminal.prepare(needs(page))
        for block in blocks(page):
            if block.language not in RUNNABLE or block.not_run is not None:
                continue
            run_block(block, terminal)
    except AssertionError as error:
        wrong.append("{}\nThe server's log ends:\n{}".format(error, terminal.log()[-2000:]))
    finally:
        terminal.close()
    return wrong, time.monotonic() - begun


def run_block(block, terminal):
    if block.is_background:
        terminal.start_server(block.body)
        return
    if block.language == "python":
        program = terminal.home / "block.py"
        code = block.body
        for printed, here in terminal.addresses.items():
            code = code.replace(printed, here)
        program.write_text(code, encoding="utf-8")
        code, printed = terminal.run("python {}".format(program))
        if code != block.exit_code:
            raise AssertionError("{}: the program ended with {}:\n{}".format(block.place, code, printed))
        return
    commands = block.commands()
    for index, (command, shown) in enumerate(commands):
        code, printed = terminal.run(command, is_strict=block.language == "sh" and block.exit_code == 0)
        if ONLY:
            print("{}\n$ {}\n{}".format(block.place, command, printed))
        expected = block.exit_code if index == len(commands) - 1 else 0
        if code != expected:
            raise AssertionError("{}: `{}` ended with {} and not with {}; it printed:\n{}".format(block.place, command, code, expected, printed))
        if shown is not None and not matches(shown, printed):
            raise AssertionError("{}: `{}` printed\n{}\nwhere the page shows\n{}".format(block.place, command, printed, shown))


# Draws the images of the tutorial into the directories of a split.
SPLIT_FACES = """visage synth drawn --count 120 --size 128 --seed 7
mkdir -p faces/train faces/val
mv drawn/[1-7]*.jpg faces/train/
mv drawn/*.jpg faces/val/"""


def run_tutorial_with_split_directories(modules):
    """Runs the commands of the tutorial on images in `train` and `val`; the shown output is that of a single directory."""
    terminal = Terminal(None, modules)
    try:
        for block in blocks("tutorial/first-model.md"):
            if block.language not in RUNNABLE or block.not_run is not None:
                continue
            if block.is_background:
                terminal.start_server(block.body)
                continue
            for command, _ in block.commands():
                code, printed = terminal.run(SPLIT_FACES if command.startswith("visage synth faces ") else command)
                if code != 0:
                    raise AssertionError("{}: `{}` ended with {}:\n{}".format(block.place, command, code, printed))
    finally:
        terminal.close()


class PagesTest(unittest.TestCase):
    """Runs all pages."""

    @classmethod
    def setUpClass(cls):
        directory = tempfile.mkdtemp(prefix="visage-book-faces-")
        cls.addClassCleanup(shutil.rmtree, directory)
        faces = server.draw_faces(os.path.join(directory, "faces"), count=60, seed=7, size=96)
        # The stubs of `api`, the Python client, and the installed packages.
        stubs = [entry for entry in sys.path if os.path.isdir(os.path.join(entry, "visage", "v1"))]
        installed = [entry for entry in sys.path if entry.endswith("-packages")]
        modules = os.pathsep.join([*stubs, os.path.join(REPOSITORY, "deploy", "clients", "python", "src"), *installed])
        cls.modules = modules
        runnable = [page for page in pages() if any(block.language in RUNNABLE and block.not_run is None for block in blocks(page))]
        runnable = [page for page in runnable if re.search(ONLY, page)]
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            cls.results = dict(zip(runnable, pool.map(lambda page: run_page(page, faces, modules), runnable)))

    def test_every_command_runs_and_prints_what_its_page_shows(self):
        for page, (wrong, seconds) in self.results.items():
            if ONLY:
                print("{} {:.1f} s".format(page, seconds))
            with self.subTest(page):
                self.assertEqual(wrong, [], "\n".join(wrong))


    def test_the_tutorial_works_with_split_directories(self):
        run_tutorial_with_split_directories(self.modules)


class BookTest(unittest.TestCase):
    """Rules for all pages."""

    maxDiff = None

    def test_blocks_that_are_not_run_are_few_and_say_why(self):
        found = {}
        for page in pages():
            for block in blocks(page):
                if block.not_run is not None:
                    self.assertIn(block.language, RUNNABLE, block.place)
                    self.assertGreater(len(block.not_run.split()), 2, block.place)
                    found.setdefault(page, []).append(block.commands()[0][0].splitlines()[0])
        self.assertEqual(found, NOT_RUN)

    def test_no_command_hides_in_a_block_that_is_not_run(self):
        for page in pages():
            for block in blocks(page):
                self.assertIn(block.language, RUNNABLE + TEXTS, block.place)
                if block.language in TEXTS and not page.startswith(GENERATED + "/"):
                    self.assertNotRegex(block.body, r"(?m)^\s*(\$ |visage |curl |docker |systemctl |make )", block.place)

    def test_kubernetes_runs_one_server_as_the_image_and_the_composition_do(self):
        try:
            import yaml
        except ImportError:
            self.skipTest("pyyaml is not installed")
        manifest, = (block.body for block in blocks("how-to/kubernetes.md") if block.language == "yaml")
        service, policy, stateful = yaml.safe_load_all(manifest)
        self.assertEqual((service["kind"], policy["kind"], stateful["kind"], stateful["spec"]["replicas"]), ("Service", "NetworkPolicy", "StatefulSet", 1))
        self.assertEqual(policy["spec"]["podSelector"]["matchLabels"], service["spec"]["selector"])
        self.assertEqual(service["spec"]["selector"], stateful["spec"]["template"]["metadata"]["labels"])
        pod = stateful["spec"]["template"]["spec"]
        container, = pod["containers"]
        dockerfile = pathlib.Path(REPOSITORY, "deploy", "docker", "Dockerfile").read_text(encoding="utf-8")
        composition = pathlib.Path(REPOSITORY, "deploy", "docker", "compose.yml").read_text(encoding="utf-8")
        self.assertIn("USER {}\n".format(pod["securityContext"]["runAsUser"]), dockerfile)
        self.assertIn("EXPOSE {}\n".format(" ".join(str(port["containerPort"]) for port in container["ports"])), dockerfile)
        self.assertIn("VISAGE_DATA_DIR={} ".format(container["volumeMounts"][0]["mountPath"]), dockerfile)
        self.assertIn("stop_grace_period: {}s".format(pod["terminationGracePeriodSeconds"]), composition)
        open_ports = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        self.assertLessEqual(open_ports, {port["name"] for port in container["ports"]})
        # The settings are valid together with those of the image, and the certificate and the tokens are mounted.
        variables = {variable["name"]: variable["value"] for variable in container["env"]}
        image = dict(re.findall(r"(VISAGE_\w+)=(\S+)", re.sub("(?m)^#.*", "", dockerfile)))
        done = subprocess.run([server.binary(), "config"], env={**server.environment(), **image, **variables}, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, universal_newlines=True, timeout=DEADLINE_SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in ("VISAGE_TLS_CERT", "VISAGE_TLS_KEY", "VISAGE_TOKENS_FILE"):
            self.assertTrue(any(variables[name].startswith(mount["mountPath"] + "/") and mount.get("readOnly") for mount in container["volumeMounts"]), name)
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        made = [volume["name"] for volume in pod["volumes"]] + [claim["metadata"]["name"] for claim in stateful["spec"]["volumeClaimTemplates"]]
        self.assertEqual(mounted, set(made))

    def test_every_page_is_in_the_summary_and_the_summary_has_no_other(self):
        linked = re.findall(r"\]\(([^)]+)\)", (SOURCE / "SUMMARY.md").read_text(encoding="utf-8"))
        self.assertEqual(sorted(linked), pages())

    def test_links_lead_to_a_page_and_a_heading(self):
        for page in pages():
            for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text_of(page))):
                if re.match(r"https?://", target):
                    continue
                path, _, heading = target.partition("#")
                found = (SOURCE / page).parent.joinpath(path).resolve() if path else SOURCE / page
                self.assertTrue(found.is_file() and SOURCE in found.parents, "{} links to {}, which is not a page".format(page, target))
                if heading:
                    self.assertIn(heading, anchors(found), "{} links to {}".format(page, target))

    def test_files_of_the_repository_that_pages_name_are_there(self):
        for page in pages():
            text = text_of(page)
            named = re.findall(r"`((?:assets|clients|deploy|proto|src|tests)/[\w./-]+)`", text)
            included = [os.path.relpath(SOURCE / page / ".." / path, REPOSITORY) for path in re.findall(r"\{\{#include ([^}]+)\}\}", text)]
            for path in named + included:
                self.assertTrue(os.path.exists(os.path.join(REPOSITORY, path)), "{} names {}".format(page, path))

    def test_the_reference_is_what_the_program_and_the_protos_say(self):
        spec = importlib.util.spec_from_file_location("generate", str(BOOK / "generate.py"))
        generate = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(generate)
        for name, text in generate.pages(os.path.abspath(server.binary())).items():
            path = SOURCE / GENERATED / name
            self.assertTrue(path.is_file(), "{} is missing: run `make book-reference`".format(name))
            self.assertEqual(path.read_text(encoding="utf-8"), text, "{} is stale: run `make book-reference`".format(name))

    def test_what_is_shown_is_compared_with_what_is_printed(self):
        """Tests the comparison itself."""
        self.assertTrue(matches("age  34.2 years", "age 7 years"))
        self.assertTrue(matches("first\n...\nlast 1", "first\na\nb\nlast 20\n"))
        self.assertTrue(matches("a ... c", "a b b c"))
        self.assertTrue(matches("a ... c", "a c"))
        self.assertFalse(matches("a ... c", "a b d"))
        self.assertTrue(matches("bias -0.2, 10-19", "bias +1.25, 20-29"))
        self.assertFalse(matches("age 34.2 years", "age 34.2"))
        self.assertFalse(matches("first\nlast", "first\nmore\nlast"))
        self.assertFalse(matches("SUCCEEDED", "FAILED"))


def without_code(text):
    """A page without code blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


def anchors(path):
    """Ids of a page's headings, as mdBook and GitHub generate them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S), re.M)
    return [re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]
