"""Trying one property for a while: examples from a seed, and the smallest that breaks it."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

CHUNK: Final = 250
"""Examples that hypothesis makes in one go; then the clock is looked at, and the seed changes."""

SHRINK_SECONDS: Final = 20.0
"""Time for making a finding smaller."""


class Drawn(Protocol):
    """A source of examples that are bytes, or pieces of bytes with a flag."""

    def draw(self, random: Random) -> Any:
        """Make one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A property and where its examples come from: values that `repr` writes as literals."""

    name: str
    examples: st.SearchStrategy[Any] | Drawn = field(repr=False)
    check: Callable[[Any], None] = field(repr=False)
    share: float = 1.0
    """Of the time, in relation to the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The smallest example that breaks a property, and how."""

    example: Any
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of a target."""

    name: str
    examples: int
    seconds: float
    finding: Finding | None


class _Over(BaseException):
    """Ends what hypothesis is doing: there is no time left."""


class _Hunt:
    """Counts examples, and remembers the last that broke the property."""

    def __init__(self, check: Callable[[Any], None], end: float) -> None:
        self.examples = 0
        self.finding: Finding | None = None
        self._check = check
        self._end = end

    def __call__(self, example: Any) -> None:
        if time.monotonic() > self._end:
            raise _Over
        self.examples += 1
        try:
            self._check(example)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if self.finding is None:
                self._end = time.monotonic() + SHRINK_SECONDS
            self.finding = Finding(example=example, error=error)
            # A panic of a library in Rust is no Exception, and would not be made smaller.
            raise AssertionError(f"{type(error).__name__}: {error}") from error

    def is_over(self) -> bool:
        """Tell whether there is no time left."""
        return time.monotonic() > self._end

    def breaks(self, example: Any) -> bool:
        """Tell whether an example breaks the property."""
        try:
            self(example)
        except AssertionError:
            return True
        return False


def run(target: Target, *, seconds: float, number: int) -> Run:
    """Try a target for so long, or until something is found; `number` is the seed."""
    began = time.monotonic()
    hunt = _Hunt(target.check, began + seconds)
    chunk = 0
    while time.monotonic() < began + seconds and hunt.finding is None:
        chunk_number = number * 1_000_003 + chunk
        if isinstance(target.examples, st.SearchStrategy):
            _try_chunk(hunt, target.examples, chunk_number)
        else:
            _try_drawn(hunt, target.examples, chunk_number)
        chunk += 1
    return Run(
        name=target.name,
        examples=hunt.examples,
        seconds=time.monotonic() - began,
        finding=hunt.finding,
    )


def _try_chunk(hunt: _Hunt, examples: st.SearchStrategy[Any], number: int) -> None:
    @seed(number)
    @settings(
        max_examples=CHUNK,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
    )
    @given(examples)
    def attempt(example: Any) -> None:
        hunt(example)

    try:
        attempt()
    except (_Over, Exception):
        if hunt.finding is None and not hunt.is_over():
            raise


def _try_drawn(hunt: _Hunt, examples: Drawn, number: int) -> None:
    random = Random(number)
    with contextlib.suppress(_Over):
        for _ in range(CHUNK):
            if hunt.breaks(examples.draw(random)):
                break
        while hunt.finding is not None:
            if not any(hunt.breaks(smaller) for smaller in _smaller(hunt.finding.example)):
                return


def _smaller(example: Any) -> Iterator[Any]:
    """Give simpler forms of bytes, or of pieces of bytes with a flag."""
    if isinstance(example, bytes):
        size = len(example) // 2
        while size:
            for start in range(0, len(example), size):
                yield example[:start] + example[start + size :]
            size //= 2
        return
    pieces, ended = example
    if len(pieces) > 1:
        yield (b"".join(pieces),), ended
    for number, piece in enumerate(pieces):
        for less in _smaller(piece):
            yield (*pieces[:number], less, *pieces[number + 1 :]), ended


def table(runs: Sequence[Run]) -> str:
    """Lay out what was run."""
    lines = [f"{'target':14} {'examples':>9} {'seconds':>8}  findings"]
    lines += [
        f"{one.name:14} {one.examples:9,} {one.seconds:8.1f}  {_told(one.finding)}" for one in runs
    ]
    return "\n".join(lines)


def _told(finding: Finding | None) -> str:
    if finding is None:
        return "none"
    return f"{type(finding.error).__name__}: {str(finding.error)[:120]}"
