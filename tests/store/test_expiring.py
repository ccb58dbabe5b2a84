from sqlalchemy import insert

from app.store import expiring, grants, renewals, schema
from app.store.engine import Connection, Database
from app.store.expiring import Kind, Stretch
from tests.builders import GRANT_ID, NOW
from tests.store.spending import OTHER_ID
from tests.store.test_renewals import a_follower, redeem

UNTIL = NOW + 100


def ending(
    connection: Connection, kind: Kind = Kind.REDEEMED, *, after: int = 0, limit: int = 9
) -> list[str]:
    found = expiring.ending(connection, kind, after=after, limit=limit, now=NOW, until=UNTIL)
    return [one.serial for one in found]


def test_those_are_found_that_end_between_now_and_then(base: Database) -> None:
    with base.writing() as connection:
        for serial, not_after in (("a", NOW), ("b", NOW + 1), ("c", UNTIL), ("d", UNTIL + 1)):
            redeem(connection, serial=serial, not_after=not_after, ordinal=ord(serial))
        assert ending(connection) == ["b", "c"]
        assert expiring.look(connection, Kind.REDEEMED, after=0, limit=3) == Stretch(3, 3)
        assert ending(connection, limit=2) == ["b"]
        assert expiring.look(connection, Kind.REDEEMED, after=3, limit=3) == Stretch(1, 4)
        assert ending(connection, after=2) == ["c"]
        assert expiring.look(connection, Kind.REDEEMED, after=4, limit=3) == Stretch(0, 4)


def test_whose_place_was_taken_or_who_was_revoked_is_left_out(base: Database) -> None:
    with base.writing() as connection:
        first = redeem(connection, serial="a", not_after=UNTIL)
        redeem(connection, serial="b", not_after=UNTIL, ordinal=2, revoked_at=NOW)
        redeem(connection, serial="c", not_after=UNTIL, grant_id=OTHER_ID)
        follower = a_follower(redemption_id=first, replaces="a", serial="f", not_after=UNTIL)
        renewals.add(connection, follower, until=NOW + 5)
        assert ending(connection) == ["c"]
        assert ending(connection, Kind.RENEWED) == ["f"]
        grants.revoke(connection, OTHER_ID, NOW)
        assert ending(connection) == []
        renewals.revoke(connection, GRANT_ID, NOW)
        assert ending(connection, Kind.RENEWED) == []


def test_of_whom_it_was_told_is_left_out_until_that_is_forgotten(base: Database) -> None:
    with base.writing() as connection:
        redeem(connection, serial="a", not_after=UNTIL)
        told = expiring.ending(connection, Kind.REDEEMED, after=0, limit=9, now=NOW, until=UNTIL)
        expiring.note(connection, told)
        expiring.note(connection, [])
        assert ending(connection) == []
        assert not expiring.has_ended(connection, until=UNTIL - 1)
        assert expiring.has_ended(connection, until=UNTIL)
        connection.execute(insert(schema.expiry_notices).values(serial="b", not_after=NOW))
        assert expiring.forget(connection, until=UNTIL, limit=1) == 1
        assert expiring.forget(connection, until=UNTIL, limit=9) == 1
        assert ending(connection) == ["a"]
