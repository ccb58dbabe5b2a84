import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import Reason, Unavailable
from app.logs import Format, Level, configure, get_logger

KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHhpZGRlbg\n-----END PRIVATE KEY-----\n"
HIDDEN = "HhpZGRlbg"
log = get_logger("app.test")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def written(log_format: Format, level: Level = Level.INFO) -> io.StringIO:
    stream = io.StringIO()
    logging.getLogger().handlers.clear()  # those of pytest raise when a record cannot be shown
    configure(log_format, level, stream)
    return stream


def only(stream: io.StringIO) -> str:
    """Give the one line that was written."""
    text = stream.getvalue()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    return text[:-1]


def fail(error: Exception) -> None:
    raise error


def as_json(stream: io.StringIO) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(only(stream))
    return found


def test_an_event_is_one_json_object_with_its_origin_first() -> None:
    stream = written(Format.JSON)
    log.info("redeemed", grant="g1", spent=2, share=0.5, last=False, issuer=None, path=Path("/x"))
    found = as_json(stream)
    assert list(found)[:4] == ["time", "level", "logger", "event"]
    moment = datetime.fromisoformat(found.pop("time"))
    assert moment.utcoffset() is not None
    assert moment.isoformat().endswith("+00:00")
    assert found == {
        "level": "info",
        "logger": "app.test",
        "event": "redeemed",
        "grant": "g1",
        "spent": 2,
        "share": 0.5,
        "last": False,
        "issuer": None,
        "path": "/x",
    }


def test_the_time_is_that_of_the_record() -> None:
    stream = written(Format.JSON)
    record = logging.makeLogRecord({"name": "x", "msg": "m", "levelno": 20, "created": 1.25})
    logging.getLogger().handle(record)
    assert as_json(stream)["time"] == "1970-01-01T00:00:01.250Z"


def test_an_event_is_one_line_of_text() -> None:
    stream = written(Format.TEXT)
    log.warning("refused", reason=Reason.WRONG_CODE, name="two words", n=[1, "a"], empty="")
    time, rest = only(stream).split(" ", 1)
    assert time.endswith("Z")
    assert rest == (
        'warning app.test: refused reason=wrong_code name="two words" n=[1, "a"] empty=""'
    )


@pytest.mark.parametrize("log_format", Format)
def test_no_value_can_forge_a_line(log_format: Format) -> None:
    stream = written(log_format)
    hostile = "x\r\n2026 info forged\x1b[2J\u2028\u202e\x00\x85"
    log.info(hostile, **{"a\nb": hostile, "nested": {hostile: [hostile]}})
    line = only(stream)
    assert line.isprintable()
    assert "forged" in line


@given(texts=st.lists(st.text(), min_size=3, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_makes_one_printable_line(texts: list[str]) -> None:
    for log_format in Format:
        stream = written(log_format)
        log.info(texts[0], **{"f" + texts[1]: texts[2]})
        assert only(stream).isprintable()


def test_a_fact_cannot_pass_for_the_origin() -> None:
    stream = written(Format.JSON)
    log.info("true", level="critical", logger="other", time="never")
    found = as_json(stream)
    assert (found["level"], found["logger"]) == ("info", "app.test")
    assert (found["level_"], found["logger_"], found["time_"]) == ("critical", "other", "never")


@pytest.mark.parametrize("name", ["uvicorn.error", "sqlalchemy.engine", "alembic", "asyncio", "x"])
def test_standard_loggers_write_through_the_same_output(name: str) -> None:
    stream = written(Format.JSON)
    logging.getLogger(name).warning("half of %d", 2)
    found = as_json(stream)
    assert (found["logger"], found["level"], found["event"]) == (name, "warning", "half of 2")


def test_warnings_write_through_the_same_output() -> None:
    stream = written(Format.JSON)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)  # the block above has put the real one back
        logging.captureWarnings(capture=True)
        warnings.warn("old\nway", stacklevel=1)
        logging.captureWarnings(capture=False)
    assert "old\nway" in as_json(stream)["event"]


def test_handlers_that_a_library_has_set_up_are_taken_away() -> None:
    theirs = io.StringIO()
    uvicorn = logging.getLogger("uvicorn")
    uvicorn.addHandler(logging.StreamHandler(theirs))
    uvicorn.propagate = False
    stream = written(Format.TEXT)
    logging.getLogger("uvicorn.error").warning("once")
    assert "once" in only(stream)
    assert theirs.getvalue() == ""


def test_configuring_again_replaces_the_output() -> None:
    first, second = written(Format.TEXT), io.StringIO()
    configure(Format.JSON, Level.INFO, second)
    log.info("x")
    assert first.getvalue() == ""
    assert as_json(second)["event"] == "x"


def test_events_below_the_level_are_not_written() -> None:
    stream = written(Format.TEXT, Level.WARNING)
    log.info("a")
    logging.getLogger("asyncio").info("b")
    assert stream.getvalue() == ""
    log.error("c")
    assert "error   app.test: c" in only(stream)


def test_statements_are_never_written_because_they_carry_keys() -> None:
    logging.getLogger("sqlalchemy").setLevel(logging.NOTSET)
    stream = written(Format.TEXT, Level.DEBUG)
    logging.getLogger("sqlalchemy.engine.Engine").info("INSERT %r", ("sealed",))
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    "name",
    [
        *("code", "presented_code", "key", "key_pem", "sealing_key", "privateKey", "password"),
        *("token", "link-token", "secret", "Authorization", "HTTP_AUTHORIZATION", "tls.key"),
        *("cookie", "codes", "credentials"),
    ],
)
@pytest.mark.parametrize("log_format", Format)
def test_a_value_under_a_telling_name_is_redacted(name: str, log_format: Format) -> None:
    stream = written(log_format)
    log.info("x", **{name: "hunter2"})
    log.info("x", inner={"list": [{name: ["hunter2"]}]})
    log.info("x", headers=[(name, "hunter2"), ("host", "a")])
    text = stream.getvalue()
    assert "hunter2" not in text
    assert text.count("[redacted]") == 3


