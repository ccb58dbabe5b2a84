import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from app.domain.audit import Act, Entry
from app.domain.grants import Redemption
from app.errors import Broken, GrantServerError, Reason, Refused, Unavailable
from app.store import authorities, grants, sites
from app.store.engine import Database
from app.store.ledger import Found, Keeping, Kept, audit_entry
from tests.builders import GRANT_ID, NOW, WINDOW, a_grant, a_redemption, an_authority
from tests.store.spending import (
    CLAIM_KEY,
    OTHER_ID,
    Outcome,
    all_of,
    assert_exactly_seven,
    assert_untouched,
    entries,
    furnish,
    grant_of,
    open_ledger,
    opened,
    ordinals,
    outcomes,
    remove,
    revoke,
    revoke_and_use_up,
    rows,
    sixty_spends,
    spend,
    spent,
    turns,
    use_up,
    wish,
)


def test_a_redemption_is_written_down_with_who_and_what_was_given() -> None:
    made = a_redemption(ordinal=3, serial="0a", fingerprint="0b")
    assert audit_entry(made) == Entry(
        at=NOW,
        act=Act.GRANT_REDEEMED,
        actor=f"site:{made.subject}",
        target=f"grant/{made.grant_id}",
        details={
            "ordinal": 3,
            "name": "east",
            "peer": "192.0.2.7",
            "serial": "0a",
            "fingerprint": "0b",
        },
    )


def test_what_is_kept_is_not_shown() -> None:
    assert repr(Kept(sealed=b"secret", ordinal=1)) == "Kept(ordinal=1)"
    assert repr(Keeping(claim_key=b"k", sealed=b"s", until=9)) == "Keeping(until=9)"


def test_a_grant_is_found_by_its_id_and_by_its_site_and_name(base: Database) -> None:
    made = open_ledger(base)
    found = asyncio.run(made.find(GRANT_ID))
    with base.reading() as connection:
        site = sites.by_name(connection, "west")
        assert site is not None
        issuer = authorities.by_name(connection, site.issuer)
        assert issuer is not None
    expected = Found(
        grant=a_grant(), site_id=site.id, site_revision=site.revision, issuer_id=issuer.id
    )
    assert found == expected
    assert asyncio.run(made.find_by_name("west", "to-west")) == expected
    asyncio.run(made.close())


def test_every_field_of_a_grant_is_read(database: Database) -> None:
    grant = a_grant(allowed=9, spent=3, cost=7, revoked_at=NOW + 5, issuer="site-ca")
    furnish(database, grant)
    made = open_ledger(database)
    found = asyncio.run(made.find(GRANT_ID))
    assert found is not None
    assert found.grant == grant == grant_of(database)
    asyncio.run(made.close())


def test_the_grants_own_issuer_comes_before_the_sites(base: Database) -> None:
    with base.writing() as connection:
        other = authorities.add(connection, an_authority(name="other-ca"))
        grants.add(connection, a_grant(id="4" * 36, name="own", issuer="other-ca"))
    made = open_ledger(base)
    found = asyncio.run(made.find("4" * 36))
    assert found is not None
    assert (found.issuer_id, found.grant.issuer) == (other, "other-ca")
    asyncio.run(made.close())


def test_a_change_of_the_site_shows_at_the_next_look(base: Database) -> None:
    made = open_ledger(base)
    before = asyncio.run(made.find(GRANT_ID))
    with base.writing() as connection:
        issuer = authorities.add(connection, an_authority(name="new-ca"))
        sites.put(connection, name="west", issuer_id=issuer, wanted=(), now=NOW)
    after = asyncio.run(made.find(GRANT_ID))
    assert before is not None
    assert after is not None
    assert (before.site_revision, after.site_revision) == (1, 2)
    assert after.issuer_id == issuer
    asyncio.run(made.close())


@pytest.mark.parametrize(
    "key", ["", "x", GRANT_ID.upper(), f"{GRANT_ID} ", "' OR 1=1 --", "\x00", "\u00e9", "x" * 10**5]
)
def test_a_key_of_nobody_finds_nothing(base: Database, key: str) -> None:
    made = open_ledger(base)
    assert asyncio.run(made.find(key)) is None
    assert asyncio.run(made.find_by_name("west", key)) is None
    assert asyncio.run(made.find_by_name(key, "to-west")) is None
    asyncio.run(made.close())


