import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.times import parse_moment, rfc3339
from app.errors import Invalid

NOW = 1_790_000_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_790_000_000, "2026-09-21T14:13:20Z"),
        (2**31, "2038-01-19T03:14:08Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
        (253_402_300_800, "9999-12-31T23:59:59Z"),
        (2**63, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_time_is_written_in_utc_up_to_the_last_that_the_format_has(
    seconds: int, text: str
) -> None:
    assert rfc3339(seconds) == text


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-09-21T14:13:20Z", NOW),
        ("2026-09-21T16:13:20+02:00", NOW),
        ("2026-09-21T14:13:20.900Z", NOW),
        ("0s", NOW),
        ("2h", NOW - 7200),
        ("1h30m", NOW - 5400),
        ("0001-01-01T00:00:00+14:00", -62135647200),
    ],
)
def test_a_time_is_read_as_it_is_written_or_as_how_long_ago_it_was(text: str, moment: int) -> None:
    assert parse_moment(text, now=NOW, field="since") == moment


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-09-21T14:13:20", "2026-09-21", "2 h", "\0"]
)
def test_what_is_no_time_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(Invalid, match=r"such as 2026-09-21T14:13:20Z .* 2h") as refused:
        parse_moment(text, now=NOW, field="since")
    assert refused.value.field == "since"


@given(st.text() | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:+.Z-]{0,20}", fullmatch=True))
def test_no_text_breaks_it(text: str) -> None:
    try:
        found = parse_moment(text, now=NOW, field="since")
    except Invalid:
        return
    assert isinstance(found, int)
