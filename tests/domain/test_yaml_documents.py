import importlib.util
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from app.domain import yaml_documents
from app.domain.yaml_documents import read_all, write
from app.errors import Invalid

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)


@pytest.mark.parametrize("text", ["n", "Y", "1e3", "0o17", "null", "NO", "1:30", "~", "2026-01-01"])
def test_what_some_yaml_takes_for_something_else_is_quoted(text: str) -> None:
    assert write({"a": text}) == f'a: "{text}"\n'


def test_ordinary_words_stay_as_they_are() -> None:
    assert write({"kind": "kubernetes.io/tls", "a": ["x-1"]}) == (
        "kind: kubernetes.io/tls\na:\n  - x-1\n"
    )


def test_long_texts_stay_on_one_line() -> None:
    assert len(write({"a": "x y " * 500}).splitlines()) == 1


def test_the_same_thing_twice_is_written_twice() -> None:
    same = {"a": "b"}
    assert "&" not in write([same, same])


@given(VALUES)
def test_what_is_written_is_read_again_by_us_and_by_yaml_1_2(value: Any) -> None:
    text = write({"value": value})
    assert read_all("x", text) == [{"value": value}]
    assert YAML(typ="safe", pure=True).load(text) == {"value": value}


def test_empty_documents_are_left_out() -> None:
    assert read_all("x", "---\n---\na: 1\n---\n# nothing\n") == [{"a": 1}]


def test_dates_stay_texts() -> None:
    assert read_all("x", "a: 2026-01-01") == [{"a": "2026-01-01"}]


def test_as_text_every_scalar_is_what_was_written() -> None:
    assert read_all("x", "{a: 01, b: null, c: yes, d: [1.0]}", as_text=True) == [
        {"a": "01", "b": "null", "c": "yes", "d": ["1.0"]}
    ]


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: &x 1\nb: *x",
        "!!python/object/apply:os.system [x]",
        "[" * 20_000,
        "\x00",
        "a: !unknown b",
        "? [1]\n: 2\n? {a: b}\n: 3",
        "a: !!bool x",
        'a: !!int ""',
        'a: !!float ""',
        "a: !!timestamp x",
        'a: "\\ud800"',
    ],
    ids=[
        *("open", "alias", "object", "deep", "control", "tag", "odd-keys"),
        *("no-bool", "no-int", "no-float", "no-date", "half-a-character"),
    ],
)
def test_hostile_texts_are_refused(text: str, *, as_text: bool) -> None:
    with pytest.raises(Invalid, match="x: it is not YAML"):
        read_all("x", text, as_text=as_text)


@pytest.mark.parametrize(
    "number",
    ["9" * 5000, "0x" + "f" * 5000, "1" + ":1" * 100_000, "1" + ":1" * 300 + ".0", "1." + "1" * 99],
    ids=["decimal", "hexadecimal", "sexagesimal", "sexagesimal-fraction", "fraction"],
)
def test_a_number_too_long_to_read_or_to_write_again_is_refused(number: str) -> None:
    with pytest.raises(Invalid):
        read_all("x", f"a: {number}")
    assert read_all("x", f"a: {number}", as_text=True) == [{"a": number}]


def test_a_mistake_names_its_line_and_not_its_text() -> None:
    with pytest.raises(Invalid) as caught:
        read_all("token", "a: 1\ncode: secret: secret\n")
    assert str(caught.value) == "token: it is not YAML in line 2"
    assert caught.value.__cause__ is None


@given(st.text(max_size=100))
def test_no_text_whatever_leads_to_another_error(text: str) -> None:
    try:
        read_all("x", text)
        read_all("x", text, as_text=True)
    except Invalid:
        pass


DEEP = ["[" * 65, "- " * 65 + "x", "? " * 65 + "x", "[" * 98_000, "- " * 49_000, "{a: " * 24_000]


@pytest.mark.parametrize("text", DEEP)
def test_what_is_nested_deeply_is_refused_before_anything_is_made_of_it(text: str) -> None:
    with pytest.raises(Invalid, match="not of a sensible kind"):
        read_all("answer", text)


def test_what_people_nest_is_read() -> None:
    (document,) = read_all("answer", "[" * 64 + "]" * 64)
    assert write(document)


def test_of_a_stream_no_more_documents_are_read_than_there_may_be() -> None:
    assert read_all("answer", "--- a\n" * 3, most=3) == ["a", "a", "a"]
    for text in ("--- a\n" * 4, "---\n" * 4, "--- a\n" * 3 + "--- [\n"):
        with pytest.raises(Invalid, match="not of a sensible kind"):
            read_all("answer", text, most=3)


SAME = [
    "a: 1\na: 2\n",
    "a: &x 1\n",
    "<<: {a: 1}\nb: 2\n",
    "!!bool x",
    "\t- a",
    "%YAML 1.2\n--- a",
    '"\\ud800"',
    "a: 'b\n\n c'",
    "? [a]\n: b\n",
    "{a, b: }",
    "- !!set {a}",
    "2026-01-01",
    "0o17",
    "1:30",
    "\ufeffa: b\n",
    "a: |\n  x\n",
    "\x85a: b\n",
    "a: b: c",
    "@a",
    "!!binary x",
    "[a]: b",
    "!!python/name:x y",
]


@pytest.mark.parametrize("text", SAME)
def test_without_libyaml_the_same_is_read(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(module: ModuleType) -> object:
        try:
            return module.read_all("answer", text)
        except Invalid as error:
            return error.field

    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    spec = importlib.util.find_spec(yaml_documents.__name__)
    assert spec is not None
    assert spec.loader is not None
    pure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pure)
    assert found(pure) == found(yaml_documents)
