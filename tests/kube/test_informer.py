import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.kube import informer as app_informer
from app.kube.backoff import Backoff
from app.kube.client import Kube, Listing
from app.kube.informer import Change, Informer, Pace, What
from app.kube.resources import Key, Object
from tests.kube import api_server
from tests.kube.api_server import FakeKube
from tests.kube.clients import (
    CONFIG_MAPS,
    LOG,
    QUICK,
    Scripted,
    answer,
    broken_off,
    config_file,
    config_map,
    connected,
    no_chance,
    run,
    running,
    stream,
    until,
)

PACE = Pace(backoff=QUICK)
ONE = Key("default", "one")
TWO = Key("default", "two")


class Watched:
    """An informer, and all that it has told."""

    def __init__(self, informer: Informer) -> None:
        self.informer = informer
        self.told: list[Change] = []
        informer.on_change(self.told.append)

    @property
    def words(self) -> list[tuple[str, str]]:
        return [(one.what.value, str(one.key)) for one in self.told]

    def has(self, key: Key, **data: str) -> Callable[[], bool]:
        def check() -> bool:
            found = self.informer.get(key)
            return found is not None and found.get("data", {}) == data

        return check


@pytest.fixture
def server(kube: api_server.Kube) -> api_server.Kube:
    """A real API server if there is one, else ours."""
    return kube


@asynccontextmanager
async def watching(
    server: api_server.Kube,
    directory: Path,
    *,
    pace: Pace = PACE,
    seconds: float = 10.0,
    **more: Any,
) -> AsyncIterator[Watched]:
    more.setdefault("namespaces", ["default"])
    async with connected(server, directory, seconds=seconds) as kube:
        watched = Watched(
            Informer(kube, CONFIG_MAPS, pace=pace, random_bytes=no_chance, log=LOG, **more)
        )
        async with running(watched.informer.run()) as task:
            yield watched
            assert not task.done()


def test_what_there_is_is_known_and_then_what_happens(
    server: api_server.Kube, tmp_path: Path
) -> None:
    server.create(config_map("one", a="1"))

    async def main() -> None:
        async with watching(server, tmp_path) as watched:
            informer = watched.informer
            await informer.wait_synced()
            assert informer.synced
            assert (list(informer), len(informer)) == ([ONE], 1)
            assert watched.has(ONE, a="1")()
            server.create(config_map("two"))
            await until(watched.has(TWO))
            server.patch("ConfigMap", "one", {"data": {"a": "2"}})
            await until(watched.has(ONE, a="2"))
            server.delete("ConfigMap", "one")
            await until(lambda: informer.get(ONE) is None)
            assert watched.words == [
                ("added", "default/one"),
                ("added", "default/two"),
                ("changed", "default/one"),
                ("deleted", "default/one"),
            ]
            before, after = watched.told[2].before, watched.told[2].after
            assert before is not None
            assert after is not None
            assert (before["data"], after["data"]) == ({"a": "1"}, {"a": "2"})
            assert watched.told[3].before == after
            assert watched.told[3].after is None

    run(main())
    assert len(server.requests.of(verb="list")) == 1


def test_nothing_is_synced_before_it_has_been_listed(fake_kube: FakeKube, tmp_path: Path) -> None:
    frozen = fake_kube.faults.freeze(verb="list")

    async def main() -> None:
        async with watching(fake_kube, tmp_path) as watched:
            await asyncio.to_thread(frozen.wait)
            assert not watched.informer.synced
            frozen.release()
            await watched.informer.wait_synced()

    run(main())


