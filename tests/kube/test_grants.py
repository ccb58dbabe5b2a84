import base64
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from app.domain.policies import Ceilings
from app.domain.times import rfc3339
from app.errors import GrantServerError, Lack, Reason, Refused, Unready
from app.kube.grants import kept
from app.services import grants, sites
from tests.builders import NOW, PEM, Stand, a_database, a_stand
from tests.kube.api_server import FakeKube, Kube, Object
from tests.kube.asking import Asking
from tests.kube.objects import (
    ENDPOINTS,
    GRANT,
    ISSUER,
    NAMESPACE,
    a_ca,
    a_secret,
    a_site,
    access_grant,
)
from tests.kube.stage import PATIENCE, REACH, Stage, answered, conditions, staged

OK = ("True", "Ready", "OK")
ALL_OK = {"Processed": OK, "Resolved": OK, "Ready": OK}
PATH = f"/apis/skupper.io/v2alpha1/namespaces/{NAMESPACE}/accessgrants"


@pytest.fixture
def stage(kube: Kube, stand: Stand, tmp_path: Path) -> Iterator[Stage]:
    """A furnished namespace, and a controller that serves it."""
    with staged(kube, stand, tmp_path) as made, made.replica():
        yield made


@pytest.fixture
def fake_stage(fake_kube: FakeKube, stand: Stand, tmp_path: Path) -> Iterator[Stage]:
    """The same on the API server of ours, for tests that make it fail or count its requests."""
    with staged(fake_kube, stand, tmp_path) as made, made.replica():
        yield made


def leaf_of(secret: Object) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))


def signed_by(stage: Stage, grant: Object, **claim: Any) -> str:
    """Redeem, and tell the name of the authority that signed."""
    secret, _ = answered(stage.redeem(grant, **claim))
    return leaf_of(secret).issuer.rfc4514_string().removeprefix("CN=")


def wait_for_signer(stage: Stage, grant: Object, name: str) -> None:
    """Redeem until this authority signs."""

    def signs() -> bool:
        return signed_by(stage, grant, subject=f"site-{next(numbers)}") == name

    assert stage.kube.until(signs), name


numbers = itertools.count()


def refusal(stage: Stage, grant: Object, code: str | None = None, **claim: Any) -> object:
    """Redeem what cannot be redeemed, and tell why."""
    with pytest.raises(GrantServerError) as caught:
        stage.redeem(grant, code, **claim)
    error = caught.value
    if isinstance(error, Refused):
        return error.reason
    assert isinstance(error, Unready)
    return error.lack


def expires(status: Object) -> str:
    return str(status["expirationTime"])


# What a grant gets.


def test_an_access_grant_gets_all_that_a_token_needs(stage: Stage) -> None:
    stage.grant()
    grant = stage.ready()
    status, uid = grant["status"], grant["metadata"]["uid"]
    told = status.pop("conditions")
    code = status.pop("code")
    assert len(code) == 24
    assert code.isalnum()
    assert status == {
        "url": f"{REACH.url}/{uid}",
        "ca": REACH.ca_pem,
        "redemptions": 0,
        "expirationTime": rfc3339(NOW + 900),
        "status": "Ready",
        "message": "OK",
    }
    assert told == [
        {
            "type": kind,
            "status": "True",
            "reason": "Ready",
            "message": "OK",
            "observedGeneration": grant["metadata"]["generation"],
            "lastTransitionTime": rfc3339(NOW),
        }
        for kind in ("Processed", "Resolved", "Ready")
    ]
    secret, [link] = answered(stage.redeem(grant, code))
    assert link["spec"]["endpoints"] == list(ENDPOINTS)
    assert leaf_of(secret).issuer.rfc4514_string() == "CN=north ca"
    # One redemption, as nothing else was asked for.
    assert refusal(stage, grant, code, subject="another") is Reason.USED_UP


def test_it_lasts_as_long_as_its_go_duration_says(stage: Stage) -> None:
    seconds = {"25m": 1500, "1h30m": 5400, "1.5h": 5400, "90s": 90, "1ms": 1}
    for number, window in enumerate(seconds):
        stage.grant(f"grant-{number}", expirationWindow=window)
    for number, lasts in enumerate(seconds.values()):
        assert expires(stage.ready(f"grant-{number}")["status"]) == rfc3339(NOW + lasts)


def test_a_code_of_its_own_is_the_one_that_redeems(stage: Stage) -> None:
    stage.grant(code="sesame-open-yourself")
    grant = stage.ready()
    assert grant["status"]["code"] == "sesame-open-yourself"
    assert refusal(stage, grant, "sesame-open-yourselF") is Reason.WRONG_CODE
    assert stage.redeem(grant).ordinal == 1


def test_an_issuer_of_its_own_signs_for_it_alone(stage: Stage) -> None:
    stage.kube.create(a_secret("own-ca", ca=a_ca("own ca")))
    stage.grant("own", issuer="own-ca")
    stage.grant("other")
    assert signed_by(stage, stage.ready("own")) == "own ca"
    assert signed_by(stage, stage.ready("other")) == "north ca"


