"""`grantserver renew`: certificates of links are renewed before they end, once or while it runs.

What is renewed is in files (of a system site, or any others) or in a namespace of a cluster.
"""

import shlex
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click

from app import ambient
from app.cli.asking import ask
from app.cli.commands import Verb
from app.cli.exits import Exit, code, one_line, problems
from app.cli.output import hint, say
from app.cli.renewables import SecretFile, find
from app.domain.durations import format_seconds
from app.domain.link_secrets import Renewed, is_renewable, read_link_secret
from app.domain.times import rfc3339
from app.errors import Conflict, GrantServerError, Invalid, Refused, Unavailable
from app.services import renewing
from app.services.renewing import Certificate

LOOK_SECONDS: Final = 60.0  # between two looks of --watch: files and Secrets come and go
_REFUSED_SECONDS: Final = 3600.0  # over there somebody may have mended something
_PAUSES: Final = (
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
)  # seconds after a failure; the last one again and again


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """What came of the last attempt for a certificate, and when there may be another (UTC)."""

    fingerprint: str
    failures: int
    due_at: float


@dataclass(slots=True, kw_only=True)
class _Pass:
    """One look at everything: how many were renewed, and how each failure would end a command.

    `owing` are the files after whose renewal nothing was run yet.
    """

    renewed: int = 0
    owing: list[SecretFile] = field(default_factory=list)
    seen: int = 0
    failures: list[Exit] = field(default_factory=list)

    @property
    def status(self) -> Exit:
        """How a command ends that has made this pass only."""
        kinds = {*self.failures}
        return Exit.FAILED if len(kinds) > 1 else min(kinds, default=Exit.DONE)


