"""The processes that make attempts: given the parts of a round together, waited for together."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from prove import in_process, over_tls
from prove.jobs import Job, Outcome
from prove.stand import Stand

PATIENCE: Final = 300.0
"""Seconds within which a round must be over, whatever its attempts met."""
_END_SECONDS: Final = 30.0
_SPAWN: Final = multiprocessing.get_context("spawn")


class ExecutorFailed(Exception):
    """A process that makes attempts died, or did not come to an end."""


class Executor:
    """One such process, at the other end of a pipe."""

    def __init__(self, name: str, target: Callable[..., None], *arguments: Any) -> None:
        self._name = name
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, job: Job) -> None:
        """Hand over a job, and go on."""
        self._pipe.send(job)

    def end(self) -> Outcome:
        """Wait for what came of the job. Raises ExecutorFailed."""
        try:
            if self._pipe.poll(PATIENCE):
                outcome: Outcome = self._pipe.recv()
                return outcome
        except EOFError as error:
            raise ExecutorFailed(f"{self._name} died") from error
        raise ExecutorFailed(f"{self._name} was not done within {PATIENCE:g} s")

    def is_done(self, within: float) -> bool:
        """Tell whether the job is over, after waiting for that as long as that."""
        return self._pipe.poll(within)

    def close(self) -> None:
        """End the process."""
        if self._process.is_alive():
            with suppress(OSError):
                self._pipe.send(None)
            self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()


@contextmanager
def tls(ports: Sequence[int]) -> Iterator[Executor]:
    """Run the executor whose attempts are connections, until the block ends."""
    executor = Executor("the TLS clients", over_tls.serve, tuple(ports))
    try:
        yield executor
    finally:
        executor.close()


@contextmanager
def beside(stand: Stand, number: int, wrapper: str | None) -> Iterator[Executor]:
    """Run an executor that is a server itself, until the block ends."""
    executor = Executor(
        f"in-process clients {number}",
        in_process.run,
        stand.variables(),
        f"in process {number}",
        wrapper,
    )
    try:
        yield executor
    finally:
        executor.close()
