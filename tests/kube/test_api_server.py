"""That the fake API server fails as it was ordered to, and says what it was asked."""

import shutil
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.kube.api_server import FakeKube, KubeError, Object
from tests.kube.asking import Answer, Asking

GRANTS = "/apis/skupper.io/v2alpha1/namespaces/default/accessgrants"
GRANT = f"{GRANTS}/grant-west"
NOTES = "/api/v1/namespaces/default/configmaps/notes"


@pytest.fixture
def kube(fake_kube: FakeKube) -> FakeKube:
    """With a grant and a config map in it."""
    fake_kube.install_skupper()
    fake_kube.create(a_grant())
    notes = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes"}}
    fake_kube.create({**notes, "data": {"text": "one"}})
    return fake_kube


@pytest.fixture
def asking(kube: FakeKube) -> Asking:
    """A client of a user named `grantserver`."""
    return Asking(kube, kube.token("grantserver"))


def a_grant(name: str = "grant-west") -> Object:
    return {
        "apiVersion": "skupper.io/v2alpha1",
        "kind": "AccessGrant",
        "metadata": {"name": name},
        "spec": {"redemptionsAllowed": 1},
    }


def write(asking: Asking, code: str = "x") -> Answer:
    return asking.merge(GRANT, {"spec": {"code": code}})


def test_a_connection_is_reset_before_or_after_it_is_done(kube: FakeKube, asking: Asking) -> None:
    kube.faults.reset(verb="patch")
    with pytest.raises(ConnectionResetError):
        write(asking)
    assert "code" not in kube.get("AccessGrant", "grant-west")["spec"]
    kube.faults.reset(after=True, verb="patch")
    with pytest.raises(ConnectionResetError):
        write(asking)
    assert kube.get("AccessGrant", "grant-west")["spec"]["code"] == "x"
    assert write(asking).code == 200


def test_what_was_frozen_goes_on_when_it_is_released(kube: FakeKube, asking: Asking) -> None:
    frozen = kube.faults.freeze(verb="patch", user="grantserver")
    with ThreadPoolExecutor(2) as pool:
        late = pool.submit(write, asking)
        frozen.wait()
        assert asking.get(GRANT).code == 200
        assert Asking(kube).merge(GRANT, {"spec": {"issuer": "ca"}}).code == 200
        assert not late.done()
        assert "code" not in kube.get("AccessGrant", "grant-west")["spec"]
        frozen.release()
        assert late.result(20).code == 200
    assert kube.get("AccessGrant", "grant-west")["spec"]["code"] == "x"
    assert write(asking).code == 200


def test_an_answer_can_be_frozen_that_was_earned(kube: FakeKube, asking: Asking) -> None:
    frozen = kube.faults.freeze(after=True, verb="patch")
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(write, asking)
        kube.wait("AccessGrant", "grant-west", "default", lambda found: "code" in found["spec"])
        assert not late.done()
        frozen.release()
        assert late.result(20).code == 200


def test_errors_are_answered_as_often_as_ordered(kube: FakeKube, asking: Asking) -> None:
    kube.faults.throttle(retry_after=3, times=2, resource="accessgrants", verb="get")
    for _ in range(2):
        refused = asking.get(GRANT)
        assert (refused.code, refused.headers["retry-after"]) == (429, "3")
    assert asking.get(GRANT).code == 200
    kube.faults.fail(500, name="grant-west")
    assert asking.get(GRANTS).code == 200
    assert (asking.get(GRANT).code, asking.get(GRANT).code) == (500, 200)
    kube.faults.fail(410, verb="watch", reason="Expired")
    with asking.watch(GRANTS) as events:
        assert events.code == 410
    endless = kube.faults.fail(503, times=None)
    assert [asking.get(GRANT).code for _ in range(5)] == [503] * 5
    endless.release()
    assert asking.get(GRANT).code == 200


