from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import authorities
from app.domain.authorities import (
    SPREAD_SECONDS,
    Authority,
    Purpose,
    ServerCertificate,
    State,
    Step,
    activated,
    active,
    bundle,
    can_sign_for_sites,
    due,
    ended,
    erasable,
    generation_name,
    keyless,
    listener_chain,
    nears_its_end,
    prepared,
    renewal_at,
    trusted,
)
from tests.builders import NOW, PEM, a_server_certificate, an_authority

DAY = 24 * 3600
LATER = NOW + 50 * DAY  # after the end of an authority that the builder makes


def test_neither_certificate_nor_sealed_key_shows() -> None:
    secret = an_authority(sealed_key=b"s3aled", cross_pem=PEM, back_pem=PEM)
    for value in (secret, a_server_certificate(sealed_key=b"s3aled", ca_pem=PEM)):
        assert "s3aled" not in repr(value)
        assert "BEGIN" not in repr(value)
        assert PEM not in repr(value)


def test_the_purposes_are_the_ones_that_the_database_knows() -> None:
    assert {purpose.value for purpose in Purpose} == {"site", "server"}


# Who is trusted, and who signs


def a_family(*states: State) -> list[Authority]:
    return [
        an_authority(
            id=number,
            name=f"ca-{number}",
            state=state,
            family=None if number == 1 else 1,
            certificate_pem=f"certificate {number}\n",
            cross_pem=f"cross {number}\n" if number > 1 else "",
        )
        for number, state in enumerate(states, start=1)
    ]


def test_the_one_that_signs_is_trusted_first_then_the_newest() -> None:
    family = a_family(State.ENDED, State.RETIRED, State.RETIRED, State.ACTIVE, State.PREPARED)
    assert [one.id for one in trusted(family)] == [4, 5, 3, 2]
    assert active(family) == family[3]
    assert active(a_family(State.PREPARED, State.RETIRED)) is None
    assert {one.root for one in family} == {1}


def test_a_bundle_of_one_is_that_one_to_the_byte() -> None:
    one = an_authority(certificate_pem="# ours\nA\n\n")
    assert bundle([one]) == "# ours\nA\n\n"
    assert bundle([one, an_authority(certificate_pem="B")]) == "# ours\nA\nB\n"


def test_the_chain_of_the_listener_leads_from_the_newest_to_the_oldest_that_is_trusted() -> None:
    one, two, three = a_family(State.RETIRED, State.RETIRED, State.ACTIVE)
    assert listener_chain([one, two, three], NOW) == (three, "cross 3\ncross 2\n")
    assert listener_chain([ended(one, now=NOW), two, three], NOW) == (three, "cross 3\n")
    assert listener_chain([three], NOW) == (three, "")
    waiting = replace(one, id=4, state=State.PREPARED)
    assert listener_chain([three, waiting], NOW) == (three, "")
    assert listener_chain([two], NOW) is None
    assert listener_chain([], NOW) is None


def test_one_that_accepts_nothing_between_signs_itself_as_long_as_it_can() -> None:
    one, two, three = a_family(State.RETIRED, State.RETIRED, State.ACTIVE)
    near = replace(one, back_pem="back\n")
    assert listener_chain([near, two, three], NOW) == (near, "back\n")
    assert listener_chain([near, two, three], near.not_after) == (near, "back\n")
    for unable in (
        keyless(near),
        replace(near, not_after=NOW - 1),
        replace(near, not_before=LATER),
    ):
        chain = listener_chain([unable, two, three], NOW)
        assert chain is not None
        assert chain[0] == three
    assert listener_chain([ended(near, now=NOW), two, three], NOW) == (three, "cross 3\n")


@pytest.mark.parametrize(
    ("changes", "can"),
    [
        ({}, True),
        ({"purpose": Purpose.SERVER}, False),
        ({"state": State.PREPARED}, False),
        ({"state": State.RETIRED}, False),
        ({"sealed_key": b""}, False),
    ],
)
def test_sites_are_led_to_what_signs_for_sites(changes: dict[str, object], can: bool) -> None:
    assert can_sign_for_sites(an_authority(**changes)) is can


# The steps


