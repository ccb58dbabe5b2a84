"""A Kubernetes API server for tests: ours, in this process, or a real one behind the same face.

All of them are a `Kube`, which a test takes from the fixture `kube` (see `tests/kube/fixtures.py`):

    def test_something(kube: Kube, tmp_path: Path) -> None:
        kube.install_skupper()                                # AccessGrant, Site, ...
        kube.namespace("west")
        token = kube.token("grantserver", ROLE["rules"])      # or without rules: may do all
        kube.kubeconfig(tmp_path / "config", token)           # what a client is configured by

        grant = kube.create({"apiVersion": ..., "kind": "AccessGrant", "metadata": ...})
        kube.get("AccessGrant", "grant-west", "west")["status"]
        kube.wait("AccessGrant", "grant-west", "west", lambda found: "status" in found)
        kube.patch("AccessGrant", "grant-west", {"spec": {"code": "x"}}, "west")
        kube.patch("Service", "s", {"status": {...}}, "west", subresource="status")
        kube.apply({...}, manager="somebody", force=True)
        kube.delete("AccessGrant", "grant-west", "west")
        kube.find("AccessGrant")                              # of all namespaces

        kube.requests.clear()
        assert kube.requests.writes(user="grantserver") == []  # what the test does is not counted
        kube.requests.rules(user="grantserver")               # for comparing with a role

What a test does by these methods it does as the administrator, past all rules and faults, and
refusals are `KubeError`. They block for a moment only, so async tests may call them as they are.
`create` keeps a status that it is given, as if its controller had written it.

Only the fake (`FakeKube`, the fixture `fake_kube`) can be made to fail:

    kube.faults.reset(verb="patch", subresource="status")     # the next one: RST
    kube.faults.reset(after=True, verb="patch")               # it is done, only the answer is lost
    frozen = kube.faults.freeze(user="leader")                # every one of a user, until...
    frozen.wait(hits=1); frozen.release()                     # ...they are let go on
    kube.faults.throttle(retry_after=1, times=3, verb="list")
    kube.faults.fail(500, verb="watch"); kube.faults.slow(0.5, resource="leases")
    kube.faults.clear()
    kube.drop_watches(); kube.silence_watches()               # reset; half-open
    kube.compact()                                            # 410 for every watch from before
    kube.stop(); kube.start()                                 # away, and back with all it knew
    kube.expire(token)                                        # 401

See `tests.kube.fake.faults.Faults` for how requests are chosen.
"""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.kube.errors import KubeError
from tests.kube.fake.access import Access, Rule
from tests.kube.fake.faults import Fault, Faults
from tests.kube.fake.kinds import Kind
from tests.kube.fake.patches import merge
from tests.kube.fake.selectors import selecting
from tests.kube.fake.server import Server
from tests.kube.fake.store import Store
from tests.kube.recorder import Request, Requests
from tests.kube.serving import Authority

__all__ = ["FakeKube", "Fault", "Faults", "Kube", "KubeError", "Object", "Request", "Requests"]

Object = dict[str, Any]

PATIENCE: Final = 20.0
ADMINISTRATOR: Final = "administrator"
ROUTES: Final = Path(__file__).parent / "routes.yaml"
GATEWAYS: Final = Path(__file__).parent / "gateways.yaml"
SKUPPER: Final = sorted((Path(__file__).parents[2] / "deploy" / "crds").glob("*.yaml"))


