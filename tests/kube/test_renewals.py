"""Secrets are renewed in time, once, and go on standing for the same link."""

import base64
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from app import ambient
from app.crypto.facts import facts
from app.domain.link_secrets import SERVER_CA, SERVER_URL
from app.domain.times import rfc3339
from app.errors import Refused, Unavailable
from app.kube import renewals
from app.kube.renewals import BEGUN, renew_secret
from tests.kube.api_server import FakeKube, Kube, Object
from tests.kube.clients import QUICK, connected, run
from tests.kube.connecting import EAST, USER, Connector, furnish, redeemed
from tests.kube.far_side import FarSide, Said, refusal
from tests.kube.test_tokens import data, fits

SHORT = timedelta(hours=2, minutes=30)
"""The life of a certificate that is two hours old and is to be renewed."""


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarSide]:
    with FarSide(directory=tmp_path, life=SHORT) as made:
        yield made


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(renewals, "_BACKOFF", QUICK)


def serial(held: dict[str, bytes]) -> int:
    return x509.load_pem_x509_certificate(held["tls.crt"]).serial_number


def noted(kube: Kube, name: str = "west") -> dict[str, str]:
    found: dict[str, str] = kube.get("Secret", name, EAST)["metadata"]["annotations"]
    return found


def renewed(kube: Kube, name: str = "west", after: int = 100) -> dict[str, bytes]:
    """Wait until a Secret has another certificate than its first one."""

    def is_so(found: Object) -> bool:
        pem = base64.b64decode(found["data"]["tls.crt"])
        return bool(pem) and x509.load_pem_x509_certificate(pem).serial_number > after

    kube.wait("Secret", name, EAST, is_so)
    return data(kube, name)


def link(kube: Kube, directory: Path, far: FarSide) -> dict[str, bytes]:
    """Have a link whose certificate is to be renewed, and nobody yet who does; gives its Secret."""
    furnish(kube)
    far.life = timedelta(days=30)
    with Connector(kube=kube, directory=directory, user="first"):
        kube.create(far.token())
        redeemed(kube)
    far.life = SHORT
    found = kube.get("Secret", "west", EAST)
    pem = base64.b64decode(found["data"]["tls.crt"])
    old = x509.load_pem_x509_certificate(pem)
    short = far._sign(old.public_key(), "east")
    change = {"tls.crt": base64.b64encode(short).decode()}
    kube.patch("Secret", "west", {"data": change}, EAST)
    return data(kube)


def seen(kube: Kube, label: str) -> None:
    """Have a Secret looked at, and wait until that is done."""
    looks = len(kube.requests.of(user=USER, verb="get", resource="secrets"))
    touched = {"metadata": {"labels": {"touched": label}}}
    kube.patch("Secret", "west", touched, EAST)
    assert kube.until(
        lambda: len(kube.requests.of(user=USER, verb="get", resource="secrets")) > looks
    )


