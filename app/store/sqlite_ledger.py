"""The ledger on SQLite: the body of each transaction on the loop, its commit in a helper thread.

The body takes microseconds, only the fsync of the commit takes long. Threads that did all of it
would fight the loop for the interpreter lock and cost more.

The statements are built with SQLAlchemy Core and compiled once; they run on the driver's cursor,
which costs a seventh of Core's execution on this path.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from sqlalchemy import (
    Executable,
    Table,
    bindparam,
    delete,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import sqlite

from app.domain.grants import Redemption
from app.errors import Broken, GrantServerError, Reason, Refused, Unavailable
from app.store import audit as audit_rows
from app.store.engine import Database
from app.store.group_commit import GroupCommit, Outcome, Waiting, give_all
from app.store.ledger import (
    Found,
    Kept,
    Spending,
    audit_entry,
    found_in,
    found_query,
    too_often,
)
from app.store.schema import answers, audit, grants, redemptions, sites, subject_uses

_READ_BUSY_MILLISECONDS: Final = 100  # the loop must not stand still for another process
_BUSY_DELAYS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)  # seconds; the last is repeated


def _compiled(statement: Executable) -> str:
    """Compile a Core statement to SQLite's text with named parameters."""
    return str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))  # type: ignore[attr-defined]


def _appending(table: Table, *left_out: str) -> str:
    """Insert a row of all columns but the number that the database gives and those left out."""
    columns = [column.name for column in table.c if column.name not in {"id", *left_out}]
    return _compiled(insert(table).values({name: bindparam(name) for name in columns}))


FIND_BY_ID = _compiled(found_query().where(grants.c.id == bindparam("key")))
FIND_BY_NAME = _compiled(
    found_query().where(sites.c.name == bindparam("namespace"), grants.c.name == bindparam("name"))
)
FIND_KEPT = _compiled(
    select(answers.c.sealed, answers.c.ordinal).where(
        answers.c.claim_key == bindparam("claim_key"), answers.c.expires_at > bindparam("now")
    )
)
# The decision. No row back means no: whatever was judged before, this alone counts.
SPEND = _compiled(
    update(grants)
    .where(
        grants.c.id == bindparam("grant_id"),
        grants.c.revoked_at.is_(None),
        grants.c.expires_at > bindparam("now"),
        grants.c.spent < grants.c.allowed,
    )
    .values(spent=grants.c.spent + literal_column("1"))
    .returning(grants.c.spent)
)
WHY_NOT = _compiled(
    select(grants.c.revoked_at, grants.c.expires_at).where(grants.c.id == bindparam("grant_id"))
)
USES = _compiled(
    select(subject_uses.c.used).where(
        subject_uses.c.grant_id == bindparam("grant_id"),
        subject_uses.c.subject == bindparam("subject"),
    )
)
# Its bound stands in the row: the database itself refuses to count beyond.
COUNT_USE = """
INSERT INTO subject_uses (grant_id, subject, used, most) VALUES (:grant_id, :subject, 1, :most)
ON CONFLICT (grant_id, subject) DO UPDATE SET used = used + 1, most = excluded.most
"""
FORGET_STALE = _compiled(
    delete(answers).where(
        answers.c.claim_key == bindparam("claim_key"), answers.c.expires_at <= bindparam("now")
    )
)
INSERT_REDEMPTION = _appending(redemptions, "revoked_at", "superseded_at")
INSERT_ANSWER = _appending(answers)
INSERT_AUDIT = _appending(audit)


