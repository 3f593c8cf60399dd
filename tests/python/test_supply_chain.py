"""Tests of `make deny` and `make sbom`, without network."""

import base64
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOLS = os.path.join(REPOSITORY, "deploy", "tools")
DEADLINE_SECONDS = 300
ADVISORY = """```toml
[advisory]
id = "RUSTSEC-2026-9999"
package = "{package}"
date = "2026-01-01"

[versions]
patched = []
```

# A made-up advisory

It describes no real problem.
"""


def load_sbom():
    spec = importlib.util.spec_from_file_location("sbom", os.path.join(TOOLS, "sbom.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@unittest.skipUnless(shutil.which("cargo-deny"), "cargo-deny is not installed")
class DenyTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.database = directory.name

    def deny(self, **environment):
        done = subprocess.run([os.path.join(TOOLS, "deny.sh")], env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, universal_newlines=True, timeout=DEADLINE_SECONDS)
        return done.returncode, done.stdout

    def advise_against(self, package):
        path = os.path.join(self.database, "crates", package)
        os.makedirs(path)
        with open(os.path.join(path, "RUSTSEC-2026-9999.md"), "w", encoding="utf-8") as file:
            file.write(ADVISORY.format(package=package))
        for command in (["init", "--quiet"], ["add", "--all"], ["-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message=test"]):
            subprocess.run(["git", "-C", self.database] + command, check=True, stdin=subprocess.DEVNULL)

    def test_advisory_on_a_dependency_fails(self):
        self.advise_against("tonic")
        code, text = self.deny(ADVISORY_DB=self.database)
        self.assertEqual(code, 1, text)
        self.assertRegex(text, r"(?s)RUSTSEC-2026-9999.*tonic v.*advisories FAILED")

    def test_advisory_on_another_crate_passes(self):
        self.advise_against("left-pad")
        code, text = self.deny(ADVISORY_DB=self.database)
        self.assertEqual(code, 0, text)
        self.assertIn("advisories ok", text)

    def test_unreachable_database_is_one_sentence(self):
        refused = "http://127.0.0.1:1"
        code, text = self.deny(ADVISORY_DB="", https_proxy=refused, HTTPS_PROXY=refused, ALL_PROXY=refused)
        self.assertEqual(code, 0, text)
        self.assertEqual(len(re.findall(r"(?m)^deny: advisories were not checked, because their database could not be fetched: \S.*$", text)), 1, text)
        self.assertIn("licenses ok", text)


class SbomTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not shutil.which("cargo"):
            raise unittest.SkipTest("cargo is not installed")
        with tempfile.TemporaryDirectory() as directory:
            cls.path = os.path.join(directory, "sbom.json")
            texts = []
            for _ in range(2):
                done = subprocess.run([sys.executable, os.path.join(TOOLS, "sbom.py"), "--output", cls.path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, universal_newlines=True, timeout=DEADLINE_SECONDS)
                if done.returncode != 0:
                    raise AssertionError(done.stdout)
                with open(cls.path, encoding="utf-8") as file:
                    texts.append(file.read())
        cls.texts = texts
        cls.bom = json.loads(texts[0])
        cls.components = {component["bom-ref"]: component for component in cls.bom["components"]}

    def named(self, name):
        component, = (one for one in self.components.values() if one["name"] == name)
        return component

    def test_is_reproducible_cyclonedx(self):
        self.assertEqual(self.texts[0], self.texts[1])
        self.assertEqual((self.bom["bomFormat"], self.bom["specVersion"], self.bom["version"]), ("CycloneDX", "1.5", 1))
        self.assertRegex(self.bom["serialNumber"], r"^urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
        program = self.bom["metadata"]["component"]
        self.assertEqual((program["type"], program["name"]), ("application", "visage"))
        self.assertEqual(len(self.components), len(self.bom["components"]))

    def test_every_reference_exists_and_every_component_is_reachable(self):
        root = self.bom["metadata"]["component"]["bom-ref"]
        graph = {entry["ref"]: entry["dependsOn"] for entry in self.bom["dependencies"]}
        self.assertEqual(set(graph), set(self.components) | {root})
        self.assertLessEqual({one for below in graph.values() for one in below}, set(graph))
        found, waiting = {root}, [root]
        while waiting:
            for one in graph[waiting.pop()]:
                if one not in found:
                    found.add(one)
                    waiting.append(one)
        self.assertEqual(found, set(graph))

    def test_crates_have_the_checksums_and_versions_of_the_lock_file(self):
        with open(os.path.join(REPOSITORY, "Cargo.lock"), encoding="utf-8") as file:
            lock = file.read()
        for name in ("tonic", "tokio", "rustls"):
            component = self.named(name)
            block = '[[package]]\nname = "{}"\nversion = "{}"\n'.format(name, component["version"])
            self.assertIn(block, lock)
            self.assertIn('checksum = "{}"'.format(component["hashes"][0]["content"]), lock[lock.index(block):][:300])
            self.assertNotIn("scope", component)
        crates = [component for component in self.components.values() if component["purl"].startswith("pkg:cargo/")]
        self.assertEqual([component["name"] for component in crates if "licenses" not in component], [])
        self.assertFalse(any("/" in component["licenses"][0]["expression"] for component in crates))

    def test_build_tools_are_excluded_and_test_tools_are_absent(self):
        self.assertEqual(self.named("cc")["scope"], "excluded")
        self.assertEqual(self.named("serde_derive")["scope"], "excluded")
        self.assertNotIn("rcgen", {component["name"] for component in self.components.values()})

    def test_packages_of_the_dashboard_are_those_of_its_lock_file(self):
        with open(os.path.join(REPOSITORY, "src", "dashboard", "web", "package.json"), encoding="utf-8") as file:
            package = json.load(file)
        with open(os.path.join(REPOSITORY, "src", "dashboard", "web", "package-lock.json"), encoding="utf-8") as file:
            lock = json.load(file)["packages"]
        npm = {component["name"]: component for component in self.components.values() if component["purl"].startswith("pkg:npm/")}
        for name, version in package["dependencies"].items():
            self.assertEqual(npm[name]["version"], version)
            digest = base64.b64decode(lock["node_modules/" + name]["integrity"].split("-", 1)[1]).hex()
            self.assertEqual(npm[name]["hashes"], [{"alg": "SHA-512", "content": digest}])
        self.assertFalse(set(package["devDependencies"]) & set(npm))
        self.assertEqual(npm["@bufbuild/protobuf"]["purl"], "pkg:npm/%40bufbuild/protobuf@" + package["dependencies"]["@bufbuild/protobuf"])

    def test_libtorch_has_the_hashes_that_the_set_up_enforces(self):
        component = self.named("torch")
        with open(os.path.join(TOOLS, "libtorch", "cpu.txt"), encoding="utf-8") as file:
            expected = re.findall(r"sha256:(\w+)", re.search(r"(?s)torch===.*?(?=\nnvidia)", file.read()).group(0))
        self.assertEqual([one["value"] for one in component["properties"]], expected)
        self.assertNotIn("scope", component)
        self.assertEqual(self.named("nvidia-cublas")["scope"], "optional")


class SbomPartsTest(unittest.TestCase):
    def test_reads_a_lock_file(self):
        lock = '[[package]]\nname = "a"\nversion = "1.0.0"\nsource = "x"\nchecksum = "00ff"\ndependencies = [\n "b",\n]\n\n[[package]]\nname = "b"\nversion = "2.0.0"\n'
        self.assertEqual(load_sbom().checksums(lock), {("a", "1.0.0"): "00ff"})

    def test_follows_only_the_given_kinds(self):
        sbom = load_sbom()
        edge = lambda package, kind: {"pkg": package, "dep_kinds": [{"kind": kind}]}
        nodes = {"root": {"deps": [edge("a", None), edge("b", "build"), edge("t", "dev")]}, "a": {"deps": [edge("c", None)]},
                 "b": {"deps": [edge("d", None)]}, "c": {"deps": []}, "d": {"deps": []}, "t": {"deps": []}}
        self.assertEqual(sbom.reachable(nodes, "root", sbom.is_linked), {"root", "a", "c"})
        self.assertEqual(sbom.reachable(nodes, "root", lambda package, kind: kind in (None, "build")), {"root", "a", "b", "c", "d"})

    def test_omits_development_packages(self):
        lock = {"packages": {"": {}, "node_modules/a": {"version": "1.0.0", "license": "MIT"}, "node_modules/b": {"version": "1.0.0", "dev": True},
                             "node_modules/a/node_modules/@x/c": {"version": "2.0.0", "license": "(MIT OR Apache-2.0)"}}}
        self.assertEqual([component["purl"] for component in load_sbom().npm_packages(lock)], ["pkg:npm/a@1.0.0", "pkg:npm/%40x/c@2.0.0"])


if __name__ == "__main__":
    unittest.main()