def test_a_prepared_one_signs_when_its_time_has_come() -> None:
    old = an_authority(id=1)
    waiting = prepared(an_authority(id=2), old, name="site-ca-2", now=NOW, due_at=NOW + DAY)
    assert (waiting.state, waiting.since, waiting.family) == (State.PREPARED, NOW, 1)
    assert due(waiting, NOW + DAY - 1) is None
    assert due(waiting, NOW + DAY) is Step.ACTIVATE
    before, after = activated(old, waiting, retired_name="site-ca-1", now=NOW + DAY, due_at=LATER)
    assert (before.name, before.state, before.due_at) == ("site-ca-1", State.RETIRED, LATER)
    assert (after.name, after.state, after.due_at) == ("site-ca", State.ACTIVE, None)
    assert {one.since for one in (before, after)} == {NOW + DAY}
    third = prepared(an_authority(id=3), after, name="site-ca-3", now=NOW, due_at=NOW)
    assert third.family == 1


def test_a_retired_one_loses_its_key_when_all_know_and_then_ends() -> None:
    retired = an_authority(purpose=Purpose.SERVER, state=State.RETIRED, since=NOW, due_at=NOW + DAY)
    assert due(retired, NOW + SPREAD_SECONDS - 1) is None
    assert due(retired, NOW + SPREAD_SECONDS) is Step.ERASE_KEY
    assert due(keyless(retired), NOW + DAY - 1) is None
    assert due(keyless(retired), NOW + DAY) is Step.END
    late = replace(retired, due_at=LATER)
    assert due(late, late.not_after) is Step.ERASE_KEY
    assert due(late, late.not_after + 1) is Step.END
    gone = ended(retired, now=NOW + DAY)
    assert (gone.state, gone.sealed_key, gone.since) == (State.ENDED, b"", NOW + DAY)


def test_a_retired_one_of_sites_keeps_its_key_for_its_revocation_list_until_it_ends() -> None:
    retired = an_authority(state=State.RETIRED, since=NOW, due_at=NOW + DAY)
    assert due(retired, NOW + DAY - 1) is None
    assert erasable(retired, LATER) is None
    assert due(retired, NOW + DAY) is Step.END
    assert ended(retired, now=NOW + DAY).sealed_key == b""


def test_one_that_still_signs_for_the_listener_keeps_its_key_until_it_ends() -> None:
    near = an_authority(state=State.RETIRED, since=NOW, due_at=NOW + DAY, back_pem=PEM)
    assert due(near, NOW + DAY - 1) is None
    assert erasable(near, NOW + DAY) is None
    assert due(near, NOW + DAY) is Step.END


@pytest.mark.parametrize("state", [State.ACTIVE, State.ENDED])
def test_what_signs_and_what_has_ended_has_no_next_step(state: State) -> None:
    assert due(an_authority(state=state, since=NOW, due_at=NOW), LATER) is None


@pytest.mark.parametrize(
    ("life", "left"), [(3650 * DAY, 365 * DAY), (3 * 365 * DAY, 365 * DAY), (300, 100), (4, 1)]
)
def test_one_nears_its_end_when_what_it_signs_would_or_a_third_of_its_life_is_left(
    life: int, left: int
) -> None:
    one = an_authority(not_before=NOW, not_after=NOW + life)
    for now, near in ((NOW + life - left, False), (NOW + life - left + 1, True), (LATER * 9, True)):
        assert nears_its_end(one, now, leaf_seconds=365 * DAY) is near


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["rotate", "wait", "now", "needed", "free"]), st.integers(0, 3 * DAY)
    ),
    max_size=40,
)
RANK = {state: place for place, state in enumerate(State)}


@given(EVENTS, st.integers(0, DAY), st.booleans())
def test_whatever_happens_one_signs_and_what_it_signed_is_trusted(
    events: list[tuple[str, int]], wait: int, near: bool
) -> None:
    """The machine alone, driven at random, with whether anything is in use decided at random."""
    now, in_use = NOW, True
    family = [an_authority(id=1, back_pem="")]
    used_at = {1: NOW}  # when each was last the one that signs
    for event, seconds in events:
        now += seconds
        waiting = next((one for one in family if one.state is State.PREPARED), None)
        signing = active(family)
        assert signing is not None
        before = {one.id: one for one in family}
        match event:
            case "rotate" if waiting is None:
                made = an_authority(id=len(family) + 1, not_after=now + 100 * DAY)
                names = {one.name for one in family}
                name = generation_name(signing.name, made.id, names)
                family.append(prepared(made, signing, name=name, now=now, due_at=now + wait))
            case "now" if waiting is not None:
                family = step(family, waiting, Step.ACTIVATE, now, near)
            case "needed" | "free":
                in_use = event == "needed"
        for one in list(family):
            taken = due(one, now)
            if taken is Step.END and in_use and now <= one.not_after:
                taken = erasable(one, now)
            if taken is not None:
                family = step(family, one, taken, now, near)
        for one in family:
            if one.state is State.ACTIVE:
                used_at[one.id] = now
        check(family, before, now, used_at, in_use)


