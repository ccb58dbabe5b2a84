"""GrantServer as it is measured: installed on an empty database, with grants to redeem."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import grants
from bench.servers import Server, free_port, running, says_ready

MOST_REDEMPTIONS = 1_000_000
PROGRAM = ("-m", "app")
"""What Python is told to run, before the words of a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A data directory and a database, named by settings, with grants to redeem."""

    folder: Path
    settings: Mapping[str, str] = field(repr=False)
    first_start: float
    single: list[tuple[str, str]] = field(repr=False)
    shared: list[tuple[str, str]] = field(repr=False)

    @contextlib.contextmanager
    def serving(
        self, cores: set[int], workers: int, program: Sequence[str] = PROGRAM
    ) -> Iterator[Server]:
        """Run a server of it, with a `program` of its own if need be; several are replicas."""
        with _serving(self.folder, self.settings, cores, workers, program) as server:
            yield server


def install(folder: Path, settings: Mapping[str, str], core: int, count: int) -> Installation:
    """Start GrantServer for the first time, stop it, and make a site and `count` grants."""
    settings = {"GRANTSERVER_DATA_DIR": str(folder / "data"), **settings}
    with _serving(folder, settings, {core}, 1) as server:
        first_start = server.started_in
    grants.make_site(settings)
    return Installation(
        folder=folder,
        settings=settings,
        first_start=first_start,
        single=grants.make_grants(settings, count, 1),
        shared=grants.make_grants(settings, 1, MOST_REDEMPTIONS),
    )


@contextlib.contextmanager
def _serving(
    folder: Path,
    settings: Mapping[str, str],
    cores: set[int],
    workers: int,
    program: Sequence[str] = PROGRAM,
) -> Iterator[Server]:
    port, ops = free_port(), free_port()
    with running(
        (*program, "serve"),
        port=port,
        ready=lambda: says_ready(ops),
        core=cores,
        log=folder / f"grantserver-{workers}.log",
        environment={
            **settings,
            "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{port}",
            "GRANTSERVER_LISTEN_OPS": f"127.0.0.1:{ops}",
            "GRANTSERVER_REACH_URL": "https://127.0.0.1:9090",
            "GRANTSERVER_WORKERS": str(workers),
        },
    ) as server:
        yield server
