from dataclasses import replace
from typing import Any

import pytest

from app.domain.admin_tokens import AdminToken
from app.domain.callers import read_rights
from app.errors import Conflict
from app.store import admin_tokens
from app.store.engine import Database
from tests.builders import NOW


def a_token(letter: str = "a", **changes: Any) -> AdminToken:
    made = AdminToken(
        id=letter * 12,
        name="ci",
        rights=read_rights(["read", "create"], ["west", "east"]),
        created_at=NOW,
        created_by="cli:root",
        expires_at=NOW + 60,
    )
    return replace(made, **changes)


def add(database: Database, *tokens: AdminToken) -> None:
    with database.writing() as connection:
        for token in tokens:
            admin_tokens.add(connection, token, f"concealed {token.id}")


def revoke(database: Database, token: AdminToken, now: int) -> None:
    with database.writing() as connection:
        admin_tokens.revoke(connection, token.id, now)


def used(database: Database, token: AdminToken, peer: str, now: int) -> AdminToken | None:
    with database.writing() as connection:
        admin_tokens.note_use(connection, token.id, peer=peer, now=now, seldom_seconds=60)
        return admin_tokens.by_name(connection, token.name)


def test_a_token_comes_back_as_it_was_put_in(database: Database) -> None:
    everywhere = a_token("b", name="all", rights=read_rights(["*"], ["*"]), expires_at=None)
    add(database, a_token(), everywhere)
    with database.reading() as connection:
        assert admin_tokens.presented(connection, "a" * 12) == (a_token(), f"concealed {'a' * 12}")
        assert admin_tokens.by_name(connection, "all") == everywhere
        assert admin_tokens.presented(connection, "c" * 12) is None
        assert admin_tokens.by_name(connection, "nobody") is None


def test_a_name_is_free_again_when_its_token_is_revoked(database: Database) -> None:
    add(database, a_token())
    with pytest.raises(Conflict):
        add(database, a_token("b"))
    revoke(database, a_token(), NOW + 1)
    add(database, a_token("b"))
    with database.reading() as connection:
        assert admin_tokens.by_name(connection, "ci") == a_token("b")
    revoke(database, a_token("b"), NOW + 2)
    revoke(database, a_token("b"), NOW + 3)  # which changes nothing
    with database.reading() as connection:
        assert admin_tokens.by_name(connection, "ci") == a_token("b", revoked_at=NOW + 2)


def test_tokens_come_in_pages_by_name(database: Database) -> None:
    add(database, *(a_token(letter, name=name) for letter, name in ("ab", "ba", "cc")))
    revoke(database, a_token("b"), NOW)
    add(database, a_token("d", name="a"))
    with database.reading() as connection:
        first = admin_tokens.page(connection, limit=3, after=None)
        rest = admin_tokens.page(connection, limit=3, after=("b", "a" * 12))
    assert [(one.name, one.id[0]) for one in first] == [("a", "b"), ("a", "d"), ("b", "a")]
    assert [(one.name, one.id[0]) for one in rest] == [("c", "c")]


def test_what_is_kept_of_good_tokens_is_told_by_name(database: Database) -> None:
    add(database, a_token(), a_token("b", name="a"), a_token("c", name="z"))
    revoke(database, a_token("c", name="z"), NOW)
    with database.reading() as connection:
        assert admin_tokens.concealed(connection) == [
            ("a", f"concealed {'b' * 12}"),
            ("ci", f"concealed {'a' * 12}"),
        ]


def test_a_use_is_noted_once_a_minute(database: Database) -> None:
    add(database, a_token())
    seen = [used(database, a_token(), f"p{at}", NOW + at) for at in (0, 59, 60)]
    assert [(one.last_used_at, one.last_used_from) for one in seen if one] == [
        (NOW, "p0"),
        (NOW, "p0"),
        (NOW + 60, "p60"),
    ]
