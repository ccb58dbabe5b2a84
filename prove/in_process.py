"""An executor that asks a redeemer without a network between: a whole server in its own process.

It is the server that `app.serve` puts together, with its ledger on the same database as all
others; attempts are made on its event loop, beside its listeners. Now and then its mint fails.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final

from app import ambient, serve, settings
from app.domain.grants import Claim
from app.errors import Broken, GrantServerError, Lack, Unready
from app.home import Home
from app.services import grants
from app.services.issuance import Issuance
from app.services.redemption import Redeemer
from app.web import listeners
from app.web.wire import refusal
from prove.history import NEVER
from prove.jobs import Job, Outcome, Revocation, pause, to_be_repeated
from prove.plan import Order
from prove.points import load_wrapper

FAILING_MINT: Final = 40
"""Every so many certificates one cannot be made; nothing may be spent then."""


class _Parts:
    """What is caught of the server while it is put together."""

    redeemer: Redeemer
    home: Home


def _catch(parts: _Parts) -> None:
    module: Any = serve
    open_home, build = module.open_home, module.Redeemer

    def opened(*arguments: Any, **named: Any) -> Home:
        parts.home = open_home(*arguments, **named)
        return parts.home

    def built(*arguments: Any, **named: Any) -> Redeemer:
        parts.redeemer = build(*arguments, **named)
        return parts.redeemer

    module.open_home = opened
    module.Redeemer = built


def _fail_sometimes(every: int) -> None:
    original: Callable[..., Any] = Issuance.mint
    numbers = itertools.count(1)

    async def mint(self: Issuance, *arguments: Any, **named: Any) -> Any:
        if next(numbers) % every == 0:
            raise Unready(Lack.ISSUER, "the proof lets a mint fail")
        return await original(self, *arguments, **named)

    Issuance.mint = mint  # type: ignore[method-assign]


class InProcess:
    """Makes the attempts of a job on the event loop of its server."""

    def __init__(self, parts: _Parts, where: str) -> None:
        self._parts = parts
        self._where = where

    async def run(self, job: Job) -> Outcome:
        """Make all attempts, and return when each has its answer or was given up."""
        outcome = Outcome()
        orders = iter(job.orders)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(job.width, len(job.orders))):
                group.create_task(self._work(job, orders, outcome))
        return outcome

    async def _work(self, job: Job, orders: Iterator[Order], outcome: Outcome) -> None:
        for order in orders:
            if order.revokes():
                outcome.revocations.append(await self._revoke(job, order))
                continue
            for number in range(1, job.tries + 1):
                began = ambient.monotonic()
                status, body = await self._redeem(job, order)
                answer = outcome.note(
                    order,
                    began=began,
                    ended=ambient.monotonic(),
                    status=status,
                    body=body,
                    where=self._where,
                )
                if not to_be_repeated(answer):
                    break
                await asyncio.sleep(pause(number))

    async def _redeem(self, job: Job, order: Order) -> tuple[int, bytes]:
        target, claim = job.targets[order.grant], job.claims[order.grant][order.claim]
        wanted = Claim(
            key=target.id,
            presented_code=target.presented(right=order.right),
            name=claim.name,
            subject=claim.subject,
            peer=order.peer,
        )
        try:
            redeemed = await self._parts.redeemer.redeem(wanted)
        except GrantServerError as error:
            answer = refusal(error)
        except Exception as error:  # noqa: BLE001 - the web application answers whatever it is
            answer = refusal(Broken(type(error).__name__))
        else:
            return 200, redeemed.bundle
        return answer.status, f"{answer.text}\n".encode()

    async def _revoke(self, job: Job, order: Order) -> Revocation:
        began = ambient.monotonic()
        try:
            await asyncio.to_thread(
                grants.revoke,
                self._parts.home.database,
                job.targets[order.grant].id,
                actor="prove",
                now=ambient.utc_now(),
            )
        except GrantServerError:
            return Revocation(order.grant, began, NEVER)
        return Revocation(order.grant, began, ambient.monotonic())


def run(pipe: Pipe, environment: Mapping[str, str], where: str, wrapper: str | None) -> None:
    """Do jobs from `pipe` until there is a None; runs as a process of its own."""
    if wrapper is not None:
        load_wrapper(wrapper)()
    parts = _Parts()
    _catch(parts)
    _fail_sometimes(FAILING_MINT)
    chosen = settings.load(dict(environment))
    serve.set_up(chosen)

    async def main() -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        server = asyncio.create_task(serve.serve(chosen, stop=stop, started=lambda _: ready.set()))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait([server, waiting], return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            waiting.cancel()
            await server
        executor = InProcess(parts, where)
        while (job := await asyncio.to_thread(pipe.recv)) is not None:
            pipe.send(await executor.run(job))
        stop.set()
        await server

    listeners.run(main)
