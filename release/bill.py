"""The bill of materials (CycloneDX) of what a server runs with, and the licences in it.

Names, versions and hashes are those of `requirements.lock`; licences are what the installed
packages say of themselves. What says nothing, or something that is not accepted, stops the release.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

ACCEPTED: Final = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0"),
        *("MPL-2.0", "PSF-2.0", "Python-2.0"),
        "LGPL-3.0-only",  # psycopg: used as a library that anybody may replace
    }
)
"""Licences (SPDX) under which what we ship may be passed on beside an Apache-2.0 program."""

_CLASSIFIED: Final = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
_NAMED: Final = {"3-Clause BSD License": "BSD-3-Clause"}
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_WORD: Final = re.compile(r"[A-Za-z0-9.+-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A package as the lock names it; `hashes` are SHA-256 of the files that are accepted."""

    name: str
    version: str
    hashes: Sequence[str]


def pinned(lock: str) -> Sequence[Pinned]:
    """Read a lock as pip-compile and uv write it."""
    found = list(_PINNED.finditer(lock))
    ends = [one.start() for one in found[1:]] + [len(lock)]
    return [
        Pinned(name=normal(one[1]), version=one[2], hashes=_HASH.findall(lock[one.start() : end]))
        for one, end in zip(found, ends, strict=True)
    ]


def normal(name: str) -> str:
    """Write the name of a package as all tools compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, Any]:
    """Give the bill of everything that is installed beside this program (CycloneDX, as JSON)."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    done = subprocess.run(  # noqa: S603 - a program of ours
        [tool, "environment", "--output-reproducible", "--of", "JSON", sys.prefix],
        check=True,
        capture_output=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def bill(
    everything: Mapping[str, Any], wanted: Iterable[Pinned], *, version: str
) -> dict[str, Any]:
    """Give the bill of the wanted packages alone, as far as they are installed here.

    Some are for other platforms or releases of Python. Raises ValueError where another version is
    installed than the lock says.
    """
    by_name = {normal(one["name"]): one for one in everything["components"]}
    kept: list[dict[str, Any]] = []
    for one in wanted:
        component = by_name.get(one.name)
        if component is None:
            continue
        if component["version"] != one.version:
            raise ValueError(
                f"{one.name} is {component['version']} here, {one.version} in the lock"
            )
        hashes = [{"alg": "SHA-256", "content": digest} for digest in one.hashes]
        kept.append({**component, "properties": _files(hashes)})
    references = {one["bom-ref"] for one in kept}
    return {
        **everything,
        "metadata": {
            **everything["metadata"],
            "component": {
                "type": "application",
                "name": "grantserver",
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": sorted(kept, key=lambda one: str(one["bom-ref"])),
        "dependencies": [
            {**one, "dependsOn": [ref for ref in one.get("dependsOn", ()) if ref in references]}
            for one in everything["dependencies"]
            if one["ref"] in references
        ],
    }


def licences(component: Mapping[str, Any]) -> frozenset[str]:
    """Tell under which licences (SPDX) a package is; empty where it does not say.

    Where it says so in several ways, exact ones count and not classes of them.
    """
    said = [
        str(one.get("expression") or one["license"].get("id") or one["license"].get("name"))
        for one in component.get("licenses", ())
    ]
    exact = [one for one in said if one not in _CLASSIFIED]
    chosen = exact or [_CLASSIFIED[one] for one in said] or _of_files(component["name"])
    words = {word for one in chosen for word in _WORD.findall(one)}
    return frozenset(words - {"AND", "OR", "WITH"})


def problems(made: Mapping[str, Any]) -> list[str]:
    """Name the packages of a bill whose licences are not accepted, or not known."""
    found = []
    for component in made["components"]:
        theirs = licences(component)
        if not theirs:
            found.append(f"{component['name']} does not say under which licence it is")
        elif wrong := theirs - ACCEPTED:
            names = ", ".join(sorted(wrong))
            found.append(f"{component['name']} is under {names}, which nobody has accepted")
    return found


def _files(hashes: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Note the files that are accepted: the component's own hashes would be of one of them."""
    return [{"name": "grantserver:accepted-sha256", "value": one["content"]} for one in hashes]


def _of_files(name: str) -> list[str]:
    """Read the kind of a licence from the metadata where it is a text of its own."""
    try:
        said = str(metadata.metadata(name).json.get("license", ""))
    except metadata.PackageNotFoundError:
        return []
    said = _NAMED.get(said, said)
    return [said] if said in ACCEPTED else []