def test_the_issuer_is_the_one_of_the_site_where_a_grant_names_none(stage: Stage) -> None:
    """That of its spec before that of its status, and Skupper's where it names none either."""
    stage.kube.create(a_secret("spec-ca", ca=a_ca("spec ca")))
    stage.kube.create(a_secret("status-ca", ca=a_ca("status ca")))
    stage.grant(redemptionsAllowed=99)
    grant = stage.ready()
    for mend, signer in (
        (site_status(defaultIssuer="status-ca"), "status ca"),
        (site_spec(defaultIssuer="spec-ca"), "spec ca"),
        (site_spec(defaultIssuer=None), "status ca"),
        (site_status(defaultIssuer=None), "north ca"),
    ):
        mend(stage)
        wait_for_signer(stage, grant, signer)
    site_status(defaultIssuer="nobody")(stage)
    status = stage.found(lambda status: status["status"] == "Pending")["status"]
    assert status["message"] == 'Issuer Secret "nobody" does not exist in this namespace'


def test_a_site_of_several_routers_gives_several_links(stage: Stage) -> None:
    second = [{**one, "group": "skupper-router-2", "host": "192.0.2.5"} for one in ENDPOINTS]
    change = {"status": {"endpoints": [*second, *ENDPOINTS]}}
    stage.grant(redemptionsAllowed=99)
    grant = stage.ready()
    stage.kube.patch("Site", "north", change, NAMESPACE, subresource="status")

    def links() -> list[str]:
        name = f"east-{len(seen)}"
        seen.append(name)
        _, found = answered(stage.redeem(grant, name=name))
        return [one["metadata"]["name"].removeprefix(name) for one in found]

    seen: list[str] = []
    assert stage.kube.until(lambda: links() == ["-1", "-2"])


