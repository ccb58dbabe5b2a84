import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import update

from app import ambient
from app.domain.accounts import Account
from app.domain.admin_tokens import generate
from app.domain.callers import Caller, Kind, Rights, Verb, read_rights
from app.domain.limits import Allowance
from app.errors import Unauthenticated, Unavailable
from app.services import admin_tokens
from app.services.admission import Admission, Admitted
from app.services.limits import PeerLimits
from app.store.schema import sites as site_table
from tests.builders import NOW, Stand
from tests.pki import END, a_root

PEER = "192.0.2.7"
ROOT = a_root()
SOME = read_rights(["read", "create"], ["west"])
PORTAL = Account(username="system:serviceaccount:shop:portal", groups=("system:authenticated",))
KEYS: Mapping[str, bytes] = {"0a1b2c3d": bytes(range(32))}


@dataclass
class Cluster:
    """An API server that knows one account, and what it may: verbs in namespaces, None is all."""

    may: set[tuple[Verb, str | None]] = field(default_factory=set)
    away: bool = False
    tokens: list[str] = field(default_factory=list)
    asked: list[tuple[Verb, str | None]] = field(default_factory=list)

    async def account(self, token: str) -> Account | None:
        self.tokens.append(token)
        if self.away:
            raise Unavailable("the API server is away")
        return PORTAL if token == "good" else None

    async def allows(self, account: Account, verb: Verb, namespace: str | None) -> bool:
        assert account == PORTAL
        self.asked.append((verb, namespace))
        if self.away:
            raise Unavailable("the API server is away")
        return (verb, namespace) in self.may or (verb, None) in self.may


@dataclass(kw_only=True)
class Door:
    """An admission, and what it is made of."""

    stand: Stand
    cluster: Cluster
    admission: Admission

    def token(self, name: str = "ci", rights: Rights = SOME, window: int | None = None) -> str:
        return admin_tokens.create(
            self.stand.database,
            name=name,
            rights=rights,
            window_seconds=window,
            keys=KEYS,
            actor="cli:test",
            now=NOW,
            random_bytes=ambient.random_bytes,
        ).secret

    async def admit(
        self, authorization: str | None = None, certificate: bytes | None = None, peer: str = PEER
    ) -> Admitted:
        return await self.admission.admit(
            peer=peer, authorization=authorization, certificate=certificate
        )

    async def refusal(self, *args: Any, **kwargs: Any) -> Unauthenticated:
        with pytest.raises(Unauthenticated) as caught:
            await self.admit(*args, **kwargs)
        return caught.value


def an_admission(stand: Stand, **changes: Any) -> Admission:
    options: dict[str, Any] = {
        "database": stand.database,
        "token_keys": KEYS,
        "certificates": {"portal@shop": SOME},
        "reviews": None,
        "limits": PeerLimits(None, monotonic=ambient.monotonic),
        "clock": stand.clock,
    }
    return Admission(**(options | changes))


@pytest.fixture
def door(stand: Stand) -> Door:
    """Open one that knows a certificate and a cluster."""
    cluster = Cluster()
    return Door(stand=stand, cluster=cluster, admission=an_admission(stand, reviews=cluster))


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test that awaits."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def der(name: str = "portal@shop", **options: Any) -> bytes:
    made = ROOT.certify(name=name, client=True, **options)
    return made.certificate.public_bytes(Encoding.DER)


@in_a_loop
async def test_nobody_is_admitted_who_shows_nothing(door: Door) -> None:
    assert (await door.refusal()).retry_after is None


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
@in_a_loop
async def test_a_token_is_its_name_with_its_rights(door: Door, scheme: str) -> None:
    admitted = await door.admit(scheme + door.token())
    assert admitted.caller == Caller(kind=Kind.TOKEN, name="ci")
    assert admitted.rights == SOME
    assert await admitted.may(Verb.CREATE, "west")
    assert not await admitted.may(Verb.CREATE, "east")
    assert not await admitted.may(Verb.CREATE, None)
    assert not await admitted.may(Verb.DELETE, "west")
    assert await admitted.sites(Verb.READ, list) == frozenset({"west"})
    assert await admitted.sites(Verb.DELETE, list) == frozenset()


