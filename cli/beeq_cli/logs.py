"""What a worker logs to standard error: text for people, or JSON, one object a line; escaped, and bounded.

An error that was to be expected is one line; a surprise has its traceback.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

from beeq import Job, Queue
from beeq.errors import escaped, is_expected, kind_of, one_line, shortened, text_of
from beeq.protocol.events import QueueEventName
from beeq_cli.console import safe_json
from beeq_cli.outages import Outages

logger = logging.getLogger("beeq_cli")

#: Logged once, when every queue is ready.
STARTED = "Queue worker started"


#: The longest traceback, in characters.
_MAX_TRACE = 20_000
#: The longest id in a message, in characters.
_MAX_ID = 200
#: What no other line begins with: so none can be taken for a record's first.
_INDENT = "    "


class TextFormatter(logging.Formatter):
    """One line a record: the queue's name and what happened. Lines of a traceback follow, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines."""
        queue = getattr(record, "queue", None)
        text = record.getMessage()
        lines = [one_line(f"{queue}: {text}" if queue else text)]
        if record.exc_info:
            lines += [_INDENT + escaped(line) for line in _trace(self, record).split("\n")]
        return "\n".join(lines)


class JSONFormatter(logging.Formatter):
    """One object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": shortened(record.getMessage()),
        }
        facts = ((name, getattr(record, name, None)) for name in ("queue", "job"))
        entry |= {name: shortened(str(value)) for name, value in facts if value}
        if record.exc_info:
            entry["trace"] = _trace(self, record)
        return safe_json(entry)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Return the record's traceback, without its end if it is too long."""
    try:
        assert record.exc_info  # noqa: S101 - asked for only then
        return shortened(formatter.formatException(record.exc_info), _MAX_TRACE)
    except BaseException as error:  # noqa: BLE001 - a handler's exception may have notes that raise anything
        return f"(its traceback cannot be shown: {kind_of(error)})"


def configure(log_format: str, *, is_verbose: bool, is_quiet: bool) -> None:
    """Send the process's log to standard error: beeq's from INFO on, everybody's from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if log_format == "json" else TextFormatter())
    if is_quiet:
        handler.setLevel(logging.CRITICAL + 1)  # nothing is
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("beeq", "beeq_cli"):
        logging.getLogger(name).setLevel(logging.DEBUG if is_verbose else logging.INFO)


def follow(queue: Queue) -> None:
    """Log what happens in the queue: its errors, and the jobs that do not simply succeed.

    Successes and postponements are logged with ``-v`` only: there may be many thousands a second.
    """
    is_verbose = logger.isEnabledFor(logging.DEBUG)

    def log(level: int, message: str, *, job_id: Any = None, error: BaseException | None = None) -> None:
        trace = None if error is None or is_expected(error) else error
        logger.log(level, "%s", message, exc_info=trace, extra={"queue": queue.name, "job": job_id})

    def log_jobs(event: QueueEventName, level: int, what: str) -> None:
        def heard(job: Job | str, detail: Any = None) -> None:
            job_id = job.id if isinstance(job, Job) else job
            error = detail if isinstance(detail, BaseException) else None
            reason = f": {text_of(error)}" if error is not None else ""
            log(level, f"job {shortened(str(job_id), _MAX_ID)} {what}{reason}", job_id=job_id, error=error)

        queue.on(event, heard)

    log_jobs("failed:fatal", logging.ERROR, "failed")
    log_jobs("retrying", logging.WARNING, "will be tried again")
    log_jobs("stalled", logging.WARNING, "was lost by its worker and is queued again")
    log_jobs("cancelled", logging.WARNING, "was cancelled")

    def log_error(error: BaseException, count: str) -> None:
        log(logging.ERROR, text_of(error) + count, error=error)

    _outages.follow(queue, log_error)
    if is_verbose:
        log_jobs("succeeded", logging.DEBUG, "succeeded")
        log_jobs("postponed", logging.DEBUG, "waits")
        queue.on("ready", lambda: log(logging.DEBUG, "ready"))


_outages = Outages()