# What keeps one from being Ready, and how that ends.


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Something that makes a redemption fail, how it is told, and what mends it."""

    cause: Callable[[Stage], object]
    mend: Callable[[Stage], object]
    word: str
    message: str
    lack: Lack | None
    condition: str = "Ready"
    spec: Object | None = None


def site_status(**change: Any) -> Callable[[Stage], object]:
    return lambda stage: stage.kube.patch(
        "Site", "north", {"status": change}, NAMESPACE, subresource="status"
    )


def site_spec(**change: Any) -> Callable[[Stage], object]:
    return lambda stage: stage.kube.patch("Site", "north", {"spec": change}, NAMESPACE)


def secret(**data: Any) -> Callable[[Stage], object]:
    return lambda stage: stage.kube.patch(
        "Secret", ISSUER, {"data": a_secret(**data)["data"]}, NAMESPACE
    )


TROUBLES = {
    "no site": Trouble(
        cause=lambda stage: stage.kube.delete("Site", "north", NAMESPACE),
        mend=lambda stage: stage.kube.create(a_site("another")),
        word="Pending",
        message="There is no Site in this namespace yet",
        lack=Lack.ENDPOINTS,
    ),
    "no endpoints": Trouble(
        cause=site_status(endpoints=[]),
        mend=site_status(endpoints=list(ENDPOINTS)),
        word="Pending",
        message='Site "north" has no endpoints yet: enable link access (spec.linkAccess: '
        "default), and wait until its router has an address",
        lack=Lack.ENDPOINTS,
    ),
    "an edge site": Trouble(
        cause=site_spec(edge=True),
        mend=site_spec(edge=False),
        word="Error",
        message="Edge sites cannot accept incoming links from remote sites",
        lack=Lack.ENDPOINTS,
        condition="Processed",
    ),
    "no issuer": Trouble(
        cause=lambda stage: stage.kube.delete("Secret", ISSUER, NAMESPACE),
        mend=lambda stage: stage.kube.create(a_secret()),
        word="Pending",
        message='Issuer Secret "skupper-site-ca" does not exist in this namespace',
        lack=Lack.ISSUER,
    ),
    "an issuer that is none": Trouble(
        cause=secret(data={"tls.key": b""}),
        mend=secret(),
        word="Error",
        message='Issuer Secret "skupper-site-ca" cannot sign: it has no tls.key',
        lack=Lack.ISSUER,
    ),
    "an issuer that has expired": Trouble(
        cause=secret(ca=a_ca(not_after=NOW - 1)),
        mend=secret(),
        word="Error",
        message='Issuer Secret "skupper-site-ca" cannot sign: it expired at ' + rfc3339(NOW - 1),
        lack=Lack.ISSUER,
    ),
    "an issuer of later": Trouble(
        cause=secret(ca=a_ca(not_before=NOW + 60)),
        mend=secret(),
        word="Pending",
        message='Issuer Secret "skupper-site-ca" cannot sign before ' + rfc3339(NOW + 60),
        lack=Lack.ISSUER,
    ),
    "no issuer of its own": Trouble(
        cause=lambda stage: stage.spec(issuer="own-ca"),
        mend=lambda stage: stage.kube.create(a_secret("own-ca", ca=a_ca("own ca"))),
        word="Pending",
        message='Issuer Secret "own-ca" does not exist in this namespace',
        lack=Lack.ISSUER,
    ),
    "a duration of days": Trouble(
        cause=lambda stage: stage.spec(expirationWindow="1d"),
        mend=lambda stage: stage.spec(expirationWindow="24h"),
        word="Error",
        message='Invalid duration "1d": "1d" is not a Go duration such as 90s, 25m, 1h30m or '
        "1.5h (units ns, us, ms, s, m, h)",
        lack=None,
        condition="Processed",
    ),
    "less than one redemption": Trouble(
        cause=lambda stage: stage.spec(redemptionsAllowed=-1),
        mend=lambda stage: stage.spec(redemptionsAllowed=3),
        word="Error",
        message="Invalid redemptionsAllowed: expected a number from 1 to ",
        lack=None,
        condition="Processed",
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
@pytest.mark.parametrize("live", [False, True], ids=["new", "live"])
def test_ready_means_that_a_redemption_succeeds_now(stage: Stage, name: str, live: bool) -> None:
    """Whatever is in the way is told, is in the way indeed, and is told no more when it is gone."""
    trouble = TROUBLES[name]
    if live:
        stage.grant(redemptionsAllowed=2)
        stage.ready()
        trouble.cause(stage)
    elif trouble.cause.__code__.co_names[:1] == ("spec",):
        stage.kube.create(access_grant(redemptionsAllowed=2))
        trouble.cause(stage)
    else:
        trouble.cause(stage)
        stage.grant(redemptionsAllowed=2)
    grant = stage.found(lambda status: status["message"].startswith(trouble.message))
    status = grant["status"]
    assert status["status"] == trouble.word
    no = ("False", trouble.word, status["message"])
    assert conditions(status) == ALL_OK | {trouble.condition: no, "Ready": no}
    if trouble.lack is not None:
        assert refusal(stage, grant) is trouble.lack
    trouble.mend(stage)
    grant = stage.ready()
    assert conditions(grant["status"]) == ALL_OK
    assert stage.redeem(grant).ordinal == 1


def test_a_namespace_whose_name_is_taken_says_so_until_it_is_not(
    kube: Kube, stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kube.namespaces._AGAIN_SECONDS", 0.05)
    stand.set_site(NAMESPACE)
    with staged(kube, stand, tmp_path) as stage, stage.replica():
        stage.grant()
        grant = stage.found(lambda status: status["status"] == "Error")
        assert f'has a site "{NAMESPACE}" of its own: remove it' in grant["status"]["message"]
        assert conditions(grant["status"])["Processed"][0] == "False"
        sites.remove(stand.database, name=NAMESPACE, actor="cli:test", now=NOW)
        assert stage.redeem(stage.ready()).ordinal == 1


def test_without_an_address_a_grant_is_pending_until_there_is_one(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    with staged(kube, stand, tmp_path) as stage:
        stage.grant()
        with stage.replica(reach=lambda: None):
            grant = stage.found(lambda status: status["status"] == "Pending")
            status = grant["status"]
            assert "GRANTSERVER_REACH_URL is not set" in status["message"]
            assert "url" not in status
            assert conditions(status)["Resolved"] == conditions(status)["Ready"]
            assert conditions(status)["Processed"] == OK
        with stage.replica():
            assert stage.redeem(stage.ready()).ordinal == 1


def test_an_issuer_that_ends_is_told_by_itself(stage: Stage) -> None:
    stage.kube.create(a_secret("short-ca", ca=a_ca("short ca", not_after=NOW)))
    stage.grant(issuer="short-ca", redemptionsAllowed=2)
    grant = stage.ready()
    assert stage.redeem(grant).ordinal == 1
    stage.found(lambda status: status["redemptions"] == 1)
    stage.settle()
    stage.stand.clock.now += 1
    grant = stage.found(lambda status: status["status"] == "Error")
    assert "it expired at " in grant["status"]["message"]
    assert refusal(stage, grant, subject="another") is Lack.ISSUER


# How one ends.


def test_an_expired_grant_says_so_by_itself_and_stays_readable(stage: Stage) -> None:
    stage.grant(expirationWindow="1s")
    grant = stage.ready()
    stage.settle()
    stage.stand.clock.now += 1
    ended = stage.found(lambda status: status["status"] == "Error")
    status = ended["status"]
    assert status["message"] == f"Expired at {rfc3339(NOW + 1)}"
    assert conditions(status) == ALL_OK | {"Ready": ("False", "Error", status["message"])}
    for name in ("url", "code", "ca", "redemptions", "expirationTime"):
        assert status[name] == grant["status"][name]
    assert refusal(stage, grant) is Reason.EXPIRED
    told = stage.told("Expired")
    assert (told["type"], told["message"]) == ("Normal", status["message"])


def test_a_used_up_grant_says_so(stage: Stage) -> None:
    stage.grant(redemptionsAllowed=2)
    grant = stage.ready()
    stage.redeem(grant)
    counted = stage.found(lambda status: status["redemptions"] == 1)["status"]
    assert (counted["status"], counted["message"]) == ("Ready", "OK")
    stage.redeem(grant, subject="another")
    ended = stage.found(lambda status: status["redemptions"] == 2)["status"]
    assert (ended["status"], ended["message"]) == ("Error", "All 2 redemptions are used")
    assert conditions(ended) == ALL_OK | {"Ready": ("False", "Error", ended["message"])}
    told = stage.told("UsedUp")
    assert (told["type"], told["message"]) == ("Normal", ended["message"])


def test_a_live_grant_whose_spec_cannot_be_read_any_more_goes_on_and_is_counted(
    stage: Stage,
) -> None:
    stage.grant(redemptionsAllowed=2)
    grant = stage.ready()
    stage.spec(expirationWindow="1d")
    stage.found(lambda status: status["status"] == "Error")
    assert stage.redeem(grant).ordinal == 1
    status = stage.found(lambda status: status["redemptions"] == 1)["status"]
    assert status["message"].startswith('Invalid duration "1d"')
    stage.redeem(grant, subject="another")
    status = stage.found(lambda status: status["redemptions"] == 2)["status"]
    assert status["message"] == "All 2 redemptions are used"


def test_a_grant_that_the_operator_has_revoked_says_so(stage: Stage) -> None:
    stage.grant()
    grant = stage.ready()
    grants.revoke(stage.stand.database, GRANT, site=NAMESPACE, actor="cli:test", now=NOW)
    status = stage.found(lambda status: status["status"] == "Error")["status"]
    assert status["message"] == f"Revoked at {rfc3339(NOW)}"
    assert refusal(stage, grant) is Reason.REVOKED


# Who may redeem it.


def test_its_settings_say_who_may_redeem_it_and_a_live_one_follows(stage: Stage) -> None:
    stage.grant(redemptionsAllowed=3, settings={"policy-subjects": "east-*", "other": "x"})
    grant = stage.ready()
    assert refusal(stage, grant, subject="north-1") is Reason.POLICY
    assert stage.redeem(grant, subject="east-1").ordinal == 1
    again = taken_in(stage, stage.spec(settings={"policy-subjects": "north-*"}))
    assert stage.redeem(again, subject="north-1").ordinal == 2
    assert refusal(stage, again, subject="east-2") is Reason.POLICY
    last = taken_in(stage, stage.spec(settings=None))
    assert stage.redeem(last, subject="east-2").ordinal == 3


def taken_in(stage: Stage, changed: Object) -> Object:
    """Wait until the controller has taken in what a resource has become."""
    made = changed["metadata"]["generation"]
    return stage.found(
        lambda status: {one["observedGeneration"] for one in status["conditions"]} == {made}
    )


def test_a_policy_that_is_spelt_wrong_lets_nobody_in(stage: Stage) -> None:
    stage.grant(settings={"policy-subject": "east-*"})
    status = stage.found(lambda status: status["status"] == "Error")["status"]
    assert '"policy-subject" is none of policy-subjects, ' in status["message"]
    assert "code" not in status


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("expirationWindow", {"expirationWindow": "2h"}),
        ("redemptionsAllowed", {"redemptionsAllowed": 6}),
        ("policy-lifetime", {"settings": {"policy-lifetime": "2h"}}),
    ],
)
def test_what_exceeds_a_ceiling_of_the_server_is_an_error_that_names_it(
    kube: Kube, stand: Stand, tmp_path: Path, field: str, spec: dict[str, Any]
) -> None:
    ceilings = Ceilings(window_seconds=3600, redemptions=5, lifetime_seconds=3600)
    with staged(kube, stand, tmp_path) as stage, stage.replica(ceilings=ceilings):
        stage.grant(**spec)
        status = stage.found(lambda status: status["status"] == "Error")["status"]
        assert "at most" in status["message"]
        assert field in status["message"] or field == "expirationWindow"
        stage.grant("within", expirationWindow="1h", redemptionsAllowed=5)
        stage.ready("within")


# Events.


def test_events_tell_when_a_grant_is_ready_and_who_redeemed_it(stage: Stage) -> None:
    stage.grant(redemptionsAllowed=3)
    grant = stage.ready()
    ready = stage.told("Ready")
    assert (ready["type"], ready["message"]) == ("Normal", "The grant can be redeemed")
    assert ready["involvedObject"]["uid"] == grant["metadata"]["uid"]
    for number in (1, 2):
        stage.redeem(grant, name=f"link-{number}", subject=f"site-{number}")
        text = f'Redemption {number} by "site-{number}" from 192.0.2.7, for a link "link-{number}"'
        assert stage.kube.until(
            lambda text=text: text in {one["message"] for one in stage.events("Redeemed")}  # type: ignore[misc]
        ), text
    assert [one["count"] for one in stage.events("Ready")] == [1]


def test_a_status_that_was_edited_does_not_tell_a_redemption_twice(stage: Stage) -> None:
    stage.grant(redemptionsAllowed=3)
    grant = stage.ready()
    stage.redeem(grant, subject="first")
    stage.told("Redeemed")
    stage.status(redemptions=0)
    stage.found(lambda status: status["redemptions"] == 1)
    stage.redeem(grant, subject="second")
    assert stage.kube.until(lambda: len(stage.events("Redeemed")) == 2)
    assert [one["count"] for one in stage.events("Redeemed")] == [1, 1]


def test_an_event_tells_of_wrong_codes(stage: Stage) -> None:
    stage.grant()
    grant = stage.ready()
    for _ in range(2):
        assert refusal(stage, grant, "wrong") is Reason.WRONG_CODE
    told = stage.told("Refused")
    assert told["type"] == "Warning"
    times = {"once": 1, "2 times": 2}

    def count() -> int:
        told = stage.events("Refused")
        return sum(times[one["message"].partition("tried ")[2]] * one["count"] for one in told)

    assert stage.kube.until(lambda: count() == 2)


def test_an_event_and_the_message_tell_of_a_suspected_theft(stage: Stage) -> None:
    stage.grant()
    grant = stage.ready()
    stage.redeem(grant, subject="east-site")
    late = {"subject": "mallory", "peer": "198.51.100.66"}
    assert refusal(stage, grant, **late) is Reason.USED_UP
    text = (
        'suspected token theft: redeemed by "east-site" from 192.0.2.7, then tried by '
        '"mallory" from 198.51.100.66'
    )
    told = stage.told("SuspectedTokenTheft")
    assert (told["type"], told["message"]) == ("Warning", text)
    message = f"The one redemption is used; {text}"
    status = stage.found(lambda status: status["message"] == message)["status"]
    assert conditions(status)["Ready"] == ("False", "Error", message)
    # The grant is given more: what was told is not told again with each redemption.
    stage.spec(redemptionsAllowed=3)
    grant = stage.ready()
    stage.redeem(grant, subject="third")
    stage.found(lambda status: status["redemptions"] == 2)
    assert stage.kube.until(lambda: len(stage.events("Redeemed")) == 2)
    assert [one["count"] for one in stage.events("SuspectedTokenTheft")] == [1]


def test_an_event_tells_why_a_grant_is_not_ready(stage: Stage) -> None:
    stage.grant(expirationWindow="1d")
    told = stage.told("Error")
    assert told["type"] == "Warning"
    assert told["message"].startswith('Invalid duration "1d"')
    site_status(endpoints=[])(stage)
    stage.grant("waiting")
    pending = stage.told("Pending", "waiting")
    assert pending["type"] == "Normal"
    assert "has no endpoints yet" in pending["message"]


# A live grant is changed.


def test_a_live_grant_may_be_given_more_redemptions(stage: Stage) -> None:
    stage.grant()
    grant = stage.ready()
    stage.redeem(grant)
    stage.found(lambda status: status["status"] == "Error")
    stage.spec(redemptionsAllowed=2)
    again = stage.ready()
    assert {one["observedGeneration"] for one in again["status"]["conditions"]} == {
        again["metadata"]["generation"]
    }
    assert again["status"]["code"] == grant["status"]["code"]
    assert stage.redeem(again, subject="another").ordinal == 2


def test_a_live_grant_may_be_given_fewer_but_not_less_than_was_used(stage: Stage) -> None:
    stage.grant(redemptionsAllowed=9)
    grant = stage.ready()
    for number in range(3):
        stage.redeem(grant, subject=f"site-{number}")
    stage.spec(redemptionsAllowed=1)
    status = stage.found(lambda status: status["status"] == "Error")["status"]
    assert (status["message"], status["redemptions"]) == ("All 3 redemptions are used", 3)
    assert refusal(stage, grant, subject="another") is Reason.USED_UP


def test_the_window_of_a_live_grant_counts_from_when_it_began(stage: Stage) -> None:
    stage.grant(redemptionsAllowed=9, expirationWindow="10m")
    grant = stage.ready()
    stage.stand.clock.now += 300
    for window, lasts in (("1h", 3600), ("20m", 1200), ("6m", 360)):
        stage.spec(expirationWindow=window)
        grant = stage.found(
            lambda status, lasts=lasts: expires(status) == rfc3339(NOW + lasts)  # type: ignore[misc]
        )
        assert grant["status"]["status"] == "Ready"
    stage.spec(expirationWindow="4m")
    grant = stage.found(lambda status: status["status"] == "Error")
    assert grant["status"]["message"] == f"Expired at {rfc3339(NOW + 240)}"
    assert refusal(stage, grant) is Reason.EXPIRED
    # It may be given more time, too.
    stage.spec(expirationWindow="10m")
    assert stage.redeem(stage.ready()).ordinal == 1


def test_a_code_that_is_given_later_replaces_the_one_before_at_once(stage: Stage) -> None:
    stage.grant(redemptionsAllowed=9)
    old = stage.ready()
    stage.spec(code="sesame-open-yourself")
    new = stage.found(lambda status: status["code"] == "sesame-open-yourself")
    assert refusal(stage, old) is Reason.WRONG_CODE
    assert stage.redeem(new).ordinal == 1
    # Taken away again it is not another one.
    stage.spec(code=None)
    stage.touch()
    assert stage.redeem(stage.ready(), subject="another").ordinal == 2


def test_another_issuer_signs_from_then_on(stage: Stage) -> None:
    stage.kube.create(a_secret("own-ca", ca=a_ca("own ca")))
    stage.grant(redemptionsAllowed=99)
    grant = stage.ready()
    assert signed_by(stage, grant) == "north ca"
    for change, signer in (("own-ca", "own ca"), (None, "north ca")):
        stage.spec(issuer=change)
        wait_for_signer(stage, grant, signer)


def test_a_ca_that_is_exchanged_signs_at_once(stage: Stage) -> None:
    stage.grant(redemptionsAllowed=99)
    grant = stage.ready()
    secret(ca=a_ca("new ca"))(stage)
    wait_for_signer(stage, grant, "new ca")


def test_what_was_granted_holds_while_the_spec_of_a_live_grant_makes_no_sense(
    stage: Stage,
) -> None:
    stage.grant(redemptionsAllowed=2)
    grant = stage.ready()
    stage.spec(expirationWindow="1d", redemptionsAllowed=9)
    spoilt = stage.found(lambda status: status["status"] == "Error")["status"]
    assert spoilt["code"] == grant["status"]["code"]
    assert stage.redeem(grant).ordinal == 1
    stage.spec(expirationWindow="15m", redemptionsAllowed=2)
    mended = stage.found(lambda status: (status["status"], status["redemptions"]) == ("Ready", 1))[
        "status"
    ]
    assert expires(mended) == expires(grant["status"])


# It is deleted.


def test_to_delete_the_resource_revokes_the_grant(stage: Stage) -> None:
    stage.grant()
    grant = stage.ready()
    stage.kube.delete("AccessGrant", GRANT, NAMESPACE)
    assert stage.kube.until(
        lambda: grants.show(stage.stand.database, grant["metadata"]["uid"])[0].revoked_at == NOW
    )
    assert refusal(stage, grant) is Reason.REVOKED


def test_one_that_is_only_waiting_for_its_finalizers_is_deleted(stage: Stage) -> None:
    made = access_grant()
    made["metadata"]["finalizers"] = ["example.com/wait"]
    stage.kube.create(made)
    grant = stage.ready()
    stage.kube.delete("AccessGrant", GRANT, NAMESPACE)
    assert stage.kube.until(
        lambda: grants.show(stage.stand.database, grant["metadata"]["uid"])[0].revoked_at == NOW
    )
    assert refusal(stage, grant) is Reason.REVOKED
    stage.kube.patch("AccessGrant", GRANT, {"metadata": {"finalizers": None}}, NAMESPACE)
    stage.kube.wait_gone("AccessGrant", GRANT, NAMESPACE)


def test_one_that_is_deleted_and_made_anew_is_another_grant(stage: Stage) -> None:
    stage.grant(redemptionsAllowed=2, code="sesame-open-yourself")
    old = stage.ready()
    stage.redeem(old)
    stage.found(lambda status: status["redemptions"] == 1)
    stage.kube.delete("AccessGrant", GRANT, NAMESPACE)
    stage.grant(redemptionsAllowed=2, code="sesame-open-yourself")
    new = stage.ready()
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert new["status"]["redemptions"] == 0
    assert refusal(stage, old, subject="another") is Reason.REVOKED
    assert stage.redeem(new, subject="another").ordinal == 1


# The status is a projection.


def test_a_status_that_was_edited_by_hand_is_corrected(stage: Stage) -> None:
    stage.grant(redemptionsAllowed=3)
    grant = stage.ready()
    stage.redeem(grant)
    right = stage.found(lambda status: status["redemptions"] == 1)["status"]
    wrong: dict[str, Any] = {
        "redemptions": 0,
        "code": "mine",
        "url": "https://evil.example",
        "ca": PEM.replace("AAAA", "BBBB"),
        "expirationTime": rfc3339(NOW + 10**7),
        "status": "Error",
        "conditions": [],
    }
    for name, value in wrong.items():
        stage.status(**{name: value})
        stage.found(lambda status: status == right)
    stage.status(**wrong)
    stage.found(lambda status: status == right)
    stage.kube.patch("AccessGrant", GRANT, {"status": None}, NAMESPACE, subresource="status")
    stage.found(lambda status: status == right)


def test_the_message_alone_is_left_to_whoever_wants_it_otherwise(stage: Stage) -> None:
    stage.grant(redemptionsAllowed=3)
    grant = stage.ready()
    stage.status(message="AccessGrants are not enabled")
    stage.touch()
    stage.redeem(grant)  # a change of ours, with which the message is written
    stage.found(lambda status: (status["redemptions"], status["message"]) == (1, "OK"))


MESSAGE = "AccessGrants are not enabled"


@contextmanager
def disabled(kube: Kube) -> Iterator[None]:
    """Skupper's controller with grants disabled: it writes one message, whenever it differs."""
    asking, ended = Asking(kube, kube.token("skupper")), threading.Event()

    def write() -> None:
        for _, found in watching:
            if ended.is_set():
                return
            if (found.get("status") or {}).get("message") != MESSAGE:
                path = f"{PATH}/{found['metadata']['name']}/status"
                asking.merge(path, {"status": {"message": MESSAGE}})

    with asking.watch(PATH) as watching:
        writer = threading.Thread(target=write)
        writer.start()
        yield
        ended.set()
        kube.create(access_grant("that-it-wakes-up"))
        writer.join(PATIENCE)
        assert not writer.is_alive()