class Kube(ABC):
    """What the fake one and a real one both can do; see the top of the module."""

    url: str
    ca_pem: str | None
    """None: it speaks plain HTTP."""
    admin_token: str
    requests: Requests

    @abstractmethod
    def token(
        self,
        name: str,
        rules: Sequence[Rule] | None = None,
        namespaces: Sequence[str] = (),
        audience: str = "",
    ) -> str:
        """A bearer token of a service account `name` in the namespace `default`.

        It may do what the rules of a role allow, everywhere or in the namespaces, or without
        rules everything. A rule may have `namespaces` of its own. With an audience it is for that
        alone, and the API server does not take it.
        """

    @abstractmethod
    def create(self, given: Mapping[str, Any]) -> Object:
        """Create an object where its metadata say, with the status it has."""

    @abstractmethod
    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        """One object; `KubeError` 404."""

    @abstractmethod
    def find(self, kind: str, namespace: str = "", labels: str = "") -> list[Object]:
        """The objects of one namespace or of all."""

    @abstractmethod
    def patch(
        self,
        kind: str,
        name: str,
        change: Mapping[str, Any],
        namespace: str = "default",
        *,
        subresource: str = "",
        manager: str = ADMINISTRATOR,
    ) -> Object:
        """A merge patch."""

    @abstractmethod
    def apply(
        self, config: Mapping[str, Any], *, manager: str = ADMINISTRATOR, force: bool = False
    ) -> Object:
        """Server-side apply."""

    @abstractmethod
    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """Delete; finalizers hold it."""

    def namespace(self, name: str) -> str:
        """See to it that there is such a namespace."""
        try:
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        except KubeError as error:
            if error.reason != "AlreadyExists":
                raise
        return name

    def install(self, *files: Path) -> None:
        """Create the definitions in files, and wait until their kinds are served."""
        for file in files:
            for definition in yaml.safe_load_all(file.read_text()):
                if definition:
                    self.define(definition)

    def define(self, definition: Mapping[str, Any]) -> None:
        """Create one definition, if it is not there, and wait until its kind is served."""
        try:
            self.create({part: one for part, one in definition.items() if part != "status"})
        except KubeError as error:
            if error.reason != "AlreadyExists":
                raise
        name = definition["metadata"]["name"]
        self.wait("CustomResourceDefinition", name, "", is_established)

    def install_skupper(self) -> None:
        """Serve AccessGrants, AccessTokens, Links and Sites, by the definitions that we ship."""
        self.install(*SKUPPER)

    def install_routes(self) -> None:
        """Serve OpenShift's Routes, by a plain definition of the tests' own."""
        self.install(ROUTES)

    def install_gateways(self, tls_routes: str = "v1alpha3") -> None:
        """Serve the Gateway API's Gateways, and TLSRoutes in this version."""
        for definition in yaml.safe_load_all(GATEWAYS.read_text()):
            if definition["spec"]["names"]["kind"] == "TLSRoute":
                definition["spec"]["versions"][0]["name"] = tls_routes
            self.define(definition)

    def wait(
        self,
        kind: str,
        name: str,
        namespace: str,
        until: Callable[[Object], Any],
        timeout: float = PATIENCE,
    ) -> Object:
        """Wait until an object is there and as it is wanted; AssertionError says how it was."""
        found: list[Object | None] = [None]

        def is_so() -> bool:
            try:
                now = self.get(kind, name, namespace)
            except KubeError as error:
                if error.code != 404:
                    raise
                return False
            found[0] = now
            return bool(until(now))

        assert self.until(is_so, timeout), f"after {timeout} s {kind} {name} is {found[0]}"
        assert found[0] is not None
        return found[0]

    def wait_gone(
        self, kind: str, name: str, namespace: str = "default", timeout: float = PATIENCE
    ) -> None:
        """Wait until an object is not there any more."""

        def is_gone() -> bool:
            try:
                self.get(kind, name, namespace)
            except KubeError as error:
                if error.code != 404:
                    raise
                return True
            return False

        assert self.until(is_gone, timeout), f"after {timeout} s {kind} {name} is there"

    def until(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> bool:
        """Ask again and again, for as long as there is patience."""
        for _ in range(int(timeout / _PAUSE_SECONDS)):
            if condition():
                return True
            _never.wait(_PAUSE_SECONDS)
        return condition()

    def kubeconfig(self, path: Path, token: str | None = None, namespace: str = "default") -> Path:
        """Write the file that a client is configured by, for the administrator or a token."""
        cluster: Object = {"server": self.url}
        if self.ca_pem is not None:
            authority = path.with_name(f"{path.name}-ca.pem")
            authority.write_text(self.ca_pem)
            cluster["certificate-authority"] = str(authority)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token or self.admin_token}}],
            "contexts": [
                {
                    "name": "test",
                    "context": {"cluster": "test", "user": "test", "namespace": namespace},
                }
            ],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    def service_account(self, directory: Path, token: str, namespace: str = "default") -> Path:
        """Write what a pod finds of its service account: token, ca.crt and namespace."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "token").write_text(token)
        (directory / "namespace").write_text(namespace)
        (directory / "ca.crt").write_text(self.ca_pem or "")
        return directory


_PAUSE_SECONDS: Final = 0.01
_never: Final = threading.Event()


def is_established(definition: Mapping[str, Any]) -> bool:
    """Whether what a CustomResourceDefinition defines is served."""
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


class FakeKube(Kube):
    """The API server of ours; it serves from when it is made until it is stopped."""

    def __init__(self, *, tls: bool = True) -> None:
        authority = Authority.make() if tls else None
        self.ca_pem = authority.pem if authority else None
        self.store = Store()
        self.faults = Faults()
        self.requests = Requests()
        self._access = Access()
        self._server = Server(
            self.store,
            self._access,
            self.faults,
            self.requests,
            authority.serving("127.0.0.1") if authority else None,
        )
        self.admin_token = self._access.token(ADMINISTRATOR, None)
        self._server.start()
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.port}"

    def start(self) -> None:
        """Be there again after `stop`, on the same port, with everything as it was."""
        self._server.start()

    def stop(self) -> None:
        """Be away: every connection is reset, and new ones are refused."""
        self._server.stop()

    @property
    def bookmark_seconds(self) -> float:
        """How often a watch is sent a bookmark, if it wants any; a minute, as a real one does."""
        return self._server.bookmark_seconds

    @bookmark_seconds.setter
    def bookmark_seconds(self, seconds: float) -> None:
        self._server.bookmark_seconds = seconds

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return self._server.watches

    def drop_watches(self) -> int:
        """Reset the connections of all open watches, and say how many those were."""
        return self._server.drop_watches()

    def silence_watches(self) -> int:
        """Leave all open watches half-open, and say how many those were."""
        return self._server.silence_watches()

    def compact(self) -> None:
        """Forget all events: every watch from before now gets 410 as an ERROR event.

        That includes those that are open. For 410 as the HTTP status: `faults.fail(410, ...)`.
        """
        self.store.compact()

    def expire(self, token: str) -> None:
        """Answer 401 to a token from now on."""
        self._access.expire(token)

    def token(
        self,
        name: str,
        rules: Sequence[Rule] | None = None,
        namespaces: Sequence[str] = (),
        audience: str = "",
    ) -> str:
        user = f"system:serviceaccount:default:{name}"
        if rules is not None and namespaces:
            rules = [{"namespaces": list(namespaces), **rule} for rule in rules]
        return self._access.token(user, rules, audience)

    def create(self, given: Mapping[str, Any]) -> Object:
        kind = self._kind(given["kind"])
        metadata = given["metadata"]
        namespace = metadata.get("namespace", "default") if kind.namespaced else ""
        made = self.store.create(kind, _copied(given), namespace, manager=ADMINISTRATOR)
        if kind.has_status and given.get("status"):
            status = {"status": given["status"]}
            return self.patch(
                kind.kind, made["metadata"]["name"], status, namespace, subresource="status"
            )
        return _copied(made)

    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        found = self._kind(kind)
        return _copied(self.store.get(found, name, _where(found, namespace)))

    def find(self, kind: str, namespace: str = "", labels: str = "") -> list[Object]:
        page = self.store.page(self._kind(kind), namespace, selecting(labels, "", kind))
        return [_copied(one) for one in page.items]

    def patch(
        self,
        kind: str,
        name: str,
        change: Mapping[str, Any],
        namespace: str = "default",
        *,
        subresource: str = "",
        manager: str = ADMINISTRATOR,
    ) -> Object:
        found = self._kind(kind)
        made = self.store.patch(
            found,
            name,
            lambda live: merge(live, _copied(change)),
            _where(found, namespace),
            subresource=subresource,
            manager=manager,
        )
        return _copied(made)

    def apply(
        self, config: Mapping[str, Any], *, manager: str = ADMINISTRATOR, force: bool = False
    ) -> Object:
        kind, metadata = self._kind(config["kind"]), config["metadata"]
        made, _ = self.store.apply(
            kind,
            metadata["name"],
            _copied(config),
            _where(kind, metadata.get("namespace", "default")),
            manager=manager,
            force=force,
        )
        return _copied(made)

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        found = self._kind(kind)
        self.store.delete(found, name, _where(found, namespace))

    def _kind(self, kind: str) -> Kind:
        for one in self.store.kinds():
            if kind in {one.kind, one.resource, one.plural}:
                return one
        raise LookupError(f"{kind} is not served; is its definition installed?")


def _where(kind: Kind, namespace: str) -> str:
    return namespace if kind.namespaced else ""


def _copied(found: Mapping[str, Any]) -> Object:
    copied: Object = json.loads(json.dumps(found))
    return copied
