"""The drill of `docs/backup.md`, command by command: a server under load, copied, then killed."""

import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.services import grants
from app.services.grants import Issued
from tests.crew import working
from tests.running import Answer, Server

PAGE = Path(__file__).parent.parent.parent / "docs" / "backup.md"
LOAD = 4


def commands(heading: str, directory: Path) -> list[str]:
    """The commands of a section, with the paths of the page led into `directory`."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    lines = "".join(blocks).splitlines()
    for shown, real in (
        ("/var/lib/grantserver-restored", "new/data"),
        ("/var/lib/grantserver", "old/data"),
        ("/backup", "backup"),
        ("/elsewhere", "elsewhere"),
    ):
        lines = [line.replace(shown, str(directory / real)) for line in lines]
    return lines


def run(lines: list[str], directory: Path) -> str:
    """Run commands as a person would, in one shell that ends with the first that fails."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GRANTSERVER_")}  # noqa: TID251
    done = subprocess.run(
        ["bash", "-e"],
        input=f'grantserver() {{ "{sys.executable}" -m app "$@"; }}\n' + "\n".join(lines),
        env=inherited | {"GRANTSERVER_DATA_DIR": str(directory / "old" / "data")},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Load:
    """Redeems grants of one redemption, each once, until it is told to stop."""

    def __init__(self, server: Server, issued: list[Issued]) -> None:
        self._server, self._waiting = server, iter(issued)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self.answered: list[tuple[Issued, Answer]] = []

    def work(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                issued = next(self._waiting, None)
            if issued is None:
                return
            answer = self._server.redeem(issued, subject="east")
            assert answer.status == 200
            with self._lock:
                self.answered.append((issued, answer))

    def so_far(self) -> list[tuple[Issued, Answer]]:
        with self._lock:
            return list(self.answered)

    def stop(self) -> None:
        self._stop.set()


def test_the_drill_brings_back_what_was_committed_before_the_backup(tmp_path: Path) -> None:
    for name in ("old", "new", "backup", "elsewhere"):
        (tmp_path / name).mkdir()
    with working(tmp_path / "old", workers=1) as crew:
        issued = [crew.server.issue(f"used-{number}") for number in range(400)]
        out = [crew.server.issue(f"out-{number}") for number in range(3)]
        later = crew.server.issue("later")
        load = Load(crew.server, issued)
        with ThreadPoolExecutor(LOAD) as pool:
            working_on = [pool.submit(load.work) for _ in range(LOAD)]
            while len(load.so_far()) < 10:
                assert not any(one.done() for one in working_on)
            before = load.so_far()
            first, *rest = commands("Backup", tmp_path)
            assert "db backup" in first
            assert "sealing.keys" in run([first], tmp_path)
            assert load.so_far() != before  # it went on meanwhile
            load.stop()
            for thread in working_on:
                thread.result()
        told = run(rest, tmp_path)
        assert "is sound" in told
        assert crew.server.redeem(later).status == 200
        os.killpg(crew.process.pid, signal.SIGKILL)
        crew.ends()

    restore = commands("Restore", tmp_path)
    assert restore[-2:] == ["grantserver serve", "grantserver doctor"]
    assert "is sound" in run(restore[:-2], tmp_path)
    with working(tmp_path / "new", workers=1) as crew:
        server = crew.server
        known = {grant.name: grant.spent for grant in grants.every(server.home.database)}
        for one, answer in before:
            assert known[one.grant.name] == 1
            assert server.redeem(one, subject="north").status == 404
            assert server.redeem(one, subject="east").body == answer.body
        for one in out:
            assert known[one.grant.name] == 0
            assert server.redeem(one).status == 200
            assert server.redeem(one, subject="north").status == 404
        # As the page says: what was redeemed after the backup is forgotten, and gives once more.
        assert known["later"] == 0
        assert server.redeem(later, subject="north").status == 200
