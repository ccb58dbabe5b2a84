"""What `GET /<grant>` tells the holder of the right code, as JSON."""

import json
from collections.abc import Mapping

from app.domain import policies
from app.domain.grants import Redemption
from app.domain.policies import Policy
from app.domain.prospects import begins_at, left
from app.domain.theft import SuspectedTheft, Suspicion
from app.domain.times import rfc3339
from app.services.redemption import Inspection


def write(inspection: Inspection) -> bytes:
    """Write the answer. It tells no address, and of networks only whether they hold the asker's."""
    grant, now = inspection.grant, inspection.now
    begins = begins_at(grant)
    document = {
        "grant": grant.name,
        "site": grant.site,
        "state": grant.state(now),
        "redeemable": not inspection.hindrances,
        "reasons": [
            {"reason": one.obstacle.value, "text": one.why} for one in inspection.hindrances
        ],
        "time": rfc3339(now),
        "timeSeconds": now,
        "beginTime": rfc3339(begins),
        "beginSeconds": begins,
        "expirationTime": rfc3339(grant.expires_at),
        "expirationSeconds": grant.expires_at,
        "redemptionsAllowed": grant.allowed,
        "redemptionsMade": grant.spent,
        "redemptionsLeft": left(grant, now),
        "redemptions": [_redemption(one) for one in inspection.redemptions],
        "linkCost": grant.cost,
        "policy": _policy(grant.policy),
        "addressFits": inspection.address_fits,
        "suspectedTokenTheft": _theft(inspection.theft),
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def _policy(policy: Policy | None) -> Mapping[str, object] | None:
    if policy is None:
        return None
    told = policies.document(policy)
    return {name: value for name, value in told.items() if name != "networks"}


def _redemption(one: Redemption) -> Mapping[str, object]:
    party = _party(one)
    return {"ordinal": one.ordinal, **party, "timeSeconds": one.redeemed_at}


def _theft(theft: SuspectedTheft | None) -> Mapping[str, object] | None:
    """Say who came first and who later; not from where, the reader may be either of them."""
    if theft is None:
        return None
    return {
        "first": None if theft.first is None else _party(theft.first),
        "later": [_party(one) for one in theft.later],
    }


def _party(one: Redemption | Suspicion) -> Mapping[str, str]:
    at = one.redeemed_at if isinstance(one, Redemption) else one.at
    return {"name": one.name, "subject": one.subject, "time": rfc3339(at)}