def test_a_database_that_does_not_answer_is_unavailable(base: Database) -> None:
    made = open_ledger(base)
    asyncio.run(made.close())
    with pytest.raises(Unavailable):
        asyncio.run(made.find(GRANT_ID))


def test_one_spend_is_counted_and_written_down_twice(base: Database) -> None:
    wanted = a_redemption(ordinal=0)

    async def main() -> Redemption:
        async with opened(base) as made:
            return await spend(made, wanted)

    assert asyncio.run(main()) == replace(wanted, ordinal=1)
    assert spent(base) == 1
    assert rows(base) == [replace(wanted, ordinal=1)]
    (entry,) = entries(base)
    assert entry == Entry(
        at=NOW,
        act=Act.GRANT_REDEEMED,
        actor=f"site:{wanted.subject}",
        target=f"grant/{GRANT_ID}",
        details={
            "ordinal": 1,
            "name": "east",
            "peer": "192.0.2.7",
            "serial": wanted.serial,
            "fingerprint": wanted.fingerprint,
        },
    )
    assert_untouched(base, OTHER_ID)


@pytest.mark.parametrize("issuer", [7, None], ids=["known", "not known"])
def test_who_has_signed_is_written_down(base: Database, issuer: int | None) -> None:
    async def main() -> None:
        async with opened(base) as made:
            await spend(made, a_redemption(issuer_id=issuer))

    asyncio.run(main())
    assert [row.issuer_id for row in rows(base)] == [issuer]


def test_the_ordinal_counts_for_each_grant_by_itself(base: Database) -> None:
    async def main() -> list[int]:
        async with opened(base) as made:
            ids = (GRANT_ID, OTHER_ID, GRANT_ID, OTHER_ID, OTHER_ID)
            return [(await spend(made, a_redemption(grant_id=one))).ordinal for one in ids]

    assert asyncio.run(main()) == [1, 1, 2, 2, 3]


def test_claims_that_wait_together_share_a_commit(base: Database) -> None:
    batches: list[int] = []

    async def main() -> list[Outcome]:
        async with opened(base, on_batch=batches.append) as made:
            return await all_of([spend(made, a_redemption(grant_id=OTHER_ID)) for _ in range(300)])

    outcomes = asyncio.run(main())
    ordinals = [outcome.ordinal for outcome in outcomes if isinstance(outcome, Redemption)]
    assert ordinals == list(range(1, 301))
    assert batches == [256, 44]
    assert [row.ordinal for row in rows(base, OTHER_ID)] == ordinals


def test_claims_that_come_within_the_spacing_share_the_next_commit(base: Database) -> None:
    batches: list[int] = []

    async def main() -> None:
        async with opened(base, on_batch=batches.append, spacing_seconds=0.4) as made:
            await spend(made, a_redemption(grant_id=OTHER_ID))
            tasks = []
            for _ in range(5):
                task = asyncio.ensure_future(spend(made, a_redemption(grant_id=OTHER_ID)))
                tasks.append(task)
                await turns(3)
            await asyncio.gather(*tasks)

    asyncio.run(main())
    assert batches == [1, 5]


def test_a_batch_of_refusals_alone_commits_nothing(base: Database) -> None:
    batches: list[int] = []

    async def main() -> list[Outcome]:
        async with opened(base, on_batch=batches.append) as made:
            return await all_of([spend(made, a_redemption(grant_id="x")) for _ in range(3)])

    assert all(isinstance(outcome, Refused) for outcome in asyncio.run(main()))
    assert batches == []


@pytest.mark.parametrize("how_many_ledgers", [1, 2, 4])
def test_a_grant_of_seven_under_sixty_claims_gives_exactly_seven(
    seven: Database, how_many_ledgers: int
) -> None:
    assert_exactly_seven(seven, sixty_spends(seven, how_many_ledgers))


