import pytest

from tests.cli.conftest import Cli


def test_without_a_server_commands_work_on_the_installation_beside_them(cli: Cli) -> None:
    cli.set_west()
    assert (cli.directory / "data").is_dir()
    assert "west" in cli.done("site", "list")


@pytest.mark.parametrize("url", ["http://a.example.com", "a.example.com:9443", "https://a/b"])
def test_a_server_that_is_no_https_url_is_refused(cli: Cli, url: str) -> None:
    for name in ("token", "ca.pem"):
        (cli.directory / name).write_text("x")
        (cli.directory / name).chmod(0o600)
    options = ("--server", url, "--token-file", "token", "--ca", "ca.pem")
    result = cli.run(*options, "site", "list")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: server: ")


def test_with_a_server_nothing_is_made_beside_the_command(cli: Cli) -> None:
    cli.environment["GRANTSERVER_SERVER"] = "https://a.example.com"
    for words in (["site", "list"], ["ca", "init", "x"], ["grant", "revoke", "x"]):
        assert cli.run(*words).exit_code == 2
    assert not (cli.directory / "data").exists()
