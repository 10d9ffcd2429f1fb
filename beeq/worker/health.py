"""The state of a queue's work in this process: the result of ``Queue.worker_health``."""

from dataclasses import asdict, dataclass
from typing import Any

from beeq.supervision.duty import DutyHealth


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHealth:
    """The state of a queue's work in this process; a queue that only produces has duties, too.

    Attributes:
        is_healthy: the queue has not been closed, its work has not failed, all its duties run, each takes its
            turns, the event loop is not blocked, and not too many handlers hang.
        is_taking: it takes jobs: there is a handler, it is not about to stop, not too many handlers hang, and
            the queue is not paused.
        duties: its background duties.
        concurrency: its places: how many jobs may run here at once; 0 without a handler.
        places_taken: by jobs that run, and by outcomes that Redis has not recorded yet.
        running: handlers that run.
        hung: handlers that go on after their attempts have ended; too many, and no job is taken.
        is_queue_paused: the queue is paused (``Queue.pause``); that is healthy.
        last_turn_ms: when Redis last answered a call for jobs or outcomes, or showed that the queue is
            paused, in ms since the epoch.
        loop_silent_ms: for how long the event loop has not run the watchdog, which is a fraction of a second
            unless the loop is blocked.
        error: what ended the work, as text; "" if nothing did.
    """

    is_healthy: bool
    is_taking: bool
    duties: tuple[DutyHealth, ...]
    concurrency: int = 0
    places_taken: int = 0
    running: int = 0
    hung: int = 0
    is_queue_paused: bool = False
    last_turn_ms: int | None = None
    loop_silent_ms: int = 0
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "duties": [asdict(duty) for duty in self.duties]}
