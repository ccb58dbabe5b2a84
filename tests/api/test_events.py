import re

import pytest
from pydantic import ValidationError

from app.api.events import EVENT_ID, Following
from app.domain.events import position_of


def test_a_stream_lasts_an_hour_at_most() -> None:
    assert Following().seconds == 3600
    for seconds in (-1, 3601):
        with pytest.raises(ValidationError):
            Following(seconds=seconds)


def test_the_id_of_an_event_is_what_a_stream_may_begin_behind() -> None:
    shown = "48211-" + "0a" * 8
    assert re.fullmatch(EVENT_ID, shown)
    assert position_of(shown) == 48211
