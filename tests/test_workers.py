import contextlib
import http.client
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import app.serve
from app import settings, workers
from app.errors import GrantServerError
from app.services import grants
from app.workers import _Failure
from tests.crew import Crew, eventually, is_alive, launched, working
from tests.e2e.clients import shown_at
from tests.e2e.test_contention import check_exactly_allowed, rush
from tests.errors import one_of_each
from tests.pki import Folder, a_root
from tests.running import environment

ONLY_IN_WORKERS = "import sys, os\nif 'app.workers' in ' '.join(sys.orig_argv):\n"


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with working(tmp_path_factory.mktemp("crew")) as running:
        yield running
        running.process.terminate()
        assert running.ends() == 0


def counted(crew: Crew, series: str) -> float:
    lines = crew.server.ops("/metrics").body.decode().splitlines()
    [value] = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{series} ")]
    return float(value)


@contextlib.contextmanager
def only(crew: Crew, worker: int) -> Iterator[None]:
    """Let one worker alone answer for a while: the others do not run."""
    others = crew.workers - {worker}
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def redeem(crew: Crew, name: str, subject: str = "east") -> int:
    return crew.server.redeem(crew.server.issue(name), subject=subject).status


def test_every_worker_serves_and_the_server_is_ready_once(crew: Crew) -> None:
    assert len(crew.workers) == 2
    for worker in crew.workers:
        with only(crew, worker):
            assert crew.server.ops("/readyz").status == 200
            assert redeem(crew, f"served-by-{worker}") == 200
    [line] = crew.said(" ready ")
    assert line.endswith(" workers=2")
    assert crew.lines()[0] == line


def test_sixty_clients_of_two_workers_get_exactly_the_seven_that_are_allowed(crew: Crew) -> None:
    issued = crew.server.issue("contended", redemptions=7)
    check_exactly_allowed(crew.server, issued, rush(crew.server, issued))


def test_a_lost_answer_is_given_again_by_another_worker(crew: Crew) -> None:
    issued = crew.server.issue("lost")
    answers = set()
    for worker in crew.workers:
        with only(crew, worker):
            answers.add(crew.server.redeem(issued).body)
    assert len(answers) == 1
    assert grants.show(crew.server.home.database, issued.grant.id)[0].spent == 1


def test_each_worker_tells_what_all_have_counted(crew: Crew) -> None:
    total = "grantserver_redemptions_total"
    duration = "grantserver_redemption_duration_seconds_count"
    before = counted(crew, total)
    for times, worker in enumerate(sorted(crew.workers), start=2):
        with only(crew, worker):
            for time in range(times):
                assert redeem(crew, f"counted-by-{worker}-{time}") == 200
    for worker in crew.workers:
        with only(crew, worker):
            assert counted(crew, total) == before + 5
            assert counted(crew, duration) == before + 5
            text = crew.server.ops("/metrics").body.decode()
            series = [line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#"]
            assert len(series) == len(set(series))
            assert "pid=" not in text


def test_a_worker_that_is_killed_is_replaced_and_the_service_goes_on(tmp_path: Path) -> None:
    with working(tmp_path) as crew:
        before = crew.workers
        for worker in before:
            with only(crew, worker):
                assert redeem(crew, f"before-{worker}") == 200
        killed, left = sorted(before)
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: not is_alive(killed))
        assert redeem(crew, "meanwhile") == 200
        assert eventually(lambda: crew.said("a worker is ready"))
        assert len(crew.workers) == 2
        [new] = crew.workers - {left}
        with only(crew, new):
            assert redeem(crew, "after") == 200
            assert counted(crew, "grantserver_redemptions_total") == 4
        [told] = crew.said("error: ")
        assert re.fullmatch(
            r"error: a worker died and is replaced worker=[01] why=SIGKILL seconds=0.1", told
        )
        crew.process.terminate()
        assert crew.ends() == 0


def is_free(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) != 0


