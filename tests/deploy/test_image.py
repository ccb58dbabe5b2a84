"""The image is built without a daemon, and serves as what it will be: not root, nothing written.

That takes minutes, so it is done where GRANTSERVER_TEST_IMAGE is set (`make image-test`). A Debian
that debootstrap makes stands in for the bases, which come from a registry.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import settings
from tests.installation import free_ports

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
BASE = "localhost/grantserver-base"
IMAGE = "localhost/grantserver-test"
USER = 65532
pytestmark = pytest.mark.timeout(1200)
TOOLS = ("buildah", "debootstrap", "unshare", "chroot")
COPIED = ("app", "migrations", "pyproject.toml", "README.md", "LICENSE", "Dockerfile")
COPIED_TOO = (".dockerignore", "requirements.lock", "requirements-build.lock")


def why_not() -> str:
    if not os.environ.get("GRANTSERVER_TEST_IMAGE"):  # noqa: TID251
        return "the image takes minutes: GRANTSERVER_TEST_IMAGE is not set"
    if os.geteuid() != 0:
        return "the image is built and run by root here"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"there is no {', '.join(missing)}" if missing else ""


def test_the_dockerfile_has_nothing_that_a_linter_complains_about() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("there is no hadolint: requirements-chart.lock is not installed")
    found = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], check=False, capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_everything_is_installed_by_its_hash_and_nothing_is_compiled() -> None:
    installs = re.findall(r"pip install [^&]*", DOCKERFILE)
    assert len(installs) == 3
    for one in installs:
        assert ("--require-hashes" in one and "--only-binary :all:" in one) or "--no-index" in one
    assert re.search(r"^USER 65532:65532$", DOCKERFILE, re.MULTILINE)


def test_the_last_stage_runs_nothing_so_that_a_base_without_a_shell_will_do() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert not re.search(r"^RUN", last, re.MULTILINE)
    commands = re.findall(r"^(?:ENTRYPOINT|CMD| +CMD) (.*)$", last, re.MULTILINE)
    assert len(commands) == 3
    assert all(one.startswith("[") for one in commands)


def test_its_environment_names_settings_that_exist() -> None:
    named = set(re.findall(r"GRANTSERVER_\w+", DOCKERFILE))
    assert named <= {variable for variable, *_ in settings.catalog()}


def test_only_what_is_needed_is_sent_to_the_builder() -> None:
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert kept[0] == "*"
    sources = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    wanted = {source for line in sources for source in line.split()}
    assert wanted == {line[1:] for line in kept if line.startswith("!")}


def run(*words: object, timeout: float = 900) -> str:
    done = subprocess.run(
        [str(word) for word in words], check=False, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Build the image, and give the root of a container that was made of it."""
    if reason := why_not():
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("image")
    if not run("buildah", "images", "--quiet", "--filter", f"reference={BASE}"):
        packages = "--include=python3-minimal,python3,python3-pip,ca-certificates"
        run("debootstrap", "--variant=minbase", packages, "bookworm", directory / "base")
        run("tar", "-C", directory / "base", "-cf", directory / "base.tar", ".")
        made = run("buildah", "from", "scratch")
        run("buildah", "add", "--quiet", made, directory / "base.tar", "/")
        run("buildah", "commit", "--quiet", made, BASE)
        run("buildah", "rm", made)
    source = directory / "source"
    source.mkdir()
    for name in (*COPIED, *COPIED_TOO):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    # What pip needs to reach an index here: the machine's CAs and its configuration.
    there = [Path(one) for one in ("/etc/ssl/certs", "/etc/pip.conf")]
    mounts = [f"--volume={one}:{one}:ro" for one in there if one.exists()]
    bases = [f"--build-arg={which}_IMAGE={BASE}" for which in ("BUILD", "RUNTIME")]
    run(
        *("buildah", "bud", "--isolation", "chroot", "--pull-never", "--format", "docker"),
        *(*mounts, *bases, "--build-arg=SOURCE_DATE_EPOCH=1700000000", "--tag", IMAGE, source),
    )
    container = run("buildah", "from", "--pull-never", IMAGE)
    try:
        yield Path(run("buildah", "mount", container))
    finally:
        run("buildah", "umount", container)
        run("buildah", "rm", container)
        run("buildah", "rmi", IMAGE)


SERVE = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
mount -t tmpfs -o mode=700,uid=65532,gid=65532 data "$ROOT/var/lib/grantserver"
mount -t proc proc "$ROOT/proc"
mount --bind /dev "$ROOT/dev"
exec chroot --userspec=65532:65532 --groups= "$ROOT" /usr/bin/env -i $ENVIRONMENT /bin/sh -c "$PLAY"
"""
PLAY = """
cd /var/lib/grantserver
echo user $(id -u)
touch /opt/x 2>/dev/null && echo written || echo read-only
it() { /usr/local/bin/grantserver "$@"; }
/usr/local/bin/grantserver serve 2>log & server=$!
ready="import urllib.request as it; it.urlopen('$READY', timeout=4)"
for _ in $(seq 100); do
  /usr/bin/python3 -c "$ready" 2>/dev/null && break
  kill -0 $server || { cat log; exit 1; }
  sleep 0.1
done
it site set west --endpoint inter-router=west.example:55671 >/dev/null
it token issue token.yaml --site west >/dev/null 2>&1
it token redeem token.yaml 2>/dev/null | grep '^kind:'
it token redeem token.yaml 2>&1 | grep -o 'No such access granted'
kill $server
wait $server
echo ended $?
"""


def test_the_image_redeems_as_nobody_on_a_root_that_is_read_only(root: Path) -> None:
    redemption, ops = free_ports(2)
    environment = {
        "PYTHONPATH": "/opt/grantserver",
        "PYTHONDONTWRITEBYTECODE": "1",
        "GRANTSERVER_DATA_DIR": "/var/lib/grantserver",
        "GRANTSERVER_LISTEN_REDEMPTION": f"127.0.0.1:{redemption}",
        "GRANTSERVER_LISTEN_OPS": f"127.0.0.1:{ops}",
        "GRANTSERVER_REACH_URL": f"https://127.0.0.1:{redemption}",
    }
    told = subprocess.run(
        ["unshare", "--mount", "--", "sh", "-c", SERVE],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "ROOT": str(root),
            "ENVIRONMENT": " ".join(f"{name}={value}" for name, value in environment.items()),
            "PLAY": PLAY.replace("$READY", f"http://127.0.0.1:{ops}/readyz"),
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.stdout.splitlines() == [
        *("user 65532", "read-only"),
        *("kind: Secret", "kind: Link"),
        *("No such access granted", "ended 0"),
    ], told.stderr


def test_there_is_bytecode_of_all_that_is_loaded_and_all_has_the_date_that_was_given(
    root: Path,
) -> None:
    installed = root / "opt" / "grantserver"
    for source in (installed / "app").rglob("*.py"):
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc")
        assert compiled.read_bytes()[4] == 1  # by hash, and not compared (PEP 552)
    assert {int(one.lstat().st_mtime) for one in installed.rglob("*")} == {1_700_000_000}
    for name in ("pip", "hatchling", "setuptools"):
        assert not (installed / name).exists()
    assert (root / "var/lib/grantserver").stat().st_uid == USER
