"""A job's requests to the provider, kept with the job, so that nothing is paid for twice.

In the job's memory ``video`` is the provider's id of a video that is being made, and ``orders`` counts the
requests whose result could not be used.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from beeq.ai.film.states import is_video_id
from beeq.errors import RedisError, line_of
from beeq.media.paths import safe_name

logger = logging.getLogger(__name__)

#: How long a cancelled attempt waits for a request under way: less than its worker waits for the attempt.
GRACE_S = 0.8
#: How long a cancelled request may take to end.
_END_S = 1.0
_REMEMBER_S = 60.0
#: A larger count in the memory was not written here.
_MAX_COUNT = 1_000_000
_Result = TypeVar("_Result")


class ProviderRequests:
    """The requests of one job, in one of its attempts.

    ``memory`` is what this attempt and earlier ones have remembered; ``remember`` keeps facts with the job.
    """

    def __init__(
        self, job_id: str, memory: Mapping[str, Any], remember: Callable[..., Awaitable[None]]
    ) -> None:
        self.job_id = job_id
        self._remember = remember
        video = memory.get("video")
        #: The provider's id of the video that this attempt or an earlier one has requested.
        self.video: str | None = video if is_video_id(video) else None
        self._discarded = _count(memory.get("orders"))
        self._is_remembered = True

    @property
    def idempotency_key(self) -> str:
        """The key of the next request: the same until ``discard``, in every attempt. ASCII."""
        # "~" and a number: no other job's name ends so.
        return f"beeq-{safe_name(self.job_id)}" + (f"~{self._discarded}" if self._discarded else "")

    async def remember_video(self, video: str) -> None:
        """Keep the id of a video that was just requested; call it ``shielded``, with the request."""
        self.video = video
        await self._keep()

    async def discard(self) -> None:
        """Forget the video, and take another idempotency key: the last result could not be used."""
        self.video = None
        self._discarded += 1
        await shielded(self._keep())

    async def retry_remembering(self) -> None:
        """Keep the facts that could not be kept before."""
        if not self._is_remembered:
            await self._keep()

    async def _keep(self) -> None:
        facts: dict[str, Any] = {"video": self.video}
        if self._discarded:
            facts["orders"] = self._discarded
        try:
            async with asyncio.timeout(_REMEMBER_S):
                await self._remember(**facts)
        except (RedisError, TimeoutError) as error:
            # The work goes on: the attempt's outcome will carry the memory to Redis too.
            self._is_remembered = False
            logger.warning("job %.200r: the provider's id was not kept yet: %s", self.job_id, line_of(error))
        else:
            self._is_remembered = True


def _count(value: Any) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_COUNT
    return int(value) if is_count else 0


async def shielded(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return the result of ``work``, which gets ``GRACE_S`` to finish when the caller is cancelled.

    Without the response, it would be unknown what was requested.
    """
    task = asyncio.create_task(work)
    # Fetch its error, which asyncio would log otherwise if the caller is gone.
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
