from tests.cli.conftest import Cli


def test_a_token_is_issued_redeemed_or_inspected(cli: Cli) -> None:
    shown = cli.done("token", "--help")
    assert [line.split()[0] for line in shown.split("Commands:\n")[1].splitlines()] == [
        "issue",
        "redeem",
        "inspect",
    ]
