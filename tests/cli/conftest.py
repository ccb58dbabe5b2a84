"""The command line as a person runs it: an environment of its own, a directory of its own."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from app import ambient
from app.cli.root import root
from app.home import open_home
from app.services.cluster import Cluster
from app.settings import PREFIX, load
from tests.domain.test_receipts import an_answer
from tests.running import Server, running
from tests.strangers import Issuer, Stranger, a_stranger

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


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    with a_stranger(tmp_path) as made:
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are short."""
    monkeypatch.setattr("app.cli.redeeming._PAUSES", (0.01,))


@pytest.fixture
def lab(cli: Cli, stranger: Stranger, quick: None) -> Cli:
    """Put a token for a stranger's server, which answers as it should, into `lab.yaml`."""
    del quick
    (cli.directory / "lab.yaml").write_text(stranger.token())
    stranger.say = lambda asked: (200, an_answer(name=asked.headers["name"]))
    return cli


@pytest.fixture
def honoured(lab: Cli, stranger: Stranger) -> Cli:
    """Have the server take certificate requests."""
    stranger.say = Issuer().answer_claim
    return lab
