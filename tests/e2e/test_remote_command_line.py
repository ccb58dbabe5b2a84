"""A command does from afar what it does beside the server, and says the same."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.cli.root import root
from app.settings import PREFIX
from tests.running import Server, running

UNLIKE = {
    "kind",
    "tokenTheftSuspected",
    "certificates",
    "stateTime",
    "canSign",
    "lastUsedTime",
    "lastUsedFrom",
}
"""What the admin API does not tell, and the last use of a token, which the question itself is."""


@dataclass(frozen=True, kw_only=True)
class Both:
    """The same server, beside it and from afar."""

    server: Server
    directory: Path
    home: Mapping[str, str]

    def away(self, token: str = "boss.token") -> dict[str, str]:
        assert self.server.addresses.admin is not None
        host, port = self.server.addresses.admin
        return {
            "GRANTSERVER_SERVER": f"https://{host}:{port}",
            "GRANTSERVER_SERVER_TOKEN_FILE": str(self.directory / token),
            "GRANTSERVER_SERVER_CA_FILE": str(self.directory / "ca.pem"),
        }

    def beside(self, *words: str, typed: str | None = None) -> Result:
        return CliRunner(env=dict(self.home)).invoke(root, list(words), input=typed)

    def afar(self, *words: str, typed: str | None = None, token: str = "boss.token") -> Result:
        return CliRunner(env=self.away(token)).invoke(root, list(words), input=typed)

    def hold_token(self, name: str, *verbs: str, sites: tuple[str, ...] = ("*",)) -> str:
        file = self.directory / f"{name}.token"
        file.write_text(self.server.admin_token(*verbs, sites=sites) + "\n")
        file.chmod(0o600)
        return file.name


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    directory = tmp_path_factory.mktemp("afar")
    further = {"GRANTSERVER_LISTEN_ADMIN": "127.0.0.1:0", "GRANTSERVER_LIMITS_PEER_FAILURES": "0"}
    with running(directory, **further) as server:
        yield server, directory


@pytest.fixture
def both(server: tuple[Server, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    for variable in list(os.environ):  # noqa: TID251 - only to empty it
        if variable.startswith(PREFIX):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    running_server, directory = server
    (tmp_path / "ca.pem").write_text(running_server.home.reach().ca_pem)
    made = Both(
        server=running_server,
        directory=tmp_path,
        home={
            "GRANTSERVER_DATA_DIR": str(directory / "data"),
            "GRANTSERVER_REACH_URL": "https://127.0.0.1:9090",
        },
    )
    made.hold_token("boss")
    return made


def masked(text: str) -> str:
    """Leave out what is another one each time: ids, codes, times, names that were told apart."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text)
    text = re.sub(r"(Code +|gsa_)\S+", r"\1SECRET", text)
    return re.sub(r"\b(here|away)-", "", text)


def without(document: Any, names: set[str]) -> Any:
    if isinstance(document, list):
        return [without(one, names) for one in document]
    if isinstance(document, dict):
        return {key: without(one, names) for key, one in document.items() if key not in names}
    return document


def same(both: Both, *words: str) -> None:
    """Run a change beside the server and from afar, on two things that differ in their names."""
    here = both.beside(*(word.replace("@", "here-") for word in words))
    away = both.afar(*(word.replace("@", "away-") for word in words))
    assert (here.exit_code, away.exit_code) == (0, 0), (here.output, away.output)
    ours = re.compile(r".*(GET /api/v1/info|ca export).*")
    assert ours.sub("", masked(away.stdout)) == ours.sub("", masked(here.stdout))


def test_a_life_of_a_site_and_its_grants_is_told_alike(both: Both) -> None:
    same(both, "site", "set", "@one", "--endpoint", "inter-router=one.example.com:55671")
    same(both, "site", "set", "@one", "--issuer", "site-ca")
    same(
        both,
        *("grant", "create", "@lab", "--site", "@one", "--redemptions", "2", "--window", "25m"),
        *("--subject", "east-*", "--lifetime", "720h", "--label", "team=ops", "--description", "x"),
    )
    same(both, "grant", "extend", "@lab", "--site", "@one", "--redemptions", "5")
    same(both, "grant", "extend", "@lab", "--window", "2h")
    same(both, "grant", "extend", "@lab", "--until", "2040-01-01T00:00:00Z")
    same(both, "grant", "create", "@file", "--site", "@one", "--token", "@file.yaml")
    same(both, "token", "issue", "@token.yaml", "--site", "@one", "--name", "@issued")
    assert (both.directory / "away-token.yaml").stat().st_mode & 0o777 == 0o600
    same(both, "grant", "revoke", "@lab", "--site", "@one")
    for name in ("@lab", "@file", "@issued"):
        same(both, "grant", "remove", name, "--site", "@one")
    same(both, "site", "remove", "@one")


