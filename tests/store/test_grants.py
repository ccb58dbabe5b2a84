from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, insert

from app.domain.grants import Filter, Redemption, Sort, State
from app.domain.policies import Policy
from app.errors import Conflict
from app.store import authorities, grants, schema, sites
from app.store.engine import Connection, Database
from tests.builders import GRANT_ID, NOW, WINDOW, a_grant, a_redemption, an_authority

OTHER_ID = GRANT_ID.replace("2", "3")


@pytest.fixture
def base(database: Database) -> Database:
    with database.writing() as connection:
        issuer = authorities.add(connection, an_authority())
        for name in ("west", "south"):
            sites.put(connection, name=name, issuer_id=issuer, wanted=(), now=NOW)
    return database


def redeem(connection: Connection, redemption: Redemption) -> None:
    values = {
        name: getattr(redemption, name)
        for name in schema.redemptions.columns.keys()  # noqa: SIM118 - a collection of columns
        if name not in {"id", "revoked_at", "superseded_at"}
    }
    connection.execute(insert(schema.redemptions).values(values))


def test_a_grant_comes_back_as_it_was(base: Database) -> None:
    plain = a_grant()
    full = a_grant(
        id=OTHER_ID, name="other", issuer="site-ca", spent=1, cost=99999, revoked_at=NOW + 1
    )
    with base.writing() as connection:
        grants.add(connection, plain)
        grants.add(connection, full)
    with base.reading() as connection:
        assert grants.by_id(connection, plain.id) == plain
        assert grants.by_id(connection, full.id) == full
        assert grants.by_id(connection, "x") is None


def test_grants_are_found_by_name_and_site_as_far_as_given_oldest_first(base: Database) -> None:
    made = [
        a_grant(id=OTHER_ID, name="a", created_at=NOW - 5),
        a_grant(name="a", site="south", created_at=NOW - 9),
        a_grant(id="4" * 36, name="b"),
        a_grant(id="5" * 36, name="c", created_at=NOW - 5),
    ]
    with base.writing() as connection:
        for grant in made:
            grants.add(connection, grant)
    oldest_first = [made[1], made[0], made[3], made[2]]
    with base.reading() as connection:
        assert grants.matching(connection) == oldest_first
        assert grants.matching(connection, name="a") == oldest_first[:2]
        assert grants.matching(connection, site="south") == [made[1]]
        assert grants.matching(connection, name="a", site="west") == [made[0]]
        assert grants.matching(connection, name="c", site="south") == []


@pytest.mark.parametrize(
    "twin",
    [a_grant(id=OTHER_ID), a_grant(name="other"), a_grant(id=OTHER_ID, name="b", site="nowhere")],
    ids=["same name", "same id", "unknown site"],
)
def test_a_grant_that_cannot_be_kept_conflicts(base: Database, twin: object) -> None:
    with base.writing() as connection:
        grants.add(connection, a_grant())
    with pytest.raises(Conflict), base.writing() as connection:
        grants.add(connection, twin)  # type: ignore[arg-type]


def test_two_sites_may_each_have_a_grant_of_one_name(base: Database) -> None:
    with base.writing() as connection:
        grants.add(connection, a_grant())
        grants.add(connection, a_grant(id=OTHER_ID, site="south"))


def test_a_grant_is_revoked_once_and_keeps_its_time(base: Database) -> None:
    with base.writing() as connection:
        grants.add(connection, a_grant())
        grants.add(connection, a_grant(id=OTHER_ID, name="other"))
        assert grants.revoke(connection, GRANT_ID, NOW + 1)
        assert not grants.revoke(connection, GRANT_ID, NOW + 2)
        assert not grants.revoke(connection, "x", NOW)
        assert grants.by_id(connection, GRANT_ID) == a_grant(revoked_at=NOW + 1)
        assert grants.by_id(connection, OTHER_ID) == a_grant(id=OTHER_ID, name="other")


def test_redemptions_come_back_first_one_first_and_go_with_their_grant(base: Database) -> None:
    made = [a_redemption(ordinal=ordinal) for ordinal in (1, 2, 3)]
    with base.writing() as connection:
        grants.add(connection, a_grant(allowed=3))
        grants.add(connection, a_grant(id=OTHER_ID, name="other"))
        for redemption in (made[2], made[0], made[1]):
            redeem(connection, redemption)
        other = a_redemption(grant_id=OTHER_ID)
        redeem(connection, other)
        assert grants.redemptions_of(connection, GRANT_ID) == made
        assert grants.redemptions_of(connection, GRANT_ID, limit=2) == made[:2]
        assert grants.redemptions_of(connection, "x") == []
        assert grants.remove(connection, GRANT_ID)
        assert not grants.remove(connection, GRANT_ID)
        assert grants.redemptions_of(connection, GRANT_ID) == []
        assert grants.redemptions_of(connection, OTHER_ID) == [other]


