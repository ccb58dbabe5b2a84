"""The page of the admin API lists what the description has: no more, no less."""

import re
from pathlib import Path
from typing import Any

import pytest

from app.api.problems import KINDS
from app.web.admin.application import create_app
from app.web.admin.office import PREFIX, Office

PAGE = (Path(__file__).parent.parent.parent / "docs" / "admin-api.md").read_text()
METHODS = {"get", "put", "post", "patch", "delete"}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    office: Any = Office.__new__(Office)  # nobody asks it anything
    object.__setattr__(office, "version", "1")
    return create_app(office).openapi()


def test_every_operation_is_documented(described: dict[str, Any]) -> None:
    documented = re.findall(r"^\| `(\w+)` \| `([A-Z]+) ([^`]+)` \|", PAGE, re.MULTILINE)
    assert {
        (name, method, re.sub("<(.+?)>", r"{\1}", path)) for name, method, path in documented
    } == {
        (operation["operationId"], method.upper(), path.removeprefix(PREFIX))
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    }


def test_every_problem_is_documented_with_its_status() -> None:
    documented = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert documented == {(str(about.status), kind.value) for kind, about in KINDS.items()}
