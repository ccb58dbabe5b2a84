import pytest

from app.web.revocation_lists import asked_for


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/crl/site-ca.crl", "site-ca"),
        ("/crl/a.b.crl", "a.b"),
        ("/crl/.crl", None),
        ("/crl/site-ca", None),
        ("/crl/x/y.crl", None),
        ("/crl.crl", None),
        ("//crl/site-ca.crl", None),
        ("/", None),
        ("/west/grant", None),
    ],
)
def test_a_path_asks_for_the_list_of_an_authority_or_for_none(path: str, name: str | None) -> None:
    assert asked_for(path) == name
