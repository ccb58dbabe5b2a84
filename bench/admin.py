"""`python -m bench.admin`: measures lists and creations of the admin API beside 100,000 grants.

A server on an embedded database that is filled beforehand; one client on one connection, over TLS,
asks for lists with every filter and order, then creates. Everything is on loopback and in a folder
that is removed in the end.
"""

import argparse
import http.client
import json
import os
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from app import ambient, settings
from app.domain.callers import read_rights
from app.domain.grants import ID_RANDOM_BYTES, Grant, new_id
from app.domain.sites import parse_endpoint
from app.home import Home, open_home
from app.services import admin_tokens, sites
from app.store import grants as grant_rows
from bench import machine, report
from bench.report import Limit
from bench.servers import free_port, running, says_ready

SITES = 20
DAY = 86_400
LIST_P99_MS, CREATE_P50_MS = 50.0, 10.0
LISTS: Mapping[str, str] = {
    "newest": "order=desc",
    "one site": "site=site-7&order=desc",
    "active, by end": "state=active&sort=expires_at",
    "used up, of a site": "state=used_up&site=site-3",
    "revoked, twenty of all": "state=revoked",
    "a prefix of names": "name_prefix=grant-4711&sort=name",
    "a label": "label=team=t-7",
    "a label, of a site": "label=team=t-7&site=site-7&sort=name",
}


def main() -> int:
    """Measure and print; return 0 when both promises are kept."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--grants", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=200, help="how often each list is asked for")
    parser.add_argument("--dir", type=Path, help="where the database lies (a temporary folder)")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="grantserver-bench-", dir=arguments.dir) as path:
        folder = Path(path)
        about = machine.describe(folder, cores[0], cores[-1])
        print("\n".join(f"{key:13} {value}" for key, value in about.items()), end="\n\n")
        port, ops, redemption = free_port(), free_port(), free_port()
        environment = {
            "GRANTSERVER_DATA_DIR": str(folder / "data"),
            "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{redemption}",
            "GRANTSERVER_LISTEN_OPS": f"127.0.0.1:{ops}",
            "GRANTSERVER_LISTEN_ADMIN": f"127.0.0.1:{port}",
            "GRANTSERVER_REACH_URL": f"https://127.0.0.1:{redemption}",
        }
        home = open_home(settings.load(environment))
        try:
            fill(home, arguments.grants)
            token, ca = a_token(home), home.reach().ca_pem
        finally:
            home.database.close()
        with running(
            ("-m", "app", "serve"),
            port=port,
            ready=lambda: says_ready(ops),
            core=cores[0],
            log=folder / "server.log",
            environment=environment,
        ):
            os.sched_setaffinity(0, {cores[-1]})
            return measure(Client(port, token, ca), arguments.grants, arguments.times)


class Client:
    """One connection to the admin API, kept open."""

    def __init__(self, port: int, token: str, ca: str) -> None:
        context = ssl.create_default_context(cadata=ca)
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes, float]:
        """Ask once; gives status, body, and the milliseconds that it took."""
        sent = None if body is None else json.dumps(body)
        began = time.perf_counter()
        self._connection.request(method, f"/api/v1{path}", sent, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        return answer.status, content, (time.perf_counter() - began) * 1000


def fill(home: Home, count: int) -> None:
    """Make sites, and grants of all states over the last thirty days."""
    now = ambient.utc_now()
    for number in range(SITES):
        sites.put(
            home.database,
            name=f"site-{number}",
            endpoints=[parse_endpoint("inter-router=127.0.0.1:55671")],
            issuer=None,
            actor="cli:bench",
            now=now,
        )
    with home.database.writing() as connection:
        for number in range(count):
            created_at = now - 30 * DAY + 30 * DAY * number // count
            grant_rows.add(
                connection,
                Grant(
                    id=new_id(created_at * 1000, ambient.random_bytes(ID_RANDOM_BYTES)),
                    name=f"grant-{number}",
                    site=f"site-{number % SITES}",
                    concealed_code="hmac-sha256:none:" + 64 * "0",
                    allowed=1,
                    spent=1 if number % 3 == 0 else 0,
                    cost=1,
                    created_at=created_at,
                    expires_at=created_at + (40 * DAY if number % 2 else DAY),
                    revoked_at=now if number > 0.99 * count and number % 50 == 1 else None,
                    labels={"team": f"t-{number % 100}"} if number % 5 else {},
                ),
            )


def a_token(home: Home) -> str:
    """Make a token for everything."""
    return admin_tokens.create(
        home.database,
        name="bench",
        rights=read_rights(["*"], ["*"]),
        window_seconds=None,
        keys=home.admin_token_keys,
        actor="cli:bench",
        now=ambient.utc_now(),
        random_bytes=ambient.random_bytes,
    ).secret


def measure(client: Client, size: int, times: int) -> int:
    """Ask, print, and tell whether the promises are kept."""
    found: dict[str, list[float]] = {}
    wrong = 0
    for title, query in LISTS.items():
        taken, bad = timed(lambda _, q=query: client.ask("GET", f"/grants?{q}"), 200, times)  # type: ignore[misc]
        found[title], wrong = taken, wrong + bad
    created, bad = timed(
        lambda number: client.ask("POST", "/grants", {"name": f"new-{number}", "site": "site-1"}),
        201,
        times,
    )
    wrong += bad
    print(f"{size:,} grants, pages of 100    {'p50 ms':>8} {'p99 ms':>8}")
    for title, taken in (*found.items(), ("create", created)):
        print(f"{title:32} {statistics.median(taken):8.1f} {p99(taken):8.1f}")
    judged = [
        Limit(
            what="slowest list, p99, ms",
            value=max(map(p99, found.values())),
            target=LIST_P99_MS,
            stretch=LIST_P99_MS / 2,
        ),
        Limit(
            what="create, p50, ms",
            value=statistics.median(created),
            target=CREATE_P50_MS,
            stretch=CREATE_P50_MS / 2,
        ),
    ]
    print("\n" + report.verdicts(judged))
    if wrong:
        print(f"failed: {wrong} answers were not as expected", file=sys.stderr)
    return 1 if wrong or any(each.verdict() == "MISSED" for each in judged) else 0


def timed(
    ask: Callable[[int], tuple[int, bytes, float]], status: int, times: int
) -> tuple[list[float], int]:
    """Ask so often, after ten times to warm up; gives the milliseconds, and how many were wrong."""
    answers = [ask(number) for number in range(times + 10)]
    return (
        [taken for _, _, taken in answers[10:]],
        sum(found != status for found, _, _ in answers),
    )


def p99(taken: list[float]) -> float:
    """The value that 99 of 100 do not exceed."""
    return sorted(taken)[min(len(taken) - 1, int(len(taken) * 0.99))]


if __name__ == "__main__":
    sys.exit(main())
