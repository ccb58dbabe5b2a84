"""The bill of materials is of what is pinned, and no licence comes in unseen."""

from pathlib import Path
from typing import Any

import pytest

from release.bill import ACCEPTED, Pinned, bill, licences, normal, pinned, problems

ROOT = Path(__file__).parent.parent.parent
LOCK = """\
one-thing==1.2 \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
    # via grantserver
Other.Thing==3 ; sys_platform == 'win32' \\
    --hash=sha256:{c}
""".format(a="a" * 64, b="b" * 64, c="c" * 64)


def component(name: str, version: str = "1", *said: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "bom-ref": f"{name}=={version}",
        "licenses": [one if "expression" in one else {"license": one} for one in said],
    }


def everything(*components: dict[str, Any]) -> dict[str, Any]:
    references = [one["bom-ref"] for one in components]
    return {
        "metadata": {"tools": {}},
        "components": [*components],
        "dependencies": [{"ref": one, "dependsOn": references} for one in references],
    }


def test_a_lock_is_read_with_all_hashes() -> None:
    assert pinned(LOCK) == [
        Pinned(name="one-thing", version="1.2", hashes=["a" * 64, "b" * 64]),
        Pinned(name="other-thing", version="3", hashes=["c" * 64]),
    ]


@pytest.mark.parametrize(
    "lock", sorted(ROOT.glob("requirements*.lock")), ids=lambda path: path.name
)
def test_every_lock_of_ours_is_hashed_and_names_no_address(lock: Path) -> None:
    text = lock.read_text()
    found = pinned(text)
    assert found
    assert all(one.hashes for one in found)
    assert "://" not in text
    assert "--index" not in text


def test_only_what_is_pinned_is_in_the_bill() -> None:
    made = bill(
        everything(component("One_Thing", "1.2"), component("pytest")), pinned(LOCK), version="9"
    )
    assert [one["name"] for one in made["components"]] == ["One_Thing"]
    assert made["metadata"]["component"]["version"] == "9"
    assert made["dependencies"] == [{"ref": "One_Thing==1.2", "dependsOn": ["One_Thing==1.2"]}]
    assert [one["value"][0] for one in made["components"][0]["properties"]] == ["a", "b"]


def test_another_version_than_the_pinned_one_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"one-thing is 1\.3 here"):
        bill(everything(component("one-thing", "1.3")), pinned(LOCK), version="9")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([{"id": "MIT"}], {"MIT"}),
        ([{"expression": "Apache-2.0 OR (ISC AND MIT)"}], {"Apache-2.0", "ISC", "MIT"}),
        ([{"name": "License :: OSI Approved :: MIT License"}], {"MIT"}),
        ([{"id": "ISC"}, {"name": "License :: OSI Approved :: BSD License"}], {"ISC"}),
    ],
)  # fmt: skip
def test_licences_are_read_however_they_are_said(
    said: list[dict[str, Any]], expected: set[str]
) -> None:
    assert licences(component("pytest", "1", *said)) == expected


def test_a_licence_that_nobody_has_accepted_is_named_with_its_package() -> None:
    made = everything(
        component("good", "1", {"id": "MIT"}), component("bad", "1", {"id": "AGPL-3.0-only"})
    )
    assert problems(made) == ["bad is under AGPL-3.0-only, which nobody has accepted"]


def test_who_says_nothing_is_named() -> None:
    (problem,) = problems(everything(component("nowhere")))
    assert problem == "nowhere does not say under which licence it is"


def test_what_the_server_runs_with_is_pinned_in_the_lock_of_the_image() -> None:
    names = {one.name for one in pinned((ROOT / "requirements.lock").read_text())}
    assert {normal(one) for one in ("starlette", "uvicorn", "SQLAlchemy", "cryptography")} <= names
    assert "pytest" not in names
    assert "AGPL-3.0-only" not in ACCEPTED
