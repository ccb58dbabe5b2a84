import contextlib
import os
from pathlib import Path

import pytest

from app.cli.afar import Afar
from app.errors import Invalid
from tests.cli.conftest import Cli

TOKEN = "gsa_not-to-be-seen"


def an_afar(token_file: Path | None = None, ca_file: Path | None = None) -> Afar:
    return Afar(url="https://a.example.com", token_file=token_file, ca_file=ca_file, words=())


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    assert an_afar(write(tmp_path / "t", TOKEN.encode() + b"\n")).token() == TOKEN


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_one_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = write(tmp_path / "t", TOKEN.encode(), mode)
    with pytest.raises(Invalid, match="chmod 600") as caught:
        an_afar(file).token()
    assert caught.value.field == "token-file"
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", "gsa_ü".encode(), b"x" * (1024 * 1024 + 1)])
def test_what_is_no_token_is_refused_unseen(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        an_afar(write(tmp_path / "t", content)).token()
    assert caught.value.field == "token-file"
    assert len(str(caught.value)) < 300


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(Invalid, match="missing cannot be read"):
        an_afar(missing).token()
    with pytest.raises(Invalid, match="missing cannot be read"):
        an_afar(ca_file=missing).ca_pem()


def test_whoever_gives_no_file_is_told_which() -> None:
    with pytest.raises(Invalid, match="GRANTSERVER_SERVER_TOKEN_FILE"):
        an_afar().token()
    with pytest.raises(Invalid, match="ca export server-ca"):
        an_afar().ca_pem()


def test_a_token_may_come_through_a_pipe() -> None:
    reading, writing = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, reading)
        os.write(writing, TOKEN.encode())
        os.close(writing)
        assert an_afar(Path(f"/dev/fd/{reading}")).token() == TOKEN


@pytest.mark.parametrize("option", ["--token-file", "--ca"])
def test_its_files_are_of_no_use_without_a_server(cli: Cli, option: str) -> None:
    result = cli.run(option, "x", "site", "list")
    assert result.exit_code == 2
    assert f"{option} is of use with --server only" in result.stderr


def test_no_command_takes_the_token_itself(cli: Cli) -> None:
    assert "--token-file" in cli.done("--help")
    assert cli.run("--server-token", TOKEN, "site", "list").exit_code == 2
