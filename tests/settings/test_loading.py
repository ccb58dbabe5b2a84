import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import app
from app.errors import Misconfigured
from app.logs import Format, Level
from app.settings import Address, catalog, from_environment, load, tell_library
from tests.settings.cases import CASES, Case, each_setting, problems_of


def toml_file(folder: Path, content: str) -> Path:
    file = folder / "grantserver.toml"
    file.write_text(content, encoding="utf-8")
    return file


@each_setting
def test_a_setting_is_taken_from_the_environment(case: Case) -> None:
    found = load({case.variable: case.text})
    assert case.read(found) == case.value
    assert type(case.read(found)) is type(case.value)


@each_setting
def test_a_setting_is_taken_from_the_file(case: Case, tmp_path: Path) -> None:
    file = toml_file(tmp_path, f"{case.table}\n{case.name} = {case.toml}\n")
    assert case.read(load({}, config=file)) == case.value
    assert case.read(load({"GRANTSERVER_CONFIG": str(file)})) == case.value


@each_setting
def test_a_setting_is_taken_from_a_flag(case: Case) -> None:
    assert case.read(load({}, overrides={case.flag: case.text})) == case.value


def test_the_cases_are_all_settings_and_the_catalog_lists_them_in_order() -> None:
    listed = catalog()
    assert [(c.variable, f"{c.table} {c.name}".lstrip()) for c in CASES] == [
        row[:2] for row in listed
    ]
    for environment, _toml, default, meaning in listed:
        assert meaning.endswith(".")
        if "<data dir>" not in default:
            assert load({environment: default}) == load({})


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = toml_file(tmp_path, '[logs]\nlevel = "debug"\nformat = "json"\n[listen]\nops = "a:1"\n')
    found = load(
        {"GRANTSERVER_LOGS_LEVEL": "warning", "GRANTSERVER_LOGS_FORMAT": "text"},
        config=file,
        overrides={"logs.level": "error", "logs.format": None},
    )
    assert found.logs.level is Level.ERROR
    assert found.logs.format is Format.TEXT
    assert found.listen.ops == Address("a", 1)


def test_a_file_that_is_given_wins_over_the_one_in_the_environment(tmp_path: Path) -> None:
    file = toml_file(tmp_path, '[logs]\nlevel = "debug"\n')
    found = load({"GRANTSERVER_CONFIG": "/nowhere.toml"}, config=file)
    assert found.logs.level is Level.DEBUG


def test_database_and_keys_lie_in_the_data_directory_unless_told_otherwise() -> None:
    found = load({"GRANTSERVER_DATA_DIR": "/srv/gs/"})
    assert found.database.url == "sqlite:////srv/gs/grantserver.db"
    assert found.sealing.key_file == Path("/srv/gs/sealing.keys")
    assert load({}, overrides={"data.dir": Path("/x")}).sealing.key_file == Path("/x/sealing.keys")


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANTSERVER_LIMITS_CONNECTIONS", "77")
    assert from_environment(overrides={"logs.level": "error"}).limits.connections == 77


def test_a_library_that_reads_the_environment_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBRARY_DIR", "before")
    tell_library("LIBRARY_DIR", "/x")
    assert os.environ["LIBRARY_DIR"] == "/x"  # noqa: TID251


def test_all_problems_are_told_at_once_each_where_it_was_written(tmp_path: Path) -> None:
    file = toml_file(
        tmp_path, '[listen]\nops = 9091\nredemtion = "x"\n[ledgr]\na = 1\n[logs]\nlevel = "loud"\n'
    )
    address = "expected HOST:PORT or [IPv6]:PORT, port 0 to 65535 (0 takes any free one)"
    assert problems_of(
        {
            "GRANTSERVER_LISTEN_REDEMPTION": "9090",
            "GRANTSERVER_LIMITS_CONNECTION": "5",
            "GRANTSERVER_LIMITS_CONNECTIONS": "5",
            "OTHER": "x",
        },
        config=file,
        overrides={"ledger.spacing": "-1s", "reach.urls": "x"},
    ) == (
        f"[listen] redemtion in {file}: is not known; did you mean [listen] redemption?",
        f"[ledgr] in {file}: is not known; did you mean [ledger]?",
        "GRANTSERVER_LIMITS_CONNECTION: is not known; did you mean GRANTSERVER_LIMITS_CONNECTIONS?",
        "--reach-urls: is not known; did you mean reach.url?",
        f'GRANTSERVER_LISTEN_REDEMPTION: got "9090"; {address}',
        f"[listen] ops in {file}: got 9091; {address}",
        f'[logs] level in {file}: got "loud"; expected debug, info, warning or error',
        'GRANTSERVER_LIMITS_CONNECTIONS: got "5"; expected a whole number, 16 or more',
        '--ledger-spacing: got "-1s"; expected a duration, such as 10ms or 0s',
    )


def test_what_may_be_a_secret_is_not_repeated() -> None:
    told = "\n".join(
        problems_of(
            {
                "GRANTSERVER_DATABASE_URL": "postgresql://user:hunter2@db?password=hunter2",
                "GRANTSERVER_REACH_URL": "https://user:hunter2@host",
                "GRANTSERVER_SEALING_KEY_FILE": "hunter2\n",
                "GRANTSERVER_SEALING_KEYS": "hunter2",
                "GRANTSERVER_LISTEN_OPS": "user:hunter2@host",
            }
        )
    )
    assert "hunter2" not in told
    assert len(told.splitlines()) == 5


