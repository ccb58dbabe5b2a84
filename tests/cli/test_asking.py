import gc

import pytest

from app import outbound
from app.cli.asking import ask
from app.errors import Unavailable
from tests.strangers import Stranger


def test_an_answer_is_given_and_nothing_is_left_open(stranger: Stranger) -> None:
    stranger.say = lambda _: (200, b"hello")
    for _ in range(3):
        question = outbound.inspect(
            stranger.url, code=b"x" * 16, ca_pem=stranger.ca_pem.encode(), seconds=5
        )
        assert ask(question).body == b"hello"
    gc.collect()  # whatever were left open would be a warning, so an error


def test_an_error_is_raised_as_it_is(stranger: Stranger) -> None:
    question = outbound.inspect(
        "https://127.0.0.1:9/x", code=b"x", ca_pem=stranger.ca_pem.encode(), seconds=5
    )
    with pytest.raises(Unavailable):
        ask(question)
