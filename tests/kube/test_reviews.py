import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from app.domain.accounts import Account
from app.domain.callers import Verb
from app.errors import Unavailable
from app.kube import reviews
from app.kube.reviews import KubeReviews
from tests.deploy.kustomize import DEPLOY
from tests.kube import api_server
from tests.kube.api_server import FakeKube
from tests.kube.clients import Scripted, answer, connected, run

GRANTS: Final = {"apiGroups": ["skupper.io"], "resources": ["accessgrants"]}
# With no other rights than those that are shipped.
ROLE, _ = yaml.safe_load_all((DEPLOY / "callers" / "cluster-role.yaml").read_text())
REVIEWS: Final = ROLE["rules"]
ACCOUNT: Final = Account(username="system:serviceaccount:default:portal")


class Monotonic:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def asking(
    server: api_server.Kube,
    directory: Path,
    ask: Callable[[KubeReviews], Any],
    *,
    clock: Callable[[], float] | None = None,
    token: str | None = None,
    seconds: float = 10.0,
) -> Any:
    """Ask as a server does that may do no more than what is needed for it."""
    ours = token or server.token("grantserver", REVIEWS)

    async def main() -> Any:
        async with connected(server, directory, token=ours, seconds=seconds) as kube:
            return await ask(KubeReviews(kube, monotonic=clock or Monotonic()))

    return run(main())


def test_a_token_that_was_made_for_us_is_an_account_which_may_what_its_role_says(
    kube: api_server.Kube, tmp_path: Path
) -> None:
    for namespace in ("shop", "office"):
        kube.namespace(namespace)
    rules = [{**GRANTS, "verbs": ["create", "list"], "namespaces": ["shop"]}]
    shown = kube.token("portal", rules, audience="grantserver")

    async def ask(ours: KubeReviews) -> None:
        account = await ours.account(shown)
        assert account is not None
        assert account.caller is not None
        assert account.caller.name == "default/portal"
        assert "system:serviceaccounts:default" in account.groups
        may = {
            (verb, namespace)
            for verb in Verb
            for namespace in ("shop", "office", None)
            if await ours.allows(account, verb, namespace)
        }
        assert may == {(Verb.READ, "shop"), (Verb.CREATE, "shop")}

    asking(kube, tmp_path, ask)


def test_who_may_in_all_namespaces_may_in_each(kube: api_server.Kube, tmp_path: Path) -> None:
    kube.namespace("shop")
    rules = [{**GRANTS, "verbs": ["update", "delete"]}]
    shown = kube.token("everywhere", rules, audience="grantserver")

    async def ask(ours: KubeReviews) -> None:
        account = await ours.account(shown)
        assert account is not None
        for namespace in ("shop", None):
            for verb in (Verb.CHANGE, Verb.REVOKE, Verb.DELETE):
                assert await ours.allows(account, verb, namespace)
            for verb in (Verb.READ, Verb.CREATE, Verb.AUDIT, Verb.MANAGE):
                assert not await ours.allows(account, verb, namespace)

    asking(kube, tmp_path, ask)


def test_a_token_for_somebody_else_is_nobodys(kube: api_server.Kube, tmp_path: Path) -> None:
    """One for the API server could do there whatever its owner may: we never want to see it."""
    shown = [
        kube.token("portal", []),
        kube.token("portal", [], audience="another"),
        "nonsense",
    ]

    async def ask(ours: KubeReviews) -> None:
        assert [await ours.account(one) for one in shown] == [None, None, None]

    asking(kube, tmp_path, ask)


@pytest.mark.parametrize(
    "status",
    [
        "{}",
        '{"authenticated":true,"user":{"username":"jane"}}',  # looks at no audience
        '{"authenticated":true,"user":{"username":"jane"},"audiences":["other"]}',
        '{"authenticated":"yes","user":{"username":"jane"},"audiences":["grantserver"]}',
        '{"authenticated":true,"user":{},"audiences":["grantserver"]}',
        '{"authenticated":true,"user":{"username":1},"audiences":["grantserver"]}',
        '{"authenticated":true,"audiences":["grantserver"]}',
        '{"authenticated":true,"user":{"username":"j","extra":[1]},"audiences":["grantserver"]}',
    ],
)
def test_an_answer_that_does_not_say_who_it_is_and_for_whom_is_nobody(status: str) -> None:
    assert run(told(status)) is None


