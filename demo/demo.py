"""`make demo`: from nothing to two linked sites and a refusal, with the real commands.

Everything happens on this machine, on free ports and in a directory of its own that is removed
at the end (`--keep` leaves it). What is typed after `$` is what an operator would type.
"""

import argparse
import base64
import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from app.ambient import monotonic
from app.crypto.facts import facts, verify_issued_by
from app.domain.times import rfc3339

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_WIDTH = 88


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where the play takes place: a directory, and the environment of its commands."""

    directory: Path
    environment: Mapping[str, str]
    ops: str

    def type(self, *words: str, expect: int = 0, told: str = "") -> None:
        """Run `grantserver WORDS`, showing command and output.

        The demo fails unless it ends with `expect` and has `told` what it should.
        """
        print(f"\n  $ grantserver {shlex.join(words)}")
        done = subprocess.run(
            [sys.executable, "-m", "app", *words],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(textwrap.indent(done.stdout.rstrip(), "  | "))
        if done.returncode != expect:
            raise SystemExit(f"the command above ended with {done.returncode}, not with {expect}")
        if told not in done.stdout:
            raise SystemExit(f'the command above did not say "{told}"')


def main() -> None:
    """Play the demo; exits with 1 when any part of it does not go as it should."""
    parser = argparse.ArgumentParser(description="play a whole linking on this machine")
    parser.add_argument("--keep", action="store_true", help="leave the directory behind")
    keep = parser.parse_args().keep
    directory = Path(tempfile.mkdtemp(prefix="grantserver-demo-"))
    try:
        play(prepare(directory))
    finally:
        if keep:
            print(f"\nEverything is still in {directory}.")
        else:
            shutil.rmtree(directory)


def prepare(directory: Path) -> Stage:
    """Choose free ports and write down the settings; what the user has set does not count."""
    redemption, ops = free_ports(2)
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("GRANTSERVER_")
    }
    return Stage(
        directory=directory,
        environment={
            **inherited,
            "GRANTSERVER_DATA_DIR": str(directory / "data"),
            "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{redemption}",
            "GRANTSERVER_LISTEN_OPS": f"127.0.0.1:{ops}",
            "GRANTSERVER_REACH_URL": f"https://127.0.0.1:{redemption}",
            # The commands find this module wherever they run.
            "PYTHONPATH": str(Path(__file__).parent.parent),
        },
        ops=f"http://127.0.0.1:{ops}",
    )


def play(stage: Stage) -> None:
    """Tell the story, step by step."""
    say(
        "GrantServer links two sites of a Skupper network. One site (west) listens. The others "
        "(east and south) want to connect to it, and for that each needs a certificate signed "
        "by west's authority, and west's addresses. They get both for a secret code that is "
        "good for a short time and a few uses: the token."
    )
    step(1, "Start the server. It makes its database, its keys and its own certificate by itself.")
    with server(stage):
        step(2, "Tell it where the router of west can be reached.")
        stage.type(
            *("site", "set", "west"),
            *("--endpoint", "inter-router=west.example.com:55671"),
            *("--endpoint", "edge=west.example.com:45671"),
        )
        step(3, "Issue a token: two redemptions within 25 minutes, over links of cost 2.")
        stage.type(
            *("token", "issue", "token.yaml", "--site", "west"),
            *("--redemptions", "2", "--window", "25m", "--cost", "2"),
        )
        say("This is what is handed to the other sites (the code is hidden here):")
        show(hide_code((stage.directory / "token.yaml").read_text()))
        for number, site in ((4, "east"), (5, "south")):
            step(number, f"Site {site} redeems the token and gets its certificate and its Link.")
            stage.type("token", "redeem", "token.yaml", "--subject", site, "--out", site)
            look_at(stage, site)
        step(6, "A third site tries. Both redemptions are used: it is refused.")
        stage.type(
            *("token", "redeem", "token.yaml", "--subject", "north"),
            expect=1,
            told="No such access granted",
        )
        step(7, "The server has counted exactly two, and noted that somebody else had the code.")
        stage.type("grant", "list")
        stage.type("token", "inspect", "token.yaml")
        step(8, "Stop the server.")
    say("That is all there is to it. README.md goes on from here.")


def look_at(stage: Stage, site: str) -> None:
    """Show the Link that a site got, and what its certificate says."""
    resources = stage.directory / site / "input" / "resources"
    [link] = resources.glob("Link-*.yaml")
    [secret] = resources.glob("Secret-*.yaml")
    say(f"The Link of {site}:")
    show(link.read_text())
    data = yaml.safe_load(secret.read_text())["data"]
    certificate, authority = (base64.b64decode(data[name]) for name in ("tls.crt", "ca.crt"))
    verify_issued_by(certificate, authority)
    about = facts(certificate)
    say(f"The certificate of {site} (its private key stays in a file that only it can read):")
    show(
        f"Subject:    {about.subject}\n"
        f"Issuer:     {about.issuer}   (signature verified: OK)\n"
        f"Serial:     {about.serial}\n"
        f"Key:        {about.key}\n"
        f"Not before: {rfc3339(about.not_before)}\n"
        f"Not after:  {rfc3339(about.not_after)}\n"
    )


@contextlib.contextmanager
def server(stage: Stage) -> Iterator[None]:
    """Run the server until the block ends, then stop it and see that it stops cleanly."""
    print("\n  $ grantserver serve &")
    log = stage.directory / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"],
            cwd=stage.directory,
            env=stage.environment,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until_ready(stage, process, log)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(_STOP_SECONDS)
    show(log.read_text())
    if code != 0:
        raise SystemExit(f"the server ended with {code}")


def wait_until_ready(stage: Stage, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask /readyz until it says yes. Exits when the server ends or takes too long."""
    give_up = monotonic() + _START_SECONDS
    while process.poll() is None and monotonic() < give_up:
        try:
            with urllib.request.urlopen(f"{stage.ops}/readyz", timeout=1) as answer:
                show(f"{stage.ops}/readyz says: {answer.read().decode()}")
                return
        except (urllib.error.URLError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
    raise SystemExit(f"the server did not become ready:\n{log.read_text()}")


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def hide_code(token: str) -> str:
    """Replace the code in a token's text: a demo ends up in terminals and logs."""
    code = yaml.safe_load(token)["spec"]["code"]
    return token.replace(code, "*" * len(code))


def step(number: int, text: str) -> None:
    """Head a new step."""
    print(f"\n{number}. " + textwrap.fill(text, _WIDTH, subsequent_indent="   ").strip())


def say(text: str) -> None:
    """Say something between the steps."""
    print("\n" + textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="  "))


def show(text: str) -> None:
    """Show a document or an output."""
    print(textwrap.indent(text.rstrip(), "  | "))


if __name__ == "__main__":
    main()
