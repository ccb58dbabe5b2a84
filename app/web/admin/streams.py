"""Answers that go on for long: how many there are, and that they end when the server does."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from app.errors import Unavailable

MOST_STREAMS: Final = 16


@dataclass(slots=True)
class Streams:
    """How many streams there are now, and whether they are to end."""

    closing: asyncio.Event = field(default_factory=asyncio.Event)
    _open: int = 0

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one for as long as the block lasts."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def check_room(self) -> None:
        """Raise Unavailable when there are as many as there may be."""
        if self._open >= MOST_STREAMS:
            raise Unavailable(f"{MOST_STREAMS} streams are open, which is the most")
