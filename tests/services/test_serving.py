import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app import ambient
from app.crypto import keys
from app.crypto.chains import check_chain
from app.crypto.facts import facts
from app.crypto.server_certificates import missing_hosts
from app.errors import Invalid, Misconfigured, Unavailable, Unready
from app.logs import get_logger
from app.services import reach, rotation
from app.services.rotation import Times
from app.services.serving import Keeper, Rehearsal, Served, Source
from app.store import addresses
from app.store import authorities as authority_rows
from app.store.addresses import AddressRow
from app.web.tls import rehearse, server_context
from tests.builders import NOW, Clock, Stand, a_server_certificate
from tests.pki import Certified, Folder, a_root

URL = "https://west.example:9090"
Line = tuple[str, str, str]
DAY = 24 * 3600
TIMES = Times(wait_seconds=0, lifetime_seconds=3600, retry_seconds=600)


def a_source(stand: Stand, **changes: Any) -> Source:
    made: dict[str, Any] = {
        "database": stand.database,
        "keyring": stand.keyring,
        "url": URL,
        "fallback": "",
        "clock": stand.clock,
        "random_bytes": ambient.random_bytes,
    }
    return Source(**(made | changes))


class Watched:
    """A keeper, and all that it has told those who listen, and checked."""

    def __init__(self, stand: Stand, *, source: Source | None = None, **changes: Any) -> None:
        self.told: list[Served] = []
        self.checked: list[bytes] = []
        self.monotonic = Clock(0)
        options: dict[str, Any] = {
            "check": self._check,
            "rehearse": lambda *_: None,
            "clock": stand.clock,
            "monotonic": self.monotonic,
            "log": get_logger("serving"),
        }
        self.keeper = Keeper(source or a_source(stand), **(options | changes))
        self.keeper.on_change(self.told.append)

    @property
    def current(self) -> Served:
        return self.keeper.current

    def turn(self, *, everything: bool = False) -> None:
        asyncio.run(self.keeper.turn(everything=everything))

    def _check(self, certificate_pem: bytes, _key_pem: bytes) -> None:
        self.checked.append(certificate_pem)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Line]]:
    """The lines of the log so far: level, event, and why."""
    caplog.set_level(logging.INFO, "serving")

    def lines() -> list[Line]:
        records: list[Any] = [one for one in caplog.records if one.name == "serving"]
        return [(one.levelname, one.msg["event"], one.msg.get("why", "")) for one in records]

    return lines


def tell(stand: Stand, url: str, **further: Any) -> None:
    with stand.database.writing() as connection:
        addresses.write(connection, AddressRow(url=url, **further), NOW)


def rotate(stand: Stand) -> None:
    rotation.rotate(
        stand.database,
        stand.keyring,
        name="server-ca",
        times=TIMES,
        actor="test",
        now=stand.clock.now,
        random_bytes=ambient.random_bytes,
    )


def carries(served: Served, *hosts: str) -> bool:
    return missing_hosts(served.certificate_pem, hosts) == ()


def hosts_of(served: Served) -> tuple[str, ...]:
    return facts(served.certificate_pem).hosts


# What is served


def test_the_first_look_issues_what_is_missing_and_says_how_we_are_reached(stand: Stand) -> None:
    source = a_source(stand, hosts=("10.0.0.7", "fd00::7"))
    served = Watched(stand, source=source).current
    assert hosts_of(served) == ("west.example", "10.0.0.7", "fd00::7")
    assert served.reach is not None
    assert served.reach.url == URL
    assert served.waiting == ""
    check_chain(served.certificate_pem, served.reach.ca_pem.encode())
    found = facts(served.certificate_pem)
    assert (served.fingerprint, served.not_after) == (found.fingerprint, found.not_after)
    assert source.way() == (served.reach, "")


def test_the_second_one_finds_what_the_first_has_made(stand: Stand) -> None:
    assert a_source(stand).look() == a_source(stand).look()


def test_the_url_that_is_set_wins_over_the_one_of_the_cluster(stand: Stand) -> None:
    tell(stand, "https://found.example", hosts=("svc.example",))
    served = a_source(stand).look()
    assert served.reach is not None
    assert served.reach.url == URL
    assert carries(served, "west.example", "svc.example")


