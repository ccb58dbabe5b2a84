import base64
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from app.cli.token_redeem import _host_name
from tests.cli.conftest import Cli
from tests.domain.test_receipts import an_answer
from tests.running import Server
from tests.strangers import Asked, Stranger, asked_with, documents, key_in, public

CODE = "Aa0Bb1Cc2Dd3Ee4F"


def test_a_token_becomes_a_link_with_its_cost(cli: Cli, served: Server) -> None:
    cli.done("token", "issue", "t.yaml", "--name", "lab", "--cost", "7")
    result = cli.run("token", "redeem", "t.yaml", "--subject", "east")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("---\n")
    secret, link = documents(result.stdout)
    assert secret["metadata"]["name"] == "lab"
    assert link["metadata"] == {"name": "lab"}
    assert link["spec"]["cost"] == 7
    assert link["spec"]["endpoints"][0]["port"] == "55671"
    assert "the certificate is CN=east, signed by CN=site-ca, good until 20" in result.stderr
    redeemed = cli.json("grant", "show", "lab")["redemptions"]
    assert [one["subject"] for one in redeemed] == ["east"]
    assert served.home.database.revision()


@pytest.mark.usefixtures("served")
def test_a_used_up_token_is_refused_with_what_to_do(cli: Cli) -> None:
    cli.done("token", "issue", "t.yaml")
    cli.done("token", "redeem", "t.yaml")
    result = cli.run("token", "redeem", "t.yaml", "--subject", "other")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "404 Not Found: No such access granted (all its redemptions are used" in result.stderr


@pytest.mark.parametrize("words", [["--no-csr"], ["--key", "t.key"]])
@pytest.mark.usefixtures("served")
def test_the_same_site_may_ask_again_for_what_it_lost(cli: Cli, words: list[str]) -> None:
    cli.done("token", "issue", "t.yaml", "--name", "t")
    first, again = (cli.done("token", "redeem", "t.yaml", *words) for _ in range(2))
    assert again == first
    assert len(cli.json("grant", "show", "t")["redemptions"]) == 1


def test_the_token_may_come_from_standard_input(lab: Cli, stranger: Stranger) -> None:
    lab.done("token", "redeem", "-", typed=stranger.token())
    assert stranger.asked[0].body == CODE.encode()


def test_the_subject_is_this_host_unless_it_is_given(
    lab: Cli, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "My_Host.example.com")
    lab.done("token", "redeem", "lab.yaml")
    lab.done("token", "redeem", "lab.yaml", "--subject", "Bob & Söhne", "--name", "other")
    headers = [asked.headers for asked in stranger.asked]
    assert headers[0]["subject"] == "my-host"
    assert headers[0]["name"] == "lab"
    assert headers[1]["subject"].encode("latin-1").decode() == "Bob & Söhne"
    assert headers[1]["name"] == "other"


def test_a_host_without_a_usable_name_is_a_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "__")
    assert _host_name() == "site"


def test_for_a_system_site_everything_lies_where_it_is_read(lab: Cli) -> None:
    directory = lab.directory / "share" / "skupper" / "namespaces" / "default"
    told = lab.done("token", "redeem", "lab.yaml", "--out", str(directory))
    resources = directory / "input" / "resources"
    files = {path.name: path for path in resources.iterdir()}
    assert set(files) == {"Secret-lab.yaml", "Link-lab.yaml"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files.values())
    made = list(directory.parents)[:3]  # on a fresh account
    for path in (*made, directory, directory / "input", resources):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert documents(files["Link-lab.yaml"].read_text())[0]["spec"]["tlsCredentials"] == "lab"
    assert "PRIVATE KEY" not in told
    assert "  skupper system reload -n default\n" in told


def test_elsewhere_no_namespace_is_guessed(lab: Cli) -> None:
    assert "  skupper system reload\n" in lab.done("token", "redeem", "lab.yaml", "--out", "here")


def test_a_link_that_is_there_is_found_before_a_redemption_is_used(
    lab: Cli, stranger: Stranger
) -> None:
    resources = lab.directory / "ns" / "input" / "resources"
    resources.mkdir(parents=True)
    for name in ("Secret-lab.yaml", "Link-lab.yaml", "Link-lab-3.yaml"):
        (resources / name).write_text("mine")
        result = lab.run("token", "redeem", "lab.yaml", "--out", "ns")
        assert result.exit_code == 1
        assert f"{name} is there already" in result.stderr
        (resources / name).unlink()
    assert stranger.asked == []
    (resources / "Secret-lab.yaml").write_text("mine")
    lab.done("token", "redeem", "lab.yaml", "--out", "ns", "--force")
    assert "PRIVATE" not in (resources / "Secret-lab.yaml").read_text()
    assert "tls.key" in (resources / "Secret-lab.yaml").read_text()


