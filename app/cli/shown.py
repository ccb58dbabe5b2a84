"""What an admin API shows, as the values that commands know."""

from app.api import admin_tokens as token_shapes
from app.api import authorities as authority_shapes
from app.api import grants as grant_shapes
from app.api import sites as site_shapes
from app.api.redemptions import Redemption as RedemptionShape
from app.cli.administration import SeenAuthority, SeenGrant, SeenToken
from app.client.problems import asked
from app.domain.admin_tokens import AdminToken
from app.domain.audit import Act
from app.domain.authorities import Authority
from app.domain.callers import read_rights
from app.domain.durations import format_seconds, parse_window
from app.domain.grants import Grant, Redemption
from app.domain.policies import Policy
from app.domain.sites import Endpoint, Site
from app.domain.times import parse_rfc3339
from app.errors import Invalid


def seen_grant(shape: grant_shapes.Grant) -> SeenGrant:
    """A grant as it is shown from afar."""
    return SeenGrant(grant=grant(shape), state=shape.state, at_home=False)


def grant(shape: grant_shapes.Grant) -> Grant:
    """A grant; the code that it conceals stays with the server."""
    return Grant(
        id=shape.id,
        name=shape.name,
        site=shape.site,
        concealed_code="",  # nobody needs it but the server
        allowed=shape.redemptions,
        spent=shape.redeemed,
        cost=shape.cost,
        created_at=seconds("created_at", shape.created_at),
        expires_at=seconds("expires_at", shape.expires_at),
        revoked_at=moment("revoked_at", shape.revoked_at),
        issuer=shape.issuer,
        policy=None if shape.policy is None else policy(shape.policy),
        not_before=moment("not_before", shape.not_before),
        labels=shape.labels,
        description=shape.description,
    )


def policy(shape: grant_shapes.Policy) -> Policy:
    """A policy of a grant."""
    return Policy(
        subjects=shape.subjects,
        networks=shape.networks,
        lifetime_seconds=None
        if shape.lifetime is None
        else parse_window(shape.lifetime, field="lifetime"),
        key_type=shape.key_type,
        per_subject=shape.per_subject,
        name_prefix=shape.name_prefix,
    )


def asked_policy(policy: Policy | None) -> grant_shapes.Policy | None:
    """A policy to be asked for. Raises Invalid naming the field."""
    if policy is None:
        return None
    lifetime = policy.lifetime_seconds
    return asked(
        grant_shapes.Policy,
        subjects=policy.subjects,
        networks=policy.networks,
        lifetime=None if lifetime is None else format_seconds(lifetime),
        key_type=policy.key_type,
        per_subject=policy.per_subject,
        name_prefix=policy.name_prefix,
    )


def redemption(shape: RedemptionShape, grant_id: str) -> Redemption:
    """A redemption of the grant of this id."""
    return Redemption(
        grant_id=grant_id,
        ordinal=shape.ordinal,
        name=shape.name,
        subject=shape.subject,
        peer=shape.peer,
        serial=shape.serial,
        fingerprint=shape.fingerprint,
        not_after=seconds("not_after", shape.not_after),
        redeemed_at=seconds("redeemed_at", shape.redeemed_at),
        revoked_at=moment("revoked_at", shape.revoked_at),
    )


def site(shape: site_shapes.Site) -> Site:
    """A site; its number and its revision stay with the server."""
    return Site(
        id=0,
        name=shape.name,
        issuer=shape.issuer,
        endpoints=tuple(
            Endpoint(role=one.role, host=one.host, port=one.port, group=one.group)
            for one in shape.endpoints
        ),
        revision=0,
        created_at=seconds("created_at", shape.created_at),
        origin=shape.origin,
    )


def authority(shape: authority_shapes.Authority) -> SeenAuthority:
    """What of an authority is public."""
    return SeenAuthority(
        authority=Authority(
            id=0,
            name=shape.name,
            purpose=shape.purpose,
            certificate_pem=shape.certificate,
            sealed_key=b"",
            fingerprint=shape.fingerprint,
            not_before=seconds("not_before", shape.not_before),
            not_after=seconds("not_after", shape.not_after),
            imported=shape.imported,
            created_at=seconds("created_at", shape.created_at),
            origin=shape.origin,
            state=shape.state,
        ),
        at_home=False,
    )


def admin_token(shape: token_shapes.AdminToken) -> SeenToken:
    """An admin token and its state."""
    return SeenToken(
        token=AdminToken(
            id=shape.id,
            name=shape.name,
            rights=read_rights(shape.verbs, shape.sites),
            created_at=seconds("created_at", shape.created_at),
            created_by=shape.created_by,
            expires_at=moment("expires_at", shape.expires_at),
            revoked_at=moment("revoked_at", shape.revoked_at),
            last_used_at=moment("last_used_at", shape.last_used_at),
            last_used_from=shape.last_used_from,
        ),
        state=shape.state,
    )


def act(text: str) -> Act:
    """An act of the audit log. Raises Invalid("server", …) for one of a later release."""
    try:
        return Act(text)
    except ValueError:
        what = "its audit log has acts that this release does not know: use that of the server"
        raise Invalid("server", what) from None


def seconds(field: str, text: str) -> int:
    """A time in UTC seconds. Raises Invalid("server", …) for what is none."""
    found = parse_rfc3339(text)
    if found is None:
        raise Invalid("server", f"it answers with a {field} that is no time")
    return found


def moment(field: str, text: str | None) -> int | None:
    """A time, where there is one; as `time`."""
    return None if text is None else seconds(field, text)