@pytest.mark.parametrize(
    ("meanwhile", "now", "reason"),
    [
        (revoke, NOW, Reason.REVOKED),
        (revoke_and_use_up, NOW + WINDOW, Reason.REVOKED),
        (remove, NOW, Reason.UNKNOWN_GRANT),
        (lambda _: None, NOW + WINDOW, Reason.EXPIRED),
        (use_up, NOW + WINDOW, Reason.EXPIRED),
        (use_up, NOW + WINDOW - 1, Reason.USED_UP),
    ],
)
def test_what_happened_between_judgement_and_spend_is_told_precisely(
    base: Database, meanwhile: Callable[[Database], None], now: int, reason: Reason
) -> None:
    made = open_ledger(base)
    assert asyncio.run(made.find(GRANT_ID)) is not None
    meanwhile(base)
    before = rows(base)

    async def main() -> None:
        with pytest.raises(Refused) as refused:
            await spend(made, a_redemption(redeemed_at=now))
        assert refused.value.reason is reason
        await made.close()

    asyncio.run(main())
    assert rows(base) == before
    assert len(entries(base)) == (0 if meanwhile in {revoke, remove} else len(before))


def test_the_last_second_of_the_window_can_be_spent(base: Database) -> None:
    async def main() -> Redemption:
        async with opened(base) as made:
            return await spend(made, a_redemption(redeemed_at=NOW + WINDOW - 1))

    assert asyncio.run(main()).ordinal == 1


def test_winners_and_losers_of_one_batch_each_get_their_own_answer(base: Database) -> None:
    async def main() -> list[Outcome]:
        async with opened(base) as made:
            ids = (GRANT_ID, "x", OTHER_ID, GRANT_ID, GRANT_ID, OTHER_ID)
            return await all_of([spend(made, a_redemption(grant_id=one)) for one in ids])

    one, unknown, two, three, used_up, four = asyncio.run(main())
    assert [getattr(one_of, "ordinal", None) for one_of in (one, two, three, four)] == [1, 1, 2, 2]
    assert getattr(unknown, "reason", None) is Reason.UNKNOWN_GRANT
    assert getattr(used_up, "reason", None) is Reason.USED_UP


def test_a_claim_that_breaks_a_constraint_does_not_hurt_the_others(base: Database) -> None:
    twin = a_redemption(grant_id=OTHER_ID)

    async def main() -> list[Outcome]:
        async with opened(base) as made:
            await spend(made, twin)
            poison = replace(twin, fingerprint="f" * 64)
            good = [a_redemption(grant_id=OTHER_ID) for _ in range(4)]
            return await all_of([spend(made, one) for one in (*good[:2], poison, *good[2:])])

    outcomes = asyncio.run(main())
    assert isinstance(outcomes[2], Broken)
    assert twin.serial not in str(outcomes[2])
    ordinals = [outcome.ordinal for outcome in outcomes if isinstance(outcome, Redemption)]
    assert ordinals == [2, 3, 4, 5]
    assert spent(base, OTHER_ID) == len(rows(base, OTHER_ID)) == len(entries(base, OTHER_ID)) == 5


def test_a_ledger_that_breaks_leaves_nobody_waiting(base: Database) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("a bug")

    async def main() -> None:
        made = open_ledger(base, on_batch=fail)
        queue = vars(made)["_queue"]
        spending = [asyncio.ensure_future(spend(made, a_redemption()))]
        await asyncio.sleep(0)
        flusher = queue._flusher
        assert flusher is not None
        with pytest.raises(RuntimeError, match="a bug"):
            await flusher
        assert (await spending[0]).ordinal == 1  # it was committed, and told so
        assert queue._flusher is None
        await made.close()

    asyncio.run(main())


def test_a_claim_that_gave_up_while_it_waited_is_not_spent_and_hurts_nobody(
    base: Database,
) -> None:
    async def main() -> list[Outcome]:
        async with opened(base) as made:
            tasks = [asyncio.ensure_future(spend(made, a_redemption())) for _ in range(3)]
            await asyncio.sleep(0)
            tasks[1].cancel()
            return await all_of(tasks)

    one, cancelled, two = asyncio.run(main())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert [getattr(one, "ordinal", None), getattr(two, "ordinal", None)] == [1, 2]
    assert spent(base) == len(rows(base)) == 2


def test_a_batch_of_which_everybody_gave_up_begins_no_transaction(base: Database) -> None:
    batches: list[int] = []

    async def main() -> None:
        async with opened(base, on_batch=batches.append) as made:
            task = asyncio.ensure_future(spend(made, a_redemption()))
            await asyncio.sleep(0)
            task.cancel()
            await all_of([task])

    asyncio.run(main())
    assert_untouched(base)
    assert batches == []


