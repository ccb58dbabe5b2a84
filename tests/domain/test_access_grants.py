from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.access_grants import (
    DEFAULT_WINDOW_SECONDS,
    LONGEST_CODE,
    REVOKED,
    Told,
    Wanted,
    kept_name,
    read_told,
    read_wanted,
)
from app.domain.durations import format_seconds
from app.domain.grants import MOST_REDEMPTIONS
from app.domain.names import is_object_name
from app.domain.times import rfc3339
from app.errors import Invalid
from tests.builders import CODE, NOW

CENTURY = 100 * 365 * 86_400
LATEST = 253_402_300_799  # 9999-12-31T23:59:59Z
OBJECT_NAMES = st.from_regex(
    r"\A[a-z0-9]([-a-z0-9]{0,100}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,100}[a-z0-9])?){0,2}\Z"
).filter(is_object_name)
CODES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=LONGEST_CODE // 4)
# What JSON can hold, and nothing that a schema would have checked.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("1h"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def refusal(**spec: object) -> Invalid:
    with pytest.raises(Invalid) as refused:
        read_wanted(spec)
    return refused.value


def revoked(message: object, kind: str = "Ready") -> dict[str, Any]:
    return {"conditions": [{"type": "Processed"}, {"type": kind, "message": message}]}


# What a resource asks for.


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"redemptionsAllowed": 0, "expirationWindow": "", "code": "", "issuer": ""},
        {"redemptionsAllowed": None, "expirationWindow": None, "code": None, "issuer": None},
        {"redemptionsAllowed": 1, "expirationWindow": "15m", "settings": {"x": "y"}},
    ],
)
def test_what_is_not_given_is_one_redemption_within_a_quarter_of_an_hour(
    spec: dict[str, object],
) -> None:
    assert read_wanted(spec) == Wanted(allowed=1, window_seconds=900, code=None, issuer=None)
    assert DEFAULT_WINDOW_SECONDS == 900


@given(
    st.integers(1, MOST_REDEMPTIONS),
    st.integers(1, CENTURY),
    CODES,
    OBJECT_NAMES,
)
def test_what_is_given_is_what_is_wanted(
    allowed: int, seconds: int, code: str, issuer: str
) -> None:
    spec = {
        "redemptionsAllowed": allowed,
        "expirationWindow": format_seconds(seconds),
        "code": code,
        "issuer": issuer,
    }
    wanted = Wanted(allowed=allowed, window_seconds=seconds, code=code, issuer=issuer)
    assert read_wanted(spec) == wanted


