"""Admin tokens: made, listed, revoked, and checked when one is presented."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.domain import admin_tokens, codes
from app.domain.admin_tokens import LONGEST_WINDOW, AdminToken, Presented
from app.domain.audit import Act, Entry
from app.domain.callers import Rights, written_sites, written_verbs
from app.domain.names import check_name
from app.errors import Conflict, Forbidden, Invalid, Missing, Refused, Unauthenticated
from app.store import admin_tokens as token_rows
from app.store import audit as audit_rows
from app.store.admin_tokens import Key
from app.store.engine import Connection, Database

KEY_PURPOSE: Final = "admin tokens"
"""For which the keys that conceal tokens are derived from the sealing keys."""
DEFAULT_PAGE: Final = 100
LARGEST_PAGE: Final = 500
SELDOM_SECONDS: Final = 60
"""So far apart are two notes of a token's use, at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new token and its text, which is known here and never again."""

    token: AdminToken
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some tokens in order, and where the next page begins; None when this is the last."""

    tokens: Sequence[AdminToken]
    next: Key | None


def create(
    database: Database,
    *,
    name: str,
    rights: Rights,
    window_seconds: int | None,
    keys: Mapping[str, bytes],
    actor: str,
    now: int,
    random_bytes: Callable[[int], bytes],
    granted_by: Rights | None = None,
    record: Callable[[Connection, Made], None] | None = None,
) -> Made:
    """Make a token that is good for `window_seconds`, or until it is revoked.

    `granted_by` are the rights of whoever makes it, None those of an operator at the command line,
    who has all. `record` is called with it in its transaction, and prevents it by raising. Raises
    Invalid naming the field, Forbidden when it would be given more than they have, Conflict when
    there is a token of this name that is not revoked.
    """
    check_name("name", name)
    if window_seconds is not None and not 1 <= window_seconds <= LONGEST_WINDOW:
        raise Invalid("window", f"expected 1 s to {LONGEST_WINDOW // 3600}h, about ten years")
    if granted_by is not None and not rights.within(granted_by):
        raise Forbidden("nobody can give away more rights than they have")
    presented = admin_tokens.generate(random_bytes)
    token = AdminToken(
        id=presented.id,
        name=name,
        rights=rights,
        created_at=now,
        created_by=actor,
        expires_at=None if window_seconds is None else now + window_seconds,
    )
    with database.writing() as connection:
        known = token_rows.by_name(connection, name)
        if known is not None and known.revoked_at is None:
            raise Conflict(f'there is an admin token "{name}" already: revoke it first')
        token_rows.add(connection, token, codes.conceal(presented.text, keys))
        audit_rows.add(
            connection,
            _entry(
                Act.ADMIN_TOKEN_CREATED,
                token,
                actor,
                now,
                {
                    "verbs": ", ".join(written_verbs(rights)),
                    "sites": ", ".join(written_sites(rights)),
                    "expires_at": token.expires_at,
                },
            ),
        )
        made = Made(token=token, secret=presented.text)
        if record is not None:
            record(connection, made)
    return made


def page(database: Database, *, limit: int = DEFAULT_PAGE, after: Key | None = None) -> Page:
    """Some tokens by name, those that are revoked too, at most `limit`.

    `after` is the `next` of the page before. Raises Invalid("limit", …).
    """
    if not 1 <= limit <= LARGEST_PAGE:
        raise Invalid("limit", f"expected 1 to {LARGEST_PAGE}")
    with database.reading() as connection:
        found = token_rows.page(connection, limit=limit + 1, after=after)
    if len(found) <= limit:
        return Page(tokens=found, next=None)
    last = found[limit - 1]
    return Page(tokens=found[:limit], next=(last.name, last.id))


def show(database: Database, name: str) -> AdminToken:
    """The token of this name that is not revoked, or the one that was last. Raises Missing."""
    with database.reading() as connection:
        found = token_rows.by_name(connection, name)
    if found is None:
        raise Missing("admin token", name)
    return found


def revoke(
    database: Database,
    name: str,
    *,
    actor: str,
    now: int,
    check: Callable[[AdminToken], None] | None = None,
) -> AdminToken:
    """Make a token good for nothing; one that is revoked already stays as it is.

    `check` is called with the token as it stands, and raises to prevent that. Raises Missing.
    """
    with database.writing() as connection:
        found = token_rows.by_name(connection, name)
        if found is None:
            raise Missing("admin token", name)
        if check is not None:
            check(found)
        if found.revoked_at is not None:
            return found
        token_rows.revoke(connection, found.id, now)
        audit_rows.add(connection, _entry(Act.ADMIN_TOKEN_REVOKED, found, actor, now, {}))
        revoked = token_rows.by_name(connection, name)
    return revoked or found


def verify(
    database: Database,
    presented: Presented,
    *,
    keys: Mapping[str, bytes],
    now: int,
    on_lost_key: Callable[[str], None],
) -> AdminToken:
    """Find the token that is presented.

    Raises Unauthenticated when there is none, or it is good no more: nothing but the id is in it.
    A token whose key is not in the key file any more is a wrong one, after `on_lost_key` was told
    the key. It takes as long to find no token as to find a wrong one.
    """
    with database.reading() as connection:
        found = token_rows.presented(connection, presented.id)
    text = presented.text.encode()
    if found is not None and (key := codes.key_id(found[1])) not in keys:
        on_lost_key(key)
        found = None
    if found is None:
        codes.check_against_nothing(text, keys)
        raise Unauthenticated(f"there is no admin token {presented.id}")
    token, concealed = found
    try:
        codes.check(text, concealed, keys)
    except Refused:
        raise Unauthenticated(f"it is not the admin token {presented.id}") from None
    if token.state(now) != "active":
        raise Unauthenticated(f'the admin token "{token.name}" is {token.state(now)}')
    return token


def lost(database: Database, keys: Collection[str]) -> Mapping[str, str]:
    """The sealing key of each token, by name, that is not revoked and whose key is none of these.

    They are wrong ones until its line is back in the key file.
    """
    with database.reading() as connection:
        kept = token_rows.concealed(connection)
    needed = {name: codes.key_id(text) for name, text in kept}
    return {name: key for name, key in needed.items() if key not in keys}


def note_use(database: Database, token: AdminToken, *, peer: str, now: int) -> None:
    """Note that a token was used, once a minute at most."""
    with database.writing() as connection:
        token_rows.note_use(
            connection, token.id, peer=peer[:64], now=now, seldom_seconds=SELDOM_SECONDS
        )


def _entry(
    act: Act, token: AdminToken, actor: str, now: int, details: Mapping[str, str | int | None]
) -> Entry:
    return Entry(
        at=now,
        act=act,
        actor=actor,
        target=f"admin_token/{token.name}",
        details={"id": token.id, **details},
    )
