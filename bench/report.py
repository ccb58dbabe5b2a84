"""From the slices of a run to the table, the verdicts and the JSON; nothing is measured here."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.load import Figures

SATURATED = 0.97
"""Below this share of its core the server was not what limited the rate."""
FOREIGN = 0.10
"""Above this share of the core something else ran there, more than the kernel's own threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One contender's turn in one round."""

    figures: Figures
    server_cpu: float
    """CPU seconds of the server during the turn."""

    @property
    def cpu_each(self) -> float:
        """CPU seconds of the server for each answer."""
        return self.server_cpu / max(1, self.figures.answers)

    @property
    def tail(self) -> float:
        """How much slower the slowest hundredth is than the middle."""
        return self.figures.p99_ms / self.figures.p50_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A promise: what is compared, and from where on it is kept."""

    what: str
    value: float
    target: float
    stretch: float
    unit: str = ""

    def verdict(self) -> str:
        """Say in one word how it went."""
        if self.reaches(self.stretch):
            return "stretch"
        return "met" if self.reaches(self.target) else "MISSED"

    def reaches(self, wanted: float) -> bool:
        """Tell whether the value is as good as `wanted`; more is better."""
        return self.value >= wanted


class Limit(Target):
    """A promise of which less is better."""

    __slots__ = ()

    def reaches(self, wanted: float) -> bool:
        """Tell whether the value is as good as `wanted`; less is better."""
        return self.value <= wanted


def median(slices: Sequence[Slice], read: Callable[[Slice], float]) -> float:
    """Return the median over the slices of what `read` reads."""
    return statistics.median(read(each) for each in slices)


def ratio(ours: Sequence[Slice], theirs: Sequence[Slice], read: Callable[[Slice], float]) -> float:
    """Return the median of the ratios of slices that ran side by side."""
    return statistics.median(
        read(mine) / read(other) for mine, other in zip(ours, theirs, strict=True)
    )


def statuses(slices: Sequence[Slice]) -> Counter[str]:
    """Count all answers by status."""
    total: Counter[str] = Counter()
    for each in slices:
        total.update(each.figures.statuses)
    return total


def table(contenders: Mapping[str, Sequence[Slice]]) -> str:
    """Lay out the medians, one line for each contender, with the range of the rates."""
    heads = f"{'/s':>7} {'lowest-highest':>15} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>8}"
    lines = [f"{'one core, new TLS 1.3 connection each':46} {heads} {'core':>6} {'load':>6}"]
    for title, slices in contenders.items():
        rates = [each.figures.rate for each in slices]
        core = median(slices, lambda each: each.figures.server_core_busy or 0.0)
        lines.append(
            f"{title:46} {statistics.median(rates):7.1f}"
            f" {f'{min(rates):.0f}-{max(rates):.0f}':>15}"
            f" {median(slices, lambda each: each.figures.p50_ms):8.1f}"
            f" {median(slices, lambda each: each.figures.p99_ms):8.1f}"
            f" {1000 * median(slices, lambda each: each.cpu_each):8.3f}"
            f" {core:6.0%}"
            f" {median(slices, lambda each: each.figures.generator_busy):6.0%}"
        )
    lines.append(
        "CPU: of the server, for each answer. core, load: how busy the server's core and the "
        "generator were."
    )
    return "\n".join(lines)


def verdicts(targets: Sequence[Target]) -> str:
    """Lay out what was promised and what came of it."""
    lines = [f"{'targets':62} {'measured':>10} {'target':>8} {'stretch':>8}"]
    for each in targets:
        measured = f"{each.value:.2f}{each.unit}"
        lines.append(
            f"{each.what:62} {measured:>10} {each.target:>8g} {each.stretch:>8g}  {each.verdict()}"
        )
    return "\n".join(lines)


def failures(contenders: Mapping[str, Sequence[Slice]]) -> list[str]:
    """Name the contenders that gave an answer other than 200."""
    return [
        f"{title}: not every answer was 200: {dict(total)}"
        for title, slices in contenders.items()
        if set(total := statuses(slices)) != {"200"}
    ]


def doubts(contenders: Mapping[str, Sequence[Slice]]) -> list[str]:
    """Say what makes figures of this run less than they seem."""
    found = []
    for title, slices in contenders.items():
        busy = median(slices, lambda each: each.figures.server_core_busy or 0.0)
        if busy < SATURATED:
            found.append(f"{title}: the core was only {busy:.0%} busy, more may be possible")
        share = median(slices, lambda each: each.server_cpu / each.figures.elapsed)
        if busy - share > FOREIGN:
            found.append(f"{title}: {busy - share:.0%} of the core went to something else")
    return found
