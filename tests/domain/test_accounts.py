import pytest

from app.domain.accounts import Account
from app.domain.callers import Caller, Kind


@pytest.mark.parametrize(
    ("username", "name"),
    [
        ("system:serviceaccount:shop:portal", "shop/portal"),
        ("jane", "user:jane"),
        ("https://issuer.example#42", "user:https://issuer.example#42"),
        ("shop/portal", "user:shop/portal"),
        ("system:serviceaccount:shop", "user:system:serviceaccount:shop"),
        ("system:serviceaccount:a:b:c", "user:system:serviceaccount:a:b:c"),
    ],
)
def test_an_account_is_named_so_that_nobody_passes_for_a_service_account(
    username: str, name: str
) -> None:
    assert Account(username=username).caller == Caller(kind=Kind.ACCOUNT, name=name)


@pytest.mark.parametrize("username", ["", "a\nb", "a" * 250])
def test_a_user_that_no_log_could_name_is_nobody(username: str) -> None:
    assert Account(username=username).caller is None
