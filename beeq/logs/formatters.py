"""How a record is shown: as text for people, or as JSON, one object a line; and what a filter adds to it."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from beeq.errors import UNSAFE, escaped, kind_of, shortened, text_of
from beeq.logs.records import (
    MAX_TRACE,
    attempt_of,
    indented,
    named,
    running_job,
    safe_line,
    safe_trace,
    worker_name,
)

_COLOURS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31"}


class JobLogFilter(logging.Filter):
    """Gives each record the ``queue``, ``job`` and ``attempt`` for which the code runs, and the ``worker``.

    Add it to a handler, not to a logger: it lets all records pass. An attribute that is there stays, and
    outside jobs only ``worker`` is added: a format that names the others needs ``Formatter(defaults=…)``.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what is known."""
        if hasattr(record, "worker"):
            return True  # beeq's own: log_event has set all that is known
        facts: dict[str, Any] = {"worker": worker_name()}
        job = running_job.get()
        if job is not None:
            facts |= {"queue": job.owner.name, "job": job.id, "attempt": attempt_of(job.options)}
        for name, value in facts.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class TextFormatter(logging.Formatter):
    """One line a record: time, level, queue, job, message. Lines of a traceback follow, indented."""

    def __init__(self, *, has_colours: bool = False) -> None:
        super().__init__()
        self._has_colours = has_colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines."""
        level = f"{escaped(record.levelname):<7}"
        if self._has_colours and record.levelname in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelname]}m{level}\x1b[0m"
        lines = [f"{_time_of(record)} {level} {_names_of(record)}{_message_of(record)}"]
        if record.exc_info and (error := record.exc_info[1]) is not None:
            lines.append(indented(safe_trace(error)))
        if record.stack_info:
            lines.append(indented(shortened(record.stack_info, MAX_TRACE)))
        return "\n".join(lines)


class JSONFormatter(logging.Formatter):
    """One object a record: ``time level logger message``, and of the facts those that are known.

    These are ``queue job attempt worker duration_ms error error_type traceback``. What is unsafe at a
    terminal is escaped, as JSON allows.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, Any] = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message_of(record),
        }
        known = vars(record)
        for name in ("queue", "job", "attempt", "worker", "duration_ms", "error", "error_type"):
            value = known.get(name)
            if value is not None:
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                entry[name] = value if is_number else _shown(value)
        if record.exc_info and (error := record.exc_info[1]) is not None:
            entry.setdefault("error", safe_line(text_of(error)))
            entry.setdefault("error_type", kind_of(error))
            entry["traceback"] = safe_trace(error)
        return UNSAFE.sub(lambda match: json.dumps(match[0])[1:-1], json.dumps(entry, ensure_ascii=False))


def _time_of(record: logging.LogRecord) -> str:
    """Return when it was, in UTC, to the millisecond."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _message_of(record: logging.LogRecord) -> str:
    try:
        return safe_line(record.getMessage())
    except BaseException as broken:  # noqa: BLE001 - arguments that do not fit, or cannot be shown
        return f"{escaped(shortened(str(record.msg)))} (its arguments cannot be shown: {kind_of(broken)})"


def _names_of(record: logging.LogRecord) -> str:
    """Return the names of queue and job, as far as the message does not begin with them."""
    known = vars(record)
    queue, job = (None if known.get(name) is None else _shown(known[name]) for name in ("queue", "job"))
    message = _raw(record)
    if queue is not None and message.startswith(named(queue).removesuffix(": ")):
        return ""
    return named(queue, None if message.startswith("job ") else job)


def _raw(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except BaseException:  # noqa: BLE001 - as above
        return ""


def _shown(value: Any) -> str:
    try:
        return shortened(str(value))
    except BaseException as broken:  # noqa: BLE001 - the program's own class
        return f"({kind_of(broken)})"
