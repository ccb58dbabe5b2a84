"""Who guesses is stopped, and nobody else notices."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.ambient import monotonic
from app.domain.audit import Act
from app.services import audit, grants
from tests.running import PATIENCE, Server, running

GUESSES = 2000
CLIENTS = 8
ALLOWED = 150
GUESSER = "127.0.0.2"
RIGHTFUL = "127.0.0.3"


def test_a_flood_of_wrong_codes_costs_the_others_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        issued = server.issue(redemptions=ALLOWED)
        path = f"/{issued.grant.id}"
        ready = threading.Barrier(CLIENTS + 1)

        def flood(_: int) -> Counter[int]:
            ready.wait(30)
            return Counter(
                server.request("POST", path, b"wrong", peer=GUESSER).status
                for _ in range(GUESSES // CLIENTS)
            )

        def redeem() -> Counter[int]:
            ready.wait(30)
            return Counter(
                server.redeem(issued, subject=f"site-{number}", peer=RIGHTFUL).status
                for number in range(ALLOWED)
            )

        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            floods = [pool.submit(flood, number) for number in range(CLIENTS)]
            redeemed = pool.submit(redeem).result()
            refused = sum((one.result() for one in floods), Counter[int]())

        assert redeemed == {200: ALLOWED}
        assert refused[403] + refused[429] == GUESSES
        assert refused[429] > GUESSES // 2
        assert grants.show(server.home.database, issued.grant.id)[0].spent == ALLOWED


def test_a_grant_that_is_guessed_at_from_everywhere_is_redeemed_all_the_same(
    tmp_path: Path,
) -> None:
    """A hundred addresses lock it, and it is told of once."""
    with running(tmp_path) as server:
        issued = server.issue(redemptions=2)
        path = f"/{issued.grant.id}"
        peers = [f"127.0.2.{number}" for number in range(1, 111)]
        first = [server.request("POST", path, b"wrong", peer=peer).status for peer in peers]
        assert Counter(first) == {403: 110}
        assert {server.redeem(issued, peer=peer).status for peer in peers[:5]} == {429}
        assert server.redeem(issued, peer=RIGHTFUL).status == 200
        give_up = monotonic() + PATIENCE
        while locks(server) < 1 and monotonic() < give_up:  # within a second or two
            pass
        assert locks(server) == 1
        entries = audit.latest(server.home.database, limit=9)
    (locked,) = [one for one in entries if one.act is Act.GRANT_LOCKED]
    assert locked.target == f"grant/{issued.grant.id}"


def locks(server: Server) -> float:
    lines = server.ops("/metrics").body.decode().splitlines()
    name = "grantserver_grant_locks_total "
    return float(next(line for line in lines if line.startswith(name)).removeprefix(name))
