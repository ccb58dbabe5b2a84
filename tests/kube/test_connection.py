import asyncio
import re
import ssl
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import yaml
from kubernetes.aio.client.configuration import Configuration

import app.kube
from app import __version__
from app.errors import Misconfigured, Unavailable
from app.kube.connection import Connection, Source, kubeconfig, service_account, trouble
from tests.kube.api_server import FakeKube
from tests.kube.clients import Scripted, answer, run
from tests.kube.serving import Authority

NAMESPACES = "/api/v1/namespaces"


@asynccontextmanager
async def opened(source: Source) -> AsyncIterator[Connection]:
    connection = await Connection.open(source)
    try:
        yield connection
    finally:
        await connection.close()


async def ask(connection: Connection, path: str = NAMESPACES, **query: str) -> int:
    answer = await connection.send(
        "GET", path, names={}, query=query, content_type="application/json", body=None
    )
    async with answer:
        await answer.read()
    return answer.status


def in_cluster(server: FakeKube, directory: Path) -> Source:
    port = urlsplit(server.url).port
    assert port is not None
    return service_account(host="127.0.0.1", port=port, directory=directory)


def test_a_pod_is_known_by_its_service_account(fake_kube: FakeKube, tmp_path: Path) -> None:
    fake_kube.service_account(tmp_path, fake_kube.token("grantserver"))

    async def main() -> None:
        async with opened(in_cluster(fake_kube, tmp_path)) as connection:
            assert await ask(connection) == 200

    run(main())
    assert [one.user for one in fake_kube.requests] == ["system:serviceaccount:default:grantserver"]


def test_everybody_else_has_a_kubeconfig(fake_kube: FakeKube, tmp_path: Path) -> None:
    config = fake_kube.kubeconfig(tmp_path / "config", fake_kube.token("somebody"))

    async def main() -> None:
        async with opened(kubeconfig(config, context="test")) as connection:
            assert await ask(connection) == 200

    run(main())
    assert len(fake_kube.requests.of(user="somebody")) == 1


def test_we_say_who_we_are_and_what_we_want() -> None:
    async def main() -> bytes:
        async with Scripted(answer("200 OK")) as server, opened(server.source()) as connection:
            assert await ask(connection, "/a/b", labelSelector="a=b,c!=d e") == 200
            return server.asked[0]

    head = run(main()).decode()
    path, _, query = head.split()[1].partition("?")
    assert path == "/a/b"
    assert parse_qs(query) == {"labelSelector": ["a=b,c!=d e"]}
    assert f"User-Agent: grantserver/{__version__}\r\n" in head
    assert "Accept: application/json\r\n" in head


@pytest.mark.parametrize("name", ["west/../east", "a b", "ä?x=y#z", "%2F"])
def test_a_name_cannot_lead_to_another_path(name: str) -> None:
    async def main() -> bytes:
        async with Scripted(answer("200 OK")) as server, opened(server.source()) as connection:
            await connection.send(
                *("GET", "/n/{name}"), names={"name": name}, query={}, content_type="", body=None
            )
            return server.asked[0]

    path = run(main()).split()[1].decode()
    assert path.startswith("/n/")
    assert not set(path[3:]) & set("/?#")
    assert ".." not in path or "%2F" in path


def test_a_token_that_has_expired_is_read_anew(fake_kube: FakeKube, tmp_path: Path) -> None:
    old = fake_kube.token("grantserver")
    fake_kube.service_account(tmp_path, old)

    async def main() -> None:
        async with opened(in_cluster(fake_kube, tmp_path)) as connection:
            assert await ask(connection) == 200
            fake_kube.expire(old)
            fake_kube.service_account(tmp_path, fake_kube.token("grantserver"))
            assert await ask(connection) == 200
            assert await ask(connection) == 200

    run(main())
    assert [one.code for one in fake_kube.requests] == [200, 401, 200, 200]


def test_a_token_of_a_kubeconfig_is_read_anew_too(fake_kube: FakeKube, tmp_path: Path) -> None:
    old = fake_kube.token("somebody")
    config = fake_kube.kubeconfig(tmp_path / "config", old)

    async def main() -> None:
        async with opened(kubeconfig(config)) as connection:
            fake_kube.expire(old)
            assert await ask(connection) == 401
            fake_kube.kubeconfig(config, fake_kube.token("somebody"))
            assert await ask(connection) == 200

    run(main())


