"""What is made from the program and from other files is as fresh as they are."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from app import __version__
from helm.writing import CHART, COPIES, DEPLOY, MANIFESTS, PLAIN, described, written
from tests.helm.rendering import NAMES, each_example, example, helm

FRESH = "`make manifests` writes it anew"


def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return found


def values() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return found


def test_every_file_that_is_made_is_as_it_would_be_made_now() -> None:
    for path, text in written(manifests=False).items():
        assert path.read_text() == text, f"{path.name} is old: {FRESH}"


def test_the_plain_manifests_are_as_they_would_be_rendered_now() -> None:
    helm()
    made = {
        path: text for path, text in written(manifests=True).items() if path.parent == MANIFESTS
    }
    assert set(made) == set(MANIFESTS.iterdir())
    for path, text in made.items():
        assert path.read_text() == text, f"{path.name} is old: {FRESH}"


def test_the_chart_has_nothing_that_is_not_made_from_what_is_there() -> None:
    crds = {path.name for path in (CHART / "files" / "crds").iterdir()}
    assert crds == {path.name for path in (DEPLOY / "crds").iterdir()}
    copies = {path.name for path in (CHART / "files").iterdir() if path.is_file()}
    assert copies == {Path(name).name for name in COPIES}
    assert set(PLAIN) <= set(NAMES)


def test_the_versions_are_those_of_the_server() -> None:
    told = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert told["version"] == told["appVersion"] == __version__


def test_every_value_has_a_comment() -> None:
    text = (CHART / "values.yaml").read_text()
    found = {one.name: one for one in described(text)}
    lacking = [
        name
        for name in leaves(values())
        if not any(
            upper in found and found[upper].comment
            for upper in (name, *uppers(name, of_one_comment={"probes", "resources"}))
        )
    ]
    assert lacking == []
    readme = (CHART / "README.md").read_text()
    for name in leaves(values()):
        assert any(f"| `{one}` |" in readme for one in (name, *uppers(name)))


def leaves(tree: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key, value in tree.items():
        name = f"{path}.{key}".lstrip(".")
        found += leaves(value, name) if isinstance(value, dict) and value else [name]
    return found


def uppers(name: str, of_one_comment: set[str] | None = None) -> list[str]:
    parts = name.split(".")
    if of_one_comment is not None and parts[0] not in {*of_one_comment, "metrics"}:
        return []
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def test_the_schema_knows_all_values_and_no_others() -> None:
    def walk(value: dict[str, Any], shape: dict[str, Any], path: str) -> None:
        if shape.get("additionalProperties") is not False:
            return
        unknown = set(value) ^ (set(shape["properties"]) - {"global", "claims"})
        unknown -= {"initialDelaySeconds", "successThreshold"}
        assert not unknown, path
        for key, one in value.items():
            if isinstance(one, dict):
                walk(one, shape["properties"][key], f"{path}.{key}")

    walk(values(), schema(), "")


def test_the_defaults_are_what_the_schema_takes() -> None:
    jsonschema.Draft7Validator.check_schema(schema())
    jsonschema.Draft7Validator(schema()).validate(values())


@each_example
def test_examples_are_what_the_schema_takes_and_say_what_they_are_for(name: str) -> None:
    jsonschema.Draft7Validator(schema()).validate(example(name))
    text = (CHART.parent / "examples" / f"{name}.yaml").read_text()
    assert text.startswith("# ")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"replica": 1}, "replica"),
        ({"replicas": "two"}, "replicas"),
        ({"config": {"limit": {}}}, "limit"),
        ({"config": {"limits": {"peers": 1}}}, "peers"),
        ({"config": {"limits": {"connections": 3}}}, "connections"),
        ({"config": {"limits": {"peer_failures": "many"}}}, "peer_failures"),
        ({"config": {"exposure": {"type": "tunnel"}}}, "type"),
        ({"config": {"database": {"url": "postgresql://x"}}}, "url"),
        ({"config": {"kubernetes": {"namespaces": "west"}}}, "namespaces"),
        ({"database": {"type": "mysql"}}, "type"),
        ({"database": {"url": "mysql://x"}}, "url"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"openshift": "yes"}, "openshift"),
        ({"metrics": {"serviceMonitor": {"interval": 30}}}, "interval"),
        ({"extraEnv": [{"value": "x"}]}, "extraEnv"),
    ],
)
def test_helm_refuses_what_the_schema_does_not_know(given: dict[str, Any], named: str) -> None:
    found = helm()
    with found.Chart.load(CHART) as chart, pytest.raises(found.HelmError) as caught:
        chart.validate_schema(given)
    assert named in str(caught.value)
