"""The stall check: jobs whose worker gives no sign of life go back to the queue.

The rules are in protocol/README.md, "Stall check".
"""

import asyncio
from collections.abc import Callable

from beeq.client.context import QueueContext
from beeq.errors import RedisError
from beeq.redis import scripts

#: Ids looked at in one script call; each costs a search of ``active``.
_REQUEUE_AT_ONCE = 100
_MARK_AT_ONCE = 1000
_SWEEP_AT_ONCE = 100


class StallCheck:
    """Checks one queue.

    A check first requeues the jobs that the previous check marked and that gave no sign of life since; then
    it marks every active job. All peers of a queue make one check between them in a stall interval.
    """

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        #: How far the side keys are swept: the cursors in the claims and in the results.
        self._swept = (b"0", b"0")

    async def once(self) -> int:
        """Check now, and emit ``stalled`` for each job that went back to the queue; return how many.

        Raises RedisError if the check was not made, or not to its end. The next one makes up for it.
        """
        pipeline, keys, settings = self._context.pipeline, self._context.keys, self._context.settings
        stalled: list[str] = []
        first = "1"
        while True:
            passed, more, ids = await scripts.requeue_stalled(
                pipeline,
                keys,
                interval_ms=settings.stall_interval,
                first=first,
                limit=_REQUEUE_AT_ONCE,
                outbox_limit=settings.outbox_limit,
            )
            if not passed:
                return 0
            stalled += [job_id.decode(errors="replace") for job_id in ids]
            first = ""
            if not more:
                break
        position = 0
        while position >= 0:
            position = await scripts.mark_stalling(
                pipeline, keys, interval_ms=settings.stall_interval, start=position, limit=_MARK_AT_ONCE
            )
        # One page of the side keys, for what Node peers have finished or removed.
        claims_cursor, results_cursor = self._swept
        self._swept = await scripts.sweep(
            pipeline, keys, claims_cursor=claims_cursor, results_cursor=results_cursor, count=_SWEEP_AT_ONCE
        )
        for job_id in stalled:
            self._context.emit("stalled", job_id)
        return len(stalled)

    async def repeat(self, rest_s: Callable[[], float]) -> None:
        """Check again and again, with a rest of so many seconds in between; report failures."""
        while True:
            try:
                await self.once()
            except RedisError as error:
                self._context.report_error(error)
            await asyncio.sleep(rest_s())