class SqliteLedger:
    """The ledger on SQLite, for one process; used from one event loop.

    `spacing_seconds` is the least time between the beginnings of two commits. `on_batch` is told
    how many redemptions each commit carried. Several processes may have one file open.
    """

    def __init__(
        self, database: Database, *, spacing_seconds: float, on_batch: Callable[[int], None]
    ) -> None:
        self._sqlite = database.sqlite
        self._on_batch = on_batch
        self._queue = GroupCommit(spacing_seconds=spacing_seconds, settle_next=self._settle_next)
        self._committer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-commit")
        self._reader = self._connect(_READ_BUSY_MILLISECONDS)
        self._writer: sqlite3.Connection | None = self._connect(0)

    async def find(self, key: str) -> Found | None:
        """Find a grant by its id. Raises Unavailable when the database does not serve us."""
        return self._find(FIND_BY_ID, {"key": key})

    async def find_by_name(self, namespace: str, name: str) -> Found | None:
        """Find a grant by its site (which is its namespace) and name; raises as `find` does."""
        return self._find(FIND_BY_NAME, {"namespace": namespace, "name": name})

    async def find_kept(self, claim_key: bytes, now: int) -> Kept | None:
        """Find the answer that was given to the same claim, if it is kept still."""
        try:
            return _kept(self._reader, claim_key, now)
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    async def uses(self, grant_id: str, subject: str) -> int:
        """Tell how often a subject has redeemed a grant that bounds it."""
        try:
            return _uses(self._reader, grant_id, subject)
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    async def spend(self, spending: Spending) -> Redemption | Kept:
        """Spend one redemption durably; see the port."""
        return await self._queue.spend(spending)

    async def close(self) -> None:
        """Commit what waits, then let go of connections and thread."""
        try:
            await self._queue.drain()
        finally:
            self._committer.shutdown()
            self._reader.close()
            if self._writer is not None:
                self._writer.close()

    def _connect(self, busy_milliseconds: int) -> sqlite3.Connection:
        connection = self._sqlite.take_connection()
        connection.execute(f"PRAGMA busy_timeout = {busy_milliseconds}")
        return connection

    def _find(self, statement: str, parameters: Mapping[str, str]) -> Found | None:
        try:
            row = self._reader.execute(statement, parameters).fetchone()
        except sqlite3.Error as error:
            raise _unavailable(error) from error
        return None if row is None else found_in(row)

    async def _settle_next(self) -> None:
        """Take the write lock, and only then those who are next: by now, some may have left."""
        try:
            writer = await self._begin(self._queue.anybody_waits)
        except (sqlite3.Error, GrantServerError) as error:
            give_all(self._queue.take(), _unavailable(error))
            return
        if writer is not None:
            await self._settle(writer, self._queue.take())

    async def _settle(
        self, writer: sqlite3.Connection, batch: Sequence[Waiting], *, alone: bool = False
    ) -> None:
        """Give every claim of the batch its own answer."""
        outcomes: Sequence[Outcome]
        try:
            outcomes = await self._commit(writer, [one.spending for one in batch], alone=alone)
        except sqlite3.IntegrityError as error:
            if not alone:
                # One of them breaks a constraint; it must not take the others with it. Most
                # likely it repeats a claim that another process has just answered.
                for waiting in batch:
                    await self._settle_alone(waiting)
                return
            outcomes = [Broken(f"the ledger refused a redemption: {error}")]
        except sqlite3.Error as error:
            outcomes = [_unavailable(error) for _ in batch]
        except Exception as error:  # noqa: BLE001  # whoever waits must be answered, whatever it was
            outcomes = [Broken(f"the ledger failed: {type(error).__name__}") for _ in batch]
        for waiting, outcome in zip(batch, outcomes, strict=True):
            waiting.give(outcome)
        if spent := sum(isinstance(outcome, Redemption) for outcome in outcomes):
            self._on_batch(spent)

    async def _settle_alone(self, waiting: Waiting) -> None:
        loop = asyncio.get_running_loop()
        try:
            writer = await self._begin(lambda: loop.time() < waiting.deadline)
        except (sqlite3.Error, GrantServerError) as error:
            waiting.give(_unavailable(error))
            return
        if writer is None:
            waiting.give(Unavailable("database: locked by others"))
        else:
            await self._settle(writer, [waiting], alone=True)

    async def _commit(
        self, writer: sqlite3.Connection, wanted: Sequence[Spending], *, alone: bool
    ) -> Sequence[Outcome]:
        """End the transaction that was begun; its outcomes stand in the order of the wishes."""
        try:
            if alone and (kept := _make_room(writer, wanted[0])):
                writer.rollback()
                return [kept]
            outcomes = _spend_all(writer, wanted)
            if any(isinstance(outcome, Redemption) for outcome in outcomes):
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._committer, writer.commit)
            else:
                writer.rollback()
        except BaseException:
            self._abandon(writer)
            raise
        return outcomes

    async def _begin(self, wanted: Callable[[], bool]) -> sqlite3.Connection | None:
        """Take the write lock, for as long as it is wanted; another process may hold it."""
        self._sqlite.check_in_place()
        if self._writer is None:
            self._writer = self._connect(0)
        writer = self._writer
        delays = list(_BUSY_DELAYS)
        while wanted():
            try:
                writer.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                # The low byte: busy with the recovery of the log is busy too.
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
                if code & 0xFF != sqlite3.SQLITE_BUSY:
                    self._writer = None  # the next batch tries with a new connection
                    writer.close()
                    raise
            else:
                return writer
            await asyncio.sleep(delays.pop(0) if len(delays) > 1 else delays[0])
        return None

    def _abandon(self, writer: sqlite3.Connection) -> None:
        """Roll back; a connection that cannot even do that is replaced by the next batch."""
        try:
            writer.rollback()
        except sqlite3.Error:
            self._writer = None
            writer.close()


