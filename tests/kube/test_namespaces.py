import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from app import ambient
from app.crypto.keys import PrivateKey, to_pem, to_traditional_pem
from app.domain.authorities import Authority
from app.domain.sites import MOST_ENDPOINTS, Site
from app.errors import Unavailable
from app.kube.informer import Informer, Pace
from app.kube.namespaces import KEYS_KEPT_SECONDS, NOTHING, Namespaces, kept_of_secret
from app.kube.resources import SECRETS, SITES, Key, Object
from app.services.cluster import Cluster
from app.store import authorities as authority_rows
from app.store import sites as site_rows
from tests.builders import NOW, Stand
from tests.crypto.conftest import odd_certificate
from tests.kube.api_server import FakeKube, Kube, KubeError
from tests.kube.clients import LOG, QUICK, running, until
from tests.kube.objects import ISSUER, NAMESPACE, Ca, a_ca, a_secret, a_site
from tests.kube.stage import client_of, connected

KEY = Key(NAMESPACE, ISSUER)
NO_ISSUERS: frozenset[str] = frozenset()


@dataclass(kw_only=True)
class Play:
    """Namespaces with their informers, beside the API server that both look at."""

    kube: Kube
    stand: Stand
    namespaces: Namespaces
    sites: Informer
    secrets: Informer

    async def see(self, informer: Informer, key: Key, found: Object | None) -> None:
        """Wait until an informer has seen what is there now."""

        def seen() -> bool:
            there = informer.get(key)
            if found is None or there is None:
                return there is found
            kept, metadata = informer._store[key], found["metadata"]
            return (kept.uid, kept.version) == (metadata["uid"], metadata["resourceVersion"])

        await until(seen)

    async def put_secret(self, secret: Object) -> None:
        """Create a Secret, or give the one of its name another content."""
        metadata = secret["metadata"]
        try:
            found = self.kube.create(secret)
        except KubeError:
            found = self.kube.patch(
                "Secret", metadata["name"], {"data": secret["data"]}, metadata["namespace"]
            )
        await self.see(self.secrets, Key(metadata["namespace"], metadata["name"]), found)

    async def put_site(self, site: Object) -> None:
        found = self.kube.create(site)
        await self.see(self.sites, Key(NAMESPACE, site["metadata"]["name"]), found)

    async def change_site(self, change: Object, name: str = "north", part: str = "") -> None:
        found = self.kube.patch("Site", name, change, NAMESPACE, subresource=part)
        await self.see(self.sites, Key(NAMESPACE, name), found)

    async def delete(self, kind: str, name: str) -> None:
        self.kube.delete(kind, name, NAMESPACE)
        informer = self.sites if kind == "Site" else self.secrets
        await self.see(informer, Key(NAMESPACE, name), None)

    async def settle(self, *issuers: str, wanted: bool = True) -> bool:
        return await self.namespaces.settle(NAMESPACE, frozenset(issuers), wanted=wanted)

    def site(self) -> Site | None:
        """The namespace as the database has it."""
        with self.stand.database.reading() as connection:
            return site_rows.by_name(connection, NAMESPACE)

    def the_site(self) -> Site:
        """It, where there has to be one."""
        found = self.site()
        assert found is not None
        return found

    def authority(self, secret: str = ISSUER) -> Authority:
        """The authority that stands for a Secret."""
        known = self.namespaces.get(NAMESPACE)
        assert known is not None
        signer = known.signers[secret]
        assert signer.authority_id is not None, signer.problem
        with self.stand.database.reading() as connection:
            found = authority_rows.by_id(connection, signer.authority_id)
        assert found is not None
        return found

    def kept(self, authority: Authority) -> Authority:
        """An authority as the database has it now."""
        with self.stand.database.reading() as connection:
            found = authority_rows.by_id(connection, authority.id)
        assert found is not None
        return found

    def problem(self, secret: str = ISSUER) -> str | None:
        known = self.namespaces.get(NAMESPACE)
        assert known is not None
        return known.signers[secret].problem


