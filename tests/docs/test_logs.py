"""`docs/logs.md` lists every event that a server writes, with its fields: no more, no less."""

import ast
from collections.abc import Iterator
from pathlib import Path

from app import logs
from tests.docs.test_catalogs import rows

APP = Path(__file__).parent.parent.parent / "app"
LEVELS = {"debug", "info", "warning", "error", "exception"}
# Under these names a level is chosen first, or what is told too often is held back.
CHOSEN = {"tell", "level", "write", "_tell"}
# Written in other words: the texts of a conditional expression that is given this name.
TOLD_LATER = "what"
EVERY_CLAIM = {"request_id", "peer", "grant"}


def called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def texts(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return [*texts(node.body), *texts(node.orelse)]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def events() -> Iterator[tuple[str, set[str]]]:
    for path in sorted(APP.rglob("*.py")):
        if path.parent.name == "cli":
            continue  # commands write to the terminal
        tree = ast.parse(path.read_text())
        later: list[str] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == TOLD_LATER:
                later += texts(node.value) if isinstance(node.value, ast.IfExp) else []
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args and called(node) in LEVELS | CHOSEN:
                first = node.args[0]
                fields = {one.arg for one in node.keywords if one.arg} - {"exc_info"}
                if isinstance(first, ast.Name) and first.id == TOLD_LATER:
                    yield from ((text, fields) for text in later)
                yield from ((text, fields) for text in texts(first))


def documented() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for event, _, fields, meaning in rows("logs.md", 4):
        assert meaning, event
        found[event.strip("`")] = {one.strip("` ") for one in fields.split(",") if one.strip()}
    return found


def test_every_event_is_documented_with_its_fields() -> None:
    written: dict[str, set[str]] = {}
    for event, fields in events():
        written.setdefault(event, set()).update(fields)
    page = documented()
    assert set(page) == set(written)
    for event, fields in written.items():
        assert fields <= page[event], event


def test_the_fields_of_every_claim_are_documented() -> None:
    page = documented()
    for event in ("redeemed", "answered again", "refused", "renewed"):
        assert page[event] >= EVERY_CLAIM
    assert "key" not in {field for fields in page.values() for field in fields}


def test_no_field_would_be_taken_out_as_a_secret() -> None:
    """A field that is redacted tells nothing: whoever adds one finds another name for it."""
    page = documented()
    assert not {field for fields in page.values() for field in fields if logs._is_secret(field)}