@pytest.mark.parametrize("page", [1, 3, 100])
def test_a_list_may_have_many_pages(server: api_server.Kube, tmp_path: Path, page: int) -> None:
    for number in range(7):
        server.create(config_map(f"cm-{number}"))

    async def main() -> None:
        async with watching(server, tmp_path, pace=replace(PACE, page=page)) as watched:
            await watched.informer.wait_synced()
            assert len(watched.informer) == 7

    run(main())
    assert len(server.requests.of(verb="list")) == -(-7 // page)


class _Held(dict[str, Any]):
    """An object that tells whether somebody holds it."""


def test_of_a_list_one_page_is_held_at_a_time(fake_kube: FakeKube, tmp_path: Path) -> None:
    """Objects of others may be large, and many."""
    for number in range(6):
        fake_kube.create(config_map(f"cm-{number}"))
    page = Kube.page
    held: list[weakref.ref[_Held]] = []
    left: list[int] = []

    async def counting(self: Kube, *args: Any, **more: Any) -> Listing:
        left.append(sum(one() is not None for one in held))
        found = await page(self, *args, **more)
        items = [_Held(one) for one in found.items]
        held.extend(weakref.ref(one) for one in items)
        return replace(found, items=items)

    def transform(found: Object) -> Object:
        return {"metadata": {"name": found["metadata"]["name"]}}

    async def main() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Kube, "page", counting)
            pace = replace(PACE, page=2)
            async with watching(fake_kube, tmp_path, pace=pace, transform=transform) as watched:
                await watched.informer.wait_synced()
                assert len(watched.informer) == 6

    run(main())
    assert left == [0, 0, 0]


def test_objects_come_without_their_content_if_only_their_metadata_is_wanted(
    server: api_server.Kube, tmp_path: Path
) -> None:
    server.create(config_map("one", a="1"))
    seen: list[Object] = []

    def transform(found: Object) -> Object:
        seen.append(found)
        return {}

    async def main() -> None:
        more: dict[str, Any] = {"metadata_only": True, "transform": transform}
        async with watching(server, tmp_path, **more) as watched:
            await watched.informer.wait_synced()
            server.patch("ConfigMap", "one", {"data": {"a": "2"}})
            await until(lambda: len(seen) == 2)
            server.delete("ConfigMap", "one")
            await until(lambda: not len(watched.informer))

    run(main())
    assert [one["metadata"]["name"] for one in seen] == ["one", "one"]
    assert all("data" not in one for one in seen)


def test_a_server_that_gives_only_whole_objects_will_do() -> None:
    listed = answer("200 OK", '{"items": [], "metadata": {"resourceVersion": "7"}}')
    server = scripted(listed, stream(ADDED, None), requests=2, metadata_only=True)
    for asked, shape in zip(
        server.asked, ("PartialObjectMetadataList", "PartialObjectMetadata"), strict=True
    ):
        head = asked.decode().lower()
        assert (
            f"accept: application/json;as={shape.lower()};g=meta.k8s.io;v=v1,application/json\r\n"
            in head
        )


@pytest.mark.parametrize(
    ("namespaces", "seen"),
    [
        (None, {"east", "west", "north"}),
        (["west"], {"west"}),
        (["west", "east", "west"], {"east", "west"}),
        ([], set()),
    ],
)
def test_one_namespace_several_or_all_are_watched(
    server: api_server.Kube, tmp_path: Path, namespaces: Sequence[str] | None, seen: set[str]
) -> None:
    for namespace in ("east", "west", "north"):
        server.namespace(namespace)
        server.create(config_map("one", namespace))

    async def main() -> None:
        async with connected(server, tmp_path) as kube:
            informer = Informer(
                *(kube, CONFIG_MAPS),
                namespaces=namespaces,
                pace=PACE,
                random_bytes=no_chance,
                log=LOG,
            )
            async with running(informer.run()):
                await informer.wait_synced()
                assert {key.namespace for key in informer} == seen
                for namespace in ("east", "west", "north"):
                    server.create(config_map("two", namespace))
                    server.delete("ConfigMap", "one", namespace)
                await until(lambda: set(informer) == {Key(one, "two") for one in seen})

    run(main())


