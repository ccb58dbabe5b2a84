"""The ledger: finds the grant of a claim, and spends redemptions, each at most once.

This is the redemption path's door to the database, and it lives on the event loop. Claims that
wait at the same moment share one transaction, because one fsync can carry many redemptions: the
body of the transaction (microseconds) runs on the loop, only its commit goes to a helper thread.
Threads that did all of it would fight the loop for the interpreter lock and cost more.

The statements are built with SQLAlchemy Core and compiled once; they run on the driver's cursor,
which costs a seventh of Core's execution on this path.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Executable, bindparam, func, insert, literal_column, select, update
from sqlalchemy.dialects import sqlite

from app.domain.audit import Act, Entry
from app.domain.grants import Grant, Redemption
from app.errors import Broken, GrantServerError, Reason, Refused, Unavailable
from app.store import audit as audit_rows
from app.store.engine import Database
from app.store.schema import audit, authorities, grants, redemptions, sites

_LARGEST_BATCH: Final = 256  # bounds how long the loop is away in one transaction's body
_READ_BUSY_MILLISECONDS: Final = 100  # the loop must not stand still for another process
_BUSY_DELAYS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)  # seconds; the last is repeated
_PATIENCE: Final = 3.0  # seconds from a claim's arrival; an unmodified client gives up after 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A grant with what leads to its site's endpoints and to the authority that signs."""

    grant: Grant
    site_id: int
    site_revision: int
    issuer_id: int


def _compiled(statement: Executable) -> str:
    """Compile a Core statement to SQLite's text with named parameters."""
    return str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))  # type: ignore[attr-defined]


