import asyncio
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from app import ambient
from app.crypto.audit_heads import HeadKeys
from app.domain.grants import Claim
from app.domain.webhooks import Failure
from app.errors import GrantServerError, Unavailable
from app.metrics import Pruned
from app.services import grants, housekeeping
from app.services.audit_chain import Chain
from app.services.housekeeping import UNBOUNDED, Housekeeping, Keep, Sweeper
from app.store import authorities, deliveries, pruning, schema, sites, webhooks
from app.store.engine import Connection, Database
from app.store.pruning import Aging
from tests.builders import CODE, GRANT_ID, NOW, WINDOW, Clock, Stand, an_authority
from tests.domain.test_webhooks import HOOK
from tests.services.clusters import a_cluster, a_secret, admit, put, sign
from tests.store.test_deliveries import FIRST
from tests.store.test_pruning import add_answers, add_entries, add_grant, name, times

AUDIT = Aging(schema.audit, schema.audit.c.at)
DAY = 86_400
KEEP = Keep(grants_seconds=90 * DAY, audit_seconds=365 * DAY)
OLD, YOUNG = NOW - 90 * DAY, NOW - 90 * DAY + 1


def furnish(database: Database) -> None:
    with database.writing() as connection:
        issuer = authorities.add(connection, an_authority())
        sites.put(connection, name="west", issuer_id=issuer, wanted=[], now=NOW)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """Run the test on each of the databases."""
    made = request.getfixturevalue(f"{request.param}_database")
    assert isinstance(made, Database)
    return made


@pytest.fixture
def base(database: Database) -> Database:
    furnish(database)
    return database


def a_chain(database: Database) -> Chain:
    return Chain(database=database, keys=HeadKeys.of({"one": bytes(32)}), clock=Clock())


def a_sweeper(database: Database, **changes: Any) -> Sweeper:
    made: dict[str, Any] = {
        "keep": KEEP, "clock": Clock(), "step": 3, "chain": a_chain(database)
    }  # fmt: skip
    made["chain"].seal()  # as the server does all the time
    return Sweeper(database=database, **(made | changes))


def swept(sweeper: Sweeper, *, dry: bool = False) -> dict[Pruned, int]:
    total: Counter[Pruned] = Counter()
    for step in sweeper.sweep(dry=dry):
        total.update(step)
    return {kind: count for kind, count in total.items() if count}


def left(connection: Connection) -> set[int]:
    return {int(one) for one in connection.scalars(select(schema.grants.c.id))}


def grants_in(database: Database) -> set[int]:
    with database.reading() as connection:
        return left(connection)


def count(database: Database, table: Any) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_what_may_go_goes_and_the_rest_stays(base: Database) -> None:
    with base.writing() as connection:
        add_answers(connection, NOW - 1, NOW, NOW + 1)
        add_entries(connection, NOW - 365 * DAY, NOW - 365 * DAY + 1)
        add_grant(connection, 1, OLD, NOW, NOW - 1, suspicions=1)
        add_grant(connection, 2, OLD, NOW + 1)
        add_grant(connection, 3, YOUNG)
    expected = {Pruned.ANSWERS: 2, Pruned.GRANTS: 1, Pruned.REDEMPTIONS: 2, Pruned.AUDIT: 1}
    sweeper = a_sweeper(base)
    assert swept(sweeper, dry=True) == expected
    assert swept(sweeper) == expected
    assert swept(sweeper) == {}
    assert grants_in(base) == {2, 3}
    with base.reading() as connection:
        assert times(connection, pruning.ANSWERS) == [NOW + 1]
        assert times(connection, AUDIT) == [NOW - 365 * DAY + 1]


