import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app import ambient
from app.crypto.sealing import Keyring
from app.domain import self_check
from app.domain.authorities import State
from app.domain.callers import read_rights
from app.domain.self_check import Misfit, Outcome
from app.domain.times import rfc3339
from app.services import admin_tokens, authorities, doctor, reach
from app.services.doctor import Finding, Verdict
from tests.builders import NOW, Stand
from tests.pki import Folder, a_root
from tests.services.clusters import a_cluster, a_secret, put, sign

HOSTS = ("grants.example.com", "192.0.2.7")
DAY = 24 * 3600


def examine(stand: Stand, **changes: Any) -> list[Finding]:
    asked: dict[str, Any] = {"hosts": HOSTS, "private_paths": (), "now": NOW}
    return doctor.examine(stand.database, changes.pop("keyring", stand.keyring), **asked | changes)


def about(check: str, findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


@pytest.fixture
def healthy(stand: Stand) -> Stand:
    """Put everything in place: site, server certificate."""
    stand.set_site()
    reach.server_material(
        stand.database,
        stand.keyring,
        hosts=HOSTS,
        now=NOW,
        random_bytes=ambient.random_bytes,
    )
    return stand


def test_all_is_well_where_all_is_in_place(healthy: Stand, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    findings = examine(healthy, private_paths=[private, healthy.keyring.path])
    assert {finding.verdict for finding in findings} == {Verdict.OK}
    assert not any(finding.remedy for finding in findings)
    assert {finding.check for finding in findings} == {
        "clock",
        "permissions",
        "database",
        "server certificate",
        "authority server-ca",
        "authority site-ca",
        "site west",
    }


def test_a_clock_that_stands_in_the_past_is_a_problem(healthy: Stand) -> None:
    (finding,) = about("clock", examine(healthy, now=1_000_000))
    assert finding.verdict is Verdict.PROBLEM
    assert "1970-01-12" in finding.found


@pytest.mark.parametrize(("back", "verdict"), [(60, Verdict.OK), (61, Verdict.PROBLEM)])
def test_a_clock_that_went_back_behind_the_last_act_is_a_problem(
    stand: Stand, back: int, verdict: Verdict
) -> None:
    (finding,) = about("clock", examine(stand, now=NOW - back))
    assert finding.verdict is verdict
    assert ("the clock went back" in finding.found) == (verdict is Verdict.PROBLEM)
    assert bool(finding.remedy) == (verdict is Verdict.PROBLEM)


def test_what_others_can_read_is_a_problem_with_its_remedy(healthy: Stand, tmp_path: Path) -> None:
    directory, file = tmp_path / "d", tmp_path / "f"
    directory.mkdir()
    directory.chmod(0o750)
    file.touch()
    file.chmod(0o604)
    found = about(
        "permissions", examine(healthy, private_paths=[directory, file, tmp_path / "missing"])
    )
    assert [one.verdict for one in found] == [Verdict.PROBLEM] * 3
    assert [one.remedy for one in found[:2]] == [f"chmod 700 {directory}", f"chmod 600 {file}"]


def test_what_belongs_to_another_user_is_a_warning(
    healthy: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    (finding,) = about("permissions", examine(healthy, private_paths=[healthy.keyring.path]))
    assert finding.verdict is Verdict.WARNING


def test_a_database_that_takes_no_writes_is_a_problem(healthy: Stand) -> None:
    with (
        contextlib.closing(sqlite3.connect(healthy.database.sqlite.path)) as connection,
        connection,
    ):
        connection.execute(
            "CREATE TRIGGER no BEFORE UPDATE ON heartbeat BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    found = about("database", examine(healthy))
    assert [one.verdict for one in found] == [Verdict.PROBLEM]


def test_a_reference_to_nothing_is_a_problem(healthy: Stand) -> None:
    with (
        contextlib.closing(sqlite3.connect(healthy.database.sqlite.path)) as connection,
        connection,
    ):
        connection.execute("DELETE FROM authorities WHERE name = 'site-ca'")
    found = about("database", examine(healthy))
    assert found[0].verdict is Verdict.PROBLEM
    assert "backup" in found[0].remedy


def test_before_the_first_start_there_is_no_server_certificate(stand: Stand) -> None:
    (finding,) = about("server certificate", examine(stand))
    assert finding.verdict is Verdict.WARNING
    assert "grantserver serve" in finding.remedy


def test_a_host_that_is_not_in_the_certificate_is_a_problem(healthy: Stand) -> None:
    found = about("server certificate", examine(healthy, hosts=[*HOSTS, "new.example.com"]))
    assert found[0].verdict is Verdict.PROBLEM
    assert "new.example.com" in found[0].found
    assert HOSTS[0] not in found[0].found


@pytest.mark.parametrize(
    ("left", "verdict"),
    [(31 * DAY, Verdict.OK), (29 * DAY, Verdict.WARNING), (0, Verdict.PROBLEM)],
)
def test_what_ends_soon_is_a_warning_and_what_has_ended_a_problem(
    healthy: Stand, left: int, verdict: Verdict
) -> None:
    ends = NOW + reach.LIFETIME_SECONDS
    assert about("server certificate", examine(healthy, now=ends - left))[-1].verdict is verdict
    ends = NOW + authorities.DEFAULT_LIFETIME_SECONDS
    for name in ("authority site-ca", "authority server-ca"):
        assert about(name, examine(healthy, now=ends - left))[-1].verdict is verdict


def test_an_authority_that_cannot_be_opened_hides_no_other(healthy: Stand) -> None:
    with (
        contextlib.closing(sqlite3.connect(healthy.database.sqlite.path)) as connection,
        connection,
    ):
        connection.execute(
            "UPDATE authorities SET sealed_key = zeroblob(100) WHERE name = 'server-ca'"
        )
    findings = examine(healthy)
    (broken,) = about("authority server-ca", findings)
    assert broken.verdict is Verdict.PROBLEM
    assert about("authority site-ca", findings)[0].verdict is Verdict.OK


def test_an_authority_that_has_not_begun_is_a_problem(healthy: Stand) -> None:
    with (
        contextlib.closing(sqlite3.connect(healthy.database.sqlite.path)) as connection,
        connection,
    ):
        connection.execute(
            "UPDATE authorities SET not_before = ? WHERE name = 'site-ca'", (NOW + 1,)
        )
    (finding,) = about("authority site-ca", examine(healthy))
    assert finding.verdict is Verdict.PROBLEM
    assert f"it begins at {rfc3339(NOW + 1)}" in finding.found
    assert finding.remedy
    assert about("authority site-ca", examine(healthy, now=NOW + 1))[0].verdict is Verdict.OK


def test_a_server_key_that_cannot_be_opened_is_a_problem(healthy: Stand) -> None:
    other = Keyring(path=healthy.keyring.path, keys={"00000000": bytes(32)})
    lost = about("server certificate", examine(healthy, keyring=other))[0]
    assert lost.verdict is Verdict.PROBLEM
    assert "its private key cannot be opened" in lost.found
    assert str(healthy.keyring.path) in lost.remedy
    with (
        contextlib.closing(sqlite3.connect(healthy.database.sqlite.path)) as connection,
        connection,
    ):
        connection.execute("UPDATE server_certificates SET sealed_key = zeroblob(100)")
    altered = about("server certificate", examine(healthy))[0]
    assert altered.verdict is Verdict.PROBLEM
    assert "backup" in altered.remedy


def test_admin_tokens_whose_key_is_lost_are_a_problem(healthy: Stand) -> None:
    key = next(iter(healthy.keyring.keys))
    admin_tokens.create(
        healthy.database,
        name="ci",
        rights=read_rights(["read"], ["west"]),
        window_seconds=None,
        keys=healthy.keyring.derive(admin_tokens.KEY_PURPOSE),
        actor="cli:test",
        now=NOW,
        random_bytes=ambient.random_bytes,
    )
    assert about("admin tokens", examine(healthy)) == []
    other = Keyring(path=healthy.keyring.path, keys={"00000000": bytes(32)})
    (lost,) = about("admin tokens", examine(healthy, keyring=other))
    assert lost.verdict is Verdict.PROBLEM
    assert f"ci (key {key})" in lost.found
    assert str(healthy.keyring.path) in lost.remedy


def test_what_can_be_seen_without_a_database_is_clock_and_permissions(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    findings = doctor.examine_machine(private_paths=[tmp_path], now=NOW)
    assert [(one.check, one.verdict) for one in findings] == [
        ("clock", Verdict.OK),
        ("permissions", Verdict.OK),
    ]


def test_without_its_key_file_every_authority_is_a_problem_with_a_remedy(healthy: Stand) -> None:
    other = Keyring(path=healthy.keyring.path, keys={"00000000": bytes(32)})
    found = [one for one in examine(healthy, keyring=other) if one.check.startswith("authority")]
    assert [one.verdict for one in found] == [Verdict.PROBLEM] * 2
    assert all(str(healthy.keyring.path) in one.remedy for one in found)


def test_a_site_without_endpoints_is_a_problem_and_none_at_all_a_warning(stand: Stand) -> None:
    assert about("sites", examine(stand))[0].verdict is Verdict.WARNING
    stand.set_site()
    with contextlib.closing(sqlite3.connect(stand.database.sqlite.path)) as connection, connection:
        connection.execute("DELETE FROM endpoints")
    (finding,) = about("site west", examine(stand))
    assert finding.verdict is Verdict.PROBLEM
    assert "grantserver site set west" in finding.remedy


def test_what_a_cluster_has_not_yet_is_a_warning_and_what_is_gone_is_nobodys_trouble(
    healthy: Stand,
) -> None:
    cluster = a_cluster(healthy)
    before = {one.check for one in examine(healthy)}
    signing, gone = (sign(cluster, "north", a_secret()) for _ in range(2))
    put(cluster, "north", signing)
    put(cluster, "east", None)
    put(cluster, "south", None, ())
    cluster.forget_unused_keys()
    names = {one.id: one.name for one in authorities.every(healthy.database)}
    findings = examine(healthy)
    assert {one.check for one in findings} - before == {
        f"authority {names[signing]}",
        "site north",
        "site east",
        "site south",
    }
    assert names[gone] not in str(findings)
    (north,) = about("site north", findings)
    assert (north.verdict, north.remedy) == (Verdict.OK, "")
    (east,) = about("site east", findings)
    assert east.verdict is Verdict.WARNING
    assert "has no issuer that can sign: every redemption is refused" in east.found
    assert "kubectl get accessgrants -n east" in east.remedy
    (south,) = about("site south", findings)
    assert "no endpoints and no issuer" in south.found


def test_the_ca_of_a_secret_that_ends_soon_is_to_be_renewed_there(healthy: Stand) -> None:
    cluster = a_cluster(healthy)
    put(cluster, "east", sign(cluster, "east", a_secret()))
    (finding,) = [one for one in examine(healthy) if "kubernetes-" in one.check]
    assert finding.verdict is Verdict.WARNING
    assert finding.remedy.endswith("east/skupper-site-ca")


def test_a_check_that_cannot_be_made_is_a_problem_of_its_own(
    healthy: Stand,
) -> None:
    with (
        contextlib.closing(sqlite3.connect(healthy.database.sqlite.path)) as connection,
        connection,
    ):
        connection.execute("ALTER TABLE sites RENAME TO lost")
    found = about("sites", examine(healthy))
    assert [one.verdict for one in found] == [Verdict.PROBLEM]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(directory=tmp_path / "tls")
    root = a_root()
    made.write(root.certify(*HOSTS), root)
    return made


def test_a_certificate_of_files_is_looked_at_there(healthy: Stand, folder: Folder) -> None:
    with (
        contextlib.closing(sqlite3.connect(healthy.database.sqlite.path)) as connection,
        connection,
    ):
        connection.execute("UPDATE server_certificates SET sealed_key = zeroblob(100)")
    found = about("server certificate", examine(healthy, files=folder.files))
    assert [one.verdict for one in found] == [Verdict.OK, Verdict.OK]
    ended = about("server certificate", examine(healthy, files=folder.files, now=4_800_000_000))
    assert ended[-1].verdict is Verdict.PROBLEM
    assert ended[-1].remedy == f"renew {folder.files.certificate} and its key"
    missing = examine(healthy, files=folder.files, hosts=["new.example.com"])
    found = about("server certificate", missing)
    assert found[0].verdict is Verdict.PROBLEM
    assert found[0].remedy == f"have {folder.files.certificate} issued for them too"


def test_files_that_do_not_fit_are_a_problem_with_a_remedy(healthy: Stand, folder: Folder) -> None:
    folder.put("tls.key", a_root().key_pem)
    (found,) = about("server certificate", examine(healthy, files=folder.files))
    assert found.verdict is Verdict.PROBLEM
    assert str(folder.files.key) in found.found
    assert found.remedy.startswith("mend the files")


def test_a_certificate_of_a_secret_is_renewed_by_whoever_keeps_that(healthy: Stand) -> None:
    with (
        contextlib.closing(sqlite3.connect(healthy.database.sqlite.path)) as connection,
        connection,
    ):
        connection.execute("UPDATE server_certificates SET origin = 'secret'")
    ends = NOW + reach.LIFETIME_SECONDS
    for found in about("server certificate", examine(healthy, now=ends, hosts=["new.example.com"])):
        assert found.verdict is Verdict.PROBLEM
        assert "have whoever keeps the Secret that it comes from " in found.remedy


def test_while_there_is_no_address_the_certificate_lacks_nothing(healthy: Stand) -> None:
    found = about("server certificate", examine(healthy, hosts=()))
    assert [one.verdict for one in found] == [Verdict.OK, Verdict.OK]
    assert "no address yet" in found[0].found


@pytest.mark.parametrize("state", State)
def test_an_authority_that_has_a_successor_may_end(healthy: Stand, state: State) -> None:
    with (
        contextlib.closing(sqlite3.connect(healthy.database.sqlite.path)) as connection,
        connection,
    ):
        connection.execute(
            "UPDATE authorities SET state = ?, not_after = ? WHERE name = 'site-ca'",
            (state, NOW + DAY),
        )
    found = about("authority site-ca", examine(healthy))
    if state is State.ENDED:
        assert found == []
    else:
        (one,) = found
        assert (one.verdict is Verdict.OK) == (state is State.RETIRED)
    with (
        contextlib.closing(sqlite3.connect(healthy.database.sqlite.path)) as connection,
        connection,
    ):
        connection.execute("UPDATE authorities SET sealed_key = x'' WHERE name = 'site-ca'")
    without = [one.verdict for one in about("authority site-ca", examine(healthy))]
    signs = state in {State.PREPARED, State.ACTIVE}
    assert without == ([Verdict.PROBLEM] if signs else [])


def test_a_served_certificate_is_known_by_its_fingerprint(stand: Stand, folder: Folder) -> None:
    assert doctor.served_fingerprints(stand.database, None) == frozenset()
    made = reach.server_material(
        stand.database, stand.keyring, hosts=HOSTS, now=NOW, random_bytes=ambient.random_bytes
    )
    assert doctor.served_fingerprints(stand.database, None) == {made.fingerprint}
    of_file = folder.files.read().fingerprint
    assert doctor.served_fingerprints(stand.database, folder.files) == {of_file}


@pytest.mark.parametrize(
    ("outcome", "misfit", "verdict", "remedy"),
    [
        (Outcome.REACHABLE, None, Verdict.OK, ""),
        (Outcome.UNKNOWN, None, Verdict.WARNING, "GRANTSERVER_REACH_URL"),
        (Outcome.UNREACHABLE, None, Verdict.WARNING, "lead from https://a.example:9 to it"),
        (Outcome.TERMINATED, None, Verdict.PROBLEM, "pass TLS through"),
        (Outcome.WRONG_CERTIFICATE, Misfit.NAME, Verdict.PROBLEM, "the host of the URL"),
        (Outcome.WRONG_CERTIFICATE, Misfit.TIME, Verdict.PROBLEM, "the clock is right"),
        (Outcome.WRONG_CERTIFICATE, Misfit.TRUST, Verdict.PROBLEM, "GRANTSERVER_TLS_CA_FILE"),
    ],
)
def test_each_outcome_at_the_public_address_has_its_remedy(
    outcome: Outcome, misfit: Misfit | None, verdict: Verdict, remedy: str
) -> None:
    found = self_check.Finding(outcome=outcome, detail="what was seen", misfit=misfit)
    told = doctor.public_address(found, "https://a.example:9")
    assert (told.check, told.verdict, told.found) == ("public address", verdict, "what was seen")
    assert remedy in told.remedy
    assert bool(told.remedy) == (verdict is not Verdict.OK)


def test_no_outcome_and_no_misfit_is_without_an_answer() -> None:
    for outcome in Outcome:
        for misfit in (None, *Misfit):
            found = self_check.Finding(outcome=outcome, detail="x", misfit=misfit)
            assert doctor.public_address(found, "https://a.example").found == "x"
