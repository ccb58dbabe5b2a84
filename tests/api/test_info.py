from app.api.info import Caller
from app.domain.callers import Kind


def test_of_an_account_no_rights_are_told() -> None:
    caller = Caller(kind=Kind.ACCOUNT, name="shop/portal", verbs=None, sites=None)
    assert Caller.model_validate_json(caller.model_dump_json()) == caller
