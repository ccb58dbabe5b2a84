from app.domain.audit import Act, Entry
from app.domain.events import EventType
from app.store import audit as audit_rows
from app.store import events, grants
from app.store.audit_chain import append
from app.store.engine import Database
from app.store.ledger import audit_entry
from tests.builders import GRANT_ID, NOW, a_redemption, an_entry
from tests.store.spending import OTHER_ID
from tests.store.test_audit_chain import a_link

THEFT = an_entry(act=Act.GRANT_THEFT_SUSPECTED, actor="site:m", target=f"grant/{OTHER_ID}")


def seal(base: Database, *entries: Entry) -> None:
    """Write entries, and give each its link."""
    with base.writing() as connection:
        for entry in entries:
            audit_rows.add(connection, entry)
        start = events.newest(connection)
        made = [a_link(start + number) for number in range(1, len(entries) + 1)]
        append(connection, made)


def test_what_is_no_event_is_left_out_and_counts_as_seen(base: Database) -> None:
    seal(base, an_entry(), audit_entry(a_redemption()), an_entry(), THEFT)
    with base.reading() as connection:
        found = events.between(connection, 0, 4)
        assert [(one.position, one.type) for one in found] == [
            (2, EventType.REDEEMED),
            (4, EventType.THEFT),
        ]
        assert (found[0].grant_id, found[0].grant_name, found[0].site) == (
            GRANT_ID, "to-west", "west",
        )  # fmt: skip
        assert found[0].at == NOW
        assert found[0].id == "2-0202020202020202"
        assert [one.position for one in events.between(connection, 2, 3)] == []
        assert events.newest(connection) == 4


def test_what_has_no_place_in_the_chain_yet_is_not_told(base: Database) -> None:
    with base.writing() as connection:
        audit_rows.add(connection, audit_entry(a_redemption()))
        assert events.newest(connection) == 0
        assert events.after(connection, 0, limit=9, wanted=None) == []


def test_one_goes_on_behind_a_position_and_sees_the_sites_that_are_wanted(base: Database) -> None:
    seal(base, audit_entry(a_redemption()), THEFT, audit_entry(a_redemption()))
    with base.reading() as connection:

        def seen(position: int, limit: int = 9, *sites: str) -> list[int]:
            wanted = frozenset(sites) or None
            found = events.after(connection, position, limit=limit, wanted=wanted)
            return [one.position for one in found]

        assert seen(0) == [1, 2, 3]
        assert seen(0, 2) == [1, 2]
        assert seen(1) == [2, 3]
        assert seen(0, 9, "west", "east") == [1, 2, 3]
        assert seen(0, 9, "east") == []


def test_an_event_whose_grant_is_no_more_is_told_and_belongs_to_no_site(base: Database) -> None:
    seal(base, THEFT)
    with base.writing() as connection:
        grants.remove(connection, OTHER_ID)
        (found,) = events.after(connection, 0, limit=9, wanted=None)
        assert (found.grant_id, found.grant_name, found.site) == (OTHER_ID, None, None)
        assert events.after(connection, 0, limit=9, wanted=frozenset({"west"})) == []
