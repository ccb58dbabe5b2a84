"""AccessGrants on a cluster, as a user goes about it, and on servers that come and go."""

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from app import ambient
from app.kube.elector import Terms
from tests import postgresql
from tests.crew import launched
from tests.installation import Installation
from tests.kube.api_server import FakeKube, Kube, Object
from tests.kube.objects import NAMESPACE, a_ca, a_secret, a_site, access_grant
from tests.kube.stage import RULES
from tests.postgresql import Cluster
from tests.running import Answer, Server, running

CRDS: Final = Path(__file__).parents[2] / "deploy" / "crds"
NOW: Final = ambient.utc_now()
QUICK: Final = {
    "lease_seconds": 2,
    "renew_seconds": 1.2,
    "retry_seconds": 0.2,
    "call_seconds": 0.6,
}
"""Terms of an election that do not keep a test waiting."""


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The setting by which two servers share a database: PostgreSQL, else a file of SQLite."""
    if postgresql.programs() is None:
        yield {}
        return
    cluster = request.getfixturevalue("cluster")
    assert isinstance(cluster, Cluster)
    url = cluster.create(template="template0")
    yield {"GRANTSERVER_DATABASE_URL": url}
    cluster.drop(url)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers in this process agree quickly who leads."""
    defaults = Terms.__init__.__kwdefaults__
    assert defaults is not None
    for name, seconds in QUICK.items():
        monkeypatch.setitem(defaults, name, seconds)


def on(kube: Kube, directory: Path, user: str) -> dict[str, str]:
    """The settings of a server that serves the AccessGrants of a cluster, as one of its users."""
    config = kube.kubeconfig(directory / f"{user}.kubeconfig", kube.token(user, RULES))
    return {
        "GRANTSERVER_KUBERNETES_NAMESPACES": "*",
        "GRANTSERVER_KUBERNETES_KUBECONFIG": str(config),
        "GRANTSERVER_REACH_URL": "https://127.0.0.1:9443",
    }


def furnish(kube: Kube, namespace: str = NAMESPACE) -> None:
    """Make a namespace with a Site, and an issuer that is valid now."""
    ca = a_ca("today's ca", not_before=NOW - 3600, not_after=NOW + 10**8)
    kube.install_skupper()
    kube.namespace(namespace)
    kube.create(a_secret(namespace=namespace, ca=ca))
    kube.create(a_site(namespace=namespace))


def ready(kube: Kube, name: str, namespace: str = NAMESPACE) -> Object:
    def is_ready(found: Object) -> bool:
        return bool(found.get("status", {}).get("status") == "Ready")

    return kube.wait("AccessGrant", name, namespace, is_ready)


def redeem(server: Server, grant: Object, subject: str = "east") -> Answer:
    """Redeem by what the status tells, at this server."""
    code = grant["status"]["code"].encode()
    headers = {"name": "east", "subject": subject}
    return server.request("POST", f"/{grant['metadata']['uid']}", code, headers)


def shown(kube: Kube) -> Counter[int]:
    """How many grants show how many redemptions."""
    return Counter(
        found.get("status", {}).get("redemptions", 0) for found in kube.find("AccessGrant")
    )


# The procedure.


def table(kube: Kube, namespace: str, plural: str) -> list[list[str]]:
    """What `kubectl get` shows, by the columns of the definition that we ship."""
    definition = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())["spec"]
    [version] = definition["versions"]
    columns = version["additionalPrinterColumns"]

    def cell(found: Any, path: str) -> str:
        for step in path.removeprefix(".").split("."):
            found = found.get(step) if isinstance(found, dict) else None
        if isinstance(found, bool):
            return str(found).lower()
        return "" if found is None else str(found)

    return [
        ["NAME", *(column["name"].upper() for column in columns)],
        *(
            [found["metadata"]["name"], *(cell(found, column["jsonPath"]) for column in columns)]
            for found in kube.find(definition["names"]["kind"], namespace)
        ),
    ]


