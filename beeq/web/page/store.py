"""The page's reads of Redis: names of queues, their counts, and open queues, a bounded number at once.

One connection a prefix serves names and counts of all its queues; a queue that is opened has one of its own
until others displace it. Nothing here writes; ``charts`` samples the histories.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from beeq.client.closing import end_tasks
from beeq.client.reader import JobState, Reader, Stats
from beeq.errors import (
    BeeqError,
    JobUnreadable,
    QueueClosed,
    RedisError,
    RedisRefused,
    RedisUnavailable,
    line_of,
)
from beeq.jobs import JOB_TYPES
from beeq.operations.live_workers import Activity, OtherJobs, look_at
from beeq.operations.pauses import read_pause
from beeq.operations.queue_names import find_queue_names, queues_with, registered_names
from beeq.protocol.keys import Keys, registry_key
from beeq.protocol.pauses import Pause
from beeq.queue import Queue
from beeq.redis import scripts
from beeq.redis.urls import redact
from beeq.web.bounds import HeldBytes
from beeq.web.page import waits
from beeq.web.page.searches import Search

logger = logging.getLogger("beeq.web")

#: The longest wait for Redis, all attempts together.
TIMEOUT_S = 10.0
#: Records and results that are shown, in bytes, and records that are listed and searched. Longer ones may
#: become fifty times as large in memory.
LONGEST_SHOWN, LONGEST_LISTED = 2_000_000, 1_000_000
#: The largest record that is parsed for a retry or a duplicate, in bytes: parsing blocks the loop.
LONGEST_PARSED = 8 << 20
#: Records and results that can be saved as a file, in bytes; and all of those that are under way.
LONGEST_SAVED, _MOST_SAVED = 32 << 20, 64 << 20
#: Queues that are open at once.
_MOST_OPEN = 12
#: Names are looked for again after this long, or longer if it takes long.
_NAMES_FOR_S = 10.0
#: Queues that are counted, at once and in all.
_COUNTED_AT_ONCE, MOST_COUNTED = 100, 5_000
#: How long counts are reused, and for how many times the duration of the counting.
_COUNTS_FOR_S, _REST = 1.0, 9
#: How often a visitor's first request checks whether the first queues are counted.
_LOOK_S = 0.02
#: While they are counted again, the counts before are shown, if they are no older.
_OLD_COUNTS_S = 20.0
#: How long a queue's activity is reused.
_ACTIVITY_FOR_S = 2.0


@asynccontextmanager
async def in_time(timeout_s: float = TIMEOUT_S) -> AsyncIterator[None]:
    """Raise RedisUnavailable if the block takes longer."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise RedisUnavailable("it does not answer") from None


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """A queue, and its counts of one moment.

    Attributes:
        stats: None if Redis refused them.
        problem: why.
        pause: if the queue is paused.
    """

    prefix: str
    name: str
    stats: Stats | None
    problem: str = ""
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """All queues at one moment.

    Attributes:
        queues: those that were counted: of very many, the ones that beeq has used last, up to a bound.
        is_complete: whether all of Redis's keys were looked at for names.
        known: how many queues there are.
        is_counting: whether more of them are about to be found, or counted.
        took_s: how long the counting took.
        began_s: when it began, by this process's own clock: nothing here is older.
    """

    queues: list[QueueCounts]
    is_complete: bool
    known: int = 0
    is_counting: bool = False
    took_s: float = 0.0
    began_s: float = 0.0


@dataclass(slots=True)
class _Names:
    """Names of one prefix, as far as they are known."""

    found: list[str] = field(default_factory=list)
    is_complete: bool = False
    stale_at_s: float = 0.0
    search: asyncio.Task[None] | None = None
    have_been_found: bool = False


@dataclass(slots=True)
class _OpenQueue:
    queue: Queue
    users: int = 0


def _looking(name: str, redis: Any, prefix: str) -> Queue:
    """Return a queue that hears no events, loads no scripts ahead and raises no delayed jobs."""
    return Queue(
        name,
        redis=redis,
        prefix=prefix,
        is_worker=False,
        get_events=False,
        store_jobs=False,
        ensure_scripts=False,
        activate_delayed_jobs=False,
    )


