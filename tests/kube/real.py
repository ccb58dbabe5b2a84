"""A real kube-apiserver and its etcd, from the folder that KUBEBUILDER_ASSETS names."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.kube.api_server import ADMINISTRATOR, Kube, Object
from tests.kube.errors import KubeError
from tests.kube.fake import kinds
from tests.kube.fake.access import Rule
from tests.kube.fake.kinds import Kind
from tests.kube.recorder import Request, Requests
from tests.kube.serving import Authority

VARIABLE: Final = "KUBEBUILDER_ASSETS"
ABSENT: Final = (
    f"no real kube-apiserver: {VARIABLE} does not name a folder with kube-apiserver and etcd"
)
PATIENCE: Final = 60.0

# It ends what it has started as soon as its own input ends, however we have ended.
_GUARD: Final = """
trap '' HUP INT TERM
"$@" </dev/null &
read -r _
kill "$!"
wait "$!"
"""
_OURS: Final = "grantserver-tests/administration"
_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
_ACCOUNTS: Final = "/api/v1/namespaces/default/serviceaccounts"
_REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_LABEL: Final = "grantserver-tests"
_SYSTEM: Final = {"kube-system", "kube-public", "kube-node-lease"}


def assets() -> Path | None:
    """The folder, if there is one with both programs in it."""
    named = os.environ.get(VARIABLE)  # noqa: TID251 - a test's own
    folder = Path(named) if named else None
    if folder and all(os.access(folder / one, os.X_OK) for one in ("kube-apiserver", "etcd")):
        return folder
    return None


class RealKube(Kube):
    """A pair of processes; what a test leaves behind is taken away by `clean`."""

    def __init__(self, folder: Path) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="gskube"))
        self._guards: list[subprocess.Popen[bytes]] = []
        self._lock = threading.RLock()
        self._connection: http.client.HTTPSConnection | None = None
        self._kinds = list(kinds.BUILT_IN)
        authority = Authority.make()
        self.ca_pem = authority.pem
        self.admin_token = uuid.uuid4().hex
        self._port, self._etcd = _free_port(), _free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self.requests = _Audited(self._directory / "audit.log")
        try:
            self._start(folder, authority)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End both and remove what they wrote."""
        if self._connection is not None:
            self._connection.close()
        for guard in reversed(self._guards):
            guard.communicate()
        shutil.rmtree(self._directory, ignore_errors=True)

    def clean(self) -> None:
        """Take away every object that tests may have made, but no definition and no namespace."""
        self._kinds = [kind for kind in self._kinds if self._is_served(kind)]
        for kind in self._kinds:
            for found in self.find(kind.kind) if kind.namespaced else ():
                metadata = found["metadata"]
                name, namespace = metadata["name"], metadata["namespace"]
                if namespace in _SYSTEM or (kind.plural, name) == ("services", "kubernetes"):
                    continue
                with contextlib.suppress(KubeError):
                    if metadata.get("finalizers"):
                        change = {"metadata": {"finalizers": None}}
                        self.patch(kind.kind, name, change, namespace)
                    if not metadata.get("deletionTimestamp"):
                        self.delete(kind.kind, name, namespace)
        for path in (
            f"{_RBAC}/clusterrolebindings",
            f"{_RBAC}/clusterroles",
            f"{_RBAC}/namespaces/default/rolebindings",
            _ACCOUNTS,
        ):
            self._call("DELETE", f"{path}?{urlencode({'labelSelector': _LABEL})}")
        self.requests.clear()

    def compact(self) -> None:
        """Let etcd forget what was: pages of lists that were begun before cannot be continued."""
        connection = http.client.HTTPConnection("127.0.0.1", self._etcd, timeout=PATIENCE)
        connection.request("POST", "/v3/kv/range", json.dumps({"key": "AA=="}))
        revision = json.loads(connection.getresponse().read())["header"]["revision"]
        wanted = {"revision": revision, "physical": True}
        connection.request("POST", "/v3/kv/compaction", json.dumps(wanted))
        assert connection.getresponse().status == 200
        connection.close()

    def token(
        self,
        name: str,
        rules: Sequence[Rule] | None = None,
        namespaces: Sequence[str] = (),
        audience: str = "",
    ) -> str:
        labels = {"labels": {_LABEL: ""}}
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name} | labels,
        }
        with contextlib.suppress(KubeError):
            self._call("POST", _ACCOUNTS, account)
        everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
        for rule in everything if rules is None else rules:
            self._bind(name, rule, rule.get("namespaces") or namespaces)
        token = self._token(name)
        # The authorizer learns of bindings a moment later than whoever made them.
        for rule in everything if rules is None else rules:
            assert self.until(lambda rule=rule: self._may(token, rule, namespaces)), rule  # type: ignore[misc]
        return self._token(name, audience) if audience else token

    def _token(self, name: str, *audiences: str) -> str:
        wanted = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": 3600},
        }
        made = self._call("POST", f"{_ACCOUNTS}/{name}/token", wanted)
        return str(made["status"]["token"])

    def create(self, given: Mapping[str, Any]) -> Object:
        kind = self._kind(given["kind"])
        namespace = given["metadata"].get("namespace", "default")
        made = self._call("POST", _path(kind, namespace), given)
        if kind.key == kinds.DEFINITIONS.key:
            self._kinds.append(kinds.defined(made))
        if kind.has_status and given.get("status"):
            status = {"status": given["status"]}
            name = made["metadata"]["name"]
            return self.patch(kind.kind, name, status, namespace, subresource="status")
        return made

    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        return self._call("GET", _path(self._kind(kind), namespace, name))

    def find(self, kind: str, namespace: str = "", labels: str = "") -> list[Object]:
        of = self._kind(kind)
        query = f"?{urlencode({'labelSelector': labels})}" if labels else ""
        listed = self._call("GET", _path(of, namespace) + query)
        about = {"apiVersion": of.api_version, "kind": of.kind}
        return [about | one for one in listed["items"]]

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
        path = _path(self._kind(kind), namespace, name, subresource)
        query = urlencode({"fieldManager": manager})
        return self._call("PATCH", f"{path}?{query}", change, "application/merge-patch+json")

    def apply(
        self, config: Mapping[str, Any], *, manager: str = ADMINISTRATOR, force: bool = False
    ) -> Object:
        metadata = config["metadata"]
        namespace = metadata.get("namespace", "default")
        path = _path(self._kind(config["kind"]), namespace, metadata["name"])
        query = urlencode({"fieldManager": manager, "force": str(force).lower()})
        return self._call("PATCH", f"{path}?{query}", config, "application/apply-patch+yaml")

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        self._call("DELETE", _path(self._kind(kind), namespace, name))

    def define(self, definition: Mapping[str, Any]) -> None:
        super().define(definition)
        kind = kinds.defined(definition)
        if kind.key not in {one.key for one in self._kinds}:
            self._kinds.append(kind)
        # Established is said a moment before the path is there.
        assert self.until(lambda: self._is_served(kind))

    def _is_served(self, kind: Kind) -> bool:
        try:
            self._call("GET", _path(kind, ""))
        except KubeError as error:
            if error.code not in {404, 429}:
                raise
            return False
        return True

    def _bind(self, name: str, rule: Rule, namespaces: Sequence[str]) -> None:
        role = f"{name}-{uuid.uuid4().hex[:8]}"
        metadata = {"name": role, "labels": {_LABEL: ""}}
        plain = {part: one for part, one in rule.items() if part != "namespaces"}
        about = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata}
        self._call(
            "POST", f"{_RBAC}/clusterroles", {**about, "kind": "ClusterRole", "rules": [plain]}
        )
        binding = {
            **about,
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": role,
            },
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
        }
        if not namespaces:
            self._call(
                "POST", f"{_RBAC}/clusterrolebindings", {**binding, "kind": "ClusterRoleBinding"}
            )
        for namespace in namespaces:
            path = f"{_RBAC}/namespaces/{namespace}/rolebindings"
            self._call("POST", path, {**binding, "kind": "RoleBinding"})

    def _may(self, token: str, rule: Rule, namespaces: Sequence[str]) -> bool:
        places = rule.get("namespaces") or namespaces
        attributes = {
            "group": rule["apiGroups"][0],
            "resource": rule["resources"][0].partition("/")[0],
            "subresource": rule["resources"][0].partition("/")[2],
            "verb": rule["verbs"][0],
            "namespace": places[0] if places else "",
            "name": (rule.get("resourceNames") or [""])[0],
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        return bool(self._call("POST", _REVIEWS, review, token=token)["status"]["allowed"])

    def _kind(self, kind: str) -> Kind:
        for one in self._kinds:
            if kind in {one.kind, one.resource, one.plural}:
                return one
        raise LookupError(f"{kind} is not served; is its definition installed?")

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
        token: str | None = None,
    ) -> Object:
        """One request, as the administrator; `KubeError` for a refusal."""
        headers = {
            "Authorization": f"Bearer {token or self.admin_token}",
            "Content-Type": content,
            "User-Agent": _OURS,
        }
        sent = None if body is None else json.dumps(body)
        with self._lock:
            if self._connection is None:
                context = ssl.create_default_context(cadata=self.ca_pem)
                self._connection = http.client.HTTPSConnection(
                    "127.0.0.1", self._port, context=context, timeout=PATIENCE
                )
            try:
                self._connection.request(method, path, sent, headers)
                response = self._connection.getresponse()
                answered = response.read()
            except (OSError, http.client.HTTPException):
                self._connection.close()
                self._connection = None
                raise
        if response.status >= 300:
            try:
                status = json.loads(answered)
            except ValueError:
                status = {"message": answered[:500].decode(errors="replace")}
            raise KubeError.of(status, response.status)
        found: Object = json.loads(answered) if answered.startswith(b"{") else {}
        return found

    def _start(self, folder: Path, authority: Authority) -> None:
        directory = self._directory
        peer = _free_port()
        etcd = f"http://127.0.0.1:{self._etcd}"
        self._guard(
            "etcd",
            str(folder / "etcd"),
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        )
        serving = directory / "serving.pem"
        serving.write_bytes(authority.serving_pem("127.0.0.1"))
        accounts = directory / "accounts.pem"
        accounts.write_bytes(
            rsa.generate_private_key(65537, 2048).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        tokens = directory / "tokens.csv"
        tokens.write_text(f'{self.admin_token},{ADMINISTRATOR},1,"system:masters"\n')
        policy = directory / "policy.yaml"
        rules = [{"level": "Metadata", "omitStages": ["ResponseComplete"], "verbs": ["watch"]}]
        policy.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "audit.k8s.io/v1",
                    "kind": "Policy",
                    "rules": [*rules, {"level": "Metadata"}],
                }
            )
        )
        self._guard(
            "kube-apiserver",
            str(folder / "kube-apiserver"),
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={directory}",
            f"--tls-cert-file={serving}",
            f"--tls-private-key-file={serving}",
            f"--token-auth-file={tokens}",
            "--anonymous-auth=false",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
            "--service-cluster-ip-range=10.96.0.0/16",
            # There is no controller that makes the tokens which this would wait for.
            "--disable-admission-plugins=ServiceAccount",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={directory / 'audit.log'}",
        )
        ready = self.until(self._is_ready, PATIENCE)
        if not ready:
            told = "\n".join(
                f"{log.name}: {log.read_text(errors='replace')[-2000:]}"
                for log in directory.glob("*.out")
            )
            raise AssertionError(f"kube-apiserver is not ready after {PATIENCE} s\n{told}")

    def _guard(self, name: str, *command: str) -> None:
        with (self._directory / f"{name}.out").open("wb") as log:
            self._guards.append(
                subprocess.Popen(
                    ["sh", "-c", _GUARD, name, *command],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def _is_ready(self) -> bool:
        try:
            self._call("GET", "/readyz")
            self._call("GET", "/api/v1/namespaces/default")
        except (OSError, http.client.HTTPException, KubeError):
            return False
        return True


class _Audited(Requests):
    """The requests as the audit log has them."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self._log = log
        self._from = 0

    def clear(self) -> None:
        self._from = self._log.stat().st_size if self._log.exists() else 0

    def __iter__(self) -> Iterator[Request]:
        found: dict[str, Request] = {}
        for event in self._events():
            about = event.get("objectRef") or {}
            one = found.setdefault(
                event["auditID"],
                Request(
                    verb=event["verb"],
                    group=about.get("apiGroup", ""),
                    resource=about.get("resource", ""),
                    subresource=about.get("subresource", ""),
                    namespace=about.get("namespace", ""),
                    name=about.get("name", ""),
                    user=event["user"].get("username", ""),
                    path=event["requestURI"].partition("?")[0],
                ),
            )
            one.code = (event.get("responseStatus") or {}).get("code", 0)
        return iter(found.values())

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _events(self) -> Iterator[Object]:
        if not self._log.exists():
            return
        with self._log.open("rb") as log:
            log.seek(self._from)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                event = json.loads(line)
                # Not what the tests do themselves, nor what the server does for itself.
                ours = event.get("userAgent", "") == _OURS
                if not ours and event["user"].get("username") != "system:apiserver":
                    yield event


def _path(kind: Kind, namespace: str, name: str = "", subresource: str = "") -> str:
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    where = ["namespaces", namespace] if kind.namespaced and namespace else []
    steps = [*where, kind.plural, *(one for one in (name, subresource) if one)]
    return "/".join([root, *(quote(one, safe="") for one in steps)])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
