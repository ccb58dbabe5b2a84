"""A token becomes a Secret and Links, once; every failure is told in the words of the contract."""

import base64
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from app.domain.link_secrets import SERVER_CA, SERVER_URL
from app.domain.receipts import Receipt, read_receipt
from app.kube import tokens
from app.kube.backoff import Backoff
from app.kube.links import MARK
from tests.kube.api_server import FakeKube, Kube, KubeError, Object
from tests.kube.clients import QUICK
from tests.kube.connecting import (
    EAST,
    PATIENCE,
    RULES,
    USER,
    Connector,
    furnish,
    redeemed,
    refused,
    told,
)
from tests.kube.far_side import CODE, FarSide, Said, refusal
from tests.kube.objects import a_site
from tests.pki import a_root

SLOW = Backoff(base_seconds=600.0, most_seconds=1200.0)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarSide]:
    with FarSide(directory=tmp_path) as made:
        yield made


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(tokens, "_BACKOFF", QUICK)
    monkeypatch.setattr(tokens, "_BACKOFF_AT_HOME", QUICK)


def connector(kube: Kube, directory: Path, **changes: Any) -> Connector:
    return Connector(kube=kube, directory=directory, **changes)


def data(kube: Kube, name: str = "west", namespace: str = EAST) -> dict[str, bytes]:
    found = kube.get("Secret", name, namespace)
    return {entry: base64.b64decode(one) for entry, one in found["data"].items()}


def links(kube: Kube, namespace: str = EAST) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in kube.find("Link", namespace)}


def owners(found: Object) -> list[tuple[str, str, str]]:
    return [
        (one["kind"], one["name"], one["uid"])
        for one in found["metadata"].get("ownerReferences", ())
    ]


def fits(held: dict[str, bytes]) -> bool:
    """Whether the certificate in a Secret is for the key in it."""
    key = serialization.load_pem_private_key(held["tls.key"], None)
    return x509.load_pem_x509_certificate(held["tls.crt"]).public_key() == key.public_key()


def touch(kube: Kube, label: str, name: str = "west") -> None:
    """Let an AccessToken be looked at again."""
    kube.patch("AccessToken", name, {"metadata": {"labels": {"touched": label}}}, EAST)


def looked_at(kube: Kube, far: FarSide, name: str) -> None:
    """Wait until all that has happened so far was looked at, since what came later was."""
    kube.create(far.token(name))
    redeemed(kube, name)


# What comes of it.


