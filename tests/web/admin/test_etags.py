import pytest
from fastapi import Response
from pydantic import BaseModel

from app.errors import Stale
from app.web.admin import etags


class Thing(BaseModel):
    name: str


A, B = Thing(name="a"), Thing(name="b")


def test_a_tag_is_that_of_the_representation() -> None:
    assert etags.tag(A) == etags.tag(Thing(name="a")) != etags.tag(B)
    assert etags.tag(A).startswith('"')
    assert etags.tag(A).endswith('"')


@pytest.mark.parametrize(
    ("header", "fits"),
    [
        (etags.tag(A), True),
        (f'"x", {etags.tag(A)}', True),
        ("*", True),
        ('"x"', False),
        (f"W/{etags.tag(A)}", False),  # If-Match compares strongly
        ("", False),
    ],
)
def test_one_of_the_tags_has_to_be_that_of_what_there_is(header: str, fits: bool) -> None:
    assert etags.matches(header, etags.tag(A)) is fits


def test_a_guard_lets_pass_what_is_as_it_was() -> None:
    etags.guard(etags.tag(A), lambda thing: thing)(A)
    etags.guard(None, lambda thing: thing)(B)
    with pytest.raises(Stale):
        etags.guard(etags.tag(A), lambda thing: thing)(B)


def test_an_answer_has_its_tag_and_is_not_given_to_who_has_it() -> None:
    response = Response()
    assert not etags.answer(A, response)
    assert response.headers["ETag"] == etags.tag(A)
    assert etags.answer(A, response, f"W/{etags.tag(A)}")
    assert not etags.answer(A, response, etags.tag(B))
