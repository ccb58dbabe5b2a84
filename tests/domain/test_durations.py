import contextlib
import re
from fractions import Fraction
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.domain.durations import ALLOWED, format_seconds, parse_duration, parse_window
from app.errors import Invalid

# Written down once more from Go's documentation, so that a slip in the module's own table shows.
UNITS: Final = {
    "ns": Fraction(1),
    "us": Fraction(10**3),
    "\u00b5s": Fraction(10**3),
    "\u03bcs": Fraction(10**3),
    "ms": Fraction(10**6),
    "s": Fraction(10**9),
    "m": Fraction(60 * 10**9),
    "h": Fraction(3600 * 10**9),
}
GRAMMAR: Final = re.compile(
    "[-+]?(?:0|(?:(?:[0-9]+(?:[.][0-9]*)?|[.][0-9]+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)"
)
LONGEST: Final = 2**63 - 1

DIGITS: Final = st.text("0123456789", min_size=1, max_size=6)
NUMBERS: Final = st.one_of(
    st.tuples(DIGITS, st.none()),
    st.tuples(DIGITS, st.text("0123456789", max_size=12)),
    st.tuples(st.just(""), st.text("0123456789", min_size=1, max_size=12)),
)
PARTS: Final = st.lists(st.tuples(NUMBERS, st.sampled_from(sorted(UNITS))), min_size=1, max_size=5)


def written(parts: list[tuple[tuple[str, str | None], str]]) -> str:
    return "".join(
        whole + ("" if fraction is None else f".{fraction}") + unit
        for (whole, fraction), unit in parts
    )


def value(parts: list[tuple[tuple[str, str | None], str]]) -> int:
    """Add up what Go would: each part's fraction is cut to whole nanoseconds by itself."""
    total = 0
    for (whole, fraction), unit in parts:
        total += int(whole or "0") * int(UNITS[unit])
        total += int(Fraction(f"0.{fraction or '0'}") * UNITS[unit])
    return total


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("25m", 1500),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("90s", 90),
        ("1h1m1s", 3661),
        ("+5s", 5),
        (".5m", 30),
        ("1.m", 60),
        ("30s1m", 90),
        ("1m1m", 120),
        ("0.5s0.5s", 1),
        ("2540400h", 2540400 * 3600),
    ],
)
def test_go_durations_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds * 10**9
    assert parse_window(text) == seconds


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("+0", 0),
        ("0s", 0),
        ("-1h", -3600 * 10**9),
        ("1ns", 1),
        ("1us", 1000),
        ("1\u00b5s", 1000),
        ("1\u03bcs", 1000),
        ("1ms", 1_000_000),
        ("1.9ns", 1),
        ("9223372036854775807ns", LONGEST),
        ("-9223372036854775807ns", -LONGEST),
        ("-9223372036854775808ns", -LONGEST - 1),
    ],
)
def test_durations_that_are_no_window_are_read_too(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1ns", 1), ("1ms", 1), ("999ms", 1), ("1s", 1), ("1.000000001s", 2), ("1500ms", 2)],
)
def test_a_fraction_of_a_second_counts_as_a_whole_one(text: str, seconds: int) -> None:
    assert parse_window(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "", "+", "-", ".", ".s", "-.s", "1.2.3s", "1d", "1w", "90", "1.5", "1", "00", "1h30",
        "h", "s1", "1 h", " 1h", "1h ", "1h\n", "1H", "1S", "1hour", "1min", "1e3s", "1_0s", "0x1s",
        "+-1s", "--1s", "1,5h", "1h-1m", "1s\x00", "\x00", "\ud800", "1\ud800s", "infs", "nans",
        "\u0661h", "\u0967s", "\uff11s", "1\uff53", "\u00b2s", "\u2160h", "1\u00b5", "\u00b5s",
        "9223372036854775808ns", "-9223372036854775809ns", "2562048h",
        "9" * 300 + "h", "1s" * 200, "1s" + " " * 10_000,
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_told_what_is_allowed(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_duration(text)
    assert refused.value.field == "duration"
    assert refused.value.why.endswith(ALLOWED)
    assert len(str(refused.value)) < 600
    with pytest.raises(Invalid) as refused:
        parse_window(text, field="expirationWindow")
    assert refused.value.field == "expirationWindow"
    assert ALLOWED in refused.value.why


@pytest.mark.parametrize("text", ["0", "0s", "-0", "-1h", "-1ns", "0.0h", "0.1ns"])
def test_a_window_that_is_not_above_zero_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="not above zero") as refused:
        parse_window(text)
    assert refused.value.field == "window"
    assert ALLOWED in refused.value.why


def test_what_is_allowed_names_every_example_of_the_documentation() -> None:
    for example in ("90s", "25m", "1h30m", "1.5h"):
        assert example in ALLOWED
        assert parse_window(example) > 0


@given(sign=st.sampled_from(["", "+", "-"]), parts=PARTS)
def test_whatever_the_grammar_makes_has_the_value_that_arithmetic_gives(
    sign: str, parts: list[tuple[tuple[str, str | None], str]]
) -> None:
    expected = value(parts)
    text = sign + written(parts)
    assert GRAMMAR.fullmatch(text)
    assume(expected <= LONGEST)
    assert parse_duration(text) == (-expected if sign == "-" else expected)
    if sign == "-" or expected == 0:
        with pytest.raises(Invalid):
            parse_window(text)
    else:
        assert parse_window(text) == -(-expected // 10**9)


@given(
    parts=PARTS,
    position=st.integers(min_value=0, max_value=80),
    put=st.one_of(st.characters(), st.sampled_from([*"dwyDMHSN+-., \n_eE", "\u0663", "\u0ae7"])),
    removed=st.integers(min_value=0, max_value=3),
)
def test_a_text_that_was_tampered_with_is_refused_unless_the_grammar_still_has_it(
    parts: list[tuple[tuple[str, str | None], str]], position: int, put: str, removed: int
) -> None:
    text = written(parts)
    mutated = text[:position] + put + text[position + removed :]
    if GRAMMAR.fullmatch(mutated):
        with contextlib.suppress(Invalid):  # five parts of hours may be more than 64 bits hold
            assert abs(parse_duration(mutated)) <= LONGEST
    else:
        with pytest.raises(Invalid):
            parse_duration(mutated)


@given(st.text(max_size=300))
def test_no_text_at_all_raises_anything_but_invalid(text: str) -> None:
    assume(not GRAMMAR.fullmatch(text))
    with pytest.raises(Invalid):
        parse_duration(text)
    with pytest.raises(Invalid):
        parse_window(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1, "1s"),
        (59, "59s"),
        (60, "1m"),
        (61, "1m1s"),
        (1500, "25m"),
        (3600, "1h"),
        (3601, "1h1s"),
        (5400, "1h30m"),
        (90_061, "25h1m1s"),
        (-90, "-1m30s"),
    ],
)
def test_seconds_are_written_as_the_shortest_duration(seconds: int, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.integers(min_value=-(LONGEST // 10**9), max_value=LONGEST // 10**9))
def test_what_is_written_reads_back_as_the_same(seconds: int) -> None:
    assert parse_duration(format_seconds(seconds)) == seconds * 10**9