def test_a_token_becomes_a_secret_and_a_link_that_the_site_owns(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    site = kube.get("Site", EAST, EAST)
    with connector(kube, tmp_path):
        kube.create(far.token(linkCost=7))
        found = redeemed(kube)
    status = found["status"]
    assert (status["redeemed"], status["status"], status["message"]) == (True, "Ready", "OK")
    (condition,) = status["conditions"]
    assert (condition["type"], condition["status"]) == ("Redeemed", "True")
    assert (condition["reason"], condition["message"]) == ("Ready", "OK")
    secret, link = kube.get("Secret", "west", EAST), links(kube)["west"]
    assert secret["type"] == "kubernetes.io/tls"
    assert owners(secret) == owners(link) == [("Site", EAST, site["metadata"]["uid"])]
    assert secret["metadata"]["labels"] == {MARK: found["metadata"]["uid"]}
    assert link["spec"]["tlsCredentials"] == "west"
    assert link["spec"]["cost"] == 7
    held = data(kube)
    assert held.keys() == {"tls.crt", "tls.key", "ca.crt"}
    assert fits(held)
    assert held["ca.crt"] == far.ca.pem
    noted = secret["metadata"]["annotations"]
    assert noted[SERVER_URL] == f"https://127.0.0.1:{far.port}"
    assert noted[SERVER_CA] == far.ca_pem
    (claim,) = far.claims
    assert claim.body == CODE.encode()
    assert (claim.headers["name"], claim.headers["subject"]) == ("west", site["metadata"]["uid"])
    assert far.given == 1


def test_a_server_that_makes_the_key_itself_is_served_as_well(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    far.plain = True
    furnish(kube)
    with connector(kube, tmp_path):
        kube.create(far.token())
        redeemed(kube)
    assert fits(data(kube))
    noted = kube.get("Secret", "west", EAST)["metadata"]["annotations"]
    assert not noted.keys() & {SERVER_URL, SERVER_CA}
    assert far.given == 1


@pytest.mark.parametrize(("asked", "cost"), [(None, 3), (0, 3), (9, 9)])
def test_a_site_with_two_routers_gets_two_links_and_the_token_decides_on_their_cost(
    kube: Kube, tmp_path: Path, far: FarSide, asked: int | None, cost: int
) -> None:
    far.groups, far.cost = ("skupper-router", "skupper-router-2"), 3
    furnish(kube)
    with connector(kube, tmp_path):
        token = far.token()
        token["spec"] |= {} if asked is None else {"linkCost": asked}
        kube.create(token)
        redeemed(kube)
    assert {name: one["spec"]["cost"] for name, one in links(kube).items()} == {
        "west-1": cost,
        "west-2": cost,
    }


def test_only_the_namespaces_that_are_named_are_looked_after(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube, EAST, "south", "north")
    with connector(kube, tmp_path, namespaces=(EAST, "south")):
        for namespace in ("north", EAST, "south"):
            kube.create(far.token(namespace=namespace))
        for namespace in (EAST, "south"):
            redeemed(kube, namespace=namespace)
    assert "status" not in kube.get("AccessToken", "west", "north")
    assert links(kube, "north") == {}


# What is said when it does not work: every row of the contract.


def test_without_a_site_nothing_is_said_and_nothing_is_asked(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube, "south")
    kube.namespace(EAST)
    with connector(kube, tmp_path):
        kube.create(far.token())
        kube.create(far.token("later", "south"))
        redeemed(kube, "later", "south")
        assert "status" not in kube.get("AccessToken", "west", EAST)
        assert [one.headers["name"] for one in far.claims] == ["later"]
        kube.create(a_site(EAST, EAST))
        redeemed(kube)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"ca": ""}, "token does not have a CA"),
        ({"ca": "", "url": "http://127.0.0.1/x"}, "token does not have a CA"),
        ({"url": "http://127.0.0.1/x"}, "token url scheme must be https"),
        ({"url": "https://127.0.0.1:port/x"}, "could not parse token url: it is not a URL"),
        ({"url": ""}, "token url scheme must be https"),
    ],
)
def test_a_token_that_cannot_be_used_says_why_and_makes_nothing(
    kube: Kube, tmp_path: Path, far: FarSide, spec: dict[str, Any], message: str
) -> None:
    furnish(kube)
    with connector(kube, tmp_path):
        kube.create(far.token(**spec))
        refused(kube, message)
        assert kube.find("Secret", EAST, labels=MARK) == []
        assert far.claims == []
        # And is looked at again when that is mended.
        kube.patch("AccessToken", "west", {"spec": far.token()["spec"]}, EAST)
        redeemed(kube)


@pytest.mark.usefixtures("soon")
def test_who_is_not_there_is_told_and_asked_again(kube: Kube, tmp_path: Path, far: FarSide) -> None:
    furnish(kube)
    far.stop()
    with connector(kube, tmp_path):
        kube.create(far.token())
        refused(
            kube,
            f'Controller got error: Post "{far.url}": 127.0.0.1:{far.port} refuses the connection',
        )
        far.start()
        redeemed(kube)
    assert far.given == 1


def test_who_is_not_trusted_is_not_told_the_code(kube: Kube, tmp_path: Path, far: FarSide) -> None:
    furnish(kube)
    with connector(kube, tmp_path):
        kube.create(far.token(ca=a_root("another").pem.decode()))
        found = told(kube)
    message = found["status"]["message"]
    assert message.startswith(
        f'Controller got error: Post "{far.url}": 127.0.0.1:{far.port} shows a certificate that '
        "the token's CA does not vouch for"
    )
    assert far.claims == []


