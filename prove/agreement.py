"""Whether the database says what the clients saw: answers, counters, rows, audit, certificates.

Everything is read the long way round, from tables and bytes, and by no function that the
redemption path itself uses for it.
"""

import base64
import binascii
import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from sqlalchemy import func, select

from app.crypto.answers import answer_keys
from app.domain.codes import key_id
from app.errors import Broken
from app.home import Home
from app.services import authorities
from app.services.authorities import DEFAULT_SITE_AUTHORITY
from app.store.schema import answers, audit, grants, redemptions
from prove.checker import disagreement
from prove.history import Answer, End, History, Operation
from prove.jobs import Target
from prove.plan import Claim, is_uuid

_SECRET: Final = re.compile(
    rb"---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: \"(?P<name>[^\"]*)\"\n.*?"
    rb"ca\.crt: \"(?P<ca>[^\"]*)\"\n\s*tls\.crt: \"(?P<crt>[^\"]*)\"\n"
    rb"\s*tls\.key: \"(?P<key>[^\"]*)\"\n",
    re.DOTALL,
)
_READ_WHOLE: Final = 200
"""Every so many bundles, one is read by a YAML parser as well."""


class Disagreement(Exception):
    """What should agree and does not; `history` is that of the grant, where it is about one."""

    def __init__(self, why: str, *, grant: str = "", history: History | None = None) -> None:
        self.grant = grant
        self.history = history
        super().__init__(why)


