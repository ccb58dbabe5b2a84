import pytest

from app.cli.exits import CODES, Exit, code, one_line, problems
from app.errors import (
    Broken,
    GrantServerError,
    Invalid,
    Lack,
    Misconfigured,
    Missing,
    Unavailable,
    Unready,
)
from tests.errors import one_of_each, tree


def test_every_error_has_an_exit_code_and_a_line() -> None:
    for error in one_of_each():
        assert code(error) in set(Exit) - {Exit.DONE}
        assert problems(error)


def test_the_table_has_every_class_and_no_other() -> None:
    assert set(CODES) == set(tree())


def test_a_class_below_is_treated_as_the_one_above() -> None:
    assert code(type("Full", (Unavailable,), {})("x")) is Exit.NOT_YET


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (Invalid("token", "a: x\nb: y"), ["token: a: x", "token: b: y"]),
        (Misconfigured(["one", "two"]), ["one", "two"]),
        (Missing("grant", "x"), ['no grant "x": `grantserver grant list` shows what there is']),
        (Missing("database", "x"), ['no database "x"']),
        (Unready(Lack.ISSUER, "no CA"), ["no CA; trying again may help"]),
        (Broken("x"), ["x: this is a fault in the program or its data, please report it"]),
    ],
)
def test_a_problem_is_a_line_with_what_to_do(error: GrantServerError, lines: list[str]) -> None:
    assert problems(error) == lines


def test_a_line_is_safe_for_a_terminal_and_ends() -> None:
    assert one_line("a\x1b[2J\nb\u202e") == "a\\x1b[2J\\nb\\u202e"
    assert len(one_line("x" * 5000)) == 1001