def test_a_long_or_unprintable_value_is_shown_short_and_escaped() -> None:
    (problem,) = problems_of({"GRANTSERVER_LISTEN_OPS": "\x1b[2J\n" + "x" * 10_000})
    assert '"\\u001b[2J\\nxxx' in problem
    assert len(problem) < 250


@pytest.mark.parametrize(
    "variables",
    [
        {"GRANTSERVER_SERVICE_HOST": "10.0.0.1", "GRANTSERVER_SERVICE_PORT": "9090"},
        {"GRANTSERVER_SERVICE_PORT_REDEMPTION": "9090", "GRANTSERVER_PORT": "tcp://10.0.0.1:9090"},
        {
            "GRANTSERVER_PORT_9090_TCP": "tcp://10.0.0.1:9090",
            "GRANTSERVER_PORT_9090_TCP_PROTO": "tcp",
            "GRANTSERVER_PORT_9090_TCP_PORT": "9090",
            "GRANTSERVER_PORT_9090_TCP_ADDR": "10.0.0.1",
        },
        {
            "GRANTSERVER_OPS_SERVICE_HOST": "10.0.0.1",
            "GRANTSERVER_OPS_PORT": "tcp://[fd00::1]:9091",
            "GRANTSERVER_OPS_PORT_9091_TCP_ADDR": "fd00::1",
        },
    ],
)
def test_what_kubernetes_says_of_a_service_called_grantserver_is_not_a_setting(
    variables: dict[str, str],
) -> None:
    assert load(variables) == load({})


def test_a_port_that_a_user_wrote_is_not_taken_for_one_of_kubernetes() -> None:
    assert problems_of({"GRANTSERVER_PORT": "9090"}) == ("GRANTSERVER_PORT: is not known",)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a = ", "is not TOML: Invalid value (at"),
        ("[listen", "is not TOML"),
        ("listen = 3", "[listen] in"),
        ("workers = 0", "workers in"),
        ("[workers]\nworkers = 2", "workers in"),
        ("worker = 2", "is not known; did you mean workers?"),
        ("[zzz]\na = 1", "[zzz] in"),
        ("x = " + "[" * 5000, "is not TOML"),
    ],
)
def test_a_file_that_is_no_table_of_settings_is_a_problem(
    content: str, why: str, tmp_path: Path
) -> None:
    (problem,) = problems_of({}, config=toml_file(tmp_path, content))
    assert why in problem
    assert "grantserver.toml" in problem


def test_a_file_that_cannot_be_read_is_a_problem_beside_the_others(tmp_path: Path) -> None:
    bad = {"GRANTSERVER_LOGS_LEVEL": "loud"}
    missing = problems_of({**bad, "GRANTSERVER_CONFIG": str(tmp_path / "none.toml")})
    assert missing[0] == f"{tmp_path}/none.toml: cannot be read: No such file or directory"
    assert missing[1].startswith("GRANTSERVER_LOGS_LEVEL: ")
    assert "Is a directory" in problems_of({}, config=tmp_path)[0]
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# caf\xe9\n")
    assert problems_of({}, config=latin) == (f"{latin}: is not TOML: not such a text",)
    assert problems_of({"GRANTSERVER_CONFIG": ""}) == (
        'GRANTSERVER_CONFIG: got ""; expected the path of a TOML file',
    )


toml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def problems_if_any(environ: dict[str, str], **more: Any) -> tuple[str, ...]:
    try:
        load(environ, **more)
    except Misconfigured as error:
        return error.problems or ("",)
    return ()


@given(
    variable=st.sampled_from([case.variable for case in CASES] + ["GRANTSERVER_X"]),
    text=st.text() | st.sampled_from([case.text for case in CASES]),
)
def test_garbage_in_the_environment_is_a_problem_and_nothing_else(variable: str, text: str) -> None:
    for problem in problems_if_any({variable: text}):
        assert problem.startswith(f"{variable}: ")
        assert problem.isprintable()


@given(flag=st.sampled_from([case.flag for case in CASES]), value=toml_values)
def test_garbage_of_any_type_is_a_problem_and_nothing_else(flag: str, value: object) -> None:
    for problem in problems_if_any({}, overrides={flag: value}):
        assert problem.startswith("--")
        assert problem.isprintable()


@given(content=st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_garbage_in_the_file_is_a_problem_and_nothing_else(
    content: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "garbage.toml"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    for problem in problems_if_any({}, config=file):
        assert str(file) in problem
        assert problem.isprintable()


def test_the_environment_is_read_nowhere_else() -> None:
    root = Path(app.__file__).parent
    readers = [
        source.relative_to(root).as_posix()
        for source in root.rglob("*.py")
        if re.search("environ(?!ment|=)|getenv", source.read_text(encoding="utf-8"))
    ]
    # The one writes a HOME for a library where there is none.
    assert sorted(readers) == ["kube/connection.py", "settings/loading.py"]


def test_what_leads_commands_elsewhere_is_no_setting_and_no_mistake() -> None:
    names = ("SERVER", "SERVER_TOKEN_FILE", "SERVER_CA_FILE")
    assert load({f"GRANTSERVER_{name}": "x" for name in names}) == load({})
    assert problems_of({"GRANTSERVER_SERVER_TOKEN": "x"})