def test_a_fault_may_come_late_and_an_answer_too(kube: FakeKube, asking: Asking) -> None:
    kube.faults.slow(0.05, times=1)
    kube.faults.fail(500, after=True, verb="patch")
    assert asking.get(GRANT).code == 200
    assert write(asking).code == 500
    assert kube.get("AccessGrant", "grant-west")["spec"]["code"] == "x"


def test_a_fault_of_no_known_kind_of_request_is_a_mistake(kube: FakeKube) -> None:
    with pytest.raises(TypeError, match="verbs"):
        kube.faults.reset(verbs="patch")


def test_watches_are_dropped(kube: FakeKube, asking: Asking) -> None:
    watching = [asking.watch(GRANTS, resourceVersion=kube.store.version) for _ in range(3)]
    assert kube.until(lambda: kube.watches == 3)
    assert kube.drop_watches() == 3
    for events in watching:
        with events, pytest.raises(ConnectionResetError):
            next(events)
    assert asking.get(GRANT).code == 200
    assert kube.until(lambda: kube.watches == 0)


def test_watches_go_silent_and_stay_open(kube: FakeKube, asking: Asking) -> None:
    kube.bookmark_seconds = 0.05
    query: dict[str, Any] = {"resourceVersion": kube.store.version, "allowWatchBookmarks": "true"}
    with asking.watch(GRANTS, patience=0.5, **query) as events:
        assert next(events)[0] == "BOOKMARK"
        assert kube.silence_watches() == 1
        kube.create(a_grant("two"))
        with pytest.raises(TimeoutError):
            list(events)
        assert kube.watches == 1
        # One that is new speaks.
        with asking.watch(GRANTS, resourceVersion=query["resourceVersion"]) as other:
            assert next(other)[0] == "ADDED"


def test_a_watch_of_before_learns_that_it_has_missed_something(
    kube: FakeKube, asking: Asking
) -> None:
    with asking.watch(GRANTS, resourceVersion=kube.store.version) as events:
        kube.create(a_grant("two"))
        assert next(events)[0] == "ADDED"
        kube.compact()
        type_, status = next(events)
        assert (type_, status["code"]) == ("ERROR", 410)
        assert list(events) == []
    listed = asking.get(GRANTS)
    with asking.watch(GRANTS, resourceVersion=listed.version) as events:
        kube.create(a_grant("three"))
        assert next(events)[0] == "ADDED"