def test_an_answer_is_found_until_its_window_ends(base: Database) -> None:
    async def main() -> list[Kept | None]:
        async with opened(base) as made:
            before = await made.find_kept(CLAIM_KEY, NOW)
            await made.spend(wish())
            return [before, *[await made.find_kept(CLAIM_KEY, NOW + at) for at in (0, 599, 600)]]

    kept = Kept(sealed=b"sealed", ordinal=1)
    assert asyncio.run(main()) == [None, kept, kept, None]


@pytest.mark.parametrize("grant_id", [GRANT_ID, OTHER_ID])
def test_copies_of_one_claim_in_one_batch_are_one_redemption(base: Database, grant_id: str) -> None:
    async def main() -> list[Redemption | Kept]:
        async with opened(base) as made:
            copies = [wish(sealed=b"%d" % number, grant_id=grant_id) for number in range(5)]
            return await outcomes(made, *copies)

    first, *others = asyncio.run(main())
    assert isinstance(first, Redemption)
    assert others == [Kept(sealed=b"0", ordinal=1)] * 4
    assert spent(base, grant_id) == 1
    assert len(rows(base, grant_id)) == len(entries(base, grant_id)) == 1


@pytest.mark.parametrize("allowed", [1, 5])
def test_copies_of_one_claim_in_two_processes_are_one_redemption(
    database: Database, allowed: int
) -> None:
    furnish(database, a_grant(allowed=allowed))

    async def main() -> list[Redemption | Kept]:
        async with opened(database) as one, opened(database) as two:
            found = await asyncio.gather(
                outcomes(one, wish(sealed=b"one")), outcomes(two, wish(sealed=b"two"))
            )
            return [outcome for outcomes_ in found for outcome in outcomes_]

    found = asyncio.run(main())
    (won,) = [one for one in found if isinstance(one, Redemption)]
    (kept,) = [one for one in found if isinstance(one, Kept)]
    assert won.ordinal == kept.ordinal == 1
    assert spent(database) == 1
    assert len(rows(database)) == len(entries(database)) == 1


def test_a_repeated_claim_does_not_hurt_the_others_of_its_batch(base: Database) -> None:
    async def main() -> list[Redemption | Kept]:
        async with opened(base) as one, opened(base) as two:
            await one.spend(wish(grant_id=OTHER_ID))
            others = [wish(key=b"%016d" % number, grant_id=OTHER_ID) for number in range(3)]
            return await outcomes(two, *others, wish(grant_id=OTHER_ID, sealed=b"late"))

    *good, again = asyncio.run(main())
    assert ordinals(good) == [2, 3, 4]
    assert again == Kept(sealed=b"sealed", ordinal=1)
    assert spent(base, OTHER_ID) == 4


def test_the_same_claim_after_its_window_is_a_new_redemption(base: Database) -> None:
    async def main() -> list[Redemption | Kept]:
        async with opened(base) as made:
            first = await outcomes(made, wish(grant_id=OTHER_ID))
            later = wish(grant_id=OTHER_ID, sealed=b"new", redeemed_at=NOW + 600)
            second = await outcomes(made, later)
            kept = await made.find_kept(CLAIM_KEY, NOW + 600)
            assert kept is not None
            return [*first, *second, kept]

    assert ordinals(asyncio.run(main())) == [1, 2, 2]
    assert spent(base, OTHER_ID) == 2


def test_an_answer_is_kept_exactly_when_its_redemption_is(base: Database) -> None:
    async def main() -> None:
        async with opened(base) as made:
            wishes = [wish(key=b"%016d" % number) for number in range(5)]
            found = await outcomes(made, *wishes)
            for number, outcome in enumerate(found):
                kept = await made.find_kept(b"%016d" % number, NOW)
                assert (kept is not None) == isinstance(outcome, Redemption)

    asyncio.run(main())
    assert spent(base) == 2


def test_closing_commits_what_waits(base: Database) -> None:
    async def main() -> list[Outcome]:
        made = open_ledger(base, spacing_seconds=0.05)
        await spend(made, a_redemption(grant_id=OTHER_ID))
        tasks = [
            asyncio.ensure_future(spend(made, a_redemption(grant_id=OTHER_ID))) for _ in range(5)
        ]
        await asyncio.sleep(0)
        await made.close()
        return await all_of(tasks)

    assert all(isinstance(outcome, Redemption) for outcome in asyncio.run(main()))
    assert spent(base, OTHER_ID) == 6


