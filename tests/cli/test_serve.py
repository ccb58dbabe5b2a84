import pytest

import app.workers
from app.errors import Unavailable
from app.settings import Settings
from tests.cli.conftest import Cli


def test_the_server_runs_with_the_settings_of_this_command(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Settings] = []
    monkeypatch.setattr(app.workers, "run", served.append)
    (cli.directory / "s.toml").write_text('[listen]\nops = "127.0.0.1:0"\n')
    cli.done("--config", "s.toml", "serve")
    assert str(served[0].listen.ops) == "127.0.0.1:0"
    assert str(served[0].data.dir) == cli.environment["GRANTSERVER_DATA_DIR"]


def test_the_number_of_workers_may_be_given_with_the_command(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Settings] = []
    monkeypatch.setattr(app.workers, "run", served.append)
    cli.done("serve")
    cli.environment["GRANTSERVER_WORKERS"] = "2"
    cli.done("serve")
    cli.done("serve", "--workers", "3")
    assert [chosen.workers for chosen in served] == [1, 2, 3]
    result = cli.run("serve", "--workers", "0")
    assert result.exit_code == 2
    assert result.stderr == "error: --workers: got 0; expected a whole number, 1 or more\n"


def test_a_server_that_cannot_start_says_why(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Settings) -> None:
        raise Unavailable("port 9090 is taken")

    monkeypatch.setattr(app.workers, "run", fail)
    result = cli.run("serve")
    assert result.exit_code == 3
    assert result.stderr == "error: port 9090 is taken; trying again may help\n"