def test_workers_whose_parent_is_killed_end_by_themselves(tmp_path: Path) -> None:
    with working(tmp_path) as crew:
        orphans = crew.workers
        assert redeem(crew, "before") == 200
        crew.process.kill()
        crew.ends()
        assert eventually(lambda: not any(map(is_alive, orphans)))
        assert is_free(crew.server.addresses.redemption)
        assert is_free(crew.server.addresses.ops)
        assert crew.left_behind() == []
        assert len(crew.said("the parent is gone: stopping")) == 2
        assert crew.said("error: ") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_of_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with working(tmp_path) as crew:
        running = crew.workers
        assert len(running) == 2
        if number is signal.SIGINT:  # Ctrl-C reaches every process of the terminal
            os.killpg(crew.process.pid, number)
        else:
            crew.process.send_signal(number)
        assert crew.ends() == 0
        assert not any(map(is_alive, running))
        told = [line for line in crew.lines() if " audit: audit head " not in line]
        assert told[1:] == ["info: stopping", "info: stopped"]
        assert crew.left_behind() == []


def test_requests_under_way_are_answered_before_the_end(tmp_path: Path) -> None:
    """One at each worker, whose bodies are sent only once the server has been told to stop."""
    with working(tmp_path) as crew:
        waiting = []
        for worker in crew.workers:
            with only(crew, worker):
                issued = crew.server.issue(f"at-{worker}")
                host, port = crew.server.addresses.redemption
                connection = http.client.HTTPSConnection(
                    host, port, context=crew.server.context, timeout=30
                )
                connection.putrequest("POST", f"/{issued.grant.id}")
                connection.putheader("Content-Length", str(len(issued.code)))
                connection.endheaders()
                waiting.append((connection, issued.code))
        crew.process.terminate()
        assert eventually(lambda: crew.said("stopping"))
        for connection, code in waiting:
            connection.send(code.encode())
            assert connection.getresponse().status == 200
            connection.close()
        assert crew.ends() == 0


def test_a_worker_that_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    hurry = "import app.workers\napp.workers.GRACE_SECONDS = 1.0\n"
    with working(tmp_path, mischief=hurry) as crew:
        stuck = min(crew.workers)
        os.kill(stuck, signal.SIGSTOP)
        crew.process.terminate()
        assert crew.ends() == 0
        assert not is_alive(stuck)
        lines = [line for line in crew.lines()[1:] if " audit: audit head " not in line]
        stopping, killed, stopped = lines
        assert (stopping, stopped) == ("info: stopping", "info: stopped")
        assert re.fullmatch("warning: workers were killed at the end workers=[12]", killed)


def test_a_port_that_is_taken_is_told_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        further = {"GRANTSERVER_WORKERS": "2", "GRANTSERVER_LISTEN_OPS": address}
        with launched(tmp_path, **further) as run:
            assert run.ends() == 2
            [line] = run.lines()
            assert line.startswith(f'error: cannot listen on "{address}": the port is taken')
    assert not (tmp_path / "data").exists()


CANNOT_START = (
    ONLY_IN_WORKERS
    + """
    import app.home
    from app.errors import Misconfigured
    def fail(settings):
        raise Misconfigured(["this is wrong", "that is wrong"])
    app.home.open_home = fail
"""
)


def test_what_keeps_a_worker_from_starting_is_told_as_by_a_single_process(tmp_path: Path) -> None:
    with launched(tmp_path, mischief=CANNOT_START, GRANTSERVER_WORKERS="2") as run:
        assert run.ends() == 2
        assert run.lines() == ["error: this is wrong", "error: that is wrong"]
        assert run.workers == set()
        assert run.left_behind() == []


@pytest.mark.parametrize(
    ("mischief", "code", "told"),
    [
        ("    os.kill(os.getpid(), 9)\n", 3, "ended before it was ready: SIGKILL"),
        ("    os._exit(7)\n", 3, "ended before it was ready: exit code 7"),
        (
            "    import app.home\n    app.home.open_home = None\n",
            1,
            "not foreseen (TypeError): GRANTSERVER_LOGS_LEVEL=debug shows where",
        ),
    ],
)
def test_a_worker_that_ends_at_its_start_ends_the_server(
    tmp_path: Path, mischief: str, code: int, told: str
) -> None:
    with launched(tmp_path, mischief=ONLY_IN_WORKERS + mischief, GRANTSERVER_WORKERS="2") as run:
        assert run.ends() == code
        [line] = run.lines()
        assert told in line


