"""What is put into a namespace, whose it is, and what is left alone."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.crypto.keys import make_pair
from app.domain.certificates import KeyType
from app.domain.receipts import Resource as Received
from app.errors import Conflict, Missing, Unavailable
from app.kube import client, links
from app.kube.links import MARK, Place, content, mark_of
from tests.kube.api_server import FakeKube, Kube, Object
from tests.kube.clients import connected, run
from tests.kube.objects import a_site

KEY = make_pair(KeyType.P256).private_pem

EAST = "east"
DATA = {"tls.crt": b"certificate", "tls.key": b"key", "ca.crt": b"ca"}
SECRET = """\
apiVersion: v1
data:
  ca.crt: Y2E=
  tls.crt: Y2VydGlmaWNhdGU=
  tls.key: a2V5
kind: Secret
metadata:
  creationTimestamp: null
  name: west
type: kubernetes.io/tls
"""
LINK = """\
apiVersion: skupper.io/v2alpha1
kind: Link
metadata:
  name: {name}
spec:
  cost: 3
  endpoints:
    - {{name: inter-router, host: west.example.com, port: "55671", group: g}}
  tlsCredentials: west
status: {{}}
"""


@pytest.fixture
def site(kube: Kube) -> Object:
    return furnished(kube)


def furnished(kube: Kube) -> Object:
    kube.install_skupper()
    kube.namespace(EAST)
    return kube.create(a_site("east", EAST))


def received(*names: str) -> list[Received]:
    return [
        Received(kind="Secret", name="west", text=SECRET),
        *(Received(kind="Link", name=name, text=LINK.format(name=name)) for name in names),
    ]


def place(kube: client.Kube, site: Object, mark: str = "token-1") -> Place:
    return Place(kube=kube, namespace=EAST, site=site, mark=mark)


def a_secret(kube: Kube, **metadata: Any) -> Object:
    return kube.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": EAST, "name": "west", **metadata},
            "type": "kubernetes.io/tls",
            "data": {"tls.crt": "eA==", "tls.key": "eA=="},
        }
    )


def owned_by(site: Object) -> list[Mapping[str, str]]:
    metadata = site["metadata"]
    owner = {"apiVersion": "skupper.io/v2alpha1", "kind": "Site"}
    return [{**owner, "name": metadata["name"], "uid": metadata["uid"]}]


def test_secret_and_links_are_there_owned_by_the_site_and_marked(
    kube: Kube, site: Object, tmp_path: Path
) -> None:
    async def main() -> None:
        async with connected(kube, tmp_path) as ours:
            found = await place(ours, site).store(received("west-1", "west-2"))
            assert found == ["Secret east/west", "Link east/west-1", "Link east/west-2"]

    run(main())
    secret = kube.get("Secret", "west", EAST)
    assert secret["type"] == "kubernetes.io/tls"
    assert {name: base64.b64decode(one) for name, one in secret["data"].items()} == DATA
    made = [kube.get("Link", f"west-{number}", EAST) for number in (1, 2)]
    assert [one["spec"]["cost"] for one in made] == [3, 3]
    assert made[0]["spec"]["endpoints"][0]["port"] == "55671"
    for one in (secret, *made):
        assert one["metadata"]["ownerReferences"] == owned_by(site)
        assert one["metadata"]["labels"] == {MARK: "token-1"}


def test_what_is_there_already_as_it_is_wanted_is_not_written_again(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    site = furnished(fake_kube)

    async def main() -> None:
        async with connected(fake_kube, tmp_path, token=fake_kube.token("client")) as ours:
            for _ in range(2):
                await place(ours, site).store(received("west"))

    run(main())
    assert len(fake_kube.requests.writes(user="client")) == 2


def test_what_is_ours_and_otherwise_is_brought_to_what_is_wanted(
    kube: Kube, site: Object, tmp_path: Path
) -> None:
    async def main() -> None:
        async with connected(kube, tmp_path) as ours:
            there = place(ours, site)
            begun = {"tls.crt": b"", "tls.key": b"mine", "more": b"x"}
            await there.put_secret("west", begun, {"ours/note": "1"})
            kube.patch("Secret", "west", {"metadata": {"labels": {"theirs": "yes"}}}, EAST)
            await there.store(received("west"))
            kube.patch("Link", "west", {"spec": {"cost": 9}}, EAST)
            await there.store(received("west"))

    run(main())
    secret = kube.get("Secret", "west", EAST)
    assert {name: base64.b64decode(one) for name, one in secret["data"].items()} == DATA
    assert secret["metadata"]["labels"] == {MARK: "token-1", "theirs": "yes"}
    assert kube.get("Link", "west", EAST)["spec"]["cost"] == 3


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"labels": {MARK: "token-1"}},  # but of a Site that is none of ours
        {"labels": {MARK: "token-2"}, "owned": True},
        {"owned": True},
    ],
    ids=["of nobody", "of another site", "of another token", "without a mark"],
)
def test_a_secret_that_is_not_ours_is_told_about_and_left_alone(
    kube: Kube, site: Object, tmp_path: Path, metadata: dict[str, Any]
) -> None:
    metadata = dict(metadata)
    if metadata.pop("owned", False):
        metadata["ownerReferences"] = owned_by(site)
    before = a_secret(kube, **metadata)

    async def main() -> None:
        async with connected(kube, tmp_path) as ours:
            there = place(ours, site)
            for work in (there.check("west"), there.store(received("west"))):
                with pytest.raises(Conflict) as caught:
                    await work
                assert str(caught.value) == 'secrets "west" already exists'

    run(main())
    assert kube.get("Secret", "west", EAST) == before


def test_a_link_that_is_not_ours_is_told_about_and_left_alone(
    kube: Kube, site: Object, tmp_path: Path
) -> None:
    before = kube.create(
        {
            "apiVersion": "skupper.io/v2alpha1",
            "kind": "Link",
            "metadata": {"namespace": EAST, "name": "west"},
            "spec": {"endpoints": []},
        }
    )

    async def main() -> None:
        async with connected(kube, tmp_path) as ours:
            there = place(ours, site)
            for work in (there.check("west"), there.store(received("west"))):
                with pytest.raises(Conflict) as caught:
                    await work
                assert str(caught.value) == 'links.skupper.io "west" already exists'

    run(main())
    assert kube.get("Link", "west", EAST) == before


def test_one_that_was_begun_for_an_earlier_token_of_the_name_is_taken_over(
    kube: Kube, site: Object, tmp_path: Path
) -> None:
    async def main() -> None:
        async with connected(kube, tmp_path) as ours:
            begun = {"tls.crt": b"", "tls.key": b"theirs"}
            await place(ours, site, "token-0").put_secret("west", begun, {})
            await place(ours, site).store(received("west"))
            # But not one with a certificate: a link may stand on it.
            with pytest.raises(Conflict):
                await place(ours, site, "token-2").secret("west")

    run(main())
    assert kube.get("Secret", "west", EAST)["metadata"]["labels"] == {MARK: "token-1"}


def test_a_command_and_a_controller_take_nothing_from_each_other(
    kube: Kube, site: Object, tmp_path: Path
) -> None:
    """Both may be at work with the same token at the same moment."""
    of_resource, of_command = "0e4c0d5a-7a1e-4b6e-9d3f-111111111111", mark_of("https://a.example")

    async def main() -> None:
        async with connected(kube, tmp_path) as ours:
            for name, first, second in (
                ("west", of_resource, of_command),
                ("east", of_command, of_resource),
            ):
                begun = await place(ours, site, first).keep_key(name, KEY)
                with pytest.raises(Conflict, match="already exists"):
                    await place(ours, site, second).keep_key(name, KEY)
                assert content(begun, "tls.key") == KEY

    run(main())


def test_a_key_is_dropped_only_while_nothing_else_is_there(
    kube: Kube, site: Object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with connected(kube, tmp_path) as ours:
            there = place(ours, site)
            await there.keep_key("west", KEY)
            get = ours.get

            async def meanwhile(*words: Any) -> Object:
                """Somebody stores the answer after we have looked."""
                found = await get(*words)
                monkeypatch.setattr(ours, "get", get)
                await there.put_secret("west", {"tls.crt": b"x", "tls.key": KEY}, {})
                return found

            monkeypatch.setattr(ours, "get", meanwhile)
            with pytest.raises(Conflict):
                await there.drop_key("west", KEY)
            await there.drop_key("west", KEY)  # in which there is a certificate now

    run(main())
    assert kube.get("Secret", "west", EAST)["data"]["tls.crt"]


def test_one_that_is_about_to_be_deleted_is_waited_for(
    kube: Kube, site: Object, tmp_path: Path
) -> None:
    async def main() -> None:
        async with connected(kube, tmp_path) as ours:
            there = place(ours, site)
            await there.store(received("west"))
            held = {"metadata": {"finalizers": ["example.com/held"]}}
            kube.patch("Link", "west", held, EAST)
            kube.delete("Link", "west", EAST)
            with pytest.raises(Conflict):
                await there.link("west")
            kube.patch("Link", "west", {"metadata": {"finalizers": None}}, EAST)
            assert await there.link("west") is None

    run(main())


def test_whoever_is_faster_is_looked_at_again(fake_kube: FakeKube, tmp_path: Path) -> None:
    site = furnished(fake_kube)

    async def main() -> None:
        async with connected(fake_kube, tmp_path, token=fake_kube.token("client")) as ours:
            there = place(ours, site)
            fake_kube.faults.fail(409, verb="create", resource="secrets", user="client")
            await there.store(received("west"))
            fake_kube.faults.fail(409, times=100, verb="patch", resource="secrets", user="client")
            with pytest.raises(Unavailable, match="changes all the time"):
                await there.put_secret("west", {"tls.crt": b"", "tls.key": b""}, {})

    run(main())


def test_new_content_goes_into_the_secret_that_was_seen_and_into_no_other(
    kube: Kube, site: Object, tmp_path: Path
) -> None:
    async def main() -> None:
        async with connected(kube, tmp_path) as ours:
            there = place(ours, site)
            found = await there.put_secret("west", DATA, {"a": "1", "b": "1"})
            assert links.content(found, "tls.key") == b"key"
            assert links.content(found, "absent") == b""
            changed = await links.replace_data(
                ours, found, {"tls.crt": b"new"}, {"a": None, "b": "2"}
            )
            assert links.content(changed, "tls.crt") == b"new"
            assert links.content(changed, "ca.crt") == b"ca"
            assert changed["metadata"]["annotations"] == {"b": "2"}
            with pytest.raises(Conflict):
                await links.replace_data(ours, found, {"tls.crt": b"newer"}, {})
            kube.delete("Secret", "west", EAST)
            with pytest.raises(Missing):
                await links.replace_data(ours, changed, {"tls.crt": b"newer"}, {})

    run(main())


def test_the_site_of_a_namespace_is_the_one_that_counts(kube: Kube, tmp_path: Path) -> None:
    kube.install_skupper()
    kube.namespace(EAST)

    async def main() -> None:
        async with connected(kube, tmp_path) as ours:
            assert await links.site_in(ours, EAST) is None
            kube.create(a_site("east", EAST))
            found = await links.site_in(ours, EAST)
            assert found is not None
            assert found["metadata"]["name"] == "east"

    run(main())


def test_a_token_that_is_a_file_is_known_by_its_url() -> None:
    one, other = (links.mark_of(f"https://grants.example/{path}") for path in "ab")
    assert one != other
    assert one == links.mark_of("https://grants.example/a")
    assert len(one) <= 63  # of a label
