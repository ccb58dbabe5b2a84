"""A process that has imported the server and starts it by forking, as often as it is told.

    python -m prove.nest [--fused] [--with MODULE:FUNCTION]

It reads orders from standard input, one a line, and answers each with a line: `start` (its pid),
`arm POINT N` (`armed`), `wait SECONDS` (`ended STATUS`, or `alive`), `stop` (`ended STATUS`). With
the end of the input it kills the server and ends.
"""

import argparse
import os
import select
import signal
import sys
import threading
from typing import NoReturn

from app import serve, settings
from prove.points import Fuse, Point, install, load_wrapper

STOP_SECONDS = 60.0


class Nest:
    """One server at a time, in a child process."""

    def __init__(self, fuse: Fuse | None) -> None:
        self._fuse = fuse
        self._pid = 0
        self._status = 0
        self._orders = -1
        self._answers = -1

    def start(self) -> str:
        """Fork a server; returns its pid."""
        theirs, ours = os.pipe()
        heard, told = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(ours)
            os.close(heard)
            _be_server(self._fuse, theirs, told)
        os.close(theirs)
        os.close(told)
        self._pid, self._orders, self._answers = pid, ours, heard
        return str(pid)

    def arm(self, order: str) -> str:
        """Pass an order on to the server's fuse."""
        os.write(self._orders, f"{order}\n".encode())
        return os.read(self._answers, 64).decode().strip() or "gone"

    def wait(self, seconds: float) -> str:
        """Wait for the end of the server; say how it ended, or that it lives."""
        if self._pid:
            handle = os.pidfd_open(self._pid)
            ended = select.select([handle], [], [], seconds)[0]
            os.close(handle)
            if not ended:
                return "alive"
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            os.close(self._orders)
            os.close(self._answers)
            self._pid = 0
        return f"ended {self._status}"

    def stop(self) -> str:
        """End the server as an operator would, and if need be otherwise."""
        if self._pid:
            os.kill(self._pid, signal.SIGTERM)
        said = self.wait(STOP_SECONDS)
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self.wait(STOP_SECONDS)
            said = "alive"
        return said

    def obey(self, line: str) -> str:
        """Do what an order says."""
        order, _, rest = line.partition(" ")
        match order:
            case "start":
                return self.start()
            case "arm":
                return self.arm(rest)
            case "wait":
                return self.wait(float(rest))
            case _:
                return self.stop()


def _be_server(fuse: Fuse | None, orders: int, answers: int) -> NoReturn:
    """Be `grantserver serve` until SIGTERM, or until the fuse blows; runs in the child."""
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        if fuse is not None:
            listener = threading.Thread(target=_arm, args=(fuse, orders, answers), daemon=True)
            listener.start()
        serve.run(settings.load(dict(os.environ)))
        status = 0
    except BaseException as error:  # noqa: BLE001 - nothing may go on from here as the parent would
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _arm(fuse: Fuse, orders: int, answers: int) -> None:
    """Arm the fuse by lines from the parent, until it is gone."""
    while line := os.read(orders, 1024).decode():
        point, _, passes = line.strip().partition(" ")
        fuse.arm(Point(point), int(passes))
        os.write(answers, b"armed\n")


def main() -> None:
    """Obey until there are no more orders."""
    parser = argparse.ArgumentParser(prog="python -m prove.nest")
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--with", dest="wrapper", metavar="MODULE:FUNCTION")
    arguments = parser.parse_args()
    if arguments.wrapper:
        load_wrapper(arguments.wrapper)()
    fuse = None
    if arguments.fused:
        fuse = Fuse()
        install(fuse)
    nest = Nest(fuse)
    try:
        for line in sys.stdin:
            print(nest.obey(line.strip()), flush=True)
    finally:
        nest.stop()


if __name__ == "__main__":
    main()
