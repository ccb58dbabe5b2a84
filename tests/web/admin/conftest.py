from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.running import Answer, Server, running


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A server with the admin API, and somebody who may do everything there."""

    server: Server
    token: str

    def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask below /api/v1."""
        return self.server.admin(
            method, f"/api/v1{path}", body, token=token or self.token, headers=headers
        )

    def grant(self, name: str, **wishes: object) -> str:
        """Create a grant of site `west`; gives its id."""
        answer = self("POST", "/grants", {"name": name, "site": "west"} | wishes)
        assert answer.status == 201, answer
        made: str = answer.json()["grant"]["id"]
        return made


@pytest.fixture(scope="package")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("admin")
    # So that nobody is locked out by what others try in vain.
    further = {"GRANTSERVER_LISTEN_ADMIN": "127.0.0.1:0", "GRANTSERVER_LIMITS_PEER_FAILURES": "0"}
    with running(directory, **further) as server:
        desk = Desk(server=server, token=server.admin_token())
        answer = desk(
            "PUT",
            "/sites/east",
            {"endpoints": [{"role": "edge", "host": "east.example.com", "port": 45671}]},
        )
        assert answer.status == 200, answer
        yield desk
