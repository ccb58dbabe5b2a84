from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from app.domain.durations import SECOND
from app.settings import Address
from app.settings.values import (
    REFUSED,
    duration_reader,
    read_address,
    read_annotations,
    read_base_url,
    read_database_url,
    read_entries,
    read_hosts,
    read_labels,
    read_networks,
    read_optional_class,
    read_optional_domain,
    read_optional_host,
    read_optional_ip,
    read_optional_plain_name,
    read_path,
    read_service_name,
)

NO_HOST: Final = "expected a DNS name, an IPv4 address or an IPv6 address as host"
NO_HTTPS: Final = "expected https: clients refuse every other token"
NO_PATH: Final = "a path is not possible: grants are redeemed at /<uid>, nowhere below"
NO_QUERY: Final = "a query or fragment has no place in a token's URL"
NO_USER: Final = "a user name or password has no place in a token's URL"
PG: Final = "expected postgresql://USER:PASSWORD@HOST:PORT/NAME?sslmode=..."
READERS: Final = (
    duration_reader(),
    read_address,
    read_base_url,
    read_hosts,
    read_networks,
    read_path,
    read_database_url,
    read_entries,
    read_annotations,
    read_labels,
    read_optional_class,
    read_optional_domain,
    read_optional_host,
    read_optional_ip,
    read_optional_plain_name,
    read_service_name,
)


