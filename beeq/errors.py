"""The engine's errors, and the two exceptions by which a handler chooses an outcome.

::

    BeeqError
    ├── RedisError                 Redis did not do what was asked
    │   ├── RedisUnavailable       unreachable, wrong password, or silent (also ConnectionError)
    │   └── RedisRefused           it answered with an error: OOM, ACL, wrong type
    ├── QueueClosed                the queue was closed before or during the call
    ├── JobFailed                  what ``result()`` raises when the job failed
    ├── JobTimedOut                a handler ran past its timeout (also TimeoutError)
    ├── JobStalled                 a job outlived more workers than ``max_stalls`` allows
    ├── JobLost                    an outcome came from a worker that no longer owned the job
    ├── JobUnreadable              a record in Redis is not a job record
    └── StatusNotUpdated           a handler ended after its queue had closed

    HandlerOutcome                        raised by handlers, the built-in processors among them
    ├── Retry                      try again, maybe after a given delay
    └── Discard                    fail now and for good

Other parts define their own, all derived from ``BeeqError``: ``jobs.InvalidJob``, ``MediaRefused`` and
``MediaFailed`` (``media``), ``WebhookRefused`` and ``DeliveryFailed`` (``webhooks``), ``AIRefused`` and
``AIFailed`` (``ai``), ``MirrorUnavailable`` (``mirror``), ``ChildDied`` (``worker``).
"""

from datetime import timedelta


class BeeqError(Exception):
    """Base of all errors that beeq defines."""


class RedisError(BeeqError):
    """Redis did not do what was asked. Messages never hold a password."""


class RedisUnavailable(RedisError, ConnectionError):
    """Redis cannot be reached, closed the connection, did not answer, or refused the credentials."""


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
    """An outcome was dropped: when it was ready, this worker no longer owned the job."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job {job_id} was no longer owned by this worker; its outcome was dropped")
        self.job_id = job_id


class JobUnreadable(BeeqError):
    """The record of a job is not what bee-queue writes. ``raw`` is its text, unchanged."""

    def __init__(self, job_id: str, raw: bytes, reason: str) -> None:
        super().__init__(f"Job {job_id} has an unreadable record: {reason}")
        self.job_id = job_id
        self.raw = raw


class StatusNotUpdated(BeeqError):
    """A handler ended after its queue had closed (the text is bee-queue's)."""

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"unable to update the status of {status} job {job_id}")
        self.job_id = job_id
        self.status = status


class HandlerOutcome(Exception):
    """Base of the exceptions by which a handler chooses how its attempt ends."""


class Retry(HandlerOutcome):
    """Try the job again, using up one of its retries (none left: the job fails).

    Args:
        after: wait this long (milliseconds or timedelta) instead of the job's backoff.
        reason: what to record as the attempt's error.
    """

    def __init__(self, after: int | timedelta | None = None, reason: str = "") -> None:
        super().__init__(reason or "the handler asked for a retry")
        self.after = after


class Discard(HandlerOutcome):
    """Fail the job now and for good, also if retries are left."""

    def __init__(self, reason: str = "the handler discarded the job") -> None:
        super().__init__(reason)
        self.reason = reason
