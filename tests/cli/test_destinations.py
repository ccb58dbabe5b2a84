import stat
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Cli
from tests.kube.api_server import FakeKube, Kube
from tests.kube.objects import a_site
from tests.strangers import Asked, Stranger, asked_with, documents, key_in


def test_a_system_site_that_was_cut_off_goes_on_with_its_key(
    honoured: Cli, stranger: Stranger
) -> None:
    answer = stranger.say

    def break_off(_: Asked) -> tuple[int, bytes]:
        raise ConnectionAbortedError

    stranger.say = break_off
    assert honoured.run("token", "redeem", "lab.yaml", "--out", "ns").exit_code == 3
    resources = honoured.directory / "ns" / "input" / "resources"
    (kept,) = resources.iterdir()
    assert kept.suffix == ".key"  # which no site reads
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    stranger.say = answer
    honoured.done("token", "redeem", "lab.yaml", "--out", "ns")
    assert {path.name for path in resources.iterdir()} == {"Secret-lab.yaml", "Link-lab.yaml"}
    assert len({asked_with(asked) for asked in stranger.asked}) == 1
    (secret,) = documents((resources / "Secret-lab.yaml").read_text())
    assert key_in(secret) == asked_with(stranger.asked[0])


def test_at_a_system_site_the_server_may_make_the_key(lab: Cli, stranger: Stranger) -> None:
    lab.done("token", "redeem", "lab.yaml", "--out", "ns", "--no-csr")
    assert "csr" not in stranger.asked[0].headers
    resources = lab.directory / "ns" / "input" / "resources"
    assert {path.name for path in resources.iterdir()} == {"Secret-lab.yaml", "Link-lab.yaml"}


def test_an_answer_that_could_not_be_stored_is_had_again(honoured: Cli, stranger: Stranger) -> None:
    answer = stranger.say
    theirs = honoured.directory / "ns/input/resources/Secret-lab.yaml"

    def meanwhile(asked: Asked) -> tuple[int, bytes]:
        theirs.write_text("theirs")
        return answer(asked)

    stranger.say = meanwhile
    assert honoured.run("token", "redeem", "lab.yaml", "--out", "ns").exit_code == 1
    theirs.unlink()
    stranger.say = answer
    honoured.done("token", "redeem", "lab.yaml", "--out", "ns")
    assert len({asked_with(asked) for asked in stranger.asked}) == 1


def junk(_: Asked) -> tuple[int, bytes]:
    return 200, b"<html>hello</html>"


def test_after_an_answer_that_is_of_no_use_the_same_key_is_asked_for(
    honoured: Cli, stranger: Stranger, kube: Kube, tmp_path: Path
) -> None:
    """It was redeemed: another key would cost one more redemption, or find none left."""
    answer = stranger.say
    for words in (["--out", "ns"], in_shop(kube, tmp_path)):
        stranger.asked.clear()
        stranger.say = junk
        assert honoured.run("token", "redeem", "lab.yaml", *words).exit_code == 1
        stranger.say = answer
        honoured.done("token", "redeem", "lab.yaml", *words)
        assert len({asked_with(asked) for asked in stranger.asked}) == 1


def test_another_token_of_the_same_name_that_is_refused_takes_no_key_away(
    honoured: Cli, stranger: Stranger
) -> None:
    def break_off(_: Asked) -> tuple[int, bytes]:
        raise ConnectionAbortedError

    answer, stranger.say = stranger.say, break_off
    assert honoured.run("token", "redeem", "lab.yaml", "--out", "ns").exit_code == 3
    mine = {asked_with(asked) for asked in stranger.asked}
    stranger.say = lambda _: (404, b"No such claim\n")
    (honoured.directory / "other.yaml").write_text(stranger.token(url=f"{stranger.url}/y"))
    assert honoured.run("token", "redeem", "other.yaml", "--out", "ns").exit_code == 1
    stranger.asked.clear()
    stranger.say = answer
    honoured.done("token", "redeem", "lab.yaml", "--out", "ns")
    assert {asked_with(asked) for asked in stranger.asked} == mine


def test_another_token_of_the_same_name_leaves_what_a_command_has_begun(
    honoured: Cli, stranger: Stranger, kube: Kube, tmp_path: Path
) -> None:
    words = in_shop(kube, tmp_path)

    def break_off(_: Asked) -> tuple[int, bytes]:
        raise ConnectionAbortedError

    answer, stranger.say = stranger.say, break_off
    assert honoured.run("token", "redeem", "lab.yaml", *words).exit_code == 3
    mine = {asked_with(asked) for asked in stranger.asked}
    stranger.asked.clear()
    (honoured.directory / "other.yaml").write_text(stranger.token(url=f"{stranger.url}/y"))
    assert honoured.run("token", "redeem", "other.yaml", *words).exit_code == 1
    assert stranger.asked == []  # its code was not sent
    stranger.say = answer
    honoured.done("token", "redeem", "lab.yaml", *words)
    assert {asked_with(asked) for asked in stranger.asked} == mine