def test_the_newest_redemptions_come_back_oldest_of_them_first(base: Database) -> None:
    with base.writing() as connection:
        grants.add(connection, a_grant())
        for ordinal in (1, 2, 3):
            redeem(connection, a_redemption(ordinal=ordinal))
    with base.reading() as connection:
        newest = grants.newest_redemptions(connection, GRANT_ID, 2)
        assert [one.ordinal for one in newest] == [2, 3]
        assert grants.last_redemption(connection, GRANT_ID) == newest[-1]
        assert grants.count_redemptions(connection, GRANT_ID) == 3
        assert grants.newest_redemptions(connection, "nobody", 2) == []
        assert grants.last_redemption(connection, "nobody") is None
        assert grants.count_redemptions(connection, "nobody") == 0


def test_grants_are_counted_by_the_very_state_that_the_domain_gives_them(base: Database) -> None:
    made = [
        a_grant(id=f"{number:036}", name=f"g{number}", spent=spent, revoked_at=revoked)
        for number, (spent, revoked) in enumerate(
            [(0, None), (1, None), (2, None), (0, NOW), (2, NOW), (0, None)]
        )
    ]
    with base.writing() as connection:
        for grant in made:
            grants.add(connection, grant)
    for now in (NOW, NOW + WINDOW - 1, NOW + WINDOW, NOW + 10 * WINDOW):
        expected = dict.fromkeys(State, 0)
        for grant in made:
            expected[grant.state(now)] += 1
        with base.reading() as connection:
            assert grants.count_by_state(connection, now) == expected


def test_without_grants_every_state_counts_none(database: Database) -> None:
    with database.reading() as connection:
        assert grants.count_by_state(connection, NOW) == dict.fromkeys(State, 0)


POLICY = Policy(networks=("10.0.0.0/8",), per_subject=1)


def listed(base: Database, which: Filter | None = None, **changes: Any) -> list[str]:
    """The names of all grants that are asked for, page by page, each of two."""
    names: list[str] = []
    after: Any = None
    options: dict[str, Any] = {"sort": Sort.CREATED_AT, "descending": False, "now": NOW}
    options |= changes
    column = options["sort"].value
    while True:
        with base.reading() as connection:
            found = grants.page(connection, which or Filter(), limit=2, after=after, **options)
        names += [one.name for one in found]
        if len(found) < 2:
            return names
        after = getattr(found[-1], column), found[-1].id


@pytest.fixture
def several(base: Database) -> Database:
    """Grants a to g, two of which were made at one time."""
    made = [
        a_grant(name="a", created_at=NOW - 9, expires_at=NOW + 9, labels={"team": "ops", "x": ""}),
        a_grant(name="b", created_at=NOW - 9, expires_at=NOW, labels={"team": "dev"}),
        a_grant(name="c", created_at=NOW - 8, revoked_at=NOW - 1, labels={"team": "ops"}),
        a_grant(name="d", created_at=NOW - 7, spent=2, site="south"),
        a_grant(name="da", created_at=NOW - 6, expires_at=NOW - 1, spent=2, site="south"),
        a_grant(name="e", created_at=NOW - 5, policy=POLICY, not_before=NOW + 1, description="é"),
        a_grant(name="b", created_at=NOW - 4, site="south"),
    ]
    with base.writing() as connection:
        for number, one in enumerate(made):
            grants.add(connection, replace(one, id=f"{number:036}"))
    return base


def test_a_grant_comes_back_with_its_policy_and_labels(several: Database) -> None:
    with several.reading() as connection:
        (found,) = grants.matching(connection, name="e")
        (labelled,) = grants.matching(connection, name="a")
    assert (found.policy, found.not_before, found.description) == (POLICY, NOW + 1, "é")
    assert labelled.labels == {"team": "ops", "x": ""}
    assert (labelled.policy, labelled.not_before, labelled.description) == (None, None, "")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["a", "b", "c", "d", "da", "e", "b"]),
        ({"descending": True}, ["b", "e", "da", "d", "c", "b", "a"]),
        ({"sort": Sort.NAME}, ["a", "b", "b", "c", "d", "da", "e"]),
        ({"sort": Sort.NAME, "descending": True}, ["e", "da", "d", "c", "b", "b", "a"]),
        ({"sort": Sort.EXPIRES_AT}, ["da", "b", "a", "c", "d", "e", "b"]),
    ],
)
def test_pages_together_are_all_grants_once_in_order(
    several: Database, changes: Any, names: list[str]
) -> None:
    assert listed(several, **changes) == names


