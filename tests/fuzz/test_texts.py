import pytest
from hypothesis import given, settings

from app.domain.sites import Role
from fuzz import texts

# From the tests of Go's own `time.ParseDuration`: nanoseconds, or None where it gives an error.
GO = {
    "0": 0,
    "5s": 5 * 10**9,
    "-5s": -5 * 10**9,
    "+0": 0,
    "5.6s": 5_600_000_000,
    "5.s": 5 * 10**9,
    ".5s": 500_000_000,
    "100.00100s": 100_001_000_000,
    "12\u00b5s": 12_000,
    "12\u03bcs": 12_000,
    "3h30m": 12_600 * 10**9,
    "-2m3.4s": -123_400_000_000,
    "1h2m3s4ms5us6ns": 3_723_004_005_006,
    "39h9m14.425s": 140_954_425_000_000,
    "52763797000ns": 52_763_797_000,
    "9223372036854775807ns": 2**63 - 1,
    "9223372036854775.807us": 2**63 - 1,
    "-9223372036854775808ns": -(2**63),
    "-9223372036854775.808us": -(2**63),
    "0.100000000000000000000h": 360 * 10**9,
    "": None,
    "3": None,
    "-": None,
    "s": None,
    ".": None,
    "-.": None,
    ".s": None,
    "+.s": None,
    "1d": None,
    "\x85\x85": None,
    "\uffff": None,
    "9223372036854775810ns": None,
    "9223372036854775808ns": None,
    "-9223372036854775809ns": None,
    "9223372036854776us": None,
    "3000000h": None,
}


@pytest.mark.parametrize("text", GO)
def test_durations_are_read_as_go_reads_them(text: str) -> None:
    found = texts.go_duration(text)
    assert (found[0] if found else None) == GO[text]
    texts.check_duration(text.encode())


@settings(deadline=None, max_examples=300)
@given(texts.DURATIONS.strategy())
def test_damaged_durations_are_read_as_go_reads_them(content: bytes) -> None:
    texts.check_duration(content)


@settings(deadline=None, max_examples=30)
@given(texts.ANSWERS)
def test_both_versions_of_yaml_read_an_answer_alike(
    value: tuple[str, list[tuple[Role, str, int, str]], int],
) -> None:
    texts.check_answer(value)


@settings(deadline=None, max_examples=40)
@given(texts.TOKENS)
def test_both_versions_of_yaml_read_a_token_alike(value: tuple[str, str, str, int]) -> None:
    texts.check_token(value)


@settings(deadline=None, max_examples=60)
@given(texts.SHOWN)
def test_both_versions_of_yaml_read_alike_what_commands_print(
    value: tuple[str, str, str, str],
) -> None:
    texts.check_shown(value)


@settings(deadline=None, max_examples=100)
@given(texts.FOREIGN_YAML.strategy())
def test_damaged_yaml_is_read_whole_or_refused(content: bytes) -> None:
    texts.check_foreign_yaml(content)


@settings(deadline=None, max_examples=60)
@given(texts.FAR_ANSWERS.strategy())
def test_damaged_answers_of_a_far_server_bring_nothing_that_was_not_asked_for(
    content: bytes,
) -> None:
    texts.check_far_answer(content)


@pytest.mark.parametrize("trap", texts.TRAPS)
def test_what_some_yaml_takes_for_something_else_comes_back_as_it_was(trap: str) -> None:
    texts.check_shown((trap, trap, trap, trap))
    texts.check_token((trap, trap, trap, 1))
