import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crew import launched, working
from tests.pki import Folder, a_root
from tests.running import running

ADMIN = {"GRANTSERVER_LISTEN_ADMIN": "127.0.0.1:0"}


def test_unless_it_is_turned_on_nobody_listens(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert server.addresses.admin is None


def test_it_shows_the_certificate_that_redemptions_show_and_follows_it(tmp_path: Path) -> None:
    root, folder = a_root(), Folder(directory=tmp_path / "tls")
    folder.write(root.certify("127.0.0.1"), root)
    with running(tmp_path, **ADMIN, **folder.environment) as server:
        assert server.admin("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"no certificate", "it holds no certificate in PEM")],
)
def test_a_file_of_client_cas_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with launched(tmp_path, **ADMIN, GRANTSERVER_ADMIN_CLIENT_CA_FILE=str(file)) as run:
        assert run.process.wait(30) == 2
        assert run.said(f"GRANTSERVER_ADMIN_CLIENT_CA_FILE: {said}" if content else said)


def test_of_several_workers_one_serves_it(tmp_path: Path) -> None:
    with working(tmp_path, workers=2, **ADMIN) as crew:
        found = re.search(r" admin=(127\.0\.0\.1):([0-9]+) ", crew.log.read_text())
        assert found is not None
        server = replace(
            crew.server,
            addresses=replace(crew.server.addresses, admin=(found[1], int(found[2]))),
        )
        token = server.admin_token("read")
        for _ in range(4):
            assert server.admin("GET", "/api/v1/info", token=token).status == 200
