"""The part of claiming ahead (``scheduling/ahead.py``) that needs time or Redis.

Another worker may take back jobs that were claimed ahead and have not begun. So Redis has a note of each such
claim until its job begins, unless it is known that no other worker process lives.
"""

import asyncio
import math
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

from beeq.client.context import QueueContext
from beeq.errors import RedisError
from beeq.redis.connection import Connection
from beeq.redis.resp import CommandPrefix
from beeq.worker.scheduling import actions
from beeq.worker.scheduling.ahead import AttemptPace, ahead_member
from beeq.worker.scheduling.scheduler import Scheduler


def _leave_it(_replies: list[Any], _error: RedisError | None) -> None:
    """Do nothing: if the note of a begin was lost, or late, the job may be another worker's by now.

    Then its outcome is lost, as for any job that stalled.
    """


class ClaimingAhead:
    """Claiming ahead for one worker's scheduler.

    Args:
        context: of the queue.
        concurrency: how many jobs run at once.
        scheduler: gets how many jobs to claim ahead.
        connection: that of the calls.
        carry_out: carries out the scheduler's decisions.
    """

    def __init__(
        self,
        context: QueueContext,
        *,
        concurrency: int,
        scheduler: Scheduler,
        connection: Connection,
        carry_out: Callable[[actions.Actions], object],
    ) -> None:
        settings = context.settings
        # Where no stall is allowed, a job would fail if a worker claimed it ahead and died.
        bound_ms = settings.claim_ahead_ms if settings.max_stalls else 0
        self._pace = AttemptPace(bound_ms, concurrency=concurrency)
        self._is_possible = self._pace.most > 0
        self._scheduler = scheduler
        self._places = scheduler.places
        self._connection = connection
        self._carry_out = carry_out
        self._loop = asyncio.get_running_loop()
        self._begins = CommandPrefix("ZREM", context.keys.ahead)
        self._worker_came_at_s = math.inf  # new workers are not announced here yet
        self._timer: asyncio.TimerHandle | None = None

    def attempt_ended(self, ran_s: float) -> None:
        """Add an attempt's duration: short ones allow for more jobs ahead."""
        if self._is_possible:
            self._places.ahead_limit = self._pace.ended(ran_s)

    def see_workers(self, seen: tuple[int, float]) -> None:
        """Take how many worker processes lived, this one included, and when that was read (monotonic time).

        Other workers may take back jobs claimed ahead. Without any, neither these claims nor their begins are
        noted in Redis. An older number does not count if a worker has come since, or may have.
        """
        count, asked_at_s = seen
        if count > 1 or asked_at_s > self._worker_came_at_s:
            self._places.notes_ahead = count > 1

    def worker_may_have_come(self) -> None:
        """Note claims ahead in Redis until it is known that no other worker process lives."""
        self._worker_came_at_s = time.monotonic()
        self._places.notes_ahead = True

    def note_begins(self, action: actions.NoteBegins) -> None:
        """Note in Redis that the jobs begin, without waiting for the reply."""
        members = [ahead_member(raw_id, claim) for raw_id, _, _, claim in action.jobs]
        self._connection.ask((self._begins.pack(members),), _leave_it)

    def check_at(self, action: actions.CheckAhead) -> None:
        """Have the scheduler look at that time for jobs that have not begun in time."""
        self._timer = self._loop.call_later(
            max(0.0, action.at_s - time.monotonic()),
            lambda: self._carry_out(self._scheduler.check_ahead()),
            context=Context(),
        )

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