def test_a_worker_that_cannot_be_replaced_is_tried_again_later_and_later(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    mischief = f"{ONLY_IN_WORKERS}    if os.path.exists({str(broken)!r}): os._exit(7)\n"
    with working(tmp_path, mischief=mischief) as crew:
        broken.touch()
        killed, left = sorted(crew.workers)
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: len(crew.said("error: ")) == 4)
        broken.unlink()
        assert redeem(crew, "meanwhile") == 200
        assert eventually(lambda: crew.said("a worker is ready"))
        pauses = [line.rpartition(" seconds=")[2] for line in crew.said("error: ")]
        assert pauses[:4] == ["0.1", "0.2", "0.4", "0.8"]
        assert "exit code 7" in crew.said("error: ")[1]
        assert left in crew.workers
        assert len(crew.workers) == 2
        crew.process.terminate()
        assert crew.ends() == 0


RARELY = (
    "import sys, os\nif 'app' in ' '.join(sys.orig_argv):\n"
    "    from app.services.serving import Keeper\n"
    "    Keeper.__init__.__kwdefaults__['poll_seconds'] = 3600.0\n"
)


def test_every_worker_looks_for_another_certificate_when_the_server_gets_sighup(
    tmp_path: Path,
) -> None:
    """None of them would by itself; and the one that takes another's place knows it too."""
    root = a_root()
    folder = Folder(directory=tmp_path / "tls")
    folder.write(root.certify("127.0.0.1"), root)
    with working(tmp_path, 2, mischief=RARELY, **folder.environment) as crew:
        assert len(crew.workers) == 2
        new = root.certify("127.0.0.1", kind="rsa")
        folder.write(new, root)
        crew.process.send_signal(signal.SIGHUP)
        changed = "another certificate is served"
        assert eventually(lambda: crew.log.read_text().count(changed) == 2)
        for worker in crew.workers:
            with only(crew, worker):
                assert shown_at(crew.server.addresses.redemption) == new.fingerprint
                assert redeem(crew, f"after-{worker}") == 200
        killed, left = sorted(crew.workers)
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: crew.said("a worker is ready"))
        crew.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: crew.log.read_text().count("nothing else is to be served") == 2)
        assert left in crew.workers
        assert len(crew.workers) == 2
        crew.process.terminate()
        assert crew.ends() == 0


def test_sighup_while_workers_start_ends_none_of_them(tmp_path: Path) -> None:
    with launched(tmp_path, GRANTSERVER_WORKERS="2") as run:
        assert eventually(lambda: run.workers)
        while not run.said(" ready "):
            run.process.send_signal(signal.SIGHUP)
            assert run.process.poll() is None
        assert run.said("error: ") == []
        run.process.terminate()
        assert run.ends() == 0


def test_a_server_that_is_stopped_while_it_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    with launched(tmp_path, GRANTSERVER_WORKERS="2") as run:
        assert eventually(lambda: run.workers)
        started = run.workers
        run.process.terminate()
        assert run.ends() == 0
        assert not any(map(is_alive, started))
        assert run.left_behind() == []
        assert run.said("error: ") == []


def test_a_single_worker_is_the_process_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[settings.Settings] = []
    monkeypatch.setattr(app.serve, "run", served.append)
    chosen = settings.load(environment(tmp_path))
    workers.run(chosen)
    assert served == [chosen]


@pytest.mark.parametrize("error", list(one_of_each()), ids=lambda error: type(error).__name__)
def test_an_error_reaches_the_parent_as_it_was(error: GrantServerError) -> None:
    again = _Failure.of(error).error()
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
