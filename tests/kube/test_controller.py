import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import delete

from app import ambient
from app.errors import GrantServerError, Reason, Refused, Unavailable
from app.kube import controller
from app.kube.controller import Work
from app.kube.elector import Terms
from app.kube.grants import AccessGrants
from app.metrics import Metrics, Watched
from app.services import authorities, grants
from app.services.cluster import Cluster
from app.store import schema
from app.store.access_grants import Mark, marks
from app.traces import Traces
from tests.builders import NOW, Stand
from tests.kube.api_server import FakeKube, Kube, Object
from tests.kube.objects import ENDPOINTS, GRANT, ISSUER, NAMESPACE, a_ca, a_secret
from tests.kube.recorder import Request
from tests.kube.stage import LEASE, REACH, RULES, USER, Stage, conditions, staged
from tests.services.clusters import lose, restore, rows_of

QUICK = Terms(lease_seconds=1, renew_seconds=0.6, retry_seconds=0.1, call_seconds=0.3)
PATIENT = Terms(lease_seconds=60, renew_seconds=40.0, retry_seconds=30.0, call_seconds=5.0)
EAGER = replace(PATIENT, retry_seconds=0.1)


@pytest.fixture
def stage(kube: Kube, stand: Stand, tmp_path: Path) -> Iterator[Stage]:
    """A furnished namespace, and nobody yet who serves it."""
    with staged(kube, stand, tmp_path) as made:
        yield made


@pytest.fixture
def fake_stage(fake_kube: FakeKube, stand: Stand, tmp_path: Path) -> Iterator[Stage]:
    """The same on the API server of ours, for tests that make it fail or count its requests."""
    with staged(fake_kube, stand, tmp_path) as made:
        yield made


def holder(kube: Kube) -> str:
    """Who has the Lease."""
    found = kube.find("Lease", LEASE.namespace)
    return str(found[0]["spec"].get("holderIdentity", "")) if found else ""


def leads(kube: Kube, user: str, timeout: float = 20.0) -> None:
    """Wait until somebody leads."""
    assert kube.until(lambda: holder(kube) == user, timeout), f"{holder(kube)} leads"


def counts(stage: Stage, names: Mapping[str, int]) -> bool:
    """Whether the statuses show so many redemptions."""
    return all(
        stage.kube.get("AccessGrant", name, NAMESPACE)["status"]["redemptions"] == count
        for name, count in names.items()
    )


def refused(stage: Stage, grant: Object, **claim: Any) -> Reason:
    with pytest.raises(Refused) as caught:
        stage.redeem(grant, **claim)
    return caught.value.reason


def own_writes(fake_kube: FakeKube, user: str = USER) -> list[Request]:
    """All but the renewals of the Lease."""
    return [one for one in fake_kube.requests.writes(user=user) if one.resource != "leases"]


def renewed(fake_kube: FakeKube, times: int = 5, user: str = USER) -> None:
    """Wait while a leader does so often what it does when there is nothing to do."""

    def renewals() -> int:
        return len(fake_kube.requests.of(resource="leases", verb="update", user=user))

    before = renewals()
    assert fake_kube.until(lambda: renewals() >= before + times)


# Whom it serves.


