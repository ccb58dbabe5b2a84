from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import event, insert, select

from app.store import access_grants, authorities, grants, pruning, schema, sites
from app.store.engine import Connection, Database
from app.store.pruning import ANSWERS, BEGINNING, RENEWALS, Aging, Ended, Place, Stretch
from tests.builders import NOW, a_grant, a_redemption, an_authority

EVERYTHING = 10_000


@pytest.fixture
def base(database: Database) -> Database:
    with database.writing() as connection:
        issuer = authorities.add(connection, an_authority())
        sites.put(connection, name="west", issuer_id=issuer, wanted=[], now=NOW)
    return database


@pytest.fixture
def connection(base: Database) -> Iterator[Connection]:
    with base.writing() as opened:
        yield opened


def name(number: int) -> str:
    return f"{number:036}"


def add_answers(connection: Connection, *ends: int) -> None:
    fixed = {"ordinal": 1, "sealed": b"x"}
    made = [{"claim_key": b"%016d" % number, "expires_at": end} for number, end in enumerate(ends)]
    if made:
        connection.execute(insert(schema.answers), [fixed | row for row in made])


def add_entries(connection: Connection, *times: int) -> None:
    fixed = {"act": "x", "actor": "x", "target": "x", "details": "{}"}
    if times:
        connection.execute(insert(schema.audit), [fixed | {"at": at} for at in times])


def add_grant(
    connection: Connection,
    number: int,
    ended: int,
    *certificates_end: int,
    revoked_at: int | None = None,
    suspicions: int = 0,
) -> None:
    """Add a grant that was used as often as certificates are given."""
    count = len(certificates_end)
    grants.add(
        connection,
        a_grant(
            id=name(number),
            name=f"g{number}",
            allowed=count + 1,
            spent=count,
            created_at=ended - 100,
            expires_at=ended,
            revoked_at=revoked_at,
        ),
    )
    for ordinal, end in enumerate(certificates_end, start=1):
        made = a_redemption(grant_id=name(number), ordinal=ordinal, not_after=end)
        row = {field: getattr(made, field) for field in made.__slots__}
        connection.execute(insert(schema.redemptions).values(**row))
    connection.execute(
        insert(schema.wrong_codes).values(grant_id=name(number), count=1, empty_at=1)
    )
    for peer in range(suspicions):
        who = {"grant_id": name(number), "name": "x", "subject": "x", "peer": str(peer)}
        connection.execute(insert(schema.suspicions).values(at=ended, **who))


def times(connection: Connection, aging: Aging) -> Sequence[int]:
    return connection.scalars(select(aging.moment).order_by(aging.table.c.id)).all()


def rows(connection: Connection, table: Any) -> int:
    return len(connection.execute(select(table)).all())


def ordinals(connection: Connection) -> list[int]:
    return sorted(connection.scalars(select(schema.redemptions.c.ordinal)))


def over(connection: Connection, until: int = NOW, now: int = NOW) -> list[int]:
    found = pruning.look_at_grants(
        connection, after=BEGINNING, until=until, now=now, limit=EVERYTHING
    )
    return [] if found is None else [int(one) for one in found.over]


# Rows that are numbered as they grow old.


def test_rows_are_old_until_the_moment_itself_and_only_these_are_deleted(
    connection: Connection,
) -> None:
    aging = ANSWERS
    add_answers(connection, NOW - 1, NOW + 1, NOW, NOW + 2)
    found = pruning.look(connection, aging, after=0, until=NOW, limit=EVERYTHING)
    assert found == Stretch(first=1, last=4, rows=4, old=2)
    assert pruning.forget(connection, aging, found, until=NOW) == 2
    assert times(connection, aging) == [NOW + 1, NOW + 2]
    assert pruning.forget(connection, aging, found, until=NOW) == 0


def test_a_stretch_has_as_many_rows_as_allowed_and_the_next_begins_behind_it(
    connection: Connection,
) -> None:
    add_answers(connection, *range(NOW, NOW + 5))
    first = pruning.look(connection, ANSWERS, after=0, until=NOW, limit=2)
    assert first == Stretch(first=1, last=2, rows=2, old=1)
    assert pruning.look(connection, ANSWERS, after=4, until=NOW, limit=2) == Stretch(
        first=5, last=5, rows=1, old=0
    )
    assert pruning.look(connection, ANSWERS, after=5, until=NOW, limit=2) is None
    assert pruning.forget(connection, ANSWERS, first, until=NOW + 9) == 2
    assert times(connection, ANSWERS) == [NOW + 2, NOW + 3, NOW + 4]


# Grants.


