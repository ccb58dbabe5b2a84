import zlib
from collections.abc import Mapping
from typing import Any

import pytest

from app import ambient
from app.domain.admin_tokens import LONGEST_WINDOW, generate, parse
from app.domain.audit import Act
from app.domain.callers import read_rights
from app.errors import Conflict, Forbidden, Invalid, Missing, Stale, Unauthenticated
from app.services import admin_tokens, audit
from app.services.admin_tokens import Made
from app.store.engine import Database
from app.store.schema import admin_tokens as table
from tests.builders import NOW

KEYS: Mapping[str, bytes] = {"0a1b2c3d": bytes(range(32))}
OTHER_KEYS: Mapping[str, bytes] = {"99999999": bytes(range(1, 33))}
SOME = read_rights(["read", "create"], ["west"])
ALL = read_rights(["*"], ["*"])


def make(database: Database, name: str = "ci", **changes: Any) -> Made:
    options: dict[str, Any] = {
        "name": name,
        "rights": SOME,
        "window_seconds": 60,
        "keys": KEYS,
        "actor": "cli:test",
        "now": NOW,
        "random_bytes": ambient.random_bytes,
    }
    return admin_tokens.create(database, **(options | changes))


def why(database: Database, text: str, **changes: Any) -> str:
    """Why a token is not good; empty when it is."""
    options: dict[str, Any] = {"keys": KEYS, "now": NOW, "on_lost_key": lambda _: None}
    try:
        admin_tokens.verify(database, parse(text), **(options | changes))
    except Unauthenticated as error:
        told = str(error)
    else:
        return ""
    assert text not in told
    return told


def test_a_token_is_made_shown_once_and_written_down_without_its_secret(
    database: Database,
) -> None:
    made = make(database)
    assert admin_tokens.show(database, "ci") == made.token
    assert (made.token.expires_at, made.token.created_by) == (NOW + 60, "cli:test")
    assert why(database, made.secret) == ""
    (entry,) = audit.latest(database, limit=9, target="admin_token/ci")
    assert (entry.act, entry.actor) == (Act.ADMIN_TOKEN_CREATED, "cli:test")
    assert entry.details == {
        "id": made.token.id,
        "verbs": "read, create",
        "sites": "west",
        "expires_at": NOW + 60,
    }
    with database.reading() as connection:
        kept = str(connection.execute(table.select()).all())
    secret = made.secret.split("_")[2]
    assert secret not in kept + str(entry) + repr(made)


def test_a_token_ends_when_its_window_does_or_never(database: Database) -> None:
    made = make(database)
    assert why(database, made.secret, now=NOW + 59) == ""
    assert why(database, made.secret, now=NOW + 60) == 'the admin token "ci" is expired'
    for_good = make(database, "portal", window_seconds=None)
    assert why(database, for_good.secret, now=NOW + 10**9) == ""


def test_a_revoked_token_is_good_for_nothing_and_its_name_is_free(database: Database) -> None:
    made = make(database)
    revoked = admin_tokens.revoke(database, "ci", actor="token:boss", now=NOW + 1)
    assert revoked.revoked_at == NOW + 1
    assert why(database, made.secret) == 'the admin token "ci" is revoked'
    again = admin_tokens.revoke(database, "ci", actor="token:boss", now=NOW + 2)
    assert again == revoked
    entries = audit.latest(database, limit=9, act="admin_token.revoked")
    assert [(one.actor, one.at, one.details["id"]) for one in entries] == [
        ("token:boss", NOW + 1, made.token.id)
    ]
    assert why(database, make(database).secret) == ""


def test_a_revocation_may_be_prevented(database: Database) -> None:
    made = make(database)

    def check(token: object) -> None:
        raise Stale(str(token == made.token))

    with pytest.raises(Stale, match="True"):
        admin_tokens.revoke(database, "ci", actor="cli:test", now=NOW, check=check)
    assert why(database, made.secret) == ""


def test_one_name_is_one_token_until_it_is_revoked(database: Database) -> None:
    make(database)
    with pytest.raises(Conflict, match="revoke it first"):
        make(database)


def test_nobody_gives_away_more_than_they_have(database: Database) -> None:
    make(database, granted_by=SOME)
    for more in (read_rights(["read", "revoke"], ["west"]), read_rights(["read"], ["*"]), ALL):
        with pytest.raises(Forbidden):
            make(database, "more", rights=more, granted_by=SOME)
    make(database, "all", rights=ALL, granted_by=ALL)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "No Name"}, "name"),
        ({"window_seconds": 0}, "window"),
        ({"window_seconds": LONGEST_WINDOW + 1}, "window"),
    ],
)
def test_what_cannot_be_is_named(database: Database, changes: Any, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        make(database, **changes)
    assert caught.value.field == field


def test_what_is_not_there_is_missing(database: Database) -> None:
    with pytest.raises(Missing):
        admin_tokens.show(database, "nobody")
    with pytest.raises(Missing):
        admin_tokens.revoke(database, "nobody", actor="cli:test", now=NOW)


def test_a_wrong_secret_and_an_unknown_id_are_nobody(database: Database) -> None:
    made, other = make(database), generate(ambient.random_bytes)
    assert why(database, other.text) == f"there is no admin token {other.id}"
    mixed = other.text.replace(other.id, made.token.id)[:-8]
    forged = f"{mixed}{zlib.crc32(mixed.encode()):08x}"
    assert why(database, forged) == f"it is not the admin token {made.token.id}"


def test_a_token_whose_key_is_lost_is_a_wrong_one(database: Database) -> None:
    made, told = make(database), list[str]()
    text = why(database, made.secret, keys=OTHER_KEYS, on_lost_key=told.append)
    assert text == f"there is no admin token {made.token.id}"
    assert told == ["0a1b2c3d"]
    # An older key is as good as the current one.
    assert why(database, made.secret, keys={**OTHER_KEYS, **KEYS}) == ""


def test_tokens_whose_key_is_not_there_any_more_are_told_until_they_are_revoked(
    database: Database,
) -> None:
    make(database)
    make(database, "portal", keys=OTHER_KEYS)
    assert admin_tokens.lost(database, {**OTHER_KEYS, **KEYS}) == {}
    assert admin_tokens.lost(database, OTHER_KEYS) == {"ci": "0a1b2c3d"}
    admin_tokens.revoke(database, "ci", actor="cli:test", now=NOW)
    assert admin_tokens.lost(database, OTHER_KEYS) == {}


def test_pages_are_bounded_and_go_on(database: Database) -> None:
    for name in ("a", "b", "c"):
        make(database, name)
    first = admin_tokens.page(database, limit=2)
    assert [one.name for one in first.tokens] == ["a", "b"]
    rest = admin_tokens.page(database, limit=2, after=first.next)
    assert ([one.name for one in rest.tokens], rest.next) == (["c"], None)
    for limit in (0, 501):
        with pytest.raises(Invalid):
            admin_tokens.page(database, limit=limit)
