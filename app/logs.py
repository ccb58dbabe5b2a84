"""Structured logging: one event, one line, as readable text or JSON, with secrets taken out.

Our own events and those of the standard library's loggers (uvicorn, sqlalchemy, alembic, asyncio,
warnings) leave through one handler. The redaction here is the last line of defence: callers keep
secrets out of events to begin with.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import lru_cache
from math import isfinite
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

from app import ambient

REDACTED: Final = "[redacted]"
_LONGEST_TEXT: Final = 16_384  # characters of one value; a hostile header must not fill the disk
_DEEPEST: Final = 6  # levels of nested values that are shown

_SECRET_WORDS = re.compile(
    r"authorization|codes?|cookie|credentials?|keys?|passphrase|passwd|password|pem|secrets?|tokens?",
    re.IGNORECASE,
)
_HARMLESS_NAMES: Final = frozenset({"exit_code", "key_file", "key_type", "status_code"})
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SECRET_TEXT = re.compile(
    # A private key in PEM, complete or cut off, its line ends real or escaped.
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[A-Za-z0-9+/=\s:,\\-]*"
    # Any PEM in base64, as a Secret carries it: what is inside cannot be told apart.
    r"|LS0tLS1CRUdJTi[A-Za-z0-9+/=]*"
    # The credentials of an Authorization header.
    r"|(?<=[Bb]earer )\S+|(?<=BEARER )\S+"
)
_PLAIN_TYPES: Final = frozenset({str, int, bool, type(None)})
_quote: Final = json.JSONEncoder(ensure_ascii=False).encode
_PLAIN_VALUE = re.compile(r"[^\s\"'=\\]+")

# Statements carry their parameters, sealed keys among them, from level info downwards.
_NEVER_BELOW_WARNING: Final = ("sqlalchemy",)
# What these say at level info, at each migration, is of use to their authors.
_TALKATIVE: Final = ("alembic",)
# These may have been given handlers of their own, past the one here.
_LIBRARIES: Final = (
    "alembic",
    "asyncio",
    "py.warnings",
    "sqlalchemy",
    "uvicorn",
    "uvicorn.access",
    "uvicorn.asgi",
    "uvicorn.error",
)


class Format(StrEnum):
    """The forms of a log line."""

    TEXT = "text"
    JSON = "json"


class Level(StrEnum):
    """The least level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure(log_format: Format, level: Level, stream: TextIO) -> None:
    """Send every event of the process to `stream`, normally standard error.

    To be called once at start; a second call replaces the first. Until then only warnings and
    errors appear, as the standard library writes them.
    """
    handler = _LineHandler(stream, _as_json if log_format is Format.JSON else _as_text)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                _with_origin,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                handler.render,
            ],
            use_get_message=True,
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, _LineHandler):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name in _NEVER_BELOW_WARNING:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in _TALKATIVE:
        quiet = logging.NOTSET if level is Level.DEBUG else logging.WARNING
        logging.getLogger(name).setLevel(quiet)
    logging.captureWarnings(capture=True)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Give the logger of a module; `log.info("what happened", fact=value, …)` never raises."""
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            _write_straight,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return cast("structlog.stdlib.BoundLogger", logger)


def _write_straight(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Write an event of ours at once, past the records of the standard library.

    Every redemption writes a line, and a record that is made, formatted and handled costs as
    much as its signature. Before `configure` the record is made after all.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _LineHandler):
            level = "error" if method == "exception" else method
            handler.write_event(level, logger.name, event)
            raise structlog.DropEvent
    return event


def _redacted(event: EventDict, show: Callable[[EventDict], str]) -> str:
    """Show an event as a line that carries no secret.

    Values under a name that speaks of a secret are replaced whole; private keys and
    bearer credentials are cut out of every text, tracebacks included. Bytes are never shown:
    codes and keys are bytes.
    """
    if not _may_tell_secrets(tuple(event)) and _PLAIN_TYPES.issuperset(map(type, event.values())):
        line = show(event)
        if len(line) <= _LONGEST_TEXT and not _shows_signs_of_secrets(line):
            return line
    return show(cast("EventDict", _clean(event, _DEEPEST)))


@lru_cache(maxsize=1024)
def _may_tell_secrets(names: tuple[object, ...]) -> bool:
    return not all(isinstance(name, str) for name in names) or any(map(_is_secret, map(str, names)))


def _clean(value: object, depth: int) -> object:
    if type(value) is str:  # by far the most frequent: every redemption writes a line
        return _clean_text(value)
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, Mapping) and depth:
        return {
            _clean_text(name): REDACTED if _is_secret(name) else _clean(item, depth - 1)
            for name, item in zip(map(str, value), value.values(), strict=True)
        }
    if isinstance(value, list | tuple | set | frozenset) and depth:
        items = [_clean(item, depth - 1) for item in value]
        if isinstance(value, tuple) and len(items) == 2 and _is_secret(str(items[0])):  # noqa: PLR2004
            items[1] = REDACTED  # a header as (name, value)
        return items
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    named = f"{type(value).__name__}: " if isinstance(value, BaseException) else ""
    return _clean_text(f"{named}{value}")


def _shows_signs_of_secrets(text: str) -> bool:
    """Tell whether `_SECRET_TEXT` could match: each of its alternatives needs one of these.

    Written out, because a loop over four words takes twice as long as looking for them.
    """
    return "PRIVATE KEY" in text or "LS0tLS1CRUdJTi" in text or "earer " in text or "EARER " in text


def _clean_text(text: str) -> str:
    if _shows_signs_of_secrets(text):
        text = _SECRET_TEXT.sub(REDACTED, text)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    if name.lower() in _HARMLESS_NAMES:
        return False
    return any(_SECRET_WORDS.fullmatch(word) for word in _WORD.findall(name))


def _with_origin(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put time, level and logger of a record in front."""
    record: logging.LogRecord = event["_record"]
    return _from(record.created, record.levelname.lower(), record.name, event)


