import argparse
from collections.abc import Callable
from pathlib import Path
from random import Random  # noqa: TID251
from typing import Any

import pytest
from hypothesis import strategies as st

from app.domain import yaml_documents
from fuzz import __main__ as program
from fuzz import texts
from fuzz.campaign import Run, Target, run, table
from fuzz.mutations import Damaged, Kind, Mutation
from fuzz.requests import DamagedRequests


class Noise:
    """Draws pieces of bytes."""

    def draw(self, random: Random) -> Any:
        return tuple(random.randbytes(9) for _ in range(3)), True


def broken_by(wrong: Callable[[Any], bool]) -> Callable[[Any], None]:
    def check(example: Any) -> None:
        assert not wrong(example), "planted"

    return check


def finding(target: Target) -> Any:
    done = run(target, seconds=20, number=7)
    assert done.finding is not None
    assert "planted" in str(done.finding.error)
    assert "AssertionError: planted" in table([done])
    return done.finding.example


def test_what_holds_is_tried_until_the_time_is_over() -> None:
    tried: list[int] = []
    done = run(Target(name="x", examples=st.integers(), check=tried.append), seconds=2, number=1)
    assert done.finding is None
    assert done.examples == len(tried) > 1
    assert 2 <= done.seconds < 60
    assert "none" in table([done])


def test_a_finding_is_made_small() -> None:
    integers = Target(name="x", examples=st.integers(), check=broken_by(lambda it: it > 999))
    assert finding(integers) == 1000
    damaged = Damaged(originals=[b"abcdefgh" * 9], words=[b"boom"])
    assert finding(
        Target(name="x", examples=damaged, check=broken_by(lambda it: b"boom" in it))
    ) == (b"boom")
    pieces, _ = finding(
        Target(name="x", examples=Noise(), check=broken_by(lambda it: b"\x07" in b"".join(it[0])))
    )
    assert b"".join(pieces) == b"\x07"


def test_any_error_is_a_finding_even_a_panic() -> None:
    class Panic(BaseException):
        pass

    def check(example: int) -> None:
        if example:
            raise Panic

    done = run(Target(name="x", examples=st.integers(), check=check), seconds=20, number=1)
    assert done.finding is not None
    assert isinstance(done.finding.error, Panic)
    assert done.finding.example in {1, -1}


def test_a_seed_repeats_a_run() -> None:
    runs = []
    for _ in range(2):
        tried: list[bytes] = []

        def check(example: bytes, tried: list[bytes] = tried) -> None:
            tried.append(example)

        run(Target(name="x", examples=texts.DURATIONS, check=check), seconds=0.2, number=3)
        runs.append(tried[:50])
    assert runs[0] == runs[1]


@pytest.mark.timeout(400)
def test_a_reader_of_yaml_that_lets_an_error_through_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the three thousandth example, however long a busy machine takes for so many."""
    monkeypatch.setattr(yaml_documents, "_ODD_TAGS", ())
    target = Target(name="x", examples=texts.FOREIGN_YAML, check=texts.check_foreign_yaml)
    done = run(target, seconds=300, number=1)
    assert done.finding is not None
    assert isinstance(done.finding.error, LookupError | AttributeError | ArithmeticError)


def test_a_finding_is_written_down_to_be_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Target(name="some-target", examples=Noise(), check=broken_by(lambda _: True))
    done = run(target, seconds=20, number=7)
    assert program.report([done], tmp_path / "found") == 1
    name, example, *remarks = (tmp_path / "found/some-target.txt").read_text().splitlines()
    assert done.finding is not None
    assert (name, example) == ("some-target", repr(done.finding.example))
    assert remarks
    assert all(line.startswith("#") for line in remarks)
    assert "--replay" in capsys.readouterr().out


def test_without_a_finding_nothing_is_written(tmp_path: Path) -> None:
    good = Run(name="x", examples=1, seconds=0.1, finding=None)
    assert program.report([good], tmp_path / "found") == 0
    assert not (tmp_path / "found").exists()


def test_a_whole_short_run_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["paths", "headers", "wrong-claims", "right-claims", "handshakes", "ops"]
    arguments = argparse.Namespace(minutes=0.1, seed=4, only=chosen)
    runs = program.fuzz(arguments)
    assert [one.name for one in runs] == [*chosen, program.END]
    assert [one.finding for one in runs] == [None] * len(runs)
    assert "wrong-claims" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind.PUT, b"0123XY6789"),
        (Kind.FLIP, b"0123556789"),
        (Kind.DELETE, b"01236789"),
        (Kind.REPEAT, b"012345456789"),
        (Kind.MOVE, b"0451236789"),
        (Kind.CUT, b"0123"),
    ],
)
def test_each_kind_of_damage_does_what_it_says(kind: Kind, expected: bytes) -> None:
    to = {Kind.FLIP: 0, Kind.REPEAT: 1, Kind.MOVE: 1}.get(kind, 0)
    damage = Mutation(kind=kind, at=4, length=2, to=to, data=b"XY")
    assert damage.apply(b"0123456789") == expected


def test_the_code_of_a_damaged_request_stays_whole_and_last() -> None:
    damaged = DamagedRequests.of(b"POST / HTTP/1.1\r\n\r\n", code=b"the-code")
    random = Random(1)
    for _ in range(100):
        pieces, _ = damaged.draw(random)
        assert b"".join(pieces).endswith(b"the-code")
