"""The chart as Helm renders it, where Helm is at hand; tests that need it are skipped elsewhere."""

import functools
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import yaml

from helm.writing import CHART, EXAMPLES

Object = dict[str, Any]

ABSENT: Final = "no Helm as a library: `make chart-tools` installs it"
NAME: Final = "grantserver"
NAMESPACE: Final = "grantserver"
IMAGE: Final = {"repository": "registry.example.com/grantserver"}
LEAST: Final[Mapping[str, Any]] = {
    "image": IMAGE,
    "sealing": {"existingSecret": "grantserver-sealing"},
}
"""The least that has to be said."""
POSTGRESQL: Final = {"type": "postgresql", "existingSecret": "grantserver-database"}
NAMES: Final = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
each_example = pytest.mark.parametrize("name", NAMES)


def helm() -> ModuleType:
    """Give the library, or skip the test that asks for it."""
    found: ModuleType = pytest.importorskip("helm_python", reason=ABSENT)
    return found


def example(name: str) -> Object:
    """Read the values of an example."""
    values: Object = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    return values


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> Object:
    """Put values over others, as several files of them are."""
    result = deepcopy(dict(base))
    for key, value in change.items():
        before = result.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            result[key] = merged(before, value)
        else:
            result[key] = value
    return result


def rendered(
    values: Mapping[str, Any], *, name: str = NAME, namespace: str = NAMESPACE
) -> list[Object]:
    """Give the objects that the least values, and these over them, make."""
    return list(documents(files(merged(LEAST, values), name=name, namespace=namespace)))


def files(
    values: Mapping[str, Any], *, name: str = NAME, namespace: str = NAMESPACE
) -> dict[str, str]:
    """Give what each template makes."""
    made: dict[str, str] = _chart().render(dict(values), name=name, namespace=namespace)
    return made


def documents(made: Mapping[str, str]) -> Iterator[Object]:
    """Give the objects among them, in which no key comes twice."""
    for path, text in made.items():
        if not path.endswith("NOTES.txt"):
            yield from (one for one in yaml.load_all(text, _Strict) if one)


def notes(values: Mapping[str, Any]) -> str:
    """Give what is said after the installation."""
    made = files(merged(LEAST, values))
    return next(text for path, text in made.items() if path.endswith("NOTES.txt"))


def refusal(values: Mapping[str, Any]) -> str:
    """Give what Helm says to values that make no sense."""
    found = helm()
    with pytest.raises(found.HelmError) as caught:
        files(values)
    return str(caught.value)


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Give those of a kind."""
    return [one for one in objects if one["kind"] == kind]


def only(objects: list[Object], kind: str) -> Object:
    """Give the only one of a kind."""
    (found,) = of_kind(objects, kind)
    return found


def pod(objects: list[Object]) -> Object:
    """Give the specification of the pods."""
    spec: Object = only(objects, "Deployment")["spec"]["template"]["spec"]
    return spec


def settings_file(objects: list[Object]) -> str:
    """Give the text of the server's settings."""
    found = [one for one in of_kind(objects, "ConfigMap") if "grantserver.toml" in one["data"]]
    (config,) = found
    text: str = config["data"]["grantserver.toml"]
    tomllib.loads(text)
    return text


def chart_file(path: str) -> Path:
    """Give a file of the chart."""
    return CHART / path


@functools.cache
def _chart() -> Any:
    return helm().Chart.load(CHART)


class _Strict(yaml.CSafeLoader):
    """YAML in which a key that comes twice is an error, as the API server has it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key comes twice: {keys}"
        return super().construct_mapping(node, deep)
