"""What no single module's test can see: layers, mirrored tests, and what must be nowhere."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
APP = ROOT / "app"
TESTS = ROOT / "tests"
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = {one["name"]: one for one in CONFIG["tool"]["importlinter"]["contracts"]}

# A package's front page is tested through what it names; the program's entry by tests/test_main.py.
NO_TEST_OF_ITS_OWN = {"__init__", "__main__"}
# Tests of the whole, which mirror no module.
NO_MODULE_OF_THEIR_OWN = {
    "e2e",
    "docs",
    "bench",
    "prove",
    "fuzz",
    "demo",
    "deploy",
    "helm",
    "release",
}
NO_MODULE_EITHER = {"test_architecture.py", "test_main.py"}
# Of what the tests themselves are made of.
OF_A_STAND_IN = {Path("kube/test_api_server.py"), Path("kube/test_conformance.py")}
MADE_BY_TOOLS = {"__pycache__", "grantserver-data", "dist", "build", "node_modules"}


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory)},  # noqa: TID251 - handed on as it is
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def modules() -> Iterator[Path]:
    for path in sorted(APP.rglob("*.py")):
        yield path.relative_to(APP)


def files() -> Iterator[Path]:
    """Every file of the repository, without what tools have made beside it."""
    for directory, below, names in os.walk(ROOT):
        hidden = {name for name in below if name.startswith(".") and name != ".ci"}
        below[:] = sorted(set(below) - hidden - MADE_BY_TOOLS)
        for name in sorted(names):
            if not name.startswith(".coverage") and not name.endswith((".pyc", ".pyo")):
                yield Path(directory) / name


def children() -> set[str]:
    return {
        f"app.{path.name.removesuffix('.py')}"
        for path in APP.iterdir()
        if (path.suffix == ".py" and path.stem != "__init__")
        or (path.is_dir() and any(path.glob("*.py")))
    }


def test_the_layers_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


def test_each_contract_breaks_when_it_is_broken(tmp_path: Path) -> None:
    """A test of the test: contracts that can no longer fail would hold for ever."""
    shutil.copytree(APP, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for module, line in (
        ("domain/times.py", "import os"),
        ("domain/times.py", "from app.store import engine"),
        ("services/sites.py", "import sqlalchemy"),
        ("services/sites.py", "import cryptography"),
        ("services/sites.py", "import starlette"),
        ("services/sites.py", "import kubernetes"),
        ("services/sites.py", "import opentelemetry"),
        ("services/sites.py", "from app import settings"),
    ):
        path = tmp_path / "app" / module
        path.write_text(f"{path.read_text()}\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    for name in CONTRACTS:
        assert f"{name} BROKEN" in done.stdout


def test_every_part_of_the_program_has_its_layer() -> None:
    layers = CONTRACTS["Layers"]["layers"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    # Settings stand beside the layers: a contract of their own says who may read them.
    assert named == children() - {"app.settings"}


@pytest.mark.parametrize("name", [name for name in CONTRACTS if name.startswith("Only ")])
def test_a_library_is_forbidden_to_everybody_but_its_one_importer(name: str) -> None:
    """Everybody below the entry points; the base of the tree has nobody to be forbidden by."""
    owner = f"app.{name.split()[1]}"
    free = {owner, "app.__main__", "app.ambient", "app.errors"}
    assert set(CONTRACTS[name]["source_modules"]) >= children() - free


def test_a_library_that_a_server_may_do_without_is_not_loaded_beforehand() -> None:
    """Neither by the command line nor by a server that is not told to work with Kubernetes."""
    program = "import sys, app.cli.root, app.serve, app.workers; print('kubernetes' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert done.stdout.strip() == "False"


def test_every_module_has_its_test() -> None:
    missing = [
        f"app/{path} has no tests/{path.parent / f'test_{path.name}'}"
        for path in modules()
        if path.stem not in NO_TEST_OF_ITS_OWN
        and not (TESTS / path.parent / f"test_{path.name}").exists()
    ]
    assert missing == []


def test_every_test_has_its_module() -> None:
    orphans = [
        str(path.relative_to(ROOT))
        for path in sorted(TESTS.rglob("test_*.py"))
        if path.relative_to(TESTS).parts[0] not in NO_MODULE_OF_THEIR_OWN | NO_MODULE_EITHER
        and path.relative_to(TESTS) not in OF_A_STAND_IN
        and not (APP / path.relative_to(TESTS).parent / path.name.removeprefix("test_")).exists()
    ]
    assert orphans == []


def test_every_folder_of_python_is_a_package() -> None:
    folders = {path.parent for top in (APP, TESTS) for path in top.rglob("*.py")}
    assert [str(one) for one in folders if not (one / "__init__.py").exists()] == []


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def called(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("path", list(modules()), ids=str)
def test_clock_randomness_and_environment_have_one_door_each(path: Path) -> None:
    tree = ast.parse((APP / path).read_text())
    if path != Path("ambient.py"):
        assert set(imported(tree)) & {"time", "secrets", "random"} == set()
        ambient = {"datetime.now", "datetime.utcnow", "os.urandom", "uuid.uuid4", "uuid.uuid1"}
        assert set(called(tree)) & ambient == set()
    # The door to the Kubernetes library gives it a home directory where there is none.
    if path.parts[0] not in {"settings", "settings.py"} and path != Path("kube/connection.py"):
        assert set(called(tree)) & {"os.environ", "os.getenv"} == set()


def test_nothing_in_the_repository_knows_the_machine_it_was_written_on() -> None:
    """No path of somebody's disk, in a program, a test, a document or a lock."""
    own = re.escape(str(ROOT)) if len(ROOT.parts) > 2 else "(?!)"
    machine = re.compile(rf"(?<![\w.:/-])/(?:work|root|Users|mnt|home/(?!\W))\b|{own}")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if machine.search(line)
    ]
    assert found == []


def pinned(lock: str) -> list[str]:
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    return [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_every_requirement_is_pinned_by_hash_and_comes_from_nowhere_in_particular(
    lock: str,
) -> None:
    text = (ROOT / lock).read_text()
    assert re.search(r"://|index.url|find.links|trusted.host| @ ", text) is None
    lines = pinned(lock)
    assert len(lines) > 10
    for line in lines:
        requirement = r"[a-z0-9][a-z0-9._-]*(?:\[[a-z0-9,._-]+\])?==[^\s;]+(?:\s*;[^\\]*?)?"
        assert re.fullmatch(rf"{requirement}(?:\s+--hash=sha256:[0-9a-f]{{64}})+\s*", line), line


def names(lock: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in pinned(lock):
        name, _, rest = line.partition("==")
        found[name.partition("[")[0]] = rest.split()[0]
    return found


def test_both_locks_agree_and_hold_every_declared_dependency() -> None:
    production, development = names("requirements.lock"), names("requirements-dev.lock")
    assert production.items() <= development.items()

    def normal(requirement: str) -> str:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert name is not None
        return re.sub(r"[-_.]+", "-", name[0]).lower()

    project: dict[str, Any] = CONFIG["project"]
    assert {normal(one) for one in project["dependencies"]} <= set(production)
    assert {normal(one) for one in CONFIG["dependency-groups"]["dev"]} <= set(development)
