"""The records of beeq's own log: what they say, and what they carry.

A record is one line: names and errors are strangers' texts.
"""

import contextlib
import logging
import traceback
from contextvars import ContextVar
from typing import Any, Protocol

from beeq.errors import MAX_LINE, BeeqError, escaped, is_expected, kind_of, one_line, shortened, text_of
from beeq.process import now_ms, process_name
from beeq.redis.urls import redact

logger = logging.getLogger("beeq")

#: The longest traceback, in characters.
MAX_TRACE = 20_000
#: The longest name of a queue and id of a job in a line, in characters.
_MAX_NAME = 200
#: Of a longer text the middle is not even searched for secrets: it is not shown.
_MAX_SEARCHED = 100_000
#: Said of a queue.
HANDED_BACK = "running jobs were handed back"
#: No other line begins with these: so none can be taken for a record's first.
_INDENT = "    "


class LoggedJob(Protocol):
    """What a line of the log needs of a job that runs."""

    @property
    def id(self) -> str | None:
        """The job's id."""

    @property
    def owner(self) -> Any:
        """Who knows the queue's ``name``."""

    @property
    def options(self) -> Any:
        """The record's options."""


class _Here:
    """Facts about this process."""

    worker = ""  # of a child process of a handler: its worker
    logs_all = False


#: The job for which the code runs that logs; None outside handlers.
running_job: ContextVar[LoggedJob | None] = ContextVar("beeq_running_job", default=None)


def attempt_of(options: Any) -> int:
    """Return which attempt of a job runs: each that failed has left a trace in its record."""
    traces = options.get("stacktraces") if isinstance(options, dict) else None
    return 1 + (len(traces) if isinstance(traces, list) else 0)


def logs_all() -> bool:
    """Return whether each failure of a job is logged, even if it has a listener (``configure``)."""
    return _Here.logs_all


def log_all(*, is_on: bool) -> None:
    """Log each failure of a job from now on, or only those of which no listener hears."""
    _Here.logs_all = is_on


def be_child_of(worker: str) -> None:
    """Let records carry this worker's name: the process is its child."""
    _Here.worker = worker


# Records.


def log_event(
    level: int,
    message: str,
    *,
    queue: str | None = None,
    job: str | None = None,
    error: BaseException | None = None,
    has_trace: bool = False,
    suffix: str = "",
    stack_level: int = 1,
    **facts: Any,
) -> None:
    """Log one line: the names of queue and job, ``message``, the error's class and text, and ``suffix``.

    Names and texts may be a stranger's. A surprise has its traceback with ``has_trace``, and every error has
    where DEBUG is logged. Neither an exception that cannot be printed nor the program's log
    handlers stop this.

    Args:
        level: as ``logging`` has it.
        message: what happened.
        queue: the queue's name.
        job: the job's id.
        error: what was raised.
        has_trace: whether the traceback of a surprise belongs to it.
        suffix: what follows all that.
        stack_level: how many callers further up the line of code is that is named as the record's own.
        facts: further attributes of the record; those that are None are left out.
    """
    if not logger.isEnabledFor(level):
        return
    with contextlib.suppress(BaseException):
        parts = [one_line(message)] if message else []
        if error is not None:
            facts |= {"error": safe_line(text_of(error)), "error_type": escaped(kind_of(error))}
            parts += [facts["error_type"], facts["error"]]
        text = f"{named(queue, job)}{': '.join(parts)}{suffix}"
        path, line, function, _ = logger.findCaller(stacklevel=stack_level + 1)
        record = logger.makeRecord(logger.name, level, path, line, "%s", (text,), None, function)
        own = ("queue", queue), ("job", job), ("worker", worker_name())
        for name, value in (*own, *facts.items()):
            if value is not None:
                setattr(record, name, value)
        is_debug = logger.isEnabledFor(logging.DEBUG)
        if error is not None and (is_debug or (has_trace and not is_expected(error))):
            record.exc_info = (type(error), error, error.__traceback__)
            # What formatters print of it, of all kinds: no stranger's text begins a line.
            record.exc_text = indented(safe_trace(error))
        logger.handle(record)


def named(queue: str | None, job: str | None = None) -> str:
    """Return what a line begins with: ``queue mail: job 17: ``."""
    parts = (("queue", queue), ("job", job))
    return "".join(f"{what} {escaped(shortened(name, _MAX_NAME))}: " for what, name in parts if name)


def safe_line(text: str) -> str:
    """Return a stranger's text as one bounded line, without the secrets of URLs in it."""
    return escaped(_without_secrets(text, MAX_LINE))


def safe_trace(error: BaseException) -> str:
    """Return the error's traceback, bounded, without the secrets of URLs in it; lines are not escaped."""
    try:
        text = "".join(traceback.format_exception(error))
        return _without_secrets(text.rstrip("\n"), MAX_TRACE)
    except BaseException as broken:  # noqa: BLE001 - a handler's exception may have notes that raise anything
        return f"(its traceback cannot be shown: {kind_of(broken)})"