@asynccontextmanager
async def playing(kube: Kube, stand: Stand, directory: Path) -> AsyncIterator[Play]:
    async with connected(kube, directory, kube.token("grantserver")) as client:

        def informer(*what: object) -> Informer:
            resource, transform = what
            return Informer(
                client,
                resource,  # type: ignore[arg-type]
                transform=transform,  # type: ignore[arg-type]
                pace=Pace(backoff=QUICK),
                random_bytes=ambient.random_bytes,
                log=LOG,
            )

        sites, secrets = informer(SITES, None), informer(SECRETS, kept_of_secret)
        cluster = Cluster(
            database=stand.database,
            keyring=stand.keyring,
            code_keys=stand.code_keys,
            clock=stand.clock,
            random_bytes=ambient.random_bytes,
        )
        play = Play(
            kube=kube,
            stand=stand,
            namespaces=Namespaces(client, cluster, sites, secrets),
            sites=sites,
            secrets=secrets,
        )
        sites.on_change(lambda change: play.namespaces.note_site(change.key))
        async with running(sites.run()), running(secrets.run()):
            await sites.wait_synced()
            await secrets.wait_synced()
            yield play


@pytest.fixture
def kube(kube: Kube) -> Kube:
    """With the definitions of Skupper and a namespace."""
    kube.install_skupper()
    kube.namespace(NAMESPACE)
    return kube


async def furnish(play: Play) -> None:
    await play.put_secret(a_secret())
    await play.put_site(a_site())


def test_a_namespace_is_a_site_in_the_database(kube: Kube, stand: Stand, tmp_path: Path) -> None:
    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            assert play.namespaces.get(NAMESPACE) is None
            assert await play.settle()
            known = play.namespaces.get(NAMESPACE)
            assert known is not None
            assert (known.issuer, known.problem) == (ISSUER, None)
            assert known.site is not None
            site, authority = play.site(), play.authority()
            assert site is not None
            assert (site.origin, site.endpoints) == ("kubernetes", known.site.endpoints)
            assert site.issuer == authority.name
            assert authority.certificate_pem == a_ca().certificate_pem.decode()
            assert authority.sealed_key

    asyncio.run(main())


def test_what_stands_already_is_not_written_again(kube: Kube, stand: Stand, tmp_path: Path) -> None:
    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            await play.settle()
            before = play.site()
            assert not await play.settle()
            assert play.site() == before
        async with playing(kube, stand, tmp_path) as play:
            assert await play.settle()  # to this one it was news
            assert play.site() == before

    asyncio.run(main())


