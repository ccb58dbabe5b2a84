import stat
from pathlib import Path

import pytest

from app import ambient
from app.crypto.sealing import generate_line
from app.domain import codes
from app.domain.callers import read_rights
from app.errors import Lack, Misconfigured, Unavailable, Unready
from app.home import Home, open_home, rotation_times
from app.services import addresses, authorities
from app.store.addresses import AddressRow
from app.store.engine import Database
from tests.builders import CODE, some_settings
from tests.pki import Folder, a_root


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "some" / "data"


def reopened(home: Home) -> Home:
    home.database.close()
    return open_home(home.settings)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_opening_makes_everything_and_keeps_it_private(directory: Path) -> None:
    home = open_home(some_settings(directory))
    assert mode(directory) == 0o700
    assert {path.name for path in directory.iterdir()} >= {"grantserver.db", "sealing.keys"}
    assert {mode(path) for path in directory.iterdir()} == {0o600}
    names = [one.name for one in authorities.every(home.database)]
    assert names == ["server-ca", "site-ca"]
    home.database.close()


def test_the_second_opening_finds_what_the_first_has_made(directory: Path) -> None:
    first = open_home(some_settings(directory))
    before = authorities.every(first.database)
    stored = codes.conceal(CODE, first.code_keys)
    second = reopened(first)
    assert authorities.every(second.database) == before
    assert second.code_keys == first.code_keys
    codes.check(CODE.encode(), stored, second.code_keys)
    authorities.open_issuer(before[0], second.keyring)
    second.database.close()


def test_what_tokens_carry_is_the_set_url_and_the_servers_ca(directory: Path) -> None:
    home = open_home(some_settings(directory, reach__url="https://west.example:8443"))
    server, _ = authorities.show(home.database, "server-ca")
    reach = home.reach()
    assert (reach.url, reach.ca_pem) == ("https://west.example:8443", server.certificate_pem)
    home.database.close()


IN_CLUSTER = {"kubernetes__namespaces": "*"}


def test_in_a_cluster_tokens_wait_for_the_address_that_is_found(directory: Path) -> None:
    home = open_home(some_settings(directory, **IN_CLUSTER))
    with pytest.raises(Unavailable, match="waiting for an address"):
        home.reach()
    row = AddressRow(url="https://found.example:9090")
    assert addresses.tell(home.database, row, now=ambient.utc_now())
    assert home.reach().url == "https://found.example:9090"
    home.database.close()


def test_an_address_that_is_set_is_waited_for_by_nobody(directory: Path) -> None:
    home = open_home(some_settings(directory, reach__url="https://west.example", **IN_CLUSTER))
    assert home.reach().url == "https://west.example"
    home.database.close()


def test_with_certificate_files_tokens_carry_their_ca(directory: Path, tmp_path: Path) -> None:
    root = a_root()
    folder = Folder(directory=tmp_path / "tls")
    folder.write(root.certify("localhost"), root)
    files = {
        "tls__certificate_file": folder.files.certificate,
        "tls__key_file": folder.files.key,
        "tls__ca_file": folder.files.ca,
    }
    home = open_home(some_settings(directory, **files))
    folder.files.key.unlink()  # whoever makes tokens need not be able to read it
    assert home.reach().ca_pem.encode() == root.pem
    home.database.close()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"tls__certificate_file": "c"}, "go together"),
        ({"tls__key_file": "k"}, "go together"),
        ({"tls__ca_file": "a"}, "go together"),
        ({"tls__certificate_file": "c", "tls__ca_file": "a"}, "go together"),
        (
            {"tls__certificate_file": "c", "tls__key_file": "k", "tls__secret": "s", **IN_CLUSTER},
            "GRANTSERVER_TLS_CERTIFICATE_FILE or GRANTSERVER_TLS_SECRET, not both",
        ),
        ({"tls__secret": "s"}, "needs GRANTSERVER_KUBERNETES_NAMESPACES"),
    ],
)
def test_settings_of_the_certificate_that_do_not_go_together_are_named(
    directory: Path, settings: dict[str, str], problem: str
) -> None:
    home = open_home(some_settings(directory, **settings))
    with pytest.raises(Misconfigured, match=problem):
        home.reach()
    home.database.close()


