"""What is written down for later: one entry for every act that changed something."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Act(StrEnum):
    """What happened, as `noun.verb`. Stored: values are never changed or taken away."""

    AUTHORITY_CREATED = "authority.created"
    AUTHORITY_IMPORTED = "authority.imported"
    AUTHORITY_KEY_EXPORTED = "authority.key_exported"
    AUTHORITY_PREPARED = "authority.prepared"
    AUTHORITY_ACTIVATED = "authority.activated"
    AUTHORITY_RETIRED = "authority.retired"
    AUTHORITY_KEY_ERASED = "authority.key_erased"
    AUTHORITY_ENDED = "authority.ended"
    GRANT_CREATED = "grant.created"
    GRANT_CHANGED = "grant.changed"
    GRANT_EXTENDED = "grant.extended"
    GRANT_REVOKED = "grant.revoked"
    GRANT_REMOVED = "grant.removed"
    GRANT_REDEEMED = "grant.redeemed"
    GRANT_REFUSED = "grant.refused"
    GRANT_ANSWERED_AGAIN = "grant.answered_again"
    GRANT_LOCKED = "grant.locked"
    GRANT_THEFT_SUSPECTED = "grant.theft_suspected"
    GRANT_CERTIFICATES_REVOKED = "grant.certificates_revoked"
    CERTIFICATE_RENEWED = "certificate.renewed"
    CERTIFICATE_REVOKED = "certificate.revoked"
    CERTIFICATE_EXPIRING = "certificate.expiring"
    SITE_SET = "site.set"
    SITE_REMOVED = "site.removed"
    ADMIN_TOKEN_CREATED = "admin_token.created"  # noqa: S105 - the act
    ADMIN_TOKEN_REVOKED = "admin_token.revoked"  # noqa: S105 - the act
    SERVER_CERTIFICATE_ISSUED = "server.certificate_issued"
    SERVER_CERTIFICATE_TAKEN = "server.certificate_taken"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_CHANGED = "webhook.changed"
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_REDELIVERED = "webhook.redelivered"
    WEBHOOK_REMOVED = "webhook.removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Who did what to which thing and when (UTC seconds); never a secret.

    `actor` is an operator (`cli:root`), the server itself (`server`) or a redeeming site
    (`site:<subject>`); `target` names the thing as `kind/name`; `details` are plain facts.
    """

    at: int
    act: Act
    actor: str
    target: str
    details: Mapping[str, str | int | None] = field(default_factory=dict)
