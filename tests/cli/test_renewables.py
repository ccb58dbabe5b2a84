import fcntl
import os
import stat
from pathlib import Path

import pytest

from app.cli.renewables import find
from app.domain.link_secrets import Renewed, Server
from app.domain.yaml_documents import write
from app.errors import Conflict, Invalid, Unavailable
from tests.domain.test_link_secrets import a_secret, encoded
from tests.strangers import documents

RENEWED = Renewed(
    certificate_pem=b"certificate",
    key_pem=b"key",
    ca_pem=b"ca",
    server=Server(url="https://west", ca_pem="CA"),
    not_after=2,
    superseded_at=1,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "lab.yaml"
    made.write_text(write(a_secret()))
    made.chmod(0o644)
    return made


def test_a_file_may_hold_several_secrets(path: Path) -> None:
    path.write_text("".join(f"---\n{write(a_secret())}" for _ in range(2)))
    first, second = find(path)
    assert (first.at, second.at) == (0, 1)
    second.finish(RENEWED)
    keys = [one["data"]["tls.key"] for one in documents(path.read_text())]
    assert keys[1] == encoded("key") != keys[0]


def test_one_document_stays_one_and_is_private_from_then_on(path: Path) -> None:
    (file,) = find(path)
    file.finish(RENEWED)
    assert path.read_text().startswith("apiVersion: v1\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_of_a_file_stays(path: Path) -> None:
    os.chown(path, 1234, 4321)
    (file,) = find(path)
    file.finish(RENEWED)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


def test_whoever_renews_alone_sees_the_file_as_it_is(path: Path) -> None:
    (file,) = find(path)
    changed = a_secret(immutable=False)
    path.write_text(write(changed))
    with pytest.raises(Conflict):
        file.finish(RENEWED)
    with file.locked():
        file.finish(RENEWED)
    assert documents(path.read_text())[0]["immutable"] is False
    path.write_text("")
    with pytest.raises(Conflict), file.locked():
        pass


def test_two_do_not_renew_in_one_directory_at_once(path: Path) -> None:
    (file,) = find(path)
    with file.locked(), pytest.raises(Unavailable), find(path)[0].locked():
        pass
    with file.locked():
        pass


def test_where_there_are_no_locks_it_is_done_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with find(path)[0].locked():
        pass


def test_a_directory_that_is_gone_is_told(path: Path, tmp_path: Path) -> None:
    (file,) = find(path)
    path.unlink()
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    with pytest.raises(Invalid), file.locked():
        pass


def test_a_file_that_is_reached_through_a_link_is_not_replaced(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    before = path.read_bytes()
    with pytest.raises(Conflict):
        find(link)[0].finish(RENEWED)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\xff", b"a: [", b"kind: Secret\n", b"- x\n"])
def test_a_file_without_any_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(Invalid) as caught:
        find(tmp_path / "x.yaml")
    assert caught.value.field == "secret"


def test_a_secret_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(write(a_secret(type="Opaque")))
    with pytest.raises(Invalid, match=r"x\.yaml: it is not of type"):
        _ = find(tmp_path / "x.yaml")[0].secret


def test_a_directory_that_cannot_be_read_may_be_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "input" / "resources").mkdir(parents=True)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(Unavailable, match="Permission denied"):
        find(tmp_path)