def test_without_one_the_url_of_the_cluster_is_taken_and_else_the_fallback(stand: Stand) -> None:
    source = a_source(stand, url="", fallback="https://localhost:9090")
    fallen_back = source.look()
    tell(stand, "https://[2001:db8::7]:9090")
    found = source.look()
    assert fallen_back.reach is not None
    assert found.reach is not None
    assert fallen_back.reach.url == "https://localhost:9090"
    assert found.reach.url == "https://[2001:db8::7]:9090"
    assert carries(found, "2001:db8::7")


def test_while_nobody_knows_an_address_people_are_told_what_is_waited_for(stand: Stand) -> None:
    source = a_source(stand, url="", hosts=())
    assert source.way() == (None, "waiting for an address")
    tell(stand, "", problem="waiting for an address of Service grantserver/grantserver-public")
    served = source.look()
    assert served.reach is None
    assert served.waiting.endswith("Service grantserver/grantserver-public")
    assert source.way() == (None, served.waiting)
    assert hosts_of(served) == ("localhost",)


def test_an_address_that_vanished_takes_the_certificate_of_nobody(stand: Stand) -> None:
    source = a_source(stand, url="")
    tell(stand, URL)
    before = source.look()
    tell(stand, "", problem="it is gone")
    after = source.look()
    assert (after.reach, after.waiting) == (None, "it is gone")
    assert after.fingerprint == before.fingerprint


def test_hosts_of_the_settings_are_named_however_many_the_cluster_has(stand: Stand) -> None:
    tell(stand, URL, hosts=tuple(f"h{number}.example" for number in range(600)))
    served = a_source(stand, url="", hosts=("ours.example",)).look()
    assert carries(served, "west.example", "ours.example", "h0.example")


# Hosts of tokens that are out


def test_the_host_of_tokens_that_are_out_stays_in_the_certificate(stand: Stand) -> None:
    stand.set_site()
    source = a_source(stand, url="")
    tell(stand, "https://one.example")
    assert hosts_of(source.look()) == ("one.example",)
    stand.make_grant(window_seconds=10_000)
    stand.clock.now += 1000
    tell(stand, "https://two.example")
    assert hosts_of(source.look()) == ("two.example", "one.example")
    stand.clock.now += 1000
    tell(stand, "https://three.example")
    assert hosts_of(source.look()) == ("three.example", "two.example", "one.example")
    stand.clock.now += 1000
    rotate(stand)
    assert hosts_of(source.look()) == ("three.example", "two.example", "one.example")
    stand.clock.now += 2 * DAY
    rotate(stand)
    assert hosts_of(source.look()) == ("three.example",)


def test_an_address_that_comes_back_and_goes_again_stays_for_its_tokens(stand: Stand) -> None:
    stand.set_site()
    source = a_source(stand, url="")
    for url in ("https://one.example", "https://two.example", "https://one.example"):
        stand.clock.now += 1000
        tell(stand, url)
        served = source.look()
        stand.make_grant(name=f"at-{stand.clock.now}", window_seconds=100)
    assert carries(served, "one.example")
    stand.clock.now += 50
    tell(stand, "https://three.example")
    assert carries(source.look(), "three.example", "one.example")


# The CA


def test_after_a_rotation_the_chain_leads_to_the_old_ca_and_to_the_new_one(stand: Stand) -> None:
    watched = Watched(stand)
    before = watched.current
    rotate(stand)
    watched.turn()
    [after] = watched.told
    assert before.reach is not None
    assert after.reach is not None
    old, both = before.reach.ca_pem, after.reach.ca_pem
    assert old.strip() in both
    new = both.replace(old.strip(), "")
    for ca_pem in (old, new, both):
        check_chain(after.certificate_pem, ca_pem.encode())
    assert after.fingerprint != before.fingerprint


# Keeping


def test_nothing_is_looked_at_while_the_mark_stays(stand: Stand) -> None:
    watched = Watched(stand)
    watched.turn()
    looked = count_looks(watched)
    watched.turn()
    assert looked == []
    tell(stand, "https://found.example")
    watched.turn()
    watched.turn()
    assert len(looked) == 1


def count_looks(watched: Watched) -> list[None]:
    looked: list[None] = []
    source = watched.keeper._source

    class Counted:
        mark = source.mark

        def look(self) -> Served:
            looked.append(None)
            return source.look()

    watched.keeper._source = Counted()  # type: ignore[assignment]
    return looked