def test_a_dry_sweep_deletes_nothing_and_takes_the_next_one_nothing_away(base: Database) -> None:
    with base.writing() as connection:
        for number in range(7):
            add_grant(connection, number, OLD, NOW + 1 if number % 2 else NOW)
    sweeper = a_sweeper(base)
    for _ in range(2):
        assert swept(sweeper, dry=True) == {Pruned.GRANTS: 4, Pruned.REDEMPTIONS: 4}
    assert len(grants_in(base)) == 7


def test_events_that_no_webhook_took_go_when_the_audit_log_of_them_does(base: Database) -> None:
    until = NOW - 365 * DAY
    with base.writing() as connection:
        webhooks.add(connection, HOOK)
        for position, dead_at in enumerate([until - 1] * 4 + [until, until + 1, None], start=1):
            one = replace(FIRST, position=position)
            deliveries.add(connection, [one])
            if dead_at is not None:
                deliveries.failed(
                    connection, one, status=None, failure=Failure.TIMEOUT, next_at=0,
                    dead_at=dead_at,
                )  # fmt: skip
    sweeper = a_sweeper(base)
    assert swept(sweeper, dry=True) == {Pruned.DELIVERIES: 5}
    assert swept(a_sweeper(base, keep=Keep(grants_seconds=1, audit_seconds=0))) == {}
    assert swept(sweeper) == {Pruned.DELIVERIES: 5}
    assert swept(sweeper) == {}
    assert count(base, schema.deliveries) == 2


def test_zero_keeps_grants_and_entries_for_ever(base: Database) -> None:
    with base.writing() as connection:
        add_answers(connection, NOW)
        add_entries(connection, 1)
        add_grant(connection, 1, 200)
    forever = a_sweeper(base, keep=Keep(grants_seconds=0, audit_seconds=0))
    assert swept(forever) == {Pruned.ANSWERS: 1}
    assert (grants_in(base), count(base, schema.audit)) == ({1}, 1)


def test_grants_that_have_to_stay_are_in_nobodys_way(base: Database) -> None:
    """However many there are: each sweep looks at a few, and the next one goes on behind them."""
    with base.writing() as connection:
        for number in range(10):
            add_grant(connection, number, OLD - 10 + number, NOW if number == 8 else NOW + 1)
    sweeper = a_sweeper(base, step=2, most_in_vain=4)
    assert [swept(sweeper) for _ in range(4)] == [
        {},
        {},
        {Pruned.GRANTS: 1, Pruned.REDEMPTIONS: 1},
        {},
    ]
    with base.writing() as connection:
        add_grant(connection, 10, OLD - 100)
    assert [swept(sweeper) for _ in range(3)].count({Pruned.GRANTS: 1}) == 1
    assert grants_in(base) == set(range(10)) - {8}


def test_a_sweep_ends_after_so_many_rows_and_the_next_one_goes_on(base: Database) -> None:
    with base.writing() as connection:
        add_answers(connection, *[NOW] * 10)
        add_grant(connection, 1, OLD, *[NOW] * 10)
    sweeper = a_sweeper(base, step=2, most=4)
    found = [swept(sweeper) for _ in range(4)]
    assert [one.get(Pruned.ANSWERS, 0) for one in found] == [4, 4, 2, 0]
    assert [one.get(Pruned.REDEMPTIONS, 0) for one in found] == [4, 4, 2, 0]
    assert grants_in(base) == set()


