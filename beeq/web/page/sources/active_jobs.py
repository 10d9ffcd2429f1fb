"""Looks at active jobs: those of a list at once, and in the background for those that lost their worker.

One survey at a time looks at all queues that have active jobs, and serves all visitors.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from beeq.client.closing import end_tasks
from beeq.errors import BeeqError, RedisRefused, RedisUnavailable, line_of
from beeq.operations.explanation.active_jobs import ActiveLook, look_at_active
from beeq.protocol.keys import Keys
from beeq.redis.urls import redact
from beeq.settings import Settings
from beeq.web.page import waits
from beeq.web.page.addresses import has_address
from beeq.web.page.store import QueueCounts, QueueStore, in_time

logger = logging.getLogger("beeq.web")

#: How many of a queue's active jobs are read: those that were taken first.
MOST_A_QUEUE = 500
LONGEST_S = 10.0
_AT_ONCE = 20
#: How long a survey serves visitors, and for how many times its own duration.
_GOOD_FOR_S, _REST = 2.0, 9
#: While another one runs, the one before is shown, if it is at most so old.
_OLD_S = 30.0


@dataclass(frozen=True, slots=True)
class LostJobs:
    """Active jobs of one queue that have lost their worker.

    Attributes:
        count: how many, of those that were read.
        job_id: that of the one that was taken first. reason: why no worker runs it.
        needs_somebody: whether no worker lives whose stall check queues them again.
    """

    count: int
    job_id: str
    reason: str
    needs_somebody: bool


@dataclass(slots=True)
class LossSurvey:
    """The finds of one pass, by prefix and name; ``is_whole``: all queues could be read."""

    lost: dict[tuple[str, str], LostJobs] = field(default_factory=dict)
    is_whole: bool = True
    has_ended: bool = False
    good_until_s: float = 0.0
    ended_s: float = 0.0


class ActiveJobs:
    """The looks at active jobs of one page."""

    def __init__(self, store: QueueStore) -> None:
        self._store = store
        self._stall_interval_ms = Settings().stall_interval
        self._whole: LossSurvey | None = None  # the last one that ended
        self._survey: LossSurvey | None = None
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            await end_tasks(self._task)

    async def of(self, prefix: str, name: str, ids: Sequence[str]) -> ActiveLook | None:
        """Look at the jobs of a list; None if Redis refuses it, or takes too long.

        Raises RedisUnavailable.
        """
        raw_ids = [each.encode() for each in ids if has_address(each)]
        with suppress(TimeoutError, RedisRefused):
            async with asyncio.timeout(waits.ACTIVITY_S):
                return await self._look(prefix, name, raw_ids)
        return None

    async def _look(self, prefix: str, name: str, raw_ids: Sequence[bytes]) -> ActiveLook:
        home = await self._store.home(prefix)
        return await look_at_active(
            home.pipeline, Keys(prefix, name), raw_ids, stall_interval_ms=self._stall_interval_ms
        )

    async def survey(self, queues: Sequence[QueueCounts], *, wait_s: float) -> LossSurvey:
        """Return the jobs of these queues that lost their worker, as far as known after a short wait."""
        now_s = time.monotonic()
        if self._task is None and (self._survey is None or now_s > self._survey.good_until_s):
            self._survey = LossSurvey()
            self._task = asyncio.create_task(self._run(self._survey, queues))
            self._task.add_done_callback(self._ended)
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=wait_s)
        assert self._survey is not None  # noqa: S101 - it began above, or before
        is_old = self._whole is None or now_s - self._whole.ended_s > _OLD_S
        return self._survey if self._survey.has_ended or is_old or self._whole is None else self._whole

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._task = None

    async def _run(self, survey: LossSurvey, queues: Sequence[QueueCounts]) -> None:
        active = [each for each in queues if each.stats is not None and each.stats.active]
        begun_s = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_S):
                for start in range(0, len(active), _AT_ONCE):
                    some = active[start : start + _AT_ONCE]
                    await asyncio.gather(*(self._look_into(survey, each) for each in some))
        except TimeoutError:
            survey.is_whole = False
            logger.debug("active jobs were looked at for as long as is allowed")
        except BeeqError as error:
            survey.is_whole = False
            logger.warning("active jobs cannot be looked at: %s", redact(line_of(error)))
        except Exception:
            survey.is_whole = False
            logger.exception("active jobs cannot be looked at")
        finally:
            survey.has_ended, survey.ended_s = True, time.monotonic()
            took_s = survey.ended_s - begun_s
            survey.good_until_s = survey.ended_s + max(_GOOD_FOR_S, _REST * took_s)
            self._whole = survey

    async def _look_into(self, survey: LossSurvey, counts: QueueCounts) -> None:
        keys = Keys(counts.prefix, counts.name)
        home = await self._store.home(counts.prefix)
        try:
            async with in_time():
                raw_ids = await home.pipeline.call("LRANGE", keys.active, -MOST_A_QUEUE, -1, repeatable=True)
                look = await self._look(counts.prefix, counts.name, raw_ids[::-1])
        except RedisUnavailable:
            raise
        except BeeqError as error:
            survey.is_whole = False
            logger.debug("active jobs cannot be looked at: %s", redact(line_of(error)))
            return
        losses = [(job_id, seen.loss.text) for job_id, seen in look.jobs.items() if seen.loss is not None]
        if losses:
            job_id, text = losses[0]
            survey.lost[counts.prefix, counts.name] = LostJobs(
                len(losses), job_id, text, needs_somebody=not look.has_checkers
            )
