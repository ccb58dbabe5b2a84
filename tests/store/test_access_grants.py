from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, insert, select, update

from app.domain.authorities import Authority
from app.domain.grants import Grant
from app.domain.sites import Endpoint
from app.errors import Conflict
from app.store import access_grants as rows
from app.store import authorities, grants, schema, sites, suspicions
from app.store.access_grants import NO_ISSUER, AccessGrantRow, Mark, NamespaceRow
from app.store.engine import Connection, Database
from tests.builders import (
    GRANT_ID,
    NOW,
    WINDOW,
    a_grant,
    a_redemption,
    a_suspicion,
    an_authority,
    an_endpoint,
)

OTHER_ID = GRANT_ID.replace("2", "3")
THIRD_ID = GRANT_ID.replace("2", "4")
ORIGIN = "west/skupper-site-ca"


@pytest.fixture
def base(database: Database) -> Database:
    """Furnish a database with an authority of a Secret and the namespace `west`."""
    with database.writing() as connection:
        put(connection, issuer_id=authorities.add(connection, an_authority(origin=ORIGIN)))
    return database


def put(
    connection: Connection,
    name: str = "west",
    issuer_id: int = 1,
    wanted: Sequence[Endpoint] = (),
) -> None:
    rows.put_namespace(connection, name=name, issuer_id=issuer_id, wanted=wanted, now=NOW)


def a_row(**changes: Any) -> AccessGrantRow:
    made = AccessGrantRow(
        grant_id=GRANT_ID,
        namespace="west",
        name="to-west",
        sealed_code=b"\x00sealed\xff",
        window_seconds=WINDOW,
    )
    return replace(made, **changes)


def admit(connection: Connection, row: AccessGrantRow | None = None, **changes: Any) -> Grant:
    """Add the builder's grant for a row, with changes."""
    row = row or a_row()
    fitting = {"id": row.grant_id, "name": row.name, "site": row.namespace}
    grant = a_grant(**(fitting | changes))
    rows.add(connection, grant, row)
    return grant


def add_authority(database: Database, name: str, **changes: Any) -> Authority:
    made = an_authority(name=name, **changes)
    with database.writing() as connection:
        return replace(made, id=authorities.add(connection, made))


def names(database: Database) -> dict[str, str]:
    with database.reading() as connection:
        return {one.id: one.name for one in grants.matching(connection)}


def found(database: Database, grant_id: str = GRANT_ID) -> tuple[Grant, AccessGrantRow]:
    with database.reading() as connection:
        grant, row = grants.by_id(connection, grant_id), rows.by_id(connection, grant_id)
    assert grant is not None
    assert row is not None
    return grant, row


# Namespaces.


def test_a_namespace_is_a_site_that_says_so(base: Database) -> None:
    endpoint = an_endpoint()
    with base.writing() as connection:
        put(connection, wanted=[endpoint])
        sites.put(connection, name="local", issuer_id=1, wanted=[], now=NOW)
    with base.reading() as connection:
        site = sites.by_name(connection, "west")
        local = sites.by_name(connection, "local")
        assert site is not None
        assert local is not None
        assert (site.origin, site.endpoints, site.revision) == ("kubernetes", (endpoint,), 2)
        assert local.origin is None
        assert rows.namespace(connection, "west") == NamespaceRow(site.id, "kubernetes", 1)
        assert rows.namespace(connection, "local") == NamespaceRow(local.id, None, 1)
        assert rows.namespace(connection, "nowhere") is None
        assert rows.namespaces(connection) == ["west"]


def test_the_namespaces_come_in_the_order_of_their_names(base: Database) -> None:
    with base.writing() as connection:
        for name in ("b", "a", "x"):
            put(connection, name)
        assert rows.namespaces(connection) == ["a", "b", "west", "x"]


def test_a_namespace_is_removed_when_no_grant_leads_there(base: Database) -> None:
    with base.writing() as connection:
        put(connection, "east", wanted=[an_endpoint()])
        admit(connection)
        assert rows.remove_namespace(connection, "east")
        assert not rows.remove_namespace(connection, "east")
        assert not rows.remove_namespace(connection, "west")
        grants.revoke(connection, GRANT_ID, NOW)
        assert not rows.remove_namespace(connection, "west")
        grants.remove(connection, GRANT_ID)
        assert rows.remove_namespace(connection, "west")
        assert rows.namespaces(connection) == []


def test_a_site_of_ours_is_not_the_clusters_to_remove(base: Database) -> None:
    with base.writing() as connection:
        sites.put(connection, name="local", issuer_id=1, wanted=[], now=NOW)
        assert not rows.remove_namespace(connection, "local")


# The authorities of Secrets.