@pytest.mark.parametrize(
    ("window", "seconds"), [("1h30m", 5400), ("1.5h", 5400), ("90s", 90), ("1ms", 1), ("+1m", 60)]
)
def test_a_window_is_a_go_duration_and_lasts_a_second_at_least(window: str, seconds: int) -> None:
    assert read_wanted({"expirationWindow": window}).window_seconds == seconds


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("redemptionsAllowed", -1),
        ("redemptionsAllowed", MOST_REDEMPTIONS + 1),
        ("redemptionsAllowed", 2**80),
        ("redemptionsAllowed", 1.0),
        ("redemptionsAllowed", "2"),
        ("redemptionsAllowed", ""),
        ("redemptionsAllowed", True),
        ("redemptionsAllowed", False),
        ("redemptionsAllowed", []),
        ("expirationWindow", "1d"),
        ("expirationWindow", "0s"),
        ("expirationWindow", "0"),
        ("expirationWindow", "-15m"),
        ("expirationWindow", "15"),
        ("expirationWindow", 900),
        ("expirationWindow", 0),
        ("expirationWindow", format_seconds(CENTURY + 1)),
        ("expirationWindow", "2562047h"),
        ("code", 5),
        ("code", ["x"]),
        ("code", "x" * (LONGEST_CODE + 1)),
        ("code", "\u00e9" * (LONGEST_CODE // 2 + 1)),
        ("code", "\ud800"),
        ("issuer", "../x"),
        ("issuer", "CA"),
        ("issuer", "x" * 254),
        ("issuer", 7),
        ("issuer", False),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(field: str, value: object) -> None:
    refused = refusal(**{field: value})
    assert refused.field == field
    assert refused.why


def test_the_longest_code_fits() -> None:
    assert read_wanted({"code": "x" * LONGEST_CODE}).code == "x" * LONGEST_CODE


@given(
    st.dictionaries(
        st.sampled_from(["redemptionsAllowed", "expirationWindow", "code", "issuer"]), ANYTHING
    )
)
def test_any_spec_is_read_or_refused_with_one_of_its_fields(spec: dict[str, Any]) -> None:
    try:
        wanted = read_wanted(spec)
    except Invalid as refused:
        blamed = refused.field
    else:
        assert 1 <= wanted.allowed <= MOST_REDEMPTIONS
        assert 1 <= wanted.window_seconds <= CENTURY
        assert wanted.code is None or 1 <= len(wanted.code.encode()) <= LONGEST_CODE
        assert wanted.issuer is None or is_object_name(wanted.issuer)
        return
    assert blamed in spec


def test_no_code_shows_in_what_is_wanted_or_was_told() -> None:
    assert CODE not in repr(read_wanted({"code": CODE}))
    assert CODE not in repr(read_told({"code": CODE}))


# What a status said.


def test_a_status_of_skupper_tells_code_redemptions_and_end() -> None:
    status = {
        "status": "Ready",
        "message": "OK",
        "url": "https://10.0.0.1:9090/2b3f3a1c",
        "code": CODE,
        "ca": "-----BEGIN CERTIFICATE-----",
        "redemptions": 3,
        "expirationTime": "2026-11-22T08:00:00Z",
        "conditions": [{"type": "Ready", "status": "True", "message": "OK"}],
    }
    ends = int(datetime(2026, 11, 22, 8, tzinfo=UTC).timestamp())
    assert read_told(status) == Told(code=CODE, spent=3, expires_at=ends)


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"status": "Pending", "message": "Pending", "redemptions": 0},
        {"code": "", "redemptions": None, "expirationTime": None, "conditions": None},
        {"conditions": [None, 5, {}, {"type": "Ready"}, {"type": "Ready", "message": None}]},
        {"conditions": "Revoked at 2026-11-22T08:00:00Z"},
        {"message": f"{REVOKED}2026-11-22T08:00:00Z"},  # which anybody may write
        revoked(f"{REVOKED}2026-11-22T08:00:00Z", kind="Processed"),
        revoked(f"not {REVOKED}2026-11-22T08:00:00Z"),
    ],
)
def test_a_status_that_says_nothing_of_a_grant_tells_nothing(status: dict[str, Any]) -> None:
    assert read_told(status) is None


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({"code": CODE}, Told(code=CODE)),
        ({"redemptions": 2}, Told(spent=2)),
        ({"expirationTime": rfc3339(NOW)}, Told(expires_at=NOW)),
        (revoked(f"{REVOKED}{rfc3339(NOW)}"), Told(revoked_at=NOW)),
        (revoked(f"{REVOKED}{rfc3339(NOW)}; suspected token theft"), Told(revoked_at=NOW)),
        ({"redemptions": 10**30}, Told(spent=MOST_REDEMPTIONS)),
    ],
)
def test_each_part_that_a_status_tells_counts_alone(status: dict[str, Any], told: Told) -> None:
    assert read_told(status) == told


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("code", 5),
        ("code", "x" * (LONGEST_CODE + 1)),
        ("code", "\udfff"),
        ("redemptions", -1),
        ("redemptions", True),
        ("redemptions", "2"),
        ("redemptions", 2.0),
        ("expirationTime", NOW),
        ("expirationTime", ""),
        ("expirationTime", "soon"),
        ("expirationTime", "2026-11-22"),
        ("expirationTime", "2026-11-22T08:00:00"),  # whose time?
        ("expirationTime", "0001-01-01T00:00:00Z"),
        ("expirationTime", "1970-01-01T00:00:00Z"),
        ("expirationTime", "2026-13-01T00:00:00Z"),
    ],
)
def test_what_is_not_in_order_counts_as_not_said(field: str, value: object) -> None:
    assert read_told({field: value}) is None
    good = {"code": CODE, "redemptions": 2, "expirationTime": rfc3339(NOW)}
    told = read_told({**good, field: value})
    assert told is not None
    assert [told.code, told.spent, told.expires_at].count(
        {"code": None, "redemptions": 0, "expirationTime": None}[field]
    ) == 1


@given(st.integers(1, LATEST))
def test_an_end_is_read_as_we_write_it(moment: int) -> None:
    assert read_told({"expirationTime": rfc3339(moment)}) == Told(expires_at=moment)
    assert read_told(revoked(f"{REVOKED}{rfc3339(moment)}")) == Told(revoked_at=moment)


@pytest.mark.parametrize("written", ["2026-11-22T10:00:00+02:00", "2026-11-22T08:00:00.9Z"])
def test_an_end_may_have_an_offset_and_a_fraction(written: str) -> None:
    ends = int(datetime(2026, 11, 22, 8, tzinfo=UTC).timestamp())
    assert read_told({"expirationTime": written}) == Told(expires_at=ends)


@given(
    st.dictionaries(
        st.sampled_from(["code", "redemptions", "expirationTime", "conditions"]), ANYTHING
    )
)
def test_any_status_is_read_and_what_it_tells_can_be_stored(status: dict[str, Any]) -> None:
    told = read_told(status)
    if told is not None:
        assert 0 <= told.spent <= MOST_REDEMPTIONS
        assert told.expires_at is None or 1 <= told.expires_at <= LATEST + 86_400
        assert told.code is None or 1 <= len(told.code.encode()) <= LONGEST_CODE


# Names.


@given(OBJECT_NAMES)
def test_a_kept_name_fits_can_be_claimed_and_is_the_resources_own_if_that_fits(name: str) -> None:
    kept = kept_name(name)
    assert len(kept) <= 63
    assert is_object_name(kept)
    assert (kept == name) == (len(name) <= 63)
    assert kept_name(kept) == kept


@given(st.text(max_size=300))
def test_any_text_has_a_kept_name(name: str) -> None:
    assert len(kept_name(name)) <= 63


def test_long_names_that_differ_at_their_ends_alone_are_kept_apart() -> None:
    long = "a" * 29 + "." + "b" * 200
    assert kept_name(long + "0") != kept_name(long + "1")
    assert kept_name(long).startswith("a" * 29 + "-")
