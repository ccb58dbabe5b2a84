"""Exchanges with clients that know nothing but the wire contract, the same to the byte each time.

Everything that is drawn or read from a clock is given here, and the authority signs with Ed25519,
whose signatures have no randomness: two releases that answer differently differ in what they do.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry

from app import logs
from app.crypto import keys
from app.crypto.certificates import moment
from app.crypto.keys import KeyPair, pair_of, to_pem
from app.crypto.sealing import load_or_create
from app.domain.certificates import KeyType
from app.metrics import Metrics
from app.services import authorities, grants
from app.services.issuance import Issuance, Policy
from app.services.limits import PeerLimits
from app.store.engine import Database
from app.web.redemption import RedemptionApp, request_ids
from tests.builders import CODE, NOW, Clock, Stand, a_wish
from tests.web.serving import Server, read_all, serving

_DATE: Final = re.compile(r"\r\ndate: [^\r]* GMT\r\n")
KUBERNETES: Final = "5f0f8f8e-3f3b-4f7a-9a55-6f2f1c6f3a77"  # a site's UID, which is its subject


def drawn(what: str) -> Callable[[int], bytes]:
    """Give bytes as random ones would be, and the same ones next time."""
    numbers = count()
    return lambda size: hashlib.shake_256(f"{what} {next(numbers)}".encode()).digest(size)


def authority() -> tuple[bytes, bytes]:
    """The site authority's certificate and key, in PEM."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "golden site CA")])
    public = key.public_key()
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(0x1234567890)
        .not_valid_before(moment(NOW) - timedelta(days=1))
        .not_valid_after(moment(NOW) + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, None)
    )
    return built.public_bytes(serialization.Encoding.PEM), to_pem(key)


def key_pairs() -> Iterator[KeyPair]:
    """The keys that are handed out, one after the other."""
    for number in count(1):
        yield pair_of(ec.derive_private_key(2**200 + number, ec.SECP256R1()))


@contextmanager
def golden(
    database: Database, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Server, str]]:
    """Serve a site `west` with a grant of two redemptions, whose id is given."""
    made = key_pairs()
    monkeypatch.setattr(keys, "make_pair", lambda _: next(made))
    keyring = load_or_create(directory / "golden.keys", drawn("sealing key"))
    certificate, key = authority()
    authorities.import_authority(
        database,
        keyring,
        name="site-ca",
        certificate_pem=certificate,
        key_pem=key,
        actor="test",
        now=NOW,
        random_bytes=drawn("authority"),
    )
    stand = Stand(
        database=database,
        keyring=keyring,
        code_keys=keyring.derive("codes of grants"),
        clock=Clock(),
    )
    stand.set_site(issuer="site-ca")
    grant = grants.create(
        database,
        a_wish(redemptions=2, cost=7),
        code_keys=stand.code_keys,
        actor="test",
        now=NOW,
        random_bytes=drawn("grant"),
    ).grant
    issuance = Issuance(
        database=database,
        keyring=keyring,
        policy=Policy(key_type=KeyType.P256, lifetime_seconds=86_400),
        random_bytes=drawn("serial"),
    )
    redeemer = stand.redeemer(issuance=issuance, random_bytes=drawn("nonce"))
    app = RedemptionApp(
        redeemer=redeemer,
        peers=PeerLimits(None, monotonic=lambda: 0.0),
        metrics=Metrics(CollectorRegistry(), version="golden", count_grants=dict),
        log=logs.get_logger("redemption"),
        by_key=False,
        monotonic=lambda: 0.0,
        request_ids=request_ids(drawn("process")),
    )
    with serving(app) as server:
        try:
            yield server, grant.id
        finally:
            server.begin(redeemer.ledger.close()).result(10)


def controller(grant: str, subject: str, *, code: str = CODE, name: str = "to-west") -> bytes:
    """Ask as Skupper's controller does."""
    return (
        f"POST /{grant} HTTP/1.1\r\nHost: west.example:9090\r\n"
        f"User-Agent: Go-http-client/1.1\r\nContent-Length: {len(code)}\r\n"
        f"Name: {name}\r\nSubject: {subject}\r\nAccept-Encoding: gzip\r\n\r\n{code}"
    ).encode()


def system_site(grant: str, name: str) -> bytes:
    """Ask as the command line of a system site does, without a namespace."""
    return (
        f"POST /{grant} HTTP/1.1\r\nHost: west.example:9090\r\n"
        f"User-Agent: Go-http-client/1.1\r\nContent-Length: {len(CODE)}\r\n"
        f"Name: {name}\r\nSubject: \r\nAccept-Encoding: gzip\r\n\r\n{CODE}"
    ).encode()


def exchanges(grant: str) -> Mapping[str, bytes]:
    """What is asked, one after the other."""
    elsewhere = "00000000-0000-7000-8000-000000000000"
    return {
        "another method": f"GET /{grant} HTTP/1.1\r\nHost: west.example:9090\r\n\r\n".encode(),
        "no such grant": controller(elsewhere, KUBERNETES),
        "wrong code": controller(grant, KUBERNETES, code="a" * 24),
        "a name that cannot be": controller(grant, KUBERNETES, name="../x"),
        "a subject that cannot be": controller(grant, "x" * 254),
        "redeemed by a controller": controller(grant, KUBERNETES),
        "and once more": controller(grant, KUBERNETES),
        "redeemed by a system site": system_site(grant, "123"),
        "and once more by it": system_site(grant, "123"),
        "used up": controller(grant, KUBERNETES.replace("5", "6")),
    }


def answers(server: Server, asked: Mapping[str, bytes]) -> Mapping[str, str]:
    """What comes back through TLS, whole but for its date, for each of these."""
    found = {}
    for what, request in asked.items():
        with server.shake() as connection:
            connection.sendall(request)
            answer = read_all(connection).decode("ascii")
        found[what] = _DATE.sub("\r\ndate: today\r\n", answer, count=1)
    return found
