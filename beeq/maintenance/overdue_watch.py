"""Gives back jobs that a worker has claimed ahead and whose process no longer runs.

A worker gives back its own sooner (``worker/scheduling/ahead.py``), unless it was killed or stopped, or C
code holds its interpreter. Another worker that learns of claims ahead, in the replies to its own calls, looks
repeatedly until there are none. While no job is claimed ahead, no worker looks.
"""

import asyncio
import random
from contextlib import suppress

from beeq.client.context import QueueContext
from beeq.errors import RedisError
from beeq.redis import scripts
from beeq.supervision.duty import Duty

#: Between two looks while jobs are claimed ahead.
_LOOK_S = (0.03, 0.05)
#: After a look that has failed.
_AGAIN_S = 1.0
#: Jobs that one call looks at, at most.
_AT_ONCE = 500


class OverdueWatch:
    """One worker's watch; ``run`` is the duty."""

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        self._are_ahead = asyncio.Event()

    def look(self) -> None:
        """Look from now on: jobs are claimed ahead, by some worker."""
        self._are_ahead.set()

    async def run(self, duty: Duty) -> None:
        """Look whenever jobs are claimed ahead, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(duty.patience_s / 2):
                    await self._are_ahead.wait()
            if not self._are_ahead.is_set():
                duty.turn()
                continue
            try:
                await self._give_back(duty)
            except RedisError as error:
                self._context.report_error(error)
                duty.rests(_AGAIN_S)  # which does not count as a turn
                await asyncio.sleep(_AGAIN_S)
            else:
                await duty.rest(random.uniform(*_LOOK_S))

    async def _give_back(self, duty: Duty) -> None:
        context = self._context
        pipeline = context.pipeline
        self._are_ahead.clear()  # first: a reply that comes meanwhile may report new ones
        try:
            _, left = await duty.in_turn(
                scripts.return_overdue(
                    pipeline, context.keys, outbox_limit=context.settings.outbox_limit, limit=_AT_ONCE
                ),
                sent=lambda: pipeline.batches_sent,
                bound_s=context.settings.redis_timeout / 1000,
            )
        except RedisError:
            self._are_ahead.set()
            raise
        if left:
            self._are_ahead.set()
