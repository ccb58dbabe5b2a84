"""Rows of the audit log's chain: links, and heads that were signed.

Rows of the log are written in the transaction of their act and get their links a little later, from
one sealer at a time: acts need not wait for each other. On PostgreSQL a row may become visible
after one with a higher number; it gets a later position then.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, exists, func, insert, or_, select
from sqlalchemy import Row as DatabaseRow

from app.domain.audit_chain import BEGINNING, Head, HeadKind, Link, Row, Walk
from app.domain.audit_numbers import Numbers
from app.store.schema import audit, audit_heads, audit_links

_PAGE: Final = 1000
_NUMBERS: Final = 10_000


def end(connection: Connection) -> Walk:
    """Where the chain ends: position and hash of the newest link, be it deleted by now."""
    row = connection.execute(
        select(audit_links.c.position, audit_links.c.hash)
        .order_by(audit_links.c.position.desc())
        .limit(1)
    ).first()
    if row is not None:
        return Walk(position=row.position, hash=row.hash)
    pruned = pruned_to(connection)
    if pruned is not None:
        return Walk(position=pruned.position, hash=pruned.hash)
    return Walk(position=0, hash=BEGINNING)


def has_waiting(connection: Connection, floor: int) -> bool:
    """Tell whether a row with a number above `floor` has no link."""
    return connection.execute(_waiting(floor).limit(1)).first() is not None


def waiting(connection: Connection, floor: int, limit: int) -> Sequence[Row]:
    """Rows without a link whose number is above `floor`, by their numbers."""
    found = connection.execute(_waiting(floor).order_by(audit.c.id).limit(limit))
    return [_row(row) for row in found]


def seen(connection: Connection, floor: int) -> Numbers:
    """The numbers of all rows there are above `floor`, sealed or not."""
    numbers = Numbers(high=floor)
    while True:
        query = select(audit.c.id).where(audit.c.id > numbers.high).order_by(audit.c.id)
        found = connection.execute(query.limit(_NUMBERS)).scalars().all()
        numbers.note(found)
        if len(found) < _NUMBERS:
            return numbers


def fresh(
    connection: Connection, numbers: Numbers, limit: int
) -> tuple[Sequence[Row], Sequence[int]]:
    """Rows without a link that were not seen, and the numbers of all that are seen now.

    By their numbers, from the lowest on; `limit` of those in gaps, and of those behind.
    """
    late = []
    if numbers.gaps:
        query = _in_gaps(numbers).order_by(audit.c.id).limit(limit)
        late = [_row(row) for row in connection.execute(query)]
    query = (
        select(audit, audit_links.c.position)
        .outerjoin(audit_links, audit_links.c.audit_id == audit.c.id)
        .where(audit.c.id > numbers.high)
        .order_by(audit.c.id)
        .limit(limit)
    )
    behind = connection.execute(query).all()
    waiting = [*late, *(_row(row) for row in behind if row.position is None)]
    return waiting, [*(row.id for row in late), *(row.id for row in behind)]


def count_waiting(connection: Connection) -> int:
    """Count rows without a link; looks at all of them."""
    query = select(func.count()).select_from(_waiting(0).subquery())
    return connection.execute(query).scalar_one()


def floor(connection: Connection, until: int) -> int:
    """Below this number every row has its link, if no transaction of `until` is still open.

    It is what the newest head of that time or before says.
    """
    query = (
        select(audit_heads.c.highest_id)
        .where(audit_heads.c.at <= until)
        .order_by(audit_heads.c.position.desc())
        .limit(1)
    )
    return connection.execute(query).scalar() or 0


def highest_id(connection: Connection) -> int:
    """The highest number of a row that the newest head knows of."""
    return connection.execute(select(func.max(audit_heads.c.highest_id))).scalar() or 0


def append(connection: Connection, links: Sequence[Link]) -> None:
    """Append links, which follow the newest one."""
    connection.execute(
        insert(audit_links),
        [
            {"position": link.position, "audit_id": link.audit_id, "hash": link.hash}
            for link in links
        ],
    )


def replace_head(connection: Connection, head: Head, *, since: int) -> None:
    """Append a signed head in the place of those that were made at `since` (UTC seconds) or later.

    It covers what they cover, and one for each second would be many.
    """
    connection.execute(
        delete(audit_heads).where(
            audit_heads.c.kind == HeadKind.SEALED.value, audit_heads.c.at >= since
        )
    )
    add_head(connection, head)


def add_head(connection: Connection, head: Head) -> None:
    """Append a signed head."""
    connection.execute(
        insert(audit_heads).values(
            kind=head.kind.value,
            position=head.position,
            at=head.at,
            highest_id=head.highest_id,
            hash=head.hash,
            key_id=head.key_id,
            signature=head.signature,
        )
    )


def newest_head(connection: Connection) -> Head | None:
    """The newest head; None when nothing was sealed."""
    query = select(audit_heads).order_by(audit_heads.c.position.desc(), audit_heads.c.id.desc())
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _head(row)


def pruned_to(connection: Connection) -> Head | None:
    """The head that says up to where rows were deleted by housekeeping, if any were."""
    query = (
        select(audit_heads)
        .where(audit_heads.c.kind == HeadKind.PRUNED.value)
        .order_by(audit_heads.c.position.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else _head(row)


def links(connection: Connection, after: int) -> Iterator[tuple[Link, Row | None]]:
    """All links behind position `after`, in order, each with its row where it is there."""
    while True:
        query = (
            select(audit_links, audit)
            .outerjoin(audit, audit.c.id == audit_links.c.audit_id)
            .where(audit_links.c.position > after)
            .order_by(audit_links.c.position)
            .limit(_PAGE)
        )
        found = connection.execute(query).all()
        for row in found:
            yield (
                Link(position=row.position, audit_id=row.audit_id, hash=row.hash),
                None if row.id is None else _row(row),
            )
        if len(found) < _PAGE:
            return
        after = found[-1].position


def heads(connection: Connection, after: int) -> Sequence[Head]:
    """All heads behind position `after`, in order."""
    query = (
        select(audit_heads)
        .where(audit_heads.c.position > after)
        .order_by(audit_heads.c.position, audit_heads.c.id)
    )
    return [_head(row) for row in connection.execute(query)]


def last_old(connection: Connection, *, after: int, until: int, limit: int) -> Link | None:
    """The last link, `limit` behind position `after` at most, up to which all rows are old.

    Rows are old when they were written at `until` (UTC seconds) or earlier.
    """
    query = (
        select(audit_links, audit.c.at)
        .outerjoin(audit, audit.c.id == audit_links.c.audit_id)
        .where(audit_links.c.position > after)
        .order_by(audit_links.c.position)
        .limit(limit)
    )
    last = None
    for row in connection.execute(query):
        if row.at is None or row.at > until:
            break
        last = Link(position=row.position, audit_id=row.audit_id, hash=row.hash)
    return last


def count_between(connection: Connection, after: int, through: int) -> int:
    """Count rows whose positions are behind `after`, up to `through`."""
    query = select(func.count()).where(
        audit_links.c.position > after, audit_links.c.position <= through
    )
    return connection.execute(query).scalar_one()


def forget(connection: Connection, anchor: Head) -> int:
    """Delete rows, links and heads up to the signed `anchor`, and keep that; count the rows."""
    through = anchor.position
    old = select(audit_links.c.audit_id).where(audit_links.c.position <= through)
    gone = connection.execute(delete(audit).where(audit.c.id.in_(old))).rowcount
    connection.execute(delete(audit_links).where(audit_links.c.position <= through))
    connection.execute(
        delete(audit_heads).where(
            (audit_heads.c.position < through)
            | and_(audit_heads.c.position == through, audit_heads.c.kind == HeadKind.PRUNED.value)
        )
    )
    add_head(connection, anchor)
    return gone


def _waiting(floor: int) -> Any:
    sealed = exists().where(audit_links.c.audit_id == audit.c.id)
    return select(audit).where(audit.c.id > floor, ~sealed)


def _in_gaps(numbers: Numbers) -> Any:
    """Rows in gaps that have no link: those that another sealer was faster with are left out."""
    return _waiting(0).where(
        or_(*(audit.c.id.between(first, last) for first, last in numbers.gaps))
    )


def _row(row: DatabaseRow[Any]) -> Row:
    return Row(
        id=row.id,
        at=row.at,
        act=row.act,
        actor=row.actor,
        target=row.target,
        details=row.details,
    )


def _head(row: DatabaseRow[Any]) -> Head:
    return Head(
        kind=HeadKind(row.kind),
        position=row.position,
        at=row.at,
        highest_id=row.highest_id,
        hash=row.hash,
        key_id=row.key_id,
        signature=row.signature,
    )
