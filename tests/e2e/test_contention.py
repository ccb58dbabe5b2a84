"""The promise itself: a grant of N gives exactly N redemptions, whoever comes at once."""

import base64
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from sqlalchemy import bindparam, literal_column, update

from app.services import authorities, grants
from app.services.grants import Issued
from app.store import sqlite_ledger
from app.store.schema import grants as table
from tests.running import Answer, Server, running

ALLOWED = 7
CLIENTS = 60


def rush(server: Server, issued: Issued) -> list[Answer]:
    """Let all clients post the code at the same moment, each over a connection of its own."""
    ready = threading.Barrier(CLIENTS)

    def client(number: int) -> Answer:
        ready.wait(30)
        return server.redeem(issued, name=f"token-{number}", subject=f"site-{number}")

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(client, range(CLIENTS)))


def check_exactly_allowed(server: Server, issued: Issued, answers: list[Answer]) -> None:
    assert Counter((one.status, one.body if one.status != 200 else b"") for one in answers) == {
        (200, b""): ALLOWED,
        (404, b"No such access granted\n"): CLIENTS - ALLOWED,
    }
    grant, redemptions = grants.show(server.home.database, issued.grant.id)
    assert grant.spent == ALLOWED
    assert [one.ordinal for one in redemptions] == list(range(1, ALLOWED + 1))
    authority, _ = authorities.show(server.home.database, "site-ca")
    issuer = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
    serials = set()
    for answer in answers:
        if answer.status == 200:
            secret = next(yaml.safe_load_all(answer.body))
            leaf = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
            leaf.verify_directly_issued_by(issuer)
            serials.add(f"{leaf.serial_number:x}")
    assert len(serials) == ALLOWED
    assert serials == {one.serial.lstrip("0") for one in redemptions}


def test_sixty_clients_at_once_get_exactly_the_seven_that_are_allowed(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        issued = server.issue(redemptions=ALLOWED)
        check_exactly_allowed(server, issued, rush(server, issued))


def test_without_the_guard_in_the_statement_the_test_above_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unguarded = (
        update(table)
        .where(table.c.id == bindparam("grant_id"))
        .values(spent=table.c.spent + literal_column("1"))
        .returning(table.c.spent)
    )
    monkeypatch.setattr(sqlite_ledger, "SPEND", sqlite_ledger._compiled(unguarded))
    with running(tmp_path) as server:
        issued = server.issue(redemptions=ALLOWED)
        answers = rush(server, issued)
        with pytest.raises(AssertionError):
            check_exactly_allowed(server, issued, answers)
        # The last to be fooled: a constraint keeps the count within what is allowed.
        assert grants.show(server.home.database, issued.grant.id)[0].spent <= ALLOWED
