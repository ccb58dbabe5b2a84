"""An installation from afar: what commands want of it is asked over its admin API."""

# ruff: noqa: D102 - `Administration` says what each of them is for

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app import ambient
from app.api import admin_tokens as token_shapes
from app.api import grants as grant_shapes
from app.api import sites as site_shapes
from app.api.audit import EntryListing
from app.api.shapes import ID
from app.cli import shown
from app.cli.administration import (
    NewGrant,
    SeenAuthority,
    SeenGrant,
    SeenToken,
    ShownGrant,
    Wanted,
)
from app.cli.output import warn
from app.client.client import Client
from app.client.problems import asked
from app.crypto.facts import facts
from app.domain.audit import Entry
from app.domain.callers import Rights, written_sites, written_verbs
from app.domain.certificates import CertificateFacts
from app.domain.durations import format_seconds
from app.domain.grants import MOST_REDEMPTIONS, Grant, Redemption
from app.domain.policies import Policy
from app.domain.reach import Reach
from app.domain.sites import Endpoint, Site
from app.domain.times import rfc3339
from app.errors import Forbidden, GrantServerError, Invalid, Missing, Unavailable
from app.services.admin_tokens import Made
from app.services.grants import Revoked, Wish

_MOST: Final = 1_000_000
"""So many things of a kind a command takes; more of them belong into a program."""