def step(
    family: list[Authority], one: Authority, taken: Step, now: int, near: bool
) -> list[Authority]:
    changed = {other.id: other for other in family}
    if taken is Step.ACTIVATE:
        old = active(family)
        assert old is not None
        names = {other.name for other in family}
        retired, signing = activated(
            replace(old, back_pem=PEM if near and old.id == 1 else ""),
            one,
            retired_name=generation_name(old.name, old.id, names),
            now=now,
            due_at=now + SPREAD_SECONDS,
        )
        changed |= {retired.id: retired, signing.id: signing}
    elif taken is Step.ERASE_KEY:
        changed[one.id] = keyless(one)
    else:
        changed[one.id] = ended(one, now=now)
    return list(changed.values())


def check(
    family: list[Authority],
    before: dict[int, Authority],
    now: int,
    used_at: dict[int, int],
    in_use: bool,
) -> None:
    (signing,) = [one for one in family if one.state is State.ACTIVE]
    assert signing.name == "site-ca"
    assert signing.sealed_key
    assert len({one.name for one in family}) == len(family)
    assert len([one for one in family if one.state is State.PREPARED]) <= 1
    assert trusted(family)[0] == signing
    chain = listener_chain(family, now)
    assert chain is not None
    assert chain[0].sealed_key
    assert chain[0] in trusted(family)
    for one in family:
        old = before.get(one.id)
        assert old is None or RANK[old.state] <= RANK[one.state]  # nothing goes back
        if old is not None and one.state is not old.state:
            assert one.since == now
        if one.state is not State.ENDED and one.id in used_at:
            assert one in trusted(family)
        if not one.sealed_key:
            assert now >= used_at[one.id] + SPREAD_SECONDS or now > one.not_after
        if old is not None and one.state is State.ENDED and old.state is not State.ENDED:
            assert not in_use or now > one.not_after


# Names


def test_generations_are_counted_and_a_name_that_is_taken_is_passed_over() -> None:
    assert generation_name("site-ca", 1, ()) == "site-ca-1"
    assert generation_name("site-ca", 2, {"site-ca-2", "site-ca-3"}) == "site-ca-4"


@given(st.from_regex(r"[a-z]([a-z-]{0,61}[a-z])?", fullmatch=True), st.integers(1, 10**6))
def test_the_name_of_a_generation_is_a_name(name: str, number: int) -> None:
    made = generation_name(name, number, ())
    assert len(made) <= 63
    assert made.endswith(f"-{number}")
    assert made[0] == name[0]


# Renewal


def certificate(fingerprint: str, life: int) -> ServerCertificate:
    return a_server_certificate(fingerprint=fingerprint, created_at=NOW, not_after=NOW + life)


def test_a_certificate_is_renewed_after_two_thirds_of_its_life_and_a_little() -> None:
    life = 360 * DAY
    assert renewal_at(certificate("0" * 64, life)) == NOW + 240 * DAY
    assert renewal_at(certificate("8" + "0" * 63, life)) == NOW + 240 * DAY + life // 48
    last = renewal_at(certificate("f" * 64, life))
    assert NOW + 240 * DAY < last < NOW + 240 * DAY + life // 24


@given(st.integers(0, 2**256 - 1), st.integers(1, 4000 * DAY))
def test_every_certificate_is_renewed_within_its_life(fingerprint: int, life: int) -> None:
    made = certificate(f"{fingerprint:064x}", life)
    assert NOW + life * 2 // 3 <= renewal_at(made) <= NOW + life * 17 // 24
    assert authorities.renewal_at(made) == renewal_at(replace(made))  # every process says the same
