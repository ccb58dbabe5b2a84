"""The plain contract is what it was: answers are compared with those of the release before."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.store.engine import Database
from tests.e2e.exchanges import answers, exchanges, golden

# As release 0.1 has answered, before a claim could bring a key of its own.
GOLDEN: Mapping[str, str] = json.loads((Path(__file__).parent / "exchanges.json").read_text())


def test_unmodified_clients_are_answered_as_ever_to_the_byte(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with golden(database, tmp_path, monkeypatch) as (server, grant):
        found = answers(server, exchanges(grant))
    assert list(found) == list(GOLDEN)
    for what, answer in found.items():
        assert answer == GOLDEN[what], what
