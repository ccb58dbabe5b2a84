"""The story of a grant, for the operator."""

from collections.abc import Callable

from app.domain.grants import Grant
from app.domain.stories import MOST_MOMENTS, Story, moments, standing
from app.errors import Invalid
from app.services.grants import named
from app.services.prospects import in_the_way
from app.store import audit as audit_rows
from app.store import grants as grant_rows
from app.store import wrong_codes
from app.store.engine import Database


def explain(
    database: Database,
    name: str,
    *,
    site: str | None = None,
    now: int,
    limit: int,
    check: Callable[[Grant], None] | None = None,
) -> Story:
    """Tell what happened to a grant, by its name or id, and how it stands.

    Of too many moments the newest `limit` are told, and how many others there are. `check` is
    called with the grant before anything else is read of it, and raises to prevent that. Raises
    Missing, Invalid("site", …) when several sites have a grant of this name, Invalid("limit", …).
    """
    if not 1 <= limit <= MOST_MOMENTS:
        raise Invalid("limit", f"expected 1 to {MOST_MOMENTS}")
    with database.reading() as connection:
        grant = named(connection, name, site)
        if check is not None:
            check(grant)
        target = f"grant/{grant.id}"
        entries = audit_rows.besides_redemptions(connection, target, limit)
        redemptions = grant_rows.newest_redemptions(connection, grant.id, limit)
        kept = audit_rows.count_besides_redemptions(connection, target)
        kept += grant_rows.count_redemptions(connection, grant.id)
        found = in_the_way(connection, grant, now=now)
        wrong = wrong_codes.count(connection, grant.id)
    told = moments(grant, entries, redemptions, whole=kept <= limit)
    # One may be there that no row tells: that the grant was made.
    newest = told[-limit:]
    return Story(
        id=grant.id,
        name=grant.name,
        site=grant.site,
        created_at=grant.created_at,
        now=now,
        moments=newest,
        left_out=max(kept, len(told)) - len(newest),
        standing=standing(grant, now=now, found=found, wrong_codes=wrong),
    )
