"""Finds what the user set in file, environment and flags; gives Settings, or all that is wrong.

A setting has a name in two parts: `[listen] ops` in the TOML file, `GRANTSERVER_LISTEN_OPS` in
the environment, `listen.ops` (written `--listen-ops`) among the flags. One that belongs to no group
has the second part alone: `workers`, above the tables of the file, and `GRANTSERVER_WORKERS`. Flags
win over the environment, the environment over the file, the file over the defaults.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from app.errors import Misconfigured
from app.settings.consistency import inconsistencies
from app.settings.model import DATA_DIR, Settings
from app.settings.values import REFUSED, read_path

PREFIX: Final = "GRANTSERVER_"
CONFIG: Final = PREFIX + "CONFIG"
_OF_COMMANDS: Final = frozenset(
    PREFIX + name for name in ("SERVER", "SERVER_TOKEN_FILE", "SERVER_CA_FILE")
)
"""Which server commands work on: options of the command line, not settings of a server."""
_NONE_GIVEN: Final[Mapping[str, object]] = MappingProxyType({})
_LONGEST_SHOWN: Final = 80

# Kubernetes gives every container the addresses of the namespace's Services in variables that
# are named after them; a Service called `grantserver` must not keep the server from starting.
_SERVICE_LINK = re.compile(
    r"GRANTSERVER_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)=.*|PORT(_\w+)?=(tcp|udp|sctp)://.*"
    r"|PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=.*)"
)


class _Key(NamedTuple):
    """The name of a setting in two parts, and what is said about it; the group "" is none."""

    group: str
    name: str
    default: str
    expected: str
    secret: bool
    meaning: str

    @property
    def environment(self) -> str:
        return PREFIX + "_".join(self.path).upper()

    @property
    def toml(self) -> str:
        return f"[{self.group}] {self.name}" if self.group else self.name

    @property
    def flag(self) -> str:
        return ".".join(self.path)

    @property
    def path(self) -> tuple[str, ...]:
        return (self.group, self.name) if self.group else (self.name,)


class _Given(NamedTuple):
    """A value, and where the user wrote it."""

    where: str
    value: object


def _keys() -> Iterator[_Key]:
    for group, group_field in Settings.model_fields.items():
        if group in _GROUPS:
            fields = cast("type[BaseModel]", group_field.annotation).model_fields
            for attribute, field in fields.items():
                yield _key(group, attribute, field)
        else:
            yield _key("", group, group_field)


def _key(group: str, attribute: str, field: FieldInfo) -> _Key:
    name, facts = field.alias or attribute, cast("Any", field.json_schema_extra)
    return _Key(group=group, name=name, meaning=field.description or "", **facts)


_GROUPS: Final = tuple(
    name for name, field in Settings.model_fields.items() if field.json_schema_extra is None
)
_KEYS: Final = tuple(_keys())
_IN_FILE: Final = tuple(f"[{name}]" if name in _GROUPS else name for name in Settings.model_fields)


def catalog() -> list[tuple[str, str, str, str]]:
    """List every setting: its environment name, its name in the file, its default, its meaning."""
    return [(key.environment, key.toml, key.default, key.meaning) for key in _KEYS]


def from_environment(
    *, config: Path | None = None, overrides: Mapping[str, object] = _NONE_GIVEN
) -> Settings:
    """Do as `load` with the environment of this process; nothing else in the program reads it."""
    return load(os.environ, config=config, overrides=overrides)  # noqa: TID251 - the one place


def tell_library(variable: str, value: str) -> None:
    """Set a variable of this process, for a library that can be told in no other way."""
    os.environ[variable] = value  # noqa: TID251 - the one place


def load(
    environ: Mapping[str, str],
    *,
    config: Path | None = None,
    overrides: Mapping[str, object] = _NONE_GIVEN,
) -> Settings:
    """Read and check every setting.

    `config` is a TOML file; without it GRANTSERVER_CONFIG may name one. `overrides` holds the
    flags that were given, under names such as `listen.ops`; None stands for one that was not.
    Relative paths are those of the working directory, in the file too.
    Raises Misconfigured with all problems at once: unknown names and unreadable files as well as
    values that cannot be used.
    """
    problems: list[str] = []
    if config is None and CONFIG in environ:
        config = _config_file(environ[CONFIG], problems)
    given = {
        **(_from_file(config, problems) if config is not None else {}),
        **_from_variables(environ, problems),
        **_from_flags(overrides, problems),
    }
    tree: dict[str, Any] = {group: {} for group in _GROUPS}
    for key in _KEYS:  # `data.dir` comes first, and the defaults of others lie within it
        value: object = key.default
        if key in given:
            value = given[key].value
        elif DATA_DIR in key.default:
            value = key.default.replace(DATA_DIR, str(Path(str(tree["data"]["dir"]))))
        (tree[key.group] if key.group else tree)[key.name] = value
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        problems += _explained(error, given)
        raise Misconfigured(problems) from error
    problems += inconsistencies(settings)
    if problems:
        raise Misconfigured(problems)
    return settings


def _config_file(text: str, problems: list[str]) -> Path | None:
    try:
        return read_path(text)
    except PydanticCustomError:
        problems.append(f"{CONFIG}: got {_shown(text)}; expected the path of a TOML file")
        return None


def _from_file(path: Path, problems: list[str]) -> dict[_Key, _Given]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
        return {}
    except (ValueError, RecursionError) as error:
        # The parser tells line and column, and of the content a single character at most.
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "not such a text"
        problems.append(f"{path}: is not TOML: {why}")
        return {}
    known = {(key.group, key.name): key for key in _KEYS}
    given = {}
    for group, table in content.items():
        if ("", group) in known:
            given[known["", group]] = _Given(f"{group} in {path}", table)
        elif group not in _GROUPS:
            name = f"[{group}]" if isinstance(table, dict) else group
            nearest = _nearest(name, _IN_FILE)
            problems.append(f"{_shown_name(name)} in {path}: is not known{nearest}")
        elif not isinstance(table, dict):
            problems.append(f"[{group}] in {path}: got a value; expected a table of settings")
        else:
            for name, value in table.items():
                where = f"{_shown_name(f'[{group}] {name}')} in {path}"
                if (group, name) in known:
                    given[known[group, name]] = _Given(where, value)
                else:
                    nearest = _nearest(f"[{group}] {name}", [key.toml for key in _KEYS])
                    problems.append(f"{where}: is not known{nearest}")
    return given


def _from_variables(environ: Mapping[str, str], problems: list[str]) -> dict[_Key, _Given]:
    known = {key.environment: key for key in _KEYS}
    given = {}
    for variable, value in sorted(environ.items()):
        if variable in known:
            given[known[variable]] = _Given(variable, value)
        elif (
            variable.startswith(PREFIX)
            and variable != CONFIG
            and variable not in _OF_COMMANDS
            and not _SERVICE_LINK.fullmatch(f"{variable}={value}")
        ):
            names = [known_name.removeprefix(PREFIX) for known_name in (*known, CONFIG)]
            nearest = _nearest(variable.removeprefix(PREFIX), names, PREFIX + "{}")
            problems.append(f"{_shown_name(variable)}: is not known{nearest}")
    return given


def _from_flags(overrides: Mapping[str, object], problems: list[str]) -> dict[_Key, _Given]:
    known = {key.flag: key for key in _KEYS}
    given = {}
    for flag, value in overrides.items():
        where = "--" + _shown_name(flag).replace(".", "-").replace("_", "-")
        if flag not in known:
            problems.append(f"{where}: is not known{_nearest(flag, known)}")
        elif value is not None:
            given[known[flag]] = _Given(where, value)
    return given


def _explained(error: ValidationError, given: Mapping[_Key, _Given]) -> Iterator[str]:
    """Say of each refused value where it stands, what it is and what is expected."""
    known: dict[tuple[int | str, ...], _Key] = {key.path: key for key in _KEYS}
    for trouble in error.errors(include_url=False):
        place = trouble["loc"]
        key = known[place[: 2 if place[0] in _GROUPS else 1]]
        # A default is refused only when it lies in a data directory that is refused itself.
        if key in given:
            where, value = given[key]
            why = trouble["ctx"]["why"] if trouble["type"] == REFUSED else ""
            yield f"{where}: got {_shown(value, key)}; {why or f'expected {key.expected}'}"


def _shown(value: object, key: _Key | None = None) -> str:
    """Write a value for a problem, without what may be a password."""
    text = value if isinstance(value, str) else repr(value)
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://", text)
    if "@" in text or "?" in text or (key is not None and key.secret):
        return f"{scheme[0]}…" if scheme else "a value that is not shown here"
    return _quoted(text) if isinstance(value, str) else _shown_name(text)


def _shown_name(text: str) -> str:
    return _quoted(text)[1:-1]


def _quoted(text: str) -> str:
    cut = text[:_LONGEST_SHOWN] + ("…" if len(text) > _LONGEST_SHOWN else "")
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def _nearest(name: str, known: Iterable[str], form: str = "{}") -> str:
    near = difflib.get_close_matches(name[:_LONGEST_SHOWN], known, n=1)
    return f"; did you mean {form.format(near[0])}?" if near else ""
