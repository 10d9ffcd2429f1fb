"""Groups the errors of failed jobs: read in the background in bounded steps, shared by all visitors."""

import asyncio
import heapq
import logging
import time
from dataclasses import dataclass, field

from beeq.client.closing import end_tasks
from beeq.errors import BeeqError, RedisUnavailable, line_of
from beeq.operations.error_kinds import kind_of_error, line_of_error
from beeq.protocol.history import HOUR_MS
from beeq.redis.urls import redact
from beeq.web.page.store import LONGEST_LISTED, QueueCounts, QueueStore

logger = logging.getLogger("beeq.web")

#: The most failed jobs read of a queue, and of all queues together; the longest time.
MOST_A_QUEUE = 5_000
MOST_JOBS = 50_000
LONGEST_S = 20.0
_A_PAGE = 200
#: The most groups of a queue: errors whose texts all differ do not form groups.
_MOST_GROUPS = 200
_OTHERS = "(other errors)"
_GOOD_FOR_S = 30.0
RECENT_MS = 600_000
#: For how many hours each group counts its failures.
HOURS = 24


@dataclass(slots=True)
class FailureGroup:
    """Failed jobs of one queue whose newest errors are of one kind.

    Attributes:
        kind: as ``error_kinds`` makes it; "" of jobs without an error.
        example_error: the error of ``example_id``, in one line with its numbers.
        example_id: one of the jobs.
        first_ms, last_ms: when the first and the last of them failed, or else was created; 0: unknown.
        recent: how many failed in the last ten minutes.
        by_hour: how many failed in each of the last 24 hours, the newest last, as far as that was noted.
    """

    prefix: str
    queue_name: str
    kind: str
    count: int = 0
    example_id: str = ""
    example_error: str = ""
    first_ms: int = 0
    last_ms: int = 0
    recent: int = 0
    by_hour: list[int] = field(default_factory=lambda: [0] * HOURS)

    @property
    def is_kind(self) -> bool:
        """Whether the jobs can be found by it."""
        return bool(self.kind) and self.kind != _OTHERS

    @property
    def text(self) -> str:
        """The errors' text: with the numbers of a single job, with # in place of numbers for several."""
        return self.example_error if self.count == 1 and self.is_kind else self.kind

    def add(self, job_id: str, at_ms: int, now_ms: int, *, failed_ms: int | None, error: str = "") -> None:
        """Count one job; ``failed_ms`` is when it failed, if that was noted."""
        self.count += 1
        if self.count == 1:
            self.example_id, self.example_error = job_id, line_of_error(error)
        if at_ms:
            self.first_ms = min(self.first_ms or at_ms, at_ms)
            self.last_ms = max(self.last_ms, at_ms)
            self.recent += now_ms - at_ms <= RECENT_MS
        hours_ago = (now_ms - failed_ms) // HOUR_MS if failed_ms else HOURS
        if 0 <= hours_ago < HOURS:
            self.by_hour[HOURS - 1 - hours_ago] += 1


@dataclass(slots=True)
class FailureSurvey:
    """What one pass has found.

    Attributes:
        groups: by prefix, queue and kind; ``by_queue`` the same by the first two.
        looked_at: how many jobs were read. failed: how many there were.
        has_ended: whether the pass is over.
    """

    groups: dict[tuple[str, str, str], FailureGroup] = field(default_factory=dict)
    by_queue: dict[tuple[str, str], list[FailureGroup]] = field(default_factory=dict)
    looked_at: int = 0
    failed: int = 0
    has_ended: bool = False
    begun_s: float = field(default_factory=time.monotonic)
    problem: str = ""

    def first_groups(self, count: int) -> list[FailureGroup]:
        """Return so many groups: what has failed lately first, then the largest."""
        return heapq.nsmallest(count, self.groups.values(), key=_order)

    def recent_of(self, prefix: str, queue_name: str) -> int:
        """Return how many jobs of a queue have failed in the last ten minutes."""
        return sum(group.recent for group in self.by_queue.get((prefix, queue_name), ()))

    def of(self, prefix: str, queue_name: str) -> list[FailureGroup]:
        """Return the groups of one queue, likewise."""
        return sorted(self.by_queue.get((prefix, queue_name), []), key=_order)

    def add(self, group: FailureGroup) -> None:
        """Take a new group in."""
        self.groups[group.prefix, group.queue_name, group.kind] = group
        self.by_queue.setdefault((group.prefix, group.queue_name), []).append(group)


