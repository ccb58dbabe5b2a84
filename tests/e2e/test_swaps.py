"""The server's certificate and its CA change while it serves, and nobody is the worse for it."""

import itertools
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app import ambient, settings
from app.home import Home, open_home, rotation_times
from app.services import addresses, rotation
from app.store.addresses import AddressRow
from tests.crew import eventually
from tests.e2e.clients import Holder, holder, issue, shown_at
from tests.installation import Installation
from tests.pki import Folder, a_root
from tests.running import ENDPOINTS, running

PER_SECOND = 200
REDEMPTIONS = 1000
CLIENTS = 8
SWAPS = 6


@dataclass(slots=True, kw_only=True)
class Load:
    """Redemptions at a steady pace, until there were enough and whoever swaps is done."""

    holder: Holder
    done: threading.Event = field(default_factory=threading.Event)
    answers: Counter[int | str] = field(default_factory=Counter)
    shown: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Redeem with all clients; each redemption has its own moment, whatever the others do."""
        numbers = itertools.count()
        began = ambient.monotonic()

        def client() -> None:
            pause = threading.Event()
            while (number := next(numbers)) < REDEMPTIONS or not self.done.is_set():
                pause.wait(max(0.0, began + number / PER_SECOND - ambient.monotonic()))
                self._redeem(f"site-{number}")

        with ThreadPoolExecutor(CLIENTS) as pool:
            for one in [pool.submit(client) for _ in range(CLIENTS)]:
                one.result()

    def _redeem(self, subject: str) -> None:
        try:
            status, shown = self.holder.redeem_and_look(subject)
        except OSError as error:
            self.answers[type(error).__name__] += 1
        else:
            self.answers[status] += 1
            self.shown.add(shown)


def under_load(out: Holder, swap: Callable[[], str]) -> Load:
    """Redeem all the time while `swap` is called; each of its certificates is waited for."""
    load = Load(holder=out)

    def swaps() -> None:
        try:
            assert eventually(lambda: load.answers[200] > CLIENTS)
            for _ in range(SWAPS):
                new = swap()
                assert eventually(lambda new=new: new in load.shown)  # type: ignore[misc]
        finally:
            load.done.set()

    with ThreadPoolExecutor(1) as pool:
        swapping = pool.submit(swaps)
        load.run()
        swapping.result()
    return load


def token(installation: Installation, name: str, redemptions: int = 1) -> str:
    """Make a token with the command line."""
    options = ("--name", name, "--redemptions", str(redemptions))
    text = installation.type("token", "issue", "-", *options)
    assert "AccessToken" in text, installation.said
    return text


def with_site(installation: Installation) -> Installation:
    endpoints = itertools.chain.from_iterable(("--endpoint", one) for one in ENDPOINTS)
    installation.type("site", "set", "west", *endpoints)
    return installation


def lead_of(installation: Installation) -> tuple[str, int]:
    return "127.0.0.1", installation.port


def home_of(installation: Installation) -> Home:
    chosen = {k: v for k, v in installation.environment.items() if k.startswith("GRANTSERVER_")}
    return open_home(settings.load(chosen))


def rotate(home: Home) -> None:
    """As `ca rotate server-ca` does, without a process of its own."""
    rotation.rotate(
        home.database,
        home.keyring,
        name="server-ca",
        times=rotation_times(home.settings),
        actor="test",
        now=ambient.utc_now(),
        random_bytes=ambient.random_bytes,
    )


def test_a_thousand_redemptions_at_200_a_second_do_not_notice_that_files_are_swapped(
    tmp_path: Path,
) -> None:
    """Certificates with keys of all kinds, put in place file by file and told of by SIGHUP."""
    root = a_root()
    folder = Folder(directory=tmp_path / "tls")
    folder.write(root.certify("127.0.0.1"), root)
    served = with_site(Installation(tmp_path, **folder.environment))
    kinds = itertools.cycle(["rsa", "ed25519", "p256"])
    with served.serving() as pid:
        out = holder(token(served, "loaded", 100_000), lead_of(served))

        def swap() -> str:
            new = root.certify("127.0.0.1", kind=next(kinds))
            folder.write(new, root)
            os.kill(pid, signal.SIGHUP)
            return new.fingerprint

        load = under_load(out, swap)
    assert set(load.answers) == {200}
    assert load.answers[200] >= REDEMPTIONS
    assert len(load.shown) == SWAPS + 1
    assert " warning " not in served.log.read_text()


def test_a_thousand_redemptions_at_200_a_second_do_not_notice_a_rotation_or_a_new_address(
    tmp_path: Path,
) -> None:
    """The token is as old as the first CA, and knows no other."""
    served = with_site(Installation(tmp_path))
    with served.serving() as pid:
        out = holder(token(served, "loaded", 100_000), lead_of(served))
        home = home_of(served)
        numbers = itertools.count()

        def swap() -> str:
            before = shown_at(lead_of(served))
            number = next(numbers)
            if number % 2:
                hosts = (f"further-{number}.example",)
                row = AddressRow(url="https://elsewhere.example", hosts=hosts)
                addresses.tell(home.database, row, now=ambient.utc_now())
            else:
                rotate(home)
            os.kill(pid, signal.SIGHUP)
            assert eventually(lambda: shown_at(lead_of(served)) != before)
            return shown_at(lead_of(served))

        load = under_load(out, swap)
        home.database.close()
    assert set(load.answers) == {200}
    assert load.answers[200] >= REDEMPTIONS
    assert len(load.shown) == SWAPS + 1


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> list[Installation]:
    """Two servers on one database, not started yet; each with its own ports."""
    further = {}
    if request.param == "postgresql":
        further["GRANTSERVER_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    return [with_site(Installation(tmp_path, **further)) for _ in range(2)]


def test_a_token_outlives_the_ca_that_it_was_made_under_at_every_replica(
    pair: list[Installation],
) -> None:
    first, second = pair
    with first.serving(), second.serving():
        ways = [lead_of(one) for one in pair]
        assert len({shown_at(way) for way in ways}) == 1
        texts = [token(first, "generation-0", 4)]
        for generation in (1, 2):
            before = shown_at(ways[0])
            first.type("ca", "rotate", "server-ca")
            assert eventually(lambda: all(shown_at(way) != before for way in ways))  # noqa: B023
            assert len({shown_at(way) for way in ways}) == 1
            texts.append(token(second, f"generation-{generation}", 4))
        out = [holder(text, way) for text in texts for way in ways]
        answers = [one.redeem(f"site-{number}") for number, one in enumerate(out)]
        assert answers == [200] * len(out)
        trusted = [one.token.ca_pem.count("BEGIN CERTIFICATE") for one in out]
        assert trusted == [1, 1, 2, 2, 3, 3]


def test_whoever_trusts_one_generation_of_the_ca_alone_gets_through(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        way = server.addresses.redemption
        issue(server.home, "out")
        for _ in range(2):
            before = shown_at(way)
            rotate(server.home)
            assert eventually(lambda: shown_at(way) != before)  # noqa: B023
        text = issue(server.home, "all", redemptions=10)
        begin = "-----BEGIN CERTIFICATE-----"
        _, *generations = holder(text, way).token.ca_pem.split(begin)
        assert len(generations) == 3
        for number, one in enumerate(generations):
            alone = holder(text, way, ca_pem=begin + one)
            assert alone.redeem(f"trusts-{number}") == 200


def test_files_that_change_are_served_without_a_word_from_anybody(tmp_path: Path) -> None:
    root = a_root()
    folder = Folder(directory=tmp_path / "tls")
    old, new = root.certify("127.0.0.1"), root.certify("127.0.0.1", kind="rsa")
    folder.write(old, root)
    served = Installation(tmp_path, **folder.environment)
    with served.serving():
        way = lead_of(served)
        folder.put("tls.crt", new.pem)  # the key is still the old one
        assert eventually(lambda: "what is served stays as it was" in served.log.read_text())
        assert shown_at(way) == old.fingerprint
        folder.put("tls.key", new.key_pem)
        assert eventually(lambda: shown_at(way) == new.fingerprint)
    lines = served.log.read_text().splitlines()
    assert len([line for line in lines if "stays as it was" in line]) == 1
    assert "PRIVATE KEY" not in "".join(lines)
