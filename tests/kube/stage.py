"""A controller at work in a thread of its own, and whoever redeems from its database."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

import yaml

from app import ambient
from app.domain.grants import Claim
from app.domain.limits import Allowance
from app.domain.policies import NO_CEILINGS, Ceilings
from app.domain.reach import Reach
from app.kube import client
from app.kube.connection import Connection, kubeconfig
from app.kube.controller import Controller
from app.kube.elector import Terms
from app.kube.informer import Pace
from app.kube.resources import Key
from app.services.cluster import Cluster
from app.services.redemption import Redeemed
from tests.builders import PEM, SUBJECT, Stand
from tests.kube.api_server import Kube, Object
from tests.kube.clients import LOG, QUICK, until
from tests.kube.objects import GRANT, NAMESPACE, a_secret, a_site, access_grant

PATIENCE: Final = 20.0
REACH: Final = Reach(url="https://grants.example:9443", ca_pem=PEM)
LEASE: Final = Key("default", "grantserver")
TERMS: Final = Terms(lease_seconds=3, renew_seconds=2.0, retry_seconds=0.2, call_seconds=1.0)
FAILURES: Final = Allowance(burst=100, interval=60_000)
LOOK_SECONDS: Final = 0.05
USER: Final = "grantserver"
RULES: Final[Sequence[Object]] = (
    {"apiGroups": ["skupper.io"], "resources": ["accessgrants"], "verbs": ["list", "watch"]},
    {"apiGroups": ["skupper.io"], "resources": ["accessgrants/status"], "verbs": ["patch"]},
    {"apiGroups": ["skupper.io"], "resources": ["sites"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "create", "update"],
    },
)
"""All that a controller may do in these tests, and no test has asked for more."""


@asynccontextmanager
async def client_of(server: Kube, directory: Path, token: str) -> AsyncIterator[client.Kube]:
    """A client of a server."""
    name = f"{sha256(token.encode()).hexdigest()[:16]}.kubeconfig"
    source = kubeconfig(server.kubeconfig(directory / name, token))
    kube = client.Kube(await Connection.open(source))
    try:
        yield kube
    finally:
        await kube.close()


@asynccontextmanager
async def connected(server: Kube, directory: Path, token: str) -> AsyncIterator[client.Kube]:
    """A client of a server; the block ends only when all connections of the loop have."""
    async with client_of(server, directory, token) as kube:
        yield kube
    loop: Any = asyncio.get_running_loop()
    await until(lambda: all(one._sock is None for one in loop._transports.values()))


@dataclass(kw_only=True)
class Replica:
    """A controller on the database of a stand; it works until its block ends or it is stopped.

    `changes` are to the fields of the controller, `rules` what its token may do.
    """

    kube: Kube
    stand: Stand
    directory: Path
    user: str = USER
    rules: Sequence[Object] | None = RULES
    changes: dict[str, Any] = field(default_factory=dict)
    ceilings: Ceilings = NO_CEILINGS

    def __enter__(self) -> Self:
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop in order, and wait until that is done."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        assert self._error is None, self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - told to whoever stops it
            self._error = error
        finally:
            self._started.set()

    async def _main(self) -> None:
        token = self.kube.token(self.user, self.rules)
        async with connected(self.kube, self.directory, token) as kube:
            cluster = Cluster(
                database=self.stand.database,
                keyring=self.stand.keyring,
                code_keys=self.stand.code_keys,
                clock=self.stand.clock,
                random_bytes=ambient.random_bytes,
                ceilings=self.ceilings,
            )
            made: dict[str, Any] = {
                "kube": kube,
                "cluster": cluster,
                "namespaces": None,
                "lease": LEASE,
                "identity": self.user,
                "reach": lambda: REACH,
                "waiting": str,
                "clock": self.stand.clock,
                "instant": ambient.utc_instant,
                "monotonic": ambient.monotonic,
                "random_bytes": ambient.random_bytes,
                "log": LOG,
                "terms": TERMS,
                "look_seconds": LOOK_SECONDS,
                "pace": Pace(backoff=QUICK),
            }
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.create_task(Controller(**(made | self.changes)).run())
            self._started.set()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                await self._task


@dataclass(kw_only=True)
class Stage:
    """A cluster with the definitions of Skupper in it, and a database, to be played with."""

    kube: Kube
    stand: Stand
    directory: Path

    def furnish(self, namespace: str = NAMESPACE) -> None:
        """Make a namespace with a Site that can be linked to, and its issuer Secret."""
        self.kube.namespace(namespace)
        self.kube.create(a_secret(namespace=namespace))
        self.kube.create(a_site(namespace=namespace))

    def replica(
        self, user: str = USER, ceilings: Ceilings = NO_CEILINGS, **changes: Any
    ) -> Replica:
        """A replica that serves this database, not working yet."""
        return Replica(
            kube=self.kube,
            stand=self.stand,
            directory=self.directory,
            user=user,
            changes=changes,
            ceilings=ceilings,
        )

    def grant(self, name: str = GRANT, namespace: str = NAMESPACE, **spec: Any) -> Object:
        """Create an AccessGrant."""
        return self.kube.create(access_grant(name, namespace, **spec))

    def found(
        self,
        until: Callable[[Object], object],
        name: str = GRANT,
        namespace: str = NAMESPACE,
        timeout: float = PATIENCE,
    ) -> Object:
        """Wait until the status of an AccessGrant is as it is wanted; gives the whole of it."""

        def is_so(found: Object) -> object:
            return "status" in found and until(found["status"])

        return self.kube.wait("AccessGrant", name, namespace, is_so, timeout)

    def ready(self, name: str = GRANT, namespace: str = NAMESPACE) -> Object:
        """Wait until an AccessGrant is Ready."""
        return self.found(lambda status: status.get("status") == "Ready", name, namespace)

    def spec(self, name: str = GRANT, namespace: str = NAMESPACE, **change: Any) -> Object:
        """Change the spec of an AccessGrant."""
        return self.kube.patch("AccessGrant", name, {"spec": change}, namespace)

    def status(self, name: str = GRANT, namespace: str = NAMESPACE, **change: Any) -> Object:
        """Change the status of an AccessGrant, as somebody else."""
        change = {"status": change}
        return self.kube.patch("AccessGrant", name, change, namespace, subresource="status")

    def touch(self, name: str = GRANT, namespace: str = NAMESPACE) -> None:
        """Let an AccessGrant be looked at again."""
        labels = {"touched": ambient.random_bytes(4).hex()}
        self.kube.patch("AccessGrant", name, {"metadata": {"labels": labels}}, namespace)

    def settle(self) -> None:
        """Wait until all that has happened so far was looked at, since what came later was."""
        name = f"later-{ambient.random_bytes(4).hex()}"
        self.grant(name)
        self.redeem(self.ready(name))
        self.found(lambda status: status["redemptions"] == 1, name)

    def redeem(self, grant: Object, code: str | None = None, **changes: Any) -> Redeemed:
        """Redeem by what the status of an AccessGrant tells, as another replica would."""
        asked: dict[str, Any] = {
            "key": grant["metadata"]["uid"],
            "presented_code": (code or grant["status"]["code"]).encode(),
            "name": "east",
            "subject": SUBJECT,
            "peer": "192.0.2.7",
        }

        async def main() -> Redeemed:
            redeemer = self.stand.redeemer(locks=self.stand.locks(FAILURES))
            try:
                return await redeemer.redeem(Claim(**(asked | changes)))
            finally:
                await redeemer.ledger.close()
                await redeemer.thefts.close()
                await redeemer.locks.close()

        return asyncio.run(main())

    def events(self, reason: str, name: str = GRANT) -> list[Object]:
        """The Events of an AccessGrant that are told for this reason."""
        return [
            one
            for one in self.kube.find("Event")
            if one["reason"] == reason and one["involvedObject"]["name"] == name
        ]

    def told(self, reason: str, name: str = GRANT) -> Object:
        """Wait for an Event."""
        assert self.kube.until(lambda: bool(self.events(reason, name))), reason
        return self.events(reason, name)[0]


@contextmanager
def staged(kube: Kube, stand: Stand, directory: Path) -> Iterator[Stage]:
    """A stage whose namespace is furnished."""
    kube.install_skupper()
    made = Stage(kube=kube, stand=stand, directory=directory)
    made.furnish()
    yield made


def conditions(status: Object) -> dict[str, tuple[str, str, str]]:
    """Status, reason and message of each condition, by type."""
    return {
        one["type"]: (one["status"], one["reason"], one["message"]) for one in status["conditions"]
    }


def answered(redeemed: Redeemed) -> tuple[Object, list[Object]]:
    """The Secret and the Links of an answer."""
    secret, *links = yaml.safe_load_all(redeemed.bundle)
    return secret, links


def trusts(ca_pem: str) -> ssl.SSLContext:
    """What a client makes of the CA in a status."""
    return ssl.create_default_context(cadata=ca_pem)
