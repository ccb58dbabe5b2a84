"""What the page about the chart tells is what the chart does."""

import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from app import __version__
from helm.settings import OF_THE_CHART
from helm.writing import CHART, MANIFESTS, PLAIN
from tests.deploy.handbook import DOCS, blocks, rows, section
from tests.helm.rendering import NAMES, rendered
from tests.helm.test_files import schema, values

PAGE = (DOCS / "helm.md").read_text()


def test_every_example_is_listed() -> None:
    assert sorted(name.strip("`") for name, _ in rows("Examples", PAGE)) == NAMES


@pytest.mark.parametrize("block", blocks("yaml", PAGE))
def test_values_on_the_page_are_such_as_the_chart_takes(block: str) -> None:
    given = yaml.safe_load(block)
    jsonschema.Draft7Validator(schema()).validate(given)
    assert rendered(given)


def test_values_that_are_named_are_there() -> None:
    known = values()
    named = re.findall(r"`([A-Za-z]+(?:\.[A-Za-z_]+)+)(?:[=`])", PAGE)
    named += re.findall(r"--set ([A-Za-z.]+)=", PAGE)
    found = [name for name in named if name.split(".")[0] in {*known, *known["config"]}]
    assert len(found) > 15
    for name in found:
        assert is_there(known, name) or is_there(known["config"], name), name


def is_there(tree: Any, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def test_the_defaults_of_the_chart_are_all_told() -> None:
    told = section("Settings", PAGE)
    for name in OF_THE_CHART:
        if name != "kubernetes.token_namespaces":  # it is what the server has too
            assert f"`{name}`" in told


def test_the_plain_manifests_are_named_as_they_are() -> None:
    told = section("Without Helm", PAGE)
    assert f"registry.example.com/grantserver:{__version__}|" in told
    assert len(list(MANIFESTS.iterdir())) == len(PLAIN) == 4
    assert "four of the examples" in told
    for path in MANIFESTS.iterdir():
        assert f"image: registry.example.com/grantserver:{__version__}\n" in path.read_text()


def test_the_page_says_which_kubernetes_it_takes() -> None:
    told = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    (least,) = re.findall(r"the rest of the chart takes ([0-9.]+[0-9])", PAGE)
    assert told == f">={least}.0-0"
