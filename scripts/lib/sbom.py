"""Makes a software bill of materials (CycloneDX 1.5) of what `cargo metadata` prints: the package, and what is compiled
into its binary. Dependencies of tests and of builds alone are left out."""

import json
import sys

metadata = json.load(sys.stdin)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
root = metadata["resolve"]["root"]


def dependencies(package):
    kinds = lambda dependency: [kind["kind"] for kind in dependency["dep_kinds"]]
    return [dependency["pkg"] for dependency in nodes[package]["deps"] if None in kinds(dependency)]


found, left = {root}, [root]
while left:
    new = [package for package in dependencies(left.pop()) if package not in found]
    found.update(new)
    left.extend(new)


def component(package, kind):
    package = packages[package]
    reference = f"pkg:cargo/{package['name']}@{package['version']}"
    described = {
        "type": kind,
        "bom-ref": reference,
        "name": package["name"],
        "version": package["version"],
        "purl": reference,
    }
    if package["license"]:
        described["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return described


reference = lambda package: component(package, "library")["bom-ref"]
json.dump(
    {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(root, "application")},
        "components": [component(package, "library") for package in sorted(found - {root})],
        "dependencies": [
            {"ref": reference(package), "dependsOn": sorted(reference(on) for on in dependencies(package))}
            for package in sorted(found)
        ],
    },
    sys.stdout,
    indent=1,
)
print()
