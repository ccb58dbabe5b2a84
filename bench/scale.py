"""`python bench/scale.py`: redeems against a store of a million grants and against a small one.

Two stores, both in a folder that is removed in the end: one with 1,000 grants and as many
redemptions, one with 1,000,000 of each. Single-use grants are redeemed against both in turns, in
this process, through what the server itself uses below its listener: the whole redemption, without
TLS and HTTP. What a turn has made is deleted after it, so both stores keep their size.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from app import ambient, settings
from app.crypto.certificates import serial_text
from app.crypto.leaves import SERIAL_BYTES, serial_number
from app.domain.grants import ID_RANDOM_BYTES, Claim, new_id
from app.home import Home, open_home
from app.services.redemption import Redeemer
from app.web import listeners
from bench import inside, machine, report
from bench.report import Target

SMALL, LARGE = 1_000, 1_000_000
DAYS = 30
"""The grants of a store were made, and redeemed a minute later, evenly over so many days."""
WINDOW = 900
FASTEST = 4_000
"""Redemptions per second that grants are prepared for; a turn that gets there ends early."""
WARM_SECONDS = 0.5
SYNC_SECONDS = 0.3
CACHE_KIB = 400_000
"""Memory for filling, so that a random place in an index need not be fetched from the disk."""


REDEMPTIONS = """
    INSERT INTO redemptions (grant_id, ordinal, name, subject, peer, serial, fingerprint,
        not_after, redeemed_at)
    SELECT id, 1, 'token-' || name, id, '192.0.2.7', new_serial(created_at + 60),
        lower(hex(randomblob(32))), created_at + 31536000, created_at + 60
    FROM grants WHERE id <> ? ORDER BY id
"""
ENTRIES = """
    INSERT INTO audit (at, act, actor, target, details)
    SELECT grants.created_at + 60 * done.redeemed, done.act, 'site:' || grants.id,
        'grant/' || grants.id, '{"ordinal":1,"peer":"192.0.2.7","serial":"' || hex(zeroblob(16))
        || '","name":"token-' || grants.name || '","fingerprint":"' || hex(zeroblob(32)) || '"}'
    FROM grants, (SELECT 'grant.created' AS act, 0 AS redeemed UNION ALL
        SELECT 'grant.redeemed', 1) AS done
    WHERE grants.id <> ? ORDER BY grants.id, done.redeemed
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a turn came to."""

    rate: float
    """Redemptions per second."""
    cpu_ms: float
    """CPU time of this process for each redemption."""
    written_kb: float
    """What was handed to the operating system to write, for each redemption."""


@dataclass(slots=True, kw_only=True)
class Store:
    """A filled store, what redeems from it, and what came of its turns."""

    size: int
    home: Home
    redeemer: Redeemer
    template: tuple[str, str] = field(repr=False)
    """Id and code of the grant that all others are copies of."""
    filled_in: float
    turns: list[Turn] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The database file."""
        return self.home.settings.data.dir / "grantserver.db"


class WrongError(Exception):
    """The store does not hold what was redeemed."""


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file beside the server's own connections."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        yield connection


def copy(connection: sqlite3.Connection, template: str, rows: Iterable[tuple[object, ...]]) -> None:
    """Copy a grant; each row says id, name, how often it was used, and when it was made."""
    found = connection.execute("SELECT * FROM grants WHERE id = ?", (template,))
    columns = [column[0] for column in found.description]
    row = dict(zip(columns, found.fetchone(), strict=True))
    own = ("id", "name", "spent", "created_at", "expires_at")
    fixed = {column: value for column, value in row.items() if column not in own}
    constants = ", ".join(
        connection.execute("SELECT quote(?)", (value,)).fetchone()[0] for value in fixed.values()
    )
    connection.executemany(
        f"INSERT INTO grants ({', '.join((*own, *fixed))})"
        f" VALUES (?1, ?2, ?3, ?4, ?4 + {WINDOW}, {constants})",
        rows,
    )