@dataclass(slots=True)
class Tally:
    """What was found to agree so far."""

    grants: int = 0
    redemptions: int = 0
    heard: int = 0
    """Redemptions whose bundle reached a client."""
    again: int = 0
    """Bundles that were given once more."""
    kept: int = 0
    unavailable: int = 0
    """Attempts that got a 503, among those of which nobody knows what became of them."""
    certificates: set[int] = field(default_factory=set)
    answers: dict[Answer, int] = field(default_factory=lambda: dict.fromkeys(Answer, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A grant, who claimed it, and all that was seen of it."""

    target: Target
    allowed: int
    claims: Sequence[Claim]
    end: End | None
    operations: Sequence[Operation]


class Auditor:
    """Compares what was seen with one installation's database."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.tally = Tally()
        authority, _ = authorities.show(home.database, DEFAULT_SITE_AUTHORITY)
        self._ca_pem = authority.certificate_pem.encode()
        self._ca = x509.load_pem_x509_certificate(self._ca_pem)

    def check(self, stories: Sequence[Story], bundles: Mapping[str, bytes]) -> None:
        """Check grants on which everything is over. Raises Disagreement."""
        found = self._read([one.target.id for one in stories])
        for story in stories:
            self._check_grant(story, found, bundles)

    def _read(self, ids: Sequence[str]) -> "_Found":
        with self._home.database.reading() as connection:
            spent = {
                row.id: row
                for row in connection.execute(
                    select(grants.c.id, grants.c.spent, grants.c.concealed_code).where(
                        grants.c.id.in_(ids)
                    )
                )
            }
            rows: dict[str, list[Any]] = {one: [] for one in ids}
            for row in connection.execute(
                select(redemptions)
                .where(redemptions.c.grant_id.in_(ids))
                .order_by(redemptions.c.ordinal)
            ):
                rows[row.grant_id].append(row)
        return _Found(spent, rows)

    def _check_grant(self, story: Story, found: "_Found", bundles: Mapping[str, bytes]) -> None:
        grant, rows = found.grants.get(story.target.id), found.rows[story.target.id]
        numbers = {claim.identity(): number for number, claim in enumerate(story.claims)}
        strangers = len(story.claims)
        redeemed = []
        for row in rows:
            peer = "" if is_uuid(row.subject) else row.peer
            redeemed.append(numbers.get((row.name, row.subject, peer), strangers))
        history = History(
            allowed=story.allowed, end=story.end, operations=story.operations, redeemed=redeemed
        )

        def disagree(why: str) -> Disagreement:
            return Disagreement(why, grant=story.target.id, history=history)

        if (why := disagreement(history)) is not None:
            raise disagree(why)
        try:
            _check_counter(0 if grant is None else grant.spent, rows)
            heard = self._count(story.operations)
            for claim, row in zip(redeemed, rows, strict=True):
                digest = heard.get(claim)
                if digest is not None:
                    self._check_bundle(bundles[digest], row, story.claims[claim])
                    self.tally.heard += 1
                self._check_kept(grant, row, story, digest)
        except _Odd as odd:
            raise disagree(str(odd)) from odd
        self.tally.grants += 1
        self.tally.redemptions += len(rows)

    def _count(self, operations: Sequence[Operation]) -> Mapping[int, str]:
        """Count the answers, and return the digests of bundles by claim."""
        heard: dict[int, str] = {}
        for one in operations:
            self.tally.answers[one.answer] += 1
            self.tally.unavailable += one.status == 503
            if one.answer is Answer.BUNDLE:
                self.tally.again += one.claim in heard
                heard[one.claim] = one.digest
        return heard

    def _check_bundle(self, bundle: bytes, row: Any, claim: Claim) -> None:
        """Compare what a client holds with the redemption's row."""
        at = f"redemption {row.ordinal}"
        secret = _SECRET.match(bundle)
        if secret is None or secret["name"].decode() != claim.name or b"kind: Link\n" not in bundle:
            raise _Odd(f"{at}: not a Secret of the claim's name with Links")
        if len(self.tally.certificates) % _READ_WHOLE == 0:
            kinds = [one["kind"] for one in yaml.safe_load_all(bundle)]
            if kinds[:2] != ["Secret", "Link"]:
                raise _Odd(f"{at}: a bundle of {kinds}")
        try:
            leaf = x509.load_pem_x509_certificate(base64.b64decode(secret["crt"], validate=True))
            key = load_pem_private_key(base64.b64decode(secret["key"], validate=True), None)
            authority = base64.b64decode(secret["ca"], validate=True)
            leaf.verify_directly_issued_by(self._ca)
        except (binascii.Error, ValueError, TypeError, InvalidSignature) as error:
            raise _Odd(f"{at}: the certificate is not one of the site's ({error})") from error
        names = [one.value for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        fingerprint = hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()
        for what, right in (
            ("the CA", authority == self._ca_pem),
            ("the common name", names == [claim.subject]),
            ("the private key", key.public_key() == leaf.public_key()),
            ("the serial number", leaf.serial_number == int(row.serial, 16)),
            ("the fingerprint", fingerprint == row.fingerprint),
            ("the end", int(leaf.not_valid_after_utc.timestamp()) == row.not_after),
            ("the serial number, used before,", leaf.serial_number not in self.tally.certificates),
        ):
            if not right:
                raise _Odd(f"{at}: {what} differs between the answer and its row")
        self.tally.certificates.add(leaf.serial_number)

    def _check_kept(self, grant: Any, row: Any, story: Story, digest: str | None) -> None:
        """Find the answer that is kept for the claim, and open it with the code alone."""
        keys = answer_keys(
            self._home.answer_salts[key_id(grant.concealed_code)],
            story.target.code.encode(),
            story.target.id,
            row.name,
            row.subject,
            "" if is_uuid(row.subject) else row.peer,
        )
        with self._home.database.reading() as connection:
            kept = connection.execute(
                select(answers.c.ordinal, answers.c.sealed).where(
                    answers.c.claim_key == keys.claim_key
                )
            ).first()
        if kept is None or kept.ordinal != row.ordinal:
            raise _Odd(f"redemption {row.ordinal}: no answer of it is kept")
        try:
            answer = _written(row.name, keys.open(kept.sealed), self._ca_pem)
        except (Broken, struct.error) as error:
            raise _Odd(f"redemption {row.ordinal}: {error}") from error
        if digest is not None and hashlib.sha256(answer).hexdigest() != digest:
            raise _Odd(f"redemption {row.ordinal}: the kept answer is not the one that was given")
        self.tally.kept += 1

    def finish(self) -> None:
        """Compare the whole database with itself and with the tally. Raises Disagreement."""
        with self._home.database.reading() as connection:
            counted = connection.execute(
                select(func.coalesce(func.sum(grants.c.spent), 0))
            ).scalar()
            kept = connection.execute(select(func.count()).select_from(answers)).scalar()
            rows = {
                _fact(
                    row.grant_id,
                    {name: getattr(row, name) for name in _AUDITED} | {"subject": row.subject},
                )
                for row in connection.execute(select(redemptions))
            }
            written = [
                _fact(
                    row.target.removeprefix("grant/"),
                    json.loads(row.details) | {"subject": row.actor.removeprefix("site:")},
                )
                for row in connection.execute(select(audit).where(audit.c.act == "grant.redeemed"))
            ]
        tally = self.tally
        for what, number in (
            ("redemption rows", len(rows)),
            ("counted as spent", counted),
            ("answers kept", kept),
            ("answers kept and opened", tally.kept),
            ("audit rows", len(written)),
        ):
            if number != tally.redemptions:
                raise Disagreement(f"{what}: {number}, and {tally.redemptions} were redeemed")
        if set(written) != rows:
            raise Disagreement("the audit log and the redemptions differ")
        if len(tally.certificates) != tally.heard:
            raise Disagreement(
                f"{len(tally.certificates)} certificates for {tally.heard} answered redemptions"
            )


class _Odd(Exception):
    """What is wrong with one grant, or one of its redemptions."""


def _check_counter(counted: int, rows: Sequence[Any]) -> None:
    if counted != len(rows):
        raise _Odd(f"the counter says {counted}, and there are {len(rows)} redemptions")
    if [row.ordinal for row in rows] != list(range(1, len(rows) + 1)):
        raise _Odd(f"the ordinals are {[row.ordinal for row in rows]}")


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database holds of some grants, by their ids."""

    grants: Mapping[str, Any]
    rows: Mapping[str, Sequence[Any]]


_AUDITED: Final = ("ordinal", "name", "peer", "serial", "fingerprint")


def _written(name: str, parts: bytes, ca_pem: bytes) -> bytes:
    """Write the answer whose parts were kept: see `app.domain.kept_answers` for their form."""
    form, _, certificate_bytes, key_bytes = struct.unpack_from(">BqHH", parts)
    rest = parts[struct.calcsize(">BqHH") :]
    key = rest[certificate_bytes : certificate_bytes + key_bytes]
    links = rest[certificate_bytes + key_bytes :]
    files = {"ca.crt": ca_pem, "tls.crt": rest[:certificate_bytes], "tls.key": key}
    data = "".join(
        f'  {file}: "{base64.b64encode(held).decode()}"\n' for file, held in files.items()
    )
    if form != 1 or not links.startswith(b"---\n"):
        raise Broken("the kept answer is of an unknown form")
    return (
        f'---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: "{name}"\n'
        f"type: kubernetes.io/tls\ndata:\n{data}"
    ).encode() + links


def _fact(grant: str, details: Mapping[str, object]) -> bytes:
    """Shorten what a redemption's row and its audit row have in common to 16 bytes."""
    parts = [grant, details["subject"], *(details[name] for name in _AUDITED)]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()
