"""What a worker logs to standard error: text for people, or JSON, one object a line; escaped."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

from beeq import Job, Queue
from beeq.protocol.codec import dumps
from beeq_cli.console import UNSAFE, escaped
from beeq_cli.outages import Outages

logger = logging.getLogger("beeq_cli")

#: Logged once, when every queue is ready.
STARTED = "Queue worker started"


class TextFormatter(logging.Formatter):
    """One line a record: the queue's name, what happened, and with ``-v`` where."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        queue = getattr(record, "queue", None)
        text = super().format(record)
        return escaped(f"{queue}: {text}" if queue else text)


class JSONFormatter(logging.Formatter):
    """One object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: value for name in ("queue", "job") if (value := getattr(record, name, None))}
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", dumps(entry).decode())


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

    Successes are logged with ``-v`` only: there may be many thousands a second.
    """
    is_verbose = logger.isEnabledFor(logging.DEBUG)

    def log(level: int, message: str, *, job_id: Any = None, error: BaseException | None = None) -> None:
        trace = error if is_verbose else None
        logger.log(level, "%s", message, exc_info=trace, extra={"queue": queue.name, "job": job_id})

    def log_jobs(event: str, level: int, what: str) -> None:
        def heard(job: Job | str, detail: Any = None) -> None:
            job_id = job.id if isinstance(job, Job) else job
            error = detail if isinstance(detail, BaseException) else None
            reason = f": {_text(error)}" if error is not None else ""
            log(level, f"job {job_id} {what}{reason}", job_id=job_id, error=error)

        queue.on(event, heard)

    log_jobs("failed:fatal", logging.ERROR, "failed")
    log_jobs("retrying", logging.WARNING, "will be tried again")
    log_jobs("stalled", logging.WARNING, "was lost by its worker and is queued again")
    log_jobs("cancelled", logging.WARNING, "was cancelled")

    def log_error(error: BaseException, count: str) -> None:
        log(logging.ERROR, _text(error) + count, error=error)

    _outages.follow(queue, log_error)
    if is_verbose:
        log_jobs("succeeded", logging.DEBUG, "succeeded")
        queue.on("ready", lambda: log(logging.DEBUG, "ready"))


_outages = Outages()


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
