import re
import stat

from ruamel.yaml import YAML

from app.domain.tokens import read_token
from tests.cli.conftest import ENDPOINTS, Cli


def test_a_token_is_a_whole_access_token_in_a_private_file(west: Cli) -> None:
    result = west.run(
        *("token", "issue", "t.yaml", "--site", "west", "--name", "lab", "--redemptions", "2"),
        *("--window", "25m", "--cost", "2"),
    )
    assert result.exit_code == 0
    path = west.directory / "t.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = YAML(typ="safe").load(path.read_text())
    assert document["apiVersion"] == "skupper.io/v2alpha1"
    assert document["kind"] == "AccessToken"
    assert document["metadata"] == {"name": "lab"}
    grant = west.json("grant", "show", "lab")
    assert document["spec"]["url"] == grant["url"]
    assert document["spec"]["linkCost"] == grant["linkCost"] == 2
    assert grant["redemptionsAllowed"] == 2
    assert document["spec"]["code"] not in result.output
    assert "  grantserver token redeem t.yaml\n" in result.stdout
    assert "  kubectl apply -f t.yaml\n" in result.stdout


def test_on_standard_output_there_is_the_token_and_nothing_else(west: Cli) -> None:
    result = west.run("token", "issue", "-")
    assert read_token(result.stdout.encode()).url.startswith("https://grants.example.com:9090/")
    assert result.stdout.startswith("# ")
    assert "grantserver grant show" in result.stderr
    assert read_token(result.stdout.encode()).code not in result.stderr


def test_without_a_name_the_grant_has_that_of_its_site_and_a_random_part(west: Cli) -> None:
    west.done("token", "issue", "a.yaml")
    west.done("token", "issue", "b.yaml")
    names = [grant["name"] for grant in west.json("grant", "list")]
    assert len(set(names)) == 2
    assert all(re.fullmatch("west-[0-9a-f]{8}", name) for name in names)


def test_a_long_site_name_is_cut_for_the_name(cli: Cli) -> None:
    site = "x" * 53 + "-" + "y" * 9
    cli.done("site", "set", site, *ENDPOINTS)
    cli.done("token", "issue", "a.yaml")
    assert re.fullmatch("x{53}-[0-9a-f]{8}", cli.json("grant", "list")[0]["name"])


def test_with_several_sites_one_has_to_be_named(west: Cli) -> None:
    west.done("site", "set", "east", *ENDPOINTS)
    result = west.run("token", "issue", "t.yaml")
    assert result.exit_code == 2
    assert "east, west" in result.stderr
    assert not (west.directory / "t.yaml").exists()


def test_without_a_site_the_way_to_one_is_told(cli: Cli) -> None:
    result = cli.run("token", "issue", "t.yaml")
    assert result.exit_code == 2
    assert "grantserver site set" in result.stderr
