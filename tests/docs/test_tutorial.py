"""The tutorial does what it says, typed command by command in an empty directory."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.handbook import DOCS, section
from tests.installation import free_ports
from tests.kube.api_server import FakeKube

PAGE = (DOCS / "tutorial.md").read_text()
CHECKOUT = DOCS.parent
INSTALL = ["make install", ". .venv/bin/activate"]
"""What has been done already where these tests run."""
MARK = "=== what follows was typed in block"
MOST_SECONDS = 90
needs = pytest.mark.skipif(
    not all(shutil.which(one) for one in ("bash", "curl", "openssl")),
    reason="bash, curl or openssl is missing",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is typed at once, and what is shown then, if the page says so."""

    typed: str
    shown: str | None

    @property
    def fails(self) -> bool:
        return self.shown is not None and self.shown.startswith("error:")


def steps(text: str) -> Iterator[Step]:
    """The blocks of a part of the page: consoles, each with the answer that stands below it."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for (language, typed), (follower, shown) in zip(
        found, [*found[1:], ("console", "")], strict=True
    ):
        if language == "console":
            yield Step(typed=typed, shown=None if follower else shown)


def part(heading: str) -> str:
    """All below a heading of the second level."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def plain(text: str) -> str:
    """Take away what is another one each time: moments, ids, widths of columns."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    return re.sub(r" {2,}", "  ", text).strip()


def is_as_shown(printed: str, shown: str) -> bool:
    """Compare what was printed with the page, where `…` stands for anything."""
    pattern = ".*".join(re.escape(plain(piece)) for piece in shown.split("…"))
    return re.fullmatch(rf"\s*{pattern}\s*", plain(printed), re.DOTALL) is not None


def walk(taken: list[Step], directory: Path, *, environment: dict[str, str]) -> list[str]:
    """Type all of it into one shell, as somebody would, and give what each block printed."""
    redemption, ops = free_ports(2)
    ports = {"9090": str(redemption), "9091": str(ops)}
    script = [f"cd {CHECKOUT}"]
    for number, step in enumerate(taken):
        typed = "\n".join(line for line in step.typed.splitlines() if line not in INSTALL)
        script += [f"echo; echo '{MARK} {number}'", "set +e" if step.fails else "set -e", typed]
    inherited = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 - handed on as it is
        if not name.startswith("GRANTSERVER_")
    }
    process = subprocess.Popen(
        ["bash", "-c", re.sub(r"\b909[01]\b", lambda one: ports[one[0]], "\n".join(script))],
        cwd=directory,
        env=inherited
        | {
            "HOME": str(directory),
            "TMPDIR": str(directory),
            "PATH": f"{Path(sys.executable).parent}:{inherited['PATH']}",
            "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{redemption}",
            "GRANTSERVER_LISTEN_OPS": f"127.0.0.1:{ops}",
        }
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    stuck = False
    try:
        output, _ = process.communicate(timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        stuck = True
        _end(process)
        output, _ = process.communicate()
    finally:
        _end(process)
    assert not stuck, output
    for port, chosen in ports.items():
        output = output.replace(chosen, port)
    printed = re.split(rf"^{MARK} \d+\n", output, flags=re.MULTILINE)[1:]
    assert process.returncode == 0, output
    assert len(printed) == len(taken), output
    return printed


def _end(process: "subprocess.Popen[str]") -> None:
    """End the shell and what it has started and left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def follow(heading: str, directory: Path, **environment: str) -> None:
    taken = [*steps(part("Before you begin")), *steps(part(heading))]
    for step, printed in zip(taken, walk(taken, directory, environment=environment), strict=True):
        if step.shown is not None:
            assert is_as_shown(printed, step.shown), f"{step.typed}\nprinted\n{printed}"


@needs
def test_a_newcomer_without_a_cluster_sees_what_the_page_shows(tmp_path: Path) -> None:
    follow("Without a cluster", tmp_path)


@needs
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl to type to")
def test_a_newcomer_with_a_cluster_sees_what_the_page_shows(
    fake_kube: FakeKube, tmp_path: Path
) -> None:
    (tmp_path / ".kube").mkdir()
    fake_kube.kubeconfig(tmp_path / ".kube" / "config")
    follow("With a cluster", tmp_path)


def test_another_answer_than_the_one_that_is_shown_is_noticed() -> None:
    shown = "to-west  2 of 2  2026-11-23T12:25:00Z  used up\nnext: …, then\n"
    assert is_as_shown(shown.replace("…", "wait").replace("12:25", "13:00"), shown)
    assert not is_as_shown(shown.replace("2 of 2", "1 of 2"), shown)
    assert not is_as_shown(f"{shown}and more\n", shown)
    assert not is_as_shown("", shown)


def test_the_newcomer_installs_as_the_first_page_says() -> None:
    (first, *_rest) = steps(section("Before you begin", PAGE))
    assert first.typed.splitlines()[:2] == INSTALL
    assert " && ".join(INSTALL) in (CHECKOUT / "README.md").read_text()