def test_everything_is_looked_at_when_told_to_and_now_and_then(stand: Stand) -> None:
    watched = Watched(stand)
    watched.turn()
    looked = count_looks(watched)
    watched.turn(everything=True)
    watched.monotonic.now += 29
    watched.turn()
    assert len(looked) == 1
    watched.monotonic.now += 1
    watched.turn()
    assert len(looked) == 2
    assert watched.told == []


def test_a_certificate_that_comes_of_age_is_renewed_and_told_of(stand: Stand) -> None:
    watched = Watched(stand)
    before = watched.current
    watched.turn()
    stand.clock.now += 300 * DAY
    watched.monotonic.now += 30
    watched.turn()
    assert watched.told == [watched.current]
    assert watched.current.not_after > before.not_after
    assert watched.checked[-1] == watched.current.certificate_pem


def test_what_one_process_has_issued_the_others_serve_as_well(stand: Stand) -> None:
    source = a_source(stand, url="")
    tell(stand, URL)
    replicas = [Watched(stand, source=source) for _ in range(3)]
    tell(stand, "https://elsewhere.example")
    for one in replicas:
        one.turn()
    assert len({one.current.fingerprint for one in replicas}) == 1
    assert all(carries(one.current, "elsewhere.example") for one in replicas)
    with stand.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT count(*) FROM server_certificates").scalar()
    assert rows == 2


def test_another_address_alone_is_told_and_the_certificate_stays(
    stand: Stand, said: Callable[[], list[Line]]
) -> None:
    source = a_source(stand, url="", hosts=("other.example",))
    tell(stand, "https://west.example")
    watched = Watched(stand, source=source)
    before = watched.current
    tell(stand, "https://west.example:8443")
    watched.turn()
    assert watched.current.fingerprint == before.fingerprint
    assert watched.current.reach is not None
    assert watched.current.reach.url == "https://west.example:8443"
    assert said() == [("INFO", "clients reach us in another way", "")]


def test_what_is_waited_for_is_said_once(stand: Stand, said: Callable[[], list[Line]]) -> None:
    source = a_source(stand, url="")
    watched = Watched(stand, source=source)
    tell(stand, "", problem="waiting for Service x/y")
    watched.turn()
    watched.turn(everything=True)
    warnings = [why for level, _, why in said() if level == "WARNING"]
    assert warnings == ["waiting for Service x/y"]


def test_what_cannot_be_served_changes_nothing_and_is_said_once(
    stand: Stand, said: Callable[[], list[Line]]
) -> None:
    watched = Watched(stand, source=a_source(stand, url=""))
    before = watched.current

    def refuse(_certificate_pem: bytes, _key_pem: bytes) -> None:
        raise Invalid("certificate", "it is not to be served")

    check, watched.keeper._check = watched.keeper._check, refuse
    tell(stand, URL)
    watched.turn()
    watched.turn()
    assert watched.current == before
    watched.keeper._check = check
    watched.turn()
    assert said()[:2] == [
        ("WARNING", "what is served stays as it was", "certificate: it is not to be served"),
        ("INFO", "what is to be served can be used again", ""),
    ]
    assert watched.told == [watched.current]
    assert carries(watched.current, "west.example")


def test_without_the_database_it_goes_on_with_what_it_has(
    stand: Stand, said: Callable[[], list[Line]]
) -> None:
    watched = Watched(stand)
    before = watched.current
    path = stand.database.sqlite.path
    with stand.database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE addresses RENAME TO away")
    watched.turn()
    watched.turn()
    assert watched.current == before
    assert path.exists()
    [(level, event, _)] = said()
    assert (level, event) == ("WARNING", "what is served stays as it was")
    with stand.database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO addresses")
    tell(stand, "https://x.example", hosts=("y.example",))
    watched.turn()
    assert carries(watched.current, "y.example")