@pytest.mark.parametrize(
    ("which", "names"),
    [
        (Filter(sites=frozenset({"south"})), ["d", "da", "b"]),
        (Filter(sites=frozenset({"south", "west", "x"})), ["a", "b", "c", "d", "da", "e", "b"]),
        (Filter(sites=frozenset({"x"})), []),
        (Filter(sites=frozenset()), []),
        (Filter(state=State.ACTIVE), ["a", "e", "b"]),
        (Filter(state=State.EXPIRED), ["b"]),
        (Filter(state=State.USED_UP), ["d", "da"]),
        (Filter(state=State.REVOKED), ["c"]),
        (Filter(name_prefix="d"), ["d", "da"]),
        (Filter(name_prefix="%"), []),
        (Filter(label=("team", "ops")), ["a", "c"]),
        (Filter(label=("x", "")), ["a"]),
        (Filter(label=("team", "")), []),
        (Filter(label=("team", "ops"), state=State.ACTIVE), ["a"]),
        (Filter(sites=frozenset({"west"}), name_prefix="b"), ["b"]),
    ],
)
@pytest.mark.parametrize("few", [0, 5_000])
def test_a_filter_lets_through_what_is_asked_for(
    several: Database,
    which: Filter,
    names: list[str],
    few: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grants, "_FEW", few)
    for sort in Sort:
        assert sorted(listed(several, which, sort=sort)) == sorted(names)
    assert listed(several, which) == names


@pytest.mark.parametrize(
    ("state", "index"),
    [(State.ACTIVE, "ix_grants_expires_at"), (State.REVOKED, "ix_grants_revoked_at")],
)
@pytest.mark.parametrize("sort", Sort)
def test_few_in_a_state_are_found_without_a_look_at_all_others(
    sqlite_database: Database, state: State, index: str, sort: Sort
) -> None:
    asked: list[str] = []

    def note(_c: Any, _k: Any, statement: str, values: Any, _x: Any, _m: Any) -> None:
        asked.append(statement)
        given.append(values)

    given: list[Any] = []
    with sqlite_database.reading() as connection:
        event.listen(connection, "before_cursor_execute", note)
        grants.page(
            connection,
            Filter(state=state),
            now=NOW,
            sort=sort,
            descending=False,
            limit=9,
            after=("x" if sort is Sort.NAME else 1, "y"),
        )
        event.remove(connection, "before_cursor_execute", note)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked[-1]}", given[-1]).all()
    assert any(index in row.detail for row in plan), plan


def test_the_state_that_is_asked_for_is_the_state_that_is_shown(several: Database) -> None:
    with several.reading() as connection:
        every = grants.matching(connection)
    for state in State:
        expected = sorted(one.name for one in every if one.state(NOW) is state)
        assert sorted(listed(several, Filter(state=state))) == expected


def test_what_is_changed_is_found_by_its_new_labels(several: Database) -> None:
    with several.writing() as connection:
        (grant,) = grants.matching(connection, name="a")
        changed = replace(
            grant, allowed=9, expires_at=NOW + 99, labels={"team": "dev"}, description="now"
        )
        grants.change(connection, changed)
        assert grants.locked(connection, grant.id) == changed
        assert grants.locked(connection, "x") is None
    assert listed(several, Filter(label=("team", "ops"))) == ["c"]
    assert listed(several, Filter(label=("team", "dev"))) == ["a", "b"]


def test_the_labels_of_a_grant_go_with_it(several: Database) -> None:
    with several.writing() as connection:
        (grant,) = grants.matching(connection, name="a")
        grants.remove(connection, grant.id)
    assert listed(several, Filter(label=("team", "ops"))) == ["c"]


def test_a_policy_is_exchanged_alone(several: Database) -> None:
    with several.writing() as connection:
        (grant,) = grants.matching(connection, name="e")
        grants.change_policy(connection, grant.id, None)
        assert grants.by_id(connection, grant.id) == replace(grant, policy=None)
