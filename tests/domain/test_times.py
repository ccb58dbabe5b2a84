import pytest

from app.domain.times import rfc3339


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
