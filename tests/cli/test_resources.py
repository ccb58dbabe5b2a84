import os
import stat
from pathlib import Path

import pytest

from app.cli.resources import (
    directory_of,
    forget_key,
    kept_key,
    key_path,
    prepare,
    reload_command,
    removed_if_empty,
    store,
)
from app.domain.receipts import Resource
from app.errors import Conflict, Invalid, Unavailable

URL = "https://west.example/grant"


def a_link(name: str = "lab") -> list[Resource]:
    return [
        Resource(kind="Secret", name=name, text="secret\n"),
        Resource(kind="Link", name=name, text="link\n"),
    ]


def test_missing_directories_are_made_for_their_owner(tmp_path: Path) -> None:
    directory = prepare(tmp_path / "ns", "lab", force=False)
    assert directory == tmp_path / "ns" / "input" / "resources"
    for path in (tmp_path / "ns", tmp_path / "ns" / "input", directory):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_directories_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "input" / "resources").mkdir(parents=True)
    (tmp_path / "input").chmod(0o775)
    prepare(tmp_path, "lab", force=False)
    assert stat.S_IMODE((tmp_path / "input").stat().st_mode) == 0o775


def test_a_part_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "resources").mkdir(parents=True)
    (tmp_path / "ns").mkdir()
    (tmp_path / "ns" / "input").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Invalid, match="leads out"):
        prepare(tmp_path / "ns", "lab", force=False)


def test_a_namespace_may_itself_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "ns").symlink_to(tmp_path / "real")
    assert prepare(tmp_path / "ns", "lab", force=False).resolve().is_relative_to(tmp_path / "real")


def test_what_is_no_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "input").touch()
    with pytest.raises(Conflict, match="no directory"):
        prepare(tmp_path, "lab", force=False)


def test_an_empty_file_gets_a_key_which_would_else_be_made_by_the_server(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch(0o644)
    assert kept_key(path, lambda: b"made") == b"made"
    assert kept_key(path, lambda: b"another") == b"made"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["../x", "a/b", "a.b", "x\n", "", "A"])
def test_no_name_becomes_a_path_unseen(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid):
        prepare(tmp_path / "ns", name, force=False)
    assert not (tmp_path / "ns").exists()
    with pytest.raises(Invalid):
        store(tmp_path, a_link(name), force=False)
    with pytest.raises(Invalid):
        store(tmp_path, [Resource(kind="../Secret", name="lab", text="")], force=False)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(Invalid, match="Permission denied"):
        prepare(tmp_path, "lab", force=False)


def test_a_directory_that_cannot_be_read_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(Unavailable, match="Permission denied"):
        prepare(tmp_path, "lab", force=False)


def test_all_are_stored_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Link-lab.yaml").write_text("theirs")
    with pytest.raises(Conflict):
        store(tmp_path, a_link(), force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["Link-lab.yaml"]
    (tmp_path / "Link-lab.yaml").unlink()
    order: list[str] = []
    link = os.link

    def note(source: str, target: Path) -> None:
        order.append(target.name)
        link(source, target)

    monkeypatch.setattr(os, "link", note)
    paths = store(tmp_path, a_link(), force=False)
    assert order == ["Secret-lab.yaml", "Link-lab.yaml"]
    assert [path.name for path in paths] == order
    assert [path.read_text() for path in paths] == ["secret\n", "link\n"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in paths)


def test_a_key_is_kept_until_it_is_forgotten(tmp_path: Path) -> None:
    path = key_path(tmp_path, "lab", URL)
    assert not path.name.endswith((".yaml", ".yml"))
    assert kept_key(path, lambda: b"first") == b"first"
    assert kept_key(path, lambda: b"second") == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    forget_key(tmp_path, "lab", "https://west.example/another")
    assert path.exists()
    forget_key(tmp_path, "lab", URL)
    forget_key(tmp_path, "lab", URL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "a/b", "x\n", ""])
def test_no_name_becomes_the_path_of_a_key_unseen(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid):
        key_path(tmp_path, name, URL)


def test_a_key_is_read_from_a_file_and_from_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("key")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "directory", "pipe"):
        with pytest.raises(Invalid) as caught:
            kept_key(tmp_path / name, lambda: b"made")
        assert caught.value.field == "key"


def test_directories_that_stay_empty_are_removed_and_others_stay(tmp_path: Path) -> None:
    with removed_if_empty(tmp_path / "ns"):
        prepare(tmp_path / "ns", "lab", force=False)
    assert list(tmp_path.iterdir()) == []
    with removed_if_empty(tmp_path / "ns"):
        store(prepare(tmp_path / "ns", "lab", force=False), a_link(), force=False)
    assert directory_of(tmp_path / "ns").is_dir()
    with removed_if_empty(tmp_path / "ns"):
        pass
    assert directory_of(tmp_path / "ns").is_dir()


def test_the_command_that_reloads_names_the_namespace_where_that_is_sure(tmp_path: Path) -> None:
    assert reload_command(tmp_path / "namespaces" / "east") == "skupper system reload -n east"
    assert reload_command(tmp_path / "east") == "skupper system reload"
