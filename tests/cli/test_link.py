import pytest

from tests.cli.conftest import Cli


@pytest.mark.parametrize("verb", ["list", "cost", "plan"])
def test_every_verb_has_a_help_with_an_example(cli: Cli, verb: str) -> None:
    assert f"grantserver link {verb} " in cli.done("link", verb, "--help")


@pytest.mark.parametrize("cost", ["0", "-1", "2147483648", "1.5", "x"])
def test_a_cost_that_no_router_takes_is_refused_before_anything_is_asked(
    cli: Cli, cost: str
) -> None:
    result = cli.run("link", "cost", "-n", "shop", "--", "west", cost)
    assert result.exit_code == 2
    assert "COST" in result.stderr


def test_a_directory_and_a_namespace_are_one_too_many(cli: Cli) -> None:
    result = cli.run("link", "list", "--dir", str(cli.directory), "-n", "shop")
    assert result.exit_code == 2
    assert "not both" in result.stderr
