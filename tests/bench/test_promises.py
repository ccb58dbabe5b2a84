from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bench.load import Figures
from bench.promises import BARE, INCUMBENT, SINGLE, several, targets
from bench.report import Slice


def a_slice(rate: float, cpu_ms: float) -> Slice:
    figures = Figures(
        answers=1000,
        statuses={"200": 1000},
        elapsed=1000 / rate,
        rate=rate,
        p50_ms=20.0,
        p90_ms=25.0,
        p99_ms=30.0,
        worst_ms=40.0,
        generator_cpu_us=600.0,
        generator_busy=0.6,
        server_core_busy=1.0,
    )
    return Slice(figures=figures, server_cpu=cpu_ms)


def measured(**rates: float) -> dict[str, list[Slice]]:
    """Contenders of so many answers per second, each of them with cores that are busy."""
    titles = {"bare": BARE, "incumbent": INCUMBENT, "single": SINGLE, "crew": several(2)}
    return {
        titles[name]: [a_slice(rate, (2 if name == "crew" else 1) * 1000 / rate)] * 3
        for name, rate in rates.items()
    }


def judged(found: Mapping[str, Sequence[Slice]], **further: Any) -> dict[str, tuple[float, str]]:
    made = targets(found, rss_mb=80, first_start=3.0, start=1.5, **further)
    return {f"{each.what} {each.target}": (round(each.value, 2), each.verdict()) for each in made}


def test_each_database_has_its_own_target() -> None:
    found = measured(bare=1000, incumbent=10, single=520)
    on_sqlite, on_postgresql = judged(found), judged(found, postgresql=True)
    assert on_sqlite["redemptions/s to bare handshakes/s 0.55"] == (0.52, "MISSED")
    assert on_postgresql["redemptions/s to bare handshakes/s 0.5"] == (0.52, "met")
    assert on_sqlite["times the incumbent's way 50"] == (52.0, "met")
    assert on_sqlite["start to ready 2"] == (1.5, "met")
    assert on_sqlite["the first start to ready 2"] == (3.0, "MISSED")
    assert not any("start" in what for what in on_postgresql)


@pytest.mark.parametrize(
    ("rate", "ratio", "verdict"),
    [(960, 1.92, "stretch"), (860, 1.72, "met"), (840, 1.68, "MISSED")],
)
def test_a_second_worker_is_worth_nearly_a_server(rate: int, ratio: float, verdict: str) -> None:
    found = measured(bare=1000, incumbent=10, single=500, crew=rate)
    both = judged(found, workers=2)
    assert both["2 workers to one 1.7"] == (ratio, verdict)
    # Two cores that are busy all the time: what they come to is what a redemption costs them.
    assert both["the same by CPU time 1.7"] == (ratio, verdict)
    assert not any("workers" in what for what in judged(found))
