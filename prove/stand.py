"""An installation to prove things on: its directory and database, and its grants.

The installation is opened in this process too, as a command of the operator would do it.
"""

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final

from app import ambient, settings
from app.domain.sites import parse_endpoint
from app.errors import Unavailable
from app.home import Home, open_home
from app.services import grants, sites
from app.services.grants import Wish as GrantWish
from bench.servers import clean_environment
from prove.jobs import Target
from prove.plan import Kind, Wish

SITE: Final = "west"
ENDPOINTS: Final = ("inter-router=127.0.0.1:55671", "edge=127.0.0.1:45671")
LONG: Final = 24 * 3600
SHORT: Final = 2
"""Seconds until a grant ends that shall do so while it is claimed."""
_PATIENCE: Final = 60.0


class Stand:
    """One installation in `directory`; `database` is a URL, None for SQLite beside the keys."""

    def __init__(self, directory: Path, database: str | None = None) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._variables = {
            "GRANTSERVER_DATA_DIR": str(directory / "data"),
            "GRANTSERVER_LISTEN_REDEMPTION": "127.0.0.1:0",
            "GRANTSERVER_LISTEN_OPS": "127.0.0.1:0",
            "GRANTSERVER_REACH_URL": "https://127.0.0.1:9090",
            # Answers are kept beyond the run: at its end there is one for each redemption.
            "GRANTSERVER_GRANTS_RETRY_WINDOW": "24h",
            "GRANTSERVER_LOGS_LEVEL": "error",
        }
        if database is not None:
            self._variables["GRANTSERVER_DATABASE_URL"] = database
        self.home: Home = open_home(settings.load(self.variables()))
        sites.put(
            self.home.database,
            name=SITE,
            endpoints=[parse_endpoint(text) for text in ENDPOINTS],
            issuer=None,
            actor="prove",
            now=ambient.utc_now(),
        )

    def variables(self, **further: str) -> dict[str, str]:
        """Return the settings of a server of this installation."""
        return self._variables | further

    def environment(self, **further: str) -> dict[str, str]:
        """Return the whole environment of a process of this installation."""
        return clean_environment() | self.variables(**further)

    def make(self, random: Random, wishes: Sequence[Wish]) -> list[Target]:
        """Make the grants that are wished for, in the state that they begin in."""
        return [self._until_served(self._make, random, wish) for wish in wishes]

    def is_used(self) -> bool:
        """Tell whether there are grants already."""
        return bool(grants.every(self.home.database))

    def close(self) -> None:
        """Let go of the database."""
        self.home.database.close()

    def _until_served(
        self, make: Callable[[Random, Wish], Target], random: Random, wish: Wish
    ) -> Target:
        """Do as an operator does whose command found the database too busy: again, for a minute."""
        deadline = ambient.monotonic() + _PATIENCE
        while True:
            try:
                return make(random, wish)
            except Unavailable:
                if ambient.monotonic() > deadline:
                    raise

    def _make(self, random: Random, wish: Wish) -> Target:
        number = uuid.UUID(int=random.getrandbits(128), version=4)
        if wish.kind is Kind.MISSING:
            return Target(str(number), "There is none like this", 0)
        ago = LONG if wish.kind is Kind.EXPIRED else 0
        issued = grants.create(
            self.home.database,
            GrantWish(
                name=f"grant-{number.hex}",
                site=SITE,
                redemptions=wish.allowed,
                window_seconds=SHORT if wish.kind is Kind.EXPIRING else LONG,
                cost=1,
            ),
            code_keys=self.home.code_keys,
            actor="prove",
            now=ambient.utc_now() - ago,
            random_bytes=ambient.random_bytes,
        )
        if wish.kind is Kind.REVOKED:
            grants.revoke(self.home.database, issued.grant.id, actor="prove", now=ambient.utc_now())
        return Target(issued.grant.id, issued.code, issued.grant.expires_at)