def test_a_certificate_is_replaced_in_its_secret_when_two_thirds_of_its_life_are_over(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    with Connector(kube=kube, directory=tmp_path):
        kube.create(far.token())
        redeemed(kube)
        held = renewed(kube)
        before = kube.get("Link", "west", EAST)
        assert kube.until(lambda: BEGUN not in noted(kube))
    assert fits(held)
    assert held.keys() == {"tls.crt", "tls.key", "ca.crt"}
    assert noted(kube)[SERVER_URL] == f"https://127.0.0.1:{far.port}"
    assert noted(kube)[SERVER_CA] == far.ca_pem
    assert kube.get("Link", "west", EAST) == before
    assert len(far.renewals) == 1  # the new one is for later


def test_what_is_not_due_is_left_alone(kube: Kube, tmp_path: Path, far: FarSide) -> None:
    far.life = timedelta(days=30)
    furnish(kube)
    with Connector(kube=kube, directory=tmp_path):
        for name in ("west", "later"):
            kube.create(far.token(name))
            redeemed(kube, name)
    with Connector(kube=kube, directory=tmp_path, user="next"):
        kube.create(far.token("last"))
        redeemed(kube, "last")
    assert far.renewals == []


def test_what_cannot_be_renewed_is_left_alone(kube: Kube, tmp_path: Path, far: FarSide) -> None:
    """A server of the plain contract renews nothing."""
    far.plain = True
    furnish(kube)
    with Connector(kube=kube, directory=tmp_path):
        kube.create(far.token())
        redeemed(kube)
        kube.create(far.token("later"))
        redeemed(kube, "later")
    assert far.renewals == []


@pytest.mark.usefixtures("soon")
def test_who_is_not_there_is_asked_again_with_the_same_key(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    before = link(kube, tmp_path, far)
    far.answers += [refusal(503, "Internal error"), refusal(503, "Internal error")]
    with Connector(kube=kube, directory=tmp_path):
        held = renewed(kube, after=serial(before))
        assert kube.until(
            lambda: any(one["reason"] == "Renewed" for one in kube.find("Event", EAST))
        )
    assert fits(held)
    assert held["tls.key"] != before["tls.key"]
    assert len(far.renewals) == 3
    told = {one["reason"]: one["message"] for one in kube.find("Event", EAST)}
    ends = rfc3339(facts(held["tls.crt"]).not_after)
    assert told["Renewed"] == f"The certificate is good until {ends}"
    assert "503 Service Unavailable" in told["NotRenewed"]


def test_a_refusal_is_told_and_asked_about_again_after_an_hour(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    before = link(kube, tmp_path, far)
    far.always = refusal(403, "Certificate has been revoked")
    later = 0

    with Connector(kube=kube, directory=tmp_path, clock=lambda: ambient.utc_now() + later):
        assert kube.until(
            lambda: any(one["reason"] == "NotRenewed" for one in kube.find("Event", EAST))
        )
        for later in (10, 600, 3000):
            seen(kube, str(later))
        assert len(far.renewals) == 1
        later = 3700
        seen(kube, str(later))
        assert kube.until(lambda: len(far.renewals) == 2)
    (event,) = (one for one in kube.find("Event", EAST) if one["reason"] == "NotRenewed")
    assert event["message"] == (
        "the server answered 403 Forbidden: Certificate has been revoked (this link was ended "
        "over there)"
    )
    assert data(kube) == before


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", [0, 1], ids=["the key", "the content"])
def test_stopped_anywhere_it_goes_on_to_the_same_certificate(
    fake_kube: FakeKube, tmp_path: Path, far: FarSide, number: int, after: bool
) -> None:
    before = link(fake_kube, tmp_path, far)
    given = far.given

    async def main() -> None:
        token = fake_kube.token("client")
        async with connected(fake_kube, tmp_path, token=token) as kube:

            async def attempt() -> None:
                found = fake_kube.get("Secret", "west", EAST)
                await renew_secret(kube, found, random_bytes=ambient.random_bytes)

            which: dict[str, Any] = {"verb": "patch", "resource": "secrets", "user": "client"}
            if number:
                # The first patch is let through, and the second one dies.
                far.answers.append(refusal(503, "Internal error"))
                with pytest.raises(Unavailable):
                    await attempt()
            fake_kube.faults.reset(after=after, **which)
            with pytest.raises(Unavailable):
                await attempt()
            if number == 1 and after:
                return  # it was done, and nobody has told us
            await attempt()

    run(main())
    held = data(fake_kube)
    assert fits(held)
    assert serial(held) > serial(before)
    assert BEGUN not in noted(fake_kube)
    assert far.given == given + 1


def test_the_key_of_a_renewal_that_was_begun_is_no_data_and_not_to_be_read(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    before = link(kube, tmp_path, far)
    far.answers.append(refusal(503, "Internal error"))

    async def main() -> None:
        async with connected(kube, tmp_path) as ours:
            with pytest.raises(Unavailable):
                await renew_secret(
                    ours, kube.get("Secret", "west", EAST), random_bytes=ambient.random_bytes
                )

    run(main())
    assert data(kube) == before
    sealed = base64.b64decode(noted(kube)[BEGUN])
    assert b"PRIVATE" not in sealed
    # With another key in the Secret it is of no use, and another one is made.
    far.renewals.clear()
    broken = {"metadata": {"annotations": {BEGUN: base64.b64encode(sealed[:-1]).decode()}}}
    kube.patch("Secret", "west", broken, EAST)

    async def again() -> None:
        async with connected(kube, tmp_path) as ours:
            await renew_secret(
                ours, kube.get("Secret", "west", EAST), random_bytes=ambient.random_bytes
            )

    run(again())
    assert fits(data(kube))


def test_the_data_of_a_secret_changes_once_in_a_renewal(
    fake_kube: FakeKube, tmp_path: Path, far: FarSide
) -> None:
    """Each change counts as new credentials for the router, and old connections end at some."""
    before = link(fake_kube, tmp_path, far)
    far.answers.append(refusal(503, "Internal error"))
    seen = []

    async def main() -> None:
        async with connected(fake_kube, tmp_path) as ours:
            for _ in range(2):
                try:
                    await renew_secret(
                        ours,
                        fake_kube.get("Secret", "west", EAST),
                        random_bytes=ambient.random_bytes,
                    )
                except Unavailable:
                    seen.append(data(fake_kube))

    run(main())
    assert seen == [before]
    assert data(fake_kube).keys() == before.keys()


def test_an_answer_that_does_not_fit_is_not_taken(kube: Kube, tmp_path: Path, far: FarSide) -> None:
    before = link(kube, tmp_path, far)

    async def main() -> None:
        async with connected(kube, tmp_path) as ours:
            for odd in (Said(body=b"{}"), Said(body=b"no JSON")):
                far.answers.append(odd)
                with pytest.raises(Unavailable):
                    await renew_secret(
                        ours,
                        kube.get("Secret", "west", EAST),
                        random_bytes=ambient.random_bytes,
                    )
            far.answers.append(refusal(403, "Renewal refused"))
            with pytest.raises(Refused):
                await renew_secret(
                    ours, kube.get("Secret", "west", EAST), random_bytes=ambient.random_bytes
                )

    run(main())
    assert data(kube) == before


def test_certificates_that_are_old_from_the_beginning_are_not_renewed_without_end(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    """As they are where clocks differ, or where the authority is about to end."""
    link(kube, tmp_path, far)
    far.life = timedelta(seconds=1)
    later = 10  # ahead of the other one
    with Connector(kube=kube, directory=tmp_path, clock=lambda: ambient.utc_now() + later):
        assert kube.until(lambda: len(far.renewals) == 1)
        assert kube.until(lambda: BEGUN not in noted(kube))
        for number in range(5):
            seen(kube, str(number))
        assert len(far.renewals) == 1
        later = 40
        seen(kube, "later")
        assert kube.until(lambda: len(far.renewals) == 2)


@pytest.mark.usefixtures("soon")
def test_many_links_are_renewed_by_whoever_goes_on(
    fake_kube: FakeKube, tmp_path: Path, far: FarSide
) -> None:
    """The first one stops in the middle of its writes."""
    furnish(fake_kube)
    names = [f"west-of-{number}" for number in range(20)]
    dying = fake_kube.faults.freeze(10, verb="patch", resource="secrets", user=USER)
    dying.left = 0
    far.life = timedelta(days=30)
    with Connector(kube=fake_kube, directory=tmp_path, user="maker"):
        for name in names:
            fake_kube.create(far.token(name))
        for name in names:
            redeemed(fake_kube, name)
    for name in names:
        held = data(fake_kube, name)
        key = x509.load_pem_x509_certificate(held["tls.crt"]).public_key()
        far.life = SHORT
        short = base64.b64encode(far._sign(key, "east")).decode()
        fake_kube.patch("Secret", name, {"data": {"tls.crt": short}}, EAST)
    before = {name: serial(data(fake_kube, name)) for name in names}
    dying.left = 10
    with Connector(kube=fake_kube, directory=tmp_path):
        dying.wait(hits=5)
    dying.release()
    with Connector(kube=fake_kube, directory=tmp_path, user="next"):
        for name in names:
            assert fits(renewed(fake_kube, name, before[name]))
