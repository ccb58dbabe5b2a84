"""What the routes stand on, and how they ask who may."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, ParamSpec, TypeVar

from fastapi import Depends, Request

from app.crypto.sealing import Keyring
from app.domain.callers import Verb
from app.domain.policies import Ceilings
from app.domain.reach import Reach
from app.errors import Forbidden, Missing
from app.services.admission import Admitted
from app.store.engine import Database
from app.web.admin.streams import Streams

PREFIX: Final = "/api/v1"
"""Where all routes begin."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """An installation as the API serves it.

    `reach` tells how connecting sites reach it, None while nobody knows, and then for what that
    waits; `code_keys` and `token_keys` conceal codes and admin tokens.
    """

    database: Database
    keyring: Keyring = field(repr=False)
    code_keys: Mapping[str, bytes] = field(repr=False)
    token_keys: Mapping[str, bytes] = field(repr=False)
    ceilings: Ceilings
    reach: Callable[[], tuple[Reach | None, str]]
    streams: Streams = field(default_factory=Streams)
    clock: Callable[[], int]
    monotonic: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    version: str


def _office(request: Request) -> Office:
    office: Office = request.app.state.office
    return office


def _admitted(request: Request) -> Admitted:
    admitted: Admitted = request.state.admitted
    return admitted


Given = Annotated[Office, Depends(_office)]
Caller = Annotated[Admitted, Depends(_admitted)]


async def run(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what waits for the database in a thread."""
    return await asyncio.to_thread(work, *args, **kwargs)


async def want(caller: Admitted, verb: Verb, site: str | None) -> None:
    """Raise Forbidden unless the caller may do that at the site; None is what belongs to none."""
    if not await caller.may(verb, site):
        where = "at every site" if site is None else f'at site "{site}"'
        raise Forbidden(f'you have no right to "{verb.value}" {where}')


async def want_of(caller: Admitted, verb: Verb, site: str, kind: str, name: str) -> None:
    """Raise Missing unless the caller may read what is there, Forbidden unless they may do more."""
    if not await caller.may(Verb.READ, site):
        raise Missing(kind, name)
    if verb is not Verb.READ:
        await want(caller, verb, site)