REFUSALS = [
    (403, "Redemption of access token refused", "403 (Forbidden)"),
    (404, "No such claim", "404 (Not Found)"),
    (404, "No such access granted", "404 (Not Found)"),
    (405, "Only POST is supported", "405 (Method Not Allowed)"),
    (400, "Request body not valid", "400 (Bad Request)"),
    (400, "Name not valid", "400 (Bad Request)"),
    (302, "elsewhere", "302 (Found)"),
    (201, "made", "201 (Created)"),
]
LATER = [
    (429, "Too many failed attempts", "429 (Too Many Requests)"),
    (500, "Corrupted claim", "500 (Internal Server Error)"),
    (500, "Could not get issuer for requested certificate", "500 (Internal Server Error)"),
    (500, "No valid endpoints found for site", "500 (Internal Server Error)"),
    (500, "Site not yet defined for west", "500 (Internal Server Error)"),
    (
        500,
        "Edge sites cannot accept incoming links from remote sites",
        "500 (Internal Server Error)",
    ),
    (503, "Internal error", "503 (Service Unavailable)"),
]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("status", "text", "said"), REFUSALS)
def test_a_refusal_is_told_as_it_came_and_is_final(
    kube: Kube, tmp_path: Path, far: FarSide, status: int, text: str, said: str
) -> None:
    furnish(kube)
    message = f"Controller got failed response: {said} {text}"
    far.answers.append(Said(status=status, body=f"{text}\n".encode(), headers={"Location": "/"}))
    with connector(kube, tmp_path):
        kube.create(far.token())
        refused(kube, message)
        touch(kube, "once")
        looked_at(kube, far, "first")
        assert [one.headers["name"] for one in far.claims].count("west") == 1
    # Nor does the next one who leads ask again.
    with connector(kube, tmp_path, user="next"):
        touch(kube, "twice")
        looked_at(kube, far, "second")
        assert [one.headers["name"] for one in far.claims].count("west") == 1
        # A token that is another one now is asked for.
        kube.patch("AccessToken", "west", {"spec": {"linkCost": 2}}, EAST)
        redeemed(kube)
    assert links(kube)["west"]["spec"]["cost"] == 2


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("status", "text", "said"), LATER)
def test_what_may_be_over_is_told_as_it_came_and_asked_again(
    kube: Kube, tmp_path: Path, far: FarSide, status: int, text: str, said: str
) -> None:
    furnish(kube)
    far.always = refusal(status, text)
    with connector(kube, tmp_path):
        kube.create(far.token())
        refused(kube, f"Controller got failed response: {said} {text}")
        assert kube.until(lambda: len(far.claims) > 3)
        far.always = None
        redeemed(kube)
    assert len({one.headers["csr"] for one in far.claims}) >= 1
    assert len({_public(one.key) for one in far.claims}) == 1
    assert far.given == 1


def _public(key: Any) -> bytes:
    return bytes(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "cut",
    [
        lambda _: b"not: [YAML",
        lambda _: b"",
        lambda body: body[: body.rindex(b"---")],  # a Secret, and no Link
        lambda body: body[: body.index(b"endpoints")],
        lambda body: body.replace(b"\nspec:", b"\nspec:\n  odd: !!binary AA=="),
        lambda body: body.replace(b"\nspec:", b"\nspec:\n  odd: !!set {a, b}"),
        lambda body: body.replace(b"\nspec:", b"\nspec:\n  odd: .nan"),
    ],
)
def test_an_answer_that_cannot_be_used_is_told_and_never_asked_for_again(
    kube: Kube, tmp_path: Path, far: FarSide, cut: Callable[[bytes], bytes]
) -> None:
    """Another one would use up another redemption at a server of the plain contract."""
    furnish(kube)
    with connector(kube, tmp_path):
        kube.create(far.token("sample"))
        redeemed(kube, "sample")
        far.plain = True
        sample = yaml.safe_load_all(far._redeemed(far.claims[-1]).body)
        whole = "".join(f"---\n{yaml.safe_dump(one)}" for one in sample).replace("sample", "west")
        far.always = Said(body=cut(whole.encode()))
        kube.create(far.token())
        refused(kube, "Controller could not decode response")
        touch(kube, "yes")
        far.always = None
        looked_at(kube, far, "later")
    assert [one.headers["name"] for one in far.claims].count("west") == 1
    assert "west" not in links(kube)


