import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from app.crypto.audit_heads import HeadKeys
from app.domain.audit_chain import Fault
from app.errors import Invalid
from app.services.audit_chain import Chain, Verdict
from app.services.audit_export import export, verify
from app.store.engine import Database
from tests.builders import NOW, Clock
from tests.services.test_audit_chain import sealed, tamper

KEYS = HeadKeys.of({"one": bytes(32)})
PUBLIC = HeadKeys.read(KEYS.written())


@pytest.fixture
def chain(database: Database) -> Chain:
    return Chain(database=database, keys=KEYS, clock=Clock())


def verified(lines: Sequence[str], **options: Any) -> Verdict:
    return verify(lambda: lines, PUBLIC, **options)


def fault(lines: Sequence[str], **options: Any) -> Fault:
    found = verified(lines, **options).fault
    assert found is not None
    return found


def test_what_was_exported_is_verified_without_the_database(chain: Chain) -> None:
    lines = list(export(sealed(chain)))
    verdict = verified(lines)
    assert (verdict.fault, verdict.first, verdict.last) == (None, 1, 5)
    assert verdict.head == chain.newest_head()
    assert json.loads(lines[1])["details"] == {"name": "x"}


def test_nothing_and_what_is_left_after_pruning_can_be_exported_too(chain: Chain) -> None:
    assert verified(list(export(chain))).last == 0
    sealed(chain)
    assert sum(chain.prune(NOW + 1, step=9, dry=False)) == 2
    verdict = verified(list(export(chain)))
    assert (verdict.fault, verdict.first, verdict.last) == (None, 3, 5)


def test_any_change_of_a_line_is_named(chain: Chain) -> None:
    lines = list(export(sealed(chain)))
    for number, line in enumerate(lines[1:6], start=1):
        read = json.loads(line)
        for name, other in (
            ("position", 9),
            ("id", 9),
            ("at", 1),
            ("act", "x"),
            ("actor", "x"),
            ("target", "x"),
            ("details", {"name": "y"}),
            ("details", None),
            ("link", "00" * 32),
        ):
            changed = [*lines]
            changed[number] = json.dumps(read | {name: other})
            assert fault(changed).position == number, name


def test_lines_that_are_missing_or_elsewhere_are_named(chain: Chain) -> None:
    lines = list(export(sealed(chain)))
    assert fault(lines[:2] + lines[3:]).position == 2
    assert fault([*lines[:2], lines[3], lines[2], *lines[4:]]).position == 2
    for end in range(2, 6):  # the first line knows how long it was
        assert fault(lines[:end]).position == end
    other = json.loads(lines[0]) | {"newest": None}
    assert fault([json.dumps(other), *lines[1:3]]).why.startswith("no signed head")


def test_a_head_that_was_kept_elsewhere_counts(chain: Chain) -> None:
    lines = list(export(sealed(chain)))
    assert (
        verified(lines, expected=[(5, bytes.fromhex(json.loads(lines[5])["link"]))]).fault is None
    )
    assert fault(lines, expected=[(3, bytes(32))]).position == 3
    assert fault(lines, expected=[(9, bytes(32))]).position == 6


def test_keys_that_come_with_the_file_are_not_believed(chain: Chain) -> None:
    lines = list(export(sealed(chain)))
    forger = Chain(database=chain.database, keys=HeadKeys.of({"one": b"\1" * 32}), clock=Clock())
    tamper(chain.database, "DELETE FROM audit_links", "DELETE FROM audit_heads")
    forger.seal()
    forged = list(export(forger))
    assert json.loads(forged[0])["publicKeys"] != json.loads(lines[0])["publicKeys"]
    assert "not signed" in fault(forged).why


def test_details_that_are_not_as_we_write_them_are_exported_as_they_are(chain: Chain) -> None:
    sealed(chain, 2)
    with chain.database.writing() as connection:
        connection.execute(
            text("UPDATE audit SET details = :d WHERE id = 2"), {"d": '{"name":  "x"}'}
        )
    lines = list(export(chain))
    assert json.loads(lines[2])["details"] == '{"name":  "x"}'
    assert fault(lines).position == 2


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "empty"),
        (["x"], "not JSON"),
        (["[]"], "no JSON object"),
        (["{}"], "expected an export"),
        (['{"format":"grantserver audit 1"}', "{}"], "line 2: it is no entry"),
        (['{"format":"grantserver audit 1"}', '{"head":{}}'], "line 2: it is no head"),
        (['{"format":"grantserver audit 1","newest":{}}'], "line 1: it is no head"),
    ],
)
def test_what_is_no_export_is_refused_by_line(lines: list[str], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        verified(lines)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=9,
)
names = st.sampled_from(
    [
        "position",
        "id",
        "at",
        "act",
        "actor",
        "target",
        "details",
        "link",
        "head",
        "newest",
        "pruned",
    ]
)


@given(st.dictionaries(names, anything), st.lists(st.dictionaries(names, anything), max_size=4))
def test_a_strangers_file_is_refused_or_found_wrong_and_nothing_else(
    first: dict[str, Any], further: list[dict[str, Any]]
) -> None:
    lines = [json.dumps({"format": "grantserver audit 1"} | first), *map(json.dumps, further)]
    try:
        verdict = verified(lines)
    except Invalid:
        return
    assert verdict.fault is not None or verdict.last == 0
