"""A private key that was made where the link begins is nowhere else: not in between, not here."""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from psycopg import sql

from tests.e2e.recorder import Recorder, recording
from tests.installation import Installation
from tests.postgresql import Cluster
from tests.web.serving import IDENTITY


def written_in_any_way(key_pem: bytes) -> Mapping[str, bytes]:
    """Give what betrays a private key, in every form in which it may be written.

    Base64 looks in three ways, by where in it something begins; what its neighbours have a part
    in is left out.
    """
    key = load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    number = key.private_numbers().private_value
    scalar = number.to_bytes(32, "big")
    pkcs8 = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert scalar in pkcs8  # so whoever has no scalar has no DER of any kind either
    lines = key_pem.splitlines()
    forms = {
        "number": str(number).encode(),
        "scalar": scalar,
        "hexadecimal": scalar.hex().encode(),
        "HEXADECIMAL": scalar.hex().upper().encode(),
        "PEM": lines[1],
        "end of PEM": lines[-2][:-8],
    }
    inside = {"scalar": scalar, "words of PEM": b"PRIVATE KEY-----", "body of PEM": key_pem[28:90]}
    for name, plain in inside.items():
        for begin in range(3):
            encoded = base64.b64encode(bytes(begin) + plain)
            forms[f"base64 of {name}, {begin}"] = encoded[4 if begin else 0 : -4]
    return forms | {"words of PEM": b"PRIVATE KEY"}


def found_in(content: bytes, forms: Mapping[str, bytes]) -> list[str]:
    return [name for name, form in forms.items() if form in content]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A server, somebody in between, and the token that leads to them both."""

    run: Installation
    recorder: Recorder
    token: Path

    def redeem(self, *options: str) -> tuple[x509.Certificate, bytes]:
        """Redeem as anybody does; gives the certificate and its key."""
        text = self.run.type("token", "redeem", *options, str(self.token))
        assert text, self.run.said
        data = next(iter(yaml.safe_load_all(text)))["data"]
        certificate = x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"]))
        return certificate, base64.b64decode(data["tls.key"])


@contextmanager
def scene(directory: Path, **further: str) -> Iterator[Scene]:
    run = Installation(directory, GRANTSERVER_LOGS_LEVEL="debug", **further)
    with run.serving():
        run.type("site", "set", "west", "--endpoint", "inter-router=west.example.com:55671")
        text = run.type("token", "issue", "-", "--site", "west", "--redemptions", "2")
        document = yaml.safe_load(text)
        spec = document["spec"]
        token = directory / "token.yaml"
        with recording(("127.0.0.1", run.port), spec["ca"], str(directory)) as recorder:
            spec["url"] = recorder.url + "/" + spec["url"].rpartition("/")[2]
            spec["ca"] = IDENTITY.certificate.decode()
            token.write_text(yaml.safe_dump(document))
            yield Scene(run=run, recorder=recorder, token=token)


def kept_by(run: Installation) -> bytes:
    """Everything that the server has written on its disk, its log and its database included."""
    files = [one for one in (run.directory / "data").rglob("*") if one.is_file()]
    return b"\n".join(one.read_bytes() for one in (run.log, *files))


def kept_in(cluster: Cluster, url: str) -> bytes:
    """Everything that PostgreSQL has in its files, with what it would say when asked."""
    name = url.rpartition("/")[2]
    cluster.execute("CHECKPOINT")
    tables = cluster.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'", name
    )
    rows = []
    for (table,) in tables:
        for row in cluster.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)), name):
            rows += [one if isinstance(one, bytes) else str(one).encode() for one in row]
    files = [one for one in cluster.data.rglob("*") if one.is_file()]
    return b"\n".join([*rows, *(one.read_bytes() for one in files)])


def check_that_it_stays(made: Scene) -> Mapping[str, bytes]:
    """Redeem with a key of the client's own: it crosses no connection, in no form."""
    certificate, key_pem = made.redeem("--subject", "east")
    key = load_pem_private_key(key_pem, None)
    assert key.public_key() == certificate.public_key()
    forms = written_in_any_way(key_pem)
    asked, answered = bytes(made.recorder.asked), bytes(made.recorder.answered)
    assert b"csr: " in asked.lower()
    assert base64.b64encode(certificate.public_bytes(Encoding.PEM)) in answered
    assert b"tls.key" not in answered
    assert found_in(asked, forms) == []
    assert found_in(answered, forms) == []
    return forms


def check_that_it_would_be_found(made: Scene) -> None:
    """Redeem by the plain contract: what is searched for above is to be seen then."""
    before = len(made.recorder.answered)
    _, key_pem = made.redeem("--subject", "north", "--no-csr")
    found = found_in(bytes(made.recorder.answered[before:]), written_in_any_way(key_pem))
    assert any(name.startswith("base64 of words of PEM") for name in found)
    assert any(name.startswith("base64 of body of PEM") for name in found)


def test_every_form_of_a_key_is_recognised() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    forms = written_in_any_way(pem)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    sec1 = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    for begin in range(3):
        junk = bytes(range(7, 7 + begin))
        for content in (pem, der, sec1):
            assert found_in(b"x" + content + b"x", forms)
            assert found_in(b"x" + content.hex().encode() + b"x", forms) or content == pem
            assert found_in(base64.b64encode(junk + content), forms)
    assert found_in(base64.b64encode(der), forms)
    assert found_in(sec1.hex().upper().encode(), forms)
    other = ec.generate_private_key(ec.SECP256R1())
    public = other.public_key().public_numbers()
    assert found_in(public.x.to_bytes(32, "big"), forms) == []


def test_with_a_request_no_private_key_crosses_the_connection_or_is_on_the_disk(
    tmp_path: Path,
) -> None:
    with scene(tmp_path) as made:
        forms = check_that_it_stays(made)
        assert (tmp_path / "data/grantserver.db-wal").stat().st_size > 0
        assert found_in(kept_by(made.run), forms) == []
        check_that_it_would_be_found(made)
    assert found_in(kept_by(made.run), forms) == []


def test_nor_is_it_in_a_database_elsewhere(tmp_path: Path, cluster: Cluster) -> None:
    url = cluster.create(template="template0")
    with scene(tmp_path, GRANTSERVER_DATABASE_URL=url) as made:
        forms = check_that_it_stays(made)
        kept = kept_in(cluster, url)
        assert b"east" in kept
        assert b"BEGIN CERTIFICATE" in kept
        assert found_in(kept, forms) == []
        assert found_in(kept_by(made.run), forms) == []
    cluster.drop(url)
