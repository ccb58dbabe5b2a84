"""A private PostgreSQL for a run, as the tests have it, but with every commit on the disk."""

import contextlib
from collections.abc import Callable, Iterator

from tests.postgresql import ABSENT, Cluster, programs


class NotInstalledError(Exception):
    """There is no PostgreSQL server to start."""


@contextlib.contextmanager
def private(say: Callable[[str], None]) -> Iterator[str]:
    """Run a cluster of its own until the block ends, and give the URL of an empty database.

    When the block fails, the cluster is stopped and left where it is. Raises NotInstalledError.
    """
    where = programs()
    if where is None:
        raise NotInstalledError(ABSENT)
    cluster = Cluster(
        where,
        fsync="on",
        full_page_writes="on",
        autovacuum="on",
        shared_buffers="128MB",
        max_connections="100",
    )
    try:
        cluster.make()
        yield cluster.create("prove")
    except Exception:
        cluster.stop("fast")
        say(f"PostgreSQL was stopped, and is left in {cluster._directory}")  # noqa: SLF001
        raise
    except BaseException:
        cluster.remove()
        raise
    cluster.remove()