class QueueStore:
    """The queues of one Redis, under one or several prefixes."""

    def __init__(self, redis: Any, prefixes: Sequence[str]) -> None:
        self.prefixes = tuple(prefixes)
        self._redis = redis
        first = next(iter(JOB_TYPES))
        self._homes = {prefix: _looking(first, redis, prefix) for prefix in prefixes}
        self._names = {prefix: _Names() for prefix in prefixes}
        self._open: OrderedDict[tuple[str, str], _OpenQueue] = OrderedDict()
        self._counts: Overview | None = None
        self._good_until_s = 0.0
        self._counted: list[QueueCounts] = []  # by the task that counts
        self._known = 0
        self._began_s = 0.0
        self._activities: dict[tuple[str, str], tuple[asyncio.Task[Activity], float]] = {}
        self._counting: asyncio.Task[Overview] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        #: The bytes of files that are being saved.
        self.held_bytes = HeldBytes(_MOST_SAVED)

    async def close(self) -> None:
        """Hang up."""
        await end_tasks(*self._tasks)
        queues = [*self._homes.values(), *(each.queue for each in self._open.values())]
        await asyncio.gather(*(queue.close() for queue in queues), return_exceptions=True)

    async def home(self, prefix: str) -> Queue:
        """Return the queue whose connection serves the whole prefix."""
        return await self._homes[prefix].ready()

    # Which queues there are.

    async def names(self, prefix: str) -> tuple[list[str], bool]:
        """Return the names of a prefix's queues as far as they are known, and whether those are all."""
        names = self._names[prefix]
        if names.search is None and time.monotonic() >= names.stale_at_s:
            await self.home(prefix)
        if names.search is None and time.monotonic() >= names.stale_at_s:  # none has begun meanwhile
            names.search = asyncio.create_task(self._search(prefix, names))
            self._tasks.add(names.search)
            names.search.add_done_callback(self._tasks.discard)
        if names.search is not None:
            await asyncio.wait({names.search}, timeout=waits.NAMES_S)
        return names.found, names.is_complete

    async def _search(self, prefix: str, names: _Names) -> None:
        began_s = time.monotonic()
        try:
            home = await self.home(prefix)
            async with in_time():
                used = await registered_names(home.pipeline, registry_key(prefix))
                names.found = names.found or used
                found, names.is_complete = await find_queue_names(home.pipeline, prefix)
            names.found = list(dict.fromkeys([*used, *found]))
            names.have_been_found = True
        except BeeqError as error:
            logger.warning("queues cannot be looked for: %s", redact(line_of(error)))
        finally:
            ended_s = time.monotonic()
            names.stale_at_s = ended_s + max(_NAMES_FOR_S, _REST * (ended_s - began_s))
            names.search = None

    async def overview(self, *, is_whole: bool = False) -> Overview:
        """Return every queue with its counts, which may be a second old, or older where queues are very many.

        Before all queues were counted once, it returns those that are, unless ``is_whole``.
        """
        counts = self._counts
        if counts is not None and time.monotonic() <= self._good_until_s:
            return counts
        counting = self._counting
        if counting is None:
            self._counted = []
            counting = self._counting = asyncio.create_task(self._count())
            self._tasks.add(counting)
            counting.add_done_callback(self._has_counted)
        # Concurrent callers share the answer, or the error: with a silent Redis none waits for the others.
        await asyncio.wait({counting}, timeout=None if is_whole else waits.COUNTS_S)
        if not counting.done():
            old = self._counts
            is_good = old is not None and time.monotonic() - self._good_until_s <= _OLD_COUNTS_S
            if old is not None and is_good and not old.is_counting:
                return old
            while not counting.done() and not self._counted:
                await asyncio.wait({counting}, timeout=_LOOK_S)
            if not counting.done() and counting is self._counting:
                return Overview(
                    list(self._counted),
                    is_complete=False,
                    known=self._known,
                    is_counting=True,
                    began_s=self._began_s,
                )
            await asyncio.wait({counting})
        if counting.cancelled():
            raise QueueClosed
        return counting.result()

    def _has_counted(self, counting: asyncio.Task[Overview]) -> None:
        self._tasks.discard(counting)
        if self._counting is not counting:
            return  # the counts have changed since it began
        self._counting = self._counts = None
        if not counting.cancelled() and counting.exception() is None:
            self._counts = counting.result()
            self._good_until_s = time.monotonic() + max(_COUNTS_FOR_S, _REST * self._counts.took_s)

    def forget_counts(self) -> None:
        """Count again at the next look: jobs were changed."""
        self._counts = self._counting = None

    async def _count(self) -> Overview:
        """Count the queues, first those that beeq has used last, up to a bound."""
        began_s = self._began_s = time.monotonic()
        queues: list[QueueCounts] = []
        self._counted = queues
        are_all, wanted = True, list[tuple[str, str]]()
        for prefix in self.prefixes:
            async with in_time():
                names, is_complete = await self.names(prefix)
            are_all = are_all and is_complete
            wanted += [(prefix, name) for name in names]
        self._known = len(wanted)
        for start in range(0, min(len(wanted), MOST_COUNTED), _COUNTED_AT_ONCE):
            some = wanted[start : min(start + _COUNTED_AT_ONCE, MOST_COUNTED)]
            async with in_time():
                queues += await asyncio.gather(*(self._count_one(*each) for each in some))
        is_searching = any(
            names.search is not None and not names.have_been_found for names in self._names.values()
        )
        took_s = time.monotonic() - began_s
        return Overview(
            queues, are_all, len(wanted), is_counting=is_searching, took_s=took_s, began_s=began_s
        )

    async def _count_one(self, prefix: str, name: str) -> QueueCounts:
        try:
            stats, pause = await asyncio.gather(self.stats(prefix, name), self.pause(prefix, name))
            return QueueCounts(prefix, name, stats, pause=pause)
        except RedisUnavailable:
            raise
        except RedisError as error:
            return QueueCounts(prefix, name, None, redact(line_of(error)))

    async def stats(self, prefix: str, name: str) -> Stats:
        """Return a queue's counts of this moment."""
        home = await self.home(prefix)
        return await Reader(home.pipeline, Keys(prefix, name), scan_count=100).stats()

    async def pause(self, prefix: str, name: str) -> Pause | None:
        """Return a queue's pause, if it is paused."""
        home = await self.home(prefix)
        return await read_pause(home.pipeline, Keys(prefix, name))

    async def activities(self, queues: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Activity]:
        """Return queues' activities, by prefix and name, as far as known after a short wait.

        They are read once for all callers, and may be a second old. A queue that Redis refuses to show has an
        empty activity. Raises RedisUnavailable.
        """
        tasks = {key: self._activity_task(key) for key in queues}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=waits.ACTIVITY_S)
        return {key: task.result() for key, task in tasks.items() if task.done() and not task.cancelled()}

    def _activity_task(self, key: tuple[str, str]) -> asyncio.Task[Activity]:
        now_s = time.monotonic()
        for old in [each for each, (_, until_s) in self._activities.items() if now_s > until_s]:
            if self._activities[old][0].done():
                del self._activities[old]
        if key not in self._activities:
            task = asyncio.create_task(self._look_at(*key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._activities[key] = task, now_s + _ACTIVITY_FOR_S
        return self._activities[key][0]

    async def _look_at(self, prefix: str, name: str) -> Activity:
        try:
            async with in_time():
                home = await self.home(prefix)
                return await look_at(home.pipeline, Keys(prefix, name))
        except RedisRefused:
            return Activity((), OtherJobs())

    async def job_state(self, prefix: str, name: str, job_id: str) -> JobState | None:
        """Return a job's state, without a long record; None if Redis has nothing of it that can be read."""
        home = await self.home(prefix)
        try:
            return await Reader(home.pipeline, Keys(prefix, name)).job_state(job_id, max_bytes=LONGEST_SHOWN)
        except JobUnreadable:
            return None

    async def raw_record(self, prefix: str, name: str, job_id: str) -> bytes | None:
        """Return a job's record as Redis has it."""
        home = await self.home(prefix)
        return await Reader(home.pipeline, Keys(prefix, name)).record(job_id)

    async def raw_result(self, prefix: str, name: str, job_id: str) -> bytes | None:
        """Return the JSON of a job's result, or of its error, as Redis has it."""
        home = await self.home(prefix)
        _, kept, *_ = await scripts.read_outcome(
            home.pipeline, Keys(prefix, name), job_id=job_id, longest=LONGEST_SAVED, with_record=""
        )
        return None if kept is None else kept.partition(b":")[2][1:]

    async def find_queues_having(self, prefix: str, job_id: str, search: Search) -> None:
        """Add the queues that have a job of that id, or know how it ended, to the homes of a search."""
        names, is_complete = await self.names(prefix)
        wanted = list(dict.fromkeys([*JOB_TYPES, *names]))
        search.queues += len(wanted)
        search.is_whole = search.is_whole and is_complete
        home = await self.home(prefix)
        for start in range(0, len(wanted), _COUNTED_AT_ONCE):
            some = wanted[start : start + _COUNTED_AT_ONCE]
            found = await queues_with(home.pipeline, prefix, some, job_id, is_gone_too=True)
            search.homes += [(prefix, name) for name in found]
            search.asked += len(some)

    # Open queues.

    @asynccontextmanager
    async def queue(self, prefix: str, name: str) -> AsyncIterator[Queue]:
        """Lend the queue, open, for the time of the block."""
        key = (prefix, name)
        if key not in self._open:
            self._open[key] = _OpenQueue(_looking(name, self._redis, prefix))
        held = self._open[key]
        self._open.move_to_end(key)
        held.users += 1
        try:
            self._close_some()
            async with in_time():
                await held.queue.ready()
            yield held.queue
        finally:
            held.users -= 1

    def _close_some(self) -> None:
        """Close the least recently used queues, if there are too many."""
        unused = [key for key, each in self._open.items() if not each.users]
        for key in unused[: max(0, len(self._open) - _MOST_OPEN)]:
            task = asyncio.create_task(_close(self._open.pop(key).queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _close(queue: Queue) -> None:
    try:
        await queue.close()
    except (BeeqError, TimeoutError) as error:
        logger.debug("a queue closed late: %s", redact(line_of(error)))