def test_a_namespace_that_cannot_be_watched_holds_up_no_other(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    stage = fake_stage
    stage.furnish("south")
    secrets = [one for one in RULES if "secrets" in one["resources"]]
    others = [one for one in RULES if "secrets" not in one["resources"]]
    only_north = [{**one, "namespaces": [NAMESPACE]} for one in secrets]
    replica = stage.replica(namespaces=("south", NAMESPACE))
    replica.rules = [*others, *only_north]
    stage.grant(namespace="south")
    with replica:
        stage.grant()
        assert stage.redeem(stage.ready()).ordinal == 1
        # What is not known of whole passes for nothing: it is not looked at.
        assert "status" not in fake_kube.get("AccessGrant", GRANT, "south")
    replica = stage.replica("another", namespaces=("south", NAMESPACE))
    with replica:
        assert stage.redeem(stage.ready(namespace="south")).ordinal == 1


# What it writes, and what it asks for.


def test_secrets_of_others_come_without_their_content(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    """They may be large, and many, and are nobody's business here."""
    stage = fake_stage
    with stage.replica():
        stage.grant()
        stage.ready()
    for verb in ("list", "watch"):
        asked = fake_kube.requests.of(verb=verb, resource="secrets")
        assert asked
        assert all("as=PartialObjectMetadata" in one.accept for one in asked)


def test_when_nothing_changes_nothing_is_written(fake_kube: FakeKube, fake_stage: Stage) -> None:
    stage = fake_stage
    with stage.replica():
        stage.grant("live", redemptionsAllowed=5)
        stage.grant("used")
        stage.grant("spoilt", expirationWindow="1d")
        stage.grant("waiting", issuer="own-ca")
        stage.redeem(stage.ready("used"))
        stage.redeem(stage.ready("live"))
        stage.found(lambda status: status["status"] == "Error", "used")
        stage.found(lambda status: status["status"] == "Error", "spoilt")
        stage.found(lambda status: status["status"] == "Pending", "waiting")
        stage.found(lambda status: status["redemptions"] == 1, "live")
        assert fake_kube.until(lambda: len(stage.events("UsedUp", "used")) == 1)
        renewed(fake_kube)
        fake_kube.requests.clear()
        renewed(fake_kube)
        assert own_writes(fake_kube) == []
        # What happens around it is looked at, and changes nothing either.
        for name in ("live", "used", "spoilt", "waiting"):
            stage.touch(name)
        labels = {"metadata": {"labels": {"touched": "yes"}}}
        fake_kube.patch("Site", "north", labels, NAMESPACE)
        fake_kube.patch("Secret", ISSUER, labels, NAMESPACE)
        fake_kube.create(a_secret("of-somebody-else"))
        renewed(fake_kube)
        assert own_writes(fake_kube) == []
    # Nor does the next one who leads find anything to write.
    fake_kube.requests.clear()
    with stage.replica("next"):
        leads(fake_kube, "next")
        stage.grant("last")
        stage.ready("last")
        assert fake_kube.until(lambda: len(stage.events("Ready", "last")) == 1)
        written = own_writes(fake_kube, "next")
        assert {(one.resource, one.name) for one in written if one.verb == "patch"} == {
            ("accessgrants", "last")
        }
        assert len(written) == 2


def test_it_asks_for_what_its_role_allows_and_for_nothing_else(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    stage = fake_stage
    with stage.replica():
        stage.grant(redemptionsAllowed=2)
        grant = stage.ready()
        for _ in range(2):
            with pytest.raises(Refused):
                stage.redeem(grant, "wrong")
            stage.told("Refused")
        stage.redeem(grant)
        stage.found(lambda status: status["redemptions"] == 1)
        # The same event once more is counted.
        for _ in range(2):
            endpoints: list[Any] = []
            for endpoints in ([], list(ENDPOINTS)):
                change = {"status": {"endpoints": endpoints}}
                fake_kube.patch("Site", "north", change, NAMESPACE, subresource="status")
                word = "Ready" if endpoints else "Pending"
                stage.found(lambda status, word=word: status["status"] == word)  # type: ignore[misc]
        assert fake_kube.until(lambda: bool(fake_kube.requests.of(verb="patch", resource="events")))
    used = fake_kube.requests.rules(user=USER)
    assert used == {
        (group, resource, verb)
        for rule in RULES
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {one.code for one in fake_kube.requests.of(user=USER) if one.code in {401, 403}} == set()


# Which namespaces.


def test_one_namespace_or_several_are_served_and_what_is_elsewhere_is_left_alone(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    stage = fake_stage
    for namespace in ("south", "east"):
        stage.furnish(namespace)
    places = (NAMESPACE, "south", "east")
    with stage.replica():
        for namespace in places:
            stage.grant(namespace=namespace, redemptionsAllowed=3)
        found = {namespace: stage.ready(namespace=namespace) for namespace in places}
    fake_kube.requests.clear()
    with stage.replica("narrow", namespaces=(NAMESPACE, "south")):
        # What is redeemed elsewhere is in the same database, and nobody watches it.
        stage.redeem(found["east"])
        for namespace in (NAMESPACE, "south"):
            stage.redeem(found[namespace])
            stage.found(lambda status: status["redemptions"] == 1, namespace=namespace)
        fake_kube.delete("AccessGrant", GRANT, "south")
        assert fake_kube.until(lambda: revoked(stage, found["south"]))
        renewed(fake_kube, user="narrow")
        assert not revoked(stage, found["east"])
        asked = {one.namespace for one in fake_kube.requests.of(user="narrow") if one.resource}
        assert asked == {NAMESPACE, "south", LEASE.namespace}
    assert stage.redeem(found["east"], subject="another").ordinal == 2
    # Whoever serves all of them finds it as it is.
    with stage.replica():
        stage.found(lambda status: status["redemptions"] == 2, namespace="east")


def revoked(stage: Stage, grant: Object) -> bool:
    found, _ = grants.show(stage.stand.database, grant["metadata"]["uid"])
    return found.revoked_at is not None


# What happened while nobody watched.


def test_what_was_deleted_while_nobody_watched_is_revoked(stage: Stage) -> None:
    with stage.replica():
        for name in ("gone", "anew", "stays"):
            stage.grant(name, code="sesame-open-yourself", redemptionsAllowed=2)
        old = {name: stage.ready(name) for name in ("gone", "anew", "stays")}
        for name, grant in old.items():
            stage.redeem(grant)
            stage.found(lambda status: status["redemptions"] == 1, name)
    for name in ("gone", "anew"):
        stage.kube.delete("AccessGrant", name, NAMESPACE)
    stage.grant("anew", code="sesame-open-yourself")
    assert not revoked(stage, old["gone"])
    with stage.replica():
        new = stage.ready("anew")
        assert stage.kube.until(lambda: revoked(stage, old["gone"]))
        assert revoked(stage, old["anew"])
        for name in ("gone", "anew"):
            assert refused(stage, old[name], subject="another") is Reason.REVOKED
        assert new["status"]["redemptions"] == 0
        assert stage.redeem(new, subject="another").ordinal == 1
        assert stage.redeem(old["stays"], subject="another").ordinal == 2


def test_a_namespace_that_went_while_nobody_watched_is_removed(stage: Stage) -> None:
    stage.furnish("south")
    with stage.replica() as replica:
        stage.grant(namespace="south")
        grant = stage.ready(namespace="south")
        replica.stop()
        for kind, name in (("AccessGrant", GRANT), ("Site", "north"), ("Secret", ISSUER)):
            stage.kube.delete(kind, name, "south")
    with stage.replica():
        assert stage.kube.until(lambda: revoked(stage, grant))
        stage.grant()
        stage.ready()


def test_everything_that_happens_while_the_watch_is_away_is_seen_when_it_is_back(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    stage = fake_stage
    with stage.replica():
        for name in ("gone", "changed"):
            stage.grant(name)
        old = {name: stage.ready(name) for name in ("gone", "changed")}
        fake_kube.stop()
        fake_kube.delete("AccessGrant", "gone", NAMESPACE)
        stage.spec("changed", redemptionsAllowed=7)
        stage.grant("new")
        fake_kube.compact()
        fake_kube.start()
        stage.ready("new")
        assert fake_kube.until(lambda: revoked(stage, old["gone"]))
        assert fake_kube.until(
            lambda: (
                grants.show(stage.stand.database, old["changed"]["metadata"]["uid"])[0].allowed == 7
            )
        )


def test_a_grant_that_comes_while_its_namespace_is_settled_is_not_forgotten(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    stage = fake_stage
    with stage.replica():
        stage.grant("one")
        stage.ready("one")
        frozen = fake_kube.faults.freeze(verb="get", resource="secrets", namespace="south")
        fake_kube.namespace("south")
        fake_kube.create(a_secret(namespace="south"))
        stage.grant("first", "south")
        frozen.wait()
        stage.grant("second", "south")
        stage.grant("two")
        stage.ready("two")  # so the one before it was looked at as well
        frozen.release()
        for name in ("first", "second"):
            stage.found(lambda status: status["status"] == "Pending", name, "south")


# The ledger is looked at.


def test_the_status_follows_what_is_redeemed_while_it_begins(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    """Nothing may fall between what was shown at first and what is looked for afterwards."""
    stage = fake_stage
    with stage.replica():
        stage.grant("first", redemptionsAllowed=9)
        first = stage.ready("first")
    stage.grant("second")
    frozen = fake_kube.faults.freeze(verb="patch", name="second", subresource="status")
    with stage.replica():
        frozen.wait()  # the other one was looked at meanwhile, or is now
        for number in range(3):
            stage.redeem(first, subject=f"site-{number}")
            stage.found(lambda status, now=number + 1: status["redemptions"] == now, "first")  # type: ignore[misc]
        frozen.release()
        stage.ready("second")


def test_what_happened_before_it_led_is_shown_when_it_does(stage: Stage) -> None:
    with stage.replica():
        stage.grant(redemptionsAllowed=9)
        grant = stage.ready()
    stage.redeem(grant, subject="somebody")
    with stage.replica():
        stage.found(lambda status: status["redemptions"] == 1)
        told = stage.told("Redeemed")
        assert '"somebody"' in told["message"]


@pytest.mark.parametrize("when", ["at the beginning", "later"])
def test_while_the_database_is_away_it_is_asked_again(
    fake_kube: FakeKube, fake_stage: Stage, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    stage = fake_stage
    asked: list[int] = []
    marks = Cluster.marks

    def away(cluster: Cluster) -> Mapping[str, Mark]:
        asked.append(len(asked))
        if len(asked) < 4:
            raise Unavailable("the database is away")
        return marks(cluster)

    def go_away() -> None:
        monkeypatch.setattr(Cluster, "marks", away)

    if when == "at the beginning":
        go_away()
    with stage.replica():
        stage.grant()
        grant = stage.ready()
        if when == "later":
            go_away()
        stage.redeem(grant)
        stage.found(lambda status: status["redemptions"] == 1)
        assert stage.kube.until(lambda: len(asked) >= 4)
    # It did not have to begin anew.
    assert len(fake_kube.requests.of(verb="list", resource="sites", user=USER)) == 1


# The API server is away.


def test_redemptions_go_on_while_the_api_server_is_away_and_are_counted_when_it_is_back(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    """Also when that takes longer than a Lease lasts."""
    stage = fake_stage
    names = [f"grant-{number}" for number in range(4)]
    with stage.replica(terms=QUICK):
        for name in names:
            stage.grant(name, redemptionsAllowed=50)
        found = [stage.ready(name) for name in names]
        fake_kube.stop()
        asked = len(fake_kube.requests)
        for number in range(100):
            stage.redeem(found[number % 4], subject=f"site-{number}")
        assert len(fake_kube.requests) == asked
        fake_kube.start()
        assert fake_kube.until(lambda: counts(stage, dict.fromkeys(names, 25)), 5.0)
        stage.redeem(found[0], subject="afterwards")
        stage.found(lambda status: status["redemptions"] == 26, "grant-0")


def test_an_api_server_that_is_away_at_the_start_is_waited_for(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    stage = fake_stage
    stage.grant()
    replica = stage.replica()
    fake_kube.stop()
    with replica:
        fake_kube.start()
        assert stage.redeem(stage.ready()).ordinal == 1


def test_writes_that_fail_are_done_in_the_end(fake_kube: FakeKube, fake_stage: Stage) -> None:
    stage = fake_stage
    status: dict[str, Any] = {"verb": "patch", "subresource": "status"}
    fake_kube.faults.reset(times=2, **status)
    fake_kube.faults.reset(times=2, after=True, **status)
    fake_kube.faults.fail(500, times=2, **status)
    fake_kube.faults.fail(409, times=2, reason="Conflict", **status)
    fake_kube.faults.throttle(retry_after=0, times=2, **status)
    fake_kube.faults.fail(500, times=2, verb="get", resource="secrets")
    with stage.replica():
        stage.grant(redemptionsAllowed=2)
        stage.redeem(stage.ready())
        status_now = stage.found(lambda status: status["redemptions"] == 1)["status"]
        assert conditions(status_now)["Ready"][0] == "True"


# Several replicas.


def test_one_of_two_leads_and_the_other_takes_over_at_once_when_it_stops(stage: Stage) -> None:
    first = stage.replica("first", terms=PATIENT)
    second = stage.replica("second", terms=EAGER)
    with first:
        leads(stage.kube, "first")
        with second:
            stage.grant(redemptionsAllowed=3)
            grant = stage.ready()
            assert holder(stage.kube) == "first"
            first.stop()
            # Long before its Lease would have ended.
            leads(stage.kube, "second", timeout=15.0)
            stage.redeem(grant)
            stage.found(lambda status: status["redemptions"] == 1)
    assert holder(stage.kube) == ""


def done(fake_kube: FakeKube, user: str) -> list[Request]:
    """What somebody has changed, but for the Lease."""
    return [one for one in own_writes(fake_kube, user) if 200 <= one.code < 300]


def test_there_are_never_two_writers_when_the_path_of_the_leader_is_frozen(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    stage = fake_stage
    names = [f"grant-{number}" for number in range(6)]
    with stage.replica("first", terms=QUICK):
        leads(fake_kube, "first")
        with stage.replica("second", terms=QUICK):
            for name in names:
                stage.grant(name, redemptionsAllowed=9)
            found = [stage.ready(name) for name in names]
            frozen = fake_kube.faults.freeze(user="first")
            for grant in found:
                stage.redeem(grant)
            frozen.wait()
            assert fake_kube.until(lambda: counts(stage, dict.fromkeys(names, 1)))
            assert holder(fake_kube) == "second"
            before = len(done(fake_kube, "first"))
            frozen.release()
            # It can be heard again, and looks who leads.
            looks = {"user": "first", "resource": "leases", "verb": "get"}
            seen = len(fake_kube.requests.of(**looks))
            assert fake_kube.until(lambda: len(fake_kube.requests.of(**looks)) > seen + 3)
            for grant in found:
                stage.redeem(grant, subject="another")
            assert fake_kube.until(lambda: counts(stage, dict.fromkeys(names, 2)))
            # What was on its way when the path froze has changed nothing, nor has it sent more.
            assert len(done(fake_kube, "first")) == before
            writers = [one.user.rpartition(":")[2] for one in own_writes_of_all(fake_kube)]
            taken_over = writers.index("second")
            assert set(writers[:taken_over]) == {"first"}
            assert set(writers[taken_over:]) == {"second"}
        # When the second one has stopped, the first may write again.
        stage.redeem(found[0], subject="third")
        stage.found(lambda status: status["redemptions"] == 3, names[0])
        leads(fake_kube, "first")


def own_writes_of_all(fake_kube: FakeKube) -> list[Request]:
    """What anybody has sent to change something, in this order, but for the Lease."""
    return [one for one in fake_kube.requests if one.is_write and one.resource != "leases"]


def test_whoever_leads_again_remembers_nothing_that_others_have_changed_since(
    fake_kube: FakeKube, fake_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of an issuer was forgotten in the meantime, and its Secret is there again."""
    monkeypatch.setattr("app.kube.namespaces.KEYS_KEPT_SECONDS", 0.0)
    monkeypatch.setattr("app.kube.controller.KEYS_KEPT_SECONDS", 0.0)
    stage = fake_stage
    stage.grant(redemptionsAllowed=9)
    with stage.replica("first", terms=QUICK):
        stage.redeem(stage.ready())
        frozen = fake_kube.faults.freeze(user="first")
        with stage.replica("second", terms=QUICK):
            leads(fake_kube, "second")
            fake_kube.delete("Secret", ISSUER, NAMESPACE)
            stage.found(lambda status: status["status"] == "Pending")
            assert fake_kube.until(lambda: keys_of(stage) == 0)
        fake_kube.create(a_secret())
        frozen.release()
        leads(fake_kube, "first")
        grant = stage.ready()
        assert stage.redeem(grant, subject="another").ordinal == 2
        assert keys_of(stage) == 1


def keys_of(stage: Stage) -> int:
    """How many keys of issuer Secrets the database has."""
    kept = [one for one in authorities.every(stage.stand.database) if one.sealed_key]
    return len([one for one in kept if one.origin == f"{NAMESPACE}/{ISSUER}"])


def test_a_key_that_nobody_asks_for_is_forgotten_in_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kube.namespaces.KEYS_KEPT_SECONDS", 0.2)
    monkeypatch.setattr("app.kube.controller.KEYS_KEPT_SECONDS", 0.2)
    with stage.replica():
        stage.grant()
        stage.ready()
        assert keys_of(stage) == 1
        data = a_secret(ca=a_ca("new ca"))["data"]
        stage.kube.patch("Secret", ISSUER, {"data": data}, NAMESPACE)
        assert stage.kube.until(lambda: keys_of(stage) == 2)
        assert stage.kube.until(lambda: keys_of(stage) == 1)
        stage.kube.delete("Secret", ISSUER, NAMESPACE)
        assert stage.kube.until(lambda: keys_of(stage) == 0)


def test_work_is_named_in_the_log() -> None:
    works = (Work("grant", "a", "b"), Work("namespace", "a"), Work("keys"))
    assert [str(one) for one in works] == ["grant a/b", "namespace a", "keys"]


# The database is lost, or set back, while it leads.


def test_a_database_that_is_lost_while_it_leads_is_rebuilt_at_once(stage: Stage) -> None:
    stage.furnish("south")
    with stage.replica():
        stage.grant("live", redemptionsAllowed=3)
        stage.grant("used")
        stage.grant("spoilt", redemptionsAllowed=3)
        before = {name: stage.ready(name) for name in ("live", "used", "spoilt")}
        south = stage.grant(namespace="south") and stage.ready(namespace="south")
        for grant in before.values():
            stage.redeem(grant, subject="first")
        for name in before:
            stage.found(lambda status: status["redemptions"] == 1, name)
        stage.spec("spoilt", expirationWindow="1d")
        stage.found(lambda status: status["message"].startswith("Invalid"), "spoilt")
        lose(stage.stand)
        assert stage.kube.until(lambda: len(grants.every(stage.stand.database)) == 3)
        assert stage.redeem(before["live"], subject="second").ordinal == 2
        assert refused(stage, before["used"], subject="second") is Reason.USED_UP
        assert stage.redeem(south).ordinal == 1
        stage.spec("spoilt", expirationWindow="15m")
        stage.ready("spoilt")
        assert stage.redeem(before["spoilt"], subject="second").ordinal == 2
        counted = {"live": 2, "used": 1, "spoilt": 2}
        assert stage.kube.until(lambda: counts(stage, counted))


def test_a_database_that_is_lost_between_two_looks_is_rebuilt_as_well(stage: Stage) -> None:
    """No look at everything has seen the grant: it was made after one, and lost before the next."""
    with stage.replica(look_seconds=2.0):
        stage.grant("first")
        stage.ready("first")
        for _ in range(3):
            lose(stage.stand)
            assert stage.kube.until(lambda: len(grants.every(stage.stand.database)) == 1)


def test_a_database_without_grants_may_be_lost_too(stage: Stage) -> None:
    with stage.replica():
        stage.grant("first")
        stage.ready("first")
        stage.kube.delete("AccessGrant", "first", NAMESPACE)
        assert stage.kube.until(lambda: not marks_of(stage))
        lose(stage.stand)
        stage.grant()
        assert stage.redeem(stage.ready()).ordinal == 1


def test_an_issuer_that_the_database_has_lost_is_brought_in_again(stage: Stage) -> None:
    stage.kube.create(a_secret("own-ca", ca=a_ca("own")))
    with stage.replica():
        stage.grant("first", issuer="own-ca")
        stage.ready("first")
        stage.kube.delete("AccessGrant", "first", NAMESPACE)
        assert stage.kube.until(lambda: not marks_of(stage))
        with stage.stand.database.writing() as connection:
            own = schema.authorities.c.origin == f"{NAMESPACE}/own-ca"
            connection.execute(delete(schema.grants))
            assert connection.execute(delete(schema.authorities).where(own)).rowcount == 1
        stage.grant(issuer="own-ca")
        assert stage.redeem(stage.ready()).ordinal == 1


def marks_of(stage: Stage) -> list[str]:
    with stage.stand.database.reading() as connection:
        return list(marks(connection, stage.stand.clock.now, {}))


def test_a_database_that_is_set_back_while_it_leads_gives_nothing_back(stage: Stage) -> None:
    with stage.replica():
        stage.grant("old", redemptionsAllowed=3)
        stage.grant("revoked")
        stage.grant("deleted")
        before = {name: stage.ready(name) for name in ("old", "revoked", "deleted")}
        backup = rows_of(stage.stand.database)
        stage.grant("young", redemptionsAllowed=3)
        before["young"] = stage.ready("young")
        for name in ("old", "young"):
            stage.redeem(before[name], subject="first")
        now = stage.stand.clock.now
        grants.revoke(stage.stand.database, "revoked", site=NAMESPACE, actor="cli", now=now)
        stage.found(lambda status: status["status"] == "Error", "revoked")
        stage.kube.delete("AccessGrant", "deleted", NAMESPACE)
        assert stage.kube.until(lambda: counts(stage, {"old": 1, "young": 1}))
        assert stage.kube.until(lambda: revoked(stage, before["deleted"]))
        restore(stage.stand, backup)
        assert stage.kube.until(lambda: len(grants.every(stage.stand.database)) == 4)
        for name in ("revoked", "deleted"):
            assert stage.kube.until(lambda name=name: revoked(stage, before[name]))  # type: ignore[misc]
        for name in ("old", "young"):
            assert stage.kube.until(lambda name=name: spent(stage, before[name]) == 1)  # type: ignore[misc]
            assert stage.redeem(before[name], subject="second").ordinal == 2
        assert stage.kube.until(lambda: counts(stage, {"old": 2, "young": 2}))


def spent(stage: Stage, grant: Object) -> int:
    """What the database has counted of a grant."""
    return grants.show(stage.stand.database, grant["metadata"]["uid"])[0].spent


def test_a_status_follows_also_where_there_are_too_many_grants_to_look_at_often(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "_SHARE", 10**9)
    with stage.replica():
        stage.grant(redemptionsAllowed=3)
        grant = stage.ready()
        for count in (1, 2):
            stage.redeem(grant, subject=f"site-{count}")
            stage.found(lambda status, count=count: status["redemptions"] == count)  # type: ignore[misc]
        grants.revoke(
            stage.stand.database, grant["metadata"]["uid"], actor="cli:test", now=ambient.utc_now()
        )
        stage.found(lambda status: status["message"].startswith("Revoked"))


# How the server is reached.


def test_every_grant_follows_when_the_server_is_reached_in_another_way(stage: Stage) -> None:
    """Also one that has ended: its status is for whoever reads it."""
    told: dict[str, Any] = {"reach": None}
    lack = {"waiting": "waiting for an address of Service gs/door"}
    with stage.replica(reach=lambda: told["reach"], waiting=lambda: lack["waiting"]):
        for name in ("one", "two"):
            stage.grant(name)
            found = stage.found(lambda status: status.get("status") == "Pending", name)
            assert found["status"]["message"] == "waiting for an address of Service gs/door"
        lack["waiting"] = "waiting for an address of Route gs/door"
        for name in ("one", "two"):
            stage.found(lambda status: status["message"] == lack["waiting"], name)
        for url in ("https://a.example:1", "https://[2001:db8::1]:9"):
            told["reach"] = replace(REACH, url=url)
            for name in ("one", "two"):
                found = stage.found(
                    lambda status, url=url: status.get("url", "").startswith(f"{url}/"),  # type: ignore[misc]
                    name,
                )
                assert found["status"]["status"] == "Ready"
        told["reach"] = replace(REACH, url=url, ca_pem="another CA")
        stage.found(lambda status: status["ca"] == "another CA", "one")
        told["reach"] = None
        gone = stage.found(lambda status: status["status"] == "Pending", "one")["status"]
        assert gone["url"].startswith(url)  # whoever has it may use it


# When it was away.


def test_a_leader_that_was_frozen_on_its_way_to_the_database_revokes_nothing_when_it_goes_on(
    fake_kube: FakeKube, fake_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was to revoke what is deleted; meanwhile another leads, and the name is there anew."""
    stage, frozen, goes_on = fake_stage, threading.Event(), threading.Event()
    outcomes: list[object] = []
    revoke = Cluster.revoke

    def late(cluster: Cluster, namespace: str, name: str, **which: Any) -> int:
        if which.get("but") is not None or frozen.is_set():
            return revoke(cluster, namespace, name, **which)
        frozen.set()
        goes_on.wait(20)
        try:
            outcomes.append(revoke(cluster, namespace, name))  # as if it knew the name alone
        except GrantServerError as error:
            outcomes.append(error)
            raise
        return 0

    with stage.replica("first", terms=QUICK):
        stage.grant(redemptionsAllowed=5)
        stage.ready()
        monkeypatch.setattr(Cluster, "revoke", late)
        fake_kube.delete("AccessGrant", GRANT, NAMESPACE)
        assert frozen.wait(20)
        path = fake_kube.faults.freeze(user="first")
        with stage.replica("second", terms=QUICK):
            leads(fake_kube, "second")
            stage.grant(redemptionsAllowed=5)
            grant = stage.ready()
            goes_on.set()
            assert fake_kube.until(lambda: len(outcomes) == 1)
            assert isinstance(outcomes[0], Unavailable)
            path.release()
            assert stage.redeem(grant).ordinal == 1
            stage.found(lambda status: status["redemptions"] == 1)


def test_a_leader_that_was_overtaken_in_the_database_alone_leads_anew(
    fake_kube: FakeKube, fake_stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody who was frozen as he began has said so after us, without the Lease."""
    stage = fake_stage
    with stage.replica(terms=QUICK):
        stage.grant()
        stage.ready()
        stage.stand.database.led(NOW)
        assert fake_kube.until(lambda: "somebody else leads by now" in caplog.text)
        stage.grant("late")
        stage.ready("late")


def test_a_leader_that_was_stopped_for_a_while_writes_nothing_when_it_goes_on(
    fake_kube: FakeKube, fake_stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """Its clock has gone on, and it was not told yet that the Lease may be somebody else's."""
    caplog.set_level("DEBUG")
    away = [0.0]
    replica = fake_stage.replica(terms=PATIENT, monotonic=lambda: ambient.monotonic() + away[0])
    with replica:
        fake_stage.grant()
        fake_stage.ready()
        assert fake_kube.until(lambda: len(fake_stage.events("Ready")) == 1)
        fake_kube.requests.clear()
        away[0] = 50.0
        fake_stage.grant("late")
        assert fake_kube.until(lambda: "it is not up to us any more" in caplog.text)
    assert fake_kube.requests.writes(user=USER) == []


def test_whoever_leads_tells_the_metrics_what_it_does(
    fake_kube: FakeKube, fake_stage: Stage
) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, version="1", count_grants=dict)

    def value(name: str, **labels: str) -> float:
        found = registry.get_sample_value(f"grantserver_{name}", labels)
        assert found is not None
        return found

    def watched() -> set[Watched]:
        name = "watch_last_seen_timestamp_seconds"
        return {one for one in Watched if value(name, resource=one.value) == NOW}

    with fake_stage.replica(metrics=metrics):
        leads(fake_kube, USER)
        fake_stage.grant()
        fake_stage.ready()
        assert value("leader") == 1
        assert watched() == {Watched.ACCESS_GRANTS, Watched.SITES, Watched.SECRETS}
        assert value("reconciles_total", work="grant", outcome="done") >= 1
        assert value("reconciles_total", work="namespace", outcome="done") >= 1
        assert value("reconcile_duration_seconds_count", work="grant") >= 1
    assert value("leader") == 0
    assert watched() == set()


def test_what_is_reconciled_is_traced(fake_kube: FakeKube, fake_stage: Stage) -> None:
    told: list[tuple[str, str, bool]] = []

    class Told(Traces):
        def __init__(self) -> None:
            pass

        def reconciled(self, kind: str, namespace: str, seconds: float, *, done: bool) -> None:
            assert seconds >= 0
            told.append((kind, namespace, done))

    metrics = Metrics(CollectorRegistry(), version="1", count_grants=dict)
    with fake_stage.replica(metrics=metrics, traces=Told()):
        leads(fake_kube, USER)
        fake_stage.grant()
        fake_stage.ready()
        assert {("grant", NAMESPACE, True), ("namespace", NAMESPACE, True)} <= set(told)


def test_what_failed_is_counted_as_that(
    fake_kube: FakeKube, fake_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, version="1", count_grants=dict)

    async def fail(*_: Any, **__: Any) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(AccessGrants, "reconcile", fail)
    labels = {"work": "grant", "outcome": "failed"}
    with fake_stage.replica(metrics=metrics):
        fake_stage.grant()
        assert fake_kube.until(
            lambda: (registry.get_sample_value("grantserver_reconciles_total", labels) or 0) > 1
        )