@pytest.mark.parametrize("out", ["missing/ns", "file"])
def test_a_directory_that_cannot_be_used_is_found_before_a_redemption_is_used(
    lab: Cli, stranger: Stranger, out: str
) -> None:
    (lab.directory / "file").touch()
    assert lab.run("token", "redeem", "lab.yaml", "--out", out).exit_code == 2
    assert stranger.asked == []


@pytest.mark.parametrize("name", ["../../x", "a/b", "x\ny", "", ".", "..", "A", "a" * 254])
def test_a_hostile_name_in_a_token_goes_nowhere(cli: Cli, stranger: Stranger, name: str) -> None:
    token = stranger.token().replace('"lab"', f'"{name}"'.replace("\n", "\\n"))
    for words in ([], ["--out", "ns"]):
        result = cli.run("token", "redeem", "-", *words, typed=token)
        assert result.exit_code == 2
        assert "name" in result.stderr
    assert stranger.asked == []
    assert list(cli.directory.iterdir()) == []


def test_a_name_with_dots_is_no_name_for_a_system_site(lab: Cli, stranger: Stranger) -> None:
    assert lab.run("token", "redeem", "lab.yaml", "--name", "a.b", "--out", "ns").exit_code == 2
    assert stranger.asked == []
    lab.done("token", "redeem", "lab.yaml", "--name", "a.b")


@pytest.mark.parametrize(
    "changes",
    [
        {"secret_name": "../../x"},
        {"secret_name": "other"},
        {"link_name": "../../../x"},
        {"link_name": "lab/x"},
        {"link_name": "other"},
        {"credentials": "other"},
        {"kind": "Pod"},
        {"cut": 500},
    ],
)
def test_an_odd_answer_writes_only_the_key_and_says_that_it_may_have_counted(
    lab: Cli, stranger: Stranger, changes: Mapping[str, Any]
) -> None:
    stranger.say = lambda _: (200, an_answer(**changes))
    for words in ([], ["--out", "ns"]):
        result = lab.run("token", "redeem", "lab.yaml", *words)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "may have been counted" in result.stderr
        assert CODE not in result.stderr
    # Nothing of the answer; the key stays, because the same key gets the same answer again.
    files = [path for path in lab.directory.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".yaml", ".key"}
    assert len(files) == 2


def test_a_refusal_leaves_only_the_directories_that_were_there(
    lab: Cli, stranger: Stranger
) -> None:
    stranger.say = lambda _: (404, b"No such access granted\n")
    (lab.directory / "ns" / "input").mkdir(parents=True)
    for out in ("ns", "other"):
        assert lab.run("token", "redeem", "lab.yaml", "--out", out).exit_code == 1
    assert {path.relative_to(lab.directory).as_posix() for path in lab.directory.rglob("*")} == {
        "lab.yaml",
        "ns",
        "ns/input",
    }


def test_a_directory_that_fills_up_meanwhile_is_told_with_what_it_cost(
    lab: Cli, stranger: Stranger
) -> None:
    def meanwhile(_: Asked) -> tuple[int, bytes]:
        (lab.directory / "ns/input/resources/Secret-lab.yaml").write_text("theirs")
        return 200, an_answer()

    stranger.say = meanwhile
    result = lab.run("token", "redeem", "lab.yaml", "--out", "ns")
    assert result.exit_code == 1
    assert "may have been counted" in result.stderr
    left = list((lab.directory / "ns/input/resources").iterdir())
    assert [path.read_text() for path in left] == ["theirs"]


def test_a_server_that_is_away_is_worth_another_try(lab: Cli, stranger: Stranger) -> None:
    (lab.directory / "gone.yaml").write_text(stranger.token(url="https://127.0.0.1:9/x"))
    result = lab.run("token", "redeem", "gone.yaml")
    assert result.exit_code == 3
    assert "refuses the connection; the code was not sent" in result.stderr
    assert "token inspect" not in result.stderr
    stranger.say = lambda _: (503, b"Internal error\n")
    assert lab.run("token", "redeem", "lab.yaml").exit_code == 3


def test_an_answer_that_may_have_been_lost_is_worth_a_look(lab: Cli, stranger: Stranger) -> None:
    def break_off(_: Asked) -> tuple[int, bytes]:
        raise ConnectionAbortedError

    stranger.say = break_off
    result = lab.run("token", "redeem", "lab.yaml")
    assert result.exit_code == 3
    assert "if only the answer was lost, `grantserver token inspect lab.yaml`" in result.stderr
    # Nobody but this process has the key, so it has tried again, with the same one.
    assert len(stranger.asked) == 3
    assert len({asked_with(asked) for asked in stranger.asked}) == 1