class Kubectl:
    """`kubectl`, or where there is none, what it would do."""

    def __init__(self, kube: Kube, directory: Path, namespace: str) -> None:
        self._kube, self._namespace = kube, namespace
        self._program = shutil.which("kubectl")
        config = kube.kubeconfig(directory / "kubectl.kubeconfig", namespace=namespace)
        self._options = [f"--kubeconfig={config}", f"--cache-dir={directory / 'cache'}"]

    def apply(self, file: Path) -> None:
        if self._program is None:
            self._kube.create(yaml.safe_load(file.read_text()))
        else:
            self._run("apply", "-f", str(file))

    def get(self, plural: str = "accessgrants") -> list[list[str]]:
        """The table, word for word."""
        rows = table(self._kube, self._namespace, plural)
        if self._program is not None:
            lines = self._run("get", plural).splitlines() or [" ".join(rows[0])]
            assert [line.split() for line in lines] == [" ".join(row).split() for row in rows]
        return rows

    def template(self, name: str, field: str) -> str:
        """One field of the status."""
        found = str(self._kube.get("AccessGrant", name, self._namespace)["status"][field])
        if self._program is not None:
            words = ("-o", "template", "--template", f"{{{{ .status.{field} }}}}")
            assert self._run("get", "accessgrant", name, *words) == found
        return found

    def _run(self, *words: str) -> str:
        assert self._program is not None
        done = subprocess.run(
            [self._program, *self._options, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def test_the_procedure_from_the_access_grant_to_the_link(kube: Kube, tmp_path: Path) -> None:
    furnish(kube, "west")
    settings = on(kube, tmp_path, "grantserver")
    del settings["GRANTSERVER_REACH_URL"]  # it listens where it says
    installation = Installation(tmp_path, **settings)
    kubectl = Kubectl(kube, tmp_path, "west")
    with installation.serving():
        grant = tmp_path / "accessgrant.yaml"
        grant.write_text(
            yaml.safe_dump(
                access_grant("grant-west", "west", redemptionsAllowed=2, expirationWindow="25m")
            )
        )
        kubectl.apply(grant)
        expires = ready(kube, "grant-west", "west")["status"]["expirationTime"]
        heading = ["NAME", "REDEMPTIONS ALLOWED", "REDEMPTIONS MADE", "EXPIRATION", "STATUS"]
        assert kubectl.get() == [
            [*heading, "MESSAGE"],
            ["grant-west", "2", "0", expires, "Ready", "OK"],
        ]
        spec = {field: kubectl.template("grant-west", field) for field in ("url", "code", "ca")}
        token = tmp_path / "token.yaml"
        token.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "skupper.io/v2alpha1",
                    "kind": "AccessToken",
                    "metadata": {"name": "token-to-west"},
                    "spec": spec,
                }
            )
        )
        token.chmod(0o600)
        for count, (subject, last) in enumerate(
            (("east", ["Ready", "OK"]), ("north", ["Error", "All 2 redemptions are used"])), start=1
        ):
            got = installation.type("token", "redeem", str(token), "--subject", subject)
            secret, link = yaml.safe_load_all(got)
            assert (secret["kind"], secret["type"]) == ("Secret", "kubernetes.io/tls")
            assert link["spec"]["tlsCredentials"] == secret["metadata"]["name"] == "token-to-west"
            kube.wait(
                *("AccessGrant", "grant-west", "west"),
                lambda found, count=count: found["status"]["redemptions"] == count,  # type: ignore[misc]
            )
            assert kubectl.get()[1] == ["grant-west", "2", str(count), expires, *last]
        assert installation.type("token", "redeem", str(token), "--subject", "south") == ""
        assert "No such access granted" in installation.said
        kube.delete("AccessGrant", "grant-west", "west")
        assert kubectl.get()[1:] == []


# Several servers.