def test_a_bug_does_not_end_the_looking(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(stand)

    def fail() -> object:
        raise ZeroDivisionError

    class Broken:
        mark = staticmethod(fail)

    source, watched.keeper._source = watched.keeper._source, Broken()  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        watched.turn()
    watched.keeper._source = source
    tell(stand, "", hosts=("y.example",))
    watched.turn()
    assert carries(watched.current, "y.example")


def test_one_who_fails_to_use_what_is_new_does_not_keep_it_from_others(stand: Stand) -> None:
    watched = Watched(stand, source=a_source(stand, url=""))

    def fail(_served: Served) -> None:
        raise ZeroDivisionError

    told: list[Served] = []
    watched.keeper.on_change(fail)
    watched.keeper.on_change(told.append)
    tell(stand, URL)
    watched.turn()
    assert told == [watched.current]


def test_a_certificate_that_has_ended_is_not_ready(stand: Stand) -> None:
    watched = Watched(stand)
    watched.keeper.check_valid()
    stand.clock.now = watched.current.not_after
    with pytest.raises(Unavailable, match="has ended"):
        watched.keeper.check_valid()


def test_no_key_shows(stand: Stand) -> None:
    assert "PRIVATE" not in repr(a_source(stand).look())


def test_a_storm_of_signals_is_answered_in_a_line(
    stand: Stand, said: Callable[[], list[Line]]
) -> None:
    watched = Watched(stand)
    for number in range(300):
        watched.turn(everything=True)
        watched.monotonic.now = number // 200
    assert said() == [("INFO", "nothing else is to be served", "")]
    watched.monotonic.now += 2
    watched.turn(everything=True)
    assert len(said()) == 2


# While it runs


def run_until(watched: Watched, begin: Callable[[], object], holds: Callable[[], bool]) -> None:
    """Let it run, `begin`, and wait until something `holds`."""

    async def main() -> None:
        changed = asyncio.Event()
        watched.keeper.on_change(lambda _: changed.set())
        task = asyncio.create_task(watched.keeper.run())
        await asyncio.to_thread(begin)
        async with asyncio.timeout(30):
            while not holds():
                await changed.wait()
                changed.clear()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_it_looks_every_now_and_then_by_itself(stand: Stand) -> None:
    watched = Watched(stand, source=a_source(stand, url=""), poll_seconds=0.01)
    run_until(watched, lambda: tell(stand, URL), lambda: watched.current.reach is not None)


@pytest.mark.parametrize("by", ["wake", "event"])
def test_it_looks_at_once_when_it_is_woken(stand: Stand, by: str) -> None:
    woken = asyncio.Event()
    watched = Watched(stand, source=a_source(stand, url=""), poll_seconds=3600, woken=woken)
    tell(stand, URL)

    async def main() -> None:
        changed = asyncio.Event()
        watched.keeper.on_change(lambda _: changed.set())
        task = asyncio.create_task(watched.keeper.run())
        watched.keeper.wake() if by == "wake" else woken.set()
        async with asyncio.timeout(30):
            await changed.wait()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert watched.current.reach is not None


def test_it_ends_only_after_the_look_that_is_under_way(stand: Stand) -> None:
    watched = Watched(stand, poll_seconds=0.001)

    async def main() -> bool:
        loop, began, over = asyncio.get_running_loop(), asyncio.Event(), list[bool]()

        class Slow:
            def mark(self) -> object:
                loop.call_soon_threadsafe(began.set)
                source.mark()
                over.append(True)
                return object()

            def look(self) -> Served:
                return watched.current

        source, watched.keeper._source = watched.keeper._source, Slow()  # type: ignore[assignment]
        task = asyncio.create_task(watched.keeper.run())
        await began.wait()
        task.cancel()
        await asyncio.wait([task])
        return bool(over)

    assert asyncio.run(main())


# Files


ROOT, OTHER_ROOT = a_root(), a_root("another")
NO_CA = ROOT.certify(name="no CA")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(directory=tmp_path / "tls")
    made.write(ROOT.certify("west.example"), ROOT)
    return made


def from_files(
    stand: Stand, folder: Folder, rehearse: Rehearsal = lambda *_: None, **changes: Any
) -> Watched:
    source = a_source(stand, files=folder.files, **changes)
    return Watched(stand, source=source, rehearse=rehearse)


def test_files_take_the_place_of_what_our_own_ca_issues(stand: Stand, folder: Folder) -> None:
    served = from_files(stand, folder).current
    assert served.reach is not None
    assert served.reach.ca_pem.encode() == ROOT.pem
    assert served.certificate_pem == folder.files.certificate.read_bytes()
    with stand.database.reading() as connection:
        assert authority_rows.current_server_certificate(connection) is None
    assert a_source(stand, files=folder.files).way() == (served.reach, "")


def test_files_that_do_not_belong_together_keep_a_server_from_starting(
    stand: Stand, folder: Folder
) -> None:
    folder.put("tls.key", a_root().key_pem)
    with pytest.raises(Misconfigured, match="is not the key of the first certificate"):
        from_files(stand, folder)


@pytest.mark.parametrize("kind", ["p256", "rsa", "ed25519"])
def test_files_that_change_are_served_whatever_the_kind_of_key(
    stand: Stand, folder: Folder, kind: str
) -> None:
    watched = from_files(stand, folder)
    new = ROOT.certify("west.example", kind=kind)
    folder.write(new, ROOT)
    watched.turn()
    assert watched.current.fingerprint == new.fingerprint
    assert watched.told == [watched.current]


@pytest.mark.parametrize(
    "half",
    [
        pytest.param(lambda it, new: it.put("tls.crt", new.pem), id="the key is still the old one"),
        pytest.param(lambda it, new: it.put("tls.key", new.key_pem), id="only the key is new"),
        pytest.param(lambda it, new: it.put("tls.crt", new.pem[:300]), id="half a certificate"),
        pytest.param(lambda it, new: it.put("tls.key", new.key_pem[:50]), id="half a key"),
        pytest.param(lambda it, _: it.put("tls.crt", b""), id="nothing yet"),
        pytest.param(lambda it, _: it.files.key.unlink(), id="no key at the moment"),
        pytest.param(lambda it, _: it.put("ca.crt", a_root().pem), id="the CA is a new one"),
    ],
)
def test_a_half_written_pair_is_kept_out_warned_of_once_and_tried_again(
    stand: Stand,
    folder: Folder,
    half: Callable[[Folder, Certified], object],
    said: Callable[[], list[Line]],
) -> None:
    watched = from_files(stand, folder)
    before = watched.current
    new = ROOT.certify("west.example")
    half(folder, new)
    for _ in range(3):
        watched.turn()
    assert watched.current == before
    folder.write(new, ROOT)
    watched.turn()
    assert watched.current.fingerprint == new.fingerprint
    assert [(level, event) for level, event, _ in said()] == [
        ("WARNING", "what is served stays as it was"),
        ("INFO", "what is to be served can be used again"),
        ("INFO", "another certificate is served"),
    ]


def test_a_pair_that_comes_back_as_it_was_is_good_again(
    stand: Stand, folder: Folder, said: Callable[[], list[Line]]
) -> None:
    watched = from_files(stand, folder)
    whole = folder.files.key.read_bytes()
    folder.put("tls.key", b"")
    watched.turn()
    folder.put("tls.key", whole)
    watched.turn()
    assert [level for level, _, _ in said()] == ["WARNING", "INFO"]
    assert watched.told == []


def test_a_certificate_that_has_ended_does_not_replace_one_that_has_not(
    stand: Stand, folder: Folder, said: Callable[[], list[Line]]
) -> None:
    watched = from_files(stand, folder)
    before = watched.current
    yesterday = datetime.fromtimestamp(NOW - DAY, UTC)
    folder.write(ROOT.certify("west.example", end=yesterday), ROOT)
    watched.turn()
    assert watched.current == before
    assert "has ended at" in said()[0][2]
    folder.write(ROOT.certify("west.example", end=yesterday + timedelta(days=9)), ROOT)
    watched.turn()
    assert watched.current != before


MIDDLE = ROOT.certify(ca=True, name="middle", end=datetime.fromtimestamp(NOW - 400 * DAY, UTC))


@pytest.mark.parametrize(
    ("worse", "roots", "why"),
    [
        (ROOT.certify("east.example"), [ROOT], "Hostname mismatch"),
        (ROOT.certify("west.example", begin=datetime(2119, 1, 1, tzinfo=UTC)), [ROOT], "not yet"),
        (MIDDLE.certify("west.example"), [ROOT], "has expired"),
        (ROOT.certify("west.example", client=True), [ROOT], "purpose"),
        (NO_CA.certify("west.example"), [ROOT], "invalid CA"),
        (OTHER_ROOT.certify("east.example"), [OTHER_ROOT], "Hostname mismatch"),
    ],
    ids=["host", "early", "expired CA", "purpose", "no CA", "other CA and host"],
)
def test_what_clients_refuse_does_not_replace_what_they_accept(
    stand: Stand,
    folder: Folder,
    said: Callable[[], list[Line]],
    worse: Certified,
    roots: list[Certified],
    why: str,
) -> None:
    watched = from_files(stand, folder, rehearse=rehearse)
    before = watched.current
    folder.write(worse, *roots)
    watched.turn()
    assert watched.current == before
    [(level, event, told)] = said()
    assert (level, event) == ("WARNING", "what is served stays as it was")
    assert why in told
    better = ROOT.certify("west.example")
    folder.write(better, ROOT)
    watched.turn()
    assert watched.current.fingerprint == better.fingerprint


def test_where_clients_refuse_both_what_was_asked_for_is_served(
    stand: Stand, folder: Folder
) -> None:
    folder.write(ROOT.certify("east.example"), ROOT)
    watched = from_files(stand, folder, rehearse=rehearse)
    new = ROOT.certify("north.example")
    folder.write(new, ROOT)
    watched.turn()
    assert watched.current.fingerprint == new.fingerprint


def test_one_that_has_ended_is_served_where_there_is_no_other(stand: Stand, folder: Folder) -> None:
    """The ops listener is to tell of it, and a new one to be taken as soon as it is there."""
    folder.write(ROOT.certify("west.example", end=datetime.fromtimestamp(NOW - DAY, UTC)), ROOT)
    with pytest.raises(Unavailable):
        from_files(stand, folder).keeper.check_valid()


def test_another_ca_alone_is_told_and_the_certificate_stays(
    stand: Stand, folder: Folder, said: Callable[[], list[Line]]
) -> None:
    watched = from_files(stand, folder)
    before = watched.current
    coming = a_root("their next root")
    folder.put("ca.crt", ROOT.pem + coming.pem)
    watched.turn()
    assert watched.current.fingerprint == before.fingerprint
    assert watched.current.reach is not None
    assert watched.current.reach.ca_pem.encode() == ROOT.pem + coming.pem
    assert said() == [("INFO", "clients reach us in another way", "")]


def test_a_new_address_is_told_with_the_ca_of_the_files(stand: Stand, folder: Folder) -> None:
    watched = from_files(stand, folder, url="")
    assert (watched.current.reach, watched.current.waiting) == (None, "waiting for an address")
    tell(stand, URL)
    watched.turn()
    assert watched.current.reach is not None
    assert watched.current.reach.ca_pem.encode() == ROOT.pem


# A Secret that somebody else keeps


def put_secret(
    stand: Stand, one: Certified, root: Certified, keep: tuple[Certified, ...] = ()
) -> None:
    """As whoever holds the Lease does."""
    key_pem = keys.to_pem(keys.load_private_key(one.key_pem))
    with stand.database.writing() as connection:
        authority_rows.add_server_certificate(
            connection,
            a_server_certificate(
                certificate_pem=(one.pem + one.chain).decode(),
                sealed_key=stand.keyring.seal(
                    key_pem, purpose=f"server-key/{one.fingerprint}", random=bytes(12)
                ),
                fingerprint=one.fingerprint,
                not_after=int(one.certificate.not_valid_after_utc.timestamp()),
                created_at=stand.clock.now,
                origin=reach.SECRET,
                ca_pem=root.pem.decode(),
            ),
            keep=[one.fingerprint for one in keep],
        )


def test_until_the_secret_is_there_tokens_wait_and_then_they_carry_its_ca(stand: Stand) -> None:
    source = a_source(stand, secret="ops/tls")
    watched = Watched(stand, source=source)
    waiting = "waiting for the certificate in Secret ops/tls"
    assert (watched.current.reach, watched.current.waiting) == (None, waiting)
    assert source.way() == (None, waiting)
    theirs = ROOT.certify("west.example")
    put_secret(stand, theirs, ROOT)
    watched.turn()
    assert watched.current.fingerprint == theirs.fingerprint
    assert watched.current.key_pem == theirs.key_pem
    assert watched.current.reach is not None
    assert watched.current.reach.ca_pem.encode() == ROOT.pem
    assert source.way() == (watched.current.reach, "")


def test_what_is_wrong_with_the_secret_is_what_people_are_told(stand: Stand) -> None:
    tell(stand, URL, problem="Secret ops/tls has no tls.key")
    served = a_source(stand, url="", secret="ops/tls").look()
    assert (served.reach, served.waiting) == (None, "Secret ops/tls has no tls.key")


def test_a_secrets_certificate_of_yesterday_is_not_served_by_who_wants_our_own(
    stand: Stand,
) -> None:
    put_secret(stand, ROOT.certify("west.example"), ROOT)
    served = a_source(stand).look()
    assert served.reach is not None
    check_chain(served.certificate_pem, served.reach.ca_pem.encode())


def test_replicas_that_want_the_secret_and_such_that_do_not_leave_each_other_alone(
    stand: Stand,
) -> None:
    theirs = ROOT.certify("west.example")
    old, new = Watched(stand), Watched(stand, source=a_source(stand, secret="ops/tls"))
    put_secret(stand, theirs, ROOT)
    ours = old.current.fingerprint
    for _ in range(3):
        for one in (old, new):
            one.turn(everything=True)
    assert (old.current.fingerprint, new.current.fingerprint) == (ours, theirs.fingerprint)
    with stand.database.reading() as connection:
        assert len(authority_rows.latest_server_certificates(connection, 9)) == 2


def test_when_their_ca_changes_tokens_carry_both_and_those_that_are_out_are_served(
    stand: Stand,
) -> None:
    stand.set_site()
    first, second = ROOT.certify("west.example"), OTHER_ROOT.certify("west.example")
    put_secret(stand, first, ROOT)
    source = a_source(stand, secret="ops/tls")
    watched = Watched(stand, source=source, rehearse=rehearse)
    stand.make_grant(window_seconds=DAY)
    stand.clock.now += 1000
    put_secret(stand, second, OTHER_ROOT, keep=(first,))
    watched.turn()
    assert watched.current.fingerprint == first.fingerprint
    assert watched.current.key_pem == first.key_pem
    assert watched.current.reach is not None
    assert watched.current.reach.ca_pem.encode() == OTHER_ROOT.pem + ROOT.pem
    assert source.way() == (watched.current.reach, "")
    stand.clock.now += 2 * DAY
    watched.turn(everything=True)
    assert watched.current.fingerprint == second.fingerprint
    assert watched.current.reach.ca_pem.encode() == OTHER_ROOT.pem


# At the start, when it cannot be served


def start(stand: Stand, **changes: Any) -> Watched:
    source = a_source(stand, **changes)
    return Watched(stand, source=source, check=server_context, rehearse=rehearse)


WEAK = ROOT.certify(ca=True, kind="rsa1024").certify("west.example")


def test_a_secret_that_cannot_be_served_keeps_no_server_from_starting(
    stand: Stand, said: Callable[[], list[Line]]
) -> None:
    """A release that looked less closely has taken it."""
    put_secret(stand, WEAK, ROOT)
    watched = start(stand, secret="ops/tls")
    assert watched.current.reach is None
    assert watched.current.waiting == "waiting for the certificate in Secret ops/tls"
    [(level, _, why)] = said()
    assert (level, "CA_KEY_TOO_SMALL" in why) == ("ERROR", True)
    with pytest.raises(Unavailable, match="makeshift"):
        watched.keeper.check_valid()
    watched.turn()
    assert len(said()) == 1
    good = ROOT.certify("west.example")
    put_secret(stand, good, ROOT)
    watched.turn()
    assert watched.current.fingerprint == good.fingerprint
    watched.keeper.check_valid()


def test_the_last_good_one_of_the_secret_is_better_than_ours(stand: Stand) -> None:
    good = ROOT.certify("west.example")
    put_secret(stand, good, ROOT)
    put_secret(stand, WEAK, ROOT, keep=(good,))
    watched = start(stand, secret="ops/tls")
    assert watched.current.fingerprint == good.fingerprint
    assert watched.current.reach is not None
    watched.keeper.check_valid()


def test_where_our_own_ca_cannot_sign_what_it_has_issued_is_served(
    stand: Stand, said: Callable[[], list[Line]]
) -> None:
    before = start(stand).current
    with stand.database.writing() as connection:
        connection.exec_driver_sql("UPDATE authorities SET sealed_key = zeroblob(99)")
    stand.clock.now += 300 * DAY
    assert start(stand).current == before
    assert [level for level, _, _ in said()] == ["ERROR"]


def test_where_there_is_nothing_at_all_a_server_does_not_start(stand: Stand) -> None:
    with stand.database.writing() as connection:
        connection.exec_driver_sql("UPDATE authorities SET sealed_key = zeroblob(99)")
    for secret in ("", "ops/tls"):
        with pytest.raises(Unready):
            start(stand, secret=secret)


def test_files_that_cannot_be_served_are_a_matter_of_configuration(
    stand: Stand, folder: Folder
) -> None:
    folder.write(WEAK, ROOT)
    with pytest.raises(Misconfigured, match="CA_KEY_TOO_SMALL"):
        start(stand, files=folder.files)