def fill(path: Path, template: str, size: int) -> None:
    """Put in `size` used grants, their redemptions, and the audit entries of both."""
    began = ambient.utc_now() - DAYS * 86_400

    def used() -> Iterator[tuple[object, ...]]:
        for number in range(size):
            milliseconds = began * 1000 + DAYS * 86_400_000 * number // size
            random = ambient.random_bytes(ID_RANDOM_BYTES + 8)
            grant_id = new_id(milliseconds, random[:ID_RANDOM_BYTES])
            yield grant_id, f"west-{random[ID_RANDOM_BYTES:].hex()}", 1, milliseconds // 1000

    with raw(path) as connection:
        # Nobody else is there yet, and what a crash leaves behind is removed with the folder.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}")
        connection.create_function("new_serial", 1, new_serial)
        copy(connection, template, used())
        connection.execute(REDEMPTIONS, (template,))
        connection.execute(ENTRIES, (template,))


def new_serial(redeemed_at: int) -> str:
    """Make a serial number as the product makes them."""
    return serial_text(serial_number(ambient.random_bytes(SERIAL_BYTES), redeemed_at))


def make(folder: Path, size: int) -> Store:
    """Make a store and fill it."""
    began = time.monotonic()
    home = open_home(settings.load({}, overrides={"data.dir": folder}))
    issued = inside.make_grant(home, "template", 36_000)
    home.database.close()
    fill(folder / "grantserver.db", issued.grant.id, size)
    home = open_home(home.settings)
    return Store(
        size=size,
        home=home,
        redeemer=inside.redeemer(home),
        template=(issued.grant.id, issued.code),
        filled_in=time.monotonic() - began,
    )


async def turn(store: Store, seconds: float, concurrency: int) -> Turn:
    """Redeem single-use grants for `seconds`."""
    template, code = store.template
    now = ambient.utc_now()
    ids = [
        new_id(now * 1000, ambient.random_bytes(ID_RANDOM_BYTES))
        for _ in range(int(seconds * FASTEST) + concurrency)
    ]
    with raw(store.path) as connection:
        before = {table: last(connection, table) for table in ("redemptions", "audit")}
        copy(connection, template, ((one, one, 0, now) for one in ids))
    flush(store)
    waiting, redeemed = iter(ids), 0

    async def redeem_on() -> None:
        nonlocal redeemed
        for grant_id in waiting:
            if time.monotonic() >= end:
                return
            number = redeemed
            claim = Claim(
                key=grant_id,
                presented_code=code.encode(),
                name=f"token-{number}",
                subject=grant_id,
                peer="192.0.2.7",
            )
            await store.redeemer.redeem(claim)
            redeemed += 1

    cpu, written, began = time.process_time(), written_bytes(), time.monotonic()
    end = began + seconds
    await asyncio.gather(*(redeem_on() for _ in range(concurrency)))
    done = Turn(
        rate=redeemed / (time.monotonic() - began),
        cpu_ms=1000 * (time.process_time() - cpu) / redeemed,
        written_kb=(written_bytes() - written) / redeemed / 1000,
    )
    with raw(store.path) as connection:
        (rows,) = connection.execute(
            "SELECT count(*) FROM redemptions WHERE id > ?", (before["redemptions"],)
        ).fetchone()
        fresh = "FROM grants WHERE id BETWEEN ? AND ? AND id <> ?", (min(ids), max(ids), template)
        (spent,) = connection.execute(f"SELECT sum(spent) {fresh[0]}", fresh[1]).fetchone()
        connection.execute(f"DELETE {fresh[0]}", fresh[1])
        for table, number in before.items():
            connection.execute(f"DELETE FROM {table} WHERE id > ?", (number,))
        connection.execute("DELETE FROM answers")
    flush(store)
    if not redeemed == rows == spent:
        raise WrongError(f"{redeemed} redeemed, {rows} rows, {spent} counted as spent")
    return done