@pytest.mark.usefixtures("quick")
def test_two_servers_redeem_one_leads_and_the_other_takes_over(
    fake_kube: FakeKube, tmp_path: Path, database: dict[str, str]
) -> None:
    furnish(fake_kube)
    first, second = (on(fake_kube, tmp_path, user) | database for user in ("first", "second"))

    def redemptions(count: int) -> None:
        """Wait until so many are shown; they follow within two seconds."""
        name = "AccessGrant", "grant-north", NAMESPACE
        fake_kube.wait(*name, lambda found: found["status"]["redemptions"] == count, 2.0)

    def writers() -> set[str]:
        writes = fake_kube.requests.writes(resource="accessgrants")
        return {one.user.rpartition(":")[2] for one in writes}

    with running(tmp_path, **first) as one:
        fake_kube.create(access_grant(redemptionsAllowed=9))
        grant = ready(fake_kube, "grant-north")
        with running(tmp_path, **second) as other:
            for count, server in enumerate((other, one, other, one), start=1):
                assert redeem(server, grant, f"site-{count}").status == 200
                redemptions(count)
            assert writers() == {"first"}
            one.stop()
            lease = "Lease", "grantserver", "default"
            fake_kube.wait(*lease, lambda found: found["spec"]["leaseTransitions"] == 1)
            fake_kube.requests.clear()
            assert redeem(other, grant, "after").status == 200
            redemptions(5)
            assert writers() == {"second"}


def test_two_hundred_redemptions_while_the_api_server_is_away_are_counted_when_it_is_back(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    furnish(fake_kube)
    with running(tmp_path, **on(fake_kube, tmp_path, "grantserver")) as server:
        for number in range(10):
            fake_kube.create(access_grant(f"grant-{number}", redemptionsAllowed=20))
        found = [ready(fake_kube, f"grant-{number}") for number in range(10)]
        fake_kube.stop()
        asked = len(fake_kube.requests)
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(
                lambda number: redeem(server, found[number % 10], f"site-{number}").status,
                range(200),
            )
            assert Counter(answers) == {200: 200}
        assert redeem(server, found[0], "one more").status == 404
        assert len(fake_kube.requests) == asked
        fake_kube.start()
        assert fake_kube.until(lambda: shown(fake_kube) == {20: 10}, 5.0), shown(fake_kube)


@pytest.mark.usefixtures("quick")
def test_when_the_leader_is_killed_in_the_middle_of_its_updates_another_one_finishes_them(
    fake_kube: FakeKube, tmp_path: Path, database: dict[str, str]
) -> None:
    furnish(fake_kube)
    killed, left = (on(fake_kube, tmp_path, user) | database for user in ("killed", "left"))
    mischief = f"from app.kube.elector import Terms\nTerms.__init__.__kwdefaults__ |= {QUICK}\n"
    grants = 100
    with launched(tmp_path, mischief=mischief, **killed) as leader:
        for number in range(grants):
            fake_kube.create(access_grant(f"grant-{number}"))
        found = [ready(fake_kube, f"grant-{number}") for number in range(grants)]
        with running(tmp_path, **left) as server:
            fake_kube.faults.slow(0.05, user="killed", verb="patch", resource="accessgrants")
            with ThreadPoolExecutor(8) as pool:
                answers = pool.map(lambda grant: redeem(server, grant).status, found)
                assert Counter(answers) == {200: grants}
            assert fake_kube.until(lambda: shown(fake_kube)[1] > grants // 10)
            os.kill(leader.process.pid, signal.SIGKILL)
            leader.process.wait()
            dead_since = ambient.monotonic()
            assert 0 < shown(fake_kube)[0] < grants
            assert fake_kube.until(lambda: shown(fake_kube) == {1: grants})
            # The Lease ends, its end is noticed at the next look, and then there is some work.
            assert ambient.monotonic() - dead_since < QUICK["lease_seconds"] + 5
            statuses = [one["status"] for one in fake_kube.find("AccessGrant")]
            assert {one["message"] for one in statuses} == {"The one redemption is used"}
            assert redeem(server, found[0], "another").status == 404