def in_shop(kube: Kube, directory: Path, *, site: bool = True) -> list[str]:
    """Have a namespace with a Site; give the words that lead there."""
    kube.install_skupper()
    kube.namespace("shop")
    if site:
        kube.create(a_site("east", "shop"))
    config = kube.kubeconfig(directory / "config")
    return ["--apply", "-n", "shop", "--kubeconfig", str(config)]


def test_a_token_becomes_a_link_in_a_namespace(
    honoured: Cli, stranger: Stranger, kube: Kube, tmp_path: Path
) -> None:
    words = in_shop(kube, tmp_path)
    told = honoured.done("token", "redeem", "lab.yaml", *words)
    assert "Secret shop/lab" in told
    assert "Link shop/lab" in told
    uid = kube.get("Site", "east", "shop")["metadata"]["uid"]
    assert stranger.asked[0].headers["subject"] == uid
    secret = kube.get("Secret", "lab", "shop")
    assert key_in(secret) == asked_with(stranger.asked[0])
    assert secret["metadata"]["annotations"]["grantserver/server-url"] == stranger.url
    link = kube.get("Link", "lab", "shop")
    for one in (secret, link):
        assert [owner["uid"] for owner in one["metadata"]["ownerReferences"]] == [uid]


def test_in_a_namespace_what_is_somebody_elses_stays(
    honoured: Cli, stranger: Stranger, kube: Kube, tmp_path: Path
) -> None:
    words = in_shop(kube, tmp_path)
    theirs = {"metadata": {"name": "lab", "namespace": "shop"}, "type": "Opaque", "data": {}}
    kube.create({"apiVersion": "v1", "kind": "Secret", **theirs})
    result = honoured.run("token", "redeem", "lab.yaml", *words)
    assert result.exit_code == 1
    assert 'secrets "lab" already exists' in result.stderr
    assert stranger.asked == []


def test_a_namespace_without_a_site_is_left_alone(
    honoured: Cli, stranger: Stranger, kube: Kube, tmp_path: Path
) -> None:
    words = in_shop(kube, tmp_path, site=False)
    result = honoured.run("token", "redeem", "lab.yaml", *words)
    assert result.exit_code == 1
    assert "there is no Site in namespace shop" in result.stderr
    assert stranger.asked == []


def test_a_refusal_leaves_nothing_in_a_namespace(
    honoured: Cli, stranger: Stranger, kube: Kube, tmp_path: Path
) -> None:
    words = in_shop(kube, tmp_path)
    stranger.say = lambda _: (404, b"No such claim\n")
    assert honoured.run("token", "redeem", "lab.yaml", *words).exit_code == 1
    assert kube.find("Secret", "shop") == []
    assert kube.find("Link", "shop") == []


def test_in_a_namespace_what_was_begun_is_finished_with_its_key(
    honoured: Cli, stranger: Stranger, fake_kube: FakeKube, tmp_path: Path
) -> None:
    words = in_shop(fake_kube, tmp_path)
    answer = stranger.say

    def break_off(_: Asked) -> tuple[int, bytes]:
        raise ConnectionAbortedError

    stranger.say = break_off
    assert honoured.run("token", "redeem", "lab.yaml", *words).exit_code == 3
    begun = fake_kube.get("Secret", "lab", "shop")
    assert begun["data"]["tls.crt"] == ""
    stranger.say = answer
    # The answer cannot be stored at first.
    fake_kube.faults.fail(500, verb="create", resource="links", times=1)
    assert honoured.run("token", "redeem", "lab.yaml", *words).exit_code == 1
    honoured.done("token", "redeem", "lab.yaml", *words)
    assert len({asked_with(asked) for asked in stranger.asked}) == 1
    assert key_in(fake_kube.get("Secret", "lab", "shop")) == key_in(begun)
    assert len(fake_kube.find("Link", "shop")) == 1


def test_in_a_namespace_the_server_may_make_the_key(
    honoured: Cli, stranger: Stranger, kube: Kube, tmp_path: Path
) -> None:
    words = in_shop(kube, tmp_path)
    honoured.done("token", "redeem", "lab.yaml", "--no-csr", "--subject", "me", *words)
    assert stranger.asked[0].headers["subject"] == "me"
    assert "tls.key" in kube.get("Secret", "lab", "shop")["data"]


def test_in_a_namespace_a_key_that_is_none_is_replaced(
    honoured: Cli, stranger: Stranger, kube: Kube, tmp_path: Path
) -> None:
    words = in_shop(kube, tmp_path)
    answer = stranger.say

    def spoil(_: Asked) -> tuple[int, bytes]:
        kube.patch("Secret", "lab", {"data": {"tls.key": "eA=="}}, "shop")
        raise ConnectionAbortedError

    stranger.say = spoil
    assert honoured.run("token", "redeem", "lab.yaml", *words).exit_code == 3
    stranger.say = answer
    honoured.done("token", "redeem", "lab.yaml", *words)
    assert key_in(kube.get("Secret", "lab", "shop")) == asked_with(stranger.asked[-1])