@pytest.mark.parametrize("name", ["status_code", "exit_code", "key_type", "monkey", "encoded", "n"])
def test_a_value_under_a_harmless_name_is_kept(name: str) -> None:
    stream = written(Format.JSON)
    log.info("x", **{name: "seen"})
    assert as_json(stream)[name] == "seen"


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY.replace("PRIVATE", "EC PRIVATE"),
        KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"),
        KEY.replace("\n", "\\n"),
        KEY.split("-----END", maxsplit=1)[0],
        "Authorization: Bearer HhpZGRlbg",
        "authorization: bearer HhpZGRlbg",
        "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCkHhpZGRlbg==",
    ],
)
@pytest.mark.parametrize("log_format", Format)
def test_a_key_or_credential_is_cut_out_of_every_text(text: str, log_format: Format) -> None:
    stream = written(log_format)
    log.info(text)
    log.info("b", fact=f"before {text}", inner=[{text: text}])
    log.info("c", trouble=Unavailable(text), raw=text.encode())
    logging.getLogger("uvicorn").warning("d %s", text)
    try:
        fail(ValueError(text))
    except ValueError:
        log.exception("e")
        logging.getLogger("asyncio").exception("f")
    assert HIDDEN not in stream.getvalue()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6
    assert all("[redacted]" in line or "bytes]" in line for line in lines)


def test_bytes_are_never_shown() -> None:
    stream = written(Format.JSON)
    log.info("x", body=b"hunter2", view=bytearray(b"hunter2"))
    assert as_json(stream)["body"] == "[7 bytes]"
    assert as_json(stream)["view"] == "[7 bytes]"


@pytest.mark.parametrize("log_format", Format)
def test_an_exception_is_told_with_its_traceback_on_the_same_line(log_format: Format) -> None:
    stream = written(log_format)
    try:
        fail(Unavailable("disk full"))
    except Unavailable as error:
        log.exception("could not spend", error=error)
    line = only(stream)
    assert "Traceback (most recent call last):\\n" in line
    assert "Unavailable: disk full" in line


def test_a_huge_value_is_cut() -> None:
    stream = written(Format.TEXT)
    log.info("x", header="a" * 1_000_000)
    assert len(only(stream)) < 20_000


class Hostile:
    def __str__(self) -> str:
        raise RecursionError


@pytest.mark.parametrize("log_format", Format)
def test_what_cannot_be_shown_never_raises_and_is_told(log_format: Format) -> None:
    stream = written(log_format)
    log.info("x", value=Hostile(), code="hunter2")
    logging.getLogger("other").warning("%d", "not a number")
    loop: list[object] = []
    loop.append(loop)
    log.info("x", value=loop, nan=float("nan"), huge=10**5000)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    for line, name, why in zip(
        lines[:2], ["app.test", "other"], ["RecursionError", "TypeError"], strict=True
    ):
        told = json.loads(line)
        assert told["logger"] == name
        assert told["why"] == why
        assert "hunter2" not in line


def test_a_stream_that_fails_never_raises() -> None:
    closed = io.StringIO()
    configure(Format.TEXT, Level.INFO, closed)
    closed.close()
    log.info("x")
    logging.getLogger("uvicorn").error("x")


def test_a_stream_of_few_characters_gets_the_others_escaped() -> None:
    raw = io.BytesIO()
    configure(Format.TEXT, Level.INFO, io.TextIOWrapper(raw, encoding="ascii"))
    log.info("caf\u00e9")
    assert raw.getvalue().endswith(b"app.test: caf\\xe9\n")


def test_nothing_is_ever_written_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Format.TEXT, Level.INFO, sys.stderr)
    log.info("x")
    found = capsys.readouterr()
    assert found.out == ""
    assert "app.test: x" in found.err
