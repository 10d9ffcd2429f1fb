"""The histories of the page's queues: read for its screens, and kept going while it runs.

Once a minute the page samples each queue, unless a worker, or another page, did (``lua/note_history.lua``):
so a fleet of Node workers has its charts, too. A page that is read-only writes nothing, not even that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence

from beeq.client.closing import end_tasks
from beeq.client.history_note import HistoryNote
from beeq.errors import BeeqError, RedisError, RedisUnavailable, line_of
from beeq.operations.history.points import History
from beeq.operations.history.reading import read_history
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.urls import redact
from beeq.settings import parse_duration
from beeq.web.page import waits
from beeq.web.page.charts.panels import SPANS, Trend, trend
from beeq.web.page.store import QueueStore, in_time

logger = logging.getLogger("beeq.web")

_MINUTE_S = 60.0
#: After a failure the queues are sampled again so soon.
_AGAIN_S = 10.0
#: The first samples come so long after the page began.
_FIRST_S = 3.0
#: A sample comes so long after its minute began, by Redis's clock.
_AFTER_S = 0.5
#: Queues that are sampled at once, and whose last hours are read at once: that keeps the loop for 20 ms.
_AT_ONCE = 50
_READ_AT_ONCE = 10
#: Queues that are sampled at all.
_MOST_SAMPLED = 5_000
#: Last hours that are remembered, and after how long they are read again.
_MOST_TRENDS = 2000
_TREND_S = 20.0


class Histories:
    """The histories of one page; ``begin`` and ``close`` it in its loop."""

    def __init__(self, store: QueueStore, *, is_read_only: bool) -> None:
        self._store = store
        self.is_read_only = is_read_only
        self._notes: dict[tuple[str, str], HistoryNote] = {}
        self._trends: OrderedDict[tuple[str, str], tuple[float, Trend | None]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Sample from now on, unless the page writes nothing."""
        if self._task is None and not self.is_read_only:
            self._task = asyncio.create_task(self._sample_on(), name="beeq page history")

    @property
    def is_sampling(self) -> bool:
        """Whether it samples."""
        return self._task is not None

    async def close(self) -> None:
        """Stop."""
        await end_tasks(*(task for task in (self._task, self._reading) if task is not None))

    # Reading.

    async def of(self, prefix: str, name: str, span: str) -> History:
        """Return a queue's history of the last hour, day or week (``SPANS``). Raises RedisError."""
        home = await self._store.home(prefix)
        async with in_time():
            return await read_history(home.pipeline, Keys(prefix, name), last_ms=parse_duration(SPANS[span]))

    async def trends(self, queues: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Trend | None]:
        """Return the last hour of these queues (prefix, name), as far as they can be read in a moment."""
        now_s = time.monotonic()
        wanted = [each for each in queues if self._trends.get(each, (0.0, None))[0] < now_s]
        if wanted and self._reading is None:
            self._reading = asyncio.create_task(self._read_trends(wanted), name="beeq page trends")
            self._reading.add_done_callback(self._has_read)
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=waits.TRENDS_S)
        return {each: self._trends[each][1] for each in queues if each in self._trends}

    def _has_read(self, _task: asyncio.Task[None]) -> None:
        self._reading = None

    async def _read_trends(self, queues: Sequence[tuple[str, str]]) -> None:
        try:
            for start in range(0, len(queues), _READ_AT_ONCE):
                await asyncio.gather(
                    *(self._read_trend(*each) for each in queues[start : start + _READ_AT_ONCE])
                )
        except (TimeoutError, BeeqError) as error:
            logger.debug("histories are not all there: %s", redact(line_of(error)))

    async def _read_trend(self, prefix: str, name: str) -> None:
        try:
            found = trend(await self.of(prefix, name, "hour"))
        except RedisUnavailable:
            raise
        except RedisError:  # a key of another type, say
            found = None
        self._trends[prefix, name] = time.monotonic() + _TREND_S, found
        self._trends.move_to_end((prefix, name))
        while len(self._trends) > _MOST_TRENDS:
            self._trends.popitem(last=False)

    # Sampling.

    async def _sample_on(self) -> None:
        await asyncio.sleep(_FIRST_S)  # a visitor's first request starts the search for queue names
        while True:
            rest_s = _AGAIN_S
            try:
                rest_s = await self.sample()
            except (BeeqError, TimeoutError) as error:
                logger.debug("queues cannot be sampled: %s", redact(line_of(error)))
            except Exception:
                logger.exception("queues are not sampled for a moment")
            await asyncio.sleep(rest_s)

    async def sample(self) -> float:
        """Sample each queue that has no sample in this minute; return in how many s the next minute begins.

        Raises RedisError: Redis is away.
        """
        rest_s = _MINUTE_S
        known: dict[tuple[str, str], HistoryNote] = {}
        for prefix in self._store.prefixes:
            names, _ = await self._store.names(prefix)
            for name in names[: _MOST_SAMPLED - len(known)]:
                known[prefix, name] = self._notes.get((prefix, name)) or HistoryNote(Keys(prefix, name))
        self._notes = known
        queues = list(known)
        if not queues:
            return _AGAIN_S
        for start in range(0, len(queues), _AT_ONCE):
            async with in_time():
                rests = await asyncio.gather(
                    *(self._sample_one(*each) for each in queues[start : start + _AT_ONCE])
                )
            rest_s = min(rest_s, *rests)
        return max(rest_s, 0) + _AFTER_S

    async def _sample_one(self, prefix: str, name: str) -> float:
        note = self._notes[prefix, name]
        call = note.packed()
        if call is None:
            return _MINUTE_S
        home = await self._store.home(prefix)
        try:
            next_ms = await home.pipeline.run(scripts.note_history, call)
        except RedisError as error:
            note.failed(error)
            if isinstance(error, RedisUnavailable):
                raise
            return _MINUTE_S
        note.answered(next_ms)
        return float(next_ms) / 1000
