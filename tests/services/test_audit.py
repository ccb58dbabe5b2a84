import pytest

from app.domain.audit import Act
from app.errors import Invalid
from app.services import audit
from tests.builders import NOW, Stand


def test_everything_that_was_done_is_told_oldest_first(stand: Stand) -> None:
    stand.set_site()
    grant = stand.make_grant().grant
    entries = audit.latest(stand.database, limit=10)
    assert [entry.act for entry in entries] == [
        Act.AUTHORITY_CREATED,
        Act.AUTHORITY_CREATED,
        Act.SITE_SET,
        Act.GRANT_CREATED,
    ]
    assert audit.latest(stand.database, limit=1) == entries[-1:]
    assert audit.latest(stand.database, limit=9, target=f"grant/{grant.id}") == entries[-1:]
    assert audit.latest(stand.database, limit=9, target="site/west") == entries[2:3]
    assert audit.latest(stand.database, limit=9, target="site/nowhere") == []


def test_entries_are_told_by_act_actor_and_time(stand: Stand) -> None:
    stand.set_site()
    stand.make_grant()
    (site,) = audit.latest(stand.database, limit=9, act="site", actor="cli:", since=NOW, until=NOW)
    assert site.act is Act.SITE_SET
    assert audit.latest(stand.database, limit=9, act="site", since=NOW + 1) == []


def test_what_no_entry_can_have_is_refused_by_name(stand: Stand) -> None:
    with pytest.raises(Invalid, match=r"grant\.redeemed") as refused:
        audit.latest(stand.database, limit=9, act="grant.redeem")
    assert refused.value.field == "act"
    with pytest.raises(Invalid, match="is before since, which is 2026") as refused:
        audit.latest(stand.database, limit=9, since=NOW, until=NOW - 1)
    assert refused.value.field == "until"
