import base64
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from app.cli.renewables import SecretFile
from app.domain.link_secrets import Renewed
from app.domain.yaml_documents import write
from app.errors import Unavailable
from tests.cli.conftest import Cli
from tests.installation import free_ports
from tests.kube.api_server import Kube
from tests.running import Server, running
from tests.strangers import Asked, Issuer, Stranger, documents, key_in, public

HOUR = 3600
TWO_THIRDS = 45 * 60  # of the life of a certificate, and some more


@pytest.fixture
def issuer(stranger: Stranger) -> Issuer:
    made = Issuer(url=stranger.url, ca_pem=stranger.ca_pem)
    stranger.say = made.renew
    return made


@pytest.fixture
def due(cli: Cli, issuer: Issuer, stranger: Stranger) -> Path:
    """A file with a Secret whose certificate is to be renewed, and its Link."""
    return put(cli.directory / "lab.yaml", issuer.secret(stranger, since=issuer.now - TWO_THIRDS))


def put(path: Path, *found: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"---\n{write(one)}" for one in found))
    path.chmod(0o600)
    return path


def secret_in(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = documents(path.read_text())[0]
    return found


def certificate_of(secret: dict[str, Any]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))


def fits(secret: dict[str, Any]) -> bool:
    return public(certificate_of(secret).public_key()) == key_in(secret)


def test_what_is_due_is_renewed_in_its_place(cli: Cli, due: Path, issuer: Issuer) -> None:
    before = secret_in(due)
    told = cli.done("renew", "lab.yaml")
    after = secret_in(due)
    assert fits(after)
    assert key_in(after) != key_in(before)
    assert certificate_of(after).not_valid_after_utc.timestamp() == issuer.now + HOUR
    assert certificate_of(after).subject == certificate_of(before).subject
    assert {**after, "data": None} == {**before, "data": None}
    assert "lab.yaml: renewed, good until 20" in told
    assert "the certificate before it counts until 20" in told
    assert stat.S_IMODE(due.stat().st_mode) == 0o600
    assert [path.name for path in cli.directory.iterdir()] == ["lab.yaml"]


