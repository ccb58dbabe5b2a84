import asyncio
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.errors import Conflict, GrantServerError, Invalid, Missing, Unavailable
from app.kube.client import Kube
from app.kube.connection import Connection
from app.kube.resources import ACCESS_GRANTS, LEASES, SECRETS, Object, Resource
from app.kube.stream import Event, Seen
from tests.kube import api_server
from tests.kube.api_server import FakeKube
from tests.kube.clients import (
    CONFIG_MAPS,
    GRANTS,
    Scripted,
    answer,
    config_file,
    config_map,
    connected,
    run,
    until,
)

NOWHERE = Resource(group="example.com", version="v1", plural="things", kind="Thing")


Work = Callable[[Kube], Awaitable[Any]]


def doing(server: api_server.Kube, directory: Path) -> Callable[..., Any]:
    """Do something with a client of a server."""

    def do(work: Work, *, seconds: float = 10.0, token: str | None = None) -> Any:
        async def main() -> Any:
            async with connected(server, directory, token=token, seconds=seconds) as client:
                return await work(client)

        return run(main())

    return do


@pytest.fixture
def server(kube: api_server.Kube) -> api_server.Kube:
    """A real API server if there is one, else ours."""
    return kube


@pytest.fixture
def do(server: api_server.Kube, tmp_path: Path) -> Callable[..., Any]:
    """Do something with a client of it."""
    return doing(server, tmp_path)


@pytest.fixture
def do_fake(fake_kube: FakeKube, tmp_path: Path) -> Callable[..., Any]:
    """Do something with a client of the one that can be made to fail."""
    return doing(fake_kube, tmp_path)


def data(found: Object) -> Object:
    kept: Object = found["data"]
    return kept


def test_an_object_is_made_read_changed_and_deleted(do: Callable[..., Any]) -> None:
    async def work(kube: Kube) -> None:
        made = await kube.create(CONFIG_MAPS, config_map("one", a="1", b="2"), "default")
        assert made["metadata"]["uid"]
        assert await kube.get(CONFIG_MAPS, "one", "default") == made

        patched = await kube.patch(CONFIG_MAPS, "one", "default", {"data": {"a": "3", "b": None}})
        assert data(patched) == {"a": "3"}

        replaced = await kube.replace(CONFIG_MAPS, patched | {"data": {"c": "4"}}, "default")
        assert data(replaced) == {"c": "4"}

        await kube.delete(CONFIG_MAPS, "one", "default")
        with pytest.raises(Missing, match='no ConfigMap "default/one"'):
            await kube.get(CONFIG_MAPS, "one", "default")

    do(work)


def test_a_name_may_be_generated(do: Callable[..., Any]) -> None:
    async def work(kube: Kube) -> None:
        body = {"metadata": {"generateName": "some-"}}
        made = await kube.create(CONFIG_MAPS, body, "default")
        assert made["metadata"]["name"].startswith("some-")
        assert len(made["metadata"]["name"]) > len("some-")

    do(work)


def test_what_is_there_or_has_changed_is_a_conflict(do: Callable[..., Any]) -> None:
    async def work(kube: Kube) -> None:
        old = await kube.create(CONFIG_MAPS, config_map("one"), "default")
        with pytest.raises(Conflict, match="create configmaps in namespace default: AlreadyExists"):
            await kube.create(CONFIG_MAPS, config_map("one"), "default")
        await kube.patch(CONFIG_MAPS, "one", "default", {"data": {"a": "1"}})
        with pytest.raises(Conflict):
            await kube.replace(CONFIG_MAPS, old, "default")
        stale = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}}
        with pytest.raises(Conflict):
            await kube.patch(CONFIG_MAPS, "one", "default", stale | {"data": {"a": "2"}})
        now = await kube.get(CONFIG_MAPS, "one", "default")
        assert data(now) == {"a": "1"}

    do(work)


