"""What a run has counted, and the report that is made of it."""

from collections import Counter
from dataclasses import dataclass, field

from prove.agreement import Tally


@dataclass(slots=True, kw_only=True)
class Figures:
    """What happened on one database."""

    database: str
    attempts: int = 0
    """Attempts of the plan; each may have been made several times."""
    tls: int = 0
    """How often one of them was made over a TLS connection of its own."""
    tries: int = 0
    """How often they were made, in both phases."""
    attempts_seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    """Servers killed, by when."""
    cut: int = 0
    """Claims that had no answer when their server was killed."""
    kills_seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)

    def lines(self) -> list[str]:
        """Lay the figures out."""
        tally = self.tally
        answers = ", ".join(
            f"{count:,} {answer}" for answer, count in tally.answers.items() if count
        )
        kills = ", ".join(f"{count} {when}" for when, count in sorted(self.kills.items()))
        rows = f"{tally.redemptions:,}"
        facts = {
            "attempts": f"{self.attempts:,} in {self.attempts_seconds:.0f} s",
            "over TLS": f"{self.tls:,}, each on a new connection",
            "kill -9": f"{sum(self.kills.values()):,} in {self.kills_seconds:.0f} s: {kills}",
            "unanswered": f"{self.cut:,} claims when their server was killed, all made again",
            "answers": f"{answers} ({tally.unavailable:,} of these got a 503)",
            "grants": f"{tally.grants:,}, every history linearizable",
            "redemptions": f"{rows} counted, {rows} rows, {rows} audit rows, {rows} kept answers",
            "bundles": f"{tally.heard:,} redemptions answered, {tally.again:,} times once more",
            "unheard": f"{tally.redemptions - tally.heard:,} redemptions, whose grant was revoked "
            "before their claim came again",
            "certificates": f"{len(tally.certificates):,} verified, no serial number twice",
            "extra, lost": "0, 0",
        }
        return [self.database, *(f"  {name:13}{fact}" for name, fact in facts.items())]
