from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Conflict, Missing, Unavailable
from app.kube.applier import Condition, difference, dressed, write_status
from app.kube.client import Kube
from app.kube.resources import ACCESS_GRANTS, Object
from tests.kube import api_server
from tests.kube.api_server import FakeKube
from tests.kube.clients import GRANTS, connected, run
from tests.kube.fake.patches import merge

NOW = 1_795_000_000
THEN = "2026-11-18T11:06:40Z"
LATER = NOW + 60
READY = Condition(type="Ready", status=True, reason="Ready", message="OK")
PENDING = Condition(type="Ready", status=False, reason="Pending", message="no endpoints yet")
PROCESSED = Condition(type="Processed", status=True, reason="Ready", message="OK")


def grant_of(server: api_server.Kube) -> Object:
    server.define(GRANTS)
    body = {
        "apiVersion": "skupper.io/v2alpha1",
        "kind": "AccessGrant",
        "metadata": {"name": "grant", "namespace": "default"},
        "spec": {"code": "x"},
    }
    return server.create(body)


def doing(server: api_server.Kube, directory: Path) -> Callable[..., Any]:
    """Do something with a client of a server."""

    def do(work: Callable[[Kube], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            async with connected(server, directory, seconds=2.0) as client:
                return await work(client)

        return run(main())

    return do


@pytest.fixture
def server(kube: api_server.Kube) -> api_server.Kube:
    """A real API server if there is one, else ours."""
    return kube


@pytest.fixture
def grant(server: api_server.Kube) -> Object:
    """A grant there, as it was read."""
    return grant_of(server)


@pytest.fixture
def fake_grant(fake_kube: FakeKube) -> Object:
    """A grant, as it was read, of the server that can be made to fail."""
    return grant_of(fake_kube)


@pytest.fixture
def do(server: api_server.Kube, tmp_path: Path) -> Callable[..., Any]:
    """Do something with a client of the server."""
    return doing(server, tmp_path)


@pytest.fixture
def do_fake(fake_kube: FakeKube, tmp_path: Path) -> Callable[..., Any]:
    """Do something with a client of the one that can be made to fail."""
    return doing(fake_kube, tmp_path)


def test_a_status_is_written_once(
    server: api_server.Kube, do: Callable[..., Any], grant: Object
) -> None:
    wanted = {"url": "https://there", "redemptions": 0}
    server.requests.clear()

    async def work(kube: Kube) -> None:
        written = await write_status(kube, ACCESS_GRANTS, grant, wanted, [READY], now=NOW)
        assert written is not None
        assert written["status"] == wanted | {
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Ready",
                    "message": "OK",
                    "observedGeneration": 1,
                    "lastTransitionTime": THEN,
                }
            ]
        }
        for now in (NOW, LATER):
            again = await write_status(kube, ACCESS_GRANTS, written, wanted, [READY], now=now)
            assert again is None

    do(work)
    assert [(one.verb, one.subresource) for one in server.requests] == [("patch", "status")]


def test_only_what_differs_is_written(
    server: api_server.Kube, do: Callable[..., Any], grant: Object
) -> None:
    async def work(kube: Kube) -> None:
        first = {"url": "https://there", "redemptions": 0, "code": "x"}
        written = await write_status(kube, ACCESS_GRANTS, grant, first, now=NOW)
        assert written is not None
        server.requests.clear()
        second = {"url": "https://there", "redemptions": 1, "code": None}
        written = await write_status(kube, ACCESS_GRANTS, written, second, now=NOW)
        assert written is not None
        assert written["status"] == {"url": "https://there", "redemptions": 1}

    do(work)


def test_what_others_have_written_is_left_alone(
    server: api_server.Kube, do: Callable[..., Any], grant: Object
) -> None:
    assert "status" not in grant
    # As Skupper's own definition wants it: on a real server another test may have put it there.
    condition = {"type": "Theirs", "status": "True", "reason": "R", "message": "M"}
    condition |= {"lastTransitionTime": "2026-11-22T10:00:00Z"}
    others = {"status": {"code": "theirs", "conditions": [condition]}}
    present = server.patch("AccessGrant", "grant", others, subresource="status")

    async def work(kube: Kube) -> Object:
        written = await write_status(
            kube, ACCESS_GRANTS, present, {"url": "u"}, [PROCESSED, READY], now=NOW
        )
        assert written is not None
        return written

    status = do(work)["status"]
    assert (status["code"], status["url"]) == ("theirs", "u")
    assert [one["type"] for one in status["conditions"]] == ["Theirs", "Processed", "Ready"]


def test_a_change_since_it_was_read_is_a_conflict(
    server: api_server.Kube, do: Callable[..., Any], grant: Object
) -> None:
    server.patch("AccessGrant", "grant", {"status": {"url": "theirs"}}, subresource="status")

    async def work(kube: Kube) -> None:
        with pytest.raises(Conflict):
            await write_status(kube, ACCESS_GRANTS, grant, {"url": "ours"}, now=NOW)

    do(work)
    assert server.get("AccessGrant", "grant")["status"] == {"url": "theirs"}


def test_an_object_that_is_gone_is_missing(
    server: api_server.Kube, do: Callable[..., Any], grant: Object
) -> None:
    server.delete("AccessGrant", "grant")

    async def work(kube: Kube) -> None:
        with pytest.raises(Missing):
            await write_status(kube, ACCESS_GRANTS, grant, {"url": "u"}, now=NOW)

    do(work)


