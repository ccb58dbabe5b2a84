import base64
import contextlib
import hashlib
import hmac
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.events import EventType
from app.domain.webhooks import (
    MOST_ATTEMPTS,
    MOST_SITES,
    Webhook,
    check_ca,
    check_url,
    headers,
    read_events,
    read_sites,
    wait_seconds,
    write_secret,
)
from app.errors import Invalid
from tests.builders import GRANT_ID, NOW
from tests.domain.test_events import ENTRIES, an_event

SECRET = bytes(range(32))
HOOK = Webhook(
    id=GRANT_ID,
    name="portal",
    url="https://portal.example:8443/hooks/T0KEN",
    events=frozenset({EventType.REDEEMED}),
    sites=frozenset({"west"}),
    sealed_secret=b"sealed",
    ca_pem=None,
    enabled=True,
    created_at=NOW,
    position=0,
)


@pytest.mark.parametrize(
    "url",
    [
        "https://portal.example",
        "https://portal.example:8443/a?b=c",
        "https://[2001:db8::1]/",
        *("http://127.0.0.1:8080/x", "http://localhost/", "http://[::1]:1/"),
    ],
)
def test_events_go_where_nobody_on_the_way_reads_them(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://portal.example/", "use https"),
        ("http://10.0.0.1/", "use https"),
        ("http://localhost.example/", "use https"),
        ("ftp://portal.example/", "begin with https"),
        ("portal.example", "begin with https"),
        ("https://", "not a URL"),
        ("https://a b/", "not a URL"),
        ("https://a:99999/", "not a URL"),
        ("https://a:0/", "not a URL"),
        ("https://a/\n", "not a URL"),
        ("https://ä.example/", "not a URL"),
        ("https://a/" + "x" * 2048, "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://me:hunter2@a/", "user name"),
        ("https://a/#b", "fragment"),
        ("https://a/#", "fragment"),
    ],
)
def test_any_other_url_is_refused_with_what_is_wrong(url: str, why: str) -> None:
    with pytest.raises(Invalid, match=why) as refused:
        check_url(url)
    assert refused.value.field == "url"
    assert "hunter2" not in str(refused.value)


@given(st.text())
def test_no_text_breaks_the_check_of_a_url(text: str) -> None:
    for url in (text, f"https://{text}"):
        with contextlib.suppress(Invalid):
            check_url(url)


def test_what_may_be_shown_of_a_url_ends_with_the_port() -> None:
    assert HOOK.origin == "https://portal.example:8443"
    assert "T0KEN" not in repr(HOOK)


def test_a_webhook_wants_its_events_of_its_sites() -> None:
    redeemed, theft = an_event(ENTRIES[0]), an_event(ENTRIES[1])
    assert HOOK.wants(redeemed)
    assert not HOOK.wants(theft)
    assert not HOOK.wants(replace(redeemed, site="east"))
    assert not HOOK.wants(replace(redeemed, site=None))
    assert replace(HOOK, sites=None).wants(replace(redeemed, site=None))


def test_events_are_read_by_their_names() -> None:
    assert read_events(["theft", "redeemed", "theft"]) == {EventType.THEFT, EventType.REDEEMED}
    for wrong in ([], ["thefts"], ["redeemed", ""]):
        with pytest.raises(Invalid, match="choose from redeemed, refused, theft, expiring_cert"):
            read_events(wrong)


def test_no_site_stands_for_every_site() -> None:
    assert read_sites([]) is None
    assert read_sites(["west", "east", "west"]) == frozenset({"west", "east"})
    for wrong in (["West"], ["a,b"], [f"s{number}" for number in range(MOST_SITES + 1)]):
        with pytest.raises(Invalid, match="sites"):
            read_sites(wrong)


def test_a_ca_has_a_bound() -> None:
    with pytest.raises(Invalid, match="ca"):
        check_ca("x" * 65537)


def test_a_message_is_signed_as_standard_webhooks_want_it() -> None:
    body = '{"at":"…"}'.encode()
    sent = headers(SECRET, event_id="7-ab", body=body, now=NOW)
    assert (sent["webhook-id"], sent["webhook-timestamp"]) == ("7-ab", str(NOW))
    version, _, signature = sent["webhook-signature"].partition(",")
    expected = hmac.new(SECRET, b"7-ab." + str(NOW).encode() + b"." + body, hashlib.sha256)
    assert (version, base64.b64decode(signature)) == ("v1", expected.digest())
    assert base64.b64decode(write_secret(SECRET).removeprefix("whsec_")) == SECRET


def test_waits_double_up_to_an_hour() -> None:
    waits = [wait_seconds(attempts, b"\0\0") for attempts in range(1, MOST_ATTEMPTS)]
    assert waits[:4] == [10, 20, 40, 80]
    assert waits[9:] == [3600] * 10


@given(st.integers(min_value=1, max_value=10**6), st.binary(min_size=2, max_size=2))
def test_chance_shortens_a_wait_by_a_quarter_at_most(attempts: int, random: bytes) -> None:
    whole = wait_seconds(attempts, b"\0\0")
    assert whole * 0.74 <= wait_seconds(attempts, random) <= whole