@pytest.mark.parametrize(
    ("read", "value", "why"),
    [
        (read_address, ":9091", ""),
        (read_address, "9091", ""),
        (read_address, 9091, ""),
        (read_address, "::1:9091", ""),
        (read_address, "[::1]", ""),
        (read_address, "a:65536", ""),
        (read_address, "a:٣", ""),
        (read_address, "-a:1", NO_HOST),
        (read_address, "300.1.1.1:1", NO_HOST),
        (read_address, "[::g]:1", NO_HOST),
        (read_annotations, "a", ""),
        (read_annotations, "a=1, a=2", "expected each key once"),
        (read_annotations, "/a=1", ""),
        (read_annotations, "A.b/c=1", ""),
        (read_annotations, {"a": 1}, ""),
        (read_annotations, {1: "a"}, ""),
        (read_annotations, ["a=b"], ""),
        (read_annotations, 7, ""),
        (read_labels, "a=b c", "the value of a is none that a label can have"),
        (read_labels, "a=b=c", "the value of a is none that a label can have"),
        (read_labels, "a=" + "b" * 64, "the value of a is none that a label can have"),
        (read_optional_class, "a b", ""),
        (read_optional_class, "a/b/c", ""),
        (read_optional_class, None, ""),
        (read_optional_domain, "a..b", ""),
        (read_optional_domain, "*.b", ""),
        (read_optional_host, "*.b", NO_HOST),
        (read_optional_host, "a:1", NO_HOST),
        (read_optional_ip, "lb.example", ""),
        (read_optional_ip, "10.0.0.0/8", ""),
        (read_optional_plain_name, "a/b", ""),
        (read_optional_plain_name, "A", ""),
        (read_service_name, "1a", "name: a Service's name begins with a letter"),
        (read_base_url, "localhost:9090", ""),
        (read_base_url, "http://a", NO_HTTPS),
        (read_base_url, "https://a/grants", NO_PATH),
        (read_base_url, "https://a?x", NO_QUERY),
        (read_base_url, "https://a#x", NO_QUERY),
        (read_base_url, "https://u@a", NO_USER),
        (read_base_url, "https://", ""),
        (read_base_url, "https://a:", ""),
        (read_base_url, "https://a:0", ""),
        (read_base_url, "https://a:65536", ""),
        (read_base_url, "https://::1", ""),
        (read_base_url, "https://a b", NO_HOST),
        (read_base_url, "https://a\nb", ""),
        (read_hosts, "a,,b", NO_HOST),
        (read_hosts, "*.example", NO_HOST),
        (read_hosts, ["a", 1], ""),
        (read_hosts, {"a": 1}, ""),
        (read_hosts, False, ""),
        (read_networks, "10.0.0.0/33", ""),
        (read_networks, "10.0.0.0/8,", ""),
        (read_networks, "lb.example", ""),
        (read_networks, "10.0.0.1:9090", ""),
        (read_networks, "[fd00::1]", ""),
        (read_networks, "fe80::%eth0/64", ""),
        (read_networks, "10.1.2.3/16", "expected 10.1.0.0/16 for the network in which 10.1.2.3 is"),
        (
            read_networks,
            "::ffff:10.0.0.0/104",
            "expected 10.0.0.0 without ::ffff:, and its own prefix",
        ),
        (read_networks, [10], ""),
        (read_networks, 10, ""),
        (read_networks, {"10.0.0.1": 1}, ""),
        (read_path, "", ""),
        (read_path, "a?b", ""),
        (read_path, "a%20b", ""),
        (read_path, Path("a?b"), ""),
        (read_database_url, "x.db", ""),
        (read_database_url, "postgresql://localhost", PG),
        (read_database_url, "postgresql://u:p@localhost/", PG),
        (read_database_url, "postgres://localhost/a/b", PG),
        (read_database_url, "postgresql:///?host=/run", PG),
        (read_database_url, "postgresql:x", ""),
        (read_database_url, "mysql://localhost/x", ""),
        (read_database_url, "sqlite://", ""),
        (read_database_url, "sqlite:///", ""),
        (read_database_url, "sqlite:///:memory:", ""),
        (read_database_url, "sqlite:///x?mode=ro", ""),
        (duration_reader(), "10", ""),
        (duration_reader(), 10, ""),
        (duration_reader(), "0s", ""),
        (duration_reader(least=0), "-1ns", ""),
        (duration_reader(step=SECOND), "1.5s", ""),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_is_wrong_about_it(
    read: Callable[[object], object], value: object, why: str
) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        read(value)
    assert caught.value.type == REFUSED
    assert caught.value.context == {"why": why}


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://grants.example", "https://grants.example"),
        ("HTTPS://Grants.Example.:0443/", "https://grants.example:443"),
        ("https://10.1.2.3:9090", "https://10.1.2.3:9090"),
        ("https://[FD00::1]:9090/", "https://[fd00::1]:9090"),
        ("https://[fd00::1]", "https://[fd00::1]"),
        ("https://a:65535", "https://a:65535"),
    ],
)
def test_the_base_url_is_brought_into_one_form(text: str, url: str) -> None:
    assert read_base_url(text) == url
    assert read_base_url(url) == url


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("[::1]:9", Address("::1", 9)),
        ("a.example:9", Address("a.example", 9)),
        ("0.0.0.0:65535", Address("0.0.0.0", 65535)),
    ],
)
def test_an_address_is_written_as_it_is_read(text: str, address: Address) -> None:
    assert read_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize("value", ["B.example, a,[FD00::1],a.", ["b.example", "a", "fd00::1"]])
def test_hosts_are_read_once_each_in_the_order_in_which_they_stand(value: object) -> None:
    assert read_hosts(value) == ("b.example", "a", "fd00::1")


def test_more_hosts_than_a_certificate_is_to_name_are_refused() -> None:
    hosts = [f"h{number}.example" for number in range(33)]
    assert len(read_hosts([*hosts[:32], "H1.example"])) == 32
    with pytest.raises(PydanticCustomError) as refused:
        read_hosts(",".join(hosts))
    context = refused.value.context
    assert context is not None
    assert context["why"].startswith("expected 32 hosts at most")
    assert context["why"].endswith("not 33")


@pytest.mark.parametrize("value", ["", [], ()])
def test_no_host_at_all_can_be_written(value: object) -> None:
    assert read_hosts(value) == ()


@pytest.mark.parametrize(
    "value",
    ["10.1.0.0/16, FD00::/8,10.1.0.0/16,10.2.0.7", ["10.1.0.0/16", "fd00::/8", "10.2.0.7/32"]],
)
def test_networks_are_read_once_each_in_the_order_in_which_they_stand(value: object) -> None:
    assert read_networks(value) == (
        ip_network("10.1.0.0/16"),
        ip_network("fd00::/8"),
        ip_network("10.2.0.7/32"),
    )