def test_only_the_one_that_is_meant_is_deleted(do: Callable[..., Any]) -> None:
    async def work(kube: Kube) -> None:
        made = await kube.create(CONFIG_MAPS, config_map("one"), "default")
        uid, version = made["metadata"]["uid"], made["metadata"]["resourceVersion"]
        with pytest.raises(Conflict):
            await kube.delete(CONFIG_MAPS, "one", "default", uid="another")
        with pytest.raises(Conflict):
            await kube.delete(CONFIG_MAPS, "one", "default", uid=uid, version="1")
        await kube.delete(CONFIG_MAPS, "one", "default", uid=uid, version=version)
        with pytest.raises(Missing):
            await kube.delete(CONFIG_MAPS, "one", "default")

    do(work)


def test_a_status_is_written_apart(server: api_server.Kube, do: Callable[..., Any]) -> None:
    server.define(GRANTS)

    async def work(kube: Kube) -> None:
        body = {
            "apiVersion": "skupper.io/v2alpha1",
            "kind": "AccessGrant",
            "metadata": {"name": "grant"},
            "spec": {"code": "x"},
        }
        await kube.create(ACCESS_GRANTS, body, "default")
        change = {"spec": {"code": "y"}, "status": {"url": "https://there"}}
        found = await kube.patch(ACCESS_GRANTS, "grant", "default", change, status=True)
        assert (found["spec"], found["status"]) == ({"code": "x"}, {"url": "https://there"})
        found = await kube.patch(ACCESS_GRANTS, "grant", "default", {"status": {"url": "no"}})
        assert found["status"] == {"url": "https://there"}

    do(work)
    assert server.requests.rules() == {
        ("skupper.io", "accessgrants", "create"),
        ("skupper.io", "accessgrants", "patch"),
        ("skupper.io", "accessgrants/status", "patch"),
    }


