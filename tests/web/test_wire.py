import pytest

from app.errors import GrantServerError, Lack, Reason, Refused, Unready
from app.web.wire import LACKS, REFUSALS, cause, refusal
from tests.errors import one_of_each

EVERY_ERROR: list[GrantServerError] = [
    *(Refused(reason) for reason in Reason),
    *(Unready(lack, "detail") for lack in Lack),
    *one_of_each(),
]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=repr)
def test_every_error_has_a_constant_text_that_says_nothing_of_the_request(
    error: GrantServerError,
) -> None:
    answer = refusal(error)
    assert 400 <= answer.status < 600
    assert answer.text.isascii()
    assert answer.text.isprintable()
    assert str(error) not in answer.text or isinstance(error, Refused)


@pytest.mark.parametrize("error", EVERY_ERROR, ids=repr)
def test_every_error_has_a_cause_that_metrics_can_count(error: GrantServerError) -> None:
    assert cause(error).value


def test_the_tables_are_total() -> None:
    assert set(REFUSALS) == set(Reason)
    assert set(LACKS) == set(Lack)


@pytest.mark.parametrize(
    ("reason", "status", "text"),
    [
        (Reason.METHOD, 405, "Only POST is supported"),
        (Reason.BODY, 400, "Request body not valid"),
        (Reason.UNKNOWN_GRANT, 404, "No such claim"),
        (Reason.EXPIRED, 404, "No such claim"),
        (Reason.REVOKED, 404, "No such claim"),
        (Reason.USED_UP, 404, "No such access granted"),
        (Reason.WRONG_CODE, 403, "Redemption of access token refused"),
        (Reason.RATE_LIMITED, 429, "Too many failed attempts"),
        (Reason.CSR, 400, "Certificate request not valid"),
    ],
)
def test_the_texts_that_people_search_for_are_unchanged(
    reason: Reason, status: int, text: str
) -> None:
    answer = refusal(Refused(reason))
    assert (answer.status, answer.text) == (status, text)