def test_what_is_not_due_is_left_as_it_is(cli: Cli, issuer: Issuer, stranger: Stranger) -> None:
    path = put(cli.directory / "lab.yaml", issuer.secret(stranger, since=issuer.now - HOUR // 2))
    before = path.read_bytes()
    told = cli.done("renew", "lab.yaml")
    assert "lab.yaml: not due before 20" in told
    assert stranger.asked == []
    assert path.read_bytes() == before
    cli.done("renew", "lab.yaml", "--force")
    assert fits(secret_in(path))
    assert path.read_bytes() != before


def test_everything_else_in_a_file_stays(cli: Cli, issuer: Issuer, stranger: Stranger) -> None:
    secret = issuer.secret(stranger, since=issuer.now - TWO_THIRDS)
    link = {"kind": "Link", "metadata": {"name": "lab"}, "spec": {"cost": 7}}
    path = put(cli.directory / "both.yaml", link, secret)
    cli.done("renew", "both.yaml")
    found = documents(path.read_text())
    assert found[0] == link
    assert fits(found[1])


@pytest.fixture
def site(cli: Cli, issuer: Issuer, stranger: Stranger) -> Path:
    """The directory of a system site, where one Secret is due and another is not."""
    resources = cli.directory / "ns" / "input" / "resources"
    for name, since in (("due", TWO_THIRDS), ("young", 0)):
        secret = issuer.secret(stranger, since=issuer.now - since, name=name)
        put(resources / f"Secret-{name}.yaml", secret)
    put(resources / "Secret-plain.yaml", {"kind": "Secret", "metadata": {"name": "plain"}})
    (resources / "broken.yaml").write_text("a: [")
    (resources / "notes.txt").write_text("none")
    away = issuer.secret(stranger, since=issuer.now - TWO_THIRDS, name="away")
    (resources / "elsewhere.yaml").symlink_to(put(cli.directory / "away.yaml", away))
    return resources


def test_of_a_system_site_what_is_due_is_renewed(cli: Cli, site: Path, stranger: Stranger) -> None:
    before = {path.name: path.read_bytes() for path in site.iterdir()}
    cli.done("renew", "ns")
    after = {path.name: path.read_bytes() for path in site.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"Secret-due.yaml"}
    assert (site / "elsewhere.yaml").is_symlink()
    assert fits(secret_in(site / "Secret-due.yaml"))
    assert len(stranger.asked) == 1


def test_a_key_stays_until_its_certificate_is_there(
    cli: Cli, due: Path, stranger: Stranger, issuer: Issuer
) -> None:
    """An answer that was lost is given again, for the same key."""
    answer = stranger.say

    def lost(asked: Asked) -> tuple[int, bytes]:
        answer(asked)
        raise ConnectionAbortedError

    before = due.read_bytes()
    stranger.say = lost
    for _ in range(2):
        result = cli.run("renew", "lab.yaml")
        assert result.exit_code == 3
        assert "lab.yaml: " in result.stderr
    assert due.read_bytes() == before
    kept = cli.directory / ".lab.yaml.0.key"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    stranger.say = answer
    cli.done("renew", "lab.yaml")
    assert fits(secret_in(due))
    assert len(issuer.issued) == 1
    assert not kept.exists()


def test_a_renewal_that_was_cut_off_after_the_file_makes_a_new_key_next_time(
    cli: Cli, due: Path, issuer: Issuer
) -> None:
    kept = cli.directory / ".lab.yaml.0.key"
    kept.write_bytes(base64.b64decode(secret_in(due)["data"]["tls.key"]))
    before = key_in(secret_in(due))
    cli.done("renew", "lab.yaml")
    assert key_in(secret_in(due)) != before
    assert len(issuer.issued) == 1


def test_a_key_that_is_none_is_no_reason_to_stop(cli: Cli, due: Path) -> None:
    (cli.directory / ".lab.yaml.0.key").write_text("none")
    cli.done("renew", "lab.yaml")
    assert fits(secret_in(due))


@pytest.mark.parametrize(
    ("say", "status"),
    [
        ((403, b"Certificate has been revoked\n"), 1),
        ((403, b"Certificate was superseded\n"), 1),
        ((404, b"No such claim\n"), 1),
        ((503, b"Internal error\n"), 3),
        ((429, b"Too many failed attempts\n"), 3),
        ((200, b"{}"), 3),
    ],
)
def test_how_it_ends_tells_whether_another_time_may_help(
    cli: Cli, due: Path, stranger: Stranger, say: tuple[int, bytes], status: int
) -> None:
    before = due.read_bytes()
    stranger.say = lambda _: say
    result = cli.run("renew", "lab.yaml")
    assert result.exit_code == status
    assert result.stdout == ""
    assert due.read_bytes() == before


def test_one_that_fails_holds_none_up(
    cli: Cli, due: Path, issuer: Issuer, stranger: Stranger
) -> None:
    secret = issuer.secret(stranger, since=issuer.now - TWO_THIRDS, name="gone")
    secret["metadata"]["annotations"]["grantserver/server-url"] = "https://127.0.0.1:9"
    put(cli.directory / "gone.yaml", secret)
    result = cli.run("renew", "gone.yaml", "missing.yaml", "lab.yaml")
    assert result.exit_code == 1
    assert "gone.yaml: 127.0.0.1:9 refuses the connection" in result.stderr
    assert "missing.yaml cannot be read" in result.stderr
    assert fits(secret_in(due))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("lab.yaml", "-n", "x"),
        ("lab.yaml", "--kubeconfig", "x"),
        ("lab.yaml", "--watch", "--force"),
        ("lab.yaml", "--then", ""),
        ("lab.yaml", "--then", "'"),
        ("missing.yaml",),
        ("directory",),
        ("plain.yaml",),
    ],
)
def test_a_wrong_use_is_told(
    cli: Cli, due: Path, stranger: Stranger, words: tuple[str, ...]
) -> None:
    (cli.directory / "directory").mkdir()
    (cli.directory / "plain.yaml").write_text("kind: Secret\n")
    before = due.read_bytes()
    assert cli.run("renew", *words).exit_code == 2
    assert stranger.asked == []
    assert due.read_bytes() == before


def test_a_site_without_anything_to_renew_is_well(cli: Cli) -> None:
    (cli.directory / "ns" / "input" / "resources").mkdir(parents=True)
    result = cli.run("renew", "ns")
    assert result.exit_code == 0
    assert "Nothing here could be renewed" in result.stderr


