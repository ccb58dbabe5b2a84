"""How many failures are borne, and how soon the next: a leaky bucket, as pure arithmetic.

This is the generic cell rate algorithm (ATM Forum, Traffic Management Specification 4.0). All that
is kept of a bucket is one number: the moment at which it will have leaked empty, `empty_at`. An
untouched bucket is one whose moment has passed. All times are milliseconds of one clock.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """So many failures at once (`burst`, at least 1), then one for each `interval` (at least 1)."""

    burst: int
    interval: int

    def wait(self, empty_at: int, now: int) -> int:
        """Tell how long until the bucket has room for one failure more; 0 when it has.

        Never more than one interval, because a bucket is never more than full.
        """
        level = self.bounded(empty_at, now) - now
        return max(0, level - (self.burst - 1) * self.interval)

    def fill(self, empty_at: int, now: int, count: int = 1) -> int:
        """Put failures in, and give the new moment; what does not fit runs over and is gone."""
        return self.bounded(max(empty_at, now) + count * self.interval, now)

    def bounded(self, empty_at: int, now: int) -> int:
        """Take a moment that no bucket can have as that of a full one: the clock was set back.

        Whoever keeps the moment keeps this instead, or the bucket stays full until the clock has
        caught up.
        """
        return min(empty_at, now + self.burst * self.interval)
