"""The ledger on PostgreSQL: look-ups that share a query, and one statement for a whole batch.

Each statement is a transaction of its own, so a batch costs one round trip and one commit. All
replicas may spend at the same moment: rows are locked in one order, and what counts is what the
guarded update sees once it has the row.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.errors import (
    CheckViolation,
    DeadlockDetected,
    LockNotAvailable,
    SerializationFailure,
    UniqueViolation,
)
from psycopg.types.numeric import Int4, Int8
from sqlalchemy import String, any_, bindparam
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY

from app.domain.grants import Redemption
from app.errors import Broken, GrantServerError, Reason, Refused, Unavailable
from app.store import audit as audit_rows
from app.store.gathering import Gathering
from app.store.group_commit import GroupCommit, Outcome, Waiting, give_all
from app.store.ledger import (
    Found,
    Keeping,
    Kept,
    Spending,
    audit_entry,
    found_in,
    found_query,
    too_often,
)
from app.store.postgres_line import Line
from app.store.postgresql import Postgresql
from app.store.schema import answers, grants, subject_uses

_SESSION: Final[Mapping[str, str]] = {
    "default_transaction_isolation": r"read\ committed",
    "statement_timeout": "2s",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "5s",
    # Statements are prepared once, perhaps while the tables are empty, and run for weeks: the
    # plan must be the one for large tables, whatever the statistics say today.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "jit": "off",
}
_HELD_SECONDS: Final = 0.02  # how soon a grant that somebody has locked is tried again
_WATCH_SECONDS: Final = 0.25
_TRIES: Final = 3
_LONGEST_KEY: Final = 63  # of an id, or of the name of a site or grant

GUARD: Final = (
    "grants.revoked_at IS NULL AND grants.expires_at > asked.now"
    " AND grants.spent + asked.claims <= grants.allowed"
)
NO_MORE_THAN_LEFT: Final = "least(count(*), locked.remaining)"
_COUNTED: Final = """, counted AS (
    INSERT INTO subject_uses (grant_id, subject, used, most)
    SELECT grant_id, subject, count(*), min(most) FROM given
    GROUP BY grant_id, subject ORDER BY grant_id, subject
    ON CONFLICT (grant_id, subject)
    DO UPDATE SET used = subject_uses.used + excluded.used, most = excluded.most
)"""


def spending(
    *,
    guard: str = GUARD,
    claims: str = NO_MORE_THAN_LEFT,
    when_locked: str = "",
    bounded: bool = False,
) -> str:
    """Write the statement that spends a batch.

    `locked`: the rows, locked in one order, so that replicas wait for each other but never in a
    circle; they are read as they are once the lock is had. `asked`: how many redemptions each
    grant can still give to this batch. `taken`: the decision; no row back means no, whatever was
    read or judged before. `given`: the claims that got one, first come, first served. The rest is
    written down, or nothing is.

    With `bounded`, redemptions of each subject are counted as well: a constraint of the counter's
    row refuses to count beyond its bound, and nothing of the batch is spent then. The counter is
    read as it is once its grant is locked, so no snapshot comes between.
    """
    most, most_array, counted = "", "", ""
    if bounded:
        most, most_array, counted = ", most", ", %(most)b::integer[]", _COUNTED
    return f"""
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest(
        %(grant_id)b::text[], %(name)b::text[], %(subject)b::text[], %(peer)b::text[],
        %(serial)b::text[], %(fingerprint)b::text[], %(not_after)b::bigint[],
        %(redeemed_at)b::bigint[], %(issuer_id)b::integer[], %(act)b::text[], %(actor)b::text[],
        %(target)b::text[], %(other_details)b::text[], %(claim_key)b::bytea[], %(sealed)b::bytea[],
        %(until)b::bigint[]{most_array}
    ) WITH ORDINALITY AS wanted (
        grant_id, name, subject, peer, serial, fingerprint, not_after, redeemed_at, issuer_id,
        act, actor, target, other_details, claim_key, sealed, until{most}, place
    )
), ranked AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY grant_id ORDER BY place) AS rank FROM wanted
), locked AS MATERIALIZED (
    SELECT id, allowed - spent AS remaining FROM grants
    WHERE id = ANY(%(grant_id)b::text[]) ORDER BY id FOR NO KEY UPDATE {when_locked}
), asked AS MATERIALIZED (
    SELECT locked.id, {claims} AS claims, max(wanted.redeemed_at) AS now
    FROM locked JOIN wanted ON wanted.grant_id = locked.id GROUP BY locked.id, locked.remaining
), taken AS (
    UPDATE grants SET spent = grants.spent + asked.claims FROM asked
    WHERE grants.id = ANY(%(grant_id)b::text[]) AND grants.id = asked.id
        AND asked.claims > 0 AND {guard}
    RETURNING grants.id, grants.spent - asked.claims AS before, asked.claims
), given AS MATERIALIZED (
    SELECT ranked.*, taken.before + ranked.rank AS ordinal
    FROM ranked JOIN taken ON taken.id = ranked.grant_id WHERE ranked.rank <= taken.claims
), written AS (
    INSERT INTO redemptions (
        grant_id, ordinal, name, subject, peer, serial, fingerprint, not_after, redeemed_at,
        issuer_id
    )
    SELECT grant_id, ordinal, name, subject, peer, serial, fingerprint, not_after, redeemed_at,
        nullif(issuer_id, 0)
    FROM given ORDER BY place
), kept AS (
    INSERT INTO answers (claim_key, ordinal, sealed, expires_at)
    SELECT claim_key, ordinal, sealed, until FROM given WHERE until > 0 ORDER BY place
), noted AS (
    INSERT INTO audit (at, act, actor, target, details)
    SELECT redeemed_at, act, actor, target,
        '{{"ordinal":' || ordinal || ',' || other_details
    FROM given ORDER BY place
){counted}
SELECT place, ordinal FROM given
"""  # noqa: S608  # parts of ours


SPEND: Final = spending()
SPEND_UNLOCKED: Final = spending(when_locked="SKIP LOCKED")
# Of grants that bound how often a subject may redeem; no others pay for it.
SPEND_BOUNDED: Final = spending(bounded=True)
SPEND_BOUNDED_UNLOCKED: Final = spending(when_locked="SKIP LOCKED", bounded=True)


def _compiled(statement: Any) -> str:
    return str(statement.compile(dialect=postgresql.dialect(paramstyle="pyformat")))  # type: ignore[no-untyped-call]


FIND_BY_ID: Final = _compiled(
    found_query().where(grants.c.id == any_(bindparam("keys", type_=ARRAY(String))))
)
FIND_BY_NAME: Final = (
    _compiled(found_query())
    + """