def then(status: int = 0) -> str:
    """A command that says that it ran, and ends so."""
    program = f"open('ran','a').write('x'); raise SystemExit({status})"
    return f'{sys.executable} -c "{program}"'


@pytest.mark.usefixtures("due")
def test_a_command_is_run_when_something_was_renewed_and_only_then(cli: Cli) -> None:
    cli.done("renew", "lab.yaml", "--then", then())
    assert (cli.directory / "ran").read_text() == "x"
    cli.done("renew", "lab.yaml", "--then", then())
    assert (cli.directory / "ran").read_text() == "x"


@pytest.mark.parametrize("command", ["false", "no-such-program-anywhere"])
def test_a_command_that_fails_is_told(cli: Cli, due: Path, command: str) -> None:
    result = cli.run("renew", "lab.yaml", "--then", command)
    assert result.exit_code == 1
    assert f"--then: {command}" in result.stderr
    assert fits(secret_in(due))


def test_a_command_that_failed_is_run_again_by_the_next_one(cli: Cli, due: Path) -> None:
    ran = cli.directory / "ran"
    assert cli.run("renew", "lab.yaml", "--then", then(1)).exit_code == 1
    after = due.read_bytes()
    assert cli.run("renew", "lab.yaml", "--then", then(1)).exit_code == 1
    cli.done("renew", "lab.yaml")  # which has nothing to run, and forgets nothing
    cli.done("renew", "lab.yaml", "--then", then())
    assert ran.read_text() == "xxx"
    cli.done("renew", "lab.yaml", "--then", then())
    assert ran.read_text() == "xxx"
    assert due.read_bytes() == after
    assert sorted(one.name for one in due.parent.iterdir() if "lab" in one.name) == ["lab.yaml"]