@pytest.mark.parametrize("value", ["", [], ()])
def test_no_network_at_all_can_be_written(value: object) -> None:
    assert read_networks(value) == ()


def test_a_duration_is_given_in_seconds_from_the_least_one_on() -> None:
    assert duration_reader()("1ns") == 1e-9
    assert duration_reader(least=0)("0s") == 0
    assert duration_reader(least=SECOND, step=SECOND)("1m1s") == 61


@given(
    read=st.sampled_from(READERS),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_garbage_is_refused_and_nothing_else(
    read: Callable[[object], object], value: object
) -> None:
    try:
        read(value)
    except PydanticCustomError as refusal:
        assert refusal.type == REFUSED  # noqa: PT017 - reading it is allowed too


@pytest.mark.parametrize("text", ["", "a.b", "a" * 64, "A/b", "a/b/c", "-a"])
def test_what_cannot_be_the_name_of_a_service_is_refused(text: str) -> None:
    with pytest.raises(PydanticCustomError):
        read_service_name(text)


@pytest.mark.parametrize("text", ["door", "gs/door", "1/door", "a" * 63])
def test_the_name_of_a_service_stays_as_it_is(text: str) -> None:
    assert read_service_name(text) == text


@pytest.mark.parametrize(
    ("value", "pairs"),
    [
        ("", ()),
        ("  ", ()),
        ({}, ()),
        ("a=1", (("a", "1"),)),
        ("b=2,a=1", (("a", "1"), ("b", "2"))),
        ("a=", (("a", ""),)),
        ("a=x=y", (("a", "x=y"),)),
        ("a=x,y, b=2", (("a", "x,y"), ("b", "2"))),
        ("a=1, b", (("a", "1, b"),)),
        ("example.com/a_b.c=https://x?y=z", (("example.com/a_b.c", "https://x?y=z"),)),
        ({"a": "x=1,y=2"}, (("a", "x=1,y=2"),)),
    ],
)
def test_annotations_are_a_text_or_a_table(value: object, pairs: object) -> None:
    assert read_annotations(value) == pairs


@given(
    st.dictionaries(
        st.from_regex(
            r"([a-z]{1,5}\.example/)?[A-Za-z0-9][A-Za-z0-9._-]{0,9}[a-z]", fullmatch=True
        ),
        st.from_regex(r"[!-+\--<>-~]{0,20}", fullmatch=True),  # neither comma nor equals sign
    )
)
def test_what_is_written_as_a_text_is_read_as_the_same_table(table: dict[str, str]) -> None:
    text = ", ".join(f"{name}={value}" for name, value in table.items())
    assert dict(read_annotations(text)) == dict(read_annotations(table)) == table


def test_hosts_domains_and_addresses_come_out_in_one_form() -> None:
    assert read_optional_host("[FD00::1]") == read_optional_host("fd00::1") == "fd00::1"
    assert read_optional_host("Grants.Example.") == "grants.example"
    assert read_optional_domain(".Apps.Example") == "apps.example"
    assert read_optional_ip("FD00:0::1") == "fd00::1"
    assert read_optional_class("example.com/X_y") == "example.com/X_y"
    for read in (read_optional_host, read_optional_domain, read_optional_ip, read_optional_class):
        assert read("") == ""


def test_who_may_what_is_a_list_or_a_text() -> None:
    written = ["portal@shop=read+create@west+east", "Ops Team=*@*"]
    read = read_entries(", ".join(written))
    assert read == read_entries(written)
    assert [entry.name for entry in read] == ["portal@shop", "Ops Team"]
    assert read_entries("") == read_entries([]) == ()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("a=read@west,a=create@west", "each common name"),
        ("a=write@west", 'there is no "write"'),
        ("a=read", "sites"),
        ("a", "sites"),
        (",", "name"),
        ([1], ""),
        ({"a": "read@west"}, ""),
    ],
)
def test_who_may_what_has_to_be_clear(value: object, why: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        read_entries(value)
    assert why in str(caught.value)
