"""Both ways to administer an installation do all that commands want of one, in the same way."""

import inspect

import pytest

from app.cli.administration import Administration, NewGrant, SeenGrant
from app.cli.local import Local
from app.cli.remote import Remote
from app.domain.grants import State
from tests.builders import a_grant

WANTED = [name for name in vars(Administration) if not name.startswith("_")]


@pytest.mark.parametrize("kind", [Local, Remote])
@pytest.mark.parametrize("name", WANTED)
def test_both_can_do_all_of_it(kind: type, name: str) -> None:
    wanted = inspect.signature(getattr(Administration, name))
    assert inspect.signature(getattr(kind, name)) == wanted


def test_whose_a_grant_is_is_known_at_home_only() -> None:
    grant = a_grant()
    home = SeenGrant(grant=grant, state=State.ACTIVE, at_home=True)
    assert home.kind == "local"
    assert SeenGrant(grant=grant, state=State.ACTIVE, at_home=False).kind is None
    resource = SeenGrant(grant=grant, state=State.ACTIVE, at_home=True, resource=("a", "b"))
    assert resource.kind == "kubernetes"


def test_a_new_grant_shows_neither_code_nor_token() -> None:
    shown = repr(NewGrant(grant=a_grant(), code="the-code", token="the-token"))
    assert "the-code" not in shown
    assert "the-token" not in shown
