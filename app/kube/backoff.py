"""How long to wait after failures: longer each time, up to a bound, and never all together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_BYTES: Final = 6  # of chance: far finer than any clock
_MOST_DOUBLINGS: Final = 60  # a float bears many more; any bound is reached long before


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Delays that double from `base_seconds` and stay below `most_seconds`.

    Which delay it is within a factor of two is up to chance, so that many who failed at the same
    moment do not come back at the same moment.
    """

    base_seconds: float
    most_seconds: float

    def delay(self, failures: int, chance: float) -> float:
        """Give the seconds to wait after so many failures in a row (1 is the first).

        `chance` is a number from 0 up to, but not including, 1.
        """
        doubled: float = self.base_seconds * 2 ** min(failures - 1, _MOST_DOUBLINGS)
        return min(doubled, self.most_seconds / 2) * (1 + chance)


def chance(random_bytes: Callable[[int], bytes]) -> float:
    """Draw a number from 0 up to, but not including, 1."""
    return int.from_bytes(random_bytes(_BYTES), "big") / 256**_BYTES