def test_a_closed_ledger_is_unavailable(base: Database) -> None:
    async def main() -> None:
        made = open_ledger(base)
        await made.close()
        with pytest.raises(Unavailable):
            await spend(made, a_redemption())

    asyncio.run(main())


EXAMPLES = count()


class Counter7:
    """What a grant is, with everything else taken away."""

    def __init__(self, allowed: int, expires_at: int) -> None:
        self.allowed, self.expires_at = allowed, expires_at
        self.spent, self.revoked, self.removed = 0, False, False

    def spend(self, now: int) -> int | Reason:
        if self.removed:
            return Reason.UNKNOWN_GRANT
        if self.revoked:
            return Reason.REVOKED
        if now >= self.expires_at:
            return Reason.EXPIRED
        if self.spent == self.allowed:
            return Reason.USED_UP
        self.spent += 1
        return self.spent


class LedgerAgainstCounters(RuleBasedStateMachine):
    made = Bundle("made")
    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.ledgers = [open_ledger(self.database), open_ledger(self.database)]
        self.counters: dict[str, Counter7] = {}
        self.example = next(EXAMPLES)
        self.now = NOW

    def teardown(self) -> None:
        for one in self.ledgers:
            self.runner.run(one.close())
        self.runner.close()

    @initialize(target=made, allowed=st.integers(1, 4))
    def begin_with_one(self, allowed: int) -> Any:
        return multiple(self._make(allowed, 20))

    @rule(target=made, allowed=st.integers(1, 4), window=st.integers(1, 20))
    def make(self, allowed: int, window: int) -> str:
        return self._make(allowed, window)

    def _make(self, allowed: int, window: int) -> str:
        number = f"{self.example}-{len(self.counters)}"
        grant_id = f"{number:0>36}"
        grant = a_grant(
            id=grant_id,
            name=f"g{number}",
            allowed=allowed,
            created_at=self.now,
            expires_at=self.now + window,
        )
        with self.database.writing() as connection:
            grants.add(connection, grant)
        self.counters[grant_id] = Counter7(allowed, self.now + window)
        return grant_id

    @rule(ids=st.lists(made, min_size=1, max_size=6))
    def spend(self, ids: list[str]) -> None:
        expected = [self.counters[one].spend(self.now) for one in ids]
        wanted = [a_redemption(grant_id=one, redeemed_at=self.now) for one in ids]

        async def together() -> list[Outcome]:
            return await all_of([spend(self.ledgers[0], one) for one in wanted])

        assert [self._plain(outcome) for outcome in self.runner.run(together())] == expected

    @rule(grant_id=made, count=st.integers(1, 3))
    def spend_through_two_ledgers(self, grant_id: str, count: int) -> None:
        expected = [self.counters[grant_id].spend(self.now) for _ in range(2 * count)]
        wanted = [a_redemption(grant_id=grant_id, redeemed_at=self.now) for _ in expected]

        async def together() -> list[Outcome]:
            return await all_of(
                [spend(self.ledgers[number % 2], one) for number, one in enumerate(wanted)]
            )

        outcomes = [self._plain(outcome) for outcome in self.runner.run(together())]
        assert sorted(map(str, outcomes)) == sorted(map(str, expected))

    @rule(grant_id=made)
    def revoke(self, grant_id: str) -> None:
        with self.database.writing() as connection:
            grants.revoke(connection, grant_id, self.now)
        self.counters[grant_id].revoked = True

    @rule(grant_id=made)
    def remove(self, grant_id: str) -> None:
        with self.database.writing() as connection:
            grants.remove(connection, grant_id)
        self.counters[grant_id].removed = True

    @rule(seconds=st.integers(1, 15))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def the_books_agree(self) -> None:
        for grant_id, counter in self.counters.items():
            grant = grant_of(self.database, grant_id)
            assert (grant is None) == counter.removed
            if grant is not None:
                assert grant.spent == counter.spent
                ordinals = [row.ordinal for row in rows(self.database, grant_id)]
                assert ordinals == list(range(1, counter.spent + 1))
            assert len(entries(self.database, grant_id)) == counter.spent

    @staticmethod
    def _plain(outcome: Outcome) -> int | Reason:
        if isinstance(outcome, Redemption):
            return outcome.ordinal
        assert isinstance(outcome, GrantServerError)
        assert isinstance(outcome, Refused)
        return outcome.reason


