"""Redemptions of a grant."""

from app.api.shapes import Cursor, Shape, Time


class Redemption(Shape):
    """Who redeemed a grant, when and from where, and the certificate that was given for it."""

    ordinal: int
    name: str
    subject: str
    peer: str
    redeemed_at: Time
    serial: str
    fingerprint: str
    not_after: Time
    revoked_at: Time | None


class RedemptionPage(Shape):
    """Some redemptions of a grant, the first ones first."""

    items: tuple[Redemption, ...]
    next: Cursor | None


class RevokedRedemption(Shape):
    """A redemption, and how many of its certificates were revoked just now."""

    redemption: Redemption
    certificates: int
