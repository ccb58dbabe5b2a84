from pathlib import Path

from app import ambient


def test_the_time_is_whole_seconds_of_this_machines_clock(tmp_path: Path) -> None:
    (tmp_path / "now").touch()
    now = ambient.utc_now()
    assert type(now) is int
    assert abs(now - (tmp_path / "now").stat().st_mtime) <= 2


def test_the_clock_for_durations_never_goes_back() -> None:
    readings = [ambient.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)


def test_random_bytes_are_as_many_as_asked_for_and_never_the_same() -> None:
    assert [len(ambient.random_bytes(count)) for count in (0, 1, 12, 16, 32)] == [0, 1, 12, 16, 32]
    assert len({ambient.random_bytes(16) for _ in range(1000)}) == 1000