_FIND = (
    select(
        grants.c.id,
        grants.c.name,
        sites.c.name.label("site"),
        grants.c.concealed_code,
        grants.c.allowed,
        grants.c.spent,
        grants.c.cost,
        grants.c.created_at,
        grants.c.expires_at,
        grants.c.revoked_at,
        authorities.c.name.label("issuer"),
        sites.c.id,
        sites.c.revision,
        func.coalesce(grants.c.issuer_id, sites.c.issuer_id),
    )
    .join(sites, grants.c.site_id == sites.c.id)
    .outerjoin(authorities, grants.c.issuer_id == authorities.c.id)
)
FIND_BY_ID = _compiled(_FIND.where(grants.c.id == bindparam("key")))
FIND_BY_NAME = _compiled(
    _FIND.where(sites.c.name == bindparam("namespace"), grants.c.name == bindparam("name"))
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
INSERT_REDEMPTION = _compiled(
    insert(redemptions).values(
        {
            column.name: bindparam(column.name)
            for column in redemptions.c
            if column is not redemptions.c.id
        }
    )
)
INSERT_AUDIT = _compiled(
    insert(audit).values(
        {column.name: bindparam(column.name) for column in audit.c if column is not audit.c.id}
    )
)


@dataclass(frozen=True, slots=True)
class _Waiting:
    redemption: Redemption
    answer: asyncio.Future[Redemption]
    deadline: float


class SqliteLedger:
    """The ledger on SQLite, for one process; used from one event loop.

    `spacing_seconds` is the least time between the beginnings of two commits: claims that come
    meanwhile share the next one. A claim that comes alone is committed at once. `on_batch` is
    told how many redemptions each commit carried.
    """

    def __init__(
        self, database: Database, *, spacing_seconds: float, on_batch: Callable[[int], None]
    ) -> None:
        self._database = database
        self._spacing = spacing_seconds
        self._on_batch = on_batch
        self._waiting: list[_Waiting] = []
        self._flusher: asyncio.Task[None] | None = None
        self._next_commit = 0.0
        self._committer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-commit")
        self._reader = self._connect(_READ_BUSY_MILLISECONDS)
        self._writer: sqlite3.Connection | None = self._connect(0)

    def find(self, key: str) -> Found | None:
        """Find a grant by its id. Raises Unavailable when the database does not serve us."""
        return self._find(FIND_BY_ID, {"key": key})

    def find_by_name(self, namespace: str, name: str) -> Found | None:
        """Find a grant by its site (which is its namespace) and name; raises as `find` does."""
        return self._find(FIND_BY_NAME, {"namespace": namespace, "name": name})

    async def spend(self, redemption: Redemption) -> Redemption:
        """Spend one redemption durably, and return it with its ordinal.

        The guarded update, the redemption's row and its audit row are one transaction. When
        this returns, they are on the disk; when it raises, nothing was spent:
        Refused (used up, expired, revoked or removed in the meantime), Unavailable (disk full,
        database away, or locked by others for three seconds), Broken (a constraint of ours
        failed).
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(redemption, loop.create_future(), loop.time() + _PATIENCE)
        self._waiting.append(waiting)
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        return await waiting.answer

    async def close(self) -> None:
        """Commit what waits, then let go of connections and thread."""
        if self._flusher is not None:
            await self._flusher
        self._committer.shutdown()
        self._reader.close()
        if self._writer is not None:
            self._writer.close()

    def _connect(self, busy_milliseconds: int) -> sqlite3.Connection:
        connection = self._database.take_connection()
        connection.execute(f"PRAGMA busy_timeout = {busy_milliseconds}")
        return connection

    def _find(self, statement: str, parameters: Mapping[str, str]) -> Found | None:
        try:
            row = self._reader.execute(statement, parameters).fetchone()
        except sqlite3.Error as error:
            raise Unavailable(f"database: {error}") from error
        if row is None:
            return None
        return Found(
            grant=Grant(
                id=row[0],
                name=row[1],
                site=row[2],
                concealed_code=row[3],
                allowed=row[4],
                spent=row[5],
                cost=row[6],
                created_at=row[7],
                expires_at=row[8],
                revoked_at=row[9],
                issuer=row[10],
            ),
            site_id=row[11],
            site_revision=row[12],
            issuer_id=row[13],
        )

    async def _flush(self) -> None:
        """Commit batch after batch until nobody waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                pause = self._next_commit - loop.time()
                if pause > 0:
                    await asyncio.sleep(pause)
                self._next_commit = loop.time() + self._spacing
                await self._settle_next()
        finally:
            # Empty, unless the above is wrong: then nobody shall wait for ever.
            self._flusher = None
            left, self._waiting = self._waiting, []
            _give_all(left, Broken("the ledger has stopped"))

    async def _settle_next(self) -> None:
        """Take the write lock, and only then those who are next: by now, some may have left."""
        try:
            writer = await self._begin(self._anybody_waits)
        except (sqlite3.Error, GrantServerError) as error:
            _give_all(self._take(), _unavailable(error))
            return
        if writer is not None:
            await self._settle(writer, self._take())

    def _anybody_waits(self) -> bool:
        """Send away who has waited for too long, and tell whether somebody is left."""
        now = asyncio.get_running_loop().time()
        overdue = [one for one in self._waiting if one.deadline <= now]
        self._waiting = [one for one in self._waiting if one.deadline > now]
        _give_all(overdue, Unavailable("database: locked by others"))
        return bool(self._waiting)

    def _take(self) -> list[_Waiting]:
        """Take those who are next; whoever gave up would never see an answer: not spent."""
        batch = self._waiting[:_LARGEST_BATCH]
        del self._waiting[:_LARGEST_BATCH]
        return [waiting for waiting in batch if not waiting.answer.done()]

    async def _settle(self, writer: sqlite3.Connection, batch: Sequence[_Waiting]) -> None:
        """Give every claim of the batch its own answer."""
        answers: Sequence[Redemption | GrantServerError]
        try:
            answers = await self._commit(writer, [waiting.redemption for waiting in batch])
        except sqlite3.IntegrityError as error:
            if len(batch) > 1:
                # One of them breaks a constraint; it must not take the others with it.
                for waiting in batch:
                    await self._settle_alone(waiting)
                return
            answers = [Broken(f"the ledger refused a redemption: {error}")]
        except sqlite3.Error as error:
            answers = [_unavailable(error) for _ in batch]
        except Exception as error:  # noqa: BLE001  # whoever waits must be answered, whatever it was
            answers = [Broken(f"the ledger failed: {type(error).__name__}") for _ in batch]
        for waiting, answer in zip(batch, answers, strict=True):
            _give(waiting.answer, answer)
        if spent := sum(isinstance(answer, Redemption) for answer in answers):
            self._on_batch(spent)

    async def _settle_alone(self, waiting: _Waiting) -> None:
        loop = asyncio.get_running_loop()
        try:
            writer = await self._begin(lambda: loop.time() < waiting.deadline)
        except (sqlite3.Error, GrantServerError) as error:
            _give(waiting.answer, _unavailable(error))
            return
        if writer is None:
            _give(waiting.answer, Unavailable("database: locked by others"))
        else:
            await self._settle(writer, [waiting])

    async def _commit(
        self, writer: sqlite3.Connection, wanted: Sequence[Redemption]
    ) -> Sequence[Redemption | GrantServerError]:
        """End the transaction that was begun; its answers stand in the order of the wishes."""
        try:
            answers = [_spend(writer, redemption) for redemption in wanted]
            spent = [answer for answer in answers if isinstance(answer, Redemption)]
            if not spent:
                writer.rollback()
                return answers
            writer.executemany(INSERT_REDEMPTION, [_row(one) for one in spent])
            writer.executemany(INSERT_AUDIT, [audit_rows.values(_entry(one)) for one in spent])
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._committer, writer.commit)
        except BaseException:
            self._abandon(writer)
            raise
        return answers

    async def _begin(self, wanted: Callable[[], bool]) -> sqlite3.Connection | None:
        """Take the write lock, for as long as it is wanted; another process may hold it."""
        self._database.check_in_place()
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