def test_a_life_of_an_admin_token_is_told_alike(both: Both) -> None:
    same(both, "admin-token", "create", "@ci", "--verb", "read", "--site", "west")
    same(both, "admin-token", "create", "@it", "--verb", "*", "--site", "*", "--out", "@it.token")
    same(both, "admin-token", "revoke", "@ci")


def test_a_revoked_redemption_is_told_alike(both: Both) -> None:
    for where in ("here", "away"):
        issued = both.server.issue(f"{where}-redeemed")
        assert both.server.redeem(issued).status == 200
    same(both, "grant", "revoke", "@redeemed", "--redemption", "1")


@pytest.mark.parametrize(
    "words",
    [
        "site list",
        "site show west",
        "ca list",
        "ca show site-ca",
        "grant list",
        "grant list --site west",
        "grant show seen",
        "admin-token list",
        "audit list -n 7",
        "audit list --act grant --since 1h",
    ],
)
@pytest.mark.parametrize("form", ["json", "yaml", "table"])
def test_what_is_shown_is_the_same(both: Both, words: str, form: str) -> None:
    if both.beside("grant", "show", "seen").exit_code:
        assert both.server.redeem(both.server.issue("seen")).status == 200
    # The first look from afar is noted as a use of the token.
    both.afar("site", "list")
    here, away = (run(*words.split(), "-o", form) for run in (both.beside, both.afar))
    assert (here.exit_code, away.exit_code) == (0, 0), (here.output, away.output)
    if form == "json":
        known = without(json.loads(here.stdout), UNLIKE)
        assert without(json.loads(away.stdout), UNLIKE) == known
    elif not words.startswith(("grant", "ca", "admin-token")):
        assert masked(away.stdout) == masked(here.stdout)


def test_what_is_not_known_from_afar_is_null(both: Both) -> None:
    both.beside("grant", "create", "unsure", "--site", "west")
    shown = both.afar("grant", "show", "unsure", "-o", "json")
    document = json.loads(shown.stdout)
    assert document["kind"] is None
    assert document["tokenTheftSuspected"] is None
    assert "only the server itself" in shown.stderr


@pytest.mark.parametrize(
    "words",
    [
        "site show nowhere",
        "grant show nothing",
        "grant show 01a207f9-7e28-75c3-a393-242cdc50ffb9",
        "grant list --site nowhere",
        "grant create lab --site nowhere",
        "ca show nothing",
        "admin-token show nobody",
        "admin-token revoke nobody",
        "site remove nowhere",
        "site set nowhere",
    ],
)
def test_what_fails_fails_alike(both: Both, words: str) -> None:
    here, away = both.beside(*words.split()), both.afar(*words.split())
    assert here.exit_code != 0
    assert (away.exit_code, away.stderr) == (here.exit_code, here.stderr)


def test_whoever_may_not_is_told_so(both: Both) -> None:
    token = both.hold_token("reader", "read", sites=("west",))
    result = both.afar("grant", "create", "lab", "--site", "west", token=token)
    assert result.exit_code == 1
    assert "create" in result.stderr


def test_whoever_may_create_and_not_look_can_issue_tokens(both: Both) -> None:
    token = both.hold_token("creator", "create", sites=("west",))
    result = both.afar("token", "issue", "-", "--site", "west", token=token)
    assert result.exit_code == 0, result.output
    assert "kind: AccessToken" in result.stdout


def test_an_unknown_token_is_nobody_and_is_not_shown(both: Both) -> None:
    file = both.directory / "boss.token"
    file.write_text("gsa_nobody-knows-this")
    result = both.afar("site", "list")
    assert result.exit_code == 1
    assert "does not know our token" in result.stderr
    assert "nobody-knows" not in result.output


def test_a_token_that_cannot_be_delivered_leaves_no_grant(both: Both) -> None:
    (both.directory / "there.yaml").write_text("x")
    words = ("grant", "create", "undelivered", "--site", "west", "--token", "there.yaml")
    assert both.afar(*words).exit_code == 1
    assert both.beside("grant", "show", "undelivered").exit_code == 1


@pytest.mark.parametrize(
    "words", ["ca init x", "ca export site-ca", "db check", "doctor", "audit verify", "serve"]
)
def test_what_has_no_form_from_afar_says_what_to_do(both: Both, words: str) -> None:
    result = both.afar(*words.split())
    assert result.exit_code == 2
    assert "run it where the server is" in result.stderr
