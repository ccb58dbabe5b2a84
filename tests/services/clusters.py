"""Namespaces and AccessGrants as a controller brings them in, and sites that redeem."""

import asyncio
import base64
import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import delete, insert, select, text, update

from app import ambient
from app.crypto.facts import verify_issued_by
from app.domain.access_grants import Told, read_wanted
from app.domain.audit import Entry
from app.domain.reach import Reach
from app.domain.sites import Endpoint, parse_endpoint
from app.errors import Lack, Reason, Refused, Unready
from app.kube.standing import Facts, standing
from app.services import audit, authorities
from app.services.cluster import Cluster, IssuerSecret, Known, Resource, Signer
from app.services.redemption import Redeemed
from app.store import schema
from app.store.engine import Database
from tests.builders import CODE, GRANT_ID, NOW, PEM, SUBJECT, WINDOW, Stand, a_claim
from tests.services.test_authorities import certify, written

PKCS1_OR_SEC1: Final = serialization.PrivateFormat.TraditionalOpenSSL
ENDPOINTS: Final = tuple(
    parse_endpoint(one) for one in ("inter-router=west.example:55671", "edge=west.example:45671")
)


def a_cluster(stand: Stand) -> Cluster:
    return Cluster(
        database=stand.database,
        keyring=stand.keyring,
        code_keys=stand.code_keys,
        clock=stand.clock,
        random_bytes=ambient.random_bytes,
    )


def a_secret(name: str = "ca", **changes: bytes) -> IssuerSecret:
    key = ec.generate_private_key(ec.SECP256R1())
    made = IssuerSecret(certificate_pem=certify(key, name), key_pem=written(key, PKCS1_OR_SEC1))
    return replace(made, **changes)


def sign(
    cluster: Cluster, namespace: str, held: IssuerSecret, name: str = "skupper-site-ca"
) -> int:
    """Keep a Secret that has to be in order."""
    signer = cluster.signer(namespace, name, held)
    assert signer.problem is None
    assert signer.authority_id is not None
    return signer.authority_id


def put(
    cluster: Cluster,
    namespace: str = "west",
    authority_id: int | None = None,
    endpoints: tuple[Endpoint, ...] = ENDPOINTS,
) -> bool:
    return cluster.put_namespace(namespace, endpoints=endpoints, authority_id=authority_id)


def a_resource(told: Told | None = None, **changes: Any) -> Resource:
    spec = {"redemptionsAllowed": 2, "expirationWindow": f"{WINDOW}s", "code": CODE}
    usual = {"uid": GRANT_ID, "namespace": "west", "name": "to-west"}
    names = {field: changes.pop(field, value) for field, value in usual.items()}
    return Resource(wanted=read_wanted(spec | changes), told=told, **names)


def admit(
    cluster: Cluster,
    told: Told | None = None,
    *,
    issuer_id: int | None = None,
    told_until: int = 0,
    **changes: Any,
) -> Known:
    return cluster.admit(a_resource(told, **changes), issuer_id, told_until=told_until)


def redeem_all(stand: Stand, *claims: Any, **changes: Any) -> list[Redeemed | Exception]:
    """Redeem claims one after the other, in a process of their own as it were."""

    async def main() -> list[Redeemed | Exception]:
        redeemer = stand.redeemer(**changes)
        answers: list[Redeemed | Exception] = []
        for claim in claims:
            try:
                answers.append(await redeemer.redeem(claim))
            except Exception as error:  # noqa: BLE001 - the outcome is what is looked at
                answers.append(error)
        await redeemer.ledger.close()
        await redeemer.thefts.close()
        await redeemer.locks.close()
        return answers

    return asyncio.run(main())


def redeem(stand: Stand, **changes: Any) -> Redeemed:
    (answer,) = redeem_all(stand, a_claim(**changes))
    if isinstance(answer, Exception):
        raise answer
    return answer


def refused(stand: Stand, **changes: Any) -> Reason:
    with pytest.raises(Refused) as caught:
        redeem(stand, **changes)
    return caught.value.reason


def unaudited(stand: Stand) -> Mapping[str, list[tuple[Any, ...]]]:
    """All rows but those of the audit log, which tells of claims that were refused."""
    return {table: rows for table, rows in rows_of(stand.database).items() if table != "audit"}


def lacks(stand: Stand, **changes: Any) -> Lack:
    """Tell what keeps a claim from being redeemed; nothing may be spent for it."""
    before = unaudited(stand)
    with pytest.raises(Unready) as caught:
        redeem(stand, **changes)
    assert unaudited(stand) == before
    return caught.value.lack


def another(number: int) -> str:
    """Name a site of its own, whose claims repeat nobody's."""
    return SUBJECT[:-3] + f"{number:03}"


def secret_in(redeemed: Redeemed) -> dict[str, bytes]:
    secret, *_ = yaml.safe_load_all(redeemed.bundle)
    return {name: base64.b64decode(value) for name, value in secret["data"].items()}


def signed_by(redeemed: Redeemed, held: IssuerSecret) -> bool:
    given = secret_in(redeemed)
    if given["ca.crt"] != held.certificate_pem:
        return False
    verify_issued_by(given["tls.crt"], held.certificate_pem)
    return True


def acts(database: Database, target: str) -> list[Entry]:
    return list(audit.latest(database, limit=99, target=target))


def rows_of(database: Database) -> Mapping[str, list[tuple[Any, ...]]]:
    with database.reading() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table))]
            for table in schema.metadata.sorted_tables
        }


@contextlib.contextmanager
def nothing_written(database: Database) -> Iterator[None]:
    """Make sure that no transaction changes anything, not even to what it was."""
    with contextlib.ExitStack() as stack:
        if database.name.startswith("postgresql"):

            def version() -> Any:
                with database.reading() as connection:
                    return connection.scalar(text("SELECT pg_snapshot_xmax(pg_current_snapshot())"))

        else:
            path = database.sqlite.path
            observer = stack.enter_context(contextlib.closing(sqlite3.connect(path)))

            def version() -> Any:
                return observer.execute("PRAGMA data_version").fetchone()

        before, rows = version(), rows_of(database)
        yield
        assert rows_of(database) == rows
        assert version() == before


def lose(stand: Stand) -> None:
    """Begin with an empty database, and the same keys."""
    with stand.database.writing() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            if table.name not in {"heartbeat", "compatibility", "leadership"}:
                connection.execute(delete(table))
        connection.execute(update(schema.leadership).values(term=0))
    authorities.ensure_defaults(
        stand.database, stand.keyring, now=stand.clock.now, random_bytes=ambient.random_bytes
    )


def restore(stand: Stand, rows: Mapping[str, list[tuple[Any, ...]]]) -> None:
    """Bring an earlier state of the database back, as `rows_of` has told it."""
    with stand.database.writing() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            connection.execute(delete(table))
        for table in schema.metadata.sorted_tables:
            columns = [column.name for column in table.columns]
            for row in rows[table.name]:
                connection.execute(insert(table).values(dict(zip(columns, row, strict=True))))


def status_of(known: Known, now: int = NOW) -> dict[str, Any]:
    """Write a status as the resource shows it."""
    made = standing(
        Facts(
            problem=None,
            site=None,
            issuer="skupper-site-ca",
            signer=Signer(),
            reach=Reach(url="https://grants.example:9090", ca_pem=PEM),
            known=known,
            now=now,
        )
    )
    conditions = [{"type": one.type, "message": one.message} for one in made.conditions]
    return {**made.fields, "conditions": conditions}