def test_a_ledger_counts_as_a_counter_with_a_limit_does(database: Database) -> None:
    furnish(database)
    machine = type("LedgerAgainstCounters", (LedgerAgainstCounters,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def bounded(number: int, *, most: int = 2, subject: str = "one") -> Any:
    """A wish of a subject that may redeem so often."""
    made = wish(f"{number:016}".encode(), subject=subject, grant_id=OTHER_ID)
    return replace(made, per_subject=most)


@pytest.mark.parametrize("ledgers", [1, 3])
def test_a_subject_redeems_no_more_often_than_it_may_however_many_ask_at_once(
    base: Database, ledgers: int
) -> None:
    """Those that come at once share commits, and come to several processes."""

    async def main() -> list[Outcome]:
        async with contextlib.AsyncExitStack() as stack:
            made = [await stack.enter_async_context(opened(base)) for _ in range(ledgers)]
            wishes = [bounded(number, subject=f"s{number % 2}") for number in range(24)]
            asked = [made[number % ledgers].spend(one) for number, one in enumerate(wishes)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert [await made[0].uses(OTHER_ID, f"s{each}") for each in range(3)] == [2, 2, 0]
            return list(found)  # type: ignore[arg-type]

    found = asyncio.run(main())
    won = [one for one in found if isinstance(one, Redemption)]
    assert sorted(one.subject for one in won) == ["s0", "s0", "s1", "s1"]
    lost = [one for one in found if not isinstance(one, Redemption)]
    assert {type(one) for one in lost} == {Refused}
    assert {one.reason for one in lost if isinstance(one, Refused)} == {Reason.POLICY}
    assert spent(base, OTHER_ID) == 4
    assert sorted(ordinals(won)) == [1, 2, 3, 4]
    assert len(rows(base, OTHER_ID)) == len(entries(base, OTHER_ID)) == 4


def test_who_may_not_does_not_keep_others_of_the_same_batch_from_it(base: Database) -> None:
    async def main() -> list[Any]:
        async with opened(base) as made:
            await made.spend(bounded(0, most=1))
            return await outcomes(
                made, bounded(1, most=1), wish(), bounded(2, most=1, subject="two")
            )

    refused, plain, other = asyncio.run(main())
    assert isinstance(refused, Refused)
    assert "once" in str(refused)
    assert (plain.grant_id, plain.ordinal) == (GRANT_ID, 1)
    assert (other.subject, other.ordinal) == ("two", 2)


def test_a_claim_that_comes_again_is_no_further_use_of_its_subject(base: Database) -> None:
    async def main() -> list[Any]:
        async with opened(base) as here, opened(base) as there:
            first = await here.spend(bounded(0, most=1))
            return [first, *await outcomes(there, bounded(0, most=1), bounded(0, most=1))]

    first, *again = asyncio.run(main())
    assert first.ordinal == 1
    assert again == [Kept(sealed=b"sealed", ordinal=1)] * 2
    assert spent(base, OTHER_ID) == 1


def test_copies_of_one_claim_at_two_processes_are_one_use(base: Database) -> None:
    async def main() -> list[Any]:
        async with opened(base) as here, opened(base) as there:
            return await asyncio.gather(
                *(made.spend(bounded(0, most=1)) for made in (here, there) for _ in range(3))
            )

    found = asyncio.run(main())
    assert {one.ordinal for one in found} == {1}
    assert sum(isinstance(one, Redemption) for one in found) == 1
    assert spent(base, OTHER_ID) == 1


def test_a_refused_use_counts_for_nothing(base: Database) -> None:
    """A grant that is over refuses without counting its subject."""
    revoke(base)

    async def main() -> tuple[Any, int]:
        async with opened(base) as made:
            one = replace(wish(subject="one"), per_subject=1)
            return (await outcomes(made, one))[0], await made.uses(GRANT_ID, "one")

    refused, uses = asyncio.run(main())
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.REVOKED
    assert uses == 0
