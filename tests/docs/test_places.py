"""The pages that tell a life step by step name functions and classes that are there."""

import importlib
import re
from types import ModuleType

import pytest

from tests.deploy.handbook import DOCS

LIVES = ("redemption.md", "access-grant-life.md")


def places(page: str) -> list[str]:
    """What the third of four columns names, of every step."""
    rows = re.findall(r"^\| \d+ \|[^|]+\|([^|]+)\|", (DOCS / page).read_text(), re.MULTILINE)
    return [place for cell in rows for place in re.findall(r"`([a-z_]+\.[\w.]+)`", cell)]


def found(place: str) -> object:
    """The module, or what stands in it."""
    here: object = importlib.import_module("app")
    name = "app"
    for word in place.split("."):
        name = f"{name}.{word}"
        if isinstance(here, ModuleType) and not hasattr(here, word):
            importlib.import_module(name)
        here = getattr(here, word)
    return here


@pytest.mark.parametrize("page", LIVES)
def test_what_takes_a_step_is_there(page: str) -> None:
    named = places(page)
    assert len(named) > 5
    for place in named:
        assert found(place) is not None, place