RIGHTS = [
    {"apiGroups": ["skupper.io"], "resources": ["sites"], "verbs": ["list"]},
    {"apiGroups": ["skupper.io"], "resources": ["links"], "verbs": ["get", "create", "patch"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "create", "patch", "delete"]},
]


def test_the_rights_that_the_handbook_names_are_enough(
    honoured: Cli, stranger: Stranger, kube: Kube, tmp_path: Path
) -> None:
    in_shop(kube, tmp_path)
    token = kube.token("redeemer", RIGHTS, ["shop"])
    config = kube.kubeconfig(tmp_path / "restricted", token)
    words = ["--apply", "-n", "shop", "--kubeconfig", str(config)]
    answer = stranger.say
    stranger.say = lambda _: (404, b"No such claim\n")
    assert honoured.run("token", "redeem", "lab.yaml", *words).exit_code == 1
    assert kube.find("Secret", "shop") == []
    stranger.say = answer
    for _ in range(2):
        honoured.done("token", "redeem", "lab.yaml", *words)
    page = (Path(__file__).parents[2] / "docs" / "connecting.md").read_text()
    for rule in RIGHTS:
        verbs = ", ".join(f"`{verb}`" for verb in rule["verbs"])
        assert f"| `{rule['resources'][0]}` | {verbs} |" in page


# Whoever asks gives up after ten seconds, and a busy machine takes some of them for the imports.
IN_WAITING = """\
import sys
import app.cli.clusters, app.cli.token_redeem, app.kube.client, app.kube.opening
from app.cli import main
print("ready", flush=True)
sys.stdin.readline()
main()
"""


def test_who_is_refused_leaves_what_another_has_stored_with_the_same_token(
    honoured: Cli, stranger: Stranger, kube: Kube, tmp_path: Path
) -> None:
    words = in_shop(kube, tmp_path)
    answer = stranger.say
    others: list[int] = []

    def say(asked: Asked) -> tuple[int, bytes]:
        if asked.headers["subject"] == "fast":
            return answer(asked)
        fast.communicate(b"go\n", timeout=60)
        others.append(fast.returncode)
        return 404, b"No such access granted\n"

    stranger.say = say
    command = ("token", "redeem", "lab.yaml", "--subject", "fast", *words)
    with subprocess.Popen(
        [sys.executable, "-c", IN_WAITING, *command],
        cwd=honoured.directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as fast:
        assert fast.stdout is not None
        assert fast.stdout.readline() == b"ready\n"
        slow = honoured.run("token", "redeem", "lab.yaml", "--subject", "slow", *words)
    assert (slow.exit_code, others) == (1, [0])
    secret = kube.get("Secret", "lab", "shop")
    assert secret["data"]["tls.crt"]
    assert key_in(secret) == asked_with(stranger.asked[-1])


def test_in_a_namespace_a_key_that_was_refused_is_removed_also_by_a_later_run(
    honoured: Cli, stranger: Stranger, kube: Kube, tmp_path: Path
) -> None:
    words = in_shop(kube, tmp_path)

    def break_off(_: Asked) -> tuple[int, bytes]:
        raise ConnectionAbortedError

    stranger.say = break_off
    assert honoured.run("token", "redeem", "lab.yaml", *words).exit_code == 3
    assert len(kube.find("Secret", "shop")) == 1
    stranger.say = lambda _: (404, b"No such claim\n")
    assert honoured.run("token", "redeem", "lab.yaml", *words).exit_code == 1
    assert kube.find("Secret", "shop") == []


def test_a_key_of_an_earlier_run_stays_where_nobody_was_asked(
    honoured: Cli, stranger: Stranger
) -> None:
    def break_off(_: Asked) -> tuple[int, bytes]:
        raise ConnectionAbortedError

    answer, stranger.say = stranger.say, break_off
    assert honoured.run("token", "redeem", "lab.yaml", "--out", "ns").exit_code == 3
    resources = honoured.directory / "ns" / "input" / "resources"
    (kept,) = resources.iterdir()
    before = kept.read_bytes()
    (honoured.directory / "two.yaml").write_text(stranger.token().replace('"lab"', '"two"'))
    (resources / "Link-two.yaml").write_text("theirs")
    assert honoured.run("token", "redeem", "lab.yaml", "two.yaml", "--out", "ns").exit_code == 1
    assert kept.read_bytes() == before
    stranger.say = answer
    honoured.done("token", "redeem", "lab.yaml", "--out", "ns")


def test_an_output_that_is_full_is_told_in_words(honoured: Cli, stranger: Stranger) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "app", "token", "redeem", "lab.yaml"],
            cwd=honoured.directory,
            env=honoured.environment | {"PYTHONPATH": str(Path.cwd())},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert ended.returncode == 1
    assert "standard output cannot be written: No space left on device" in ended.stderr
    assert "may have been counted" in ended.stderr
    assert len(stranger.asked) == 1