def test_an_object_that_was_made_anew_is_not_written_to(
    server: api_server.Kube, do: Callable[..., Any], grant: Object
) -> None:
    server.delete("AccessGrant", "grant")
    unlike = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")
    metadata = {name: one for name, one in grant["metadata"].items() if name not in unlike}
    server.create({**grant, "metadata": metadata})

    async def work(kube: Kube) -> None:
        with pytest.raises(Conflict):
            await write_status(kube, ACCESS_GRANTS, grant, {"url": "u"}, now=NOW)

    do(work)
    assert "status" not in server.get("AccessGrant", "grant")


FAULTS: dict[str, Callable[[FakeKube], object]] = {
    "reset": lambda kube: kube.faults.reset(times=1),
    "500": lambda kube: kube.faults.fail(500, times=1),
    "429": lambda kube: kube.faults.throttle(retry_after=60),
    "frozen": lambda kube: kube.faults.freeze(times=1),
    "away": lambda kube: kube.stop(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_unavailable(
    fake_kube: FakeKube, do_fake: Callable[..., Any], fake_grant: Object, fault: str
) -> None:
    FAULTS[fault](fake_kube)

    async def work(kube: Kube) -> None:
        with pytest.raises(Unavailable):
            await write_status(kube, ACCESS_GRANTS, fake_grant, {"url": "u"}, now=NOW)

    do_fake(work)


def test_a_write_whose_answer_was_lost_is_a_conflict_when_it_is_done_again(
    fake_kube: FakeKube, do_fake: Callable[..., Any], fake_grant: Object
) -> None:
    fake_kube.faults.reset(times=1, after=True)

    async def work(kube: Kube) -> None:
        with pytest.raises(Unavailable):
            await write_status(kube, ACCESS_GRANTS, fake_grant, {"redemptions": 1}, now=NOW)
        with pytest.raises(Conflict):
            await write_status(kube, ACCESS_GRANTS, fake_grant, {"redemptions": 1}, now=NOW)
        there = await kube.get(ACCESS_GRANTS, "grant", "default")
        again = await write_status(kube, ACCESS_GRANTS, there, {"redemptions": 1}, now=NOW)
        assert again is None

    do_fake(work)


def test_a_field_that_somebody_else_wants_otherwise_is_not_fought_for(
    server: api_server.Kube, do: Callable[..., Any], grant: Object
) -> None:
    wanted = {"url": "u", "message": "OK"}
    theirs = {"status": {"message": "AccessGrants are not enabled"}}

    async def work(kube: Kube) -> None:
        async def write(found: Object, wanted: Mapping[str, Any]) -> Object | None:
            return await write_status(
                kube, ACCESS_GRANTS, found, wanted, now=NOW, only_along={"message"}
            )

        written = await write(grant, wanted)
        assert written is not None
        assert written["status"] == wanted
        theirs_now = server.patch("AccessGrant", "grant", theirs, subresource="status")
        assert await write(theirs_now, wanted) is None
        # With a change of ours it is written as well.
        written = await write(theirs_now, wanted | {"redemptions": 1})
        assert written is not None
        assert written["status"] == wanted | {"redemptions": 1}

    do(work)


def one(condition: Condition, present: list[Object], *, generation: int = 1, now: int = NOW) -> Any:
    return dressed(present, [condition], generation=generation, now=now)[0]


def test_a_condition_keeps_its_time_as_long_as_its_status_stays() -> None:
    first = one(PENDING, [])
    assert first["lastTransitionTime"] == THEN
    other = Condition(type="Ready", status=False, reason="Error", message="no issuer")
    second = one(other, [first], generation=2, now=LATER)
    assert second == first | {"reason": "Error", "message": "no issuer", "observedGeneration": 2}
    third = one(READY, [second], generation=2, now=LATER)
    assert third["lastTransitionTime"] == "2026-11-18T11:07:40Z"
    assert (third["status"], third["observedGeneration"]) == ("True", 2)


@pytest.mark.parametrize("broken", [{}, {"lastTransitionTime": None}, {"lastTransitionTime": ""}])
def test_a_condition_without_a_time_gets_one(broken: Object) -> None:
    present = {"type": "Ready", "status": "True"} | broken
    assert one(READY, [present])["lastTransitionTime"] == THEN


def test_conditions_stay_in_their_places() -> None:
    present = dressed([], [PROCESSED, PENDING], generation=1, now=NOW)
    theirs: Object = {"type": "Theirs", "status": "Unknown"}
    now = dressed([theirs, *present], [READY, PROCESSED], generation=1, now=LATER)
    assert [each["type"] for each in now] == ["Theirs", "Processed", "Ready"]
    assert now[:2] == [theirs, present[0]]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)
documents = st.dictionaries(st.text(max_size=2), values, max_size=4)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return value


@given(documents, documents)
def test_a_patch_brings_about_what_is_wanted_and_touches_nothing_else(
    present: Object, wanted: Object
) -> None:
    present = without_nulls(present)
    patch = difference(present, wanted)
    done = merge(present, patch)
    for name, value in wanted.items():
        assert done.get(name) == without_nulls(value)
    assert {name: one for name, one in done.items() if name not in wanted} == {
        name: one for name, one in present.items() if name not in wanted
    }
    assert difference(done, without_nulls(wanted)) == {}


@pytest.mark.parametrize(
    ("present", "wanted", "patch"),
    [
        ({}, {}, {}),
        ({"a": 1}, {}, {}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": None}, {"a": None}),
        ({}, {"a": None}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": None}}, {}),
        ({"a": [1, 2]}, {"a": [1]}, {"a": [1]}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_patches(present: Object, wanted: Object, patch: Object) -> None:
    assert difference(present, wanted) == patch