def _from(created: float, level: str, logger: str, event: EventDict) -> EventDict:
    seconds = int(created)
    origin: dict[str, Any] = {
        "time": f"{_second(seconds)}.{int((created - seconds) * 1000):03d}Z",
        "level": level,
        "logger": logger,
        "event": event.pop("event", ""),
    }
    # A fact of the same name as the origin must not pass for it.
    return origin | {f"{name}_" if name in origin else name: event[name] for name in event}


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _as_json(event: EventDict) -> str:
    return json.dumps(event, ensure_ascii=True)


def _as_text(event: EventDict) -> str:
    facts = dict(event)
    origin = [str(facts.pop(name)) for name in ("time", "level", "logger", "event")]
    line = f"{origin[0]} {origin[1]:<7} {origin[2]}: {origin[3]}"
    for name, value in facts.items():
        kind = type(value)
        plain = kind is int or (kind is str and _PLAIN_VALUE.fullmatch(value))
        line += f" {name}={value if plain else _quote(value)}"
    # Whatever could end the line or move the cursor is escaped: no value can forge an event.
    return line if line.isprintable() else "".join(map(_escaped, line))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


class _LineHandler(logging.Handler):
    """Write one line for each record; whatever goes wrong stays here.

    The standard library's handlers print the record and its arguments when they fail, secrets
    included, and let some errors through to the caller.
    """

    def __init__(self, stream: TextIO, show: Callable[[EventDict], str]) -> None:
        super().__init__()
        self._stream = stream
        self._show = show

    def render(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        """Give the line of an event, as the last processor of the handler's formatter."""
        return _redacted(event, self._show)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of a record; say that one was lost where it cannot be shown."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - any value may misbehave when it is shown
            line = _lost(record.name, error)
        self._write(line)

    def write_event(self, level: str, logger: str, event: EventDict) -> None:
        """Write the line of an event of ours; a logger's `exc_info` becomes its traceback."""
        try:
            if event.get("exc_info"):
                event = structlog.processors.format_exc_info(None, level, event)
            line = _redacted(_from(ambient.utc_instant(), level, logger, event), self._show)
        except Exception as error:  # noqa: BLE001 - as above
            line = _lost(logger, error)
        self._write(line)

    def _write(self, line: str) -> None:
        try:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            if not line.isascii():
                line = line.encode(encoding, "backslashreplace").decode(encoding)
            self._stream.write(line + "\n")
            self._stream.flush()
        except Exception:  # noqa: BLE001, S110 - with nowhere to write, there is nobody to tell
            pass


def _lost(logger: str, error: Exception) -> str:
    lost = {"event": "an event could not be shown", "why": type(error).__name__}
    return json.dumps({"level": "error", "logger": logger, **lost})