def test_the_one_that_cannot_sign_is_made_once_and_found_by_nobody_else(base: Database) -> None:
    with base.writing() as connection:
        assert rows.find_no_issuer(connection) is None
        made = rows.no_issuer(connection, NOW)
        assert rows.no_issuer(connection, NOW + 1) == made
        assert rows.find_no_issuer(connection) == made
    with base.reading() as connection:
        assert [one.name for one in authorities.every(connection)] == ["site-ca"]
        assert authorities.by_name(connection, NO_ISSUER) is None
        kept = authorities.by_id(connection, made)
        assert kept is not None
        assert (kept.sealed_key, kept.certificate_pem, kept.fingerprint) == (b"", "", "")
        assert authorities.soonest_expiry(connection) == NOW + 100_000


def test_an_authority_of_ours_is_not_taken_for_the_one_that_cannot_sign(base: Database) -> None:
    ours = add_authority(base, "no-issuer")
    with base.writing() as connection:
        assert rows.no_issuer(connection, NOW) != ours.id


def test_an_authority_is_found_by_its_fingerprint(base: Database) -> None:
    made = add_authority(base, "kubernetes-x", origin=ORIGIN)
    with base.reading() as connection:
        assert rows.authority_of(connection, made.fingerprint) == made
        assert rows.authority_of(connection, "0" * 64) is None


def test_keys_that_nothing_leads_to_are_forgotten_and_given_again(base: Database) -> None:
    leads, revoked, asked_for, unused = (
        add_authority(base, name, origin=f"ns/{name}")
        for name in ("leads", "revoked", "asked-for", "unused")
    )
    ours = add_authority(base, "ours")
    with base.writing() as connection:
        placeholder = rows.no_issuer(connection, NOW)
        admit(connection, a_row(issuer_id=leads.id))
        over = a_row(grant_id=OTHER_ID, name="over", issuer_id=revoked.id)
        admit(connection, over, revoked_at=NOW)
        but = frozenset({asked_for.id, placeholder})
        forgotten = rows.forget_unused_keys(connection, but, NOW)
        assert sorted(forgotten) == ["revoked", "unused"]
        assert rows.forget_unused_keys(connection, frozenset({asked_for.id}), NOW) == []
    with base.reading() as connection:
        keys = {one.name: one.sealed_key for one in authorities.every(connection)}
        assert keys == {
            "site-ca": b"sealed",  # the namespace's
            "leads": b"sealed",
            "revoked": b"",
            "asked-for": b"sealed",
            "unused": b"",
            "ours": b"sealed",
        }
        kept = authorities.by_id(connection, unused.id)
        # Kept answers need its certificate.
        assert kept == replace(unused, sealed_key=b"", due_at=NOW + 86_400)
    with base.writing() as connection:
        rows.give_key(connection, unused.id, b"again", "east/other")
        assert rows.authority_of(connection, unused.fingerprint) == replace(
            unused, sealed_key=b"again", origin="east/other"
        )
        forgotten = rows.forget_unused_keys(connection, frozenset(), NOW)
        assert sorted(forgotten) == ["asked-for", "unused"]
    with base.reading() as connection:
        assert authorities.by_name(connection, "ours") == ours


# Grants of AccessGrants.


def test_a_grant_of_a_resource_comes_back_as_it_was(base: Database) -> None:
    own = add_authority(base, "own", origin="west/own")
    with base.writing() as connection:
        plain = admit(connection)
        full = a_row(grant_id=OTHER_ID, name="n" * 253, issuer_id=own.id, spent_before=1)
        admit(connection, full, name="short", spent=1, revoked_at=NOW)
        assert rows.by_id(connection, THIRD_ID) is None
    assert found(base) == (plain, a_row())
    grant, row = found(base, OTHER_ID)
    assert (grant.issuer, grant.name, row) == ("own", "short", full)
    with base.reading() as connection:
        assert rows.resources(connection) == {
            GRANT_ID: ("west", "to-west"),
            OTHER_ID: ("west", "n" * 253),
        }


def test_a_grant_that_was_made_here_is_none_of_a_resource(base: Database) -> None:
    with base.writing() as connection:
        grants.add(connection, a_grant())
        assert rows.by_id(connection, GRANT_ID) is None
        assert rows.resources(connection) == {}
        assert rows.marks(connection, NOW, {}) == {}
        assert rows.standing(connection, "west", "to-west") == []


def test_no_code_shows_in_a_row() -> None:
    assert "sealed" not in repr(a_row()).replace("sealed_code", "")


def test_the_same_resource_is_admitted_once(base: Database) -> None:
    with base.writing() as connection:
        admit(connection)
    with pytest.raises(Conflict), base.writing() as connection:
        admit(connection)


