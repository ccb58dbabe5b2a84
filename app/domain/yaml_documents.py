"""YAML as strangers write it, read with care, and as we write it where speed does not matter.

Kinder and stricter than the library's defaults: no aliases (a few lines of them unfold into
gigabytes when they are written out again), no dates, and every text that some version of YAML
would take for something else is quoted. What each document has to hold is decided elsewhere.
"""

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from app.errors import Invalid

_DATE: Final = "tag:yaml.org,2002:timestamp"
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[./_-][A-Za-z0-9]+)*")
_LONGEST_PLAIN: Final = 63
_LONGEST_NUMBER: Final = 64  # a longer one may take minutes to read, and cannot be written again
_MOST_EVENTS: Final = 16_384  # 256 Links with an endpoint each have some 9,000
_DEEPEST: Final = 64  # a Link with its endpoints has five levels
# What the library lets through when a tag does not fit its text, as in `!!bool x` or `!!int ""`.
_ODD_TAGS: Final = (LookupError, AttributeError, ArithmeticError)
_WORDS_THAT_MEAN_SOMETHING: Final = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def read_all(field: str, text: str, *, as_text: bool = False, most: int | None = None) -> list[Any]:
    """Read a stream of YAML documents, leaving out empty ones; at most `most`, those included.

    Where `most` is given, what is in them is bounded as well: it comes from a stranger.

    With `as_text` every scalar stays the text that was written: `123` and `null` too.
    Raises Invalid(field, …) when it is no YAML, too much of it, or nested or aliased in a hostile
    way.
    """
    loader = _TextLoader if as_text else _Loader
    try:
        _check_shape(text, most)
        documents = list(yaml.load_all(text, loader))
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Invalid(field, f"it is not YAML{where}") from None  # the cause shows the text
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, *_ODD_TAGS):
        raise Invalid(field, "it is not YAML, or not of a sensible kind") from None
    return [document for document in documents if document not in (None, "")]


def write(value: Any) -> str:
    """Write one document, keys in the order given, each scalar on one line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))


def _check_shape(text: str, most: int | None) -> None:
    """Look through it before anything is made of it: what is odd costs no more than it is long.

    Making it goes down into the depth, where libyaml would take the process with it.
    """
    documents = depth = 0
    for number, event in enumerate(yaml.parse(text, _Fastest)):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not accepted")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        too_many = most is not None and (documents > most or number > _MOST_EVENTS)
        if depth > _DEEPEST or too_many:
            raise yaml.YAMLError("it is nested too deeply, or holds too many documents")


if TYPE_CHECKING:
    _Fastest = yaml.SafeLoader
else:  # libyaml where the library was built with it, which is some ten times as fast
    _Fastest = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Fastest):
    yaml_implicit_resolvers = {  # noqa: RUF012 - the library's own way
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        value.encode()  # half a surrogate pair, which may be written `\ud800`, is no text
        return value

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return super().construct_yaml_int(_short(node))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return super().construct_yaml_float(_short(node))


def _short(node: yaml.ScalarNode) -> yaml.ScalarNode:
    if len(node.value) > _LONGEST_NUMBER:
        raise yaml.YAMLError("a number is too long")
    return node


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


class _TextLoader(_Loader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        del data
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless  # list items stand under their key, indented, as people write them
        super().increase_indent(flow, indentless=False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = (
        len(text) <= _LONGEST_PLAIN
        and _PLAIN.fullmatch(text)
        and text.lower() not in _WORDS_THAT_MEAN_SOMETHING
    )
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _represent_text)