@in_a_loop
async def test_a_token_of_every_site_is_one_of_those_to_come(door: Door) -> None:
    admitted = await door.admit(f"Bearer {door.token(rights=read_rights(['read'], ['*']))}")
    assert await admitted.sites(Verb.READ, list) is None
    assert await admitted.may(Verb.READ, None)


@in_a_loop
async def test_what_is_no_token_of_ours_is_never_shown_to_the_api_server_if_it_looks_like_one(
    door: Door,
) -> None:
    text = generate(ambient.random_bytes).text
    for shown in (text, text[:-1], "gsa_"):
        error = await door.refusal(f"Bearer {shown}")
        assert shown == "gsa_" or shown not in str(error)
    assert door.cluster.tokens == []


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "good", "Bearer \u00e9", "Bearer a\x00b"]
)
@in_a_loop
async def test_a_header_without_a_bearer_token_is_nobody(door: Door, header: str) -> None:
    await door.refusal(header)
    await door.refusal(header, der())  # what is shown on purpose decides
    assert door.cluster.tokens == []


@in_a_loop
async def test_a_token_ends_and_a_revoked_one_is_nobody_at_once(door: Door) -> None:
    text = door.token(window=60)
    await door.admit(f"Bearer {text}")
    door.stand.clock.now += 60
    await door.refusal(f"Bearer {text}")
    other = door.token("portal")
    await door.admit(f"Bearer {other}")
    admin_tokens.revoke(door.stand.database, "portal", actor="cli:test", now=NOW)
    await door.refusal(f"Bearer {other}")


@in_a_loop
async def test_the_last_use_of_a_token_is_noted_once_a_minute(door: Door) -> None:
    text = f"Bearer {door.token()}"
    for wait, peer in ((0, "192.0.2.1"), (59, "192.0.2.2"), (1, "192.0.2.3")):
        door.stand.clock.now += wait
        await asyncio.gather(*(door.admit(text, peer=peer) for _ in range(5)))
        await door.admission.close()
        found = admin_tokens.show(door.stand.database, "ci")
        noted = (found.last_used_at, found.last_used_from)
        first = (NOW, "192.0.2.1")
        assert noted == (first if peer != "192.0.2.3" else (NOW + 60, "192.0.2.3"))


