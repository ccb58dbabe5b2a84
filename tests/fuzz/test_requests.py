import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings

from app.services import grants
from app.services.grants import Issued
from fuzz import requests
from fuzz.live import NAME, SUBJECT
from fuzz.requests import Answer, DamagedRequests, Door, Sent, claimed, judge, leads_to, request
from tests.running import Server, running
from tests.web.serving import serving

MANY = 10_000
ID = "2b3f3a1c-6f0e-4c5e-9f57-0d4c1b7a9e10"
CODE = b"Aa0Bb1Cc2Dd3Ee4Ff5Gg6Hh7"
DAMAGED = DamagedRequests.of(
    request(f"/{ID}", CODE, NAME, SUBJECT),
    request(f"/{ID}", CODE, b"Expect: 100-continue\r\n"),
    request(f"/{ID}", CODE, b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ncode\r\n0\r\nx: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nAuthorization: Bearer x\r\n\r\n",
)
shared = settings(
    deadline=None,
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = dict.fromkeys(
        ("GRANTSERVER_LIMITS_PEER_FAILURES", "GRANTSERVER_LIMITS_GRANT_FAILURES"), "0"
    )
    with running(tmp_path_factory.mktemp("fuzz"), **limits) as started:
        yield started


@pytest.fixture(scope="module")
def door(server: Server) -> Door:
    return Door(server.addresses.redemption, server.context)


@pytest.fixture(scope="module")
def issued(server: Server) -> Issued:
    return server.issue("fuzzed", redemptions=MANY)


def is_well(caplog: pytest.LogCaptureFixture) -> bool:
    return all(
        record.levelno < logging.WARNING and record.exc_info is None for record in caplog.records
    )


def test_damaged_requests_get_one_answer_or_none_and_leave_nothing_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(tls=False) as server:
        door = Door((server.host, server.port), None)

        @settings(deadline=None, max_examples=200)
        @given(DAMAGED.strategy())
        def check(sent: Sent) -> None:
            received = door.exchange(sent)
            assert not received or received.startswith(b"HTTP/1.1 ")
            assert received.count(b"HTTP/1.1 ") <= 1 + received.count(requests.CONTINUE)
            assert len(received) < 32_768

        check()
        assert server.is_left_alone()
    assert caplog.records == []


@shared
@given(DAMAGED.strategy())
def test_a_whole_server_answers_damaged_claims_with_its_constant_texts(
    door: Door, caplog: pytest.LogCaptureFixture, sent: Sent
) -> None:
    answer = door.ask(sent)
    assert answer is None or answer.status != 200
    assert is_well(caplog)


@shared
@given(requests.targets(ID))
@example(f"//{ID}/")
@example(f"/{ID}?x")
@example(f"/%32{ID[1:]}")
def test_a_grant_is_found_under_its_path_and_under_no_other(
    door: Door, issued: Issued, target: str
) -> None:
    own = target.replace(ID, issued.grant.id)
    answer = door.ask(((request(own, CODE),), True))
    assert answer is not None
    assert answer.status in ({403} if leads_to(own, issued.grant.id) else {400, 404})


@shared
@given(requests.FIELDS)
def test_headers_mean_what_the_wire_contract_says(
    door: Door, issued: Issued, fields: list[requests.Field]
) -> None:
    lines = [b"%b: %b\r\n" % one for one in fields]
    claim = request(f"/{issued.grant.id}", issued.code.encode(), *lines)
    answer = door.ask(((claim,), True))
    assert answer is not None
    expected = claimed(fields, issued.grant.name)
    assert answer.status == (400 if expected is None else 200)
    if expected is not None:
        assert f'\n  name: "{expected.name}"\n'.encode() in answer.body


def test_after_all_that_a_good_claim_is_redeemed(server: Server, door: Door) -> None:
    untouched = server.issue("untouched")
    door.ask(((request(f"/{untouched.grant.id}", CODE, NAME),), True))
    assert grants.show(server.home.database, untouched.grant.id)[0].spent == 0
    assert server.redeem(untouched).status == 200


HEAD = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 37\r\nconnection: close\r\n\r\n"
REFUSED = b"Redemption of access token refused\n"


@pytest.mark.parametrize(
    "received",
    [
        HEAD.replace(b"403 Forbidden", b"500 Error").replace(b"37", b"15") + b"Internal error\n",
        HEAD + REFUSED,  # shorter than it says
        HEAD.replace(b"37", b"35") + REFUSED + b"x",
        HEAD.replace(b"37", b"34").replace(b"connection: close\r\n", b"") + REFUSED,
        HEAD.replace(b"37", b"6") + b"other\n",
        HEAD.replace(b"403 Forbidden", b"404 Not Found").replace(b"37", b"35") + REFUSED,
        HEAD.replace(b"37", b"35\r\ncontent-length: 35") + REFUSED,
        b"nonsense",
        b"x" * 40_000,
    ],
)
def test_an_answer_that_the_server_must_not_give_is_found_out(received: bytes) -> None:
    with pytest.raises((AssertionError, KeyError)):
        judge(received)


def test_an_answer_that_it_may_give_is_none() -> None:
    good = HEAD.replace(b"37", str(len(REFUSED)).encode()) + REFUSED
    assert judge(good) == judge(requests.CONTINUE + good) == Answer(status=403, body=REFUSED)
    assert judge(b"") is None


def test_a_server_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "SECONDS", 0.2)
    with serving(tls=False) as server, pytest.raises(TimeoutError):
        Door((server.host, server.port), None).exchange(((b"POST",), False))
