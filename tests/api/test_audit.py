import pytest
from pydantic import ValidationError

from app.api.audit import EntryListing
from app.domain.audit import Act


def test_every_act_and_its_noun_may_be_asked_for() -> None:
    for act in Act:
        for asked in (act.value, act.value.partition(".")[0]):
            assert EntryListing(act=asked).act == asked


@pytest.mark.parametrize("asked", [{"act": "GRANT"}, {"target": "a\nb"}, {"limit": 501}])
def test_what_cannot_be_in_the_log_is_not_asked_for(asked: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EntryListing.model_validate(asked)