def test_a_list_of_one_namespace_deletes_nothing_in_another(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    for namespace in ("east", "west"):
        fake_kube.namespace(namespace)
        fake_kube.create(config_map("one", namespace))

    async def main() -> None:
        async with watching(fake_kube, tmp_path, namespaces=["east", "west"]) as watched:
            await watched.informer.wait_synced()
            fake_kube.compact()
            await until(lambda: len(fake_kube.requests.of(verb="list")) >= 4)
            fake_kube.create(config_map("two", "west"))
            await until(lambda: len(watched.informer) == 3)
            assert sorted(watched.words) == [
                ("added", "east/one"),
                ("added", "west/one"),
                ("added", "west/two"),
            ]

    run(main())


def test_only_what_is_selected_is_known(server: api_server.Kube, tmp_path: Path) -> None:
    for name, label in (("one", "yes"), ("two", "no")):
        labelled = config_map(name)
        labelled["metadata"]["labels"] = {"wanted": label}
        server.create(labelled)

    async def main() -> None:
        async with watching(server, tmp_path, label_selector="wanted=yes") as watched:
            await watched.informer.wait_synced()
            assert list(watched.informer) == [ONE]
            yes = {"metadata": {"labels": {"wanted": "yes"}}}
            server.patch("ConfigMap", "two", yes)
            await until(lambda: watched.informer.get(TWO) is not None)
            server.patch("ConfigMap", "one", {"metadata": {"labels": {"wanted": "no"}}})
            await until(lambda: watched.informer.get(ONE) is None)

    run(main())


def test_a_single_object_may_be_watched(server: api_server.Kube, tmp_path: Path) -> None:
    server.create(config_map("one"))
    server.create(config_map("two"))

    async def main() -> None:
        async with watching(server, tmp_path, field_selector="metadata.name=two") as watched:
            await watched.informer.wait_synced()
            assert list(watched.informer) == [TWO]

    run(main())


def test_what_is_not_needed_is_not_kept(server: api_server.Kube, tmp_path: Path) -> None:
    server.create(config_map("one", secret="s3cret", public="1"))
    server.create(config_map("two", secret="s3cret", hidden="1"))

    def transform(found: Object) -> Object | None:
        data = found["data"]
        if "hidden" in data:
            return None
        return {"data": {"public": data["public"]}}

    async def main() -> None:
        async with watching(server, tmp_path, transform=transform) as watched:
            await watched.informer.wait_synced()
            assert watched.informer.get(ONE) == {"data": {"public": "1"}}
            assert list(watched.informer) == [ONE]
            assert "s3cret" not in repr(vars(watched.informer)) + repr(watched.told)
            # From hidden to known, and back.
            server.patch("ConfigMap", "two", {"data": {"hidden": None, "public": "2"}})
            await until(watched.has(TWO, public="2"))
            server.patch("ConfigMap", "two", {"data": {"hidden": "1"}})
            await until(lambda: watched.informer.get(TWO) is None)
            # What was not known is not told to be deleted.
            server.delete("ConfigMap", "two")
            server.create(config_map("three", public="3"))
            await until(watched.has(Key("default", "three"), public="3"))
            assert watched.words == [
                ("added", "default/one"),
                ("added", "default/two"),
                ("deleted", "default/two"),
                ("added", "default/three"),
            ]

    run(main())


def test_an_object_that_cannot_be_read_keeps_nobody_from_the_others(
    server: api_server.Kube, tmp_path: Path
) -> None:
    server.create(config_map("one", a="1"))
    server.create(config_map("two", a="bad"))

    def transform(found: Object) -> Object:
        if found["data"]["a"] == "bad":
            raise ValueError
        return found

    async def main() -> None:
        async with watching(server, tmp_path, transform=transform) as watched:
            await watched.informer.wait_synced()
            assert list(watched.informer) == [ONE]
            # What was known stays known: it is not deleted.
            server.patch("ConfigMap", "one", {"data": {"a": "bad"}})
            server.patch("ConfigMap", "two", {"data": {"a": "2"}})
            await until(watched.has(TWO, a="2"))
            assert watched.has(ONE, a="1")()
            assert What.DELETED not in {one.what for one in watched.told}

    run(main())


def test_who_fails_to_take_a_change_keeps_nobody_from_it(
    server: api_server.Kube, tmp_path: Path
) -> None:
    server.create(config_map("one"))

    def fail(_: Change) -> None:
        raise ValueError

    async def main() -> None:
        async with connected(server, tmp_path) as kube:
            informer = Informer(kube, CONFIG_MAPS, pace=PACE, random_bytes=no_chance, log=LOG)
            told: list[Change] = []
            informer.on_change(fail)
            informer.on_change(told.append)
            async with running(informer.run()):
                await until(lambda: len(told) == 1)

    run(main())


def test_what_happens_while_the_watch_is_down_is_told_by_the_next(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    fake_kube.create(config_map("one"))

    async def main() -> None:
        async with watching(fake_kube, tmp_path) as watched:
            await until(lambda: fake_kube.watches == 1)
            frozen = fake_kube.faults.freeze(times=1, verb="watch")
            assert fake_kube.drop_watches() == 1
            await asyncio.to_thread(frozen.wait)
            fake_kube.delete("ConfigMap", "one")
            fake_kube.create(config_map("two"))
            frozen.release()
            await until(lambda: list(watched.informer) == [TWO])

    run(main())
    assert len(fake_kube.requests.of(verb="list")) == 1  # it went on from where it was


def test_what_was_deleted_while_nobody_watched_comes_out_of_the_list(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    for name in ("one", "two", "three"):
        fake_kube.create(config_map(name, a="1"))

    async def main() -> None:
        async with watching(fake_kube, tmp_path) as watched:
            await until(lambda: fake_kube.watches == 1)
            fake_kube.stop()
            fake_kube.delete("ConfigMap", "one")
            fake_kube.patch("ConfigMap", "two", {"data": {"a": "2"}})
            fake_kube.create(config_map("four"))
            fake_kube.compact()
            fake_kube.start()
            await until(lambda: watched.informer.get(ONE) is None)
            await until(lambda: len(watched.told) == 6)
            assert set(watched.words[3:]) == {
                ("deleted", "default/one"),
                ("changed", "default/two"),
                ("added", "default/four"),
            }

    run(main())


def test_what_was_made_anew_while_nobody_watched_is_another(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    fake_kube.create(config_map("one", a="1"))

    async def main() -> None:
        async with watching(fake_kube, tmp_path) as watched:
            await until(lambda: fake_kube.watches == 1)
            fake_kube.stop()
            fake_kube.delete("ConfigMap", "one")
            fake_kube.create(config_map("one", a="2"))
            fake_kube.compact()
            fake_kube.start()
            await until(watched.has(ONE, a="2"))
            assert watched.words == [
                ("added", "default/one"),
                ("deleted", "default/one"),
                ("added", "default/one"),
            ]

    run(main())


def test_a_version_that_is_too_old_is_listed_anew_at_once(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    never = replace(PACE, backoff=replace(QUICK, base_seconds=1e9, most_seconds=1e9))

    async def main() -> None:
        async with watching(fake_kube, tmp_path, pace=never) as watched:
            await until(lambda: fake_kube.watches == 1)
            fake_kube.compact()
            fake_kube.create(config_map("one"))
            await until(watched.has(ONE))

    run(main())
    assert len(fake_kube.requests.of(verb="list")) == 2


def test_a_server_that_has_forgotten_everything_is_not_asked_without_end(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    fake_kube.faults.fail(410, times=None, verb="watch", reason="Expired")
    slow = replace(PACE, backoff=replace(QUICK, base_seconds=1e9, most_seconds=1e9))

    async def main() -> None:
        async with watching(fake_kube, tmp_path, pace=slow):
            await until(lambda: len(fake_kube.requests.of(verb="watch")) == 2)
            with pytest.raises(TimeoutError):
                await until(lambda: len(fake_kube.requests.of(verb="watch")) > 2, patience=0.2)

    run(main())


def test_a_list_that_expires_between_two_pages_is_begun_anew(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        fake_kube.create(config_map(name))
    fake_kube.faults.fail(410, times=2, verb="list", reason="Expired")

    async def main() -> None:
        async with watching(fake_kube, tmp_path, pace=replace(PACE, page=1)) as watched:
            await watched.informer.wait_synced()
            assert len(watched.informer) == 2

    run(main())


def restart(kube: FakeKube) -> None:
    kube.stop()
    kube.start()


FAULTS: dict[str, Callable[[FakeKube], object]] = {
    "reset": lambda kube: kube.faults.reset(times=2),
    "500": lambda kube: kube.faults.fail(500, times=2),
    "503": lambda kube: kube.faults.fail(503, times=2),
    "429": lambda kube: kube.faults.throttle(retry_after=0, times=7),
    "403": lambda kube: kube.faults.fail(403, times=2),
    "404": lambda kube: kube.faults.fail(404, times=2),
    "slow": lambda kube: kube.faults.slow(0.05, times=4),
    "frozen": lambda kube: kube.faults.freeze(times=2),
    "token": lambda kube: kube.faults.fail(401, times=1),
    "away": restart,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_gets_over_faults_at_the_start(fake_kube: FakeKube, tmp_path: Path, fault: str) -> None:
    fake_kube.create(config_map("one"))
    FAULTS[fault](fake_kube)

    async def main() -> None:
        async with watching(fake_kube, tmp_path, seconds=0.3) as watched:
            await until(watched.has(ONE))
            fake_kube.create(config_map("two"))
            await until(watched.has(TWO))

    run(main())


@pytest.mark.parametrize("fault", FAULTS)
def test_it_gets_over_faults_later(fake_kube: FakeKube, tmp_path: Path, fault: str) -> None:
    fake_kube.create(config_map("one"))

    async def main() -> None:
        async with watching(fake_kube, tmp_path, seconds=0.3) as watched:
            await until(lambda: fake_kube.watches == 1)
            FAULTS[fault](fake_kube)
            if fault != "away":
                fake_kube.drop_watches()
            fake_kube.create(config_map("two"))
            fake_kube.delete("ConfigMap", "one")
            await until(lambda: list(watched.informer) == [TWO])
            assert watched.informer.synced
            assert sorted(watched.words) == [
                ("added", "default/one"),
                ("added", "default/two"),
                ("deleted", "default/one"),
            ]

    run(main())


def test_a_watch_that_is_half_open_is_left(fake_kube: FakeKube, tmp_path: Path) -> None:
    async def main() -> None:
        pace = replace(PACE, idle_seconds=0.1)
        async with watching(fake_kube, tmp_path, pace=pace) as watched:
            await until(lambda: fake_kube.watches == 1)
            assert fake_kube.silence_watches() == 1
            fake_kube.create(config_map("one"))
            await until(watched.has(ONE))

    run(main())
    assert len(fake_kube.requests.of(verb="list")) == 1


def test_a_watch_that_is_half_open_is_left_in_time_if_nobody_says_when() -> None:
    # A healthy one brings a bookmark once a minute.
    assert 60 < Pace().idle_seconds <= 90


def test_what_a_write_of_ours_has_made_is_known_before_the_watch_tells(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    fake_kube.create(config_map("one", a="1"))

    def write(informer: Informer, value: str) -> None:
        known = informer.get(ONE)
        assert known is not None
        version = known["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version}, "data": {"a": value}}
        informer.put(fake_kube.patch("ConfigMap", "one", patch), instead_of=version)

    async def main() -> None:
        async with watching(fake_kube, tmp_path) as watched:
            await until(lambda: fake_kube.watches == 1)
            assert fake_kube.silence_watches() == 1
            write(watched.informer, "2")
            write(watched.informer, "3")
            assert watched.has(ONE, a="3")()
            fake_kube.create(config_map("two"))
            # The next watch tells all of it once more.
            fake_kube.drop_watches()
            await until(watched.has(TWO))
            assert watched.has(ONE, a="3")()
            told = [one.after and one.after.get("data") for one in watched.told]
            assert told == [{"a": "1"}, {"a": "2"}, {"a": "3"}, {}]
            # What others do afterwards is news.
            fake_kube.patch("ConfigMap", "one", {"data": {"a": "4"}})
            await until(watched.has(ONE, a="4"))
            assert len(watched.told) == 5

    run(main())


def test_a_list_that_began_before_a_write_of_ours_does_not_undo_it(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    before = fake_kube.create(config_map("one", a="1"))

    async def main() -> None:
        async with watching(fake_kube, tmp_path) as watched:
            await until(lambda: fake_kube.watches == 1)
            frozen = fake_kube.faults.freeze(times=1, verb="list", after=True)
            fake_kube.compact()
            fake_kube.create(config_map("two"))
            await asyncio.to_thread(frozen.wait)
            made = fake_kube.patch("ConfigMap", "one", {"data": {"a": "2"}})
            watched.informer.put(made, instead_of=before["metadata"]["resourceVersion"])
            frozen.release()
            await until(watched.has(TWO))
            fake_kube.create(config_map("three"))
            await until(watched.has(Key("default", "three")))
            assert watched.has(ONE, a="2")()
            assert [str(one.key) for one in watched.told].count("default/one") == 2

    run(main())


def test_a_write_of_ours_is_no_news_when_the_watch_has_told_more(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    first = fake_kube.create(config_map("one", a="1"))
    other = fake_kube.create(config_map("two"))

    async def main() -> None:
        async with watching(fake_kube, tmp_path) as watched:
            await watched.informer.wait_synced()
            mine = fake_kube.patch("ConfigMap", "one", {"data": {"a": "2"}})
            fake_kube.patch("ConfigMap", "one", {"data": {"a": "3"}})
            await until(watched.has(ONE, a="3"))
            told = len(watched.told)
            watched.informer.put(mine, instead_of=first["metadata"]["resourceVersion"])
            assert watched.has(ONE, a="3")()
            # One that has gone does not come back, nor for another of its name.
            version = other["metadata"]["resourceVersion"]
            fake_kube.delete("ConfigMap", "two")
            await until(lambda: watched.informer.get(TWO) is None)
            watched.informer.put(other, instead_of=version)
            assert watched.informer.get(TWO) is None
            assert len(watched.told) == told + 1

    run(main())


def test_an_api_server_that_is_away_at_the_start_is_waited_for(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    fake_kube.create(config_map("one"))
    fake_kube.stop()

    async def main() -> None:
        async with watching(fake_kube, tmp_path) as watched:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(watched.informer.wait_synced(), 0.05)
            fake_kube.start()
            await watched.informer.wait_synced()
            assert watched.has(ONE)()

    run(main())


def test_what_is_known_stays_known_while_the_api_server_is_away(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    fake_kube.create(config_map("one"))

    async def main() -> None:
        async with watching(fake_kube, tmp_path) as watched:
            await watched.informer.wait_synced()
            fake_kube.stop()
            with pytest.raises(TimeoutError):
                await until(lambda: watched.told[1:], patience=0.1)
            assert watched.has(ONE)()
            assert watched.informer.synced

    run(main())


def test_a_token_that_expires_is_exchanged(fake_kube: FakeKube, tmp_path: Path) -> None:
    old = fake_kube.token("grantserver")

    async def main() -> None:
        async with connected(fake_kube, tmp_path, token=old) as kube:
            watched = Watched(
                Informer(kube, CONFIG_MAPS, pace=PACE, random_bytes=no_chance, log=LOG)
            )
            async with running(watched.informer.run()):
                await until(lambda: fake_kube.watches == 1)
                fake_kube.expire(old)
                fake_kube.drop_watches()
                await until(lambda: any(one.code == 401 for one in fake_kube.requests))
                new = fake_kube.token("grantserver")
                fake_kube.kubeconfig(config_file(tmp_path, old), new)
                fake_kube.create(config_map("one"))
                await until(watched.has(ONE))

    run(main())


def test_a_watch_goes_on_from_the_last_bookmark(fake_kube: FakeKube, tmp_path: Path) -> None:
    fake_kube.bookmark_seconds = 0.01
    fake_kube.namespace("elsewhere")

    async def main() -> None:
        async with watching(fake_kube, tmp_path) as watched:
            await until(lambda: fake_kube.watches == 1)
            fake_kube.create(config_map("other", "elsewhere"))
            there = int(
                fake_kube.get("ConfigMap", "other", "elsewhere")["metadata"]["resourceVersion"]
            )
            scope = watched.informer._scopes[0]
            await until(lambda: int(scope.version or 0) >= there)

    run(main())


def test_a_watch_that_ends_in_good_order_is_begun_anew(
    server: api_server.Kube, tmp_path: Path
) -> None:
    async def main() -> None:
        pace = replace(PACE, watch_seconds=1)
        async with watching(server, tmp_path, pace=pace) as watched:
            await until(lambda: len(server.requests.of(verb="watch")) == 2)
            server.create(config_map("one"))
            await until(watched.has(ONE))

    run(main())
    assert len(server.requests.of(verb="list")) == 1


LIST = answer("200 OK", '{"items": [], "metadata": {"resourceVersion": "7"}}')
ADDED = (
    b'{"type": "ADDED", "object": {"metadata": {"namespace": "default", "name": "one", '
    b'"uid": "u", "resourceVersion": "8"}}}\n'
)
BROKEN = b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": "9"}}}\n'


NEVER = Backoff(base_seconds=1e9, most_seconds=1e9)


def scripted(
    *answers: list[bytes | None],
    requests: int,
    backoff: Backoff = QUICK,
    no_more: bool = False,
    metadata_only: bool = False,
) -> Scripted:
    """What an informer asks a server that answers so, until it has asked so often."""
    server = Scripted(*answers)

    async def main() -> None:
        async with server, server.client() as kube:
            informer = Informer(
                *(kube, CONFIG_MAPS),
                pace=replace(PACE, backoff=backoff),
                metadata_only=metadata_only,
                random_bytes=no_chance,
                log=LOG,
            )
            async with running(informer.run()):
                await until(lambda: len(server.asked) >= requests)
                if no_more:
                    with pytest.raises(TimeoutError):
                        await until(lambda: len(server.asked) > requests, patience=0.1)

    run(main())
    return server


def test_watches_that_end_at_once_are_not_begun_without_end() -> None:
    server = scripted(LIST, stream(), requests=2, backoff=NEVER, no_more=True)
    assert b"watch=true" in server.asked[1]


def test_a_watch_that_has_told_something_is_begun_anew_at_once() -> None:
    told = stream(ADDED)
    server = scripted(*(LIST, told, told, told, stream()), requests=5, backoff=NEVER, no_more=True)
    assert [b"resourceVersion=8" in one for one in server.asked] == [False, False, True, True, True]


def test_a_watch_that_breaks_after_it_has_told_something_is_begun_anew_soon() -> None:
    broken = broken_off(stream(ADDED))
    server = scripted(LIST, broken, broken, broken, stream(None), requests=5)
    assert all(b"watch=true" in one for one in server.asked[1:])


def test_a_watch_that_breaks_after_a_quiet_while_is_no_failure_in_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Something between us and the API server may end what is quiet, again and again."""
    monkeypatch.setattr(app_informer, "_SHORT_SECONDS", 0.0)
    doubling = Backoff(base_seconds=0.001, most_seconds=1e9)
    scripted(LIST, broken_off(stream()), requests=30, backoff=doubling)


def test_a_fault_of_ours_is_mended_by_a_new_list() -> None:
    server = scripted(LIST, stream(BROKEN), LIST, stream(None), requests=4)
    assert [b"watch=true" in one for one in server.asked] == [False, True, False, True]


def test_news_are_told_once_there_were_some_of_every_namespace(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    for namespace in ("east", "west"):
        fake_kube.namespace(namespace)
    news: list[None] = []

    async def main() -> None:
        async with watching(fake_kube, tmp_path, namespaces=["east", "west"]) as watched:
            watched.informer.on_news(lambda: news.append(None))
            await watched.informer.wait_synced()
            assert len(news) == 1
            fake_kube.create(config_map("one", "east"))
            await until(lambda: watched.informer.get(Key("east", "one")) is not None)
            assert len(news) == 1  # one that is silent is not covered up by the other
            fake_kube.create(config_map("one", "west"))
            await until(lambda: len(news) == 2)

    run(main())
