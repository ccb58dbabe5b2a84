"""What commands do to an installation: the one beside them, or one that is administered from afar.

A command says what it wants of an `Administration`, and shows what it gets. What only the
installation itself can tell is None from afar.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.cli.output import kind
from app.domain.admin_tokens import AdminToken
from app.domain.audit import Entry
from app.domain.authorities import Authority
from app.domain.callers import Rights
from app.domain.certificates import CertificateFacts
from app.domain.grants import Grant, Redemption, State
from app.domain.reach import Reach
from app.domain.renewals import Given
from app.domain.sites import Endpoint, Site
from app.domain.theft import SuspectedTheft
from app.services.admin_tokens import Made
from app.services.grants import Revoked, Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGrant:
    """A new grant, its code and its token, which are known here and never again."""

    grant: Grant
    code: str = field(repr=False)
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenGrant:
    """A grant and its state; `resource` is the AccessGrant that it stands for.

    Whether there is one is known `at_home` only, and so is `suspected`, whether its token was
    stolen.
    """

    grant: Grant
    state: State
    at_home: bool
    resource: tuple[str, str] | None = None
    suspected: bool | None = None

    @property
    def kind(self) -> str | None:
        """Whose it is, where that is known."""
        return kind(self.resource) if self.at_home else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownGrant:
    """All that is known of a grant; `given` are its certificates, None where nobody says."""

    seen: SeenGrant
    redemptions: Sequence[Redemption]
    given: Sequence[Given] | None
    theft: SuspectedTheft | None
    url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenAuthority:
    """An authority; since when it is in its state and whether it has a key is known `at_home`."""

    authority: Authority
    at_home: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenToken:
    """An admin token and its state."""

    token: AdminToken
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries of the audit log are wanted: the newest `limit` of those that pass all."""

    limit: int
    target: str | None
    act: str | None
    actor: str | None
    since: int | None
    until: int | None


class Administration(Protocol):
    """An installation, as whoever administers it sees it.

    All of it raises Missing for what is not there, Invalid naming the field, Conflict, and
    Unavailable; from afar also what `app.client.client` says of itself.
    """

    def reach(self) -> Reach:
        """How connecting sites reach the server. Raises Unavailable while nobody knows."""

    def where_the_ca_is(self) -> str:
        """Say how to get at the CA that has to be trusted by whoever has no token file."""

    def create_grant(self, wish: Wish) -> NewGrant:
        """Create a grant, and write its token."""

    def withdraw_grant(self, grant: Grant) -> None:
        """Take back a grant whose code nobody has got."""

    def grants(self, site: str | None) -> Sequence[SeenGrant]:
        """All grants, or those of one site; the oldest first."""

    def grant(self, name: str, site: str | None) -> ShownGrant:
        """One grant by its name or id."""

    def extend_grant(
        self,
        name: str,
        site: str | None,
        *,
        window_seconds: int | None,
        until: int | None,
        redemptions: int | None,
    ) -> Grant:
        """Let a grant live for a window from now or until then, or be redeemed more often."""

    def revoke_grant(self, name: str, site: str | None) -> Revoked:
        """End a grant and revoke its certificates."""

    def revoke_redemption(self, name: str, site: str | None, ordinal: int) -> Revoked:
        """Revoke the certificates of one redemption."""

    def linked_until(self, grant: Grant, ordinal: int | None) -> int | None:
        """Tell when the last of its revoked certificates ends, if any is valid still."""

    def remove_grant(self, name: str, site: str | None) -> Grant:
        """Remove a grant."""

    def sites(self) -> Sequence[Site]:
        """All sites."""

    def site(self, name: str) -> Site:
        """One site."""

    def set_site(self, name: str, endpoints: Sequence[Endpoint], issuer: str | None) -> Site:
        """Make a site or replace its endpoints; without any, it keeps those that it has.

        Raises Missing where there are none that could be kept.
        """

    def remove_site(self, name: str) -> None:
        """Remove a site."""

    def authorities(self) -> Sequence[SeenAuthority]:
        """All authorities."""

    def authority(self, name: str) -> tuple[SeenAuthority, CertificateFacts]:
        """One authority and what is in its certificate."""

    def entries(self, wanted: Wanted) -> Sequence[Entry]:
        """Entries of the audit log, the oldest of them first."""

    def create_admin_token(self, name: str, rights: Rights, window_seconds: int | None) -> Made:
        """Make an admin token."""

    def admin_tokens(self) -> Sequence[SeenToken]:
        """All admin tokens by name."""

    def admin_token(self, name: str) -> SeenToken:
        """One admin token."""

    def revoke_admin_token(self, name: str) -> None:
        """Revoke an admin token."""
