"""Rotation: another generation takes an authority's place, and what was given out goes on working.

An authority of sites has a time before it, in which the new generation is brought to those who are
to trust it, and one after it, until the last certificate of the old one has ended. The server's own
CA changes at once, since the old one vouches for the new; it is trusted until nobody comes any more
with a token made before.

Each step is one transaction, and says itself what the next one is: whoever stops between two of
them has them gone on with by the next turn, in whatever process.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.crypto import issuers
from app.crypto.facts import facts
from app.crypto.issuers import Issuer
from app.crypto.leaves import SERIAL_BYTES, serial_number
from app.crypto.sealing import Keyring
from app.domain import authorities as rules
from app.domain.audit import Act, Entry
from app.domain.authorities import SPREAD_SECONDS, Authority, Purpose, State, Step
from app.domain.certificates import KeyType
from app.domain.times import rfc3339
from app.errors import Conflict, Invalid, Missing
from app.services import authorities
from app.services.reach import LIFETIME_SECONDS
from app.store import audit as audit_rows
from app.store import authorities as authority_rows
from app.store.engine import Connection, Database

DEFAULT_WAIT_SECONDS: Final = 24 * 3600
_ACTOR: Final = "server"
_KEYS: Final = {"RSA": KeyType.RSA_2048, "Ed25519": KeyType.ED25519}


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long the others need: until they have a prepared authority, and what they got before.

    `wait_seconds` is how long a prepared authority of sites waits before it signs;
    `lifetime_seconds` how long the certificates of redemptions are valid; for `retry_seconds`
    after a redemption its claim may come again.
    """

    wait_seconds: int
    lifetime_seconds: int
    retry_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What came of it: the generation that signs now, and the one that will or did before it."""

    signing: Authority
    other: Authority


def rotate(
    database: Database,
    keyring: Keyring,
    *,
    name: str,
    times: Times,
    at_once: bool = False,
    key_type: KeyType | None = None,
    lifetime_seconds: int = authorities.DEFAULT_LIFETIME_SECONDS,
    actor: str,
    now: int,
    random_bytes: Callable[[int], bytes],
) -> Rotation:
    """Make the next generation of an authority, or let the one that waits sign `at_once`.

    The server's own CA never waits. Without `key_type`, the key is of the same kind as the one
    before. Raises Missing, Conflict when it is not ours to rotate or has one that waits already,
    Invalid("lifetime") when tokens that are out need the next one of the server for longer, and
    Unready(ISSUER) when the server's CA cannot sign it.
    """
    family = authorities.with_generations(database, name)
    old, waiting = _parts(family, name)
    if waiting is not None:
        if not at_once:
            raise Conflict(
                f'the next generation of "{name}" is prepared already, as "{waiting.name}": it '
                f"signs from {rfc3339(waiting.due_at or now)} on; --now lets it sign at once"
            )
        with database.writing() as connection:
            return _activate(connection, waiting.id, times, actor=actor, now=now)
    return _make_next(
        database,
        keyring,
        family,
        old,
        times=replace(times, wait_seconds=0) if at_once else times,
        key_type=key_type,
        lifetime_seconds=lifetime_seconds,
        actor=actor,
        now=now,
        random_bytes=random_bytes,
    )


def keep_up(
    database: Database,
    keyring: Keyring,
    *,
    times: Times,
    now: int,
    random_bytes: Callable[[int], bytes],
) -> int:
    """Take every step that is due; let another take the place of the server's CA in good time.

    The next one lives for as long as the one before was to, at least. Tells how many steps were
    taken. Any number of processes may do this at once. Raises Unavailable, and Unready(ISSUER) when
    the server's CA cannot sign the next one.
    """
    taken = advance(database, times=times, now=now)
    with database.reading() as connection:
        family = authority_rows.server_family(connection)
    old = rules.active(family)
    if old is None or not rules.nears_its_end(old, now, leaf_seconds=LIFETIME_SECONDS):
        return taken
    needed = _needed_of_next(database, family, times, now) - now
    with contextlib.suppress(Conflict):  # another process was faster
        _make_next(
            database,
            keyring,
            family,
            old,
            times=times,
            key_type=None,
            lifetime_seconds=max(old.not_after - old.created_at, needed),
            actor=_ACTOR,
            now=now,
            random_bytes=random_bytes,
        )
        taken += 1
    return taken


def _make_next(
    database: Database,
    keyring: Keyring,
    family: Sequence[Authority],
    old: Authority,
    *,
    times: Times,
    key_type: KeyType | None,
    lifetime_seconds: int,
    actor: str,
    now: int,
    random_bytes: Callable[[int], bytes],
) -> Rotation:
    """Make the generation that comes after `old`, unless the family is another by now."""
    name = old.name
    made, issuer = authorities.make(
        keyring,
        name=rules.generation_name(name, len(family) + 1, _names(database)),
        purpose=old.purpose,
        key_type=key_type or _kind_of(old),
        lifetime_seconds=lifetime_seconds,
        now=now,
        random_bytes=random_bytes,
    )
    before: Sequence[Authority] = ()
    wait = times.wait_seconds
    if old.purpose is Purpose.SERVER:
        needed = _needed_of_next(database, family, times, now)
        if made.not_after < needed:
            raise Invalid(
                "lifetime",
                f"tokens that are out may be redeemed until {rfc3339(needed)}, by way of the "
                "certificate of the next generation: let it be valid until then",
            )
        made, before = _cross_signed(made, issuer, family, old, keyring, now, random_bytes)
        wait = 0
    with database.writing() as connection:
        if authority_rows.family(connection, old.root) != family:
            raise Conflict(f'somebody else has just changed authority "{name}": look again')
        made = _prepare(connection, made, old, wait=wait, actor=actor, now=now)
        for one in before:
            authority_rows.change(connection, one)
        if not wait:
            return _activate(connection, made.id, times, actor=actor, now=now)
    return Rotation(signing=old, other=made)


def advance(database: Database, *, times: Times, now: int) -> int:
    """Take every step that is due, each in a transaction of its own; tells how many they were.

    Any number of processes may do this at once. Raises Unavailable.
    """
    taken = 0
    with database.reading() as connection:
        changing = authority_rows.in_rotation(connection)
    for authority_id in changing:
        while _advance(database, authority_id, times, now):  # there are three in its life
            taken += 1
    return taken


def trust_bundle(database: Database, name: str) -> str:
    """The certificates (PEM) of all generations of an authority that are to be trusted.

    Raises Missing when there is no authority of this name.
    """
    return rules.bundle(rules.trusted(authorities.with_generations(database, name)))


def _advance(database: Database, authority_id: int, times: Times, now: int) -> bool:
    """Take the next step of one generation, if one may be taken."""
    with database.reading() as connection:
        seen = authority_rows.by_id(connection, authority_id)
        step = None if seen is None else rules.due(seen, now)
        if seen is None or step is None:
            return False
        needed_until = _needed_until(connection, seen, times, now) if step is Step.END else None
    with database.writing() as connection:
        authority = authority_rows.by_id(connection, authority_id)
        if authority != seen:
            return False  # another process was faster, and goes on with it
        if needed_until is not None:
            # Its key may have to go before it does.
            step = rules.erasable(seen, now)
            if step is None and needed_until != seen.due_at and needed_until > now:
                authority_rows.change(connection, replace(seen, due_at=needed_until))
        match step:
            case Step.ACTIVATE:
                _activate(connection, authority_id, times, actor=_ACTOR, now=now)
            case Step.ERASE_KEY:
                _write(connection, rules.keyless(seen), Act.AUTHORITY_KEY_ERASED, _ACTOR, now)
            case Step.END:
                _end(connection, seen, now)
            case _:
                return False
    return True


def _needed_until(
    connection: Connection, authority: Authority, times: Times, now: int
) -> int | None:
    """Say until when, at least, something may be in use that leads to a retired authority."""
    if now > authority.not_after:
        return None
    made_until = authority.since + SPREAD_SECONDS
    if authority.purpose is Purpose.SERVER:
        come = authority_rows.tokens_may_come(
            connection, made_until=made_until, now=now, retry_seconds=times.retry_seconds
        )
        return now if come else None
    end = authority_rows.last_certificate_ends(connection, made_until=made_until, now=now)
    return None if end is None else min(end, authority.not_after) + 1


def _needed_of_next(database: Database, family: Sequence[Authority], times: Times, now: int) -> int:
    """Say until when the server's next CA is in the way that tokens lead which are out.

    Who trusts an older one comes by way of all between; when that one has ended, by none.
    """
    with database.reading() as connection:
        last = authority_rows.last_token_ends(connection, now=now)
    if last is None:
        return now
    return min(last + times.retry_seconds, max(one.not_after for one in rules.trusted(family)))


def _parts(family: Sequence[Authority], name: str) -> tuple[Authority, Authority | None]:
    """The generation that signs, which has this name, and the one that waits."""
    old = rules.active(family)
    if old is None:
        raise Missing("authority", name)
    if old.name != name:
        raise Conflict(f'authority "{name}" is a generation of "{old.name}": rotate that one')
    if old.origin is not None:
        raise Conflict(
            f'the cluster keeps authority "{name}", in Secret {old.origin}: rotate it there'
        )
    return old, next((one for one in family if one.state is State.PREPARED), None)


def _prepare(
    connection: Connection,
    made: Authority,
    old: Authority,
    *,
    wait: int,
    actor: str,
    now: int,
) -> Authority:
    waiting = rules.prepared(made, old, name=made.name, now=now, due_at=now + wait)
    waiting = replace(waiting, id=authority_rows.add(connection, waiting))
    if old.purpose is Purpose.SITE:
        authority_rows.tell_sites(connection, [old.id])
    _note(
        connection,
        Act.AUTHORITY_PREPARED,
        waiting,
        actor,
        now,
        {"of": old.name, "not_after": waiting.not_after, "signs_from": waiting.due_at},
    )
    return waiting


def _activate(
    connection: Connection, authority_id: int, times: Times, *, actor: str, now: int
) -> Rotation:
    """Let a prepared generation sign, in the caller's transaction."""
    new = authority_rows.by_id(connection, authority_id)
    family = [] if new is None else authority_rows.family(connection, new.root)
    old = rules.active(family)
    if new is None or old is None or new.state is not State.PREPARED:
        raise Conflict("somebody else has just let it sign, or taken it away: look again")
    due_at = now + SPREAD_SECONDS
    if old.purpose is Purpose.SITE:
        due_at = min(old.not_after + 1, due_at + times.lifetime_seconds)
    number = next(place for place, one in enumerate(family, start=1) if one.id == old.id)
    taken = {one.name for one in authority_rows.every(connection)}
    before, after = rules.activated(
        old,
        new,
        retired_name=rules.generation_name(old.name, number, taken),
        now=now,
        due_at=due_at,
    )
    told: dict[str, str | int | None] = {"in_place_of": after.fingerprint, "was": old.name}
    _write(connection, before, Act.AUTHORITY_RETIRED, actor, now, told)
    told = {"in_place_of": before.fingerprint, "was": new.name}
    _write(connection, after, Act.AUTHORITY_ACTIVATED, actor, now, told)
    authority_rows.hand_over(connection, old.id, new.id)
    if old.purpose is Purpose.SITE:
        authority_rows.tell_sites(connection, [new.id])
    return Rotation(signing=after, other=before)


