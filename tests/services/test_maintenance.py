import contextlib
import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from app.errors import Conflict, Invalid, Missing, Unavailable
from app.services import maintenance
from app.store import backup, schema
from app.store.engine import Database
from tests.builders import NOW, Stand


def sites_in(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM sites")]


def test_a_database_that_is_there_is_opened_and_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        maintenance.existing(f"sqlite:///{tmp_path / 'x.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_sound_database_has_no_problems(database: Database) -> None:
    opened = maintenance.existing(f"sqlite:///{database.sqlite.path}")
    found = maintenance.examine(opened, NOW)
    opened.close()
    assert found.problems == ()
    assert found.revision == schema.REVISION


def test_a_backup_holds_what_was_committed_and_is_one_private_file(
    stand: Stand, tmp_path: Path
) -> None:
    stand.set_site()
    target = tmp_path / "backups" / "b.db"
    target.parent.mkdir()
    before = os.umask(0)
    try:
        with stand.database.writing() as connection:  # somebody else is at work
            connection.exec_driver_sql("UPDATE sites SET name = 'not-yet'")
            found = maintenance.back_up(stand.database, target, NOW)
    finally:
        os.umask(before)
    assert found == maintenance.Examination(revision=schema.REVISION, problems=())
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sites_in(target) == ["west"]
    assert target.read_bytes()[18:20] == b"\x01\x01"  # no write-ahead log is expected beside it
    assert [path.name for path in target.parent.iterdir()] == ["b.db"]


def test_a_backup_replaces_nothing_and_follows_no_link(stand: Stand, tmp_path: Path) -> None:
    target = tmp_path / "b.db"
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict):
        maintenance.back_up(stand.database, target, NOW)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_appears_meanwhile_stays(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "b.db"
    link = os.link

    def late(source: str, where: Path) -> None:
        target.write_text("theirs")
        link(source, where)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(Conflict):
        maintenance.back_up(stand.database, target, NOW)
    assert target.read_text() == "theirs"


def test_where_nothing_can_be_made_it_is_told(stand: Stand, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="file: "):
        maintenance.back_up(stand.database, tmp_path / "missing" / "b.db", NOW)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), Unavailable("the disk is full")])
def test_a_copy_that_fails_leaves_nothing(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(backup, "copy", fail)
    (tmp_path / "backups").mkdir()
    with pytest.raises(Unavailable):
        maintenance.back_up(stand.database, tmp_path / "backups" / "b.db", NOW)
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_copy_of_a_broken_database_is_no_backup(stand: Stand, tmp_path: Path) -> None:
    stand.set_site()
    with contextlib.closing(sqlite3.connect(stand.database.sqlite.path)) as connection, connection:
        connection.execute("DELETE FROM authorities WHERE purpose = 'site'")
    (tmp_path / "backups").mkdir()
    with pytest.raises(Unavailable, match="the copy is not sound: a row of sites"):
        maintenance.back_up(stand.database, tmp_path / "backups" / "b.db", NOW)
    assert list((tmp_path / "backups").iterdir()) == []


def test_backups_while_others_write_are_each_one_state(stand: Stand, tmp_path: Path) -> None:
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set() and number < 500:
            number += 1
            stand.set_site(f"site-{number}")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(3):
            found = maintenance.back_up(stand.database, tmp_path / f"b{number}.db", NOW)
            assert found.problems == ()
    finally:
        stop.set()
        worker.join()