JOIN unnest(%(sites)b::text[], %(names)b::text[]) AS wanted (site, name)
    ON sites.name = wanted.site AND grants.name = wanted.name
"""
)
FIND_KEPT: Final = """
SELECT claim_key, sealed, ordinal, expires_at FROM answers
WHERE claim_key = ANY(%(keys)b::bytea[])
"""
WHY_NOT: Final = """
SELECT id, revoked_at, expires_at, allowed - spent FROM grants WHERE id = ANY(%(keys)b::text[])
"""
USES: Final = """
SELECT used FROM subject_uses
WHERE grant_id = %(grant_id)b::text AND subject = %(subject)b::text
"""
FORGET_STALE: Final = """
DELETE FROM answers USING unnest(%(keys)b::bytea[], %(nows)b::bigint[]) AS stale (key, now)
WHERE claim_key = stale.key AND claim_key = ANY(%(keys)b::bytea[]) AND expires_at <= stale.now
"""


_COLUMNS: Final = tuple(re.findall(r"%\((\w+)\)b", SPEND.partition("WITH ORDINALITY")[0]))


class _Answer(NamedTuple):
    kept: Kept
    expires_at: int


class _Wish(NamedTuple):
    """A claim with all who wait for its answer: it may have come more than once."""

    spending: Spending
    waiting: list[Waiting]

    def give(self, outcome: Outcome) -> None:
        first, *copies = self.waiting
        first.give(outcome)
        keeping = self.spending.keeping
        if keeping is not None and isinstance(outcome, Redemption):
            outcome = Kept(sealed=keeping.sealed, ordinal=outcome.ordinal)
        for copy in copies:
            copy.give(outcome)


class PostgresLedger:
    """The ledger on PostgreSQL, for one process of any number; used from one event loop.

    `spacing_seconds` is the least time between the beginnings of two commits. `on_batch` is told
    how many redemptions each commit carried. It has two connections, one to look and one to spend.
    """

    def __init__(
        self, database: Postgresql, *, spacing_seconds: float, on_batch: Callable[[int], None]
    ) -> None:
        self._database = database
        self._on_batch = on_batch
        self._queue = GroupCommit(spacing_seconds=spacing_seconds, settle_next=self._settle_next)
        self._held: frozenset[str] = frozenset()  # grants that somebody else has locked for long
        parameters = database.parameters(_SESSION)
        self._reader = Line(parameters)
        self._writer = Line(parameters)
        self._by_id = Gathering(self._find_by_id)
        self._by_name = Gathering(self._find_by_name)
        self._kept = Gathering(self._find_answers)

    async def find(self, key: str) -> Found | None:
        """Find a grant by its id. Raises Unavailable when the database does not serve us."""
        return await self._by_id.find(key) if _may_exist(key) else None

    async def find_by_name(self, namespace: str, name: str) -> Found | None:
        """Find a grant by its site (which is its namespace) and name; raises as `find` does."""
        if not _may_exist(namespace) or not _may_exist(name):
            return None
        return await self._by_name.find((namespace, name))

    async def find_kept(self, claim_key: bytes, now: int) -> Kept | None:
        """Find the answer that was given to the same claim, if it is kept still."""
        answer = await self._kept.find(claim_key)
        return None if answer is None or answer.expires_at <= now else answer.kept

    async def uses(self, grant_id: str, subject: str) -> int:
        """Tell how often a subject has redeemed a grant that bounds it."""
        rows = await self._ask(USES, {"grant_id": grant_id, "subject": subject})
        return rows[0][0] if rows else 0

    async def spend(self, spending: Spending) -> Redemption | Kept:
        """Spend one redemption durably; see the port."""
        return await self._queue.spend(spending)

    async def close(self) -> None:
        """Commit what waits, then let go of the connections."""
        try:
            await self._queue.drain()
            for gathering in (self._by_id, self._by_name, self._kept):
                await gathering.drain()
        finally:
            await self._reader.close()
            await self._writer.close()

    async def _find_by_id(self, keys: Sequence[str]) -> Mapping[str, Found]:
        rows = await self._ask(FIND_BY_ID, {"keys": list(keys)})
        return {found.grant.id: found for found in map(found_in, rows)}

    async def _find_by_name(
        self, keys: Sequence[tuple[str, str]]
    ) -> Mapping[tuple[str, str], Found]:
        sites, names = zip(*keys, strict=True)
        rows = await self._ask(FIND_BY_NAME, {"sites": list(sites), "names": list(names)})
        return {(found.grant.site, found.grant.name): found for found in map(found_in, rows)}

    async def _find_answers(self, keys: Sequence[bytes]) -> Mapping[bytes, _Answer]:
        rows = await self._ask(FIND_KEPT, {"keys": list(keys)})
        return {
            key: _Answer(Kept(sealed=sealed, ordinal=ordinal), expires_at)
            for key, sealed, ordinal, expires_at in rows
        }

    async def _ask(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        try:
            return await self._reader.ask(statement, parameters)
        except (psycopg.Error, OSError) as error:
            raise self._unavailable(error) from None

    async def _settle_next(self) -> None:
        if not self._queue.anybody_waits():
            return
        batch = self._queue.take()
        if not batch:
            return
        self._watch_queue()
        held = any(one.spending.redemption.grant_id in self._held for one in batch)
        try:
            spent = 0
            for wishes in _by_kind(_wishes(batch)):
                spent += await self._settle(wishes, unlocked=held)
        except GrantServerError as error:
            give_all(batch, error)
        except (psycopg.Error, OSError) as error:
            give_all(batch, self._unavailable(error))
        except Exception as error:  # noqa: BLE001  # whoever waits must be answered, whatever it was
            give_all(batch, Broken(f"the ledger failed: {type(error).__name__}"))
        else:
            if spent:
                self._on_batch(spent)
        finally:
            self._watch.cancel()

    def _watch_queue(self) -> None:
        """Let nobody wait behind a slow statement for longer than a claim's patience lasts."""
        self._queue.anybody_waits()
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(_WATCH_SECONDS, self._watch_queue)

    async def _settle(self, wishes: Sequence[_Wish], *, unlocked: bool) -> int:
        """Give every claim its own answer, and tell how many redemptions were spent."""
        try:
            spent, left = await self._spend(wishes, unlocked=unlocked)
        except LockNotAvailable:
            # Somebody holds one of the grants for long; the others need not wait for him too.
            return await self._settle(wishes, unlocked=True)
        except (psycopg.IntegrityError, psycopg.DataError):
            # One of them breaks a constraint; it must not take the others with it. Most likely
            # it repeats a claim that another replica has just answered.
            spent = 0
            for wish in await self._make_room(wishes):
                spent += await self._settle_alone(wish)
            return spent
        left = await self._refuse(left)
        if unlocked:
            self._held -= {wish.spending.redemption.grant_id for wish in wishes}
            await self._put_back(left, all_of_it=len(left) == len(wishes))
        else:
            # Claims of one grant on both sides of the end of its window, or something as rare.
            for wish in left:
                spent += await self._settle_alone(wish)
        return spent

    async def _settle_alone(self, wish: _Wish) -> int:
        problem: GrantServerError
        for _ in range(_TRIES):
            try:
                spent, left = await self._spend([wish], unlocked=False)
            except CheckViolation as error:
                # Most likely the same claim, answered elsewhere, was counted a moment ago.
                if not await self._make_room([wish]):
                    return 0
                problem = _refused_by(error, wish.spending)
                break
            except UniqueViolation as error:
                if not await self._make_room([wish]):
                    return 0
                problem = Broken(f"the ledger refused a redemption: {error.diag.message_primary}")
                if error.diag.table_name != answers.name:
                    break
            except (psycopg.IntegrityError, psycopg.DataError) as error:
                problem = Broken(f"the ledger refused a redemption: {type(error).__name__}")
                break
            else:
                for one in await self._refuse(left):
                    one.give(Unavailable("database: the grant was changed meanwhile"))
                return spent
        wish.give(problem)
        return 0

    async def _spend(
        self, wishes: Sequence[_Wish], *, unlocked: bool
    ) -> tuple[int, Sequence[_Wish]]:
        """Spend what can be spent: how many redemptions, and the claims that got none."""
        if wishes[0].spending.per_subject is None:
            statement = SPEND_UNLOCKED if unlocked else SPEND
        else:
            statement = SPEND_BOUNDED_UNLOCKED if unlocked else SPEND_BOUNDED
        parameters = _parameters([wish.spending for wish in wishes])
        ordinals = dict(await self._tell(statement, parameters))
        left = []
        for place, wish in enumerate(wishes, start=1):
            if place in ordinals:
                wish.give(wish.spending.redemption.numbered(ordinals[place]))
            else:
                left.append(wish)
        return len(ordinals), left

    async def _refuse(self, wishes: Sequence[_Wish]) -> Sequence[_Wish]:
        """Say precisely why to claims that got nothing; those for which there is room are left."""
        # The last redemption may have been this same claim's, a moment ago at another replica.
        wishes = await self._give_kept(wishes)
        if not wishes:
            return wishes
        keys = list({wish.spending.redemption.grant_id for wish in wishes})
        rows = await self._ask(WHY_NOT, {"keys": keys})
        states = {key: (revoked_at, ends, left) for key, revoked_at, ends, left in rows}
        room = []
        for wish in wishes:
            wanted = wish.spending.redemption
            if wanted.grant_id not in states:
                gone = "removed while it was being redeemed"
                wish.give(Refused(Reason.UNKNOWN_GRANT, gone))
                continue
            revoked_at, expires_at, remaining = states[wanted.grant_id]
            if revoked_at is not None:
                wish.give(Refused(Reason.REVOKED))
            elif expires_at <= wanted.redeemed_at:
                wish.give(Refused(Reason.EXPIRED))
            elif remaining <= 0:
                wish.give(Refused(Reason.USED_UP))
            else:
                room.append(wish)
        return room

    async def _make_room(self, wishes: Sequence[_Wish]) -> Sequence[_Wish]:
        """Answer claims that were answered by now; take stale answers out of the others' way."""
        wishes = await self._give_kept(wishes)
        found = [
            (wish.spending.keeping.claim_key, Int8(wish.spending.redemption.redeemed_at))
            for wish in wishes
            if wish.spending.keeping is not None
        ]
        if found:
            keys, nows = zip(*found, strict=True)
            await self._tell(FORGET_STALE, {"keys": list(keys), "nows": list(nows)})
        return wishes

    async def _give_kept(self, wishes: Sequence[_Wish]) -> Sequence[_Wish]:
        keys = [wish.spending.keeping.claim_key for wish in wishes if wish.spending.keeping]
        found = await self._find_answers(keys) if keys else {}
        left = []
        for wish in wishes:
            keeping = wish.spending.keeping
            answer = None if keeping is None else found.get(keeping.claim_key)
            if answer is None or answer.expires_at <= wish.spending.redemption.redeemed_at:
                left.append(wish)
            else:
                wish.give(answer.kept)
        return left

    async def _put_back(self, wishes: Sequence[_Wish], *, all_of_it: bool) -> None:
        """Let claims wait on for grants that somebody has locked, while others go on."""
        self._held |= {wish.spending.redemption.grant_id for wish in wishes}
        self._queue.put_back([one for wish in wishes for one in wish.waiting])
        if wishes and all_of_it:
            await asyncio.sleep(_HELD_SECONDS)

    async def _tell(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Run a statement that writes; again when it lost against another and left no trace."""
        for _ in range(_TRIES - 1):
            with contextlib.suppress(DeadlockDetected, SerializationFailure):
                return await self._writer.tell(statement, parameters)
        return await self._writer.tell(statement, parameters)

    def _unavailable(self, error: Exception) -> GrantServerError:
        told = self._database.explained(error)
        return told if isinstance(told, Unavailable) else Unavailable(f"database: {told or error}")


def _may_exist(key: str) -> bool:
    """Tell whether there could be an id or a name like this; PostgreSQL takes no NUL at all."""
    return len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()


def _wishes(batch: Sequence[Waiting]) -> Sequence[_Wish]:
    """Put copies of one claim together: they are one redemption with one answer."""
    wishes: list[_Wish] = []
    seen: dict[bytes, _Wish] = {}
    for waiting in batch:
        keeping = waiting.spending.keeping
        if keeping is not None and keeping.claim_key in seen:
            seen[keeping.claim_key].waiting.append(waiting)
            continue
        wish = _Wish(waiting.spending, [waiting])
        wishes.append(wish)
        if keeping is not None:
            seen[keeping.claim_key] = wish
    return wishes


def _by_kind(wishes: Sequence[_Wish]) -> Sequence[Sequence[_Wish]]:
    """Part those of grants that bound their subjects from all others, which go first."""
    bounded = [wish for wish in wishes if wish.spending.per_subject is not None]
    if not bounded:
        return (wishes,) if wishes else ()
    others = [wish for wish in wishes if wish.spending.per_subject is None]
    return (others, bounded) if others else (bounded,)


def _refused_by(error: CheckViolation, spending: Spending) -> GrantServerError:
    if error.diag.table_name == subject_uses.name and spending.per_subject is not None:
        return too_often(spending.per_subject)
    return Broken(f"the ledger refused a redemption: {type(error).__name__}")


def _parameters(wanted: Sequence[Spending]) -> dict[str, list[Any]]:
    """Lay a batch out as one array for each column; the ordinal is put in by the statement."""
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for spending in wanted:
        one = spending.redemption
        entry = audit_rows.values(audit_entry(one))
        row = (
            *(one.grant_id, one.name, one.subject, one.peer, one.serial, one.fingerprint),
            *(Int8(one.not_after), Int8(one.redeemed_at), Int4(one.issuer_id or 0)),
            *(
                entry["act"],
                entry["actor"],
                entry["target"],
                str(entry["details"]).partition(",")[2],
            ),
            *_keeping(spending.keeping),
        )
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    if wanted and wanted[0].per_subject is not None:
        columns["most"] = [Int4(spending.per_subject or 0) for spending in wanted]
    return columns


def _keeping(keeping: Keeping | None) -> tuple[bytes, bytes, Int8]:
    if keeping is None:
        return b"", b"", Int8(0)
    return keeping.claim_key, keeping.sealed, Int8(keeping.until)
