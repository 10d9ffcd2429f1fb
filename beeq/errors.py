"""The engine's errors, and the three exceptions by which a handler chooses an outcome.

::

    BeeqError
    ├── RedisError                 Redis did not do what was asked
    │   ├── RedisUnavailable       unreachable, wrong password, or silent (also ConnectionError)
    │   │   ├── RedisSilent        … it did not answer in time
    │   │   └── NotReplicated      Redis did it, but a failover may undo it (``wait_replicas``)
    │   └── RedisRefused           it answered with an error: OOM, ACL, wrong type
    ├── QueueClosed                the queue was closed before or during the call
    ├── JobFailed                  what ``result()`` raises when the job failed
    ├── JobTimedOut                a handler ran past its timeout (also TimeoutError)
    ├── JobStalled                 a job outlived more workers than ``max_stalls`` allows
    ├── JobLost                    a worker no longer owned the job that it ran
    ├── JobUnreadable              a record in Redis is not a job record
    ├── ListenerTooSlow            a coroutine listener does not keep up; further events are dropped
    ├── HandlersHang               too many handlers go on after their time; no further job is taken
    ├── NoWorkerLives              a pause for everyone needs a beeq worker that keeps it up
    ├── StatusNotUpdated           a handler ended after its queue had closed
    ├── DutyEnded                  a background duty of a queue ended, and is started again
    │   └── DutySilent             it hung
    └── WorkerStuck                a worker held places for nothing, or took no jobs; it was repaired

    HandlerOutcome                        raised by handlers, the built-in processors among them
    ├── Retry                      try again, maybe after a given delay
    ├── Postpone                   try later; this does not count as an attempt
    └── Discard                    fail now and for good

Other parts define their own, all derived from ``BeeqError``: ``jobs.InvalidJob``, ``MediaRefused`` and
``MediaFailed`` (``media``), ``WebhookRefused`` (``http_client``), ``DeliveryFailed`` (``webhooks``),
``AIRefused`` and ``AIFailed`` (``ai``), ``MirrorUnavailable`` (``mirror``), ``ChildDied`` (``worker``),
``QueuePaused`` (``operations``).
"""

import re

from beeq.settings import Duration

#: The longest text in one line of a log, in characters.
MAX_LINE = 4000
#: Control characters of both sets, marks and changes of direction, Unicode's own line breaks, halves of
#: characters, and what is not seen at all: what moves a cursor, forges a line, shows a text in another order,
#: makes two texts look alike, or cannot be written. Joiners stay, for emoji and some scripts need them.
UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
    "\u00ad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

#: Reads a class's own name, even if its metaclass overrides ``__name__``.
_NAME = vars(type)["__name__"]


def kind_of(error: BaseException) -> str:
    """Return the name of the exception's class."""
    return str(_NAME.__get__(type(error)))


def text_of(error: BaseException) -> str:
    """Return the exception's text; its class's name if it has none, or its ``__str__`` raises anything."""
    try:
        text = str.__str__(str(error))  # a plain str, not one of a class of the user's own
    except BaseException:  # noqa: BLE001 - CancelledError and KeyboardInterrupt, too: nobody else raised it
        text = ""
    return text or kind_of(error)


def kind_and_text_of(error: BaseException) -> str:
    """Return the exception's class and its text as one line of a log."""
    return f"{kind_of(error)}: {line_of(error)}"


def line_of(error: BaseException) -> str:
    """Return the exception's text as one line of a log."""
    return one_line(text_of(error))


def escaped(text: str) -> str:
    """Return ``text`` as one line that cannot move a cursor, ring a bell or forge another line."""
    return UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    number = ord(character)
    if number > 0xFFFF:  # noqa: PLR2004 - two bytes
        return f"\\U{number:08x}"
    return _NAMES.get(character, f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}")  # noqa: PLR2004 - one byte


def shortened(text: str, limit: int = MAX_LINE) -> str:
    """Return ``text``; of one of more than ``limit`` characters both ends, and how long it was."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]} … {text[-tail:]} ({len(text)} characters)"


def one_line(text: str) -> str:
    """Return a stranger's text for a log: one line of bounded length."""
    return escaped(shortened(text))


class BeeqError(Exception):
    """Base of all errors that beeq defines.

    ``repeated``: of an error in an ``error`` event, how many more of it there were since it was last said.
    """

    repeated = 0


class RedisError(BeeqError):
    """Redis did not do what was asked. Messages never hold a password."""


class RedisUnavailable(RedisError, ConnectionError):
    """Redis cannot be reached, closed the connection, did not answer, or refused the credentials."""


class RedisSilent(RedisUnavailable):
    """Redis did not answer in time; the connection was given up."""


class NotReplicated(RedisUnavailable):
    """Redis has done it, but fewer replicas than ``wait_replicas`` have confirmed it.

    Whether it survives a failover is unknown. Nothing is undone or retried here. The caller may save again: a
    job with an id of its own is added once, and is confirmed when a save of it returns.
    ``job_id`` is the job's id; None where it is unknown.
    """

    def __init__(self, reason: str, *, job_id: str | None = None) -> None:
        what = "it" if job_id is None else f"job {job_id}"
        super().__init__(f"{reason}: whether {what} outlasts a failover is unknown")
        self.reason = reason
        self.job_id = job_id

    def of(self, job_id: str | None) -> "NotReplicated":
        """Return the same of one job."""
        return NotReplicated(self.reason, job_id=job_id)


