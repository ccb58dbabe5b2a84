from typing import Any

import pytest
from sqlalchemy import event, insert, select, update

from app.domain.renewals import Follower, Given
from app.errors import Conflict
from app.store import access_grants, grants, renewals, schema
from app.store.access_grants import AccessGrantRow
from app.store.engine import Connection, Database
from app.store.renewals import Listed
from tests.builders import GRANT_ID, NOW, a_redemption
from tests.store.spending import OTHER_ID

FIRST = "0a"
END = NOW + 10_000


def redeem(connection: Connection, **changes: Any) -> int:
    one = a_redemption(**changes)
    left_out = {"id", "superseded_at"}
    names = [column.name for column in schema.redemptions.c if column.name not in left_out]
    row = {name: getattr(one, name) for name in names}
    added = connection.execute(
        insert(schema.redemptions).values(row).returning(schema.redemptions.c.id)
    )
    return int(added.scalar_one())


def a_follower(**changes: Any) -> Follower:
    usual: dict[str, Any] = {
        "redemption_id": 1, "replaces": FIRST, "key_hash": bytes(32), "certificate_pem": "PEM",
        "serial": "0b", "fingerprint": "f", "issuer_id": 1, "issued_at": NOW, "not_after": END,
    }  # fmt: skip
    return Follower(**(usual | changes))


@pytest.fixture
def first(base: Database) -> int:
    """Redeem a grant once; gives the number of the row."""
    with base.writing() as connection:
        redeem(connection, grant_id=OTHER_ID, serial="ff")
        return redeem(connection, serial=FIRST)


def found(base: Database, serial: str) -> Given:
    with base.reading() as connection:
        given = renewals.by_serial(connection, serial)
    assert given is not None
    return given


def add(base: Database, until: int, **changes: Any) -> None:
    with base.writing() as connection:
        renewals.add(connection, a_follower(**changes), until=until)


def test_a_certificate_is_found_by_its_serial_whoever_gave_it(base: Database, first: int) -> None:
    given = found(base, FIRST)
    assert (given.redemption_id, given.grant_id, given.ordinal) == (first, GRANT_ID, 1)
    assert (given.replaces, given.issuer_id, given.issued_at) == (None, 1, NOW)
    add(base, NOW + 50, redemption_id=first, issuer_id=7)
    given = found(base, "0b")
    assert (given.redemption_id, given.replaces, given.issuer_id) == (first, FIRST, 7)
    assert (given.name, given.superseded_at, given.revoked_at) == ("east", None, None)
    with base.reading() as connection:
        assert renewals.by_serial(connection, "0c") is None


def test_what_was_issued_for_the_same_key_is_found_again(base: Database, first: int) -> None:
    add(base, NOW + 50, redemption_id=first)
    with base.reading() as connection:
        repeat = renewals.issued_already(connection, FIRST, bytes(32))
        assert repeat is not None
        assert (repeat.certificate_pem, repeat.given.serial) == ("PEM", "0b")
        assert renewals.issued_already(connection, FIRST, bytes(31) + b"\1") is None
        assert renewals.issued_already(connection, "0b", bytes(32)) is None
    with pytest.raises(Conflict):
        add(base, NOW + 50, redemption_id=first, serial="0d")


def test_the_others_of_a_redemption_stop_counting_and_no_later_than_before(
    base: Database, first: int
) -> None:
    add(base, NOW + 50, redemption_id=first)
    assert found(base, FIRST).superseded_at == NOW + 50
    assert found(base, "0b").superseded_at is None
    add(base, NOW + 70, redemption_id=first, replaces="0b", serial="0c")
    assert [found(base, one).superseded_at for one in (FIRST, "0b", "0c")] == [
        NOW + 50,
        NOW + 70,
        None,
    ]
    # The first comes once more with another key: both that followed make way.
    add(base, NOW + 60, redemption_id=first, key_hash=b"k" * 32, serial="0d")
    assert [found(base, one).superseded_at for one in (FIRST, "0b", "0c", "0d")] == [
        *(NOW + 50, NOW + 60, NOW + 60, None),
    ]
    assert found(base, "ff").superseded_at is None


def test_all_certificates_of_a_grant_are_told_in_their_order(base: Database, first: int) -> None:
    with base.writing() as connection:
        redeem(connection, ordinal=2, serial="05")
    add(base, NOW + 50, redemption_id=first)
    with base.reading() as connection:
        given = renewals.of_grant(connection, GRANT_ID)
    assert [(one.ordinal, one.serial) for one in given] == [(1, FIRST), (1, "0b"), (2, "05")]