def test_a_server_of_another_ca_gets_no_code(lab: Cli, stranger: Stranger, served: Server) -> None:
    other = served.home.reach().ca_pem
    result = lab.run("token", "redeem", "-", typed=stranger.token(ca=other))
    assert result.exit_code == 2
    assert "does not vouch" in result.stderr
    assert "the code was not sent" in result.stderr
    assert stranger.asked == []


@pytest.mark.parametrize("subject", ["", "a\nb", "x" * 254])
def test_a_subject_that_no_certificate_could_name_is_refused_here(
    lab: Cli, stranger: Stranger, subject: str
) -> None:
    result = lab.run("token", "redeem", "lab.yaml", "--subject", subject)
    assert result.exit_code == 2
    assert "subject" in result.stderr
    assert stranger.asked == []


def test_every_missing_field_of_a_token_is_a_line(cli: Cli, stranger: Stranger) -> None:
    result = cli.run("token", "redeem", "-", typed=stranger.token(code=None, ca=None, url="http:x"))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 3


def test_redeeming_makes_no_data_directory(lab: Cli) -> None:
    lab.done("token", "redeem", "lab.yaml")
    assert [path.name for path in lab.directory.iterdir()] == ["lab.yaml"]


def test_the_code_is_in_no_process_list_and_no_file(lab: Cli, stranger: Stranger) -> None:
    seen: list[bytes] = []

    def look_around(asked: Asked) -> tuple[int, bytes]:
        for process in Path("/proc").glob("[0-9]*"):
            for entry in ("cmdline", "environ"):
                try:
                    seen.append((process / entry).read_bytes())
                except OSError:
                    continue
        return 200, an_answer(name=asked.headers["name"])

    stranger.say = look_around
    ran = subprocess.run(
        [sys.executable, "-m", "app", "token", "redeem", "lab.yaml", "--out", "ns"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert any(b"token\0redeem\0lab.yaml" in found for found in seen)
    assert not any(CODE.encode() in found for found in [*seen, ran.stdout, ran.stderr])
    for path in (lab.directory / "ns").rglob("*.yaml"):
        assert CODE not in path.read_text()


def test_the_key_is_made_here_and_never_sent(honoured: Cli, stranger: Stranger) -> None:
    result = honoured.run("token", "redeem", "lab.yaml", "--subject", "east")
    assert result.exit_code == 0, result.stderr
    secret, _ = documents(result.stdout)
    (asked,) = stranger.asked
    assert asked_with(asked) == key_in(secret)
    certificate = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    assert public(certificate.public_key()) == key_in(secret)
    assert certificate.subject.rfc4514_string() == "CN=east"
    assert secret["metadata"]["annotations"] == {
        "grantserver/server-url": stranger.url,
        "grantserver/server-ca": stranger.ca_pem,
    }
    assert "its private key was made here and was not sent" in result.stderr


def test_a_server_that_takes_no_requests_is_told_apart(lab: Cli, stranger: Stranger) -> None:
    result = lab.run("token", "redeem", "lab.yaml")
    assert "csr" in stranger.asked[0].headers
    assert "made by the server, which takes no certificate requests" in result.stderr
    assert "annotations" not in result.stdout


def test_without_a_request_it_is_the_plain_contract(honoured: Cli, stranger: Stranger) -> None:
    result = honoured.run("token", "redeem", "lab.yaml", "--no-csr")
    assert "csr" not in stranger.asked[0].headers
    assert "private key" not in result.stderr
    assert "annotations" not in result.stdout


def test_a_key_that_is_kept_is_asked_with_again(honoured: Cli, stranger: Stranger) -> None:
    secrets = [
        documents(honoured.done("token", "redeem", "lab.yaml", "--key", "lab.key"))[0]
        for _ in range(2)
    ]
    assert stat.S_IMODE((honoured.directory / "lab.key").stat().st_mode) == 0o600
    assert len({asked_with(asked) for asked in stranger.asked}) == 1
    assert len({key_in(secret) for secret in secrets}) == 1


def test_what_is_no_key_is_not_asked_with(honoured: Cli, stranger: Stranger) -> None:
    (honoured.directory / "lab.key").write_text("none")
    result = honoured.run("token", "redeem", "lab.yaml", "--key", "lab.key")
    assert result.exit_code == 2
    assert "there is no PEM block" in result.stderr
    assert stranger.asked == []


@pytest.fixture
def several(honoured: Cli, stranger: Stranger) -> Cli:
    """Have a second token, of another name, which leads to a grant that is used up."""
    answer = stranger.say
    token = stranger.token(url=f"{stranger.url}/used-up").replace('"lab"', '"old"')
    (honoured.directory / "old.yaml").write_text(token)

    def say(asked: Asked) -> tuple[int, bytes]:
        return (404, b"No such access granted\n") if asked.path == "/used-up" else answer(asked)

    stranger.say = say
    return honoured


def test_of_several_tokens_one_that_fails_holds_none_up(several: Cli) -> None:
    result = several.run("token", "redeem", "old.yaml", "lab.yaml", "--out", "ns")
    assert result.exit_code == 1
    assert "error: old.yaml: the server answered 404 Not Found: No such access" in result.stderr
    assert "Redeemed lab" in result.stdout
    resources = several.directory / "ns" / "input" / "resources"
    assert {path.name for path in resources.iterdir()} == {"Secret-lab.yaml", "Link-lab.yaml"}


def test_of_several_tokens_an_odd_answer_to_one_is_told_as_well(
    several: Cli, stranger: Stranger
) -> None:
    answer = stranger.say

    def odd(asked: Asked) -> tuple[int, bytes]:
        return (200, b"odd") if asked.path == "/used-up" else answer(asked)

    stranger.say = odd
    result = several.run("token", "redeem", "old.yaml", "lab.yaml")
    assert result.exit_code == 1
    assert "error: old.yaml: the server's answer cannot be used" in result.stderr
    assert [one["metadata"]["name"] for one in documents(result.stdout)] == ["lab", "lab"]


def test_a_fault_of_ours_is_none_of_a_token(several: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("app.cli.redeeming.make_request", fail)
    result = several.run("token", "redeem", "old.yaml", "lab.yaml")
    assert result.exit_code == 1
    assert "not foreseen (ZeroDivisionError)" in result.stderr


def test_several_tokens_are_redeemed_in_one(several: Cli, stranger: Stranger) -> None:
    (several.directory / "two.yaml").write_text(stranger.token().replace('"lab"', '"two"'))
    told = several.done("token", "redeem", "lab.yaml", "two.yaml")
    assert sorted(one["metadata"]["name"] for one in documents(told)) == ["lab"] * 2 + ["two"] * 2
    assert len({asked_with(asked) for asked in stranger.asked}) == 2


def test_several_that_may_succeed_later_say_so(several: Cli, stranger: Stranger) -> None:
    stranger.say = lambda _: (503, b"Internal error\n")
    assert several.run("token", "redeem", "lab.yaml", "old.yaml").exit_code == 3


def test_nothing_is_used_where_one_of_several_could_not_be_stored(
    several: Cli, stranger: Stranger
) -> None:
    resources = several.directory / "ns" / "input" / "resources"
    resources.mkdir(parents=True)
    (resources / "Link-old.yaml").write_text("mine")
    assert several.run("token", "redeem", "lab.yaml", "old.yaml", "--out", "ns").exit_code == 1
    assert stranger.asked == []
    assert [path.name for path in resources.iterdir()] == ["Link-old.yaml"]


def test_two_tokens_of_one_name_are_refused(several: Cli, stranger: Stranger) -> None:
    result = several.run("token", "redeem", "lab.yaml", "lab.yaml")
    assert result.exit_code == 2
    assert '2 tokens have the name "lab"' in result.stderr
    assert stranger.asked == []


@pytest.mark.parametrize(
    "words",
    [
        ("lab.yaml", "old.yaml", "--name", "x"),
        ("lab.yaml", "old.yaml", "--key", "x"),
        ("-", "-"),
        ("lab.yaml", "--out", "ns", "--apply"),
        ("lab.yaml", "--out", "ns", "--key", "x"),
        ("lab.yaml", "--no-csr", "--key", "x"),
        ("lab.yaml", "-n", "x"),
        ("lab.yaml", "--kubeconfig", "x"),
        ("lab.yaml", "--wait", "soon"),
        ("lab.yaml", "--wait", "0s"),
        (),
    ],
)
def test_options_that_say_nothing_together_are_refused(
    several: Cli, stranger: Stranger, words: tuple[str, ...]
) -> None:
    assert several.run("token", "redeem", *words, typed=stranger.token()).exit_code == 2
    assert stranger.asked == []
    assert {path.name for path in several.directory.iterdir()} == {"lab.yaml", "old.yaml"}
