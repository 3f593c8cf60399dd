#!/usr/bin/env python3
"""Writes the software bill of materials of the program as CycloneDX 1.5 JSON.

`make sbom` runs this. It lists

* the crates that are linked into the program on this platform, and, with the scope `excluded`, those that run during the build;
* the npm packages of the dashboard, which is part of the program;
* libtorch and the packages that it is linked to.

Everything comes from the lock files and from `cargo metadata`, without network access. The result depends on them alone,
so that two builds of a commit have equal files.
"""

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import urllib.parse
import uuid

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = "visage"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "visage sbom")


class SbomError(Exception):
    """An error with a message of one sentence for the user."""


def main():
    parser = argparse.ArgumentParser(description="Writes the bill of materials of the program as CycloneDX JSON.")
    parser.add_argument("--output", default="-", help="file to write (default: standard output)")
    parser.add_argument("--target", help="platform, such as aarch64-unknown-linux-gnu (default: this one)")
    arguments = parser.parse_args()
    metadata = cargo_metadata(arguments.target)
    crates, root, graph = linked_crates(metadata, checksums(read("Cargo.lock")))
    npm = npm_packages(json.loads(read("src/dashboard/web/package-lock.json")))
    pypi = [component for name in ("cpu", "gpu") for component in pypi_packages(read("deploy/tools/libtorch/{}.txt".format(name)), name)]
    document = bom(root, crates + npm + unique(pypi), graph)
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    if arguments.output == "-":
        sys.stdout.write(text)
        return
    partial = arguments.output + ".partial"
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(partial, arguments.output)
    print("{}: {} components".format(arguments.output, len(document["components"])))


def read(name):
    with open(os.path.join(REPOSITORY, name), encoding="utf-8") as file:
        return file.read()


def cargo_metadata(target):
    host = re.search(r"^host: (\S+)", output(["rustc", "-vV"]), re.M)
    target = target or (host and host.group(1))
    return json.loads(output(["cargo", "metadata", "--locked", "--format-version", "1"] + (["--filter-platform", target] if target else [])))


def output(command):
    try:
        done = subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True)
    except OSError as error:
        raise SbomError("failed to run {}: {}".format(command[0], error.strerror))
    if done.returncode != 0:
        raise SbomError("failed to run `{}`: {}".format(" ".join(command), (done.stderr.strip().splitlines() or ["no message"])[-1]))
    return done.stdout


def checksums(lock):
    """SHA-256 by name and version."""
    blocks = re.findall(r"\[\[package\]\]\n(.*?)(?:\n\n|\Z)", lock, re.S)
    fields = [dict(re.findall(r'^(name|version|checksum) = "([^"]*)"', block, re.M)) for block in blocks]
    return {(block["name"], block["version"]): block["checksum"] for block in fields if "checksum" in block}


def linked_crates(metadata, known):
    """Returns the components of the program's dependencies, the program, and the graph by reference."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    roots = [package["id"] for package in metadata["packages"] if package["name"] == PROGRAM and package["source"] is None]
    if len(roots) != 1:
        raise SbomError("the workspace has {} packages {}, expected one".format(len(roots), PROGRAM))
    root = roots[0]
    linked = reachable(nodes, root, is_linked)
    built = reachable(nodes, root, lambda package, kind: kind in (None, "build"))
    components, graph = [], {}
    for package_id in sorted(built - {root}):
        package = packages[package_id]
        component = crate(package, known.get((package["name"], package["version"])))
        is_macro = any("proc-macro" in target["kind"] for target in package["targets"])
        if package_id not in linked or is_macro:
            component["scope"] = "excluded"
        components.append(component)
    for package_id in built:
        below = sorted({crate_reference(packages[edge["pkg"]]) for edge in nodes[package_id]["deps"] if edge["pkg"] in built})
        graph[crate_reference(packages[package_id])] = below
    return components, crate(packages[root], None), graph


def is_linked(package, kind):
    return kind is None


def reachable(nodes, root, follows):
    """Packages that dependencies of the given kinds lead to. Those of a build script are its own."""
    found, waiting = {root}, [root]
    while waiting:
        for edge in nodes[waiting.pop()]["deps"]:
            kinds = [entry["kind"] for entry in edge["dep_kinds"]]
            if edge["pkg"] not in found and any(follows(edge["pkg"], kind) for kind in kinds):
                found.add(edge["pkg"])
                waiting.append(edge["pkg"])
    return found


def crate_reference(package):
    return "pkg:cargo/{}@{}".format(package["name"], urllib.parse.quote(package["version"]))


def crate(package, checksum):
    component = library(crate_reference(package), package["name"], package["version"])
    if package.get("license"):
        # Old crates separate alternatives by a slash.
        component["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if checksum:
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return component


def npm_packages(lock):
    components = []
    for path, package in sorted(lock["packages"].items()):
        if path == "" or package.get("dev") or package.get("devOptional"):
            continue
        name = path.split("node_modules/")[-1]
        component = library("pkg:npm/{}@{}".format(urllib.parse.quote(name, safe="/"), package["version"]), name, package["version"])
        if package.get("license"):
            component["licenses"] = [{"expression": package["license"]}]
        algorithm, _, digest = package.get("integrity", "").partition("-")
        if algorithm == "sha512":
            component["hashes"] = [{"alg": "SHA-512", "content": base64.b64decode(digest).hex()}]
        components.append(component)
    return unique(components)


def pypi_packages(requirements, flavour):
    """Packages of pip's requirements; one hash for each machine."""
    components = []
    for entry in re.sub(r"\\\n", " ", requirements).splitlines():
        found = re.match(r"([\w.-]+)===?([\w.+-]+)", entry)
        if not found:
            continue
        name, version = found.groups()
        component = library("pkg:pypi/{}@{}".format(name.lower().replace("_", "-"), urllib.parse.quote(version)), name, version)
        component["properties"] = [{"name": "visage:wheel:sha256", "value": digest} for digest in re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)]
        if flavour == "gpu":
            component["scope"] = "optional"
        components.append(component)
    return components


def library(reference, name, version):
    return {"type": "library", "bom-ref": reference, "purl": reference, "name": name, "version": version}


def unique(components):
    """The first component of each reference."""
    found = {}
    for component in components:
        found.setdefault(component["bom-ref"], component)
    return list(found.values())


def bom(root, components, graph):
    program = dict(root, type="application")
    listed = {component["bom-ref"] for component in components}
    others = sorted(listed - set(graph))
    below = dict(graph)
    below[root["bom-ref"]] = sorted(set(below.get(root["bom-ref"], [])) | set(others))
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": program},
        "components": sorted(components, key=lambda component: component["bom-ref"]),
        "dependencies": [{"ref": reference, "dependsOn": below.get(reference, [])} for reference in sorted(listed | {root["bom-ref"]})],
    }
    document["serialNumber"] = "urn:uuid:{}".format(uuid.uuid5(NAMESPACE, json.dumps(document, sort_keys=True)))
    return document


if __name__ == "__main__":
    try:
        main()
    except SbomError as error:
        sys.exit("sbom: {}".format(error))
    except OSError as error:
        sys.exit("sbom: failed to use {}: {}".format(error.filename or "a file", error.strerror or error))