def test_a_grant_or_one_redemption_is_revoked_with_all_that_followed(
    base: Database, first: int
) -> None:
    with base.writing() as connection:
        redeem(connection, ordinal=2, serial="05")
    add(base, NOW + 50, redemption_id=first)
    with base.writing() as connection:
        assert renewals.revoke(connection, GRANT_ID, NOW + 5, ordinal=3) is None
        assert renewals.revoke(connection, GRANT_ID, NOW + 5, ordinal=1) == 2
        assert renewals.revoke(connection, GRANT_ID, NOW + 9, ordinal=1) == 0
    assert [found(base, one).revoked_at for one in (FIRST, "0b", "05", "ff")] == [
        *(NOW + 5, NOW + 5, None, None),
    ]
    with base.writing() as connection:
        assert renewals.revoke(connection, GRANT_ID, NOW + 9) == 1
    assert [found(base, one).revoked_at for one in (FIRST, "05", "ff")] == [NOW + 5, NOW + 9, None]


def test_of_a_revoked_grant_all_is_withdrawn_unless_its_resource_is_gone(
    base: Database, first: int
) -> None:
    assert found(base, FIRST).redemption_id == first
    with base.writing() as connection:
        grants.revoke(connection, GRANT_ID, NOW + 3)
    assert found(base, FIRST).revoked_at == NOW + 3
    row = AccessGrantRow(
        grant_id=GRANT_ID, namespace="west", name="x", sealed_code=b"code", window_seconds=1
    )
    with base.writing() as connection:
        names = [column.name for column in schema.access_grants.c]
        values = {name: getattr(row, name) for name in names}
        connection.execute(insert(schema.access_grants).values(values))
    assert found(base, FIRST).revoked_at == NOW + 3
    with base.writing() as connection:
        access_grants.note_gone(connection, GRANT_ID)
    assert found(base, FIRST).revoked_at is None
    with base.writing() as connection:
        renewals.revoke(connection, GRANT_ID, NOW + 4)
    assert found(base, FIRST).revoked_at == NOW + 4


def listed(base: Database, issuer_id: int = 1, *, now: int = NOW + 60) -> list[Listed]:
    with base.reading() as connection:
        return list(renewals.listed(connection, issuer_id=issuer_id, family=[1, 2], now=now))


def test_a_list_names_what_its_own_issuer_has_signed(base: Database, first: int) -> None:
    assert listed(base) == []
    add(base, NOW + 50, redemption_id=first, issuer_id=2)
    assert listed(base, now=NOW + 49) == []
    assert listed(base) == [Listed(serial=FIRST, at=NOW + 50, superseded=True)]
    with base.writing() as connection:
        renewals.revoke(connection, GRANT_ID, NOW + 55)
    assert listed(base) == [Listed(serial=FIRST, at=NOW + 55, superseded=False)]
    assert listed(base, 2) == [Listed(serial="0b", at=NOW + 55, superseded=False)]
    assert listed(base, 3) == []


def test_what_has_ended_is_named_for_a_day_more(base: Database, first: int) -> None:
    with base.writing() as connection:
        renewals.revoke(connection, GRANT_ID, NOW + 55)
    assert found(base, FIRST).redemption_id == first
    assert len(listed(base, now=END + 86_400)) == 1
    assert listed(base, now=END + 86_401) == []


def test_the_oldest_are_named_by_every_generation_that_may_have_signed_them(
    base: Database, first: int
) -> None:
    with base.writing() as connection:
        table = schema.redemptions
        connection.execute(update(table).where(table.c.id == first).values(issuer_id=None))
        renewals.revoke(connection, GRANT_ID, NOW)
        signs = connection.execute(select(schema.sites.c.issuer_id)).scalar_one()
        others = renewals.listed(connection, issuer_id=9, family=[signs + 1], now=NOW)
    assert [one.serial for one in listed(base, 8)] == [FIRST]
    assert others == []


def test_a_list_is_found_without_reading_all_certificates(base: Database) -> None:
    asked: list[tuple[str, Any]] = []
    with base.writing() as connection:  # enough of them, or any way is as good
        for number in range(1, 2001):
            redeem(connection, ordinal=number + 100, serial=f"{number:040x}")
        connection.exec_driver_sql("ANALYZE")
    with base.reading() as connection:
        event.listen(
            connection, "before_cursor_execute", lambda *told: asked.append((told[2], told[3]))
        )
        renewals.listed(connection, issuer_id=1, family=[1], now=NOW)
        explain = "EXPLAIN QUERY PLAN"
        statement, parameters = asked[-1]
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explain = "EXPLAIN"
        rows = connection.exec_driver_sql(f"{explain} {statement}", parameters)
        plan = "\n".join(str(row[-1]) for row in rows)
    for table in ("redemptions", "renewals"):
        for column in ("revoked_at", "superseded_at"):
            assert f"ix_{table}_{column}" in plan
