"""Rows of what stands for resources of a Kubernetes cluster. The caller holds the transaction.

A namespace is a site, the CA of an issuer Secret an authority, an AccessGrant a grant: the path of
a redemption is the same for all of them, and asks no API server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from app.domain.authorities import Authority, Purpose
from app.domain.grants import Grant
from app.domain.sites import Endpoint
from app.store import authorities as authority_rows
from app.store import grants as grant_rows
from app.store import sites as site_rows
from app.store.schema import (
    access_grants,
    answers,
    audit,
    authorities,
    grants,
    redemptions,
    sites,
    suspicions,
    wrong_codes,
)

ORIGIN: Final = "kubernetes"
NO_ISSUER: Final = "(none)"
"""The authority that cannot sign: it stands where a namespace has none that could.

Nobody can give this name to another, and it has no certificate, so no fingerprint either.
"""
_LONGEST_NAME: Final = 63  # of a grant
_AT_ONCE: Final = 500  # ids in one question
_SLACK_SECONDS: Final = 86_400
_NAMES_SPARED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessGrantRow:
    """What is kept of an AccessGrant beside its grant.

    `sealed_code` is empty when the resource is gone; `spent_before` counts the redemptions that
    somebody else has written down, or nobody.
    """

    grant_id: str
    namespace: str
    name: str
    sealed_code: bytes = field(repr=False)
    window_seconds: int
    spent_before: int = 0
    issuer_id: int | None = None


class NamespaceRow(NamedTuple):
    """The site that stands for a namespace."""

    site_id: int
    origin: str | None
    issuer_id: int


class Mark(NamedTuple):
    """What of a grant can change without its resource: compared, it tells that it did."""

    namespace: str
    name: str
    spent: int
    revoked: bool
    suspicions: int
    wrong_codes: int


def namespace(connection: Connection, name: str) -> NamespaceRow | None:
    """The site of this name, whoever made it."""
    row = connection.execute(
        select(sites.c.id, sites.c.origin, sites.c.issuer_id).where(sites.c.name == name)
    ).first()
    return None if row is None else NamespaceRow(*row)


def put_namespace(
    connection: Connection, *, name: str, issuer_id: int, wanted: Sequence[Endpoint], now: int
) -> None:
    """Insert the site of a namespace, or replace its issuer and endpoints."""
    site_rows.put(connection, name=name, issuer_id=issuer_id, wanted=wanted, now=now)
    connection.execute(update(sites).where(sites.c.name == name).values(origin=ORIGIN))


def namespaces(connection: Connection) -> Sequence[str]:
    """The namespaces that have a site, in order."""
    query = select(sites.c.name).where(sites.c.origin == ORIGIN).order_by(sites.c.name)
    return list(connection.scalars(query))


def remove_namespace(connection: Connection, name: str) -> bool:
    """Delete the site of a namespace to which no grant leads; tells whether it did."""
    return (
        connection.execute(
            delete(sites).where(
                sites.c.name == name,
                sites.c.origin == ORIGIN,
                ~exists().where(grants.c.site_id == sites.c.id),
            )
        ).rowcount
        > 0
    )


def find_no_issuer(connection: Connection) -> int | None:
    """The id of the authority that cannot sign; None before it was ever needed."""
    return connection.scalar(select(authorities.c.id).where(authorities.c.fingerprint == ""))


def no_issuer(connection: Connection, now: int) -> int:
    """The id of the authority that cannot sign; it is made when it is first needed."""
    known = find_no_issuer(connection)
    if known is not None:
        return known
    return authority_rows.add(
        connection,
        Authority(
            id=0,
            name=NO_ISSUER,
            purpose=Purpose.SITE,
            certificate_pem="",
            sealed_key=b"",
            fingerprint="",
            not_before=0,
            not_after=1,
            imported=False,
            created_at=now,
            origin=ORIGIN,
        ),
    )


def authority_of(connection: Connection, fingerprint: str) -> Authority | None:
    """The authority of this fingerprint."""
    row = connection.execute(
        select(authorities.c.id).where(authorities.c.fingerprint == fingerprint)
    ).first()
    return None if row is None else authority_rows.by_id(connection, row.id)


def give_key(connection: Connection, authority_id: int, sealed_key: bytes, origin: str) -> None:
    """Put the key of an authority back whose Secret has come again."""
    connection.execute(
        update(authorities)
        .where(authorities.c.id == authority_id)
        .values(sealed_key=sealed_key, origin=origin, due_at=None)
    )


def forget_unused_keys(connection: Connection, but: frozenset[int], now: int) -> Sequence[str]:
    """Delete the keys of Secrets that nothing leads to any more; tells whose they were.

    Those of the authorities `but` stay. So do all certificates for a while, which is noted: kept
    answers need them. The newest answer is the last that goes, unless they were kept for longer
    before; what is about to be answered is kept for a day at most, or there is a newer one.
    """
    newest = select(answers.c.expires_at).order_by(answers.c.id.desc()).limit(1)
    needed_until = max(now, connection.scalar(newest) or 0) + _SLACK_SECONDS
    used = or_(
        exists().where(sites.c.issuer_id == authorities.c.id),
        exists().where(grants.c.issuer_id == authorities.c.id, grants.c.revoked_at.is_(None)),
    )
    return list(
        connection.scalars(
            update(authorities)
            .where(authorities.c.origin.is_not(None), authorities.c.fingerprint != "")
            .where(or_(func.length(authorities.c.sealed_key) > 0, authorities.c.due_at.is_(None)))
            .where(~used, authorities.c.id.not_in(but))
            .values(sealed_key=b"", due_at=needed_until)
            .returning(authorities.c.name)
        )
    )


def add(connection: Connection, grant: Grant, row: AccessGrantRow) -> None:
    """Insert the grant of an AccessGrant; one that had its name before gives it up.

    Such a one is gone from the cluster, or it could not be here again under another id. What is
    none of the cluster's keeps its name, and then the new one gets another.
    """
    taken = connection.execute(
        select(grants.c.id, access_grants.c.grant_id)
        .join(sites, grants.c.site_id == sites.c.id)
        .outerjoin(access_grants, access_grants.c.grant_id == grants.c.id)
        .where(sites.c.name == grant.site, grants.c.name == grant.name)
    ).first()
    if taken is not None and taken.grant_id is None:
        grant = replace(grant, name=_with_id(grant.name, grant.id))
    elif taken is not None:
        name = _with_id(grant.name, taken.id)
        connection.execute(update(grants).where(grants.c.id == taken.id).values(name=name))
    grant_rows.add(connection, grant)
    if row.issuer_id is not None:
        connection.execute(
            update(grants).where(grants.c.id == grant.id).values(issuer_id=row.issuer_id)
        )
    connection.execute(
        insert(access_grants).values(
            grant_id=row.grant_id,
            namespace=row.namespace,
            name=row.name,
            sealed_code=row.sealed_code,
            window_seconds=row.window_seconds,
            spent_before=row.spent_before,
        )
    )


def change(
    connection: Connection,
    row: AccessGrantRow,
    *,
    concealed_code: str,
    allowed: int,
    expires_at: int,
) -> None:
    """Bring a grant to what its resource asks for now; never below what is spent already."""
    connection.execute(
        update(grants)
        .where(grants.c.id == row.grant_id)
        .values(
            concealed_code=concealed_code,
            issuer_id=row.issuer_id,
            allowed=case((grants.c.spent > allowed, grants.c.spent), else_=allowed),
            expires_at=expires_at,
        )
    )
    connection.execute(
        update(access_grants)
        .where(access_grants.c.grant_id == row.grant_id)
        .values(sealed_code=row.sealed_code, window_seconds=row.window_seconds)
    )


def catch_up(connection: Connection, grant_id: str, spent: int) -> None:
    """Count redemptions that nothing here tells of, up to `spent`; never fewer than before."""
    before = connection.scalar(
        select(grants.c.spent).where(grants.c.id == grant_id).with_for_update()
    )
    if before is None or before >= spent:
        return
    connection.execute(
        update(grants)
        .where(grants.c.id == grant_id)
        .values(
            spent=spent, allowed=case((grants.c.allowed < spent, spent), else_=grants.c.allowed)
        )
    )
    connection.execute(
        update(access_grants)
        .where(access_grants.c.grant_id == grant_id)
        .values(spent_before=access_grants.c.spent_before + spent - before)
    )


def lacks(connection: Connection, grant_ids: Sequence[str]) -> bool:
    """Tell whether there is no row of some AccessGrant of these."""
    for one in range(0, len(grant_ids), _AT_ONCE):
        some = grant_ids[one : one + _AT_ONCE]
        query = select(func.count()).where(access_grants.c.grant_id.in_(some))
        if connection.execute(query).scalar_one() < len(some):
            return True
    return False


def by_id(connection: Connection, grant_id: str) -> AccessGrantRow | None:
    """What is kept of the AccessGrant of this UID."""
    row = connection.execute(_BY_ID, {"of_grant": grant_id}).first()
    if row is None:
        return None
    return AccessGrantRow(
        grant_id=row.grant_id,
        namespace=row.namespace,
        name=row.name,
        sealed_code=row.sealed_code,
        window_seconds=row.window_seconds,
        spent_before=row.spent_before,
        issuer_id=row.issuer_id,
    )


def standing(connection: Connection, namespace: str, name: str) -> Sequence[str]:
    """The ids of grants that stand for this resource, as long as it is not known to be gone."""
    return list(connection.scalars(_STANDING, {"of_namespace": namespace, "of_name": name}))


def note_gone(connection: Connection, grant_id: str) -> None:
    """Note that the resource of a grant is gone: nobody has to be told its code any more."""
    connection.execute(
        update(access_grants).where(access_grants.c.grant_id == grant_id).values(sealed_code=b"")
    )


def resources(connection: Connection) -> Mapping[str, tuple[str, str]]:
    """Namespace and name of the AccessGrant of each grant that has one, or had, by their ids."""
    columns = (access_grants.c.grant_id, access_grants.c.namespace, access_grants.c.name)
    return {row[0]: (row[1], row[2]) for row in connection.execute(select(*columns))}


def marks(
    connection: Connection, now: int, names: dict[str, tuple[str, str] | None]
) -> Mapping[str, Mark]:
    """What may have changed, of all grants of resources that are not long over, by their ids.

    `now` are UTC seconds; a grant that ended more than an hour ago is looked at no more, since
    nothing happens to it but its end, and that is known beforehand. One whose resource is gone is
    nobody's to look at. `names` is what is known of namespaces and names, which never change, None
    of a grant without a resource: they are asked for once, since to join them takes most of the
    time, and so it is with what few grants have.
    """
    found = connection.execute(_COUNTED, {"lately": now - 3600}).all()
    if len(names) > _NAMES_SPARED + 2 * len(found):
        names.clear()  # most of them are of grants that are long over
    _find_names(connection, [row[0] for row in found], names)
    suspected: dict[str, int] = {row[0]: row[1] for row in connection.execute(_SUSPECTED)}
    wrong: dict[str, int] = {row[0]: row[1] for row in connection.execute(_WRONG)}
    made = {}
    for grant_id, spent, revoked_at in found:
        known = names[grant_id]
        if known is not None:
            few = suspected.get(grant_id, 0), wrong.get(grant_id, 0)
            made[grant_id] = Mark(*known, spent, revoked_at is not None, *few)
    return made


def newest_entry(connection: Connection) -> int:
    """The number of the newest entry of the audit log; 0 when there is none."""
    return connection.scalar(_NEWEST_ENTRY) or 0


def entries_after(
    connection: Connection, number: int, names: dict[str, tuple[str, str] | None]
) -> Mapping[int, tuple[str, str] | None]:
    """Entries of the audit log with higher numbers, and the resource that each one tells of.

    None where that is something else. It is found by the numbers alone, however long the log is.
    `names` is as for `marks`.
    """
    told = connection.execute(_ENTRIES_AFTER, {"after": number}).all()
    found = {row[0]: row[1].removeprefix(_GRANT) for row in told if row[1].startswith(_GRANT)}
    _find_names(connection, list(dict.fromkeys(found.values())), names)
    # What is asked for beside this may have forgotten some.
    return {row[0]: names.get(found[row[0]]) if row[0] in found else None for row in told}


def _find_names(
    connection: Connection, grant_ids: Sequence[str], names: dict[str, tuple[str, str] | None]
) -> None:
    """Add to `names` what is not in there yet of these grants."""
    unknown = [one for one in grant_ids if one not in names]
    for one in range(0, len(unknown), _AT_ONCE):
        some = unknown[one : one + _AT_ONCE]
        for grant_id in some:
            names.setdefault(grant_id, None)  # somebody may have seen its resource just now
        query = select(access_grants.c.grant_id, access_grants.c.namespace, access_grants.c.name)
        for row in connection.execute(
            query.where(access_grants.c.grant_id.in_(some), _has_resource())
        ):
            names[row[0]] = (row[1], row[2])


def live_names(connection: Connection) -> Sequence[tuple[str, str]]:
    """Namespace and name of every resource with a grant that is not known to be gone, in order."""
    columns = (access_grants.c.namespace, access_grants.c.name)
    rows = connection.execute(select(*columns).distinct().where(_has_resource()).order_by(*columns))
    return [(row[0], row[1]) for row in rows]


def redeemed_after(
    connection: Connection, grant_id: str, ordinal: int, limit: int
) -> Sequence[tuple[int, str, str, str]]:
    """Who redeemed a grant after a redemption: number, name, subject and address, in order."""
    found = {"of_grant": grant_id, "after": ordinal, "most": limit}
    rows = connection.execute(_REDEEMED_AFTER, found)
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def _has_resource() -> ColumnElement[Any]:
    return func.length(access_grants.c.sealed_code) > 0


# Built once: that takes longer than what the database does with them.
_BY_ID: Final = (
    select(access_grants, grants.c.issuer_id)
    .join(grants, grants.c.id == access_grants.c.grant_id)
    .where(access_grants.c.grant_id == bindparam("of_grant"))
)
_STANDING: Final = (
    select(access_grants.c.grant_id)
    .where(
        access_grants.c.namespace == bindparam("of_namespace"),
        access_grants.c.name == bindparam("of_name"),
        _has_resource(),
    )
    .order_by(access_grants.c.grant_id)
)
_COUNTED: Final = select(grants.c.id, grants.c.spent, grants.c.revoked_at).where(
    grants.c.expires_at > bindparam("lately"),
    or_(grants.c.revoked_at.is_(None), grants.c.revoked_at > bindparam("lately")),
)
_GRANT: Final = "grant/"  # before its id, in the audit log
_NEWEST_ENTRY: Final = select(func.max(audit.c.id))
_ENTRIES_AFTER: Final = select(audit.c.id, audit.c.target).where(audit.c.id > bindparam("after"))
_SUSPECTED: Final = select(suspicions.c.grant_id, func.count()).group_by(suspicions.c.grant_id)
_WRONG: Final = select(wrong_codes.c.grant_id, wrong_codes.c.count)
_REDEEMED_AFTER: Final = (
    select(redemptions.c.ordinal, redemptions.c.name, redemptions.c.subject, redemptions.c.peer)
    .where(
        redemptions.c.grant_id == bindparam("of_grant"), redemptions.c.ordinal > bindparam("after")
    )
    .order_by(redemptions.c.ordinal)
    .limit(bindparam("most"))
)


def _with_id(name: str, grant_id: str) -> str:
    return f"{name[: _LONGEST_NAME - len(grant_id) - 1].rstrip('.-')}-{grant_id}"