def test_a_command_is_run_also_when_its_process_died_after_the_renewal(
    cli: Cli, due: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = due.read_bytes()

    def end(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", end)
        assert cli.run("renew", "lab.yaml", "--then", then()).exit_code != 0
    assert due.read_bytes() != before
    cli.done("renew", "lab.yaml", "--then", then())
    assert (cli.directory / "ran").read_text() == "x"


def test_a_link_to_a_file_is_refused_before_anybody_is_asked(
    cli: Cli, due: Path, stranger: Stranger
) -> None:
    (cli.directory / "other.yaml").symlink_to(due)
    result = cli.run("renew", "other.yaml")
    assert result.exit_code != 0
    assert "no regular file" in result.stderr
    assert stranger.asked == []


def test_what_is_no_file_is_refused_and_not_waited_for(cli: Cli) -> None:
    os.mkfifo(cli.directory / "pipe.yaml")
    result = cli.run("renew", "pipe.yaml")
    assert result.exit_code == 2
    assert "no regular file" in result.stderr


@pytest.mark.usefixtures("due")
def test_a_directory_that_cannot_be_written_is_found_before_anybody_is_asked(
    cli: Cli, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    result = cli.run("renew", "lab.yaml")
    assert result.exit_code == 3
    assert "cannot be written: No space left" in result.stderr
    assert stranger.asked == []


def test_a_file_that_is_changed_meanwhile_is_not_overwritten(
    cli: Cli, due: Path, stranger: Stranger
) -> None:
    answer = stranger.say

    def meanwhile(asked: Asked) -> tuple[int, bytes]:
        due.write_text("theirs: true\n")
        return answer(asked)

    stranger.say = meanwhile
    result = cli.run("renew", "lab.yaml")
    assert result.exit_code == 1
    assert "changed meanwhile" in result.stderr
    assert due.read_text() == "theirs: true\n"


def test_two_at_once_do_it_once(cli: Cli, due: Path, stranger: Stranger, issuer: Issuer) -> None:
    answer = stranger.say
    other: list[Any] = []

    def meanwhile(asked: Asked) -> tuple[int, bytes]:
        command = [sys.executable, "-m", "app", "renew", str(due)]
        other.append(subprocess.run(command, capture_output=True, check=False, timeout=60))
        return answer(asked)

    stranger.say = meanwhile
    cli.done("renew", "lab.yaml")
    assert other[0].returncode == 3
    assert b"somebody else is renewing" in other[0].stderr
    assert len(issuer.issued) == 1
    assert fits(secret_in(due))


def test_what_somebody_else_was_quicker_with_is_left_to_them(
    cli: Cli, due: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = SecretFile.locked

    def quicker(file: SecretFile) -> AbstractContextManager[None]:
        monkeypatch.setattr(SecretFile, "locked", locked)
        cli.done("renew", str(due))
        return locked(file)

    monkeypatch.setattr(SecretFile, "locked", quicker)
    cli.done("renew", "lab.yaml")
    assert len(issuer.issued) == 1


@pytest.fixture
def ours(cli: Cli, tmp_path: Path) -> Iterator[Server]:
    """A running server that knows where it is reached, and commands beside it."""
    [port] = free_ports(1)
    settings = {
        "GRANTSERVER_REACH_URL": f"https://127.0.0.1:{port}",
        "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{port}",
    }
    with running(tmp_path / "served", **settings) as server:
        cli.environment |= settings | {"GRANTSERVER_DATA_DIR": str(tmp_path / "served" / "data")}
        yield server


@pytest.mark.usefixtures("ours")
def test_at_our_own_server_a_link_is_redeemed_and_renewed_until_it_is_revoked(cli: Cli) -> None:
    cli.done("token", "issue", "t.yaml", "--name", "lab")
    cli.done("token", "redeem", "t.yaml", "--subject", "east", "--out", "ns")
    path = cli.directory / "ns" / "input" / "resources" / "Secret-lab.yaml"
    held = [secret_in(path)]
    for _ in range(2):
        assert "renewed, good until" in cli.done("renew", "ns", "--force")
        held.append(secret_in(path))
    assert all(fits(one) for one in held)
    assert len({key_in(one) for one in held}) == 3
    assert len({certificate_of(one).subject for one in held}) == 1
    assert len({certificate_of(one).issuer for one in held}) == 1
    assert len({str(one["metadata"]["annotations"]) for one in held}) == 1
    assert "not due before" in cli.done("renew", "ns")
    cli.done("grant", "revoke", "lab")
    result = cli.run("renew", "ns", "--force")
    assert result.exit_code == 1
    assert "Certificate has been revoked (this link was ended over there)" in result.stderr
    assert secret_in(path) == held[-1]


@pytest.mark.usefixtures("ours")
def test_at_our_own_server_a_lost_answer_is_given_again(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is cut off between the answer and the file comes again, and nothing is lost."""
    cli.done("token", "issue", "t.yaml", "--name", "lab")
    cli.done("token", "redeem", "t.yaml", "--out", "ns")
    path = cli.directory / "ns" / "input" / "resources" / "Secret-lab.yaml"
    before = path.read_bytes()
    answers = []
    with monkeypatch.context() as patch:

        def cut_off(_: SecretFile, renewed: Renewed, **_options: object) -> None:
            answers.append(renewed.certificate_pem)
            raise Unavailable("the power is off")

        patch.setattr(SecretFile, "finish", cut_off)
        for _ in range(2):
            assert cli.run("renew", "ns", "--force").exit_code == 3
    assert path.read_bytes() == before
    cli.done("renew", "ns", "--force")
    answers.append(base64.b64decode(secret_in(path)["data"]["tls.crt"]))
    assert len(set(answers)) == 1
    assert fits(secret_in(path))


@pytest.fixture
def watch(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Watch until something is so, and then tell the process to stop."""
    monkeypatch.setattr("app.cli.renew.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("app.cli.renew._PAUSES", (0.0,))
    over = threading.Event()

    def run(enough: Callable[[], bool], *words: str) -> Any:
        def stop() -> None:
            for _ in range(2000):
                if enough() or over.wait(0.01):
                    break
            signal.raise_signal(signal.SIGTERM)

        threading.Thread(target=stop).start()
        return cli.run("renew", *words, "--watch")

    yield run
    over.set()


def test_watching_renews_each_when_it_is_time(
    cli: Cli, site: Path, watch: Callable[..., Any], stranger: Stranger, issuer: Issuer
) -> None:
    new = site / "Secret-new.yaml"

    def enough() -> bool:
        if len(stranger.asked) == 1 and not new.exists():
            secret = issuer.secret(stranger, since=issuer.now - TWO_THIRDS, name="new")
            put(site / "made", secret).rename(new)
        return new.exists() and len(stranger.asked) > 1 and fits(secret_in(new))

    before = signal.getsignal(signal.SIGTERM)
    result = watch(enough, "ns", "--then", then())
    assert result.exit_code == 0, result.stderr
    assert fits(secret_in(new))
    assert fits(secret_in(site / "Secret-due.yaml"))
    assert (cli.directory / "ran").read_text() == "xx"
    assert len(stranger.asked) == 2
    assert signal.getsignal(signal.SIGTERM) == before


def test_watching_goes_on_after_trouble_and_takes_no_for_an_answer(
    cli: Cli, due: Path, watch: Callable[..., Any], issuer: Issuer, stranger: Stranger
) -> None:
    put(cli.directory / "no.yaml", issuer.secret(stranger, since=issuer.now - TWO_THIRDS))
    pem = base64.b64decode(secret_in(cli.directory / "no.yaml")["data"]["tls.crt"]).decode()
    answers = [(503, b"Internal error\n")] * 2
    refused = []

    def say(asked: Asked) -> tuple[int, bytes]:
        if pem.splitlines()[3] in asked.body.decode():
            refused.append(asked)
            return 403, b"Certificate has been revoked\n"
        return answers.pop() if answers else issuer.renew(asked)

    stranger.say = say
    before = due.read_bytes()
    result = watch(lambda: due.read_bytes() != before, "no.yaml", "gone.yaml", "lab.yaml")
    assert result.exit_code == 0
    assert fits(secret_in(due))
    assert len(refused) == 1
    assert result.stderr.count("this link was ended over there") == 1


def test_a_command_that_fails_is_run_again_while_watching(
    cli: Cli, due: Path, watch: Callable[..., Any]
) -> None:
    ran = cli.directory / "ran"
    watch(lambda: ran.exists() and len(ran.read_text()) > 2, "lab.yaml", "--then", then(1))
    assert len(ran.read_text()) > 2
    assert fits(secret_in(due))


@pytest.fixture
def shop(kube: Kube, tmp_path: Path, issuer: Issuer, stranger: Stranger) -> list[str]:
    """The words that lead to a namespace with a Secret that is due, and one that is not ours."""
    kube.namespace("shop")
    for name in ("due", "other"):
        secret = issuer.secret(stranger, since=issuer.now - TWO_THIRDS, name=name)
        secret["metadata"] |= {"namespace": "shop"}
        if name == "other":
            del secret["metadata"]["annotations"]
        kube.create(secret)
    return ["--apply", "-n", "shop", "--kubeconfig", str(kube.kubeconfig(tmp_path / "config"))]


@pytest.mark.parametrize("names", [[], ["due"]])
def test_secrets_of_a_namespace_are_renewed(
    cli: Cli, shop: list[str], kube: Kube, names: list[str], stranger: Stranger
) -> None:
    before = kube.get("Secret", "due", "shop")
    other = kube.get("Secret", "other", "shop")
    told = cli.done("renew", *names, *shop)
    assert "shop/due: renewed, good until" in told
    after = kube.get("Secret", "due", "shop")
    assert fits(after)
    assert key_in(after) != key_in(before)
    assert kube.get("Secret", "other", "shop") == other
    assert "shop/due: not due before" in cli.done("renew", *names, *shop)
    assert len(stranger.asked) == 1


def test_a_secret_that_is_changed_meanwhile_is_not_overwritten(
    cli: Cli, shop: list[str], kube: Kube, stranger: Stranger
) -> None:
    answer = stranger.say

    def meanwhile(asked: Asked) -> tuple[int, bytes]:
        kube.patch("Secret", "due", {"data": {"tls.key": "eA=="}}, "shop")
        return answer(asked)

    stranger.say = meanwhile
    assert cli.run("renew", *shop).exit_code == 1
    assert kube.get("Secret", "due", "shop")["data"]["tls.key"] == "eA=="


@pytest.mark.parametrize("name", ["other", "missing"])
def test_a_named_secret_has_to_be_one_that_can_be_renewed(
    cli: Cli, shop: list[str], name: str
) -> None:
    assert cli.run("renew", name, *shop).exit_code in {1, 2}
