"""Which rows of the audit log a sealer has looked at, by their numbers.

Numbers are given out in order and become visible in any: a transaction that began earlier may
commit later. So what is missing below the highest number may still come, or never was.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

MOST_GAPS: Final = 100
"""Of more than these the first ones are taken together, with what is between them."""


@dataclass(slots=True)
class Numbers:
    """All numbers up to `high` were seen, but for those in `gaps`: first and last, in order."""

    high: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def note(self, seen: Iterable[int]) -> None:
        """Take in numbers of rows, each one once, in any order."""
        for number in seen:
            if number > self.high:
                if number > self.high + 1:
                    self.gaps.append((self.high + 1, number - 1))
                self.high = number
            else:
                self._fill(number)
            if len(self.gaps) > MOST_GAPS:
                (first, _), (_, last), *rest = self.gaps
                self.gaps = [(first, last), *rest]

    def _fill(self, number: int) -> None:
        for place, (first, last) in enumerate(self.gaps):
            if first <= number <= last:
                parts = ((first, number - 1), (number + 1, last))
                self.gaps[place : place + 1] = [part for part in parts if part[0] <= part[1]]
                return