def test_a_secret_is_read_once_for_each_of_its_versions(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    def reads() -> int:
        return len(kube.requests.of(verb="get", resource="secrets", user="grantserver"))

    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            for _ in range(3):
                await play.settle()
            assert reads() == 1
            await play.put_secret(a_secret(ca=a_ca("another")))
            for _ in range(3):
                await play.settle()
            assert reads() == 2

    asyncio.run(main())


def test_nothing_that_a_secret_holds_is_kept_in_memory(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            await play.settle()
            kept = play.secrets.get(KEY)
            assert kept is not None
            assert kept.keys() == {"metadata"}
            assert kept["metadata"].keys() == {"namespace", "name", "uid", "resourceVersion"}
            assert "PRIVATE KEY" not in repr(vars(play.namespaces))

    asyncio.run(main())


def test_another_content_is_another_authority_and_the_key_of_the_old_one_is_forgotten(
    kube: Kube, stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kube.namespaces.KEYS_KEPT_SECONDS", 0.0)

    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            await play.settle()
            old = play.authority()
            await play.put_secret(a_secret(ca=a_ca("another")))
            assert await play.settle()
            new = play.authority()
            assert new.id != old.id
            assert play.the_site().issuer == new.name
            assert play.kept(old).sealed_key
            assert await play.namespaces.forget_keys() is None
            assert (play.kept(old).sealed_key, play.kept(old).certificate_pem) == (
                b"",
                old.certificate_pem,
            )
            assert play.kept(new).sealed_key
            # It comes back: its key is read from the Secret again.
            await play.put_secret(a_secret())
            assert await play.settle()
            assert play.authority().id == old.id
            assert play.authority().sealed_key

    asyncio.run(main())


def test_a_key_is_kept_for_claims_that_are_about_to_be_signed_with_it(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    """They have found their grant and its issuer already, and take ten seconds at most."""

    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            await play.settle("own-ca")
            old = play.authority()
            await play.put_secret(a_secret(ca=a_ca("another")))
            await play.settle()
            again = await play.namespaces.forget_keys()
            assert again is not None
            assert 20 < again <= KEYS_KEPT_SECONDS
            assert play.kept(old).sealed_key
            await play.put_secret(a_secret())
            await play.settle()
            await play.put_secret(a_secret(ca=a_ca("another")))
            await play.settle()
            assert await play.namespaces.forget_keys() is not None

    asyncio.run(main())


def test_a_key_is_forgotten_whose_secret_went_while_nobody_watched(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            await play.settle()
            old = play.authority()
        kube.delete("Secret", ISSUER, NAMESPACE)
        async with playing(kube, stand, tmp_path) as play:
            await play.settle()
            assert await play.namespaces.forget_keys() is None
            assert play.kept(old).sealed_key == b""

    asyncio.run(main())


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())


KEYS: list[tuple[PrivateKey, Callable[[PrivateKey], bytes], bytes]] = [
    (RSA, to_traditional_pem, b"-----BEGIN RSA PRIVATE KEY-----"),
    (RSA, to_pem, b"-----BEGIN PRIVATE KEY-----"),
    (P256, to_traditional_pem, b"-----BEGIN EC PRIVATE KEY-----"),
    (P256, to_pem, b"-----BEGIN PRIVATE KEY-----"),
    (P384, to_traditional_pem, b"-----BEGIN EC PRIVATE KEY-----"),
    (P384, to_pem, b"-----BEGIN PRIVATE KEY-----"),
]


def test_an_issuer_secret_may_hold_any_kind_of_key_and_a_chain(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    root = odd_certificate(P256, name="root")

    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await play.put_site(a_site())
            held: dict[str, bytes] = {}
            for number, (key, write, begins) in enumerate(KEYS):
                alone = odd_certificate(key, name=f"alone-{number}").pem
                signer = odd_certificate(key, name=f"signer-{number}", by=root)
                assert write(key).startswith(begins)
                for name, pem in (("alone", alone), ("chain", signer.pem + root.pem)):
                    held[f"{name}-{number}"] = pem
                    ca = Ca(certificate_pem=pem, key_pem=write(key))
                    await play.put_secret(a_secret(f"{name}-{number}", ca=ca))
            await play.settle(*held)
            for name, pem in held.items():
                assert play.authority(name).certificate_pem == pem.decode()
            assert len({play.authority(name).id for name in held}) == len(held)

    asyncio.run(main())


ENCRYPTED = P256.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.BestAvailableEncryption(b"Hunter2"),
)


UNUSABLE: list[tuple[dict[str, bytes | str], str]] = [
    ({"tls.crt": ""}, "it has no tls.crt"),
    ({"tls.key": b""}, "it has no tls.key"),
    ({"tls.crt": b"no certificate"}, "tls.crt: "),
    ({"tls.crt": b"\xff\xfe"}, "tls.crt is not UTF-8"),
    ({"tls.crt": b"\0" + a_ca().certificate_pem}, "tls.crt"),
    ({"tls.key": b"no key"}, "tls.key: "),
    ({"tls.key": ENCRYPTED}, "tls.key: "),
    ({"tls.key": to_pem(P384)}, "tls.key: the key does not belong to the certificate"),
    ({"tls.crt": odd_certificate(P256, extensions=()).pem, "tls.key": to_pem(P256)}, "tls.crt: "),
]


def test_a_secret_that_cannot_sign_says_what_is_wrong_and_the_site_has_no_issuer(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await play.put_site(a_site())
            for data, problem in UNUSABLE:
                await play.put_secret(a_secret(data=data))
                await play.settle()
                told = play.problem()
                assert told is not None
                assert told.startswith(problem)
                assert play.the_site().issuer == "(none)"
                # And it is well as soon as the Secret is.
                await play.put_secret(a_secret())
                assert await play.settle()
                assert play.problem() is None
                assert play.the_site().issuer == play.authority().name

    asyncio.run(main())


def test_an_issuer_that_is_not_there_is_nothing_until_it_comes_and_when_it_has_gone(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await play.put_site(a_site())
            for _ in range(2):
                await play.settle("own-ca")
                known = play.namespaces.get(NAMESPACE)
                assert known is not None
                assert known.signers == {ISSUER: NOTHING, "own-ca": NOTHING}
                await play.put_secret(a_secret("own-ca"))
                assert await play.settle("own-ca")
                assert play.authority("own-ca").name.startswith("kubernetes-")
                await play.delete("Secret", "own-ca")

    asyncio.run(main())


def test_an_issuer_matters_while_it_is_read_for_the_first_time(
    fake_kube: FakeKube, stand: Stand, tmp_path: Path
) -> None:
    fake_kube.install_skupper()
    fake_kube.namespace(NAMESPACE)
    frozen = fake_kube.faults.freeze(verb="get", resource="secrets", namespace=NAMESPACE)

    async def main() -> None:
        async with playing(fake_kube, stand, tmp_path) as play:
            await furnish(play)
            await play.put_secret(a_secret("own-ca"))
            settled = play.namespaces.settle(NAMESPACE, frozenset({"own-ca"}), wanted=True)
            async with running(settled) as settling:
                await asyncio.to_thread(frozen.wait)
                for one, asked in (("own-ca", True), (ISSUER, True), ("other", False)):
                    assert play.namespaces.asks_for(NAMESPACE, one) is asked
                frozen.release()
                assert await settling

    asyncio.run(main())


def test_only_issuers_that_somebody_asks_for_matter(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            assert not play.namespaces.asks_for(NAMESPACE, ISSUER)  # nobody has asked yet
            await play.settle("own-ca")
            asked = [
                play.namespaces.asks_for(NAMESPACE, one) for one in (ISSUER, "own-ca", "other")
            ]
            assert asked == [True, True, False]
            assert not play.namespaces.asks_for("elsewhere", ISSUER)
            assert await play.settle()
            assert not play.namespaces.asks_for(NAMESPACE, "own-ca")

    asyncio.run(main())


def test_the_issuer_of_the_site_is_the_one_of_its_spec_before_that_of_its_status(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            for name in ("spec-ca", "status-ca"):
                await play.put_secret(a_secret(name, ca=a_ca(name)))
            used = {}
            for change, part in (
                ({"status": {"defaultIssuer": "status-ca"}}, "status"),
                ({"spec": {"defaultIssuer": "spec-ca"}}, ""),
                ({"spec": {"defaultIssuer": None}}, ""),
                ({"status": {"defaultIssuer": None}}, "status"),
            ):
                await play.change_site(change, part=part)
                assert await play.settle()
                known = play.namespaces.get(NAMESPACE)
                assert known is not None
                assert play.the_site().issuer == play.authority(known.issuer).name
                used[known.issuer] = play.the_site().issuer
            assert list(used) == ["status-ca", "spec-ca", ISSUER]
            assert len(set(used.values())) == 3

    asyncio.run(main())


def test_an_edge_site_has_no_endpoints_for_others(kube: Kube, stand: Stand, tmp_path: Path) -> None:
    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await play.put_secret(a_secret())
            await play.put_site(a_site(edge=True))
            await play.settle()
            assert play.the_site().endpoints == ()
            await play.change_site({"spec": {"edge": False}})
            assert await play.settle()
            assert len(play.the_site().endpoints) == 2

    asyncio.run(main())


def test_a_site_with_more_endpoints_than_an_answer_holds_gives_none(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    many = [
        {"name": "inter-router", "host": "192.0.2.4", "port": str(port), "group": "skupper-router"}
        for port in range(1, MOST_ENDPOINTS + 2)
    ]

    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await play.put_secret(a_secret())
            await play.put_site(a_site(status={"endpoints": many}))
            await play.settle()
            assert play.the_site().endpoints == ()
            await play.change_site({"status": {"endpoints": many[1:]}}, part="status")
            assert await play.settle()
            assert len(play.the_site().endpoints) == MOST_ENDPOINTS

    asyncio.run(main())


def test_a_namespace_without_a_site_is_kept_for_the_grants_that_are_there(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            await play.settle()
            await play.delete("Site", "north")
            assert await play.settle()
            assert play.the_site().endpoints == ()
            assert await play.settle(wanted=False)
            assert play.site() is None
            assert play.namespaces.get(NAMESPACE) is None
            assert not await play.settle(wanted=False)

    asyncio.run(main())


def test_a_site_of_the_servers_own_is_left_alone_and_looked_at_again(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    local = stand.set_site(NAMESPACE)

    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            assert await play.settle()
            known = play.namespaces.get(NAMESPACE)
            assert known is not None
            assert f'has a site "{NAMESPACE}" of its own' in str(known.problem)
            assert play.site() == local
            # Nobody tells us when it is removed.
            again = play.namespaces.soonest(NAMESPACE, NOW)
            assert again is not None
            assert 0 < again <= 60

    asyncio.run(main())


def test_the_next_moment_of_an_issuer_is_when_it_begins_or_has_ended(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    first, last = NOW + 500, NOW + 900

    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            secret = a_secret("own-ca", ca=a_ca("short", not_before=first, not_after=last))
            await play.put_secret(secret)
            assert play.namespaces.soonest(NAMESPACE, NOW) is None
            await play.settle("own-ca")
            moments = [NOW, first - 1, first, last, last + 1]
            assert [play.namespaces.soonest(NAMESPACE, now) for now in moments] == [
                500,
                1,
                401,
                1,
                None,
            ]

    asyncio.run(main())


def test_while_a_secret_cannot_be_read_nothing_is_decided(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            await play.settle()
            before = play.site()
            await play.put_secret(a_secret(ca=a_ca("another")))
            client = play.namespaces._kube
            nobody = kube.token("nobody", [])
            async with client_of(kube, tmp_path, nobody) as forbidden:
                play.namespaces._kube = forbidden
                with pytest.raises(Unavailable):
                    await play.settle()
            assert play.site() == before
            play.namespaces._kube = client
            assert await play.settle()
            assert play.site() != before

    asyncio.run(main())


def test_a_secret_that_is_slow_to_read_holds_up_no_other_namespace(
    fake_kube: FakeKube, stand: Stand, tmp_path: Path
) -> None:
    fake_kube.install_skupper()
    for namespace in ("slow", NAMESPACE):
        fake_kube.namespace(namespace)
    frozen = fake_kube.faults.freeze(verb="get", resource="secrets", namespace="slow")

    async def main() -> None:
        async with playing(fake_kube, stand, tmp_path) as play:
            await furnish(play)
            await play.put_secret(a_secret(namespace="slow"))
            slow = play.namespaces.settle("slow", NO_ISSUERS, wanted=True)
            async with running(slow) as settling:
                await asyncio.to_thread(frozen.wait)
                assert await play.settle()
                assert await play.namespaces.forget_keys() is None
                assert play.authority().sealed_key
                assert not settling.done()
                frozen.release()
                assert await settling

    asyncio.run(main())


def test_a_key_is_not_forgotten_between_its_finding_and_its_use(
    fake_kube: FakeKube, stand: Stand, tmp_path: Path
) -> None:
    fake_kube.install_skupper()
    fake_kube.namespace(NAMESPACE)

    async def main() -> None:
        async with playing(fake_kube, stand, tmp_path) as play:
            await furnish(play)
            await play.put_secret(a_secret("own-ca", ca=a_ca("another")))
            first, second = (
                fake_kube.faults.freeze(times=1, verb="get", resource="secrets") for _ in range(2)
            )
            async with running(play.settle("own-ca")) as settling:
                await asyncio.to_thread(first.wait)
                first.release()
                await asyncio.to_thread(second.wait)
                await play.namespaces.forget_keys()
                second.release()
                await settling
            assert play.authority().sealed_key
            assert play.authority("own-ca").sealed_key
            # Nobody uses what was found by one who has failed.
            await play.put_secret(a_secret("own-ca", ca=a_ca("third")))
            fake_kube.faults.fail(verb="get", resource="secrets")
            with pytest.raises(Unavailable):
                await play.settle("own-ca")
            assert not play.namespaces._found

    asyncio.run(main())


def test_a_key_that_is_being_forgotten_is_found_no_more(
    kube: Kube, stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    forget = Cluster.forget_unused_keys

    def slowly(self: Cluster, asked_for: frozenset[int] = frozenset()) -> None:
        begun.set()
        assert go_on.wait(20)
        forget(self, asked_for)

    monkeypatch.setattr(Cluster, "forget_unused_keys", slowly)

    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await furnish(play)
            await play.put_secret(a_secret("own-ca", ca=a_ca("another")))
            await play.settle("own-ca")
            await play.settle()
            play.namespaces._asked_for.clear()  # it was a while ago
            async with running(play.namespaces.forget_keys()) as forgetting:
                await asyncio.to_thread(begun.wait)
                async with running(play.settle("own-ca")) as settling:
                    await asyncio.wait([settling], timeout=0.1)
                    go_on.set()
                    await forgetting
                    await settling
            assert play.authority("own-ca").sealed_key

    try:
        asyncio.run(main())
    finally:
        go_on.set()


def test_a_secret_that_goes_while_it_is_read_is_nothing(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        async with playing(kube, stand, tmp_path) as play:
            await play.put_site(a_site())
            await play.put_secret(a_secret())
            seen = play.secrets._store[KEY]
            await play.delete("Secret", ISSUER)
            play.secrets._store[KEY] = seen  # as it was a moment ago
            await play.settle()
            known = play.namespaces.get(NAMESPACE)
            assert known is not None
            assert known.signers == {ISSUER: NOTHING}

    asyncio.run(main())