@click.command(
    "renew",
    cls=Verb,
    examples=[
        "grantserver renew ~/.local/share/skupper/namespaces/east --then 'skupper system reload'",
        "grantserver renew west.yaml --watch --then 'kubectl apply -f west.yaml'",
        "grantserver renew --apply -n shop",
    ],
)
@click.argument("paths", metavar="[PATH...]", nargs=-1)
@click.option(
    "--apply",
    is_flag=True,
    help="Renew Secrets in a namespace of a Kubernetes cluster: all of them, or each named PATH.",
)
@click.option(
    "-n",
    "--namespace",
    help="With --apply: the namespace; without it, the kubeconfig's or the pod's own, or default.",
)
@click.option(
    "--kubeconfig",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --apply: how to reach the cluster, if not as ~/.kube/config or a pod's service "
    "account say.",
)
@click.option("--watch", is_flag=True, help="Go on until stopped, and renew each when it is time.")
@click.option("--force", is_flag=True, help="Renew now what is not due yet.")
@click.option(
    "--then",
    "then",
    metavar="COMMAND",
    help="Run this when something was renewed; no shell reads it.",
)
def command(paths: Sequence[str], **options: Any) -> int:
    """Renew the certificates of links before they end.

    Each PATH is a file with a Secret, as `token redeem` prints it, or the directory of a system
    site's namespace. A certificate is renewed when two thirds of its life have passed. Made to
    be run by cron, or with --watch as a service.
    """
    agent = _Agent(paths=tuple(paths), **options)
    agent.check()
    return agent.watch_on() if agent.watch else agent.once()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agent:
    """What a command line asks for, and what was tried."""

    paths: tuple[str, ...]
    apply: bool
    namespace: str | None
    kubeconfig: Path | None
    watch: bool
    force: bool
    then: str | None
    _tried: dict[str, _Tried] = field(default_factory=dict)
    _said: dict[str, list[str]] = field(default_factory=dict)

    def check(self) -> None:
        """Raise UsageError for options that say nothing together."""
        for wrong, why in (
            (not self.apply and not self.paths, "say which PATH, or --apply"),
            (not self.apply and self.namespace is not None, "--namespace goes with --apply"),
            (not self.apply and self.kubeconfig is not None, "--kubeconfig goes with --apply"),
            (self.watch and self.force, "--force is for one time only"),
            (self.then is not None and not self._words(), "--then needs a command"),
        ):
            if wrong:
                raise click.UsageError(why)

    def once(self) -> int:
        """Look once; ends with 1 when a server has refused for good, 3 when it may renew later."""
        done = self._look(self.force)
        if not done.seen and not done.failures:
            hint("Nothing here could be renewed: only what was redeemed with a key of its own can.")
        if (done.renewed or done.owing) and not self._run_then(done.owing):
            return Exit.FAILED
        return done.status

    def watch_on(self) -> int:
        """Look until the process is told to stop."""
        owed = False  # of what is in a namespace, where nothing is marked
        with _stoppable() as stopped:
            hint(f"Watching; looked at every {format_seconds(int(LOOK_SECONDS))}.")
            while not stopped.is_set():
                done = self._look(force=False)
                owed = owed or bool(done.renewed or done.owing)
                owed = owed and not self._run_then(done.owing)
                stopped.wait(LOOK_SECONDS)
        return Exit.DONE

    def _look(self, force: bool) -> _Pass:
        done = _Pass()
        if self.apply:
            with self._told(self.namespace or "the cluster", done):
                ask(self._look_into_the_namespace(done, force))
        else:
            for path in self.paths:
                found: Sequence[SecretFile] = ()
                with self._told(path, done):
                    found = find(Path(path))
                for file in found:
                    self._file(file, done, force)
        return done

    def _file(self, file: SecretFile, done: _Pass, force: bool) -> None:
        done.seen += 1
        with self._told(file.label, done):
            if self.then is not None and file.owes_command:
                done.owing.append(file)
            if not self._is_due(file.label, file.secret.certificate_pem, force):
                return
            with file.locked():
                # Somebody else may have been here before us.
                certificate = renewing.look_at(file.secret.certificate_pem)
                if not force and ambient.utc_now() < certificate.due_at:
                    return
                with self._noted(file.label, certificate):
                    try:
                        renewed = ask(renewing.renew(file.secret, file.next_key()))
                    except Refused:
                        file.forget_key()
                        raise
                    file.finish(renewed, owes_command=self.then is not None)
                    done.owing.append(file)
            self._say(file.label, renewed, done)

    async def _look_into_the_namespace(self, done: _Pass, force: bool) -> None:
        from app.cli.clusters import opened_cluster  # noqa: PLC0415 - only where it is asked for
        from app.kube.renewals import renew_secret  # noqa: PLC0415
        from app.kube.resources import SECRETS  # noqa: PLC0415

        async with opened_cluster(self.kubeconfig, self.namespace) as (kube, namespace):
            found = [] if self.paths else (await kube.list(SECRETS, namespace)).items
            names = self.paths or [one["metadata"]["name"] for one in found if _may_be(one)]
            for name in names:
                label = f"{namespace}/{name}"
                with self._told(label, done):
                    secret = await kube.get(SECRETS, name, namespace)
                    held = read_link_secret(secret)
                    done.seen += 1
                    if not self._is_due(label, held.certificate_pem, force):
                        continue
                    with self._noted(label, renewing.look_at(held.certificate_pem)):
                        renewed = await renew_secret(
                            kube, secret, random_bytes=ambient.random_bytes
                        )
                    self._say(label, renewed, done)

    def _is_due(self, label: str, certificate_pem: bytes, force: bool) -> bool:
        certificate = renewing.look_at(certificate_pem)
        now = ambient.utc_now()
        tried = self._tried.get(label)
        if tried is not None and tried.fingerprint == certificate.fingerprint:
            return now >= tried.due_at
        if force or now >= certificate.due_at:
            return True
        if not self.watch:
            say(
                f"{label}: not due before {rfc3339(certificate.due_at)}, "
                f"good until {rfc3339(certificate.not_after)}."
            )
        return False

    @contextmanager
    def _noted(self, label: str, certificate: Certificate) -> Iterator[None]:
        """Note what comes of an attempt, and when there may be another."""
        tried = self._tried.pop(label, None)
        known = tried is not None and tried.fingerprint == certificate.fingerprint
        failures = tried.failures + 1 if tried is not None and known else 1
        try:
            yield
        except (Refused, Invalid, Unavailable, Conflict) as error:
            pause = _REFUSED_SECONDS
            if isinstance(error, Unavailable | Conflict):
                asked = getattr(error, "retry_after", None) or 0
                pause = max(_PAUSES[min(failures, len(_PAUSES)) - 1], asked)
            self._tried[label] = _Tried(
                fingerprint=certificate.fingerprint,
                failures=failures,
                due_at=ambient.utc_now() + pause,
            )
            raise

    @contextmanager
    def _told(self, label: str, done: _Pass) -> Iterator[None]:
        """Say what went wrong with one, once, so that the others get their turn."""
        try:
            yield
        except GrantServerError as error:
            done.failures.append(code(error))
            lines = [f"{label}: {line}" if label else line for line in problems(error)]
            if self._said.get(label) != lines:
                _complain(lines)
            self._said[label] = lines

    def _say(self, label: str, renewed: Renewed, done: _Pass) -> None:
        done.renewed += 1
        self._said.pop(label, None)
        say(
            f"{label}: renewed, good until {rfc3339(renewed.not_after)}; "
            f"the certificate before it counts until {rfc3339(renewed.superseded_at)}."
        )

    def _words(self) -> list[str]:
        try:
            return shlex.split(self.then or "")
        except ValueError as error:
            raise click.UsageError(f"--then: {error}") from error

    def _run_then(self, owing: Sequence[SecretFile]) -> bool:
        """Run what is to be run when something was renewed; tell whether all is well."""
        words = self._words()
        if not words:
            return True
        try:
            status = subprocess.run(words, check=False).returncode  # noqa: S603 - as they typed it
        except OSError as error:
            _complain([f"--then: {words[0]} cannot be run: {error.strerror}"])
            return False
        if status:
            done = "what was renewed is in place, and the next run tries it again"
            _complain([f"--then: {words[0]} ended with {status}; {done}"])
            return False
        for file in owing:
            file.command_was_run()
        return True


def _may_be(listed: Mapping[str, Any]) -> bool:
    """Tell whether a Secret of a list can be renewed; there are no kinds in one."""
    return is_renewable({**listed, "kind": "Secret"})


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Be told by SIGINT and SIGTERM to stop, once what is being done is done."""
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _complain(lines: Iterable[str]) -> None:
    for line in lines:
        hint(f"error: {one_line(line)}")
