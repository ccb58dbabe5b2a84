"""What was promised of GrantServer's speed, and who is compared with whom to see if it holds."""

from collections.abc import Mapping, Sequence

from bench import report
from bench.report import Limit, Slice, Target

BARE = "bare uvicorn: handshake and empty answer"
INCUMBENT = "the incumbent's way: RSA key and RSA CA each"
SINGLE = "GrantServer: single-use grants, durable"
SHARED = "GrantServer: one grant for all, durable"

# What was promised, and what would be better still.
SQLITE_TO_BARE = 0.55, 0.70
POSTGRESQL_TO_BARE = 0.50, 0.60
OF_EACH_WORKER = 0.85, 0.95


def targets(
    slices: Mapping[str, Sequence[Slice]],
    *,
    rss_mb: float,
    first_start: float,
    start: float,
    postgresql: bool = False,
    workers: int = 1,
) -> list[Target]:
    """Compare what was measured with what was promised."""
    single, bare, incumbent = slices[SINGLE], slices[BARE], slices[INCUMBENT]
    rate = report.ratio(single, bare, lambda each: each.figures.rate)
    cpu = report.ratio(bare, single, lambda each: each.cpu_each)
    times = report.ratio(single, incumbent, lambda each: each.figures.rate)
    tail = report.median(single, lambda each: each.tail)
    target, stretch = POSTGRESQL_TO_BARE if postgresql else SQLITE_TO_BARE
    judged = [
        Target(
            what="redemptions/s to bare handshakes/s", value=rate, target=target, stretch=stretch
        ),
        Target(what="the same by CPU time", value=cpu, target=target, stretch=stretch),
        Target(what="times the incumbent's way", value=times, target=50, stretch=80),
        Limit(what="p99 to p50 at full load", value=tail, target=2, stretch=1.5),
        Limit(what="peak memory", value=rss_mb, target=100, stretch=70, unit=" MB"),
    ]
    if not postgresql:  # whose own speed would be measured along with it
        judged += [
            Limit(what="start to ready", value=start, target=2, stretch=1, unit=" s"),
            Limit(
                what="the first start to ready", value=first_start, target=2, stretch=1, unit=" s"
            ),
        ]
    if workers > 1:
        judged += scaling(slices[several(workers)], single, workers)
    return judged


def several(workers: int) -> str:
    """Name the contender that is a server of several workers."""
    return f"GrantServer: {workers} workers, single-use grants"


def scaling(crew: Sequence[Slice], one: Sequence[Slice], workers: int) -> list[Target]:
    """Compare a server of several workers with a server of one."""
    rate = report.ratio(crew, one, lambda each: each.figures.rate)
    cpu = workers * report.ratio(one, crew, lambda each: each.cpu_each)
    target, stretch = (round(share * workers, 2) for share in OF_EACH_WORKER)
    return [
        Target(what=f"{workers} workers to one", value=rate, target=target, stretch=stretch),
        Target(what="the same by CPU time", value=cpu, target=target, stretch=stretch),
    ]
