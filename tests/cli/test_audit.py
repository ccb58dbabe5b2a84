from tests.cli.conftest import Cli


def test_what_happened_is_listed_with_times_as_everywhere(west: Cli) -> None:
    west.done("grant", "create", "lab")
    entries = west.json("audit", "list")
    assert [entry["act"] for entry in entries][-2:] == ["site.set", "grant.created"]
    details = entries[-1]["details"]
    assert details["name"] == "lab"
    assert details["expiresAt"].endswith("Z")
    assert details["allowed"] == 1
    assert entries[0]["details"]["notAfter"].endswith("Z")
    lines = west.done("audit", "list").splitlines()
    assert lines[0].split() == ["TIME", "ACT", "ACTOR", "TARGET", "DETAILS"]
    assert "expiresAt=20" in lines[-1]


def test_the_list_is_bounded_and_may_be_about_one_thing(west: Cli) -> None:
    assert len(west.json("audit", "list", "-n", "2")) == 2
    assert len(west.json("audit", "list", "--limit", "1", "--target", "site/west")) == 1
    assert west.run("audit", "list", "-n", "0").exit_code == 2
    nothing = west.run("audit", "list", "--target", "west")
    assert nothing.exit_code == 0
    assert "is it kind/name?" in nothing.stderr