def _without_secrets(text: str, limit: int) -> str:
    """Return ``text`` without the secrets of URLs; of one of more than ``limit`` characters both ends."""
    if len(text) <= _MAX_SEARCHED:
        return shortened(redact(text), limit)
    head, tail = redact(text[: _MAX_SEARCHED // 2]), redact(text[-_MAX_SEARCHED // 2 :])
    return f"{head[: limit - limit // 4]} … {tail[-limit // 4 :]} ({len(text)} characters)"


def indented(trace: str) -> str:
    """Return the lines of a trace, escaped, and indented: none can be taken for a record's first."""
    return "\n".join(_INDENT + escaped(line) for line in trace.split("\n"))


def log_queue_error(queue_name: str, error: BaseException, *, more: str | None = None) -> None:
    """Log an error of the queue, as one line, a surprise with its traceback.

    ``more`` follows it; None: how many more of it there were.
    """
    is_own = issubclass(type(error), BeeqError)  # what it says of its class itself may raise anything
    job_id = getattr(error, "job_id", None) if is_own else None
    count = getattr(error, "repeated", 0) if is_own else 0
    if more is None:
        more = f" ({count} more of them since it was last said)" if count else ""
    log_event(
        logging.ERROR,
        "",
        queue=queue_name,
        job=job_id if isinstance(job_id, str) else None,
        error=error,
        has_trace=True,
        suffix=more,
    )


def log_stop(why: str, running: int, *, allowed_s: float | None, queue: str | None = None) -> None:
    """Log that no more jobs are taken, and what becomes of those that run.

    Args:
        why: the signal's name, or what else asks for it.
        running: how many jobs run.
        allowed_s: how long they may take to end; None: they go back to their queue now.
        queue: whose they are; None: several queues'.
    """
    jobs = f"{running} job{'' if running == 1 else 's'} that run{'s' if running == 1 else ''}"
    if allowed_s is None:
        log_event(logging.INFO, f"{why}, the second signal: {jobs} go back to the queue", queue=queue)
        return
    left = f"{jobs} may take up to {allowed_s:g} s to end" if running else "none runs"
    log_event(logging.INFO, f"{why}: no more jobs are taken; {left}", queue=queue)


# What happens to jobs.


def log_failed_attempt(
    queue: str, job: LoggedJob, error: BaseException, *, retry_in_ms: int | None, duration_ms: int
) -> None:
    """Log that an attempt has failed: as a WARNING if the job is tried again, else as an ERROR.

    ``job`` has the failed attempt in its record. ``retry_in_ms`` None: it has failed for good.
    """
    attempt = max(1, attempt_of(job.options) - 1)
    if retry_in_ms is None:
        level, what = logging.ERROR, f"attempt {attempt} failed, for good"
    else:
        when = f"in {retry_in_ms / 1000:g} s" if retry_in_ms else "now"
        level, what = logging.WARNING, f"attempt {attempt} failed, and is tried again {when}"
    log_event(
        level,
        what,
        queue=queue,
        job=job.id,
        error=error,
        has_trace=True,
        stack_level=2,
        attempt=attempt,
        duration_ms=duration_ms,
    )


def log_job(level: int, what: str, queue: str, job: LoggedJob | str, **facts: Any) -> None:
    """Log what has happened to a job; ``job`` may be its id alone."""
    if not isinstance(job, str):
        facts.setdefault("attempt", attempt_of(job.options))
    job_id = job if isinstance(job, str) else job.id
    log_event(level, what, queue=queue, job=job_id, stack_level=2, **facts)


def worker_name() -> str:
    """Return the name of the worker whose process this is, or whose child."""
    return _Here.worker or process_name()


class LoggedOutcome(Protocol):
    """What a line of the log needs of an attempt's end."""

    @property
    def job(self) -> Any:
        """The job, a ``LoggedJob``, and ``started_ms``."""

    @property
    def error(self) -> BaseException | None:
        """What the handler raised; None: it has succeeded."""

    @property
    def status(self) -> str:
        """``succeeded``, ``retrying`` or ``failed``."""

    @property
    def delay_ms(self) -> int:
        """How long to wait before the next attempt."""

    @property
    def is_postponed(self) -> bool:
        """Whether the attempt does not count."""

    @property
    def ended_ms(self) -> int:
        """When a failed attempt ended; 0: just now."""


def log_outcome(queue: str, outcome: LoggedOutcome, *, is_heard: bool) -> None:
    """Log how an attempt has ended: a failure of which no listener has heard; at DEBUG the others."""
    job, error = outcome.job, outcome.error
    duration_ms = max(0, (outcome.ended_ms or now_ms()) - job.started_ms)
    if error is None:
        log_job(logging.DEBUG, f"succeeded in {duration_ms} ms", queue, job, duration_ms=duration_ms)
    elif outcome.is_postponed:
        what = f"put off for {outcome.delay_ms / 1000:g} s"
        log_job(logging.DEBUG, what, queue, job, duration_ms=duration_ms, error=error)
    elif not is_heard or logs_all():
        retry_in_ms = outcome.delay_ms if outcome.status == "retrying" else None
        log_failed_attempt(queue, job, error, retry_in_ms=retry_in_ms, duration_ms=duration_ms)
