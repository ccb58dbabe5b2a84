"""Valid values to begin with: a test overrides the one field that it is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from app import ambient
from app.crypto.sealing import Keyring, load_or_create
from app.domain.audit import Act, Entry
from app.domain.authorities import Authority, Purpose, ServerCertificate
from app.domain.certificates import KeyType, Minted
from app.domain.grants import Claim, Grant, Redemption
from app.domain.limits import Allowance
from app.domain.sites import Endpoint, Role, Site, parse_endpoint
from app.domain.theft import Suspicion
from app.services import authorities, grants, sites
from app.services.attempts import Attempts
from app.services.grants import Issued, Wish
from app.services.issuance import Issuance, Policy
from app.services.limits import GrantLocks
from app.services.redemption import Redeemer
from app.services.theft import TheftAlarm
from app.settings import Settings, load
from app.store.engine import Database, open_database
from app.store.ledger import Ledger
from app.store.ledgers import open_ledger

NOW: Final = 1_790_000_000
WINDOW: Final = 1500
RETRY_WINDOW: Final = 600
GRANT_ID: Final = "2b3f3a1c-6f0e-4c5e-9f57-0d4c1b7a9e10"
CODE: Final = "Aa0Bb1Cc2Dd3Ee4Ff5Gg6Hh7"
CODE_KEYS: Final = {"0a1b2c3d": bytes(range(32))}
SUBJECT: Final = "5f0f8f8e-3f3b-4f7a-9a55-6f2f1c6f3a77"
PEM: Final = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def an_endpoint(**changes: Any) -> Endpoint:
    return replace(Endpoint(role=Role.INTER_ROUTER, host="west.example", port=55671), **changes)


def a_site(**changes: Any) -> Site:
    made = Site(
        id=1,
        name="west",
        issuer="site-ca",
        endpoints=(an_endpoint(), an_endpoint(role=Role.EDGE, port=45671)),
        revision=1,
        created_at=NOW,
    )
    return replace(made, **changes)


def a_grant(**changes: Any) -> Grant:
    made = Grant(
        id=GRANT_ID,
        name="to-west",
        site="west",
        concealed_code="hmac-sha256:0a1b2c3d:" + "0" * 64,
        allowed=2,
        spent=0,
        cost=1,
        created_at=NOW,
        expires_at=NOW + WINDOW,
    )
    return replace(made, **changes)


def a_claim(**changes: Any) -> Claim:
    made = Claim(
        key=GRANT_ID, presented_code=CODE.encode(), name="east", subject=SUBJECT, peer="192.0.2.7"
    )
    return replace(made, **changes)


def a_redemption(**changes: Any) -> Redemption:
    made = Redemption(
        grant_id=GRANT_ID,
        ordinal=1,
        name="east",
        subject=SUBJECT,
        peer="192.0.2.7",
        serial=ambient.random_bytes(16).hex(),
        fingerprint=ambient.random_bytes(32).hex(),
        not_after=NOW + 10_000,
        redeemed_at=NOW,
        issuer_id=1,
    )
    return replace(made, **changes)


def a_suspicion(**changes: Any) -> Suspicion:
    made = Suspicion(
        grant_id=GRANT_ID, at=NOW, name="copy", subject="mallory", peer="198.51.100.66"
    )
    return replace(made, **changes)


def an_authority(**changes: Any) -> Authority:
    made = Authority(
        id=0,
        name="site-ca",
        purpose=Purpose.SITE,
        certificate_pem=PEM,
        sealed_key=b"sealed",
        fingerprint=ambient.random_bytes(32).hex(),
        not_before=NOW - 300,
        not_after=NOW + 100_000,
        imported=False,
        created_at=NOW,
    )
    return replace(made, **changes)


def a_server_certificate(**changes: Any) -> ServerCertificate:
    made = ServerCertificate(
        certificate_pem=PEM,
        sealed_key=b"sealed",
        fingerprint=ambient.random_bytes(32).hex(),
        not_after=NOW + 100_000,
        created_at=NOW,
    )
    return replace(made, **changes)


def an_entry(**changes: Any) -> Entry:
    made = Entry(
        at=NOW, act=Act.GRANT_CREATED, actor="cli:root", target="grant/x", details={"name": "x"}
    )
    return replace(made, **changes)


def a_minted(**changes: Any) -> Minted:
    made = Minted(
        certificate_pem=b"-----BEGIN CERTIFICATE-----\nleaf\n-----END CERTIFICATE-----\n",
        key_pem=b"-----BEGIN PRIVATE KEY-----\nkey\n-----END PRIVATE KEY-----\n",
        ca_pem=b"-----BEGIN CERTIFICATE-----\nca\n-----END CERTIFICATE-----\n",
        serial="0a",
        fingerprint="0b",
        not_before=NOW - 60,
        not_after=NOW + 1000,
    )
    return replace(made, **changes)


def a_wish(**changes: Any) -> Wish:
    made = Wish(
        name="to-west", site="west", redemptions=2, window_seconds=WINDOW, cost=1, code=CODE
    )
    return replace(made, **changes)


def some_settings(directory: Path, **overrides: object) -> Settings:
    """Everything at its default, below `directory`; `listen__ops=...` stands for `listen.ops`."""
    flags = {name.replace("__", "."): value for name, value in overrides.items()}
    return load({}, overrides={"data.dir": directory, **flags})


def a_database(directory: Path) -> Database:
    return open_database(f"sqlite:///{directory / 'grantserver.db'}")


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@dataclass(kw_only=True)
class Stand:
    """A database with its authorities and keys, and everything that a redemption needs."""

    database: Database
    keyring: Keyring
    code_keys: Mapping[str, bytes] = field(repr=False)
    clock: Clock = field(default_factory=Clock)
    policy: Policy = field(
        default_factory=lambda: Policy(key_type=KeyType.P256, lifetime_seconds=3600)
    )

    def issuance(self) -> Issuance:
        return Issuance(
            database=self.database,
            keyring=self.keyring,
            policy=self.policy,
            random_bytes=ambient.random_bytes,
        )

    def ledger(self, **changes: Any) -> Ledger:
        options: dict[str, Any] = {"spacing_seconds": 0.0, "on_batch": lambda _: None}
        return open_ledger(self.database, **(options | changes))

    def locks(self, allowance: Allowance | None = None, **changes: Any) -> GrantLocks:
        options: dict[str, Any] = {"clock": self.clock, "on_lock": lambda: None}
        options |= {"database": self.database, "merge_seconds": 0.0}
        return GrantLocks(allowance, **(options | changes))

    def thefts(self, **changes: Any) -> TheftAlarm:
        options: dict[str, Any] = {"revoke": False, "on_suspicion": lambda: None}
        return TheftAlarm(database=self.database, **(options | changes))

    def attempts(self, **changes: Any) -> Attempts:
        return Attempts(database=self.database, **({"clock": self.clock} | changes))

    def redeemer(self, **changes: Any) -> Redeemer:
        made: dict[str, Any] = {
            "issuance": self.issuance(),
            "locks": self.locks(),
            "thefts": self.thefts(),
            "attempts": self.attempts(),
            "code_keys": self.code_keys,
            "answer_salts": self.keyring.derive("kept answers"),
            "retry_seconds": RETRY_WINDOW,
            "clock": self.clock,
            "monotonic": ambient.monotonic,
            "random_bytes": ambient.random_bytes,
            "on_stage": lambda _stage, _seconds: None,
        }
        if "ledger" not in changes:
            made["ledger"] = self.ledger()
        return Redeemer(**(made | changes))

    def set_site(self, name: str = "west", *endpoints: str, issuer: str | None = None) -> Site:
        texts = endpoints or ("inter-router=west.example:55671", "edge=west.example:45671")
        return sites.put(
            self.database,
            name=name,
            endpoints=[parse_endpoint(text) for text in texts],
            issuer=issuer,
            actor="cli:test",
            now=self.clock.now,
        )

    def make_grant(self, **changes: Any) -> Issued:
        return grants.create(
            self.database,
            a_wish(**changes),
            code_keys=self.code_keys,
            actor="cli:test",
            now=self.clock.now,
            random_bytes=ambient.random_bytes,
        )


def a_stand(database: Database, directory: Path) -> Stand:
    """Put default authorities into a database; site and grants are the test's affair."""
    keyring = load_or_create(directory / "sealing.keys", ambient.random_bytes)
    authorities.ensure_defaults(database, keyring, now=NOW, random_bytes=ambient.random_bytes)
    return Stand(database=database, keyring=keyring, code_keys=keyring.derive("codes of grants"))
