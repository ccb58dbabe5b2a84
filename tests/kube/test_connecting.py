"""Who is looked after by whom, and with which rights; what is done is played in `test_tokens`."""

from collections.abc import Iterator
from datetime import timedelta
from math import isnan
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from app.metrics import Metrics
from tests.builders import Stand
from tests.kube.api_server import FakeKube, Kube
from tests.kube.connecting import EAST, RULES, USER, Connector, furnish, redeemed, told
from tests.kube.far_side import FarSide, refusal
from tests.kube.stage import RULES as RULES_OF_LISTENING
from tests.kube.stage import TERMS, Replica
from tests.kube.test_renewals import SHORT, renewed


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarSide]:
    with FarSide(directory=tmp_path) as made:
        yield made


def test_a_namespace_that_cannot_be_watched_holds_up_no_other(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube, EAST, "south")
    rules = [{**one, "namespaces": [EAST]} if "sites" in one["resources"] else one for one in RULES]
    with Connector(kube=kube, directory=tmp_path, namespaces=("south", EAST), rules=rules):
        for namespace in ("south", EAST):
            kube.create(far.token(namespace=namespace))
        redeemed(kube)
        # What is not known passes for nothing: it is not said that there is no Site.
        assert "status" not in kube.get("AccessToken", "west", "south")


def test_it_asks_for_what_its_role_allows_and_for_nothing_else(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    far.life = SHORT
    furnish(kube)
    kube.requests.clear()
    with Connector(kube=kube, directory=tmp_path):
        kube.create(far.token())
        redeemed(kube)
        renewed(kube)
        kube.create(far.token("later"))
        redeemed(kube, "later")
        kube.create(far.token("wrong", code="wrong"))
        told(kube, name="wrong")
        assert kube.until(lambda: len(kube.find("Event", EAST)) >= 4)
    asked = kube.requests.of(user=USER)
    assert {one.code for one in asked if one.code in {401, 403}} == set()
    allowed = {
        (group, resource, verb)
        for rule in RULES
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    used = kube.requests.rules(user=USER)
    assert used <= allowed
    # These are for what happens seldom: Events told again, Links that were half made otherwise.
    assert allowed - used <= {("", "events", "patch"), ("skupper.io", "links", "patch")}


def test_secrets_of_others_are_not_even_looked_at(
    fake_kube: FakeKube, tmp_path: Path, far: FarSide
) -> None:
    furnish(fake_kube)
    fake_kube.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": EAST, "name": "theirs"}}
    )
    with Connector(kube=fake_kube, directory=tmp_path):
        fake_kube.create(far.token())
        redeemed(fake_kube)
    read = fake_kube.requests.of(user=USER, verb="get", resource="secrets")
    assert {one.name for one in read} == {"west"}
    for verb in ("list", "watch"):
        asked = fake_kube.requests.of(user=USER, verb=verb, resource="secrets")
        assert asked
        assert all("as=PartialObjectMetadata" in one.accept for one in asked)


def test_of_two_replicas_the_one_that_leads_does_it_and_the_other_goes_on(
    fake_kube: FakeKube, stand: Stand, tmp_path: Path, far: FarSide
) -> None:
    furnish(fake_kube)

    def replica(user: str) -> Replica:
        connecting = Connector(kube=fake_kube, directory=tmp_path).connecting
        return Replica(
            kube=fake_kube,
            stand=stand,
            directory=tmp_path,
            user=user,
            rules=[*RULES_OF_LISTENING, *RULES],
            changes={"namespaces": (), "connecting": connecting, "terms": TERMS},
        )

    with replica("one") as one:
        fake_kube.create(far.token())
        redeemed(fake_kube)
        with replica("other"):
            one.stop()
            fake_kube.create(far.token("later"))
            redeemed(fake_kube, "later")
    assert far.given == 2
    for user in ("one", "other"):
        assert fake_kube.requests.of(user=user, resource="accesstokens", verb="patch") != []
    # Without namespaces to serve, no AccessGrant is looked at.
    assert fake_kube.requests.of(resource="accessgrants") == []


def test_what_comes_of_tokens_and_links_is_counted(kube: Kube, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, version="1", count_grants=dict)

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(f"grantserver_{name}", labels) or 0.0

    def tried(outcome: str) -> float:
        return value("access_token_attempts_total", outcome=outcome)

    end = "link_certificates_soonest_expiry_timestamp_seconds"
    furnish(kube)
    with FarSide(directory=tmp_path, life=timedelta(hours=2, minutes=5)) as far:
        with Connector(kube=kube, directory=tmp_path, metrics=metrics):
            far.answers.append(refusal(503, "Internal error"))
            kube.create(far.token("waiting"))
            assert kube.until(lambda: tried("unavailable") == 1)
            assert kube.until(lambda: value("access_tokens_waiting") == 1)
            kube.create(far.token("wrong", code="wrong"))
            assert kube.until(lambda: tried("refused") == 1)
            kube.create(far.token())
            assert kube.until(lambda: tried("redeemed") >= 1)
            assert kube.until(lambda: value("link_renewal_attempts_total", outcome="renewed") >= 1)
            assert kube.until(lambda: value(end) > 0)
        assert value("access_tokens_waiting") == 0
        assert isnan(value(end))
