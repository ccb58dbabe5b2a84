"""The files of the chart, and beside it, that are made from others; where they are written is said.

Everything that Helm does itself, and all that is written by hand, is no matter of this module.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from app import __version__
from helm.settings import as_schema, as_yaml

HERE: Final = Path(__file__).parent
CHART: Final = HERE / "grantserver"
EXAMPLES: Final = HERE / "examples"
DEPLOY: Final = HERE.parent / "deploy"
MANIFESTS: Final = DEPLOY / "manifests"
COPIES: Final = ("monitoring/alerts.yaml", "monitoring/dashboard.json")
PLAIN: Final = ("sqlite", "cluster-wide", "postgresql", "connecting")
"""The examples that are rendered for those who have no Helm."""

_CONFIG: Final = (
    "# The settings of the server (docs/settings.md), by their names in its file. Texts may be\n"
    "# templates. Made by `python -m helm`.\n"
)
_KEY: Final = re.compile(r"(?P<indent> *)(?P<name>[A-Za-z_]+):(?: (?P<default>.*))?")
_OF_HELM: Final = re.compile(
    r"^ *(helm\.sh/|app\.kubernetes\.io/managed-by:|# Source:).*\n", re.MULTILINE
)
_LAST: Final = ("deployment.yaml", "availability.yaml")
_PLACEHOLDER: Final = "registry.example.com/grantserver"


class Described(NamedTuple):
    """A value of the chart as its file has it."""

    name: str
    default: str
    comment: str


def written(*, manifests: bool) -> dict[Path, str]:
    """Give every file that is made, by its path; the manifests take Helm."""
    values = CHART / "values.yaml"
    by_hand = values.read_text(encoding="utf-8").partition(_CONFIG)[0]
    text = by_hand + _CONFIG + as_yaml()
    files = {values: text, CHART / "README.md": _readme(text)}
    schema = CHART / "values.schema.json"
    told = json.loads(schema.read_text(encoding="utf-8"))
    told["properties"]["config"] = as_schema()
    files[schema] = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    about = CHART / "Chart.yaml"
    files[about] = re.sub(
        r"(?m)^(version|appVersion): .*$",
        rf"\1: {__version__}",
        about.read_text(encoding="utf-8"),
    )
    for source in sorted((DEPLOY / "crds").glob("*.yaml")):
        files[CHART / "files" / "crds" / source.name] = source.read_text(encoding="utf-8")
    for name in COPIES:
        source = DEPLOY / name
        files[CHART / "files" / source.name] = source.read_text(encoding="utf-8")
    if manifests:
        files |= {MANIFESTS / f"{name}.yaml": plain(name) for name in PLAIN}
    return files


def described(text: str) -> Iterator[Described]:
    """Read the comments and defaults of a file of values, which this chart's are written for."""
    path: list[str] = []
    comment: list[str] = []
    lines = text.splitlines()
    for index, line in enumerate(lines):
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
            continue
        key = _KEY.fullmatch(line)
        if key:
            depth = len(key["indent"]) // 2
            path[depth:] = [key["name"]]
            default = key["default"] or ""
            if not default and not _has_comments(lines[index + 1 :], len(key["indent"])):
                default = json.dumps(_at(yaml.safe_load(text), path))
            if comment or default:
                yield Described(".".join(path), default, " ".join(comment))
        comment = []


def _has_comments(rest: list[str], indent: int) -> bool:
    """Whether what is within a key is described itself."""
    for line in rest:
        if len(line) - len(line.lstrip()) <= indent:
            return False
        if line.strip().startswith("#"):
            return True
    return False


def _at(tree: Any, path: list[str]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _readme(values: str) -> str:
    rows = [
        f"| `{one.name}` | {_cell(one.default)} | {one.comment.replace('|', chr(92) + '|')} |"
        for one in described(values)
        if one.default and one.comment
    ]
    return "\n".join(
        [
            "# The chart of GrantServer",
            "",
            "How it is installed stands in [docs/helm.md](../../docs/helm.md), with examples in",
            "[helm/examples](../examples). This table is made from the values by `python -m helm`.",
            "",
            "| value | default | meaning |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _cell(default: str) -> str:
    return "" if default in {'""', "''"} else f"`{default}`"


def plain(name: str) -> str:
    """Render an example for those who have no Helm, without what only Helm reads."""
    from helm_python import Chart  # noqa: PLC0415 - large, and only here

    values = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"))
    values["image"] = {"repository": _PLACEHOLDER}
    values["crds"] = {"create": False}  # these would be replaced: `kubectl create -f deploy/crds`
    with Chart.load(CHART) as chart:
        rendered = chart.render(values, name="grantserver", namespace="grantserver")
    documents = [
        document.strip("\n")
        for path, text in sorted(rendered.items(), key=_place)
        if not path.endswith("NOTES.txt")
        for document in re.split(r"(?m)^---\n", text)
        if yaml.safe_load(document)
    ]
    head = f"# Made from helm/examples/{name}.yaml by `make manifests`.\n"
    joined = head + "".join(f"---\n{one}\n" for one in documents)
    return _without_empty(_OF_HELM.sub("", joined))


def _place(rendered: tuple[str, str]) -> tuple[bool, str]:
    """What others need comes before them."""
    path, _ = rendered
    return path.endswith(_LAST), path


def _without_empty(text: str) -> str:
    """Take away `annotations:` that nothing follows in."""
    lines = text.splitlines()
    kept = [
        line
        for line, after in zip(lines, [*lines[1:], ""], strict=True)
        if not (line.strip() == "annotations:" and _indent(after) <= _indent(line))
    ]
    return "\n".join(kept) + "\n"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
