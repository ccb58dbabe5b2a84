from datetime import UTC, datetime
from typing import Any

import pytest

from app.crypto.chains import check_chain
from app.domain.authorities import SPREAD_SECONDS
from app.services import foreign
from app.services.foreign import Foreign
from app.services.reach import SECRET
from app.store import authorities as authority_rows
from tests.builders import Stand, a_server_certificate
from tests.pki import Certified, a_root

HOST = "west.example"
HOUR = 3600
OLD, NEW, NEXT = a_root("old"), a_root("new"), a_root("next")


def put(stand: Stand, one: Certified, *roots: Certified, keep: Any = ()) -> None:
    """As whoever holds the Lease does, at this moment."""
    with stand.database.writing() as connection:
        authority_rows.add_server_certificate(
            connection,
            a_server_certificate(
                certificate_pem=(one.pem + one.chain).decode(),
                fingerprint=one.fingerprint,
                not_after=int(one.certificate.not_valid_after_utc.timestamp()),
                created_at=stand.clock.now,
                origin=SECRET,
                ca_pem=b"".join(root.pem for root in roots).decode(),
            ),
            keep=keep,
        )


def found(stand: Stand, host: str = HOST) -> Foreign:
    with stand.database.reading() as connection:
        made = foreign.current(connection, host, stand.clock.now)
    assert made is not None
    return made


def shown(stand: Stand, host: str = HOST) -> str:
    return found(stand, host).served.fingerprint


def change(stand: Stand, before: Certified, one: Certified, *roots: Certified) -> None:
    """Put another there, whose predecessor keeps its key."""
    put(stand, one, *roots, keep=[before.fingerprint])


def test_before_there_is_one_there_is_nothing(stand: Stand) -> None:
    with stand.database.reading() as connection:
        assert foreign.current(connection, HOST, stand.clock.now) is None


def test_the_newest_is_served_at_once_where_tokens_that_are_out_accept_it(stand: Stand) -> None:
    stand.set_site()
    stand.make_grant(window_seconds=24 * HOUR)
    middle = OLD.certify(ca=True, name="middle")
    put(stand, OLD.certify(HOST), OLD)
    for one, roots in (
        (OLD.certify(HOST), [OLD]),
        (middle.certify(HOST), [OLD]),
        (middle.certify(HOST), [OLD, NEW]),
    ):
        put(stand, one, *roots)
        assert shown(stand) == one.fingerprint
        assert found(stand).ca_pem.encode() == b"".join(root.pem for root in roots)


def test_who_lets_both_overlap_for_too_short_a_time_is_helped_as_well(stand: Stand) -> None:
    """The key of the first is gone by then: the second, which its tokens accept, is served."""
    stand.set_site()
    stand.make_grant(window_seconds=24 * HOUR)
    put(stand, OLD.certify(HOST), OLD)
    stand.clock.now += HOUR
    second, third = OLD.certify(HOST), NEW.certify(HOST)
    put(stand, second, OLD, NEW)
    stand.clock.now += HOUR
    assert found(stand).needed_before(third.pem) == (found(stand).served,)
    change(stand, second, third, NEW)
    stand.clock.now += HOUR
    assert shown(stand) == second.fingerprint
    assert found(stand).ca_pem.encode() == NEW.pem + OLD.pem
    stand.clock.now += 24 * HOUR
    assert shown(stand) == third.fingerprint


def test_while_tokens_of_the_old_ca_may_come_they_are_served_and_new_ones_know_both(
    stand: Stand,
) -> None:
    stand.set_site()
    before, after = OLD.certify(HOST), NEW.certify(HOST)
    put(stand, before, OLD)
    stand.clock.now += HOUR
    stand.make_grant(window_seconds=24 * HOUR)
    stand.clock.now += HOUR
    change(stand, before, after, NEW)
    stand.clock.now += 22 * HOUR
    now = found(stand)
    assert now.served.fingerprint == before.fingerprint
    assert now.ca_pem.encode() == NEW.pem + OLD.pem
    for one in (before, after):
        check_chain(one.pem, now.ca_pem.encode())
    stand.clock.now += 2 * HOUR
    now = found(stand)
    assert now.served.fingerprint == after.fingerprint
    assert now.ca_pem.encode() == NEW.pem


