"""What a job has ordered from the provider, kept with the job: nothing is to be paid for twice.

In the job's memory ``video`` is the provider's id of a video in the making, and ``orders`` counts the
orders whose result was of no use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from beeq.ai.responses import is_video_id
from beeq.errors import RedisError
from beeq.media.paths import safe_name

if TYPE_CHECKING:
    from beeq.processors.base import RunningJob

logger = logging.getLogger(__name__)

#: How long a cancelled attempt still waits for what is under way: less than its worker's patience.
GRACE_S = 0.8
#: How long it takes, at most, to let go of what is cancelled after that.
_END_S = 1.0
_REMEMBER_S = 60.0
#: A memory that counts further was not written here.
_MAX_COUNT = 1_000_000
_Result = TypeVar("_Result")


class Orders:
    """The orders of one job, in one of its attempts."""

    def __init__(self, job: RunningJob) -> None:
        assert job.id is not None  # noqa: S101 - a running job has an id
        self.job_id = job.id
        self._job = job
        memory = job.memory
        kept = memory.get("video")
        #: The video that this attempt or an earlier one has ordered.
        self.video: str | None = kept if is_video_id(kept) else None
        self._spent = _count(memory.get("orders"))
        self._is_kept = True

    @property
    def idempotency_key(self) -> str:
        """The same for the same order, however often it is sent. ASCII."""
        # "~" and a number: no other job's name ends so.
        return f"beeq-{safe_name(self.job_id)}" + (f"~{self._spent}" if self._spent else "")

    async def placed(self, video: str) -> None:
        """Keep the id of a video that was just ordered; to be ``unbroken`` together with the order."""
        self.video = video
        await self._keep()

    async def spent(self) -> None:
        """Forget the order: its result is of no use, so the next one is another."""
        self.video = None
        self._spent += 1
        await unbroken(self._keep())

    async def keep_again(self) -> None:
        """Keep what could not be kept when it was to be."""
        if not self._is_kept:
            await self._keep()

    async def _keep(self) -> None:
        facts: dict[str, Any] = {"video": self.video}
        if self._spent:
            facts["orders"] = self._spent
        try:
            async with asyncio.timeout(_REMEMBER_S):
                await self._job.remember(**facts)
        except (RedisError, TimeoutError) as error:
            # The work goes on: its record also goes out with the attempt's outcome.
            self._is_kept = False
            logger.warning("job %r: the provider's id was not kept yet: %s", self.job_id, error)
        else:
            self._is_kept = True


def _count(value: Any) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_COUNT
    return int(value) if is_count else 0


async def unbroken(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return the result of ``work``, which is given a moment more when the caller is cancelled.

    An answer that is on its way is worth the wait: without it nobody knows what was ordered. How long
    the work takes otherwise is its own business.
    """
    task = asyncio.create_task(work)
    # Nobody may be left to hear of its error.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=GRACE_S)
        task.cancel()
        await asyncio.wait({task}, timeout=_END_S)
        raise
    finally:
        task.cancel()
    return task.result()