def test_all_who_are_refused_at_once_read_the_token_anew_once(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    old = fake_kube.token("grantserver")
    fake_kube.service_account(tmp_path, old)
    source = in_cluster(fake_kube, tmp_path)
    reads: list[None] = []

    async def counted() -> Configuration:
        reads.append(None)
        return await source()

    async def main() -> None:
        async with opened(counted) as connection:
            fake_kube.expire(old)
            fake_kube.service_account(tmp_path, fake_kube.token("grantserver"))
            assert await asyncio.gather(*[ask(connection) for _ in range(20)]) == [200] * 20

    run(main())
    assert len(reads) == 2


def test_what_was_asked_before_is_answered_although_the_token_is_read_anew(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    old = fake_kube.token("grantserver")
    fake_kube.service_account(tmp_path, old)

    async def main() -> None:
        async with opened(in_cluster(fake_kube, tmp_path)) as connection:
            frozen = fake_kube.faults.freeze(times=1, after=True)
            early = asyncio.create_task(ask(connection))
            await asyncio.to_thread(frozen.wait)
            fake_kube.expire(old)
            fake_kube.service_account(tmp_path, fake_kube.token("grantserver"))
            assert await ask(connection) == 200
            frozen.release()
            assert await early == 200

    run(main())


def test_a_token_may_end_with_a_line_break(fake_kube: FakeKube, tmp_path: Path) -> None:
    fake_kube.service_account(tmp_path, fake_kube.token("grantserver") + "\n")

    async def main() -> None:
        async with opened(in_cluster(fake_kube, tmp_path)) as connection:
            assert await ask(connection) == 200

    run(main())


def test_a_ca_that_was_exchanged_is_read_anew(fake_kube: FakeKube, tmp_path: Path) -> None:
    token = fake_kube.token("grantserver")
    right = fake_kube.ca_pem
    fake_kube.ca_pem = Authority.make().pem
    fake_kube.service_account(tmp_path, token)

    async def main() -> None:
        async with opened(in_cluster(fake_kube, tmp_path)) as connection:
            with pytest.raises(Unavailable, match=r"cannot be trusted \(.*certificate"):
                await ask(connection)
            fake_kube.ca_pem = right
            fake_kube.service_account(tmp_path, token)
            assert await ask(connection) == 200

    run(main())
    assert [one.code for one in fake_kube.requests] == [200]


def test_a_server_that_is_exchanged_while_we_are_refused_is_not_trusted(tmp_path: Path) -> None:
    """The one that refuses is of one CA, and the one that is there afterwards of another."""
    servers = [FakeKube(), FakeKube()]
    config = servers[0].kubeconfig(tmp_path / "config", "nobody's")
    sources: list[Source] = [kubeconfig(config)]

    async def source() -> Configuration:
        return await sources[0]()

    async def main() -> None:
        async with opened(source) as connection:
            servers[1].ca_pem = servers[0].ca_pem
            sources[0] = kubeconfig(servers[1].kubeconfig(tmp_path / "config"))
            with pytest.raises(Unavailable, match="cannot be trusted"):
                await ask(connection)

    run(main())
    for server in servers:
        server.stop()


def test_a_server_that_speaks_no_tls_is_not_trusted(tmp_path: Path) -> None:
    async def main() -> None:
        async with Scripted(answer("400 Bad Request")) as server:
            config = {
                "clusters": [
                    {"name": "c", "cluster": {"server": server.url.replace("http:", "https:")}}
                ],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "users": [{"name": "u", "user": {"token": "s3cret"}}],
                "current-context": "x",
            }
            (tmp_path / "config").write_text(yaml.safe_dump(config))
            async with opened(kubeconfig(tmp_path / "config")) as connection:
                with pytest.raises(Unavailable, match="cannot be trusted"):
                    await ask(connection)
            assert not any(b"s3cret" in one for one in server.asked)

    run(main())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "File does not exist|No such file|Invalid kube-config"),
        ("", "cannot be used"),
        ("[]", "cannot be used"),
        ("users: [{name: u, user: {token: s3cret", r"cannot be used \(\w+\)"),
        ("current-context: nowhere\ncontexts: []\nclusters: []", "Expected"),
        ("current-context: 7", "Expected"),
    ],
)
def test_a_kubeconfig_that_is_none_is_a_misconfiguration(
    tmp_path: Path, content: str | None, why: str
) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Misconfigured, match=why) as caught:
        run(Connection.open(kubeconfig(path)))
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_a_pod_without_a_service_account_is_a_misconfiguration(
    fake_kube: FakeKube, tmp_path: Path, missing: str
) -> None:
    fake_kube.service_account(tmp_path, "x")
    (tmp_path / missing).unlink()
    with pytest.raises(Misconfigured, match=r"Kubernetes: the credentials cannot be used"):
        run(Connection.open(in_cluster(fake_kube, tmp_path)))