def _order(group: FailureGroup) -> tuple[int, int, int]:
    return -group.recent, -group.count, -group.last_ms


class Failures:
    """The newest survey; a new one begins at a look after it has become old."""

    def __init__(self, store: QueueStore) -> None:
        self._store = store
        self._whole: FailureSurvey | None = None  # the last one that ended
        self._survey: FailureSurvey | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def known(self) -> FailureSurvey | None:
        """What is known, without looking."""
        return self._whole or self._survey

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            await end_tasks(self._task)

    async def look(self, *, wait_s: float) -> FailureSurvey:
        """Return what is known after a short wait: the last whole survey, or what the first has so far."""
        is_old = self._survey is None or time.monotonic() - self._survey.begun_s > _GOOD_FOR_S
        if is_old and self._task is None:
            overview = await self._store.overview()
            if self._task is None:
                self._survey = FailureSurvey()
                self._task = asyncio.create_task(self._read(self._survey, overview.queues))
                self._task.add_done_callback(self._ended)
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=wait_s)
        assert self._survey is not None  # noqa: S101 - it began above, or before
        return self._survey if self._survey.has_ended or self._whole is None else self._whole

    def forget(self) -> None:
        """Begin again at the next look: failed jobs were changed."""
        self._store.forget_counts()
        if self._task is None:
            self._survey = self._whole = None

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._task = None

    async def _read(self, survey: FailureSurvey, queues: list[QueueCounts]) -> None:
        failing = [each for each in queues if each.stats is not None and each.stats.failed]
        survey.failed = sum(each.stats.failed for each in failing if each.stats is not None)
        try:
            async with asyncio.timeout(LONGEST_S):
                for each in failing:
                    if survey.looked_at < MOST_JOBS:
                        await self._read_queue(survey, each)
        except TimeoutError:
            logger.debug("failed jobs were looked at for as long as is allowed")
        except BeeqError as error:
            survey.problem = redact(line_of(error))
        finally:
            survey.failed = max(survey.failed, survey.looked_at)  # more may fail while it reads
            survey.has_ended = True
            self._whole = survey

    async def _read_queue(self, survey: FailureSurvey, counts: QueueCounts) -> None:
        at, read = "", 0
        now_ms = round(time.time() * 1000)
        while read < MOST_A_QUEUE:
            try:
                async with self._store.queue(counts.prefix, counts.name) as queue:
                    page = await queue.page_of_jobs("failed", at=at, count=_A_PAGE, max_bytes=LONGEST_LISTED)
            except RedisUnavailable:
                raise
            except BeeqError as error:
                survey.problem = f"{counts.name}: {redact(line_of(error))}"
                return
            for found in page.jobs:
                at_ms = found.failed_ms or found.created_ms
                group_of(survey, counts, found.error).add(
                    found.job.id or "", at_ms, now_ms, failed_ms=found.failed_ms, error=found.error
                )
            read += len(page.jobs)
            survey.looked_at += len(page.jobs)
            if page.next_at is None:
                return
            at = page.next_at


def group_of(survey: FailureSurvey, counts: QueueCounts, error: str) -> FailureGroup:
    """Return the group of an error; new ones of a queue only up to a bound."""
    kind = kind_of_error(error)
    known = survey.by_queue.get((counts.prefix, counts.name), [])
    if (counts.prefix, counts.name, kind) not in survey.groups and len(known) >= _MOST_GROUPS:
        kind = _OTHERS
    key = (counts.prefix, counts.name, kind)
    if key not in survey.groups:
        survey.add(FailureGroup(*key))
    return survey.groups[key]