def _give_all(batch: Sequence[_Waiting], answer: GrantServerError) -> None:
    for waiting in batch:
        _give(waiting.answer, answer)


def _give(waiting: asyncio.Future[Redemption], answer: Redemption | GrantServerError) -> None:
    if waiting.done():  # its request was cancelled during the commit
        return
    if isinstance(answer, Redemption):
        waiting.set_result(answer)
    else:
        waiting.set_exception(answer)


def _spend(writer: sqlite3.Connection, wanted: Redemption) -> Redemption | GrantServerError:
    """Run the guarded update for one redemption, and say precisely why when it refuses."""
    parameters = {"grant_id": wanted.grant_id, "now": wanted.redeemed_at}
    row = writer.execute(SPEND, parameters).fetchall()
    if row:
        return wanted.numbered(row[0][0])
    why = writer.execute(WHY_NOT, {"grant_id": wanted.grant_id}).fetchone()
    if why is None:
        return Refused(Reason.UNKNOWN_GRANT, "removed while it was being redeemed")
    revoked_at, expires_at = why
    if revoked_at is not None:
        return Refused(Reason.REVOKED)
    if expires_at <= wanted.redeemed_at:
        return Refused(Reason.EXPIRED)
    return Refused(Reason.USED_UP)


def _row(redemption: Redemption) -> dict[str, object]:
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
    }


def _entry(redemption: Redemption) -> Entry:
    return Entry(
        at=redemption.redeemed_at,
        act=Act.GRANT_REDEEMED,
        actor=f"site:{redemption.subject}",
        target=f"grant/{redemption.grant_id}",
        details={
            "ordinal": redemption.ordinal,
            "name": redemption.name,
            "peer": redemption.peer,
            "serial": redemption.serial,
            "fingerprint": redemption.fingerprint,
        },
    )
