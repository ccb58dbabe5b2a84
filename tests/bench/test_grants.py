import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence

import pytest
from sqlalchemy import delete, update

from app import settings
from app.domain.grants import Claim
from app.errors import Reason, Refused
from app.home import Home, open_home
from app.store import schema
from bench import grants, inside


@contextlib.contextmanager
def opened(installation: Mapping[str, str]) -> Iterator[Home]:
    home = open_home(settings.load(installation))
    with contextlib.closing(home.database):
        yield home


def redeem(home: Home, targets: Sequence[tuple[str, str]], subject: str) -> list[Reason | None]:
    """Redeem every grant in turn; tell why those were refused that were."""

    async def main() -> list[Reason | None]:
        own = inside.redeemer(home)
        found: list[Reason | None] = []
        for uid, code in targets:
            claim = Claim(
                key=uid, presented_code=code.encode(), name="t", subject=subject, peer="192.0.2.7"
            )
            try:
                await own.redeem(claim)
                found.append(None)
            except Refused as refused:
                found.append(refused.reason)
        await inside.close(own)
        return found

    return asyncio.run(main())


def test_every_grant_that_is_made_can_be_redeemed_and_is_counted(
    installation: Mapping[str, str],
) -> None:
    with opened(installation) as home:
        grants.make_site(installation)
        single = grants.make_grants(installation, 5, 1)
        shared = grants.make_grants(installation, 1, 3)
        assert len({uid for uid, _ in single + shared}) == 6
        assert grants.count_redemptions(installation) == (0, 0)

        assert redeem(home, single + shared, "east") == [None] * 6
        assert redeem(home, single + shared, "north") == [Reason.USED_UP] * 5 + [None]
        assert grants.count_redemptions(installation) == (7, 7)


def test_what_was_counted_and_what_was_written_down_are_counted_apart(
    installation: Mapping[str, str],
) -> None:
    with opened(installation) as home:
        grants.make_site(installation)
        single = grants.make_grants(installation, 2, 1)
        assert redeem(home, single, "east") == [None, None]
        with home.database.writing() as connection:
            rows = schema.redemptions
            connection.execute(delete(rows).where(rows.c.grant_id == single[0][0]))
        assert grants.count_redemptions(installation) == (1, 2)
        with home.database.writing() as connection:
            connection.execute(update(schema.grants).values(spent=0))
        assert grants.count_redemptions(installation) == (1, 0)


def test_a_command_that_fails_is_not_passed_over(installation: Mapping[str, str]) -> None:
    with pytest.raises(grants.CommandError, match="token issue"):
        grants.make_grants(installation, 1, 1)