@in_a_loop
async def test_tokens_under_a_lost_key_are_wrong_and_that_is_told_once(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"Bearer {door.token()}"
    keys = {"99999999": bytes(range(1, 33))}
    door.admission = an_admission(door.stand, token_keys=keys)
    for _ in range(3):
        await door.refusal(text)
    assert caplog.text.count("admin tokens are good no more") == 1
    assert text.removeprefix("Bearer ") not in caplog.text


@in_a_loop
async def test_an_address_that_failed_too_often_is_not_looked_at(stand: Stand) -> None:
    limits = PeerLimits(Allowance(burst=3, interval=60_000), monotonic=lambda: 1000.0)
    door = Door(stand=stand, cluster=Cluster(), admission=an_admission(stand, limits=limits))
    text = f"Bearer {door.token()}"
    for shown in ("Bearer gsa_", f"Bearer {generate(ambient.random_bytes).text}", "Basic x"):
        assert (await door.refusal(shown)).retry_after is None
    assert (await door.refusal(text)).retry_after == 60
    assert (await door.admit(text, peer="192.0.2.8")).caller.name == "ci"
    assert (await door.admit(certificate=der())).caller.name == "portal@shop"  # none can be guessed
    for _ in range(4):
        assert (await door.refusal(peer="192.0.2.9")).retry_after is None  # nothing, no guess
    await door.admission.close()


@in_a_loop
async def test_a_certificate_is_its_common_name_with_the_rights_that_it_was_given(
    door: Door,
) -> None:
    admitted = await door.admit(certificate=der())
    assert admitted.caller == Caller(kind=Kind.CERTIFICATE, name="portal@shop")
    assert admitted.rights == SOME
    await door.refusal(certificate=der("portal"))
    await door.refusal(certificate=b"none")


@in_a_loop
async def test_a_certificate_that_ended_on_an_open_connection_is_nobody(door: Door) -> None:
    door.stand.clock.now = int(END.timestamp())
    await door.refusal(certificate=der())


def namespaces(stand: Stand, *names: str) -> None:
    for name in names:
        stand.set_site(name)
    with stand.database.writing() as connection:
        connection.execute(
            update(site_table).where(site_table.c.name.in_(names)).values(origin="kubernetes")
        )


@in_a_loop
async def test_an_account_is_asked_about_in_the_namespace_that_the_site_stands_for(
    door: Door,
) -> None:
    namespaces(door.stand, "shop", "office")
    door.cluster.may = {(Verb.CREATE, "shop"), (Verb.READ, "shop")}
    admitted = await door.admit("Bearer good")
    assert admitted.caller == Caller(kind=Kind.ACCOUNT, name="shop/portal")
    assert admitted.rights is None
    assert await admitted.may(Verb.CREATE, "shop")
    assert not await admitted.may(Verb.CREATE, "office")
    assert not await admitted.may(Verb.CREATE, None)
    names = ["office", "shop"]
    assert await admitted.sites(Verb.READ, lambda: names) == frozenset({"shop"})
    assert await admitted.sites(Verb.DELETE, lambda: names) == frozenset()
    await door.refusal("Bearer bad")


@in_a_loop
async def test_an_account_has_nothing_at_a_site_that_was_made_here_but_is_named_like_a_namespace(
    door: Door,
) -> None:
    door.stand.set_site("shop")
    door.cluster.may = {(Verb.CREATE, "shop"), (Verb.CREATE, "nowhere")}
    admitted = await door.admit("Bearer good")
    assert not await admitted.may(Verb.CREATE, "shop")
    assert not await admitted.may(Verb.CREATE, "nowhere")
    door.cluster.may = {(Verb.CREATE, None)}
    assert await admitted.may(Verb.CREATE, "shop")
    assert await admitted.sites(Verb.CREATE, list) is None


@in_a_loop
async def test_an_account_never_manages_nor_reads_the_audit_log(door: Door) -> None:
    namespaces(door.stand, "shop")
    door.cluster.may = {(verb, None) for verb in Verb}
    admitted = await door.admit("Bearer good")
    for verb in (Verb.AUDIT, Verb.MANAGE):
        assert not await admitted.may(verb, None)
        assert not await admitted.may(verb, "shop")
        assert await admitted.sites(verb, lambda: ["shop"]) == frozenset()
    assert door.cluster.asked == []


@in_a_loop
async def test_an_account_is_asked_about_at_so_many_sites_and_no_more(door: Door) -> None:
    named = [f"s{number:03}" for number in range(210)]
    namespaces(door.stand, *named)
    door.stand.set_site("a-local-one")
    door.cluster.may = {(Verb.READ, name) for name in named}
    admitted = await door.admit("Bearer good")
    found = await admitted.sites(Verb.READ, lambda: ["a-local-one", *named])
    assert found == frozenset(named[:200])
    assert len(door.cluster.asked) == 201
    assert await admitted.may(Verb.READ, named[-1])


@in_a_loop
async def test_no_account_is_let_in_where_there_is_no_cluster(door: Door) -> None:
    door.admission = an_admission(door.stand)
    await door.refusal("Bearer good")


@in_a_loop
async def test_an_api_server_that_is_away_is_no_failure_of_the_caller(stand: Stand) -> None:
    limits = PeerLimits(Allowance(burst=1, interval=60_000), monotonic=lambda: 1000.0)
    cluster = Cluster(away=True)
    door = Door(
        stand=stand,
        cluster=cluster,
        admission=an_admission(stand, limits=limits, reviews=cluster),
    )
    for _ in range(3):
        with pytest.raises(Unavailable):
            await door.admit("Bearer good")
    cluster.away = False
    admitted = await door.admit("Bearer good")
    cluster.away = True
    with pytest.raises(Unavailable):
        await admitted.may(Verb.READ, "shop")