def test_an_older_grant_of_this_name_gives_it_up(base: Database) -> None:
    """Whoever deletes a resource and makes it anew wants the new one under its name."""
    long = "n" * 20 + ".west." + "n" * 30
    for name in ("to-west", long):
        with base.writing() as connection:
            for grant_id in (GRANT_ID, OTHER_ID, THIRD_ID):
                admit(connection, a_row(grant_id=grant_id, name=name))
        given = names(base)
        assert given[THIRD_ID] == name
        assert len(set(given.values())) == 3
        for older in (GRANT_ID, OTHER_ID):
            assert given[older].endswith(f"-{older}")
            assert given[older].startswith(name[:20])
            assert len(given[older]) <= 63
            assert ".-" not in given[older]
        with base.writing() as connection:
            connection.execute(schema.grants.delete())


def test_a_grant_that_was_made_here_keeps_its_name(base: Database) -> None:
    with base.writing() as connection:
        grants.add(connection, a_grant())
        admit(connection, a_row(grant_id=OTHER_ID))
        admit(connection, a_row(grant_id=THIRD_ID))
    assert names(base) == {
        GRANT_ID: "to-west",
        OTHER_ID: f"to-west-{OTHER_ID}",
        THIRD_ID: f"to-west-{THIRD_ID}",
    }


def test_namesakes_in_other_namespaces_are_left_alone(base: Database) -> None:
    with base.writing() as connection:
        put(connection, "east")
        admit(connection)
        admit(connection, a_row(grant_id=OTHER_ID, namespace="east"))
    assert set(names(base).values()) == {"to-west"}


@pytest.mark.parametrize(("spent", "allowed", "left"), [(0, 1, 1), (2, 1, 2), (2, 2, 2), (2, 9, 9)])
def test_a_grant_is_changed_but_never_below_what_is_spent(
    base: Database, spent: int, allowed: int, left: int
) -> None:
    own = add_authority(base, "own", origin="west/own")
    with base.writing() as connection:
        before = admit(connection, spent=spent, allowed=3)
        changed = a_row(sealed_code=b"new", window_seconds=WINDOW + 5, issuer_id=own.id)
        rows.change(
            connection,
            changed,
            concealed_code="new",
            allowed=allowed,
            expires_at=before.expires_at + 5,
        )
    grant, row = found(base)
    assert row == changed
    assert grant == replace(
        before,
        allowed=left,
        concealed_code="new",
        expires_at=before.expires_at + 5,
        issuer="own",
    )


def test_a_resource_that_is_gone_is_looked_for_no_more_and_its_code_is_gone_too(
    base: Database,
) -> None:
    with base.writing() as connection:
        admit(connection)
        grants.revoke(connection, GRANT_ID, NOW)
        assert rows.standing(connection, "west", "to-west") == [GRANT_ID]  # revoked is not gone
        admit(connection, a_row(grant_id=OTHER_ID))
        admit(connection, a_row(grant_id=THIRD_ID, name="other"))
        assert rows.standing(connection, "west", "to-west") == [GRANT_ID, OTHER_ID]
        assert rows.live_names(connection) == [("west", "other"), ("west", "to-west")]
        rows.note_gone(connection, GRANT_ID)
        assert rows.standing(connection, "west", "to-west") == [OTHER_ID]
        assert rows.live_names(connection) == [("west", "other"), ("west", "to-west")]
        rows.note_gone(connection, OTHER_ID)
        assert rows.standing(connection, "west", "to-west") == []
        assert rows.live_names(connection) == [("west", "other")]
        assert set(rows.marks(connection, NOW, {})) == {THIRD_ID}
        assert rows.resources(connection)[GRANT_ID] == ("west", "to-west")
        assert rows.standing(connection, "east", "other") == []
    assert found(base)[1].sealed_code == b""


def redeem(connection: Connection, *ordinals: int) -> None:
    for ordinal in ordinals:
        made = a_redemption(ordinal=ordinal, name=f"n{ordinal}", subject=f"s{ordinal}", peer="p")
        values = {field: getattr(made, field) for field in made.__slots__}
        connection.execute(insert(schema.redemptions).values(values))


def test_marks_ask_for_names_once_and_for_none_of_grants_without_resources(base: Database) -> None:
    names: dict[str, tuple[str, str] | None] = {}
    with base.writing() as connection:
        admit(connection, a_row())
        grants.add(connection, a_grant(id=OTHER_ID, name="local"))
    with base.reading() as connection:
        first = rows.marks(connection, NOW, names)
    assert names == {GRANT_ID: (first[GRANT_ID].namespace, first[GRANT_ID].name), OTHER_ID: None}
    asked: list[str] = []
    with base.reading() as connection:
        event.listen(connection, "before_execute", lambda *args: asked.append(str(args[1])))
        assert rows.marks(connection, NOW, names) == first
    assert not any("access_grants" in one for one in asked)
    assert len(asked) == 3


