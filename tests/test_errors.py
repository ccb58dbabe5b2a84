import importlib
import inspect
import pkgutil
import re

import pytest

import app
from app import errors
from app.errors import (
    Broken,
    Conflict,
    Forbidden,
    GrantServerError,
    Invalid,
    Lack,
    Misconfigured,
    Missing,
    Reason,
    Refused,
    Stale,
    Unauthenticated,
    Unavailable,
    Unready,
)


def below(kind: type[GrantServerError]) -> set[type[GrantServerError]]:
    found = set(kind.__subclasses__())
    return found.union(*(below(one) for one in found)) if found else set()


def drawn() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Read the tree in the docstring: name to its parent's name and its arguments."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    path = ["GrantServerError"]
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        branch = re.match(r" *((?:│   |    )*)[├└]── (\w+)(?:\(([^)]*)\))?", line)
        if branch:
            depth = len(branch[1]) // 4
            path = [*path[: depth + 1], branch[2]]
            arguments = tuple(filter(None, (branch[3] or "").replace(" ", "").split(",")))
            found[branch[2]] = (path[-2], arguments)
    return found


def test_the_tree_is_drawn_completely_in_the_docstring() -> None:
    tree = drawn()
    assert set(tree) == {kind.__name__ for kind in below(GrantServerError)}
    for kind in below(GrantServerError):
        parent, arguments = tree[kind.__name__]
        assert kind.__base__ is not None
        assert parent == kind.__base__.__name__
        if "__init__" in vars(kind):
            required = tuple(
                name
                for name, parameter in inspect.signature(kind).parameters.items()
                if parameter.default is parameter.empty
            )
            assert arguments == required
        else:
            assert len(arguments) == 1


def test_no_other_module_adds_to_the_tree() -> None:
    for module in pkgutil.walk_packages(app.__path__, "app."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert {kind.__module__ for kind in below(GrantServerError)} == {"app.errors"}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Refused(Reason.USED_UP), "used up"),
        (Refused(Reason.REVOKED, "revoked at noon"), "revoked at noon"),
        (Invalid("window", "too short"), "window: too short"),
        (Missing("site", "west"), 'no site "west"'),
        (Conflict("taken"), "taken"),
        (Stale("the grant has changed"), "the grant has changed"),
        (Unauthenticated("the token has ended", retry_after=3), "the token has ended"),
        (Forbidden("may not"), "may not"),
        (Unready(Lack.ENDPOINTS, "no endpoints"), "no endpoints"),
        (Unavailable("database: locked"), "database: locked"),
        (Misconfigured(["a", "b"]), "a\nb"),
        (Broken("a bug"), "a bug"),
    ],
)
def test_the_text_of_an_error_is_the_operators(error: GrantServerError, text: str) -> None:
    assert str(error) == text


def test_errors_carry_what_the_edges_translate() -> None:
    assert Refused(Reason.EXPIRED).reason is Reason.EXPIRED
    assert Refused(Reason.EXPIRED).retry_after is None
    assert Refused(Reason.RATE_LIMITED, retry_after=3).retry_after == 3
    assert Unauthenticated("no").retry_after is None
    assert Unauthenticated("no", retry_after=3).retry_after == 3
    invalid = Invalid("window", "too short")
    assert (invalid.field, invalid.why) == ("window", "too short")
    missing = Missing("site", "west")
    assert (missing.kind, missing.name) == ("site", "west")
    assert Unready(Lack.ISSUER, "x").lack is Lack.ISSUER
    assert Misconfigured(["a", "b"]).problems == ("a", "b")


def test_reasons_and_lacks_are_labels_and_none_is_ever_taken_away() -> None:
    assert {reason.value for reason in Reason} >= {
        "method", "body", "name", "subject", "unknown_grant", "wrong_code", "revoked", "expired",
        "used_up", "rate_limited",
    }  # fmt: skip
    assert {lack.value for lack in Lack} >= {"no_endpoints", "no_issuer"}
    for label in (*Reason, *Lack):
        assert re.fullmatch(r"[a-z][a-z_]*", label)