def _end(connection: Connection, authority: Authority, now: int) -> None:
    _write(connection, rules.ended(authority, now=now), Act.AUTHORITY_ENDED, _ACTOR, now)
    if authority.purpose is Purpose.SITE:
        family = authority_rows.family(connection, authority.root)
        authority_rows.tell_sites(connection, [one.id for one in family])


def _write(
    connection: Connection,
    authority: Authority,
    act: Act,
    actor: str,
    now: int,
    told: dict[str, str | int | None] | None = None,
) -> None:
    authority_rows.change(connection, authority)
    _note(connection, act, authority, actor, now, told or {})


def _note(
    connection: Connection,
    act: Act,
    authority: Authority,
    actor: str,
    now: int,
    told: dict[str, str | int | None],
) -> None:
    audit_rows.add(
        connection,
        Entry(
            at=now,
            act=act,
            actor=actor,
            target=f"authority/{authority.name}",
            details={"fingerprint": authority.fingerprint, **told},
        ),
    )


def _cross_signed(
    made: Authority,
    issuer: Issuer,
    family: Sequence[Authority],
    old: Authority,
    keyring: Keyring,
    now: int,
    random_bytes: Callable[[int], bytes],
) -> tuple[Authority, Sequence[Authority]]:
    """Have the server's CA sign the next one, and that one sign those that must stay nearest.

    Gives the next one, and those of the others that have changed. One that has ended vouches for
    nothing, and nobody comes with its tokens.
    """
    if now > old.not_after:
        return made, ()
    signer = authorities.open_issuer(old, keyring)

    def cross(by: Issuer, of: Issuer) -> str:
        serial = serial_number(random_bytes(SERIAL_BYTES), now)
        return issuers.cross_sign(by, of, serial=serial).decode()

    near = [
        one
        for one in family
        if one.state is State.RETIRED and one.back_pem and now <= one.not_after
    ]
    opened = [(one, authorities.open_issuer(one, keyring)) for one in near]
    if issuers.signs_leaves_only(signer):
        opened.append((old, signer))
    else:
        made = replace(made, cross_pem=cross(signer, issuer))
    return made, [replace(one, back_pem=cross(issuer, of)) for one, of in opened]


def _kind_of(authority: Authority) -> KeyType:
    key = facts(authority.certificate_pem.encode()).key
    return _KEYS.get(key.split()[0], KeyType.P256)


def _names(database: Database) -> set[str]:
    return {one.name for one in authorities.every(database)}
