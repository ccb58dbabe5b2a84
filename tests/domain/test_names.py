import string

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from app.domain.names import (
    check_claimed_name,
    check_name,
    common_name,
    is_host_name,
    is_object_name,
    printable,
)
from app.errors import Invalid, Reason, Refused

LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=253)

GOOD_LABELS = ("a", "0", "west", "a-b", "a--b", "123", "null", "1e3", "n", "a" * 63)
BAD_NAMES = (
    "", "-", "a-", "-a", ".", "a.", ".a", "a..b", "a-.b", "a.-b", "A", "West", "a_b", "a b", "a/b",
    "../x", "..", "a\n", "\na", "a\x00", "\u00e9", "\u0661", "\uff41", "\ud800", "a:b", "a%2e",
)  # fmt: skip


@pytest.mark.parametrize("name", [*GOOD_LABELS, "a.b", "a.b.c", "0.0", "a" * 253, "a.1-2.b"])
def test_an_rfc_1123_subdomain_is_an_object_name(name: str) -> None:
    assert is_object_name(name)
    check_claimed_name(name)


@pytest.mark.parametrize("name", [*BAD_NAMES, "a" * 254])
def test_nothing_else_is_an_object_name(name: str) -> None:
    assert not is_object_name(name)
    with pytest.raises(Refused) as refused:
        check_claimed_name(name)
    assert refused.value.reason is Reason.NAME


@pytest.mark.parametrize("name", ["a", "a.b", "1.a", "a-b.c1", "xn--a", "a" * 63])
def test_a_certificate_can_name_a_host(name: str) -> None:
    assert is_host_name(name)


@pytest.mark.parametrize("name", [*BAD_NAMES, "a_b.c", "a.1", "1", "1.2.3.4", "a" * 64, "*.a.b"])
def test_a_certificate_can_name_nothing_else(name: str) -> None:
    assert not is_host_name(name)


@pytest.mark.parametrize("name", GOOD_LABELS)
def test_our_own_things_are_named_by_a_label(name: str) -> None:
    check_name("site", name)


@pytest.mark.parametrize("name", [*BAD_NAMES, "a.b", "a" * 64, "x" * 100_000])
def test_what_is_no_label_is_refused_naming_the_field(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_name("site", name)
    assert refused.value.field == "site"
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 600


@given(st.lists(LABEL, min_size=1, max_size=6))
def test_labels_joined_by_dots_are_object_names(labels: list[str]) -> None:
    assert is_object_name(".".join(labels))


@given(st.text(string.ascii_lowercase + string.digits + "-.A_/ \n", max_size=300))
def test_what_passes_is_safe_as_a_file_name(name: str) -> None:
    if is_object_name(name):
        assert "/" not in name
        assert ".." not in name
        assert 1 <= len(name) <= 253
        assert name == name.strip().lower()


@pytest.mark.parametrize("subject", ["x", "east", "a" * 64, "\u00e9" * 32, "Z\u00fcrich 1, #2"])
def test_a_subject_that_fits_is_kept_as_it_is(subject: str) -> None:
    assert common_name(subject) == subject


def test_a_longer_subject_is_shortened_as_documented() -> None:
    assert common_name("a" * 65) == "a" * 31 + "-635361c48bb9eab14198e76ea8ab7f1a"
    # A character that the cut goes through is left out whole.
    assert common_name("\u00e9" * 33).startswith("\u00e9" * 15 + "-")


@pytest.mark.parametrize(
    "subject",
    ["", "a" * 254, "a\n", "\x00", "a\x7fb", "\ud800", "a\u2028b", "\u200b", "a\tb", "\xa0"],
)
def test_a_subject_that_cannot_be_a_common_name_is_refused(subject: str) -> None:
    with pytest.raises(Refused) as refused:
        common_name(subject)
    assert refused.value.reason is Reason.SUBJECT


@example("a" * 253)
@example("\U0001f600" * 253)
@example("\u20ac" * 22)
@given(PRINTABLE)
def test_every_printable_subject_fits_and_always_becomes_the_same(subject: str) -> None:
    assume(subject.isprintable())
    made = common_name(subject)
    assert 1 <= len(made.encode()) <= 64
    assert made == common_name(subject)
    assert made.isprintable()


@given(
    st.text("ab\u00e9\u20ac\U0001f600", min_size=65, max_size=253),
    st.text("ab\u00e9\u20ac\U0001f600", min_size=65, max_size=253),
)
def test_two_long_subjects_stay_apart(one: str, other: str) -> None:
    assume(one != other)
    assert common_name(one) != common_name(other)


def test_long_subjects_that_differ_in_the_last_character_only_stay_apart() -> None:
    assert common_name("a" * 100 + "b") != common_name("a" * 100 + "c")


@given(st.text(max_size=300))
def test_no_subject_raises_anything_but_refused(subject: str) -> None:
    try:
        made = common_name(subject)
    except Refused as refused:
        assert refused.reason is Reason.SUBJECT  # noqa: PT017 - both outcomes are right
    else:
        assert len(made.encode()) <= 64


@given(st.text())
def test_what_is_printable_can_be_shown_stored_and_encoded(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text