def test_a_user_is_told_again_as_the_api_server_told_it() -> None:
    status = (
        '{"authenticated":true,"audiences":["grantserver"],"user":{"username":"jane","uid":"7",'
        '"groups":["a","b"],"extra":{"z":["1"],"example.com/y":["2","3"]}}}'
    )
    assert run(told(status)) == Account(
        username="jane",
        uid="7",
        groups=("a", "b"),
        extra=(("example.com/y", ("2", "3")), ("z", ("1",))),
    )


async def told(status: str) -> Account | None:
    body = f'{{"kind":"TokenReview","status":{status}}}'
    async with Scripted(answer("201 Created", body)) as server, server.client() as kube:
        return await KubeReviews(kube, monotonic=Monotonic()).account("shown")


def test_a_right_that_is_denied_as_well_is_none() -> None:
    async def main() -> bool:
        body = '{"kind":"SubjectAccessReview","status":{"allowed":true,"denied":true}}'
        async with Scripted(answer("201 Created", body)) as server, server.client() as kube:
            ours = KubeReviews(kube, monotonic=Monotonic())
            return await ours.allows(ACCOUNT, Verb.READ, "shop")

    assert not run(main())


def test_an_answer_is_believed_for_ten_seconds(fake_kube: FakeKube, tmp_path: Path) -> None:
    clock = Monotonic()
    shown = fake_kube.token("portal", [{**GRANTS, "verbs": ["list"]}], audience="grantserver")

    async def ask(ours: KubeReviews) -> None:
        fake_kube.requests.clear()

        async def rights() -> tuple[bool, bool]:
            account = await ours.account(shown)
            assert account is not None
            read = await ours.allows(account, Verb.READ, "shop")
            return read, await ours.allows(account, Verb.CREATE, "shop")

        assert await rights() == (True, False)
        fake_kube.expire(shown)
        clock.seconds += 9.9
        assert await rights() == (True, False)
        assert len(fake_kube.requests) == 3
        clock.seconds += 0.1
        assert await ours.account(shown) is None

    asking(fake_kube, tmp_path, ask, clock=clock)


def test_who_asks_the_same_while_it_is_asked_is_many_but_asks_few_times(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    shown = fake_kube.token("portal", [], audience="grantserver")

    async def ask(ours: KubeReviews) -> None:
        fake_kube.requests.clear()
        found = await asyncio.gather(*(ours.account(shown) for _ in range(200)))
        assert None not in found
        assert 1 <= len(fake_kube.requests) <= 16

    asking(fake_kube, tmp_path, ask)


def test_who_cannot_even_ask_is_told_so(
    fake_kube: FakeKube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviews, "_MOST_WAIT_SECONDS", 0.05)

    async def ask(ours: KubeReviews) -> None:
        frozen = fake_kube.faults.freeze(resource="tokenreviews")
        waiting = [asyncio.ensure_future(ours.account(f"t{number}")) for number in range(16)]
        await asyncio.to_thread(frozen.wait, hits=16)
        with pytest.raises(Unavailable, match="too much"):
            await ours.account("another")
        frozen.release()
        assert await asyncio.gather(*waiting) == [None] * 16

    asking(fake_kube, tmp_path, ask)


def test_without_the_role_for_it_nobody_can_tell_and_the_log_says_so_once(
    fake_kube: FakeKube, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shown = fake_kube.token("portal", [], audience="grantserver")

    async def ask(ours: KubeReviews) -> None:
        for _ in range(3):
            with pytest.raises(Unavailable) as caught:
                await ours.account(shown)
            assert caught.value.forbidden
            assert shown not in str(caught.value)
        with pytest.raises(Unavailable):
            await ours.allows(ACCOUNT, Verb.READ, "shop")

    asking(fake_kube, tmp_path, ask, token=fake_kube.token("grantserver", []))
    assert caplog.text.count("accounts cannot be asked about") == 1
    assert "tokenreviews.authentication.k8s.io" in caplog.text
    assert shown not in caplog.text


def test_an_api_server_that_is_away_or_does_not_answer_is_unavailable(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    shown = fake_kube.token("portal", [], audience="grantserver")

    async def ask(ours: KubeReviews) -> None:
        frozen = fake_kube.faults.freeze(resource="tokenreviews")
        with pytest.raises(Unavailable) as caught:
            await ours.account(shown)
        assert not caught.value.forbidden
        frozen.release()
        fake_kube.faults.clear()
        assert await ours.account(shown) is not None

    asking(fake_kube, tmp_path, ask, seconds=0.3)