def _unavailable(error: Exception) -> GrantServerError:
    return error if isinstance(error, GrantServerError) else Unavailable(f"database: {error}")


def _spend_all(writer: sqlite3.Connection, wanted: Sequence[Spending]) -> Sequence[Outcome]:
    """Decide claim by claim in the open transaction, and write down what was spent."""
    outcomes: list[Outcome] = []
    spent: list[Redemption] = []
    answered: dict[bytes, Kept] = {}
    until: list[int] = []
    for spending in wanted:
        keeping = spending.keeping
        if keeping is not None and keeping.claim_key in answered:
            # Two copies of one claim in one batch: one redemption with one answer.
            outcomes.append(answered[keeping.claim_key])
            continue
        outcome = _spend(writer, spending)
        outcomes.append(outcome)
        if isinstance(outcome, Redemption):
            spent.append(outcome)
            if keeping is not None:
                answered[keeping.claim_key] = Kept(sealed=keeping.sealed, ordinal=outcome.ordinal)
                until.append(keeping.until)
    writer.executemany(INSERT_REDEMPTION, [_redemption_row(one) for one in spent])
    writer.executemany(
        INSERT_ANSWER,
        [
            {"claim_key": key, "ordinal": kept.ordinal, "sealed": kept.sealed, "expires_at": end}
            for (key, kept), end in zip(answered.items(), until, strict=True)
        ],
    )
    writer.executemany(INSERT_AUDIT, [audit_rows.values(audit_entry(one)) for one in spent])
    return outcomes


def _spend(writer: sqlite3.Connection, spending: Spending) -> Outcome:
    """Run the guarded update for one redemption, and say precisely why when it refuses."""
    wanted, keeping = spending.redemption, spending.keeping
    now = wanted.redeemed_at
    most = spending.per_subject
    # Nobody else writes before this transaction ends: what is read here holds.
    exhausted = most is not None and _uses(writer, wanted.grant_id, wanted.subject) >= most
    if not exhausted:
        row = writer.execute(SPEND, {"grant_id": wanted.grant_id, "now": now}).fetchall()
        if row:
            if most is not None:
                use = {"grant_id": wanted.grant_id, "subject": wanted.subject, "most": most}
                writer.execute(COUNT_USE, use)
            return wanted.numbered(row[0][0])
    # The last redemption may have been this same claim's, a moment ago in another process.
    if keeping is not None and (kept := _kept(writer, keeping.claim_key, now)) is not None:
        return kept
    why = writer.execute(WHY_NOT, {"grant_id": wanted.grant_id}).fetchone()
    if why is None:
        return Refused(Reason.UNKNOWN_GRANT, "removed while it was being redeemed")
    revoked_at, expires_at = why
    if revoked_at is not None:
        return Refused(Reason.REVOKED)
    if most is not None and exhausted:
        return too_often(most)
    return Refused(Reason.EXPIRED if expires_at <= now else Reason.USED_UP)


def _uses(connection: sqlite3.Connection, grant_id: str, subject: str) -> int:
    row = connection.execute(USES, {"grant_id": grant_id, "subject": subject}).fetchone()
    return 0 if row is None else row[0]


def _make_room(writer: sqlite3.Connection, spending: Spending) -> Kept | None:
    """Find the claim's answer if there is one by now; else take a stale one out of the way."""
    if spending.keeping is None:
        return None
    claim_key, now = spending.keeping.claim_key, spending.redemption.redeemed_at
    kept = _kept(writer, claim_key, now)
    if kept is None:
        writer.execute(FORGET_STALE, {"claim_key": claim_key, "now": now})
    return kept


def _kept(connection: sqlite3.Connection, claim_key: bytes, now: int) -> Kept | None:
    row = connection.execute(FIND_KEPT, {"claim_key": claim_key, "now": now}).fetchone()
    return None if row is None else Kept(sealed=row[0], ordinal=row[1])


def _redemption_row(redemption: Redemption) -> dict[str, object]:
    return {
        "grant_id": redemption.grant_id,
        "ordinal": redemption.ordinal,
        "name": redemption.name,
        "subject": redemption.subject,
        "peer": redemption.peer,
        "serial": redemption.serial,
        "fingerprint": redemption.fingerprint,
        "not_after": redemption.not_after,
        "redeemed_at": redemption.redeemed_at,
        "issuer_id": redemption.issuer_id,
    }