def test_where_no_tokens_are_out_it_is_served_as_soon_as_every_process_knows(
    stand: Stand,
) -> None:
    """One may make a token with the old CA while another has just taken the new one."""
    stand.set_site()
    before, after = OLD.certify(HOST), NEW.certify(HOST)
    put(stand, before, OLD)
    stand.clock.now += HOUR
    change(stand, before, after, NEW)
    stand.clock.now += SPREAD_SECONDS - 1
    assert shown(stand) == before.fingerprint
    stand.clock.now += 1
    assert shown(stand) == after.fingerprint
    stand.make_grant(window_seconds=24 * HOUR)
    stand.clock.now += 1
    assert shown(stand) == after.fingerprint


@pytest.mark.parametrize("what", ["certificate", "CA"])
def test_near_its_end_the_old_one_makes_way_whoever_may_come(stand: Stand, what: str) -> None:
    stand.set_site()
    end = datetime.fromtimestamp(stand.clock.now + 30 * HOUR, UTC)
    root = a_root("old", end=end) if what == "CA" else OLD
    before = root.certify(HOST) if what == "CA" else root.certify(HOST, end=end)
    put(stand, before, root)
    stand.make_grant(window_seconds=100 * HOUR)
    stand.clock.now += HOUR
    after = NEW.certify(HOST)
    change(stand, before, after, NEW)
    stand.clock.now += 27 * HOUR
    assert shown(stand) == before.fingerprint
    stand.clock.now += HOUR + 1
    assert shown(stand) == after.fingerprint
    assert found(stand).ca_pem.encode() == NEW.pem


def test_one_without_a_key_or_for_another_host_is_not_waited_for(stand: Stand) -> None:
    stand.set_site()
    stand.make_grant(window_seconds=24 * HOUR)
    before, after = OLD.certify(HOST), NEW.certify(HOST, "east.example")
    put(stand, before, OLD)
    stand.clock.now += HOUR
    change(stand, before, after, NEW)
    assert shown(stand) == shown(stand, "") == before.fingerprint
    assert shown(stand, "east.example") == after.fingerprint
    put(stand, after, NEW)
    assert shown(stand) == after.fingerprint


def test_of_two_changes_in_the_time_of_a_token_each_token_finds_what_it_knows(
    stand: Stand,
) -> None:
    stand.set_site()
    one, two, three = OLD.certify(HOST), NEW.certify(HOST), NEXT.certify(HOST)
    carried, ends = [], []
    for certificate, root in ((one, OLD), (two, NEW), (three, NEXT)):
        put(stand, certificate, root, keep=[one.fingerprint, two.fingerprint])
        stand.clock.now += HOUR
        carried.append(found(stand).ca_pem)
        stand.make_grant(name=f"g{len(carried)}", window_seconds=10 * HOUR)
        ends.append(stand.clock.now + 10 * HOUR)
        stand.clock.now += HOUR
    seen = []
    while stand.clock.now < ends[-1]:
        served = found(stand).served
        seen.append(served.fingerprint)
        for ca_pem, end in zip(carried, ends, strict=True):
            if stand.clock.now < end:
                check_chain(served.certificate_pem.encode(), ca_pem.encode())
        stand.clock.now += HOUR // 2
    assert list(dict.fromkeys(seen)) == [one.fingerprint, two.fingerprint, three.fingerprint]


def test_only_what_some_token_may_need_keeps_its_key(stand: Stand) -> None:
    before = OLD.certify(HOST)
    put(stand, before, OLD)
    now = found(stand)
    assert now.needed_before(OLD.certify(HOST).pem) == ()
    assert now.needed_before(NEW.certify(HOST).pem) == (now.served,)
