import pytest

import app.serve
from app.errors import Unavailable
from app.settings import Settings
from tests.cli.conftest import Cli


def test_the_server_runs_with_the_settings_of_this_command(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Settings] = []
    monkeypatch.setattr(app.serve, "run", served.append)
    (cli.directory / "s.toml").write_text('[listen]\nops = "127.0.0.1:0"\n')
    cli.done("--config", "s.toml", "serve")
    assert str(served[0].listen.ops) == "127.0.0.1:0"
    assert str(served[0].data.dir) == cli.environment["GRANTSERVER_DATA_DIR"]


def test_a_server_that_cannot_start_says_why(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Settings) -> None:
        raise Unavailable("port 9090 is taken")

    monkeypatch.setattr(app.serve, "run", fail)
    result = cli.run("serve")
    assert result.exit_code == 3
    assert result.stderr == "error: port 9090 is taken; trying again may help\n"