class RedisRefused(RedisError):
    """Redis answered with an error. ``code`` is its first word (``OOM``, ``NOPERM``, …)."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.split(" ", 1)[0]


class QueueClosed(BeeqError):
    """The queue is closed; the message is bee-queue's own."""

    def __init__(self) -> None:
        super().__init__("closed")


class JobFailed(BeeqError):
    """The job's attempts are used up. The message is the last error's message."""

    def __init__(self, job_id: str, message: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobTimedOut(BeeqError, TimeoutError):
    """The handler ran longer than the job's timeout (the text is bee-queue's)."""

    def __init__(self, job_id: str, timeout_ms: int) -> None:
        super().__init__(f"Job {job_id} timed out ({timeout_ms} ms)")
        self.job_id = job_id
        self.timeout_ms = timeout_ms


class JobStalled(BeeqError):
    """The job was handed out more often than ``max_stalls`` allows, and never finished."""

    def __init__(self, job_id: str, deliveries: int) -> None:
        super().__init__(f"Job {job_id} stalled more than allowed ({deliveries - 1} times)")
        self.job_id = job_id
        self.deliveries = deliveries


class JobLost(BeeqError):
    """This worker no longer owned the job: its handler was stopped, or its outcome dropped when it was ready.

    The job stalled while the worker was suspended or blocked, or somebody removed it or queued it again.
    """

    def __init__(self, job_id: str, *, was_stopped: bool = False) -> None:
        what = "its handler was stopped" if was_stopped else "its outcome was dropped"
        super().__init__(f"Job {job_id} was no longer owned by this worker; {what}")
        self.job_id = job_id


class JobUnreadable(BeeqError):
    """The record of a job is not what bee-queue writes. ``raw`` is its text, unchanged."""

    def __init__(self, job_id: str, raw: bytes, reason: str) -> None:
        super().__init__(f"Job {job_id} has an unreadable record: {reason}")
        self.job_id = job_id
        self.raw = raw


class ListenerTooSlow(BeeqError):
    """So many events wait for a coroutine listener to ``event`` that further ones are dropped.

    Emitted once, until the listener has caught up; the log then says how many events were dropped.
    """

    def __init__(self, event: str, waiting: int) -> None:
        super().__init__(f"a listener to {event!r} is too slow: {waiting} events wait; more are dropped")
        self.event = event


class HandlersHang(BeeqError):
    """Too many handlers still run after their attempt was over: the worker takes no jobs until some end.

    A thread cannot be stopped. Emitted once; again only after jobs were taken again.
    """

    def __init__(self, hung: int) -> None:
        super().__init__(f"{hung} handlers go on after their time: no job is taken until some of them end")
        self.hung = hung


class NoWorkerLives(BeeqError):
    """The queue was not paused for everyone: no beeq worker lives to move new jobs out of Node's sight."""

    def __init__(self, queue_name: str) -> None:
        super().__init__(
            f"queue {queue_name} was not paused: no beeq worker works on it, and a pause for everyone needs"
            " one to hide from Node workers what is enqueued"
        )


class StatusNotUpdated(BeeqError):
    """A handler ended after its queue had closed (the text is bee-queue's)."""

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"unable to update the status of {status} job {job_id}")
        self.job_id = job_id
        self.status = status


class DutyEnded(BeeqError):
    """A background duty of a queue ended, in a way that is not an error of its own; it is started again."""

    def __init__(self, duty: str, how: str) -> None:
        super().__init__(f"the {duty} {how}; it is begun again")
        self.duty = duty


class DutySilent(DutyEnded):
    """A background duty of a queue hung: it took no turn for ``silent_ms``, though Redis answered."""

    def __init__(self, duty: str, silent_ms: int) -> None:
        super().__init__(duty, f"took no turn for {silent_ms} ms")
        self.silent_ms = silent_ms


class WorkerStuck(BeeqError):
    """A worker was alive and did not work: places were held by no job, or it took no waiting jobs."""


class HandlerOutcome(Exception):
    """Base of the exceptions by which a handler chooses how its attempt ends."""


class Retry(HandlerOutcome):
    """Try the job again, using up one of its retries (none left: the job fails).

    Args:
        after: wait this long (int in ms, timedelta, or text like ``30s``) instead of the job's backoff.
        reason: what to record as the attempt's error.
    """

    def __init__(self, after: Duration | None = None, reason: str = "") -> None:
        super().__init__(reason or "the handler asked for a retry")
        self.after = after


class Postpone(HandlerOutcome):
    """Put the job back for later, as if it had not begun: no retry is used up, and no failure is recorded.

    A job waits so for a day in all; then it fails.

    Args:
        after: wait this long (int in ms, timedelta, or text like ``30s``), at least 100 ms.
        reason: why, for the ``postponed`` event and the log.
    """

    def __init__(self, after: Duration, reason: str = "") -> None:
        super().__init__(reason or "the handler postponed the job")
        self.after = after


class Discard(HandlerOutcome):
    """Fail the job now and for good, also if retries are left."""

    def __init__(self, reason: str = "the handler discarded the job") -> None:
        super().__init__(reason)
        self.reason = reason


def is_expected(error: BaseException) -> bool:
    """Return whether the error's text says all there is to know, so that a log has it as one line.

    True for beeq's own errors and for what a handler chose: a bad job, a refused address or path,
    ``Discard``, ``Retry``, ``Postpone``. Every other error is a surprise, and is logged with its traceback.
    """
    return issubclass(type(error), (BeeqError, HandlerOutcome))
