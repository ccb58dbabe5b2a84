"""A server of several workers for a test: real processes, started as a user starts them."""

import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app import ambient, settings
from app.domain.sites import parse_endpoint
from app.home import open_home
from app.serve import Addresses
from app.services import sites
from tests.running import ENDPOINTS, PATIENCE, Server, environment

_LOOK_AGAIN_SECONDS: Final = 0.02
_READY = re.compile(r" ready .* redemption=(\S+):(\d+) ops=(\S+):(\d+)")


def eventually(holds: Callable[[], object]) -> bool:
    """Wait until something holds; False when it takes too long."""
    give_up = ambient.monotonic() + PATIENCE
    pause = threading.Event()
    while not holds():
        if ambient.monotonic() > give_up:
            return False
        pause.wait(_LOOK_AGAIN_SECONDS)
    return True


def is_alive(pid: int) -> bool:
    """Tell whether a process still runs; one that only waits to be fetched does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def children(pid: int) -> set[int]:
    """The processes that this one has started, and that run."""
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            found |= set(map(int, path.read_text().split()))
    return set(filter(is_alive, found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A server that was started as a command; its children are its workers."""

    process: "subprocess.Popen[bytes]"
    log: Path
    temporary: Path

    @property
    def workers(self) -> set[int]:
        return children(self.process.pid)

    def lines(self) -> list[str]:
        """What it has written so far, without the times."""
        written = self.log.read_text().splitlines()
        return [re.sub(r"^\d{4}-\S+Z (\w+) +grantserver: ", r"\1: ", line) for line in written]

    def said(self, text: str) -> list[str]:
        return [line for line in self.lines() if text in line]

    def ends(self) -> int:
        """Wait for the end of the process; its exit code."""
        return self.process.wait(PATIENCE)

    def left_behind(self) -> list[Path]:
        return list(self.temporary.iterdir())


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew(Launched):
    """A server of several workers, ready."""

    server: Server


@contextlib.contextmanager
def launched(directory: Path, *, mischief: str = "", **further: str) -> Iterator[Launched]:
    """Start `serve` in a session of its own; whatever is left in the end is killed.

    `mischief` is Python that runs first in each of its processes.
    """
    temporary = directory / "tmp"
    temporary.mkdir()
    (directory / "sitecustomize.py").write_text(mischief)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GRANTSERVER_")}  # noqa: TID251
    log = directory / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"],
            env=inherited
            | environment(directory, **further)
            | {"TMPDIR": str(temporary), "PYTHONPATH": str(directory)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Launched(process=process, log=log, temporary=temporary)
    finally:
        with contextlib.suppress(ProcessLookupError):  # nothing is left of it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def working(
    directory: Path, workers: int = 2, *, mischief: str = "", **further: str
) -> Iterator[Crew]:
    """Run a server of so many workers, with a site `west`."""
    further |= {"GRANTSERVER_WORKERS": str(workers)}
    with launched(directory, mischief=mischief, **further) as run:
        assert eventually(lambda: run.said(" ready ") or run.process.poll() is not None)
        found = _READY.search(run.log.read_text())
        assert found is not None, run.log.read_text()
        home = open_home(settings.load(environment(directory, **further)))
        with contextlib.closing(home.database):
            sites.put(
                home.database,
                name="west",
                endpoints=[parse_endpoint(text) for text in ENDPOINTS],
                issuer=None,
                actor="test",
                now=ambient.utc_now(),
            )
            context = ssl.create_default_context(cadata=home.reach().ca_pem)
            yield Crew(
                process=run.process,
                log=run.log,
                temporary=run.temporary,
                server=Server(
                    home=home,
                    addresses=Addresses(
                        redemption=(found[1], int(found[2])), ops=(found[3], int(found[4]))
                    ),
                    context=context,
                    stop=run.process.terminate,
                ),
            )
