from app.domain.audit import Act
from app.services import audit
from tests.builders import Stand


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
