"""A whole server on PostgreSQL, and what clients see when that goes away and comes back."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.services import grants
from tests.e2e.test_contention import ALLOWED, check_exactly_allowed, rush
from tests.postgresql import PASSWORD, Cluster
from tests.running import PATIENCE, Answer, Server, running

SUBJECT = "5f0f8f8e-3f3b-4f7a-9a55-6f2f1c6f3a77"


@pytest.fixture
def url(cluster: Cluster) -> Iterator[str]:
    url = cluster.create(template="template0")
    yield url
    cluster.drop(url)


def test_sixty_clients_at_once_get_exactly_the_seven_that_are_allowed(
    tmp_path: Path, url: str
) -> None:
    with running(tmp_path, GRANTSERVER_DATABASE_URL=url) as server:
        issued = server.issue(redemptions=ALLOWED)
        check_exactly_allowed(server, issued, rush(server, issued))
        assert server.ops("/readyz").status == 200
        assert list((tmp_path / "data").glob("*.db*")) == []


def test_while_the_database_is_away_nothing_is_used_up_and_no_restart_is_needed(
    tmp_path: Path, url: str, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path, GRANTSERVER_DATABASE_URL=url) as server:
        issued = server.issue(redemptions=3)
        first = server.redeem(issued, subject=SUBJECT)
        assert first.status == 200
        cluster.stop()
        try:
            for number in range(3):
                began = time.perf_counter()  # noqa: TID251  # what a client would wait
                away = server.redeem(issued, subject=f"other-{number}")
                assert time.perf_counter() - began < 1  # noqa: TID251
                assert (away.status, away.body) == (503, b"Internal error\n")
            assert server.ops("/readyz").status == 503
        finally:
            cluster.start()
        again = server.redeem(issued, subject=SUBJECT)
        assert (again.status, again.body) == (200, first.body)
        assert [server.redeem(issued, subject=f"s{number}").status for number in range(3)] == [
            200,
            200,
            404,
        ]
        deadline = time.monotonic() + PATIENCE  # noqa: TID251
        while server.ops("/readyz").status != 200:  # it asks no more than once in a while
            assert time.monotonic() < deadline  # noqa: TID251
        assert grants.show(server.home.database, issued.grant.id)[0].spent == 3
    assert PASSWORD not in "".join(capfd.readouterr())


def test_two_servers_are_one_to_a_claim_that_comes_again(tmp_path: Path, url: str) -> None:
    with (
        running(tmp_path, GRANTSERVER_DATABASE_URL=url) as one,
        running(tmp_path, GRANTSERVER_DATABASE_URL=url) as other,
    ):
        issued = one.issue(redemptions=2)
        copies = 8

        def post(number: int) -> Answer:
            server: Server = (one, other)[number % 2]
            return server.redeem(issued, subject=SUBJECT)

        with ThreadPoolExecutor(copies) as pool:
            answers = list(pool.map(post, range(copies)))
        assert Counter(answer.status for answer in answers) == {200: copies}
        assert len({answer.body for answer in answers}) == 1
        assert grants.show(one.home.database, issued.grant.id)[0].spent == 1