@dataclass(frozen=True, slots=True)
class Remote:
    """An `Administration` over a client, in the name of whoever's token that shows."""

    client: Client

    def reach(self) -> Reach:
        found = self.client.info().reach
        if found.url is None or found.ca is None:
            raise Unavailable(found.waiting)
        return Reach(url=found.url, ca_pem=found.ca)

    def where_the_ca_is(self) -> str:
        return "reach.ca of GET /api/v1/info, as every token has it"

    def create_grant(self, wish: Wish) -> NewGrant:
        made = self.client.create_grant(
            asked(
                grant_shapes.NewGrant,
                name=wish.name,
                site=wish.site,
                redemptions=wish.redemptions,
                window=format_seconds(wish.window_seconds),
                cost=wish.cost,
                code=wish.code,
                issuer=wish.issuer,
                policy=None if wish.policy in {None, Policy()} else shown.asked_policy(wish.policy),
                not_before=None if wish.not_before is None else rfc3339(wish.not_before),
                labels=dict(wish.labels),
                description=wish.description,
            )
        )
        grant = shown.grant(made.grant)
        if made.token is None:  # it was there a moment ago
            self.withdraw_grant(grant)
            raise Unavailable("nobody knows an address of the server")
        return NewGrant(grant=grant, code=made.code, token=made.token)

    def withdraw_grant(self, grant: Grant) -> None:
        try:
            try:
                self.client.delete_grant(grant.id)
            except Forbidden:
                self.client.revoke_grant(grant.id, grant_shapes.Revocation())
        except GrantServerError:
            warn(f"grant {grant.id} was made all the same, and could not be removed: revoke it")

    def grants(self, site: str | None) -> Sequence[SeenGrant]:
        if site is not None:
            self.client.get_site(site)  # raises Missing: no grants is not the same as no site
        listing = asked(grant_shapes.GrantListing, site=site)
        found = [shown.seen_grant(one) for one in self.client.grants(listing, most=_MOST)]
        # Those of one second come by their ids.
        return sorted(found, key=lambda one: (one.grant.created_at, one.grant.site, one.grant.name))

    def grant(self, name: str, site: str | None) -> ShownGrant:
        found = self._named(name, site)
        url = self.client.info().reach.url
        return ShownGrant(
            seen=shown.seen_grant(found),
            redemptions=self._redemptions(found.id),
            given=None,
            theft=None,
            url=Reach(url=url, ca_pem="").url_of(found.id) if url else None,
        )

    def extend_grant(
        self,
        name: str,
        site: str | None,
        *,
        window_seconds: int | None,
        until: int | None,
        redemptions: int | None,
    ) -> Grant:
        found = self._named(name, site)
        if until is not None:
            change = asked(
                grant_shapes.GrantChange, expires_at=rfc3339(until), redemptions=redemptions
            )
            return shown.grant(self.client.change_grant(found.id, change))
        extension = asked(
            grant_shapes.Extension,
            window=None if window_seconds is None else format_seconds(window_seconds),
            redemptions=redemptions,
        )
        return shown.grant(self.client.extend_grant(found.id, extension))

    def revoke_grant(self, name: str, site: str | None) -> Revoked:
        found = self._named(name, site)
        revoked = self.client.revoke_grant(found.id, grant_shapes.Revocation())
        return Revoked(grant=shown.grant(revoked.grant), certificates=revoked.certificates)

    def revoke_redemption(self, name: str, site: str | None, ordinal: int) -> Revoked:
        grant = shown.grant(self._named(name, site))
        try:
            revoked = self.client.revoke_redemption(grant.id, ordinal)
        except Missing as error:
            if error.kind == "redemption":
                raise Missing(f'redemption of grant "{grant.name}"', str(ordinal)) from error
            raise
        return Revoked(grant=grant, certificates=revoked.certificates)

    def linked_until(self, grant: Grant, ordinal: int | None) -> int | None:
        now = ambient.utc_now()
        try:
            redemptions = self._redemptions(grant.id)
        except (Forbidden, Missing):  # one may be allowed to revoke and not to look
            return None
        return max(
            (
                one.not_after
                for one in redemptions
                if one.revoked_at is not None
                and one.not_after >= now
                and ordinal in {None, one.ordinal}
            ),
            default=None,
        )

    def remove_grant(self, name: str, site: str | None) -> Grant:
        found = self._named(name, site)
        self.client.delete_grant(found.id)
        return shown.grant(found)

    def sites(self) -> Sequence[Site]:
        return [shown.site(one) for one in self.client.sites(most=_MOST)]

    def site(self, name: str) -> Site:
        return shown.site(self.client.get_site(name).value)

    def set_site(self, name: str, endpoints: Sequence[Endpoint], issuer: str | None) -> Site:
        if_match = None
        if endpoints:
            shapes = tuple(
                asked(
                    site_shapes.Endpoint,
                    role=one.role,
                    host=one.host,
                    port=one.port,
                    group=one.group,
                )
                for one in endpoints
            )
        else:
            seen = self.client.get_site(name)
            shapes, if_match = seen.value.endpoints, seen.etag
            if not shapes:
                raise Missing("endpoint", name)
        wish = asked(site_shapes.SiteWish, endpoints=shapes, issuer=issuer)
        return shown.site(self.client.set_site(name, wish, if_match=if_match))

    def remove_site(self, name: str) -> None:
        self.client.delete_site(name)

    def authorities(self) -> Sequence[SeenAuthority]:
        found = [shown.authority(one) for one in self.client.authorities(most=_MOST)]
        return sorted(found, key=lambda one: one.authority.name)  # they come by their age

    def authority(self, name: str) -> tuple[SeenAuthority, CertificateFacts]:
        found = self.client.get_authority(name)
        return shown.authority(found), facts(found.certificate.encode())

    def entries(self, wanted: Wanted) -> Sequence[Entry]:
        listing = asked(
            EntryListing,
            target=wanted.target,
            act=wanted.act,
            actor=wanted.actor,
            since=None if wanted.since is None else rfc3339(wanted.since),
            until=None if wanted.until is None else rfc3339(wanted.until),
        )
        found = [
            Entry(
                at=shown.seconds("at", one.at),
                act=shown.act(one.act),
                actor=one.actor,
                target=one.target,
                details=one.details,
            )
            for one in self.client.entries(listing, most=wanted.limit)
        ]
        return found[::-1]

    def create_admin_token(self, name: str, rights: Rights, window_seconds: int | None) -> Made:
        wish = asked(
            token_shapes.NewAdminToken,
            name=name,
            verbs=tuple(written_verbs(rights)),
            sites=tuple(written_sites(rights)),
            window=None if window_seconds is None else format_seconds(window_seconds),
        )
        made = self.client.create_admin_token(wish)
        return Made(token=shown.admin_token(made.admin_token).token, secret=made.secret)

    def admin_tokens(self) -> Sequence[SeenToken]:
        return [shown.admin_token(one) for one in self.client.admin_tokens(most=_MOST)]

    def admin_token(self, name: str) -> SeenToken:
        return shown.admin_token(self.client.get_admin_token(name))

    def revoke_admin_token(self, name: str) -> None:
        self.client.revoke_admin_token(name)

    def _named(self, name: str, site: str | None) -> grant_shapes.Grant:
        """Find a grant by its id or name. Raises Missing, and Invalid("site", …) for several."""
        if re.fullmatch(ID, name):
            try:
                by_id = self.client.get_grant(name).value
            except Missing:
                pass  # a name may be made to look like an id
            else:
                if site in {None, by_id.site}:
                    return by_id
        prefix = re.match(r"[a-z0-9][-a-z0-9]{0,62}", name)
        if prefix is None:
            raise Missing("grant", name)
        listing = asked(grant_shapes.GrantListing, name_prefix=prefix[0], site=site)
        found = [one for one in self.client.grants(listing, most=_MOST) if one.name == name]
        if not found:
            raise Missing("grant", name)
        if len(found) > 1:
            sites = ", ".join(sorted(one.site for one in found))
            raise Invalid("site", f'sites {sites} each have a grant "{name}": say which')
        return found[0]

    def _redemptions(self, grant_id: str) -> Sequence[Redemption]:
        found = self.client.redemptions(grant_id, most=MOST_REDEMPTIONS)
        return [shown.redemption(one, grant_id) for one in found]
