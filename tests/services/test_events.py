from app.crypto.audit_heads import HeadKeys
from app.domain.audit import Act, Entry
from app.domain.theft import theft_entry
from app.services import events
from app.services.audit_chain import Chain
from app.store import audit as audit_rows
from app.store.engine import Database
from app.store.ledger import audit_entry
from tests.builders import GRANT_ID, Clock, Stand, a_redemption, a_suspicion, an_entry


def write(database: Database, *entries: Entry) -> None:
    """Write entries, and have them sealed as the server does a second later."""
    with database.writing() as connection:
        for entry in entries:
            audit_rows.add(connection, entry)
    Chain(database=database, keys=HeadKeys.of({"one": bytes(32)}), clock=Clock()).seal()


def a_redeemed(grant_id: str = GRANT_ID) -> Entry:
    return audit_entry(a_redemption(grant_id=grant_id))


def a_theft(grant_id: str = GRANT_ID) -> Entry:
    return theft_entry(a_redemption(grant_id=grant_id), a_suspicion(grant_id=grant_id))


def test_who_comes_back_goes_on_where_they_stopped(stand: Stand) -> None:
    stand.set_site()
    grant = stand.make_grant().grant
    write(stand.database, a_redeemed(grant.id))
    start = events.newest(stand.database)
    assert events.after(stand.database, start, 9, None) == []
    write(stand.database, a_redeemed(grant.id), an_entry(), a_theft(grant.id))
    first, second = events.after(stand.database, start, 9, None)
    assert (first.type, second.type) == ("redeemed", "theft")
    assert events.after(stand.database, start, 1, None) == [first]
    assert events.after(stand.database, first.position, 9, None) == [second]
    assert events.newest(stand.database) == second.position


def test_who_may_see_some_sites_sees_no_others(stand: Stand) -> None:
    stand.set_site()
    stand.set_site("east")
    west, east = stand.make_grant(), stand.make_grant(site="east", name="to-east")
    write(stand.database, a_redeemed(west.grant.id), a_redeemed(east.grant.id))
    (found,) = events.after(stand.database, 0, 9, frozenset({"east"}))
    assert (found.site, found.grant_name) == ("east", "to-east")
    assert events.after(stand.database, 0, 9, frozenset()) == []


def test_acts_of_operators_are_no_events(stand: Stand) -> None:
    stand.set_site()
    write(stand.database, an_entry(act=Act.GRANT_REVOKED, target=f"grant/{GRANT_ID}"))
    assert events.newest(stand.database) >= 1
    assert events.after(stand.database, 0, 9, None) == []