def test_fields_are_applied_and_belong_to_whoever_applied_them(do: Callable[..., Any]) -> None:
    async def work(kube: Kube) -> None:
        mine = {"metadata": {"name": "one"}, "data": {"a": "1", "b": "2"}}
        made = await kube.apply(CONFIG_MAPS, mine, "default", manager="me")
        assert data(made) == {"a": "1", "b": "2"}
        mine["data"] = {"a": "1"}
        assert data(await kube.apply(CONFIG_MAPS, mine, "default", manager="me")) == {"a": "1"}
        other = {"metadata": {"name": "one"}, "data": {"a": "3"}}
        with pytest.raises(Conflict):
            await kube.apply(CONFIG_MAPS, other, "default", manager="you")
        taken = await kube.apply(CONFIG_MAPS, other, "default", manager="you", force=True)
        assert data(taken) == {"a": "3"}

    do(work)


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_all_objects_are_read_page_by_page(
    server: api_server.Kube, do: Callable[..., Any], page: int
) -> None:
    for namespace in ("east", "west"):
        server.namespace(namespace)
        for number in range(3):
            server.create(config_map(f"cm-{number}", namespace))

    async def work(kube: Kube) -> None:
        everywhere = await kube.list(CONFIG_MAPS, page=page)
        assert len(everywhere.items) == 6
        west = await kube.list(CONFIG_MAPS, "west", page=page)
        names = [one["metadata"]["name"] for one in west.items]
        assert names == ["cm-0", "cm-1", "cm-2"]
        assert int(west.version) > 0

    do(work)
    assert len(server.requests.of(verb="list")) == -(-6 // page) + -(-3 // page)


def test_objects_are_selected(server: api_server.Kube, do: Callable[..., Any]) -> None:
    for name, label in (("one", "a"), ("two", "b"), ("three", "c")):
        labelled = config_map(name)
        labelled["metadata"]["labels"] = {"x": label}
        server.create(labelled)

    async def names(kube: Kube, **selectors: str) -> set[str]:
        found = await kube.list(CONFIG_MAPS, "default", **selectors)  # type: ignore[arg-type]
        return {one["metadata"]["name"] for one in found.items}

    async def work(kube: Kube) -> None:
        assert await names(kube, label_selector="x in (a,b),x!=b") == {"one"}
        assert await names(kube, field_selector="metadata.name=two") == {"two"}
        assert await names(kube, label_selector="x notin (a, b, c),x") == set()

    do(work)


def test_a_list_that_takes_too_long_for_the_server_is_missing(
    fake_kube: FakeKube, do_fake: Callable[..., Any]
) -> None:
    fake_kube.faults.fail(410, verb="list", reason="Expired")

    async def work(kube: Kube) -> None:
        with pytest.raises(Missing, match="no version of configmaps"):
            await kube.list(CONFIG_MAPS)

    do_fake(work)


async def watched(
    kube: Kube, version: str, act: Callable[[], object], count: int, **more: Any
) -> list[Seen]:
    told: list[Seen] = []
    async with kube.watch(CONFIG_MAPS, "default", version=version, **more) as events:
        act()
        async for seen in events:
            told.append(seen)
            if len(told) == count:
                break
    return told


def test_a_watch_tells_what_happens_from_a_version_on(
    server: api_server.Kube, do: Callable[..., Any]
) -> None:
    server.create(config_map("before"))

    async def work(kube: Kube) -> None:
        version = (await kube.list(CONFIG_MAPS, "default")).version
        server.create(config_map("meanwhile"))

        def act() -> None:
            server.patch("ConfigMap", "before", {"data": {"a": "1"}})
            server.delete("ConfigMap", "meanwhile")

        told = await watched(kube, version, act, 3)
        assert [(one.event, one.found["metadata"]["name"]) for one in told] == [
            (Event.ADDED, "meanwhile"),
            (Event.MODIFIED, "before"),
            (Event.DELETED, "meanwhile"),
        ]
        again = await watched(kube, told[1].version, lambda: None, 1)
        assert [one.event for one in again] == [Event.DELETED]

    do(work)


def test_a_watch_that_is_left_is_closed(fake_kube: FakeKube, do_fake: Callable[..., Any]) -> None:
    async def work(kube: Kube) -> None:
        version = (await kube.list(CONFIG_MAPS, "default")).version
        await watched(kube, version, lambda: fake_kube.create(config_map("a")), 1)
        await until(lambda: fake_kube.watches == 0)

    do_fake(work)


def test_a_watch_brings_bookmarks(fake_kube: FakeKube, do_fake: Callable[..., Any]) -> None:
    fake_kube.bookmark_seconds = 0.02

    async def work(kube: Kube) -> None:
        version = (await kube.list(CONFIG_MAPS, "default")).version
        told = await watched(kube, version, lambda: fake_kube.create(config_map("a", "default")), 3)
        assert told[-1].event is Event.BOOKMARK
        assert int(told[-1].version) > int(version)

    do_fake(work)


def test_a_watch_of_something_too_old_is_missing(
    fake_kube: FakeKube, do_fake: Callable[..., Any]
) -> None:
    async def work(kube: Kube) -> None:
        fake_kube.create(config_map("a"))
        version = (await kube.list(CONFIG_MAPS, "default")).version
        fake_kube.create(config_map("b"))
        fake_kube.compact()
        with pytest.raises(Missing, match=f'no version of configmaps "{version}"'):
            await watched(kube, version, lambda: None, 1)

    do_fake(work)


def test_a_watch_that_is_refused_is_an_error(
    fake_kube: FakeKube, do_fake: Callable[..., Any]
) -> None:
    fake_kube.faults.fail(500, verb="watch")
    fake_kube.faults.fail(410, verb="watch", reason="Expired")

    async def work(kube: Kube) -> None:
        with pytest.raises(Unavailable, match="watch configmaps in namespace default"):
            await watched(kube, "1", lambda: None, 1)
        with pytest.raises(Missing):
            await watched(kube, "1", lambda: None, 1)

    do_fake(work)


def test_a_kind_that_is_not_served_is_missing(do: Callable[..., Any]) -> None:
    async def work(kube: Kube) -> None:
        with pytest.raises(Missing, match=r'no resource "things.example.com"'):
            await kube.list(NOWHERE)
        with pytest.raises(Missing, match=r'no resource "things.example.com in namespace default"'):
            await kube.create(NOWHERE, {"metadata": {"name": "x"}}, "default")

    do(work)


def test_what_is_served_can_be_asked(do: Callable[..., Any]) -> None:
    async def work(client: Kube) -> None:
        group = await client.served("coordination.k8s.io")
        assert "v1" in {one["version"] for one in group["versions"]}
        kinds = await client.served("coordination.k8s.io", "v1")
        assert "leases" in {one["name"] for one in kinds["resources"]}
        core = await client.served("", "v1")
        assert "services" in {one["name"] for one in core["resources"]}
        with pytest.raises(Missing, match=r"/apis/example\.com"):
            await client.served("example.com")
        with pytest.raises(Missing, match="v9"):
            await client.served("coordination.k8s.io", "v9")

    do(work)


def test_what_is_not_valid_is_named(do: Callable[..., Any]) -> None:
    async def work(kube: Kube) -> None:
        lease = {"metadata": {"name": "x"}, "spec": {"leaseDurationSeconds": 0}}
        with pytest.raises(Invalid) as caught:
            await kube.create(LEASES, lease, "default")
        assert caught.value.field == "spec.leaseDurationSeconds"

    do(work)


def test_who_may_not_is_told_to_look_at_the_role(
    server: api_server.Kube, do: Callable[..., Any]
) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    token = server.token("grantserver", rules)

    async def work(kube: Kube) -> None:
        await kube.list(CONFIG_MAPS)
        with pytest.raises(Unavailable, match="list secrets: the API server forbids it"):
            await kube.list(SECRETS)

    do(work, token=token)


def test_who_is_not_known_is_unavailable(do: Callable[..., Any]) -> None:
    async def work(kube: Kube) -> None:
        with pytest.raises(Unavailable, match=r"list configmaps: .* does not accept our credent"):
            await kube.list(CONFIG_MAPS)

    do(work, token="nobody's")


def test_a_token_that_expires_while_a_watch_is_open_is_exchanged_for_the_next(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    old = fake_kube.token("grantserver")

    async def main() -> None:
        async with connected(fake_kube, tmp_path, token=old) as kube:
            version = (await kube.list(CONFIG_MAPS, "default")).version
            fake_kube.expire(old)
            new = fake_kube.token("grantserver")
            fake_kube.kubeconfig(config_file(tmp_path, old), new)
            await watched(kube, version, lambda: fake_kube.create(config_map("a")), 1)

    run(main())


Ask = Callable[[Kube], Awaitable[object]]


def every_question() -> list[Any]:
    body = config_map("one")
    asked: dict[str, Ask] = {
        "get": lambda kube: kube.get(CONFIG_MAPS, "one", "default"),
        "list": lambda kube: kube.list(CONFIG_MAPS),
        "create": lambda kube: kube.create(CONFIG_MAPS, body, "default"),
        "update": lambda kube: kube.replace(CONFIG_MAPS, body, "default"),
        "patch": lambda kube: kube.patch(CONFIG_MAPS, "one", "default", {"data": {"a": "1"}}),
        "delete": lambda kube: kube.delete(CONFIG_MAPS, "one", "default"),
        "watch": lambda kube: watched(kube, "1", lambda: None, 1),
    }
    return [pytest.param(verb, ask, id=verb) for verb, ask in asked.items()]


@pytest.mark.parametrize(("verb", "ask"), every_question())
def test_a_server_that_does_not_answer_is_not_waited_for(
    fake_kube: FakeKube, do_fake: Callable[..., Any], verb: str, ask: Ask
) -> None:
    frozen = fake_kube.faults.freeze(verb=verb)

    async def work(kube: Kube) -> None:
        with pytest.raises(Unavailable, match=rf"{verb} configmaps.*: nothing came for 0.2 s"):
            await ask(kube)

    do_fake(work, seconds=0.2)
    frozen.release()


@pytest.mark.parametrize(("verb", "ask"), every_question())
def test_a_connection_that_is_reset_is_unavailable(
    fake_kube: FakeKube, do_fake: Callable[..., Any], verb: str, ask: Ask
) -> None:
    fake_kube.faults.reset(times=None, verb=verb)

    async def work(kube: Kube) -> None:
        with pytest.raises(Unavailable, match=f"{verb} configmaps.*: the API server"):
            await ask(kube)

    do_fake(work)


@pytest.mark.parametrize(("verb", "ask"), every_question())
@pytest.mark.parametrize("code", [500, 503, 504])
def test_a_server_that_is_not_well_is_unavailable(
    fake_kube: FakeKube, do_fake: Callable[..., Any], verb: str, ask: Ask, code: int
) -> None:
    fake_kube.faults.fail(code, times=None, verb=verb)

    async def work(kube: Kube) -> None:
        with pytest.raises(Unavailable, match=f"{verb} configmaps.*: .* answers {code}"):
            await ask(kube)

    do_fake(work)
    assert len(fake_kube.requests) == 1


@pytest.mark.parametrize(("verb", "ask"), every_question())
def test_a_server_with_too_much_to_do_is_asked_again_when_it_says(
    fake_kube: FakeKube, do_fake: Callable[..., Any], verb: str, ask: Ask
) -> None:
    if verb != "create":
        fake_kube.create(config_map("one"))
    fake_kube.requests.clear()
    fake_kube.faults.throttle(retry_after=0, times=3, verb=verb)
    do_fake(ask)
    assert [one.code for one in fake_kube.requests][:3] == [429] * 3
    assert len(fake_kube.requests) == 4


def test_it_is_waited_as_long_as_the_server_says(
    fake_kube: FakeKube, do_fake: Callable[..., Any]
) -> None:
    fake_kube.faults.throttle(retry_after=1)

    async def work(kube: Kube) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await kube.list(CONFIG_MAPS)
        return loop.time() - began

    assert do_fake(work) >= 1.0


@pytest.mark.parametrize(("retry_after", "requests"), [(60, 1), (4, 1), (0, 6)])
def test_it_is_not_waited_for_ever(
    fake_kube: FakeKube, do_fake: Callable[..., Any], retry_after: int, requests: int
) -> None:
    fake_kube.faults.throttle(retry_after=retry_after, times=None)

    async def work(kube: Kube) -> None:
        with pytest.raises(Unavailable, match="the API server has too much to do") as caught:
            await kube.list(CONFIG_MAPS)
        assert caught.value.retry_after == retry_after

    do_fake(work)
    assert len(fake_kube.requests) == requests


def test_a_slow_server_is_waited_for(fake_kube: FakeKube, do_fake: Callable[..., Any]) -> None:
    fake_kube.faults.slow(0.1)
    do_fake(lambda kube: kube.list(CONFIG_MAPS))


def test_a_server_that_comes_back_is_found(
    fake_kube: FakeKube, do_fake: Callable[..., Any]
) -> None:
    async def work(kube: Kube) -> None:
        await kube.list(CONFIG_MAPS)
        fake_kube.stop()
        with pytest.raises(Unavailable, match="refuses the connection"):
            await kube.list(CONFIG_MAPS)
        fake_kube.start()
        await kube.list(CONFIG_MAPS)

    do_fake(work)


@pytest.mark.parametrize("body", ["<html>", "[]", "", "null", b"\xff"])
def test_an_answer_that_is_not_json_is_unavailable(body: bytes | str) -> None:
    async def main() -> None:
        async with Scripted(answer("200 OK", body)) as server, server.client() as kube:
            with pytest.raises(Unavailable, match=r"get configmaps.* does not answer in JSON"):
                await kube.get(CONFIG_MAPS, "one", "default")

    run(main())


ODD = [
    '{"status": "ok"}',
    '{"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}',
    '{"kind": "ConfigMap", "metadata": null}',
    '{"kind": "ConfigMap", "metadata": {"name": 7}}',
    '{"kind": "Secret", "metadata": {"name": "one"}}',
]


@pytest.mark.parametrize("body", [*ODD, '{"kind": "ConfigMap", "metadata": {"name": "two"}}'])
@pytest.mark.parametrize("verb", ["get", "replace", "patch", "apply"])
def test_an_answer_that_is_not_the_object_is_unavailable(verb: str, body: str) -> None:
    asks: dict[str, Ask] = {
        "get": lambda kube: kube.get(CONFIG_MAPS, "one", "default"),
        "replace": lambda kube: kube.replace(CONFIG_MAPS, config_map("one"), "default"),
        "patch": lambda kube: kube.patch(CONFIG_MAPS, "one", "default", {}),
        "apply": lambda kube: kube.apply(CONFIG_MAPS, config_map("one"), "default", manager="us"),
    }

    async def main() -> None:
        async with Scripted(answer("200 OK", body)) as server, server.client() as kube:
            with pytest.raises(Unavailable, match=r"configmaps.* answers something else"):
                await asks[verb](kube)

    run(main())


@pytest.mark.parametrize("body", ODD)
def test_what_was_not_made_does_not_pass_for_made(body: str) -> None:
    async def main() -> None:
        async with Scripted(answer("201 Created", body)) as server, server.client() as kube:
            with pytest.raises(Unavailable, match=r"create configmaps.* answers something else"):
                await kube.create(CONFIG_MAPS, {"metadata": {"generateName": "o"}}, "default")

    run(main())


@pytest.mark.parametrize("body", ['{"status": "ok"}', '{"kind": "Secret"}'])
def test_what_was_not_deleted_does_not_pass_for_deleted(body: str) -> None:
    async def main() -> None:
        async with Scripted(answer("200 OK", body)) as server, server.client() as kube:
            with pytest.raises(Unavailable, match=r"delete configmaps.* answers something else"):
                await kube.delete(CONFIG_MAPS, "one", "default")

    run(main())


@pytest.mark.parametrize("version", ["", "v1"])
def test_what_says_nothing_of_an_api_is_not_taken_for_its_absence(version: str) -> None:
    async def main() -> None:
        odd = answer("200 OK", '{"status": "ok"}')
        async with Scripted(odd) as server, server.client() as kube:
            with pytest.raises(Unavailable, match=r"get /apis/.* answers something else"):
                await kube.served("route.openshift.io", version)

    run(main())


def test_who_may_not_write_any_more_reads_and_does_not_write(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    fake_kube.create(config_map("one"))
    may = [True]

    async def main() -> None:
        async with connected(fake_kube, tmp_path) as open_kube:
            kube = open_kube.writing_while(lambda: may[0])
            await kube.patch(CONFIG_MAPS, "one", "default", {"data": {"a": "1"}})
            may[0] = False
            fake_kube.requests.clear()
            for ask in (
                kube.create(CONFIG_MAPS, config_map("two"), "default"),
                kube.replace(CONFIG_MAPS, config_map("one"), "default"),
                kube.patch(CONFIG_MAPS, "one", "default", {"data": {"a": "2"}}),
                kube.apply(CONFIG_MAPS, config_map("one"), "default", manager="us"),
                kube.delete(CONFIG_MAPS, "one", "default"),
            ):
                with pytest.raises(Unavailable, match="it is not up to us any more"):
                    await ask
            assert data(await kube.get(CONFIG_MAPS, "one", "default")) == {"a": "1"}

    run(main())
    assert fake_kube.requests.writes() == []


def test_a_write_that_was_turned_away_is_not_made_when_it_is_not_up_to_us_any_more(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    fake_kube.faults.throttle(retry_after=0, times=1)

    async def main() -> None:
        async with connected(fake_kube, tmp_path) as kube:
            with pytest.raises(Unavailable, match="it is not up to us any more"):
                await kube.writing_while(lambda: not fake_kube.requests).create(
                    CONFIG_MAPS, config_map("one"), "default"
                )

    run(main())
    assert len(fake_kube.requests) == 1


def test_a_question_takes_ten_seconds_at_the_most_by_default() -> None:
    async def main() -> None:
        async with Scripted([None]) as server:
            kube = Kube(await Connection.open(server.source()))
            loop = asyncio.get_running_loop()
            asking = asyncio.ensure_future(kube.get(CONFIG_MAPS, "one", "default"))
            await until(lambda: server.asked)
            handles: Any = loop
            # Nobody waits for so long: what the loop has planned is looked at.
            assert 0 < min(one.when() for one in handles._scheduled) - loop.time() <= 10.0
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await kube.close()

    run(main())


def test_a_list_without_items_is_empty() -> None:
    async def main() -> None:
        nothing = '{"items": null, "metadata": {"resourceVersion": "7"}}'
        async with Scripted(answer("200 OK", nothing)) as server, server.client() as kube:
            assert (await kube.list(CONFIG_MAPS)).items == []

    run(main())


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        '{"status": "ok"}',
        '{"items": []}',
        '{"items": [], "metadata": []}',
        '{"items": [], "metadata": {"resourceVersion": ""}}',
        '{"items": [], "metadata": {"resourceVersion": 7}}',
        '{"items": {}, "metadata": {"resourceVersion": "7"}}',
        '{"metadata": {"resourceVersion": "7"}}',
    ],
)
def test_what_is_no_list_does_not_pass_for_an_empty_one(body: str) -> None:
    async def main() -> None:
        async with Scripted(answer("200 OK", body)) as server, server.client() as kube:
            with pytest.raises(Unavailable):
                await kube.list(CONFIG_MAPS)

    run(main())


@pytest.mark.parametrize(
    ("status", "body"),
    [("502 Bad Gateway", "<html>"), ("500 Oops", ""), ("418 Teapot", "[]"), ("200 OK", "{")],
)
def test_what_stands_between_is_no_api_server(status: str, body: str) -> None:
    async def main() -> None:
        async with Scripted(answer(status, body)) as server, server.client() as kube:
            with pytest.raises(Unavailable):
                await kube.get(CONFIG_MAPS, "one", "default")

    run(main())


def test_an_answer_that_is_cut_off_is_unavailable() -> None:
    async def main() -> None:
        cut = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"]
        async with Scripted(list(cut)) as server, server.client() as kube:
            with pytest.raises(Unavailable, match="broke its answer off before the end"):
                await kube.get(CONFIG_MAPS, "one", "default")

    run(main())


def test_an_answer_that_does_not_end_is_not_waited_for() -> None:
    async def main() -> None:
        begun = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", None]
        async with Scripted(begun) as server, server.client(seconds=0.1) as kube:
            with pytest.raises(Unavailable, match=r"nothing came for 0\.1 s"):
                await kube.get(CONFIG_MAPS, "one", "default")

    run(main())


@pytest.mark.parametrize("code", [400, 409, 422, 500])
def test_nothing_that_was_sent_is_in_an_error(
    fake_kube: FakeKube, do_fake: Callable[..., Any], code: int
) -> None:
    secret = "s3cret-c0de"
    fake_kube.faults.fail(code, message=f"Invalid value: {secret}", reason="Invalid")

    async def work(kube: Kube) -> None:
        with pytest.raises(GrantServerError) as caught:
            await kube.create(CONFIG_MAPS, config_map("one", code=secret), "default")
        assert secret not in "".join(traceback.format_exception(caught.value))
        assert secret not in repr(caught.value)

    do_fake(work)
