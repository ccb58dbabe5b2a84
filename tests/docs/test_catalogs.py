"""What the documentation lists is what the program has: no more, no less."""

import re
from pathlib import Path

import pytest

from app import metrics, settings
from app.domain.self_check import Outcome
from app.errors import Lack, Reason
from app.metrics import Certificate, Delivering, Pruned, Trouble
from app.web.wire import BROKEN, LACKS, REFUSALS, UNAVAILABLE

DOCS = Path(__file__).parent.parent.parent / "docs"


def rows(name: str, columns: int) -> list[tuple[str, ...]]:
    """The cells of all table rows of a page that have so many columns, without the headings."""
    found = []
    for line in (DOCS / name).read_text().splitlines():
        if line.startswith("| "):
            cells = tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            if len(cells) == columns and cells[0].startswith("`"):
                found.append(cells)
    return found


def test_every_setting_is_documented_as_it_is() -> None:
    assert rows("settings.md", 4) == [
        (f"`{environment}`", f"`{toml}`", f"`{default}`" if default else "", meaning)
        for environment, toml, default, meaning in settings.catalog()
    ]


def test_every_metric_is_documented_as_it_is() -> None:
    assert rows("metrics.md", 4) == [
        (f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), meaning)
        for name, kind, labels, meaning in metrics.catalog()
    ]


@pytest.mark.parametrize(
    "value", [*Reason, *Lack, *Trouble, *Certificate, *Pruned, *Outcome, *Delivering]
)
def test_every_label_value_is_documented(value: str) -> None:
    assert f"`{value}`" in (DOCS / "metrics.md").read_text()


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_of_the_self_check_is_documented_with_what_to_do(outcome: Outcome) -> None:
    cells = [row for row in rows("endpoints.md", 3) if row[0] == f"`{outcome}`"]
    assert len(cells) == 1
    assert all(cells[0])


def test_every_refusal_is_documented_with_its_status_and_text() -> None:
    page = (DOCS / "endpoints.md").read_text()
    documented = set(re.findall(r"^\| (\d{3}) \| `([^`]+)` \|", page, re.MULTILINE))
    answers = [*REFUSALS.values(), *LACKS.values(), UNAVAILABLE, BROKEN]
    assert documented == {(str(answer.status), answer.text) for answer in answers}


@pytest.mark.parametrize(
    "endpoint",
    [
        *("POST /<grant>", "POST /<site>/<grant name>", "GET /<grant>"),
        *("GET /healthz", "GET /readyz", "GET /metrics"),
    ],
)
def test_every_endpoint_is_documented(endpoint: str) -> None:
    assert f"`{endpoint}`" in (DOCS / "endpoints.md").read_text()


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
