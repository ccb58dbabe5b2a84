from typing import Any

import pytest
from pydantic import ValidationError

from app.api.webhooks import CreatedWebhook, NewWebhook, WebhookChange
from app.domain.events import EventType

WISH: dict[str, Any] = {"name": "portal", "url": "https://p.example/", "events": ["redeemed"]}


def test_every_event_may_be_asked_for() -> None:
    wish = NewWebhook.model_validate(WISH | {"events": list(EventType)})
    assert (wish.events, wish.sites, wish.ca) == (tuple(EventType), (), None)


@pytest.mark.parametrize(
    "change",
    [{"events": []}, {"events": ["deleted"]}, {"url": "https://p /"}, {"name": ""}, {"x": 1}],
)
def test_a_wish_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NewWebhook.model_validate(WISH | change)


def test_only_true_and_false_turn_one_on_and_off() -> None:
    with pytest.raises(ValidationError):
        WebhookChange.model_validate({"enabled": "yes"})


def test_the_secret_is_not_in_what_is_shown_of_an_answer() -> None:
    assert not CreatedWebhook.model_fields["secret"].repr
