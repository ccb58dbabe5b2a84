"""A thousand certificates are renewed at once while the server is killed and started again."""

import asyncio
import base64
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from sqlalchemy import func, select

from app import ambient, outbound
from app.crypto.facts import facts
from app.crypto.requests import make_request
from app.domain.audit import Act
from app.domain.link_secrets import LinkSecret, Renewed, Server
from app.errors import Unavailable
from app.home import Home, open_home
from app.services import grants, renewing, sites
from app.services.grants import Issued, Wish
from app.settings import load
from app.store import renewals, schema
from tests.builders import an_endpoint
from tests.installation import PATIENCE, Installation

SITES = 1000
AT_ONCE = 40
OVERLAP = 600
KILLED_AFTER = (250, 600)  # renewals that were answered
SECONDS = 30.0  # that one attempt has


class Fire:
    """A server that is killed and started again while clients come."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.up = asyncio.Event()
        self.lost = 0
        self.answered = 0
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.installation.log.open("a") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "app", "serve"],
                cwd=self.installation.directory,
                env=self.installation.environment,
                stdout=output,
                stderr=output,
            )

    async def ready(self) -> None:
        await asyncio.to_thread(self.installation._wait, self._process)
        self.up.set()

    async def strike(self) -> None:
        """Kill the server as it is, and start another."""
        self.up.clear()
        self._process.send_signal(signal.SIGKILL)
        assert await asyncio.to_thread(self._process.wait, PATIENCE) == -signal.SIGKILL
        self._process = self._start()
        await self.ready()

    async def until_answered(self, ask: Callable[[], Awaitable[Renewed]]) -> Renewed:
        """Ask until there is an answer; a server that is not there is waited for."""
        for _ in range(50):
            await self.up.wait()
            try:
                answer = await ask()
            except Unavailable:
                self.lost += 1
                continue
            self.answered += 1
            if self.answered in KILLED_AFTER:
                await self.strike()
            return answer
        raise AssertionError(self.installation.log.read_text()[-4000:])

    def end(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)


def prepared(home: Home) -> Issued:
    now = ambient.utc_now()
    sites.put(
        home.database, name="west", endpoints=[an_endpoint()], issuer=None, actor="x", now=now
    )
    wish = Wish(name="lab", site="west", redemptions=SITES, window_seconds=3600, cost=1)
    return grants.create(
        home.database, wish, code_keys=home.code_keys, actor="x", now=now,
        random_bytes=ambient.random_bytes,
    )  # fmt: skip


@contextmanager
def opened(installation: Installation) -> Iterator[Home]:
    home = open_home(load(installation.environment))
    try:
        yield home
    finally:
        home.database.close()


async def redeemed(issued: Issued, server: Server, number: int) -> LinkSecret:
    """Redeem for a key that the server never sees."""
    key_pem = renewing.next_key()
    answer = await outbound.post_code(
        f"{server.url}/{issued.grant.id}", code=issued.code.encode(), name="east",
        ca_pem=server.ca_pem.encode(), subject=f"site-{number}",
        csr=make_request(key_pem, "east"), seconds=SECONDS,
    )  # fmt: skip
    assert answer.status == 200, answer.body
    secret = next(yaml.safe_load_all(answer.body))
    return LinkSecret(
        name="east", certificate_pem=base64.b64decode(secret["data"]["tls.crt"]),
        key_pem=key_pem, server=server,
    )  # fmt: skip


async def burn(installation: Installation, issued: Issued, server: Server) -> dict[str, str]:
    """Renew all of them while the server is killed; gives who replaces whom, by their serials."""
    turns = asyncio.Semaphore(AT_ONCE)
    fire = Fire(installation)
    try:
        await fire.ready()

        async def site(number: int) -> LinkSecret:
            async with turns:
                return await redeemed(issued, server, number)

        held = await asyncio.gather(*map(site, range(SITES)))

        async def renewed(secret: LinkSecret) -> tuple[str, str]:
            key_pem = renewing.next_key()  # kept until there is an answer
            async with turns:
                got = await fire.until_answered(
                    lambda: renewing.renew(secret, key_pem, seconds=SECONDS)
                )
            return facts(secret.certificate_pem).serial, facts(got.certificate_pem).serial

        replaced = dict(await asyncio.gather(*map(renewed, held)))
    finally:
        fire.end()
    assert fire.answered == SITES
    assert fire.lost > 0  # the strikes have hit
    return replaced


def check_none_is_lost_and_none_is_doubled(home: Home, replaced: dict[str, str]) -> None:
    with home.database.reading() as connection:
        given = renewals.of_grant(connection, grants.every(home.database)[0].id)
        written = connection.execute(
            select(func.count()).where(schema.audit.c.act == Act.CERTIFICATE_RENEWED.value)
        ).scalar_one()
    links = defaultdict(list)
    for one in given:
        links[one.ordinal].append(one)
    assert len(replaced) == len(links) == SITES
    assert written == SITES
    for first, second in links.values():
        # What was answered is what is on the disk, and there is nothing beside it.
        assert replaced[first.serial] == second.serial
        assert second.replaces == first.serial
        assert second.superseded_at is second.revoked_at is None
        assert first.superseded_at == second.issued_at + OVERLAP
        assert not first.counts(second.issued_at + OVERLAP)
        assert second.counts(second.issued_at + OVERLAP)


@pytest.mark.timeout(400)
def test_a_thousand_are_renewed_while_the_server_is_killed_none_lost_none_doubled(
    tmp_path: Path,
) -> None:
    installation = Installation(
        tmp_path,
        GRANTSERVER_CERTIFICATES_OVERLAP=f"{OVERLAP}s",
        GRANTSERVER_LIMITS_REQUEST="30s",
    )
    with opened(installation) as home:
        issued = prepared(home)
        reach = home.reach()
    server = Server(url=reach.url, ca_pem=reach.ca_pem)
    replaced = asyncio.run(burn(installation, issued, server))
    with opened(installation) as home:
        check_none_is_lost_and_none_is_doubled(home, replaced)