def test_names_of_grants_that_are_over_are_not_kept_for_ever(base: Database) -> None:
    names: dict[str, tuple[str, str] | None] = {str(one): None for one in range(10_003)}
    with base.writing() as connection:
        admit(connection, a_row())
    with base.reading() as connection:
        rows.marks(connection, NOW, names)
    assert set(names) == {GRANT_ID}


def test_marks_tell_whatever_changes_without_the_resource(base: Database) -> None:
    def mark() -> Mark:
        with base.reading() as connection:
            return rows.marks(connection, NOW, {})[GRANT_ID]

    with base.writing() as connection:
        admit(connection, allowed=9)
        admit(connection, a_row(grant_id=OTHER_ID, name="other"))
    expected = Mark("west", "to-west", 0, False, 0, 0)
    assert mark() == expected
    with base.writing() as connection:
        connection.execute(
            update(schema.grants).where(schema.grants.c.id == GRANT_ID).values(spent=2)
        )
        redeem(connection, 1, 2)
        for peer in ("a", "b"):
            suspicions.add(connection, a_suspicion(peer=peer))
        connection.execute(
            insert(schema.wrong_codes).values(grant_id=GRANT_ID, count=7, empty_at=1)
        )
    expected = expected._replace(spent=2, suspicions=2, wrong_codes=7)
    assert mark() == expected
    with base.writing() as connection:
        grants.revoke(connection, GRANT_ID, NOW)
    assert mark() == expected._replace(revoked=True)
    with base.reading() as connection:
        assert rows.marks(connection, NOW, {})[OTHER_ID] == Mark("west", "other", 0, False, 0, 0)


@pytest.mark.parametrize(
    ("ended", "revoked_at", "looked_at"),
    [
        (NOW + 1, None, True),
        (NOW - 3599, None, True),
        (NOW - 3600, None, False),
        (NOW + 9999, NOW - 3599, True),
        (NOW + 9999, NOW - 3600, False),
    ],
)
def test_what_has_been_over_for_an_hour_is_looked_at_no_more(
    base: Database, ended: int, revoked_at: int | None, looked_at: bool
) -> None:
    with base.writing() as connection:
        admit(connection, created_at=ended - 1, expires_at=ended, revoked_at=revoked_at)
        assert (GRANT_ID in rows.marks(connection, NOW, {})) == looked_at


def test_redemptions_are_told_in_order_behind_those_told_before(base: Database) -> None:
    with base.writing() as connection:
        admit(connection, allowed=9, spent=5)
        redeem(connection, 3, 1, 5, 4, 2)
        told = [(number, f"n{number}", f"s{number}", "p") for number in range(1, 6)]
        assert rows.redeemed_after(connection, GRANT_ID, 0, 10) == told
        assert rows.redeemed_after(connection, GRANT_ID, 2, 2) == told[2:4]
        assert rows.redeemed_after(connection, GRANT_ID, 5, 10) == []
        assert rows.redeemed_after(connection, OTHER_ID, 0, 10) == []


def test_what_is_asked_for_each_resource_reads_no_table_from_end_to_end(base: Database) -> None:
    asked: list[tuple[str, Any]] = []

    def note(*happened: Any) -> None:
        asked.append((happened[2], happened[3]))

    with base.writing() as connection:
        admit(connection)
        event.listen(connection, "before_cursor_execute", note)
        rows.namespace(connection, "west")
        rows.by_id(connection, GRANT_ID)
        rows.standing(connection, "west", "to-west")
        rows.redeemed_after(connection, GRANT_ID, 0, 10)
        rows.newest_entry(connection)
        rows.entries_after(connection, 0, {})
        rows.note_gone(connection, GRANT_ID)
        admit(connection, a_row(grant_id=OTHER_ID))
        rows.change(connection, a_row(), concealed_code="x", allowed=1, expires_at=NOW + 5)
        event.remove(connection, "before_cursor_execute", note)
        explain = "EXPLAIN QUERY PLAN"
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explain = "EXPLAIN"
        plans = [
            str(row[-1])
            for statement, parameters in asked
            for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)
        ]
    assert len(asked) >= 11
    scans = [plan for plan in plans if "SCAN" in plan or "Seq Scan" in plan]
    assert [scan for scan in scans if "authorities" not in scan] == []  # of which there are few


def test_a_row_goes_with_its_grant(base: Database) -> None:
    with base.writing() as connection:
        admit(connection)
        grants.remove(connection, GRANT_ID)
        assert connection.execute(select(schema.access_grants)).all() == []
