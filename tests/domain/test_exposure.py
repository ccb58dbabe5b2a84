from ipaddress import ip_address
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.exposure import Address, in_order, read_host, read_port, stable_choice
from app.domain.sites import check_host

HOSTS = st.one_of(
    st.ip_addresses().map(str),
    st.from_regex(r"[a-z]{1,9}(\.[a-z]{1,9}){0,3}", fullmatch=True),
)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("192.0.2.9", "192.0.2.9"),
        ("2001:DB8:0:0::9", "2001:db8::9"),
        ("LB.Example.", "lb.example"),
        ("a_b.example", None),
        ("lb.123", None),
        ("", None),
        ("300.1.1.1", None),
        ("a b", None),
        ("fe80::1%eth0", None),
        ("fe80::1", None),
        ("169.254.1.1", None),
        ("0.0.0.0", None),
        ("::", None),
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("[2001:db8::9]", None),
        ("münchen.example", None),
        (None, None),
        (9, None),
    ],
)
def test_a_host_that_others_wrote_comes_out_in_one_form_or_not_at_all(
    text: object, host: str | None
) -> None:
    assert read_host(text) == host


@given(st.text() | st.none() | st.integers() | HOSTS)
def test_whatever_is_read_as_a_host_is_one_and_stays_as_it_is(text: object) -> None:
    host = read_host(text)
    if host is not None:
        check_host("host", host)
        assert read_host(host) == host


@pytest.mark.parametrize("found", [0, 65536, -1, True, "443", None, 1.5])
def test_what_is_no_port_is_none(found: object) -> None:
    assert read_port(found) is None


def test_a_port_is_a_port() -> None:
    assert [read_port(one) for one in (1, 443, 65535)] == [1, 443, 65535]


@given(HOSTS, st.integers(1, 65535))
def test_the_url_of_an_address_leads_to_it(host: str, port: int) -> None:
    parts = urlsplit(Address(host=host, port=port).url)
    assert (parts.scheme, parts.hostname, parts.port) == ("https", host, port)
    assert ("[" in parts.netloc) == (":" in host)


@given(st.lists(HOSTS), st.randoms())
def test_the_order_is_the_same_whatever_order_they_came_in(
    hosts: list[str], random: object
) -> None:
    ordered = in_order(hosts)
    random.shuffle(hosts)  # type: ignore[attr-defined]
    assert in_order(hosts) == ordered
    assert set(ordered) == set(hosts)
    assert len(ordered) == len(set(hosts))


def test_names_come_before_addresses_and_ipv4_before_ipv6() -> None:
    hosts = ["2001:db8::1", "192.0.2.1", "b.example", "10.0.0.1", "a.example"]
    assert in_order(hosts) == ("a.example", "b.example", "10.0.0.1", "192.0.2.1", "2001:db8::1")
    assert ip_address(in_order(hosts)[-1]).version == 6


def test_the_choice_stays_while_it_can() -> None:
    one, other = Address(host="a.example", port=1), Address(host="b.example", port=1)
    assert stable_choice([one, other], "") == one
    assert stable_choice([one, other], other.url) == other
    assert stable_choice([one], other.url) == one
    assert stable_choice([], other.url) is None
