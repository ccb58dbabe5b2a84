import pytest

from app.domain.reach import Reach
from tests.builders import GRANT_ID, PEM


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://west.example", "west.example"),
        ("https://west.example:9090", "west.example"),
        ("https://192.0.2.1:9090", "192.0.2.1"),
        ("https://[2001:db8::1]:9090", "2001:db8::1"),
        ("https://[2001:db8::1]", "2001:db8::1"),
    ],
)
def test_the_host_and_the_url_of_a_grant_follow_from_the_base(url: str, host: str) -> None:
    reach = Reach(url=url, ca_pem=PEM)
    assert reach.host == host
    assert reach.url_of(GRANT_ID) == f"{url}/{GRANT_ID}"


def test_a_slash_at_the_end_of_the_base_is_not_doubled() -> None:
    assert Reach(url="https://h/", ca_pem=PEM).url_of("x") == "https://h/x"


def test_a_base_without_a_host_has_none() -> None:
    assert Reach(url="https:///", ca_pem=PEM).host == ""
