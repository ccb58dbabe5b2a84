import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.callers import (
    Caller,
    Kind,
    Rights,
    Verb,
    check_caller,
    read_entry,
    read_rights,
    written_sites,
    written_verbs,
)
from app.errors import Invalid

SITES = st.one_of(st.none(), st.frozensets(st.sampled_from(["east", "north", "west"]), min_size=1))
RIGHTS = st.builds(Rights, verbs=st.frozensets(st.sampled_from(Verb), min_size=1), sites=SITES)


def test_the_audit_log_names_a_caller_by_kind_and_name() -> None:
    assert Caller(kind=Kind.ACCOUNT, name="shop/portal").actor == "account:shop/portal"


def test_a_right_is_a_verb_at_a_site() -> None:
    rights = read_rights(["read", "create"], ["west"])
    assert rights.allow(Verb.CREATE, "west")
    assert not rights.allow(Verb.CREATE, "east")
    assert not rights.allow(Verb.DELETE, "west")


def test_what_belongs_to_no_site_needs_the_right_at_every_site() -> None:
    assert not read_rights(["manage"], ["west"]).allow(Verb.MANAGE, None)
    assert read_rights(["manage"], ["*"]).allow(Verb.MANAGE, None)


def test_a_star_is_every_verb_and_every_site() -> None:
    assert read_rights(["*"], ["*"]) == Rights(verbs=frozenset(Verb), sites=None)


@given(RIGHTS)
def test_rights_are_read_as_they_were_written(rights: Rights) -> None:
    assert read_rights(written_verbs(rights), written_sites(rights)) == rights


@given(RIGHTS, RIGHTS, st.sampled_from(Verb), st.sampled_from(["east", "north", "west", None]))
def test_rights_within_others_allow_nothing_that_those_do_not(
    some: Rights, others: Rights, verb: Verb, site: str | None
) -> None:
    if some.within(others) and some.allow(verb, site):
        assert others.allow(verb, site)


def test_all_sites_are_not_within_some() -> None:
    assert not read_rights(["read"], ["*"]).within(read_rights(["*"], ["west"]))


@pytest.mark.parametrize(
    ("verbs", "sites", "field"),
    [
        ([], ["west"], "verbs"),
        (["write"], ["west"], "verbs"),
        (["read"], [], "sites"),
        (["read"], ["no site"], "sites"),
        (["read"], [f"s{number}" for number in range(65)], "sites"),
    ],
)
def test_rights_that_cannot_be_are_named(verbs: list[str], sites: list[str], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_rights(verbs, sites)
    assert caught.value.field == field


@pytest.mark.parametrize("name", ["ci", "portal@shop", "Ops Team", "shop/portal", "a" * 253])
def test_a_name_of_a_caller_is_plain(name: str) -> None:
    check_caller("name", name)


@pytest.mark.parametrize("name", ["", " ci", "ci ", "c\ni", "c\x00", "ü", "a" * 254])
def test_a_name_that_would_confuse_a_reader_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_caller("name", name)
    assert caught.value.field == "name"


@given(st.sampled_from(["ci", "portal@shop", "Ops Team"]), RIGHTS)
def test_an_entry_says_who_may_what_where(name: str, rights: Rights) -> None:
    verbs, sites = "+".join(written_verbs(rights)), "+".join(written_sites(rights))
    assert read_entry(f"{name}={verbs}@{sites}") == (name, rights)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "name"),
        ("=read@west", "name"),
        ("ci", "sites"),
        ("ci=read", "sites"),
        ("ci=read@", "sites"),
        ("ci=@west", "verbs"),
        ("ci=write@west", "verbs"),
        ("ci=read@west+", "sites"),
    ],
)
def test_an_entry_that_cannot_be_read_is_refused(text: str, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_entry(text)
    assert caught.value.field == field
