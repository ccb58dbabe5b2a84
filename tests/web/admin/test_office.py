import asyncio
from collections.abc import Sequence

import pytest

from app.domain.callers import Caller, Kind, Verb, read_rights
from app.errors import Forbidden, GrantServerError, Missing
from app.services.admission import Admitted
from app.web.admin.office import run, want, want_of


def somebody(verbs: Sequence[str], sites: Sequence[str]) -> Admitted:
    return Admitted(caller=Caller(kind=Kind.TOKEN, name="ci"), rights=read_rights(verbs, sites))


@pytest.mark.parametrize(
    ("verbs", "sites", "verb", "site", "error"),
    [
        (["create"], ["west"], Verb.CREATE, "west", None),
        (["create"], ["west"], Verb.CREATE, "east", Forbidden),
        (["read"], ["west"], Verb.CREATE, "west", Forbidden),
        (["audit"], ["west"], Verb.AUDIT, None, Forbidden),
        (["audit"], ["*"], Verb.AUDIT, None, None),
    ],
)
def test_a_right_is_wanted(
    verbs: list[str],
    sites: list[str],
    verb: Verb,
    site: str | None,
    error: type[GrantServerError] | None,
) -> None:
    wanted = want(somebody(verbs, sites), verb, site)
    if error is None:
        asyncio.run(wanted)
    else:
        with pytest.raises(error):
            asyncio.run(wanted)


@pytest.mark.parametrize(
    ("verbs", "sites", "verb", "error"),
    [
        (["read"], ["west"], Verb.READ, None),
        (["read", "delete"], ["west"], Verb.DELETE, None),
        (["read"], ["west"], Verb.DELETE, Forbidden),
        (["delete"], ["west"], Verb.DELETE, Missing),
        (["*"], ["east"], Verb.DELETE, Missing),
    ],
)
def test_what_may_not_be_read_is_missing(
    verbs: list[str], sites: list[str], verb: Verb, error: type[GrantServerError] | None
) -> None:
    wanted = want_of(somebody(verbs, sites), verb, "west", "grant", "lab")
    if error is None:
        asyncio.run(wanted)
    else:
        with pytest.raises(error):
            asyncio.run(wanted)


def test_work_is_done_in_a_thread_and_its_error_comes_back() -> None:
    def fail(name: str, *, kind: str) -> None:
        raise Missing(kind, name)

    with pytest.raises(Missing, match='no grant "lab"'):
        asyncio.run(run(fail, "lab", kind="grant"))
