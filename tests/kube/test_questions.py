import asyncio
from typing import Any

import aiohttp
import pytest

from app.errors import Broken, GrantServerError, Unavailable
from app.kube.questions import Question, parsed, within
from app.kube.resources import ACCESS_GRANTS, SECRETS, Resource

CREATE = "create accessgrants.skupper.io in namespace west"


def question(resource: Resource = ACCESS_GRANTS, **more: Any) -> Question:
    asked: dict[str, Any] = {"method": "GET", "verb": "get", "namespace": "west"}
    return Question(resource=resource, **(asked | more))


def of_group(group: str, version: str = "") -> Question:
    about = Resource(group=group, version=version, plural="", kind="")
    return question(about, namespace=None, group_only=True)


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        (question(SECRETS, namespace=None), "/api/v1/secrets"),
        (question(SECRETS), "/api/v1/namespaces/{namespace}/secrets"),
        (question(SECRETS, name="ca"), "/api/v1/namespaces/{namespace}/secrets/{name}"),
        (
            question(name="grant", status=True),
            "/apis/skupper.io/v2alpha1/namespaces/{namespace}/accessgrants/{name}/status",
        ),
        (of_group("route.openshift.io"), "/apis/route.openshift.io"),
        (of_group("route.openshift.io", "v1"), "/apis/route.openshift.io/v1"),
    ],
)
def test_a_question_knows_where_it_is_asked(asked: Question, path: str) -> None:
    assert asked.path == path
    assert asked.names == {"namespace": asked.namespace or "", "name": asked.name}


@pytest.mark.parametrize(
    ("asked", "doing"),
    [
        (question(namespace=None, verb="list"), "list accessgrants.skupper.io"),
        (question(verb="list"), "list accessgrants.skupper.io in namespace west"),
        (
            question(verb="patch", name="grant", status=True),
            "patch accessgrants.skupper.io/status in namespace west",
        ),
        (of_group("route.openshift.io"), "get /apis/route.openshift.io"),
    ],
)
def test_a_question_is_put_in_the_words_of_a_role(asked: Question, doing: str) -> None:
    assert asked.doing == doing
    assert str(asked.unreadable()) == f"{doing}: the API server does not answer in JSON"


@pytest.mark.parametrize(
    ("asked", "status", "text"),
    [
        (question(name="grant"), 404, 'no AccessGrant "west/grant"'),
        (question(), 404, 'no resource "accessgrants.skupper.io in namespace west"'),
        (question(namespace=None), 404, 'no resource "accessgrants.skupper.io"'),
        (of_group("route.openshift.io"), 404, 'no API "/apis/route.openshift.io"'),
        (
            question(query={"resourceVersion": "7"}),
            410,
            'no version of accessgrants.skupper.io "7"',
        ),
        (question(), 410, 'no version of accessgrants.skupper.io ""'),
        (
            question(verb="create"),
            422,
            f"AccessGrant: {CREATE}: the API server does not accept it (422)",
        ),
    ],
)
def test_a_refusal_names_what_was_asked_for(asked: Question, status: int, text: str) -> None:
    assert str(asked.refused(status, {}, None)) == text


def test_what_is_sent_is_not_shown() -> None:
    assert "s3cret" not in repr(question(body={"code": "s3cret"}))


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"{}", {}),
        (b'{"a": [1]}', {"a": [1]}),
        (b"[]", None),
        (b"null", None),
        (b"", None),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 100, None),
    ],
)
def test_only_an_object_is_an_answer(body: bytes, found: object) -> None:
    assert parsed(body) == found


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionResetError(), "the API server broke the connection off"),
        (aiohttp.ServerDisconnectedError(), "the API server closed the connection without an"),
        (TimeoutError(), "nothing came for 20 s"),
    ],
)
def test_what_goes_wrong_on_the_way_is_unavailable(error: Exception, said: str) -> None:
    async def main() -> None:
        async with within(20.0, question()):
            raise error

    with pytest.raises(Unavailable) as caught:
        asyncio.run(main())
    what = "get accessgrants.skupper.io in namespace west"
    assert str(caught.value).startswith(f"{what}: {said}")


def test_what_takes_too_long_is_unavailable() -> None:
    async def main() -> None:
        async with within(0.01, question()):
            await asyncio.Event().wait()

    with pytest.raises(Unavailable, match=r"nothing came for 0\.01 s"):
        asyncio.run(main())


def test_errors_of_ours_pass() -> None:
    error: GrantServerError = Broken("a bug")

    async def main() -> None:
        async with within(20.0, question()):
            raise error

    with pytest.raises(Broken) as caught:
        asyncio.run(main())
    assert caught.value is error