def test_codes_and_sealed_keys_outlive_a_rotation_of_the_key_file(directory: Path) -> None:
    first = open_home(some_settings(directory))
    stored = codes.conceal(CODE, first.code_keys)
    path = first.settings.sealing.key_file
    path.write_text(f"{generate_line(ambient.random_bytes)}\n{path.read_text()}")
    second = reopened(first)
    assert next(iter(second.code_keys)) != next(iter(first.code_keys))
    codes.check(CODE.encode(), stored, second.code_keys)
    for one in authorities.every(second.database):
        authorities.open_issuer(one, second.keyring)
    second.database.close()


def test_with_another_key_file_it_opens_and_the_issuers_are_unready(directory: Path) -> None:
    first = open_home(some_settings(directory))
    path = first.settings.sealing.key_file
    path.write_text(f"{generate_line(ambient.random_bytes)}\n")
    second = reopened(first)
    for one in authorities.every(second.database):
        with pytest.raises(Unready) as unready:
            authorities.open_issuer(one, second.keyring)
        assert unready.value.lack is Lack.ISSUER
    second.database.close()


def test_a_key_file_that_others_may_read_stops_it(directory: Path) -> None:
    first = open_home(some_settings(directory))
    first.settings.sealing.key_file.chmod(0o640)
    with pytest.raises(Misconfigured, match="chmod 600"):
        reopened(first)


def test_a_damaged_key_file_stops_it(directory: Path) -> None:
    first = open_home(some_settings(directory))
    first.settings.sealing.key_file.write_text("nonsense\n")
    with pytest.raises(Misconfigured, match="line 1"):
        reopened(first)


def test_a_database_of_another_release_stops_it(directory: Path) -> None:
    first = open_home(some_settings(directory))
    with first.database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.exec_driver_sql("UPDATE compatibility SET oldest_revision = '9999'")
    with pytest.raises(Misconfigured, match="start the one that made it"):
        reopened(first)


def test_a_data_directory_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="data directory"):
        open_home(some_settings(tmp_path / "file"))
    with pytest.raises(Unavailable, match="data directory"):
        open_home(some_settings(tmp_path / "file" / "below"))


def test_no_key_shows(directory: Path) -> None:
    home = open_home(some_settings(directory))
    shown = repr(home)
    for key in (*home.code_keys.values(), *home.keyring.keys.values()):
        assert repr(key) not in shown
        assert key.hex() not in shown
    assert isinstance(home.database, Database)
    home.database.close()


def test_a_lost_key_file_is_not_silently_replaced(directory: Path) -> None:
    home = open_home(some_settings(directory))
    key_file = home.settings.sealing.key_file
    key_file.rename(key_file.with_suffix(".away"))
    with pytest.raises(Misconfigured, match="restore it from a copy"):
        reopened(home)
    assert not key_file.exists()
    key_file.with_suffix(".away").rename(key_file)
    reopened(home).database.close()


def test_the_steps_of_a_rotation_are_as_far_apart_as_the_settings_say(directory: Path) -> None:
    settings = some_settings(
        directory,
        certificates__rotation_wait="2h",
        certificates__lifetime="3h",
        grants__retry_window="4m",
    )
    times = rotation_times(settings)
    assert (times.wait_seconds, times.lifetime_seconds, times.retry_seconds) == (7200, 10800, 240)


def test_admin_tokens_have_keys_of_their_own(directory: Path) -> None:
    home = open_home(some_settings(directory))
    assert home.admin_token_keys.keys() == home.code_keys.keys()
    assert not set(home.admin_token_keys.values()) & set(home.code_keys.values())
    home.database.close()


def test_certificates_have_the_rights_that_settings_give_them(directory: Path) -> None:
    given = {"admin__client_ca_file": "/ca.pem", "admin__certificates": "portal@shop=read@west"}
    home = open_home(some_settings(directory, **given))
    assert home.certified == {"portal@shop": read_rights(["read"], ["west"])}
    home.database.close()


def test_settings_of_the_admin_api_that_make_no_sense_together_are_told(directory: Path) -> None:
    given = {"admin__accounts": "true", "admin__certificates": "portal@shop=read@west"}
    home = open_home(some_settings(directory, **given))
    with pytest.raises(Misconfigured) as caught:
        assert home.certified
    assert caught.value.problems == (
        "GRANTSERVER_ADMIN_CERTIFICATES needs GRANTSERVER_ADMIN_CLIENT_CA_FILE",
        "GRANTSERVER_ADMIN_ACCOUNTS needs GRANTSERVER_KUBERNETES_NAMESPACES",
    )
    home.database.close()