def test_a_certificate_for_another_key_is_no_answer(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    with connector(kube, tmp_path):
        kube.create(far.token("other"))
        redeemed(kube, "other")
        body = far._redeemed(far.claims[-1]).body.replace(b"other", b"west")
        far.answers.append(Said(body=body))
        kube.create(far.token())
        refused(kube, "Controller could not decode response")


@pytest.mark.usefixtures("soon")
def test_a_secret_that_is_somebody_elses_is_told_before_anything_is_asked(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    theirs = kube.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": EAST, "name": "west"}}
    )
    with connector(kube, tmp_path):
        kube.create(far.token())
        refused(kube, 'Controller could not create received secret: secrets "west" already exists')
        assert far.claims == []
        assert kube.get("Secret", "west", EAST) == theirs
        kube.delete("Secret", "west", EAST)
        redeemed(kube)


def a_link(name: str) -> Object:
    return {
        "apiVersion": "skupper.io/v2alpha1",
        "kind": "Link",
        "metadata": {"namespace": EAST, "name": name},
        "spec": {"endpoints": []},
    }


@pytest.mark.usefixtures("soon")
def test_a_link_that_is_somebody_elses_is_told_before_anything_is_asked(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    theirs = kube.create(a_link("west"))
    with connector(kube, tmp_path):
        kube.create(far.token())
        refused(
            kube,
            'Controller could not create received link: links.skupper.io "west" already exists',
        )
        assert far.claims == []
        assert links(kube) == {"west": theirs}
        kube.delete("Link", "west", EAST)
        redeemed(kube)


@pytest.mark.usefixtures("soon")
def test_of_two_links_there_are_both_or_none_and_one_redemption_is_enough(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    far.groups, far.plain = ("skupper-router", "skupper-router-2"), True
    furnish(kube)
    theirs = kube.create(a_link("west-2"))
    with connector(kube, tmp_path):
        kube.create(far.token())
        refused(
            kube,
            'Controller could not create received link: links.skupper.io "west-2" already exists',
        )
        assert links(kube) == {"west-2": theirs}
    # Also when somebody else goes on with it.
    with connector(kube, tmp_path, user="next"):
        looked_at(kube, far, "later")
        kube.patch("AccessToken", "west", {"spec": {"linkCost": 4}}, EAST)
        kube.delete("Link", "west-2", EAST)
        redeemed(kube)
    assert links(kube).keys() == {"west-1", "west-2", "later-1", "later-2"}
    assert {one["spec"].get("cost") for one in links(kube).values()} == {4, None}
    assert [one.headers["name"] for one in far.claims].count("west") == 1


def test_a_token_that_was_changed_to_another_url_is_not_gone_on_with(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    far.groups = ("skupper-router", "skupper-router-2")
    kube.create(a_link("west-2"))
    with connector(kube, tmp_path):
        kube.create(far.token())
        told(kube)
        far.groups = ("another",)
        far._kept.clear()
        kube.patch("AccessToken", "west", {"spec": {"url": f"{far.url}?other"}}, EAST)
        redeemed(kube)
    assert links(kube)["west"]["spec"]["endpoints"][0]["group"] == "another"
    assert links(kube).keys() == {"west", "west-2"}
    assert fits(data(kube))


def test_what_the_api_server_does_not_allow_is_told(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    rules = [
        {**one, "verbs": ["get", "list", "watch"]} if "secrets" in one["resources"] else one
        for one in RULES
    ]
    with connector(kube, tmp_path, rules=rules):
        kube.create(far.token())
        found = told(kube)
    assert found["status"]["message"] == (
        "Controller could not create received secret: create secrets in namespace east: the API "
        "server forbids it: look at the role that we have"
    )
    assert far.claims == []


# Who waits for whom.


def test_those_who_do_not_answer_hold_up_nobody_else(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    stuck = [threading.Event() for _ in range(30)]
    far.answers.extend(stuck)
    with connector(kube, tmp_path):
        for number in range(len(stuck)):
            kube.create(far.token(f"stuck-{number}"))
        assert kube.until(lambda: len(far.claims) == len(stuck))
        kube.create(far.token())
        redeemed(kube)
        assert all(
            "status" not in one
            for one in kube.find("AccessToken", EAST)
            if one["metadata"]["name"] != "west"
        )
        for one in stuck:
            one.set()
        redeemed(kube, "stuck-0")


def test_between_two_attempts_nothing_makes_it_ask(
    kube: Kube, tmp_path: Path, far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither our own writes, nor those of others: an unmodified client asks at each of them."""
    monkeypatch.setattr(tokens, "_BACKOFF", SLOW)
    furnish(kube)
    far.answers.append(refusal(503, "Internal error"))
    with connector(kube, tmp_path):
        kube.create(far.token())
        refused(kube, "Controller got failed response: 503 (Service Unavailable) Internal error")
        touch(kube, "once")
        kube.patch("Site", EAST, {"metadata": {"labels": {"touched": "yes"}}}, EAST)
        looked_at(kube, far, "later")
        assert [one.headers["name"] for one in far.claims].count("west") == 1


# Stopped anywhere.


WRITES = [
    ("create", "secrets", ""),
    ("patch", "secrets", ""),
    ("create", "links", ""),
    ("patch", "accesstokens", "status"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("verb", "resource", "subresource"), WRITES)
def test_a_write_that_fails_is_made_up_for_without_another_redemption(
    fake_kube: FakeKube,
    tmp_path: Path,
    far: FarSide,
    verb: str,
    resource: str,
    subresource: str,
    after: bool,
) -> None:
    far.plain = True  # a server that gives another redemption to whoever asks again
    furnish(fake_kube)
    fake_kube.faults.reset(
        3, after=after, verb=verb, resource=resource, subresource=subresource, user=USER
    )
    with connector(fake_kube, tmp_path):
        fake_kube.create(far.token())
        redeemed(fake_kube)
    assert fits(data(fake_kube))
    assert links(fake_kube).keys() == {"west"}
    assert far.given == 1


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize(("verb", "resource", "subresource"), WRITES)
def test_whoever_goes_on_finishes_what_was_begun(
    fake_kube: FakeKube,
    tmp_path: Path,
    far: FarSide,
    verb: str,
    resource: str,
    subresource: str,
    done: bool,
) -> None:
    """The first one dies in the middle of a request: it has been done, or it never will."""
    far.groups = ("skupper-router", "skupper-router-2")
    furnish(fake_kube)
    dying = fake_kube.faults.freeze(
        1, after=done, verb=verb, resource=resource, subresource=subresource, user=USER
    )
    first = connector(fake_kube, tmp_path)
    with first:
        fake_kube.create(far.token())
        dying.wait()
    if done:
        dying.release()
    with connector(fake_kube, tmp_path, user="next"):
        redeemed(fake_kube)
        assert fits(data(fake_kube))
        assert links(fake_kube).keys() == {"west-1", "west-2"}
    assert far.given == 1
    assert len({_public(one.key) for one in far.claims}) == 1


def test_an_answer_that_cannot_be_stored_for_a_while_is_not_asked_for_again(
    fake_kube: FakeKube, tmp_path: Path, far: FarSide
) -> None:
    far.plain = True
    furnish(fake_kube)
    trouble = fake_kube.faults.fail(500, None, verb="patch", resource="secrets", user=USER)
    with connector(fake_kube, tmp_path):
        fake_kube.create(far.token())
        trouble.wait(hits=5)
        trouble.release()
        redeemed(fake_kube)
    assert len(far.claims) == 1


def test_what_was_redeemed_is_left_alone(kube: Kube, tmp_path: Path, far: FarSide) -> None:
    furnish(kube)
    with connector(kube, tmp_path):
        kube.create(far.token())
        redeemed(kube)
        kube.delete("Link", "west", EAST)
        kube.patch("AccessToken", "west", {"spec": {"linkCost": 5}}, EAST)
        looked_at(kube, far, "later")
    with connector(kube, tmp_path, user="next"):
        looked_at(kube, far, "last")
    assert links(kube).keys() == {"later", "last"}
    assert [one.headers["name"] for one in far.claims].count("west") == 1


def test_when_nothing_changes_nothing_is_written(
    fake_kube: FakeKube, tmp_path: Path, far: FarSide
) -> None:
    furnish(fake_kube)
    far.answers.append(refusal(404, "No such claim"))
    with connector(fake_kube, tmp_path):
        fake_kube.create(far.token("refused"))
        told(fake_kube, name="refused")
        looked_at(fake_kube, far, "west")
        assert fake_kube.until(lambda: len(fake_kube.find("Event", EAST)) == 2)
    fake_kube.requests.clear()
    with connector(fake_kube, tmp_path, user="next"):
        for name in ("refused", "west"):
            touch(fake_kube, "yes", name)
        looked_at(fake_kube, far, "last")
    written = fake_kube.requests.writes(user="next")
    assert {(one.resource, one.name) for one in written if one.verb == "patch"} == {
        ("accesstokens", "last"),
        ("secrets", "last"),
    }


# A name that was used before, and sites that go.


def test_a_token_that_was_refused_can_be_made_anew_under_its_name(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    with connector(kube, tmp_path):
        kube.create(far.token(code="wrong"))
        refused(
            kube,
            "Controller got failed response: 403 (Forbidden) Redemption of access token refused",
        )
        kube.delete("AccessToken", "west", EAST)
        again = kube.create(far.token())
        redeemed(kube)
    secret = kube.get("Secret", "west", EAST)
    assert secret["metadata"]["labels"] == {MARK: again["metadata"]["uid"]}
    first, second = far.claims
    assert _public(first.key) != _public(second.key)


def test_a_link_that_stands_is_not_replaced_by_another_token_of_the_name(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    with connector(kube, tmp_path):
        kube.create(far.token())
        redeemed(kube)
        kube.delete("AccessToken", "west", EAST)
        before = kube.get("Secret", "west", EAST)
        kube.create(far.token())
        refused(kube, 'Controller could not create received secret: secrets "west" already exists')
    assert kube.get("Secret", "west", EAST) == before
    assert far.given == 1


def test_a_token_whose_site_was_deleted_says_so_for_good(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    with connector(kube, tmp_path):
        kube.create(far.token())
        redeemed(kube)
        kube.delete("Site", EAST, EAST)
        found = told(kube, lambda status: status.get("message") != "OK")
        status = found["status"]
        assert status["message"] == "Already redeemed for a deleted site"
        assert (status["redeemed"], status["status"]) == (True, "Error")
        (condition,) = status["conditions"]
        assert (condition["status"], condition["reason"]) == ("True", "Error")
        assert condition["message"] == "Already redeemed for a deleted site"
        kube.create(a_site(EAST, EAST))
        looked_at(kube, far, "later")
        assert kube.get("AccessToken", "west", EAST)["status"] == status
    assert far.given == 2


def test_a_site_that_was_made_anew_while_nobody_watched_is_another_one(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    with connector(kube, tmp_path):
        kube.create(far.token())
        redeemed(kube)
    kube.delete("Site", EAST, EAST)
    # As if that had been a while ago, for times are told in seconds.
    long_ago = "2020-01-01T00:00:00Z"
    condition = kube.get("AccessToken", "west", EAST)["status"]["conditions"][0]
    change = {"status": {"conditions": [{**condition, "lastTransitionTime": long_ago}]}}
    kube.patch("AccessToken", "west", change, EAST, subresource="status")
    kube.create(a_site(EAST, EAST))
    with connector(kube, tmp_path, user="next"):
        told(
            kube,
            lambda status: status["message"] == "Already redeemed for a deleted site",
        )


def test_a_clock_that_is_behind_makes_no_site_a_younger_one(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    with connector(kube, tmp_path, clock=lambda: 1_500_000_000):
        kube.create(far.token())
        redeemed(kube)
        looked_at(kube, far, "later")
        touch(kube, "yes")
        looked_at(kube, far, "last")
        assert kube.get("AccessToken", "west", EAST)["status"]["message"] == "OK"


# What is told, and what is asked for.


def test_events_tell_what_happened_once(kube: Kube, tmp_path: Path, far: FarSide) -> None:
    furnish(kube)
    far.answers += [refusal(404, "No such claim")]
    with connector(kube, tmp_path):
        kube.create(far.token("refused"))
        told(kube, name="refused")
        looked_at(kube, far, "west")
        assert kube.until(lambda: len(kube.find("Event", EAST)) == 2)
    told_of = {
        one["involvedObject"]["name"]: (one["type"], one["reason"], one["message"], one["count"])
        for one in kube.find("Event", EAST)
    }
    assert told_of == {
        "refused": (
            "Warning",
            "Error",
            "Controller got failed response: 404 (Not Found) No such claim",
            1,
        ),
        "west": ("Normal", "Redeemed", "The Secret and the Links are there", 1),
    }


def test_no_code_and_no_key_is_told_or_logged(
    kube: Kube, tmp_path: Path, far: FarSide, caplog: pytest.LogCaptureFixture
) -> None:
    furnish(kube)
    with connector(kube, tmp_path):
        kube.create(far.token())
        redeemed(kube)
        assert kube.until(lambda: bool(kube.find("Event", EAST)))
    key = data(kube)["tls.key"].decode().splitlines()[1]
    everything = f"{caplog.text}{kube.find('Event', EAST)}{kube.find('Link', EAST)}"
    everything += str(kube.get("AccessToken", "west", EAST)["status"])
    everything += str(kube.get("Secret", "west", EAST)["metadata"])
    for secret in (CODE, key):
        assert secret not in everything


def test_a_token_that_goes_while_it_is_redeemed_leaves_what_came_of_it(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    held = threading.Event()
    far.answers.append(held)
    with connector(kube, tmp_path):
        kube.create(far.token())
        assert kube.until(lambda: len(far.claims) == 1)
        kube.delete("AccessToken", "west", EAST)
        held.set()
        kube.wait("Link", "west", EAST, lambda _: True)
        looked_at(kube, far, "later")
        with pytest.raises(KubeError):
            kube.get("AccessToken", "west", EAST)


# A stranger's odd answers, and who else is at it.


def test_while_an_odd_answer_is_read_others_are_redeemed(
    kube: Kube, tmp_path: Path, far: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader is held here for as long as it takes to redeem another token."""
    done = threading.Event()
    told_after: list[bool] = []

    def slow(body: bytes, **wanted: Any) -> Receipt:
        if wanted["name"] == "odd":
            told_after.append(done.wait(PATIENCE))
        return read_receipt(body, **wanted)

    monkeypatch.setattr(tokens, "read_receipt", slow)
    furnish(kube)
    far.answers.append(Said(body=b"- " * 49_000))
    with connector(kube, tmp_path):
        kube.create(far.token("odd"))
        assert kube.until(lambda: len(far.claims) == 1)
        kube.create(far.token())
        redeemed(kube)
        done.set()
        refused(kube, "Controller could not decode response", "odd")
    assert told_after == [True]


def test_two_that_redeem_one_token_ask_with_one_key(
    fake_kube: FakeKube, tmp_path: Path, far: FarSide
) -> None:
    """Both have seen that there is no Secret; the second is held until the first has made it."""
    furnish(fake_kube)
    late = fake_kube.faults.freeze(1, verb="create", resource="secrets", user="late")
    waiting = threading.Event()
    far.answers.append(waiting)
    with connector(fake_kube, tmp_path, user="late"):
        fake_kube.create(far.token())
        late.wait()
        with connector(fake_kube, tmp_path, user="first"):
            assert fake_kube.until(lambda: len(far.claims) == 1)
            late.release()
            assert fake_kube.until(lambda: len(far.claims) == 2)
            waiting.set()
            redeemed(fake_kube)
    first, second = far.claims
    assert _public(first.key) == _public(second.key)
    assert far.given == 1
    assert fits(data(fake_kube))


def test_a_final_refusal_leaves_no_secret_behind(kube: Kube, tmp_path: Path, far: FarSide) -> None:
    furnish(kube)
    far.always = refusal(404, "No such claim")
    with connector(kube, tmp_path):
        kube.create(far.token())
        refused(kube, "Controller got failed response: 404 (Not Found) No such claim")
    assert kube.find("Secret", EAST, labels=MARK) == []


@pytest.mark.usefixtures("soon")
def test_while_a_claim_is_tried_again_its_key_stays(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    far.answers.extend(refusal(503, "Internal error") for _ in range(3))
    with connector(kube, tmp_path):
        kube.create(far.token())
        redeemed(kube)
    assert len({_public(one.key) for one in far.claims}) == 1


@pytest.mark.parametrize("entry", ["tls.crt", "tls.key"])
def test_a_secret_that_holds_more_than_our_key_outlasts_a_refusal(
    kube: Kube, tmp_path: Path, far: FarSide, entry: str
) -> None:
    """Somebody has put something into it while the answer was awaited."""
    furnish(kube)
    held = threading.Event()
    far.answers.append(held)
    far.always = refusal(404, "No such claim")
    with connector(kube, tmp_path):
        kube.create(far.token())
        assert kube.until(lambda: len(far.claims) == 1)
        kube.patch("Secret", "west", {"data": {entry: "eA=="}}, EAST)
        held.set()
        refused(kube, "Controller got failed response: 404 (Not Found) No such claim")
    assert data(kube)[entry] == b"x"


def test_without_the_right_to_delete_it_the_secret_stays_and_the_refusal_is_told(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    far.always = refusal(404, "No such claim")
    rules = [{**one, "verbs": [verb for verb in one["verbs"] if verb != "delete"]} for one in RULES]
    with connector(kube, tmp_path, rules=rules):
        kube.create(far.token())
        refused(kube, "Controller got failed response: 404 (Not Found) No such claim")
    assert data(kube)["tls.crt"] == b""


@pytest.mark.parametrize("certificate", ["", "eA=="])
def test_what_is_no_key_is_made_anew_or_told_where_a_link_may_stand_on_it(
    kube: Kube, tmp_path: Path, far: FarSide, certificate: str
) -> None:
    furnish(kube)
    site = kube.get("Site", EAST, EAST)["metadata"]
    owner = {"apiVersion": "skupper.io/v2alpha1", "kind": "Site"}
    token = kube.create(far.token())
    kube.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "namespace": EAST,
                "name": "west",
                "labels": {MARK: token["metadata"]["uid"]},
                "ownerReferences": [{**owner, "name": site["name"], "uid": site["uid"]}],
            },
            "type": "kubernetes.io/tls",
            "data": {"tls.crt": certificate, "tls.key": "anVuaw=="},
        }
    )
    with connector(kube, tmp_path):
        if not certificate:
            redeemed(kube)
            assert fits(data(kube))
            return
        refused(
            kube,
            "Controller could not create received secret: "
            'secret: secrets "west" has a tls.key that is no private key; '
            "delete it, and it is made anew",
        )
        assert far.claims == []


def test_what_was_asked_for_a_token_is_not_stored_for_another_of_the_name(
    kube: Kube, tmp_path: Path, far: FarSide
) -> None:
    furnish(kube)
    held = threading.Event()
    far.answers.append(held)
    with connector(kube, tmp_path):
        kube.create(far.token())
        assert kube.until(lambda: len(far.claims) == 1)
        kube.delete("AccessToken", "west", EAST)
        again = kube.create(far.token(linkCost=7))
        looked_at(kube, far, "later")  # what came before is known by then
        held.set()
        redeemed(kube)
    secret = kube.get("Secret", "west", EAST)
    assert secret["metadata"]["labels"] == {MARK: again["metadata"]["uid"]}
    first, later, second = far.claims
    assert (first.headers["name"], later.headers["name"]) == ("west", "later")
    assert _public(first.key) != _public(second.key)
    assert links(kube)["west"]["metadata"]["labels"] == {MARK: again["metadata"]["uid"]}