def test_beside_a_controller_that_writes_another_message_nobody_writes_for_ever(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    stage = fake_stage

    def writes(user: str) -> int:
        return len(fake_kube.requests.writes(user=user, subresource="status"))

    def shows(count: int) -> Callable[[Object], bool]:
        return lambda status: (status.get("redemptions"), status.get("message")) == (count, MESSAGE)

    with disabled(fake_kube):
        stage.grant(redemptionsAllowed=5)
        grant = stage.found(shows(0))
        for count in (1, 2, 3):
            stage.redeem(grant, subject=f"site-{count}")
            stage.found(shows(count))
        assert conditions(stage.found(shows(3))["status"])["Ready"] == OK
        # What either has still to say is said when both have seen another grant through.
        stage.grant("other")
        stage.found(shows(0), "other")
        ours, theirs = writes("grantserver"), writes("skupper")
        # Five changes of ours and as many answers; a few may have met a version that was old.
        assert 5 <= ours <= 10
        assert 5 <= theirs <= 10
        for number in range(3):
            stage.touch()
            stage.grant(f"further-{number}")
            stage.found(shows(0), f"further-{number}")
        assert writes("grantserver") - ours <= 6
        assert writes("skupper") - theirs <= 6


def test_while_a_watch_is_half_open_every_redemption_is_told_in_time(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    stage = fake_stage

    def codes() -> list[int]:
        asked = fake_kube.requests.writes(subresource="status", name=GRANT)
        return [one.code for one in asked]

    stage.grant(redemptionsAllowed=5)
    grant = stage.ready()
    stage.settle()
    fake_kube.requests.clear()
    assert fake_kube.silence_watches() == 3
    for count in (1, 2, 3):
        stage.redeem(grant, subject=f"site-{count}")
        stage.found(lambda status, count=count: status["redemptions"] == count)  # type: ignore[misc]
    assert fake_kube.until(lambda: codes() == [200, 200, 200])
    # What the watch tells late is nothing new.
    fake_kube.drop_watches()
    stage.settle()
    assert codes() == [200, 200, 200]


def test_times_of_transition_move_only_with_the_condition(stage: Stage) -> None:
    stage.grant(redemptionsAllowed=9)
    grant = stage.ready()

    def since(status: Object) -> list[str]:
        return [one["lastTransitionTime"] for one in status["conditions"]]

    stage.stand.clock.now += 60
    stage.redeem(grant)
    status = stage.found(lambda status: status["redemptions"] == 1)["status"]
    assert since(status) == [rfc3339(NOW)] * 3
    generation = stage.spec(redemptionsAllowed=8)["metadata"]["generation"]

    def seen(status: Object) -> bool:
        return {one["observedGeneration"] for one in status["conditions"]} == {generation}

    assert since(stage.found(seen)["status"]) == [rfc3339(NOW)] * 3
    site_status(endpoints=[])(stage)
    status = stage.found(lambda status: status["status"] == "Pending")["status"]
    assert since(status) == [rfc3339(NOW), rfc3339(NOW), rfc3339(NOW + 60)]
    stage.stand.clock.now += 60
    site_status(endpoints=list(ENDPOINTS))(stage)
    assert since(stage.ready()["status"]) == [rfc3339(NOW), rfc3339(NOW), rfc3339(NOW + 120)]


# The database is lost.


def lost(stage: Stage, directory: Path) -> Stage:
    """The same cluster beside a server with nothing: another database, other keys."""
    directory.mkdir()
    stand = a_stand(a_database(directory), directory)
    stand.clock.now = stage.stand.clock.now
    return Stage(kube=stage.kube, stand=stand, directory=directory)


def test_a_lost_database_is_rebuilt_from_the_resources(
    kube: Kube, stand: Stand, tmp_path: Path
) -> None:
    with staged(kube, stand, tmp_path) as stage:
        with stage.replica():
            stage.grant("live", redemptionsAllowed=3, expirationWindow="1h")
            stage.grant("used")
            stage.grant("short", expirationWindow="5m")
            stage.grant("revoked")
            before = {name: stage.ready(name) for name in ("live", "used", "short", "revoked")}
            stage.redeem(before["live"], subject="first")
            stage.redeem(before["used"], subject="first")
            grants.revoke(stand.database, "revoked", site=NAMESPACE, actor="cli", now=NOW + 1)
            stage.found(lambda status: status["redemptions"] == 1, "live")
            stage.found(lambda status: status["redemptions"] == 1, "used")
            stage.found(lambda status: status["status"] == "Error", "revoked")
        stand.clock.now += 600
        statuses = {name: kube.get("AccessGrant", name, NAMESPACE)["status"] for name in before}
        new = lost(stage, tmp_path / "new")
        with new.replica():
            ended = new.found(lambda status: status["message"].startswith("Expired"), "short")
            assert ended["status"]["expirationTime"] == statuses["short"]["expirationTime"]
            assert kube.until(lambda: len(grants.every(new.stand.database)) == len(before))
            for name in ("live", "used", "revoked"):
                assert new.found(lambda _: True, name)["status"] == statuses[name]
            assert refusal(new, before["used"], subject="second") is Reason.USED_UP
            assert refusal(new, before["revoked"]) is Reason.REVOKED
            assert refusal(new, before["short"]) is Reason.EXPIRED
            live = before["live"]
            assert [new.redeem(live, subject=f"site-{number}").ordinal for number in (2, 3)] == [
                2,
                3,
            ]
            assert refusal(new, live, subject="fourth") is Reason.USED_UP
        new.stand.database.close()


@pytest.mark.parametrize("spoilt", ["spec", "namespace"])
def test_a_lost_database_is_rebuilt_when_what_kept_it_from_that_is_mended(
    kube: Kube, stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    monkeypatch.setattr("app.kube.namespaces._AGAIN_SECONDS", 0.05)
    with staged(kube, stand, tmp_path) as stage:
        with stage.replica():
            stage.grant("live", redemptionsAllowed=3)
            stage.grant("revoked", redemptionsAllowed=3)
            before = {name: stage.ready(name) for name in ("live", "revoked")}
            stage.redeem(before["live"], subject="first")
            grants.revoke(stand.database, "revoked", site=NAMESPACE, actor="cli", now=NOW + 1)
            stage.found(lambda status: status["redemptions"] == 1, "live")
            stage.found(lambda status: status["status"] == "Error", "revoked")
        statuses = {name: kube.get("AccessGrant", name, NAMESPACE)["status"] for name in before}
        new = lost(stage, tmp_path / "new")
        if spoilt == "spec":
            for name in before:
                stage.spec(name, expirationWindow="1d")
        else:
            new.stand.set_site(NAMESPACE)
        with new.replica():
            new.found(lambda status: status["status"] == "Error", "live")
            told = new.found(lambda now: conditions(now)["Processed"][0] == "False", "revoked")
            assert told["status"]["message"] == f"Revoked at {rfc3339(NOW + 1)}"
            for name, status in statuses.items():
                now = kube.get("AccessGrant", name, NAMESPACE)["status"]
                for field in ("redemptions", "code", "expirationTime"):
                    assert now[field] == status[field]
            assert grants.every(new.stand.database) == []
            if spoilt == "spec":
                for name in before:
                    stage.spec(name, expirationWindow="15m")
            else:
                sites.remove(new.stand.database, name=NAMESPACE, actor="cli", now=NOW)
            live = new.ready("live")
            assert live["status"]["redemptions"] == 1
            assert new.redeem(before["live"], subject="second").ordinal == 2
            assert kube.until(lambda: len(grants.every(new.stand.database)) == len(before))
            assert refusal(new, before["revoked"]) is Reason.REVOKED
        new.stand.database.close()


def test_one_that_skuppers_controller_began_goes_on_where_it_stands(stage: Stage) -> None:
    began = {
        "url": "https://old.example:9090/x",
        "code": "Aa0Bb1Cc2Dd3Ee4Ff5Gg6Hh7",
        "ca": PEM,
        "redemptions": 2,
        "expirationTime": rfc3339(NOW + 100),
        "status": "Ready",
        "message": "OK",
    }
    stage.kube.create(access_grant(status=began, redemptionsAllowed=3, expirationWindow="1h"))
    grant = stage.found(lambda status: "conditions" in status)
    assert grant["status"]["code"] == began["code"]
    assert expires(grant["status"]) == began["expirationTime"]
    assert grant["status"]["url"] == f"{REACH.url}/{grant['metadata']['uid']}"
    assert stage.redeem(grant).ordinal == 3
    stage.found(lambda status: status["redemptions"] == 3)


def test_what_only_others_read_is_not_kept_of_a_grant() -> None:
    made = access_grant(status={"code": "x"})
    made["metadata"] |= {"managedFields": [{}], "annotations": {"a": "b"}, "uid": "u"}
    found = kept(made)
    assert found["metadata"] == {"namespace": NAMESPACE, "name": GRANT, "uid": "u"}
    assert (found["spec"], found["status"]) == ({}, {"code": "x"})