@pytest.mark.parametrize(
    ("ended", "certificates_end", "revoked_at", "goes"),
    [
        (NOW - 100, (), None, True),
        (NOW - 99, (), None, False),
        (NOW - 100, (NOW, NOW - 5), None, True),
        (NOW - 100, (NOW, NOW + 1), None, False),
        (NOW - 100, (NOW + 1, NOW), None, False),
        (NOW - 100, (), NOW - 100, True),
        (NOW - 100, (), NOW - 99, False),
        (NOW - 99, (), NOW - 999, False),
    ],
)
def test_a_grant_may_go_when_it_and_its_certificates_have_ended(
    connection: Connection,
    ended: int,
    certificates_end: tuple[int, ...],
    revoked_at: int | None,
    goes: bool,
) -> None:
    add_grant(connection, 1, ended, *certificates_end, revoked_at=revoked_at)
    assert over(connection, until=NOW - 100) == ([1] if goes else [])


@pytest.mark.parametrize("revoked_at", [None, NOW - 100])
def test_the_grant_of_a_resource_stays_until_that_is_gone(
    connection: Connection, revoked_at: int | None
) -> None:
    """Else it would be made anew, and what was used or revoked would be forgotten."""
    add_grant(connection, 1, NOW - 100, revoked_at=revoked_at)
    resource = {"namespace": "west", "name": "g1", "sealed_code": b"c"}
    numbers = {"window_seconds": 1, "spent_before": 0}
    connection.execute(insert(schema.access_grants).values(grant_id=name(1), **resource, **numbers))
    assert over(connection) == []
    gone = pruning.forget_grants(connection, [name(1)], until=NOW, now=NOW, limit=EVERYTHING)
    assert gone.grants == 0
    access_grants.note_gone(connection, name(1))
    assert over(connection) == [1]
    gone = pruning.forget_grants(connection, [name(1)], until=NOW, now=NOW, limit=EVERYTHING)
    assert gone.grants == 1
    assert rows(connection, schema.access_grants) == 0


def test_ended_grants_are_looked_at_in_the_order_of_their_ends(connection: Connection) -> None:
    for number, ended in ((5, NOW - 1), (4, NOW), (3, NOW - 1), (2, NOW + 1), (1, NOW - 2)):
        add_grant(connection, number, ended, NOW + (number == 3))
    assert over(connection) == [1, 5, 4]
    place, seen = BEGINNING, []
    while found := pruning.look_at_grants(connection, after=place, until=NOW, now=NOW, limit=1):
        seen.append((found.rows, list(map(int, found.over))))
        place = found.last
    assert seen == [(1, [1]), (1, []), (1, [5]), (1, [4])]
    assert place == Place(NOW, name(4))


def test_a_grant_goes_with_all_that_belongs_to_it(connection: Connection) -> None:
    add_grant(connection, 1, NOW - 9, NOW, NOW, suspicions=2)
    add_grant(connection, 2, NOW - 9, NOW, suspicions=1)
    assert pruning.count_redemptions(connection, [name(1)]) == 2
    gone = pruning.forget_grants(
        connection, [name(1), name(3)], until=NOW, now=NOW, limit=EVERYTHING
    )
    assert gone == pruning.Forgotten(grants=1, redemptions=2, complete=True)
    tables = (schema.grants, schema.redemptions, schema.suspicions, schema.wrong_codes)
    assert [rows(connection, table) for table in tables] == [1, 1, 1, 1]


def test_a_grant_of_many_rows_goes_in_several_steps(connection: Connection) -> None:
    add_grant(connection, 1, NOW - 9, *[NOW] * 7, suspicions=4)
    add_grant(connection, 2, NOW - 9)
    steps: list[pruning.Forgotten] = []
    while not steps or not steps[-1].complete:
        before = rows(connection, schema.redemptions) + rows(connection, schema.suspicions)
        assert ordinals(connection) == list(range(8 - len(ordinals(connection)), 8))
        steps.append(
            pruning.forget_grants(connection, [name(1), name(2)], until=NOW, now=NOW, limit=3)
        )
        left = rows(connection, schema.redemptions) + rows(connection, schema.suspicions)
        assert before - left <= 3
    assert [step.redemptions for step in steps] == [3, 3, 1, 0]
    assert [step.grants for step in steps] == [0, 0, 0, 2]
    assert rows(connection, schema.suspicions) == rows(connection, schema.grants) == 0


def test_a_grant_that_was_revoked_since_it_was_looked_at_stays(connection: Connection) -> None:
    add_grant(connection, 1, NOW - 9, NOW)
    grants.revoke(connection, name(1), NOW + 1)
    gone = pruning.forget_grants(connection, [name(1)], until=NOW, now=NOW, limit=EVERYTHING)
    assert gone == pruning.Forgotten(grants=0, redemptions=0, complete=True)
    assert rows(connection, schema.redemptions) == 1


def test_ends_and_numbers_beyond_32_bits_are_numbers_all_the_same(connection: Connection) -> None:
    late = 2**40
    add_grant(connection, 1, late, late)
    assert over(connection, until=late, now=late) == [1]
    place = Place(late - 1, name(9))
    found = pruning.look_at_grants(connection, after=place, until=late, now=late, limit=1)
    assert found == Ended(rows=1, last=Place(late, name(1)), over=[name(1)])