def test_authorities_of_issuer_secrets_go_when_nothing_leads_there_any_more(
    stand: Stand,
) -> None:
    """Not before the last answer that may still be given again, which has their certificates."""
    cluster, now = a_cluster(stand), stand.clock.now
    held = {name: sign(cluster, "west", a_secret(name), name) for name in ("old", "own", "new")}
    put(cluster, "west", held["new"])
    admit(cluster, issuer="own", issuer_id=held["own"])
    last = sign(cluster, "west", a_secret("last"), "last")

    def there() -> set[int]:
        with stand.database.reading() as connection:
            found = connection.execute(select(schema.authorities)).all()
        return {row.id for row in found} & {*held.values(), last}

    with stand.database.writing() as connection:
        add_answers(connection, now + 600)
    cluster.forget_unused_keys()
    sweeper = a_sweeper(stand.database, clock=stand.clock)
    stand.clock.now = now + 600 + DAY - 1
    swept(sweeper)
    assert there() == {*held.values(), last}
    stand.clock.now += 1
    assert swept(sweeper, dry=True)[Pruned.AUTHORITIES] == 1
    assert swept(sweeper)[Pruned.AUTHORITIES] == 1
    # The newest one stays: its number must not be given to another.
    assert there() == {held["own"], held["new"], last}

    cluster.revoke("west", "to-west")
    cluster.forget_unused_keys()
    stand.clock.now += 2 * DAY
    assert Pruned.AUTHORITIES not in swept(sweeper)  # its grant is there still
    assert sign(cluster, "west", a_secret("another"), "another") not in held.values()
    assert swept(sweeper)[Pruned.AUTHORITIES] == 1
    assert there() == {held["own"], held["new"]}


def test_the_authority_of_a_secret_that_came_back_stays(stand: Stand) -> None:
    cluster, secret = a_cluster(stand), a_secret()
    authority_id = sign(cluster, "west", secret)
    cluster.forget_unused_keys()
    stand.clock.now += 2 * DAY
    assert sign(cluster, "west", secret) == authority_id
    sign(cluster, "west", a_secret())
    put(cluster, "west", authority_id)
    assert swept(a_sweeper(stand.database, clock=stand.clock)) == {}
    put(cluster, "west", None)
    cluster.forget_unused_keys()
    assert swept(a_sweeper(stand.database, clock=stand.clock)) == {}


def test_no_transaction_is_large(base: Database) -> None:
    with base.writing() as connection:
        add_answers(connection, *[NOW] * 10)
        add_entries(connection, *[1] * 10)
        for number in range(5):
            add_grant(connection, number, OLD, *[NOW] * 4)
    steps = [Counter(step).total() for step in a_sweeper(base, step=3).sweep()]
    assert sum(steps) == 10 + 10 + 5 + 20
    assert max(steps) <= 6


ENDED = st.integers(NOW - 100 * DAY, NOW + 10 * DAY)
CERTIFICATES = st.lists(st.integers(NOW - 5, NOW + 5), max_size=5)
GRANTS = st.lists(st.tuples(ENDED, CERTIFICATES, st.none() | ENDED), max_size=12)
AGES = st.lists(st.integers(-20, 20), max_size=20)


