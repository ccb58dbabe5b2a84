import pytest
from pydantic import ValidationError

from app.api.timelines import TimelineListing


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_story_is_bounded(limit: int) -> None:
    assert TimelineListing().limit == 200
    with pytest.raises(ValidationError):
        TimelineListing(limit=limit)