def test_no_table_is_read_from_end_to_end(base: Database) -> None:
    """Ask the database how it goes about every statement of a sweep."""
    asked: list[tuple[str, Any]] = []

    def note(*event: Any) -> None:
        asked.append((event[2], event[3]))

    with base.writing() as connection:
        add_grant(connection, 1, NOW - 9)
        event.listen(connection, "before_cursor_execute", note)
        for aging in (ANSWERS, RENEWALS):
            pruning.look(connection, aging, after=0, until=NOW, limit=5)
            pruning.forget(connection, aging, Stretch(first=1, last=5, rows=5, old=5), until=NOW)
        pruning.look_at_grants(connection, after=BEGINNING, until=NOW, now=NOW, limit=5)
        pruning.forget_grants(connection, [name(1), name(2)], until=NOW, now=NOW, limit=5)
        pruning.count_redemptions(connection, [name(1)])
        event.remove(connection, "before_cursor_execute", note)
        assert len(asked) == 12
        explain = "EXPLAIN QUERY PLAN"
        if connection.dialect.name == "postgresql":
            # It would rather read a small table than its index.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explain = "EXPLAIN"
        plans = [
            str(row[-1])
            for statement, parameters in asked
            for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)
        ]
    # What is found in few rows is counted by going through these few.
    scans = [plan for plan in plans if "SCAN" in plan or "Seq Scan" in plan]
    assert [scan for scan in scans if scan != "SCAN anon_1"] == []
    assert any("ix_grants_expires_at" in plan for plan in plans)


def test_a_grant_that_was_redeemed_since_it_was_looked_at_stays(connection: Connection) -> None:
    """A claim that came before the end may be spent after it."""
    add_grant(connection, 1, NOW - 1)
    found = pruning.look_at_grants(connection, after=BEGINNING, until=NOW, now=NOW, limit=5)
    assert found is not None
    assert found.over == [name(1)]
    late = a_redemption(grant_id=name(1), not_after=NOW + 1)
    row = {field: getattr(late, field) for field in late.__slots__}
    connection.execute(insert(schema.redemptions).values(**row))
    gone = pruning.forget_grants(connection, found.over, until=NOW, now=NOW, limit=EVERYTHING)
    assert (gone.grants, gone.redemptions, gone.complete) == (0, 0, True)
    assert grants.by_id(connection, name(1)) is not None


# Certificates that were renewed.


def add_renewal(connection: Connection, number: int, redemption_id: int, ends: int) -> None:
    row = {
        "redemption_id": redemption_id, "replaces": f"r{number}", "key_hash": bytes(32),
        "certificate_pem": "PEM", "serial": f"s{number}", "fingerprint": "f", "issuer_id": 1,
        "not_after": ends, "issued_at": NOW,
    }  # fmt: skip
    connection.execute(insert(schema.renewals).values(row))


def test_a_grant_stays_while_a_certificate_that_followed_is_good(connection: Connection) -> None:
    add_grant(connection, 1, NOW - 9, NOW - 5)
    assert over(connection) == [1]
    (redemption,) = connection.scalars(select(schema.redemptions.c.id))
    add_renewal(connection, 1, redemption, NOW + 1)
    assert over(connection) == []
    gone = pruning.forget_grants(connection, [name(1)], until=NOW, now=NOW, limit=EVERYTHING)
    assert (gone.grants, gone.renewals) == (0, 0)
    assert over(connection, now=NOW + 1) == [1]


def test_renewals_are_deleted_before_what_they_belong_to_and_no_more_than_allowed(
    connection: Connection,
) -> None:
    add_grant(connection, 1, NOW - 9, NOW - 5)
    (redemption,) = connection.scalars(select(schema.redemptions.c.id))
    for number in range(5):
        add_renewal(connection, number, redemption, NOW)
    steps = []
    while rows(connection, schema.grants):
        gone = pruning.forget_grants(connection, [name(1)], until=NOW, now=NOW, limit=2)
        steps.append((gone.grants, gone.redemptions, gone.renewals))
    assert sum(step[2] for step in steps) == 5
    assert steps[:2] == [(0, 0, 2), (0, 0, 2)]
    assert rows(connection, schema.redemptions) == rows(connection, schema.renewals) == 0


def test_renewals_of_a_link_that_goes_on_are_deleted_when_they_have_ended(
    connection: Connection,
) -> None:
    add_grant(connection, 1, NOW - 9, NOW - 5)
    (redemption,) = connection.scalars(select(schema.redemptions.c.id))
    for number, ends in enumerate((NOW - 1, NOW, NOW + 1)):
        add_renewal(connection, number, redemption, ends)
    found = pruning.look(connection, RENEWALS, after=0, until=NOW, limit=EVERYTHING)
    assert found == Stretch(first=1, last=3, rows=3, old=2)
    assert pruning.forget(connection, RENEWALS, found, until=NOW) == 2
    assert times(connection, RENEWALS) == [NOW + 1]