def written_bytes() -> int:
    """Return how many bytes this process has handed to the operating system to write."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def last(connection: sqlite3.Connection, table: str) -> int:
    """Return the highest number in a table."""
    (number,) = connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()
    return int(number)


def flush(store: Store) -> None:
    """Empty the log of writes, so that no turn pays for what happened before it."""
    with contextlib.closing(sqlite3.connect(store.path, timeout=30)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def measure(arguments: argparse.Namespace, stores: Sequence[Store], folder: Path) -> None:
    """Give both stores their turns, to and fro, so that a drift favours neither."""
    for store in stores:
        await turn(store, WARM_SECONDS, arguments.concurrency)
    syncs = []
    for number in range(arguments.rounds):
        for store in stores if number % 2 == 0 else reversed(stores):
            store.turns.append(await turn(store, arguments.seconds, arguments.concurrency))
        syncs.append(machine.syncs_per_second(folder, SYNC_SECONDS))
    for store in stores:
        await inside.close(store.redeemer)
        store.home.database.close()
    print(
        f"{'grants and redemptions':>24} {'/s':>6} {'lowest-highest':>15} {'CPU ms':>7}"
        f" {'written KB':>11} {'file MB':>8} {'filled':>8}"
    )
    for store in stores:
        rates = [each.rate for each in store.turns]
        print(
            f"{store.size:24,} {statistics.median(rates):6.0f}"
            f" {f'{min(rates):.0f}-{max(rates):.0f}':>15}"
            f" {statistics.median(each.cpu_ms for each in store.turns):7.3f}"
            f" {statistics.median(each.written_kb for each in store.turns):11.1f}"
            f" {store.path.stat().st_size / 1e6:8.0f} {store.filled_in:6.1f} s"
        )
    print("CPU, written: for each redemption, by this process.")
    print(f"fdatasync of 4 KiB alone: {statistics.median(syncs):.0f}/s\n")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--grants", type=int, default=LARGE, help="size of the large store")
    parser.add_argument("--small", type=int, default=SMALL, help="size of the small store")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each store")
    parser.add_argument("--concurrency", type=int, default=32, help="claims in flight")
    parser.add_argument("--dir", type=Path, help="where the stores lie (a temporary folder)")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    return parser.parse_args()


def main() -> int:
    """Fill, measure and print; return 0 unless a store does not hold what was redeemed."""
    arguments = options()
    with tempfile.TemporaryDirectory(prefix="grantserver-scale-", dir=arguments.dir) as name:
        folder = Path(name)
        print(f"file system  {machine.file_system(folder)}")
        print(f"load average {' '.join(f'{value:.2f}' for value in os.getloadavg())}\n")
        if machine.file_system(folder) in machine.IN_MEMORY:
            print("This file system keeps nothing: no commit is durable here. Try --dir.")

        async def run() -> list[Store]:
            # Opened in the loop that redeems from them.
            stores = [
                make(folder / f"{label}", size)
                for label, size in (("small", arguments.small), ("large", arguments.grants))
            ]
            await measure(arguments, stores, folder)
            return stores

        try:
            small, large = listeners.run(run)
        except WrongError as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
    pairs = list(zip(large.turns, small.turns, strict=True))
    rates = [mine.rate / other.rate for mine, other in pairs]
    what = f"redemptions/s, {large.size:,} grants to {small.size:,}"
    targets = [
        Target(what=what, value=statistics.median(rates), target=0.9, stretch=1.0),
        Target(
            what="the same by CPU time",
            value=statistics.median(other.cpu_ms / mine.cpu_ms for mine, other in pairs),
            target=0.9,
            stretch=1.0,
        ),
    ]
    print(report.verdicts(targets))
    print(f"redemptions/s in single rounds: {min(rates):.2f} to {max(rates):.2f}")
    if arguments.json:
        facts = {
            "stores": [
                {
                    "size": one.size,
                    "filled_in": one.filled_in,
                    "turns": [asdict(each) for each in one.turns],
                }
                for one in (small, large)
            ],
            "targets": [asdict(each) | {"verdict": each.verdict()} for each in targets],
        }
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
