"""`python -m fuzz.api`: asks the admin API for what its description allows, and for all else.

A server of its own is started, with everything on that its settings know of the API; a generator
that is driven by the description (schemathesis) then looks for answers that are not described,
answers to what is no request at all, faults, rights that are not asked about, and things that are
there after they were deleted. Everything is on loopback and in a folder that is removed in the end.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0
STOP_SECONDS = 30.0

# What a description cannot say (a name that is taken, a time that is over) is a 409 or a 422.
CONFIG = """\
headers = {{ Authorization = "Bearer ${{GRANTSERVER_FUZZ_TOKEN}}" }}
tls-verify = "{ca}"
[checks]
positive_data_acceptance.expected-statuses = [
    "2xx", "304", "401", "404", "409", "412", "422",
]
# A stream goes on as long as it is told to.
[[operations]]
include-operation-id = "follow_events"
parameters = {{ "query.seconds" = 0 }}
"""


def main() -> int:
    """Run it; the generator's exit code is ours."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--examples", type=int, default=20, help="most of each operation")
    parser.add_argument("--seed", type=int, default=1, help="the same seed asks the same")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="grantserver-fuzz-") as path:
        folder = Path(path)
        with _serving(folder) as (port, environment):
            _furnish(folder, environment)
            config = folder / "schemathesis.toml"
            config.write_text(CONFIG.format(ca=folder / "ca.pem"))
            description = f"https://127.0.0.1:{port}/openapi.json"
            token = (folder / "token").read_text().strip()
            return subprocess.run(
                [
                    *(Path(sys.executable).parent / "schemathesis", "--config-file", config),
                    *("run", description, "--checks", "all", "--mode", "all"),
                    *("--phases", "examples,coverage,fuzzing,stateful", "--workers", "1"),
                    *("--max-examples", str(arguments.examples), "--seed", str(arguments.seed)),
                    *("--generation-database", "none", "--continue-on-failure"),
                ],
                cwd=folder,
                env={**environment, "GRANTSERVER_FUZZ_TOKEN": token},
                check=False,
            ).returncode


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Run a server until the block ends; gives the port of its admin API, and its settings."""
    redemption, ops, admin = _free_ports()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GRANTSERVER_")},
        "GRANTSERVER_DATA_DIR": str(folder / "data"),
        "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{redemption}",
        "GRANTSERVER_LISTEN_OPS": f"127.0.0.1:{ops}",
        "GRANTSERVER_LISTEN_ADMIN": f"127.0.0.1:{admin}",
        "GRANTSERVER_REACH_URL": f"https://127.0.0.1:{redemption}",
        # The generator shows wrong tokens as well, and must not be locked out for it.
        "GRANTSERVER_LIMITS_PEER_FAILURES": "0",
        "GRANTSERVER_LOGS_LEVEL": "warning",
    }
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"], cwd=ROOT, env=environment, stderr=log
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(ops):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / "server.log").read_text())
            time.sleep(0.05)
        yield admin, environment
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(STOP_SECONDS)
        print((folder / "server.log").read_text(), file=sys.stderr, end="")


def _furnish(folder: Path, environment: Mapping[str, str]) -> None:
    """Make a site, and a token for everything."""
    endpoint = "inter-router=west.example.com:55671"
    everything = ("--verb", "*", "--site", "*")
    for words in (
        ("site", "set", "west", "--endpoint", endpoint),
        ("admin-token", "create", "fuzz", *everything, "--out", str(folder / "token")),
        ("ca", "export", "server-ca", "--out", str(folder / "ca.pem")),
    ):
        subprocess.run(
            [sys.executable, "-m", "app", *words],
            cwd=ROOT,
            env=dict(environment),
            stdout=subprocess.DEVNULL,
            check=True,
        )


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    sys.exit(main())
