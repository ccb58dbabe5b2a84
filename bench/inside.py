"""An installation that is measured from within this process: a site, a grant, and what redeems."""

from app import ambient
from app.domain.sites import parse_endpoint
from app.home import Home
from app.services import grants, sites
from app.services.attempts import Attempts
from app.services.grants import Issued, Wish
from app.services.issuance import Issuance, Policy
from app.services.limits import GrantLocks
from app.services.redemption import Redeemer
from app.services.theft import TheftAlarm
from app.store.ledgers import open_ledger

SITE = "west"
_ACTOR = "cli:bench"


def make_grant(home: Home, name: str, window_seconds: int) -> Issued:
    """Make the site, and a grant of one redemption that leads to it."""
    now = ambient.utc_now()
    endpoint = parse_endpoint("inter-router=127.0.0.1:55671")
    sites.put(home.database, name=SITE, endpoints=[endpoint], issuer=None, actor=_ACTOR, now=now)
    return grants.create(
        home.database,
        Wish(name=name, site=SITE, redemptions=1, window_seconds=window_seconds, cost=1),
        code_keys=home.code_keys,
        actor=_ACTOR,
        now=now,
        random_bytes=ambient.random_bytes,
    )


def redeemer(home: Home) -> Redeemer:
    """Build what redeems, with every setting at its default, as the server does."""
    chosen = home.settings
    return Redeemer(
        ledger=open_ledger(
            home.database,
            spacing_seconds=chosen.ledger.spacing_seconds,
            on_batch=lambda _: None,
        ),
        locks=GrantLocks(None, database=home.database, clock=ambient.utc_now, on_lock=lambda: None),
        thefts=TheftAlarm(database=home.database, revoke=False, on_suspicion=lambda: None),
        attempts=Attempts(database=home.database, clock=ambient.utc_now),
        issuance=Issuance(
            database=home.database,
            keyring=home.keyring,
            policy=Policy(
                key_type=chosen.certificates.key_type,
                lifetime_seconds=chosen.certificates.lifetime_seconds,
            ),
            random_bytes=ambient.random_bytes,
        ),
        code_keys=home.code_keys,
        answer_salts=home.answer_salts,
        retry_seconds=chosen.grants.retry_window_seconds,
        clock=ambient.utc_now,
        monotonic=ambient.monotonic,
        random_bytes=ambient.random_bytes,
        on_stage=lambda _stage, _seconds: None,
    )


async def close(own: Redeemer) -> None:
    """Let a redeemer finish; its database stays open."""
    await own.ledger.close()
    await own.thefts.close()
    await own.locks.close()
