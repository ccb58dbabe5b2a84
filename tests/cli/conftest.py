"""The command line as a person runs it: an environment of its own, a directory of its own."""

import contextlib
import http.server
import json
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from app import ambient
from app.cli.root import root
from app.crypto import keys
from app.crypto.issuers import create_authority, load_issuer
from app.crypto.server_certificates import create_server_certificate
from app.domain.certificates import KeyType
from app.home import open_home
from app.services.cluster import Cluster
from app.settings import PREFIX, load
from tests.builders import NOW
from tests.running import Server, running

ENDPOINTS: Final = ("--endpoint", "inter-router=west.example.com:55671")


@dataclass(kw_only=True)
class Cli:
    """Runs commands in `directory`, where its data directory `data` is too."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, typed: str | bytes | None = None) -> Result:
        return CliRunner(env=self.environment).invoke(root, list(words), input=typed)

    def done(self, *words: str, typed: str | bytes | None = None) -> str:
        """Run a command that has to succeed, and give its standard output."""
        result = self.run(*words, typed=typed)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.done(*words, "-o", "json"))

    @contextlib.contextmanager
    def cluster(self) -> Iterator[Cluster]:
        """Open the installation as a server does that serves a Kubernetes cluster."""
        home = open_home(load(self.environment))
        with contextlib.closing(home.database):
            yield Cluster(
                database=home.database,
                keyring=home.keyring,
                code_keys=home.code_keys,
                clock=ambient.utc_now,
                random_bytes=ambient.random_bytes,
            )

    def set_west(self) -> None:
        self.done("site", "set", "west", *ENDPOINTS, "--endpoint", "edge=west.example.com:45671")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    for variable in list(os.environ):  # noqa: TID251 - only to empty it
        if variable.startswith(PREFIX):
            monkeypatch.delenv(variable)
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    environment = {
        "GRANTSERVER_DATA_DIR": str(directory / "data"),
        "GRANTSERVER_REACH_URL": "https://grants.example.com:9090",
    }
    return Cli(directory=directory, environment=environment)


@pytest.fixture
def west(cli: Cli) -> Cli:
    """A command line whose data directory knows the site `west`."""
    cli.set_west()
    return cli


@pytest.fixture
def served(cli: Cli, tmp_path: Path) -> Iterator[Server]:
    """A running server, whose data directory and address are those of the command line."""
    with running(tmp_path / "served") as server:
        host, port = server.addresses.redemption
        cli.environment["GRANTSERVER_DATA_DIR"] = str(tmp_path / "served" / "data")
        cli.environment["GRANTSERVER_REACH_URL"] = f"https://{host}:{port}"
        yield server


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request that a stranger's server has got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(kw_only=True)
class Stranger:
    """Some server that says what a test wants, over real TLS; it remembers what it was asked."""

    url: str
    ca_pem: str
    say: Callable[[Asked], tuple[int, bytes]] = lambda _asked: (404, b"No such claim\n")
    asked: list[Asked] = field(default_factory=list)

    def token(self, **changes: Any) -> str:
        """Write a token that leads here."""
        spec = {"url": f"{self.url}/x", "code": "Aa0Bb1Cc2Dd3Ee4F", "ca": self.ca_pem, **changes}
        document = {
            "apiVersion": "skupper.io/v2alpha1",
            "kind": "AccessToken",
            "metadata": {"name": "lab"},
            "spec": {name: value for name, value in spec.items() if value is not None},
        }
        return json.dumps(document)


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    key = keys.generate(KeyType.P256)
    ca_pem = create_authority(
        common_name="stranger", key=key, serial=7, not_before=NOW - 10**8, not_after=NOW + 10**9
    )
    leaf = keys.generate(KeyType.P256)
    certificate = create_server_certificate(
        load_issuer(ca_pem, keys.to_pem(key)),
        hosts=["127.0.0.1"],
        key=leaf,
        serial_random=ambient.random_bytes(16),
        now=ambient.utc_now(),
        lifetime_seconds=10**6,
    )
    chain = tmp_path / "stranger.pem"
    chain.write_bytes(certificate + keys.to_pem(leaf))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    made = Stranger(url="", ca_pem=ca_pem.decode())

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 20

        def setup(self) -> None:
            self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self) -> None:
            super().finish()
            self.request.close()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(
                method=self.command, path=self.path, headers=dict(self.headers), body=body
            )
            made.asked.append(asked)
            status, said = made.say(asked)
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST  # noqa: N815 - the library looks it up by this name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Listening(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Clients that do not trust us break off; that is what is tested."""

    with Listening(("127.0.0.1", 0), Handler) as server:
        made.url = f"https://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        server.shutdown()
        thread.join()
