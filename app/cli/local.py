"""The installation beside a command: its database is opened and worked on directly."""

# ruff: noqa: D102 - `Administration` says what each of them is for

from collections.abc import Sequence
from dataclasses import dataclass

from app import ambient
from app.cli.administration import (
    NewGrant,
    SeenAuthority,
    SeenGrant,
    SeenToken,
    ShownGrant,
    Wanted,
)
from app.cli.opening import actor
from app.cli.output import paste
from app.domain.admin_tokens import AdminToken
from app.domain.audit import Entry
from app.domain.callers import Rights
from app.domain.certificates import CertificateFacts
from app.domain.grants import Grant
from app.domain.reach import Reach
from app.domain.sites import Endpoint, Site
from app.errors import Missing
from app.home import Home
from app.services import admin_tokens, audit, authorities, grants, sites, theft
from app.services.admin_tokens import Made
from app.services.authorities import SERVER_AUTHORITY
from app.services.grants import Revoked, Wish
from app.services.serving import Source


@dataclass(frozen=True, slots=True)
class Local:
    """An `Administration` of an opened installation, in the name of this process's user."""

    home: Home

    def reach(self) -> Reach:
        return self.home.reach()

    def where_the_ca_is(self) -> str:
        return where_it_is(self.home.source)

    def create_grant(self, wish: Wish) -> NewGrant:
        reach = self.reach()
        issued = grants.create(
            self.home.database,
            wish,
            code_keys=self.home.code_keys,
            actor=actor(),
            now=ambient.utc_now(),
            random_bytes=ambient.random_bytes,
            ceilings=self.home.ceilings,
        )
        token = grants.token(issued, reach, issued.grant.created_at)
        return NewGrant(grant=issued.grant, code=issued.code, token=token)

    def withdraw_grant(self, grant: Grant) -> None:
        self.remove_grant(grant.id, None)

    def grants(self, site: str | None) -> Sequence[SeenGrant]:
        database, now = self.home.database, ambient.utc_now()
        if site is not None:
            sites.show(database, site)  # raises Missing: no grants is not the same as no site
        found = grants.every(database, site=site)
        suspected = theft.suspected_grants(database)
        resources = grants.resources(database)
        return [
            SeenGrant(
                grant=one,
                state=one.state(now),
                at_home=True,
                resource=resources.get(one.id),
                suspected=one.id in suspected,
            )
            for one in found
        ]

    def grant(self, name: str, site: str | None) -> ShownGrant:
        database, now = self.home.database, ambient.utc_now()
        grant, redemptions = grants.show(database, name, site=site)
        suspected = theft.suspected(database, grant.id)
        base_url = self.home.source.base_url()
        return ShownGrant(
            seen=SeenGrant(
                grant=grant,
                state=grant.state(now),
                at_home=True,
                resource=grants.resource_of(database, grant.id),
                suspected=suspected is not None,
            ),
            redemptions=redemptions,
            given=grants.certificates(database, grant.id),
            theft=suspected,
            url=Reach(url=base_url, ca_pem="").url_of(grant.id) if base_url else None,
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
        now = ambient.utc_now()
        return grants.extend(
            self.home.database,
            name,
            site=site,
            expires_at=until if window_seconds is None else now + window_seconds,
            allowed=redemptions,
            actor=actor(),
            now=now,
            ceilings=self.home.ceilings,
        )

    def revoke_grant(self, name: str, site: str | None) -> Revoked:
        return grants.revoke(
            self.home.database, name, site=site, actor=actor(), now=ambient.utc_now()
        )

    def revoke_redemption(self, name: str, site: str | None, ordinal: int) -> Revoked:
        return grants.revoke_redemption(
            self.home.database, name, ordinal, site=site, actor=actor(), now=ambient.utc_now()
        )

    def linked_until(self, grant: Grant, ordinal: int | None) -> int | None:
        now = ambient.utc_now()
        return max(
            (
                one.not_after
                for one in grants.certificates(self.home.database, grant.id)
                if one.revoked_at is not None
                and one.not_after >= now
                and (ordinal is None or one.ordinal == ordinal)
            ),
            default=None,
        )

    def remove_grant(self, name: str, site: str | None) -> Grant:
        return grants.remove(
            self.home.database, name, site=site, actor=actor(), now=ambient.utc_now()
        )

    def sites(self) -> Sequence[Site]:
        return sites.every(self.home.database)

    def site(self, name: str) -> Site:
        return sites.show(self.home.database, name)

    def set_site(self, name: str, endpoints: Sequence[Endpoint], issuer: str | None) -> Site:
        wanted = endpoints or self.site(name).endpoints
        if not wanted:
            raise Missing("endpoint", name)
        return sites.put(
            self.home.database,
            name=name,
            endpoints=wanted,
            issuer=issuer,
            actor=actor(),
            now=ambient.utc_now(),
        )

    def remove_site(self, name: str) -> None:
        sites.remove(self.home.database, name=name, actor=actor(), now=ambient.utc_now())

    def authorities(self) -> Sequence[SeenAuthority]:
        found = authorities.every(self.home.database)
        return [SeenAuthority(authority=one, at_home=True) for one in found]

    def authority(self, name: str) -> tuple[SeenAuthority, CertificateFacts]:
        authority, facts = authorities.show(self.home.database, name)
        return SeenAuthority(authority=authority, at_home=True), facts

    def entries(self, wanted: Wanted) -> Sequence[Entry]:
        return audit.latest(
            self.home.database,
            limit=wanted.limit,
            target=wanted.target,
            act=wanted.act,
            actor=wanted.actor,
            since=wanted.since,
            until=wanted.until,
        )

    def create_admin_token(self, name: str, rights: Rights, window_seconds: int | None) -> Made:
        return admin_tokens.create(
            self.home.database,
            name=name,
            rights=rights,
            window_seconds=window_seconds,
            keys=self.home.admin_token_keys,
            actor=actor(),
            now=ambient.utc_now(),
            random_bytes=ambient.random_bytes,
        )

    def admin_tokens(self) -> Sequence[SeenToken]:
        found = list[AdminToken]()
        after = None
        while True:
            page = admin_tokens.page(
                self.home.database, limit=admin_tokens.LARGEST_PAGE, after=after
            )
            found += page.tokens
            after = page.next
            if after is None:
                break
        now = ambient.utc_now()
        return [SeenToken(token=one, state=one.state(now)) for one in found]

    def admin_token(self, name: str) -> SeenToken:
        token = admin_tokens.show(self.home.database, name)
        return SeenToken(token=token, state=token.state(ambient.utc_now()))

    def revoke_admin_token(self, name: str) -> None:
        admin_tokens.revoke(self.home.database, name, actor=actor(), now=ambient.utc_now())


def where_it_is(source: Source) -> str:
    """Say where whoever has no token file finds the CA of what is served."""
    if source.files is not None:
        return f"the CA in {source.files.ca or source.files.certificate}"
    if source.secret:
        return f"ca.crt of Secret {source.secret}"
    return paste("ca", "export", SERVER_AUTHORITY)
