"""The connecting side at work in a thread of its own, without an election."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from app import ambient
from app.kube.connecting import Connecting
from app.kube.informer import Pace
from app.kube.links import MARK
from app.kube.recorder import Recorder
from app.metrics import Metrics
from tests.kube.api_server import Kube, Object
from tests.kube.clients import LOG, QUICK
from tests.kube.objects import a_site
from tests.kube.stage import connected

PATIENCE: Final = 20.0
EAST: Final = "east"
USER: Final = "connector"
RULES: Final[Sequence[Object]] = (
    {"apiGroups": ["skupper.io"], "resources": ["accesstokens"], "verbs": ["list", "watch"]},
    {"apiGroups": ["skupper.io"], "resources": ["accesstokens/status"], "verbs": ["patch"]},
    {"apiGroups": ["skupper.io"], "resources": ["sites"], "verbs": ["list", "watch"]},
    {"apiGroups": ["skupper.io"], "resources": ["links"], "verbs": ["get", "create", "patch"]},
    {
        "apiGroups": [""],
        "resources": ["secrets"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
)
"""All that it may do in these tests."""


@dataclass(kw_only=True)
class Connector:
    """Redeems and renews until its block ends or it is stopped."""

    kube: Kube
    directory: Path
    namespaces: Sequence[str] | None = None
    clock: Callable[[], int] = ambient.utc_now
    rules: Sequence[Object] = RULES
    user: str = USER
    metrics: Metrics | None = None
    pace: Pace = field(default_factory=lambda: Pace(backoff=QUICK))

    @property
    def connecting(self) -> Connecting:
        """What it does."""
        return Connecting(
            namespaces=self.namespaces,
            clock=self.clock,
            monotonic=ambient.monotonic,
            random_bytes=ambient.random_bytes,
            metrics=self.metrics,
        )

    def __enter__(self) -> Self:
        self._error: BaseException | None = None
        started = threading.Event()
        self._started = started
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert started.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop, and wait until that is done."""
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
            recorder = Recorder(
                kube,
                component="grantserver",
                instance=self.user,
                clock=ambient.utc_instant,
                random_bytes=ambient.random_bytes,
                log=LOG,
            )
            work_of_ours = self.connecting.run(kube, recorder, pace=self.pace, log=LOG)

            async def work() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(recorder.run())
                    group.create_task(work_of_ours)

            self._loop = asyncio.get_running_loop()
            self._task = asyncio.create_task(work())
            self._started.set()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                await self._task


def furnish(kube: Kube, *namespaces: str) -> None:
    """Make namespaces with a Site each."""
    kube.install_skupper()
    for namespace in namespaces or (EAST,):
        kube.namespace(namespace)
        kube.create(a_site(namespace, namespace, linkAccess="none"))


def told(
    kube: Kube,
    until: Callable[[dict[str, Any]], object] = lambda status: "message" in status,
    name: str = "west",
    namespace: str = EAST,
) -> Object:
    """Wait for the status of an AccessToken; gives the whole of it."""

    def is_so(found: Object) -> object:
        return until(found.get("status") or {})

    return kube.wait("AccessToken", name, namespace, is_so, PATIENCE)


def redeemed(kube: Kube, name: str = "west", namespace: str = EAST) -> Object:
    """Wait until an AccessToken is redeemed and all is well."""
    return told(kube, lambda status: status.get("message") == "OK", name, namespace)


def refused(kube: Kube, message: str, name: str = "west", namespace: str = EAST) -> Object:
    """Wait until an AccessToken says this, and see that the rest of it fits."""
    found = told(kube, lambda status: status.get("message") == message, name, namespace)
    status = found["status"]
    assert (status["redeemed"], status["status"]) == (False, "Error")
    (condition,) = status["conditions"]
    shown = {name: condition[name] for name in ("type", "status", "reason", "message")}
    assert shown == {
        "type": "Redeemed",
        "status": "False",
        "reason": "Error",
        "message": message,
    }
    assert condition["observedGeneration"] == found["metadata"]["generation"]
    return found


def a_half_made_link(kube: Kube, token: Object, name: str) -> Object:
    """Make the Link of a token as somebody who was stopped might have left it."""
    metadata = token["metadata"]
    site = kube.get("Site", metadata["namespace"], metadata["namespace"])["metadata"]
    owner = {"apiVersion": "skupper.io/v2alpha1", "kind": "Site"}
    return kube.create(
        {
            "apiVersion": "skupper.io/v2alpha1",
            "kind": "Link",
            "metadata": {
                "namespace": metadata["namespace"],
                "name": name,
                "labels": {MARK: metadata["uid"]},
                "ownerReferences": [{**owner, "name": site["name"], "uid": site["uid"]}],
            },
            "spec": {"endpoints": []},
        }
    )
