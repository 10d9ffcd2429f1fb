"""A record as text and as JSON: one line, bounded, escaped, without secrets, whatever a program logs."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from beeq.logs import JobLogFilter, JSONFormatter, TextFormatter, configure
from beeq.logs.records import log_event
from beeq.logs.setup import enable


def record(message: str, *arguments: Any, level: int = logging.INFO, **facts: Any) -> logging.LogRecord:
    made = logging.LogRecord("program", level, __file__, 1, message, arguments, None)
    made.created = 1_764_430_200.125
    vars(made).update(facts)
    return made


def shown(made: logging.LogRecord) -> dict[str, Any]:
    text = JSONFormatter().format(made)
    assert text.isprintable()
    entry: dict[str, Any] = json.loads(text)
    return entry


def test_a_line_has_time_level_queue_job_and_message() -> None:
    text = TextFormatter().format(record("sent to %s", "Ada", queue="mail", job="17"))
    assert text == "2025-11-29T15:30:00.125Z INFO    queue mail: job 17: sent to Ada"


def test_names_that_the_message_begins_with_are_not_repeated() -> None:
    text = TextFormatter().format(record("queue mail: job 17: sent", queue="mail", job="17"))
    assert text.endswith(" INFO    queue mail: job 17: sent")
    text = TextFormatter().format(record("queue mail is paused", queue="mail"))
    assert text.endswith(" INFO    queue mail is paused")
    text = TextFormatter().format(record("job '17': sent", queue="mail", job="17"))
    assert text.endswith(" INFO    queue mail: job '17': sent")


def test_json_has_the_facts_that_are_known_and_no_others() -> None:
    entry = shown(record("sent", queue="mail", job="17", attempt=2, worker="w", duration_ms=3, user="ann"))
    assert entry == {
        "time": "2025-11-29T15:30:00.125Z",
        "level": "info",
        "logger": "program",
        "message": "sent",
        "queue": "mail",
        "job": "17",
        "attempt": 2,
        "worker": "w",
        "duration_ms": 3,
    }


def test_an_exception_is_error_class_and_traceback_in_json() -> None:
    made = record("failed", level=logging.ERROR)
    try:
        int("redis://ann:hush@host")
    except ValueError:
        made.exc_info = sys.exc_info()
    entry = shown(made)
    assert entry["error_type"] == "ValueError"
    assert entry["error"].endswith(": 'redis://***@host'")
    assert entry["traceback"].startswith("Traceback (most recent call last):\n")
    assert "hush" not in entry["traceback"]
    first, *trace = TextFormatter().format(made).split("\n")
    assert first.endswith(" ERROR   failed")
    assert trace
    assert all(line.startswith("    ") for line in trace)


class Unshowable:
    def __str__(self) -> str:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("\x1b[2J\nforged\u202e\ud800", ()),
        ("%s", ("x" * 1_000_000,)),
        ("%d", ("no number",)),
        ("%s", (Unshowable(),)),
        ("mongodb://ann:hush@host, redis://:hush@host/0", ()),
    ],
)
def test_whatever_is_logged_is_one_bounded_line(message: str, arguments: tuple[Any, ...]) -> None:
    facts: dict[str, Any] = {"queue": "a\nb", "job": Unshowable(), "attempt": "\x1b", "worker": 7}
    text = TextFormatter().format(record(message, *arguments, **facts))
    assert text.isprintable()
    assert len(text) < 5000
    assert "hush" not in text
    assert "hush" not in json.dumps(shown(record(message, *arguments, **facts)))


# A process's whole log.


@pytest.fixture
def restored() -> Iterator[io.StringIO]:
    """A stream for ``configure``, whose work is undone afterwards."""
    root, own = logging.getLogger(), logging.getLogger("beeq")
    handlers, levels, hook = list(root.handlers), (root.level, own.level), threading.excepthook
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])
    threading.excepthook = hook
    logging.captureWarnings(capture=False)


def test_the_programs_loggers_show_from_info_on(restored: io.StringIO) -> None:
    configure(stream=restored)
    logging.getLogger("program").info("shown")
    logging.getLogger("program").debug("hidden")
    logging.getLogger("httpx").info("GET https://host/?token=hush")
    (line,) = restored.getvalue().splitlines()
    assert line.endswith(" INFO    shown")


def test_warnings_and_ends_of_threads_are_lines_too(restored: io.StringIO) -> None:
    configure("json", stream=restored)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old\nforged", stacklevel=1)
    thread = threading.Thread(target=lambda: dict[str, int]()["x"], name="own")
    thread.start()
    thread.join()
    warned, ended = map(json.loads, restored.getvalue().splitlines())
    assert (warned["logger"], warned["level"]) == ("py.warnings", "warning")
    assert ended["message"].startswith("the thread own has ended: KeyError: ")
    assert ended["traceback"]


def test_a_quiet_log_is_empty(restored: io.StringIO) -> None:
    configure(is_quiet=True, stream=restored)
    log_event(logging.CRITICAL, "x")
    assert restored.getvalue() == ""


def test_a_format_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="log_format must be one of text, json, not 'xml'"):
        configure("xml")  # type: ignore[arg-type]  # that is the point


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_levels_have_colours_on_a_terminal_only(
    restored: io.StringIO, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], is_coloured: bool
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for stream, has_colours in ((Terminal(), is_coloured), (restored, False)):
        configure(stream=stream)
        log_event(logging.WARNING, "x")
        assert ("\x1b[33mWARNING\x1b[0m" in stream.getvalue()) is has_colours


def test_loggers_that_a_program_has_disabled_speak_again(restored: io.StringIO) -> None:
    configure(stream=restored)
    logging.getLogger("beeq").disabled = True
    enable()
    log_event(logging.INFO, "x")
    assert restored.getvalue().endswith(" INFO    x\n")


def test_a_format_may_name_facts_that_are_not_there() -> None:
    formatter = logging.Formatter("%(queue)s %(job)s %(message)s", defaults={"queue": "-", "job": "-"})
    made = record("x")
    assert JobLogFilter().filter(made)
    assert formatter.format(made) == "- - x"