@pytest.fixture(scope="module")
def furnished(migrated_file: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "furnished.db"
        shutil.copy(migrated_file, path)
        database = Database(f"sqlite:///{path}")
        furnish(database)
        database.close()
        yield path


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(grants=GRANTS, answers=AGES, entries=AGES, step=st.integers(1, 7), sort=st.booleans())
def test_of_rows_of_any_age_the_right_ones_go(
    furnished: Path,
    grants: list[tuple[int, list[int], int | None]],
    answers: list[int],
    entries: list[int],
    step: int,
    sort: bool,
) -> None:
    if sort:
        answers, entries = sorted(answers), sorted(entries)
    stay = {
        number
        for number, (ended, certificates_end, revoked_at) in enumerate(grants)
        if max(ended, revoked_at or 0) > OLD or any(end > NOW for end in certificates_end)
    }
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(furnished, Path(directory) / "x.db")
        database = Database(f"sqlite:///{directory}/x.db")
        with database.writing() as connection:
            add_answers(connection, *[NOW + age for age in answers])
            add_entries(connection, *[NOW - 365 * DAY + age for age in entries])
            for number, (ended, certificates_end, revoked_at) in enumerate(grants):
                add_grant(connection, number, ended, *certificates_end, revoked_at=revoked_at)
        swept(a_sweeper(database, step=step))
        with database.reading() as connection:
            assert left(connection) == stay
            kept = Counter(connection.scalars(select(schema.redemptions.c.grant_id)))
            assert kept == Counter({name(number): len(grants[number][1]) for number in stay})
            for aging, ages, until in (
                (pruning.ANSWERS, answers, NOW),
                (AUDIT, entries, NOW - 365 * DAY),
            ):
                found = [at - until for at in times(connection, aging)]
                young = [age for age in ages if age > 0]
                assert [age for age in found if age > 0] == young
                if sort:
                    assert found == young
        database.close()


def test_many_sweeps_at_once_delete_each_row_once(base: Database) -> None:
    with base.writing() as connection:
        add_answers(connection, *[NOW] * 60)
        add_entries(connection, *[1] * 60)
        for number in range(30):
            add_grant(connection, number, OLD, *[NOW + number % 2] * 3)
    total: Counter[Pruned] = Counter()
    lock = threading.Lock()

    def work() -> None:
        found = swept(a_sweeper(base, step=4))
        with lock:
            total.update(found)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == {
        Pruned.ANSWERS: 60,
        Pruned.GRANTS: 15,
        Pruned.REDEMPTIONS: 45,
        Pruned.AUDIT: 60,
    }
    assert grants_in(base) == set(range(1, 30, 2))


def test_a_sweep_and_a_busy_ledger_lose_nothing(stand: Stand) -> None:
    """Everything is redeemed while old rows of every kind are deleted beside it."""
    stand.set_site()
    with stand.database.writing() as connection:
        connection.execute(schema.audit.delete())
        add_answers(connection, *[NOW] * 600)
        add_entries(connection, *[1] * 600)
        for number in range(100):
            add_grant(connection, number, OLD, *[NOW] * 3)
    single = [stand.make_grant(name=f"single-{number}", redemptions=1) for number in range(60)]
    shared = stand.make_grant(name="shared", redemptions=60)
    before = count(stand.database, schema.audit)

    async def main() -> tuple[list[Any], dict[Pruned, int]]:
        redeemer = stand.redeemer()
        sweeping = asyncio.create_task(
            asyncio.to_thread(swept, a_sweeper(stand.database, keep=KEEP, step=5))
        )
        claims = [
            Claim(
                key=issued.grant.id,
                presented_code=CODE.encode(),
                name="east",
                subject=f"site-{number}-{position}",
                peer="192.0.2.7",
            )
            for number, issued in enumerate(single)
            for position, issued in enumerate((issued, shared))
        ]
        answers: list[Any] = []
        while claims:
            now, claims = claims[:8], claims[8:]
            answers += await asyncio.gather(*map(redeemer.redeem, now), return_exceptions=True)
        found = await sweeping
        await redeemer.ledger.close()
        return answers, found

    answers, found = asyncio.run(main())
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []
    assert len({answer.bundle for answer in answers}) == 120
    assert found == {
        Pruned.ANSWERS: 600,
        Pruned.GRANTS: 100,
        Pruned.REDEMPTIONS: 300,
        Pruned.AUDIT: 600,
    }
    assert count(stand.database, schema.redemptions) == 120
    assert count(stand.database, schema.answers) == 120
    assert count(stand.database, schema.audit) == before - 600 + 120
    with stand.database.reading() as connection:
        spent = connection.scalars(select(func.sum(schema.grants.c.spent))).one()
    assert spent == 120


def test_a_grant_that_may_still_be_redeemed_never_goes(stand: Stand) -> None:
    stand.set_site()
    issued = stand.make_grant()
    keep = Keep(grants_seconds=1, audit_seconds=0)
    for now, found in ((NOW + WINDOW, {}), (NOW + WINDOW + 1, {Pruned.GRANTS: 1})):
        assert swept(a_sweeper(stand.database, keep=keep, clock=Clock(now))) == found
    assert issued.grant.expires_at == NOW + WINDOW


def test_the_grant_of_a_resource_stays_whatever_its_age_until_that_is_gone(stand: Stand) -> None:
    """Were it made anew from its status, what an operator has revoked would be so no more."""
    cluster = a_cluster(stand)
    put(cluster)
    admit(cluster)
    grants.revoke(stand.database, GRANT_ID, actor="cli:test", now=NOW)
    keep = Keep(grants_seconds=1, audit_seconds=0)
    late = a_sweeper(stand.database, keep=keep, clock=Clock(NOW + 10 * WINDOW))
    assert swept(late) == {}
    cluster.revoke("west", "to-west")
    assert swept(late) == {Pruned.GRANTS: 1}
    cluster.remove_namespace("west")
    assert cluster.namespaces() == []


# In a server.


class Told:
    """What a housekeeping tells others, and a clock of its own."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.pruned: Counter[Pruned] = Counter()
        self.sweeps = threading.Semaphore(0)
        self.seconds = 0.0

    def log(self) -> structlog.stdlib.BoundLogger:
        def note(_logger: Any, method: str, event: Any) -> Any:
            self.events.append({"level": method, **event})
            raise structlog.DropEvent

        made: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            None, processors=[note], wrapper_class=structlog.stdlib.BoundLogger
        )
        return made

    def count(self, kind: Pruned, rows: int) -> None:
        self.pruned[kind] += rows

    def housekeeping(self, sweeper: Sweeper, **changes: Any) -> Housekeeping:
        options: dict[str, Any] = {
            "every_seconds": 0.001,
            "monotonic": lambda: self.seconds,
            "log": self.log(),
            "on_pruned": self.count,
            "on_swept": self.sweeps.release,
        }
        return Housekeeping(sweeper, **(options | changes))


def test_it_sweeps_at_once_and_again_and_ends_when_told(base: Database) -> None:
    told = Told()
    with base.writing() as connection:
        add_answers(connection, *[NOW] * 10)
    made = told.housekeeping(a_sweeper(base))
    made.start()
    for _ in range(3):
        assert told.sweeps.acquire(timeout=30)
    made.stop()
    assert told.pruned == {Pruned.ANSWERS: 10}
    assert told.events == [
        *[{"level": "info", "event": "pruned", "answers": 10}
          | {"grants": 0, "redemptions": 0, "renewals": 0, "audit": 0, "authorities": 0}
          | {"deliveries": 0}]
    ]  # fmt: skip
    assert all(thread.name != "housekeeping" for thread in threading.enumerate())


def test_one_that_was_never_begun_ends_too(base: Database) -> None:
    Told().housekeeping(a_sweeper(base), every_seconds=1e12).stop()


def test_it_ends_within_a_step_and_tells_what_is_done(
    base: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, under_way, go_on = Told(), threading.Event(), threading.Event()
    with base.writing() as connection:
        add_answers(connection, *[NOW] * 10)
    forget: Callable[..., int] = pruning.forget

    def held_up(*found: Any, **options: Any) -> int:
        under_way.set()
        assert go_on.wait(30)
        return forget(*found, **options)

    monkeypatch.setattr(pruning, "forget", held_up)
    made = told.housekeeping(a_sweeper(base))
    made.start()
    assert under_way.wait(30)
    stopping = threading.Thread(target=made.stop)
    stopping.start()
    assert made._stopped.wait(30)
    go_on.set()
    stopping.join(30)
    assert count(base, schema.answers) == 7
    assert told.pruned == {Pruned.ANSWERS: 3}
    assert [event["answers"] for event in told.events] == [3]
    assert not told.sweeps.acquire(blocking=False)


@pytest.mark.parametrize(
    ("error", "level"), [(Unavailable("the disk is full"), "warning"), (KeyError("x"), "exception")]
)
def test_a_sweep_that_fails_is_told_and_tried_again(
    base: Database, monkeypatch: pytest.MonkeyPatch, error: Exception, level: str
) -> None:
    told = Told()
    with base.writing() as connection:
        add_answers(connection, *[NOW] * 4)
    forget: Callable[..., int] = pruning.forget
    outcomes = iter([None, error])

    def failing(*found: Any, **options: Any) -> int:
        if failure := next(outcomes, None):
            raise failure
        return forget(*found, **options)

    monkeypatch.setattr(pruning, "forget", failing)
    made = told.housekeeping(a_sweeper(base))
    made.turn()
    assert [event["event"] for event in told.events] == ["the store could not be swept", "pruned"]
    assert told.events[0]["level"] == level
    assert told.events[1]["answers"] == 3
    assert not told.sweeps.acquire(blocking=False)
    made.turn()
    assert told.sweeps.acquire(blocking=False)
    assert count(base, schema.answers) == 0
    assert told.pruned == {Pruned.ANSWERS: 4}


def test_it_rests_for_longer_than_it_works(base: Database) -> None:
    told = Told()
    with base.writing() as connection:
        add_answers(connection, *[NOW] * 8)
    rests: list[float] = []

    def monotonic() -> float:
        told.seconds += 0.25
        return told.seconds

    made = told.housekeeping(a_sweeper(base), monotonic=monotonic)

    class Stopped:
        def wait(self, seconds: float) -> None:
            rests.append(seconds)

        def is_set(self) -> bool:
            return False

    made._stopped = Stopped()  # type: ignore[assignment]
    made.turn()
    assert rests == [1.0, 1.0, 1.0]


# Rotations, by the way.


def test_rotations_go_on_before_each_sweep_and_in_between(
    base: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "ROTATION_SECONDS", 0.001)
    told, turns = Told(), threading.Semaphore(0)

    def advance() -> int:
        turns.release()
        return 0

    made = told.housekeeping(a_sweeper(base), every_seconds=1e12, advance=advance)
    made.start()
    for _ in range(4):
        assert turns.acquire(timeout=30)
    made.stop()
    assert told.sweeps.acquire(blocking=False)
    assert not told.sweeps.acquire(blocking=False)
    assert told.events == []


def test_steps_that_were_taken_are_told(base: Database) -> None:
    told = Told()
    told.housekeeping(a_sweeper(base), advance=lambda: 2).rotate()
    assert told.events == [{"level": "info", "event": "rotations went on", "steps": 2}]


@pytest.mark.parametrize(
    ("error", "level"), [(Unavailable("the disk is full"), "warning"), (KeyError("x"), "exception")]
)
def test_a_rotation_that_fails_is_told_and_holds_nothing_up(
    base: Database, error: Exception, level: str
) -> None:
    def failing() -> int:
        raise error

    told = Told()
    made = told.housekeeping(a_sweeper(base), advance=failing)
    made.start()
    for _ in range(2):
        assert told.sweeps.acquire(timeout=30)
    made.stop()
    assert {event["event"] for event in told.events} == {"rotations could not go on"}
    assert {event["level"] for event in told.events} == {level}


def test_it_is_told_of_certificates_that_end_soon_after_a_sweep(base: Database) -> None:
    told, clock, announced = Told(), Clock(), [2, 0]
    made = told.housekeeping(a_sweeper(base, clock=clock), announce=announced.pop)
    made.look(sweep=False)
    assert len(announced) == 2
    made.look(sweep=True)
    assert told.events == []
    made.look(sweep=True)
    assert told.events == [{"level": "info", "event": "certificates end soon", "certificates": 2}]
    clock.now += 2 * DAY
    made.look(sweep=True)  # and the list is empty: of a clock that has jumped nothing is made
    assert len(told.events) == 2


@pytest.mark.parametrize(
    ("error", "level"), [(Unavailable("the disk is full"), "warning"), (KeyError("x"), "exception")]
)
def test_what_could_not_be_told_of_is_logged_and_holds_nothing_up(
    base: Database, error: Exception, level: str
) -> None:
    def failing() -> int:
        raise error

    told = Told()
    told.housekeeping(a_sweeper(base), announce=failing).look(sweep=True)
    (event,) = told.events
    assert event["event"] == "certificates that end soon could not be told of"
    assert event["level"] == level


# A clock that jumps.


@pytest.mark.parametrize("seconds", [2 * DAY, -2 * DAY])
def test_when_the_clock_has_jumped_nothing_is_deleted_or_rotated_for_an_hour(
    base: Database, seconds: int
) -> None:
    told, clock, steps = Told(), Clock(), Counter[str]()
    with base.writing() as connection:
        add_answers(connection, NOW + DAY)

    def advance() -> int:
        steps["taken"] += 1
        return 0

    made = told.housekeeping(a_sweeper(base, clock=clock), advance=advance)
    made.look(sweep=True)
    assert steps["taken"] == 1
    clock.now += seconds
    told.seconds += 60
    made.look(sweep=True)
    [event] = told.events
    assert (event["level"], event["jump_seconds"]) == ("warning", seconds - 60)
    for passed in (60, 3479, 60):  # the last one is an hour after the first
        clock.now += passed
        told.seconds += passed
        made.look(sweep=True)
        assert (steps["taken"], len(told.events)) == (1, 1)
    assert count(base, schema.answers) == 1
    clock.now += 1
    told.seconds += 1
    made.look(sweep=True)
    assert steps["taken"] == 2
    assert count(base, schema.answers) == (0 if seconds > 0 else 1)


def test_a_clock_that_is_set_right_again_has_ended_and_deleted_nothing(base: Database) -> None:
    told, clock = Told(), Clock()
    with base.writing() as connection:
        add_answers(connection, NOW + DAY)
    made = told.housekeeping(a_sweeper(base, clock=clock))
    for jump in (2 * DAY, -2 * DAY, 0):
        clock.now += jump + 3000
        told.seconds += 3000
        made.look(sweep=True)
    clock.now += 3000
    told.seconds += 3000
    made.look(sweep=True)
    assert told.sweeps.acquire(blocking=False)
    assert count(base, schema.answers) == 1


def test_a_clock_that_is_a_little_off_is_trusted(base: Database) -> None:
    told, clock = Told(), Clock()
    made = told.housekeeping(a_sweeper(base, clock=clock))
    for _ in range(100):
        clock.now += 90
        told.seconds += 60
        made.look(sweep=True)
        assert told.sweeps.acquire(blocking=False)
    assert told.events == []


# From the command line.


@pytest.mark.parametrize("dry", [True, False])
def test_pruning_now_goes_to_the_end(base: Database, dry: bool) -> None:
    with base.writing() as connection:
        add_answers(connection, *[NOW] * 1001)
        for number in range(30):
            add_grant(connection, number, OLD, NOW if number > 9 else NOW + 1)
    found = housekeeping.prune(
        base, a_chain(base), KEEP, clock=Clock(), monotonic=ambient.monotonic, dry=dry
    )
    assert found == {
        Pruned.ANSWERS: 1001,
        Pruned.GRANTS: 20,
        Pruned.REDEMPTIONS: 20,
        Pruned.RENEWALS: 0,
        Pruned.AUDIT: 0,
        Pruned.AUTHORITIES: 0,
        Pruned.DELIVERIES: 0,
    }
    assert count(base, schema.answers) == (1001 if dry else 0)
    assert len(grants_in(base)) == (30 if dry else 10)
    assert swept(a_sweeper(base, most=UNBOUNDED)) == (
        {kind: rows for kind, rows in found.items() if rows} if dry else {}
    )


def test_a_database_that_is_away_is_told(base: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(pruning, "look", away)
    with pytest.raises(GrantServerError):
        housekeeping.prune(base, a_chain(base), KEEP, clock=Clock(), monotonic=ambient.monotonic)
