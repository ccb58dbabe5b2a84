"""Redeem one token as a connecting site, as often as it takes: shared by what stores the result.

The private key is made on this side and stays here; the server gets a certificate request. A
server that takes none answers as ever, with a key that it has made.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

import click

from app import ambient, outbound
from app.cli import answers
from app.cli.exits import one_line
from app.cli.output import hint, paste
from app.crypto.chains import check_pair
from app.crypto.requests import make_request
from app.domain.link_secrets import server_of
from app.domain.names import common_name
from app.domain.receipts import Own, Receipt, read_receipt
from app.domain.tokens import Token
from app.errors import Invalid, Refused, Unavailable

COUNTED: Final = "the redemption may have been counted all the same"
LOST_AGAIN: Final = 2  # times that a lost answer is asked for again without being told to wait
_PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds; the last one again and again


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A token to be redeemed: `source` is its file, as it was typed."""

    source: str
    token: Token
    name: str
    subject: str


@dataclass(slots=True, kw_only=True)
class Attempts:
    """The attempts to redeem one token with one key; `lost` answers may have been on their way.

    Without a key (`key_pem` is empty) the server is asked to make one. For `wait_seconds` it is
    tried again whatever may pass, and a few times in any case where only the answer was lost.
    """

    key_pem: bytes = field(repr=False)
    wait_seconds: int = 0
    lost: int = 0


async def redeem(errand: Errand, attempts: Attempts) -> Receipt:
    """Post the code until there is an answer that says yes or no for good.

    Raises Refused, Invalid and ClickException for a no, Unavailable when no more is tried.
    """
    deadline = ambient.monotonic() + attempts.wait_seconds
    failed = 0
    while True:
        lost_before = attempts.lost
        try:
            return await _once(errand, attempts)
        except Unavailable as error:
            pause = max(_PAUSES[min(failed, len(_PAUSES) - 1)], error.retry_after or 0)
            failed += 1
            in_time = ambient.monotonic() + pause <= deadline
            if not in_time and not lost_before < attempts.lost <= LOST_AGAIN:
                raise
            hint(one_line(f"{errand.name}: {error}; trying again in {pause:g} s"))
            await asyncio.sleep(pause)
        except (Refused, click.ClickException) as error:
            if not attempts.lost:
                raise
            raise click.ClickException(
                f"{error}; an attempt before it may have used it, whose answer was lost"
            ) from error


async def _once(errand: Errand, attempts: Attempts) -> Receipt:
    token = errand.token
    csr = None
    if attempts.key_pem:
        csr = make_request(attempts.key_pem, common_name(errand.subject))
    try:
        answer = await outbound.post_code(
            token.url,
            code=token.code.encode(),
            ca_pem=token.ca_pem.encode(),
            name=errand.name,
            subject=errand.subject,
            csr=csr,
        )
    except Unavailable as error:
        if outbound.was_not_sent(error):
            raise Unavailable(f"{error}; the code was not sent") from error.__cause__
        attempts.lost += 1
        again = paste("token", "inspect", errand.source)
        raise Unavailable(
            f"{error}; if only the answer was lost, `{again}` shows the redemption"
        ) from error
    answers.check(answer)
    own = None
    if attempts.key_pem:
        own = Own(key_pem=attempts.key_pem, server=server_of(token.url, token.ca_pem))
    try:
        receipt = read_receipt(answer.body, name=errand.name, cost=token.cost, own=own)
        if receipt.own_key:
            check_pair(receipt.certificate_pem, attempts.key_pem)
    except Invalid as error:
        # Not the fault of whoever typed the command, so it is no wrong usage.
        raise click.ClickException(
            f"the server's answer cannot be used: {error.why}; {COUNTED}"
        ) from error
    return receipt
