"""Rows of admin tokens. The caller holds the transaction."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Row, insert, or_, select, tuple_, update

from app.domain.admin_tokens import AdminToken
from app.domain.callers import read_rights, written_sites, written_verbs
from app.store.schema import admin_tokens

Key = tuple[str, str]
"""Name and id of a token: its place in a list."""

_BETWEEN: Final = ","


def add(connection: Connection, token: AdminToken, concealed: str) -> None:
    """Insert a token with its concealed text. Conflicts with one of its name that is not revoked.

    The constraint alone says no: look first to say it in words.
    """
    connection.execute(
        insert(admin_tokens).values(
            id=token.id,
            name=token.name,
            concealed=concealed,
            verbs=_BETWEEN.join(written_verbs(token.rights)),
            sites=_BETWEEN.join(written_sites(token.rights)),
            created_at=token.created_at,
            created_by=token.created_by,
            expires_at=token.expires_at,
        )
    )


def presented(connection: Connection, identifier: str) -> tuple[AdminToken, str] | None:
    """The token of this id, with its concealed text."""
    row = connection.execute(select(admin_tokens).where(admin_tokens.c.id == identifier)).first()
    return None if row is None else (_token(row), row.concealed)


def by_name(connection: Connection, name: str) -> AdminToken | None:
    """The token of this name that is not revoked, or else the one that was revoked last."""
    row = connection.execute(
        select(admin_tokens)
        .where(admin_tokens.c.name == name)
        .order_by(
            admin_tokens.c.revoked_at.is_not(None),
            admin_tokens.c.revoked_at.desc(),
            admin_tokens.c.id,
        )
        .limit(1)
    ).first()
    return None if row is None else _token(row)


def page(connection: Connection, *, limit: int, after: Key | None) -> Sequence[AdminToken]:
    """Some tokens, by name and id, those that are revoked too."""
    place = tuple_(admin_tokens.c.name, admin_tokens.c.id)
    query = select(admin_tokens).order_by(admin_tokens.c.name, admin_tokens.c.id).limit(limit)
    if after is not None:
        query = query.where(place > after)
    return [_token(row) for row in connection.execute(query)]


def concealed(connection: Connection) -> Sequence[tuple[str, str]]:
    """Name and concealed text of each token that is not revoked, by name."""
    query = select(admin_tokens.c.name, admin_tokens.c.concealed)
    query = query.where(admin_tokens.c.revoked_at.is_(None)).order_by(admin_tokens.c.name)
    return [(name, kept) for name, kept in connection.execute(query)]


def revoke(connection: Connection, identifier: str, now: int) -> None:
    """Note that a token is good for nothing from now on."""
    connection.execute(
        update(admin_tokens)
        .where(admin_tokens.c.id == identifier, admin_tokens.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )


def note_use(
    connection: Connection, identifier: str, *, peer: str, now: int, seldom_seconds: int
) -> None:
    """Note when and from where a token was used, unless that was noted a short while ago."""
    known = admin_tokens.c.last_used_at
    connection.execute(
        update(admin_tokens)
        .where(
            admin_tokens.c.id == identifier,
            or_(known.is_(None), known <= now - seldom_seconds),
        )
        .values(last_used_at=now, last_used_from=peer)
    )


def _token(row: Row[tuple[object, ...]]) -> AdminToken:
    return AdminToken(
        id=row.id,
        name=row.name,
        rights=read_rights(row.verbs.split(_BETWEEN), row.sites.split(_BETWEEN)),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        last_used_from=row.last_used_from,
    )
