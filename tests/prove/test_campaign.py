"""The proof finds what was planted, each time, and nothing where nothing was."""

from pathlib import Path

import pytest

from prove import campaign
from prove.campaign import Failed, Plan
from prove.points import Point

SMALL = 500
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """What to say to the proof: a kind, or the URL of an empty database."""
    if request.param == "sqlite":
        return "sqlite"
    url: str = request.getfixturevalue("cluster").create()
    return url


def a_plan(**changes: object) -> Plan:
    plan: dict[str, object] = {
        "attempts": SMALL,
        "tls": 100,
        "kills": 0,
        "database": "sqlite",
        "seed": 1,
    }
    return Plan(**(plan | changes))  # type: ignore[arg-type]


def run(plan: Plan, directory: Path) -> list[str]:
    said: list[str] = []
    done = campaign.run(plan, directory, said.append)
    return campaign.report(plan, done, directory, 1.0).splitlines()


def test_the_server_as_it_is_loses_nothing_and_gives_nothing_extra(tmp_path: Path) -> None:
    """On the other database as well in `make prove-short`, which is part of `make check`."""
    report = run(a_plan(kills=12), tmp_path)
    assert f"{SMALL} attempts, " in report[-3]
    assert all(any(point.value in line for line in report) for point in Point)
    assert report[-3].endswith("12 kills: 0 extra, 0 lost")


def test_without_the_guard_in_the_statement_it_fails(tmp_path: Path, database: str) -> None:
    plan = a_plan(wrapper="tests.prove.plants:no_guard", database=database)
    with pytest.raises(Failed, match="impossible") as failed:
        run(plan, tmp_path)
    assert "(500)" in str(failed.value)
    assert "--seed 1" in str(failed.value)
    (history,) = tmp_path.glob("*/history-*.json")
    assert str(history) in str(failed.value)
    assert '"answer": "impossible"' in history.read_text()


@pytest.mark.parametrize(("attempts", "kills"), [(SMALL, 0), (0, 6)])
def test_with_the_answer_kept_outside_the_transaction_it_fails(
    tmp_path: Path, database: str, attempts: int, kills: int
) -> None:
    plan = a_plan(
        wrapper="tests.prove.plants:answer_kept_after_the_commit",
        database=database,
        attempts=attempts,
        tls=attempts // 5,
        kills=kills,
    )
    with pytest.raises(Failed, match=r"extra|lost"):
        run(plan, tmp_path)


@pytest.mark.parametrize(("attempts", "kills"), [(SMALL, 0), (0, 6)])
def test_with_the_spend_before_the_mint_it_fails(
    tmp_path: Path, database: str, attempts: int, kills: int
) -> None:
    plan = a_plan(
        wrapper="tests.prove.plants:spent_before_the_mint",
        database=database,
        attempts=attempts,
        tls=attempts // 5,
        kills=kills,
    )
    with pytest.raises(Failed, match=r"extra|lost"):
        run(plan, tmp_path)
