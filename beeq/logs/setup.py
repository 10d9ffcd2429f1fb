"""Sets up the whole log of a process, as ``beeq worker`` does, and that of handlers' child processes."""

import logging
import os
import sys
import threading
from dataclasses import dataclass
from typing import Literal, TextIO, get_args

from beeq.logs.formatters import JobLogFilter, JSONFormatter, TextFormatter
from beeq.logs.records import be_child_of, log_all, log_event, logger

LogFormat = Literal["text", "json"]

#: Libraries that log at INFO what is of no use here: each request, with its URL.
_TALKATIVE = ("httpcore", "httpx", "pymongo", "redis", "urllib3", "uvicorn")


@dataclass(frozen=True, slots=True)
class LogSetup:
    """How ``configure`` has set up the log of a process; for its children."""

    log_format: LogFormat
    is_verbose: bool
    is_quiet: bool


_setups: list[LogSetup] = []  # of this process: the last one


def setup_of_log() -> LogSetup | None:
    """Return how ``configure`` has set up this process's log; None if it has not."""
    return _setups[-1] if _setups else None


def configure(
    log_format: LogFormat = "text",
    *,
    is_verbose: bool = False,
    is_quiet: bool = False,
    stream: TextIO | None = None,
    logs_all: bool = False,
) -> None:
    """Send the process's log to ``stream``, as ``beeq worker`` does; call it before anything is logged.

    Everybody's records show from INFO on, but for HTTP and database libraries, which show from WARNING on.
    Warnings (``warnings``) and what ends a thread are logged, too.

    Args:
        log_format: ``text`` (time, level, queue, job, message) or ``json`` (one object a line).
        is_verbose: show beeq's own from DEBUG on, and the traceback of each error.
        is_quiet: show nothing.
        stream: where to; None: standard error. Text is coloured on a terminal, unless ``NO_COLOR`` is set.
        logs_all: log each failure of a job, also where the queue has a listener that hears of it.

    Raises:
        ValueError: ``log_format`` is neither of them.
    """
    if log_format not in get_args(LogFormat):
        raise ValueError(f"log_format must be one of {', '.join(get_args(LogFormat))}, not {log_format!r}")
    to = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(to)
    handler.setFormatter(
        JSONFormatter() if log_format == "json" else TextFormatter(has_colours=_is_coloured(to))
    )
    handler.addFilter(JobLogFilter())
    if is_quiet:
        handler.setLevel(logging.CRITICAL + 1)  # nothing is
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_end_of_thread
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    logger.setLevel(logging.DEBUG if is_verbose else logging.INFO)
    _setups[:] = [LogSetup(log_format, is_verbose, is_quiet)]
    log_all(is_on=logs_all)


def _log_end_of_thread(end: threading.ExceptHookArgs) -> None:
    """Log the exception that ended one of the program's threads; ``SystemExit`` is not a failure."""
    if end.exc_value is not None and not isinstance(end.exc_value, SystemExit):
        name = "" if end.thread is None else f" {end.thread.name}"
        log_event(logging.ERROR, f"the thread{name} has ended", error=end.exc_value, has_trace=True)


def configure_child(setup: LogSetup | None, *, worker: str) -> None:
    """Set up the log of a child process as that of its worker is."""
    be_child_of(worker)
    if setup is not None:
        configure(setup.log_format, is_verbose=setup.is_verbose, is_quiet=setup.is_quiet)


def json_line(message: str) -> str | None:
    """Return an error as a line of this process's log, if that is JSON: shown also where the log is quiet."""
    setup = setup_of_log()
    if setup is None or setup.log_format != "json":
        return None
    record = logger.makeRecord(logger.name, logging.ERROR, "", 0, "%s", (message,), None)
    JobLogFilter().filter(record)
    return JSONFormatter().format(record)


def enable() -> None:
    """Let beeq's loggers speak: a program's own setup of the log disables those that are there before it."""
    for name in ("beeq", *(name for name in logging.root.manager.loggerDict if name.startswith("beeq."))):
        logging.getLogger(name).disabled = False


def _is_coloured(stream: TextIO) -> bool:
    """Return whether the stream is a terminal that shows colours, and ``NO_COLOR`` is not set."""
    try:
        is_terminal = stream.isatty()
    except (AttributeError, ValueError):  # not quite a file, or closed
        return False
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
