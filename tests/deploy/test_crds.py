"""Our own definitions of Skupper's kinds: that they make sense, and agree with Skupper's.

The reference is a folder with the definitions that Skupper installs, which SKUPPER_CRDS names.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kube.fake import kinds

CRDS = Path(__file__).parents[2] / "deploy" / "crds"
VARIABLE = "SKUPPER_CRDS"
ABSENT = f"nothing to compare with: {VARIABLE} does not name a folder with Skupper's definitions"

NAMES: Mapping[str, Mapping[str, Any]] = {
    "accessgrants": {"kind": "AccessGrant", "shortNames": ["grant", "gr"]},
    "accesstokens": {"kind": "AccessToken", "shortNames": ["token", "to"]},
    "links": {"kind": "Link", "shortNames": ["ln"]},
    "sites": {"kind": "Site", "shortNames": ["st"]},
}
COLUMNS = {
    "accessgrants": [
        "Redemptions Allowed",
        "Redemptions Made",
        "Expiration",
        "Status",
        "Message",
    ],
    "accesstokens": ["URL", "Redeemed", "Status", "Message"],
    "links": ["Status", "Remote Site", "Message"],
    "sites": ["Status", "Sites In Network", "Message"],
}
# What is otherwise than in the reference, and why: (definition, path) -> reason.
ON_PURPOSE: Mapping[tuple[str, str], str] = {}


def definition(plural: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    return found


def version(found: Mapping[str, Any]) -> dict[str, Any]:
    (one,) = found["spec"]["versions"]
    assert isinstance(one, dict)
    return one


def reference() -> dict[str, dict[str, Any]]:
    """Skupper's definitions by their plural names."""
    folder = os.environ.get(VARIABLE)  # noqa: TID251 - a test's own
    if not folder:
        pytest.skip(ABSENT)
    found = [yaml.safe_load(path.read_text()) for path in sorted(Path(folder).glob("*.yaml"))]
    assert found, f"there is no definition in {folder}"
    return {one["spec"]["names"]["plural"]: one for one in found}


def flat(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every rule in a definition by its path; words for people and the order are no rules."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name != "description" or not isinstance(one, str):
                yield from flat(one, f"{at}.{name}" if at else name)
        if not value:
            yield at, {}
    elif isinstance(value, list) and all(isinstance(one, str) for one in value):
        # Of `required`, `enum` and short names the order means nothing.
        yield at, sorted(value)
    elif isinstance(value, list):
        for one in value:
            yield from flat(one, f"{at}[{one.get('name')}]")
    else:
        yield at, value


def test_there_is_one_file_for_each_kind() -> None:
    assert {path.name for path in CRDS.iterdir()} == {f"{plural}.yaml" for plural in NAMES}


@pytest.mark.parametrize("plural", NAMES)
def test_a_definition_is_structural_and_says_what_it_is(plural: str) -> None:
    found = definition(plural)
    kind = kinds.defined(found)
    assert (kind.group, kind.version, kind.plural) == ("skupper.io", "v2alpha1", plural)
    assert kind.kind == NAMES[plural]["kind"]
    assert kind.singular == kind.kind.lower()
    assert list(kind.short_names) == NAMES[plural]["shortNames"]
    assert kind.namespaced
    assert kind.has_status
    assert found["metadata"] == {"name": f"{plural}.skupper.io"}


@pytest.mark.parametrize("plural", NAMES)
def test_the_columns_are_those_of_the_contract_and_show_what_there_is(plural: str) -> None:
    found = version(definition(plural))
    columns = found["additionalPrinterColumns"]
    assert [one["name"] for one in columns] == COLUMNS[plural]
    for column in columns:
        at = found["schema"]["openAPIV3Schema"]
        for step in column["jsonPath"].strip(".").split("."):
            at = at["properties"][step]
        assert at["type"] == column["type"], column["name"]


@pytest.mark.parametrize("plural", NAMES)
def test_every_field_of_the_first_order_is_explained(plural: str) -> None:
    schema = version(definition(plural))["schema"]["openAPIV3Schema"]
    assert schema["description"]
    for part in ("spec", "status"):
        for name, one in schema["properties"][part]["properties"].items():
            assert one.get("description"), f"{part}.{name}"


@pytest.mark.parametrize("plural", NAMES)
def test_each_rule_is_the_same_as_in_the_reference(plural: str) -> None:
    theirs, ours = reference().get(plural), definition(plural)
    assert theirs is not None, f"{plural} is not in the reference"
    wanted, found = dict(flat(theirs["spec"])), dict(flat(ours["spec"]))
    differences = {
        path: (wanted.get(path), found.get(path))
        for path in wanted.keys() | found.keys()
        if wanted.get(path) != found.get(path)
    }
    expected = {path for name, path in ON_PURPOSE if name == plural}
    assert differences.keys() == expected, differences
    assert theirs["metadata"]["name"] == ours["metadata"]["name"]


@pytest.mark.parametrize("plural", NAMES)
def test_the_words_are_our_own(plural: str) -> None:
    theirs, ours = reference()[plural], definition(plural)

    def words(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for name, one in value.items():
                if name == "description" and isinstance(one, str):
                    yield " ".join(one.split())
                else:
                    yield from words(one)
        elif isinstance(value, list):
            for one in value:
                yield from words(one)

    assert set(words(theirs)) & set(words(ours)) == set()


def test_the_comparison_would_see_a_difference() -> None:
    """A test of the test: each part of a definition that means something is compared."""
    base = definition("accessgrants")["spec"]
    changed = definition("accessgrants")["spec"]
    schema = changed["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    schema["spec"]["properties"]["redemptionsAllowed"]["type"] = "string"
    schema["spec"]["properties"]["code"]["default"] = "x"
    schema["status"]["properties"]["conditions"]["items"]["required"].pop()
    schema["spec"]["properties"]["more"] = {"type": "string"}
    changed["versions"][0]["additionalPrinterColumns"][0]["jsonPath"] = ".spec.code"
    changed["names"]["shortNames"].append("g")
    changed["scope"] = "Cluster"
    before, after = dict(flat(base)), dict(flat(changed))
    seen = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert len(seen) == 7