def test_a_server_is_away_and_comes_back_as_it_was(kube: FakeKube, asking: Asking) -> None:
    frozen = kube.faults.freeze(verb="patch")
    with (
        asking.watch(GRANTS, resourceVersion=kube.store.version) as events,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(write, asking)
        frozen.wait()
        kube.stop()
        with pytest.raises(ConnectionResetError):
            next(events)
        with pytest.raises(ConnectionResetError):
            waiting.result(20)
    with pytest.raises(ConnectionRefusedError):
        asking.get(GRANT)
    kube.patch("AccessGrant", "grant-west", {"spec": {"code": "meanwhile"}})
    kube.faults.clear()
    kube.start()
    assert asking.get(GRANT).body["spec"]["code"] == "meanwhile"
    assert write(asking).code == 200


def test_a_token_expires(kube: FakeKube) -> None:
    token = kube.token("grantserver")
    assert Asking(kube, token).get(GRANT).code == 200
    kube.expire(token)
    assert Asking(kube, token).get(GRANT).code == 401
    assert Asking(kube, kube.token("grantserver")).get(GRANT).code == 200


def test_only_its_own_authority_is_to_be_trusted(kube: FakeKube) -> None:
    asking = Asking(kube)
    asking._context = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        asking.get(GRANT)


def test_it_speaks_without_tls_if_it_must() -> None:
    plain = FakeKube(tls=False)
    try:
        assert plain.url.startswith("http://")
        assert Asking(plain).get("/version").code == 200
    finally:
        plain.stop()


def test_requests_are_counted_whatever_became_of_them(kube: FakeKube, asking: Asking) -> None:
    kube.requests.clear()
    kube.faults.reset(verb="patch")
    kube.faults.fail(500, verb="get")
    with pytest.raises(ConnectionResetError):
        write(asking)
    asking.get(GRANT)
    write(asking)
    kube.patch("AccessGrant", "grant-west", {"spec": {"code": "y"}})
    assert [(one.verb, one.code) for one in kube.requests] == [
        ("patch", 0),
        ("get", 500),
        ("patch", 200),
    ]
    assert len(kube.requests.writes(user="grantserver", resource="accessgrants")) == 2
    assert len(kube.requests.of(name="grant-west")) == 3


def test_waiting_says_what_was_there_instead(kube: FakeKube) -> None:
    with pytest.raises(AssertionError, match="'redemptionsAllowed': 1"):
        kube.wait("AccessGrant", "grant-west", "default", lambda found: "status" in found, 0.05)
    kube.delete("AccessGrant", "grant-west")
    kube.wait_gone("AccessGrant", "grant-west")
    with pytest.raises(AssertionError, match="is None"):
        kube.wait("AccessGrant", "grant-west", "default", lambda _: True, 0.05)


def test_a_status_that_is_given_is_kept(kube: FakeKube) -> None:
    made = kube.create({**a_grant("two"), "status": {"url": "https://x"}})
    assert made["status"] == {"url": "https://x"}
    with pytest.raises(KubeError, match="409 AlreadyExists"):
        kube.create(a_grant("two"))


def test_what_a_test_holds_is_not_what_is_stored(kube: FakeKube) -> None:
    kube.get("AccessGrant", "grant-west")["spec"]["code"] = "changed"
    assert "code" not in kube.get("AccessGrant", "grant-west")["spec"]


def test_tests_write_from_many_threads(kube: FakeKube, asking: Asking) -> None:
    with asking.watch(GRANTS, resourceVersion=kube.store.version) as events:
        threads = [
            threading.Thread(target=lambda n=n: kube.create(a_grant(f"grant-{n}")))
            for n in range(50)
        ]
        for thread in threads:
            thread.start()
        found = events.take(50)
        for thread in threads:
            thread.join()
    versions = [int(one["metadata"]["resourceVersion"]) for _, one in found]
    assert versions == sorted(set(versions))


def test_kubectl_is_content_with_it(kube: FakeKube, tmp_path: Path) -> None:
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not on this machine")
    config = kube.kubeconfig(tmp_path / "config")

    def kubectl(*words: str, given: str = "") -> str:
        done = subprocess.run(
            [program, f"--kubeconfig={config}", f"--cache-dir={tmp_path}", *words],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout + done.stderr

    grant = (
        "apiVersion: skupper.io/v2alpha1\nkind: AccessGrant\n"
        "metadata: {name: two}\nspec: {redemptionsAllowed: 2}\n"
    )
    wrong = grant.replace("redemptionsAllowed", "redemptions")
    assert 'unknown field "spec.redemptions"' in kubectl("apply", "-f", "-", given=wrong)
    assert "created" in kubectl("apply", "-f", "-", given=grant)
    changed = grant.replace("2}", "3}")
    assert "configured" in kubectl("apply", "-f", "-", given=changed)
    assert "unchanged" in kubectl("apply", "-f", "-", given=changed)
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", given=changed)
    kube.patch("AccessGrant", "two", {"status": {"status": "Ready"}}, subresource="status")
    shown = kubectl("get", "gr", "two").splitlines()
    assert shown[0].split("  ")[0] == "NAME"
    assert shown[1].split() == ["two", "3", "Ready"]
    template = ("-o", "template", "--template", "{{ .status.status }}")
    assert kubectl("get", "accessgrant", "two", *template) == "Ready"
    assert "condition met" in kubectl("wait", "--for=jsonpath={.status.status}=Ready", "gr/two")
    assert "deleted" in kubectl("delete", "accessgrant", "two")