def test_a_ca_that_cannot_be_read_is_a_misconfiguration(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    fake_kube.service_account(tmp_path, "x")
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(Misconfigured, match="the credentials cannot be read: SSLError"):
        run(Connection.open(in_cluster(fake_kube, tmp_path)))


def test_a_source_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def source() -> Configuration:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("app.kube.connection._LOADING_SECONDS", 0.01)
    with pytest.raises(Misconfigured, match="cannot be read: TimeoutError"):
        run(Connection.open(source))


def test_a_token_that_is_gone_is_waited_for(fake_kube: FakeKube, tmp_path: Path) -> None:
    fake_kube.service_account(tmp_path, fake_kube.token("grantserver"))
    token = (tmp_path / "token").read_text()

    async def main() -> None:
        async with opened(in_cluster(fake_kube, tmp_path)) as connection:
            # What the library has read is a minute old.
            hook: Any = connection._api.configuration.refresh_api_key_hook
            loader = hook.__closure__[0].cell_contents
            loader.token_expires_at = loader.token_expires_at.replace(year=2000)
            (tmp_path / "token").unlink()
            with pytest.raises(Unavailable, match="token of the service account cannot be read"):
                await ask(connection)
            (tmp_path / "token").write_text(token)
            assert await ask(connection) == 200

    run(main())


def test_credentials_that_are_refused_and_gone_are_unavailable(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    token = fake_kube.token("grantserver")
    fake_kube.service_account(tmp_path, token)

    async def main() -> None:
        async with opened(in_cluster(fake_kube, tmp_path)) as connection:
            fake_kube.expire(token)
            (tmp_path / "token").unlink()
            with pytest.raises(Unavailable, match="credentials cannot be used"):
                await ask(connection)

    run(main())


def test_an_api_server_that_is_away_is_unavailable(fake_kube: FakeKube, tmp_path: Path) -> None:
    fake_kube.service_account(tmp_path, fake_kube.token("grantserver"))
    fake_kube.stop()

    async def main() -> None:
        async with opened(in_cluster(fake_kube, tmp_path)) as connection:
            with pytest.raises(Unavailable, match="the API server refuses the connection"):
                await ask(connection)
            fake_kube.start()
            assert await ask(connection) == 200

    run(main())


def test_no_credential_is_in_an_error() -> None:
    token = "s3cret-t0ken"

    async def main() -> None:
        async with Scripted([b"\x00\x00\x00\x00\r\n\r\n"]) as server:
            source = server.source()

            async def known() -> Configuration:
                configuration = await source()
                configuration.api_key["BearerToken"] = f"Bearer {token}"
                return configuration

            async with opened(known) as connection:
                with pytest.raises(Unavailable) as caught:
                    await ask(connection)
                assert f"Bearer {token}".encode() in server.asked[0]
        shown = "".join(traceback.format_exception(caught.value))
        chain: BaseException | None = caught.value
        while chain is not None:
            shown += repr(chain) + repr(vars(chain))
            chain = chain.__cause__
        assert token not in shown

    run(main())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(), "refuses the connection"),
        (ConnectionResetError(), "broke the connection off"),
        (BrokenPipeError(), "broke the connection off"),
        (aiohttp.ClientPayloadError(), "broke its answer off before the end"),
        (aiohttp.ServerDisconnectedError(), "closed the connection without an answer"),
        (TimeoutError(), "did not answer in time"),
        (OSError(113, "No route to host"), "cannot be reached (No route to host)"),
        (ssl.SSLError(), "cannot be reached (SSLError)"),
        (ValueError("Bearer s3cret"), "cannot be reached (ValueError)"),
    ],
)
def test_troubles_are_told_in_words_of_ours(error: Exception, said: str) -> None:
    assert trouble(error) == f"the API server {said}"


def test_one_module_owns_the_import_of_the_library() -> None:
    importing = re.compile(r"^(?:from|import) kubernetes\b", re.MULTILINE)
    files = Path(app.kube.__file__).parent.glob("*.py")
    assert [one.name for one in files if importing.search(one.read_text())] == ["connection.py"]


def test_a_uid_without_a_name_and_a_home_is_no_obstacle() -> None:
    """As OpenShift runs pods."""
    program = (
        "import pwd\n"
        "def getpwuid(uid):\n"
        "    raise KeyError(uid)\n"
        "pwd.getpwuid = getpwuid\n"
        "import app.kube.connection\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
