"""Live numbers for open pages: one poller for all of them, which runs while any page listens.

A listener gets changed numbers as server-sent events. Only data that the screens show are sent, and nothing
moves on a screen: the script updates counts, and offers to show the rest.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from beeq.client.closing import end_tasks
from beeq.client.reader import Reader
from beeq.errors import BeeqError, JobUnreadable, RedisRefused, line_of
from beeq.protocol.codec import dumps
from beeq.protocol.keys import Keys
from beeq.redis.urls import redact
from beeq.web.page.addresses import segment
from beeq.web.page.failures import FailureSurvey
from beeq.web.page.severity import worst_first
from beeq.web.page.store import Overview, QueueCounts, QueueStore, in_time
from beeq.web.responses import Refusal

logger = logging.getLogger("beeq.web")

_EVERY_S = 2.0
#: The longest silence: so proxies keep the connection, and a lost one is noticed.
_LONGEST_SILENCE_S = 15.0
#: A browser comes back by itself; its session is looked at again then.
_LONGEST_STREAM_S = 600.0
MOST_LISTENERS = 200
#: Jobs that are looked at in each turn.
_MOST_JOBS = 50
#: Progress of a longer record is not sent: the record would be read in every turn.
_LONGEST_RECORD = 50_000
#: How many queues' numbers the overview gets: the worst ones.
_MOST_QUEUES = 300
_COUNTS = ("waiting", "active", "delayed", "failed", "succeeded", "workers")


@dataclass(frozen=True, slots=True)
class Topic:
    """The subject of an open page: all queues, one of them, or one job of it."""

    prefix: str = ""
    queue_name: str = ""
    job_id: str = ""


class Live:
    """The poller of one page, and its listeners."""

    def __init__(
        self,
        store: QueueStore,
        *,
        most_listeners: int = MOST_LISTENERS,
        survey: Callable[[], FailureSurvey | None] = lambda: None,
    ) -> None:
        self._store = store
        self._survey = survey
        self._most_listeners = most_listeners
        self._topics: Counter[Topic] = Counter()
        self._counts: dict[tuple[str, str], dict[str, Any]] = {}  # by prefix and name, the worst first
        self._overview: Overview | None = None
        self._of_all = b""  # the message about all queues, as far as they fit
        self._jobs: dict[Topic, tuple[str, Any]] = {}
        self._is_away = False
        self._turn = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    def end_streams(self) -> None:
        """End every stream: the server is about to stop."""
        self._is_over = True
        self._turn.set()

    async def close(self) -> None:
        """Stop looking."""
        self.end_streams()
        if self._task is not None:
            await end_tasks(self._task)

    @property
    def _is_full(self) -> bool:
        return self._topics.total() >= self._most_listeners

    def check_room(self) -> None:
        """Raise Refusal if too many listen already."""
        if self._is_full:
            raise Refusal(503, "Too many pages are open", headers={"retry-after": "30"})

    async def events(self, topic: Topic, *, shown: Callable[[Any], str]) -> AsyncGenerator[bytes]:
        """Yield events until the time of one stream is over; ``shown`` makes text of progress."""
        if self._is_full:
            return  # others have taken the room meanwhile
        self._topics[topic] += 1
        if self._task is None or self._task.done():
            # The last readings may be hours old.
            self._overview, self._counts, self._jobs, self._is_away = None, {}, {}, False
            self._task = asyncio.create_task(self._look_on())
            self._task.add_done_callback(self._ended)
        loop = asyncio.get_running_loop()
        ends_s, last, since_s = loop.time() + _LONGEST_STREAM_S, b"", time.monotonic()
        try:
            yield b"retry: 5000\n\n"
            while not self._is_over and loop.time() < ends_s:
                turn = self._turn
                message = self._message(topic, since_s, shown=shown)
                if message not in (last, b""):
                    last = message
                    yield b"data: %b\n\n" % message
                try:
                    async with asyncio.timeout(_LONGEST_SILENCE_S):
                        await turn.wait()
                        while not self._is_over and self._message(topic, since_s, shown=shown) == last:
                            turn = self._turn
                            await turn.wait()
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._topics[topic] -= 1
            self._topics += Counter()  # drops topics without listeners

    def _message(self, topic: Topic, since_s: float, *, shown: Callable[[Any], str]) -> bytes:
        """Return the message; b"" as long as nothing was read since ``since_s``.

        The listening screen was made then: an earlier reading may be older than what it shows.
        """
        if self._is_away:
            return dumps({"away": True})
        if not self._counts or self._overview is None or self._overview.began_s < since_s:
            return b""
        if not topic.queue_name:
            return self._of_all
        counts = self._counts.get((topic.prefix, topic.queue_name))
        message: dict[str, Any] = {"queues": [] if counts is None else [counts]}
        if topic in self._jobs:
            state, progress = self._jobs[topic]
            message["job"] = {"state": state, "progress": shown(progress) if progress else ""}
        return dumps(message)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._task is task:  # else a listener has started another one meanwhile
            self._task = None

    async def _look_on(self) -> None:
        while self._topics and not self._is_over:
            try:
                async with in_time():
                    overview = await self._store.overview()
                    jobs = await self._look_at_jobs()
                self._note(overview)
                self._jobs = jobs
                self._is_away = False
            except BeeqError as error:
                if not self._is_away:
                    logger.warning("live numbers stop: %s", redact(line_of(error)))
                self._is_away = True
            except Exception:
                logger.exception("live numbers stop for a moment")
                self._is_away = True
            turn, self._turn = self._turn, asyncio.Event()
            turn.set()
            await asyncio.sleep(_EVERY_S)

    def _note(self, overview: Overview) -> None:
        if overview is self._overview:
            return
        self._overview = overview
        queues = worst_first(overview.queues, self._survey())
        self._counts = {(each.prefix, each.name): _counts_of(each) for _, each in queues if each.stats}
        some = list(islice(self._counts.values(), _MOST_QUEUES))
        self._of_all = dumps({"queues": some, "known": overview.known})

    async def _look_at_jobs(self) -> dict[Topic, tuple[str, Any]]:
        topics = [topic for topic in self._topics if topic.job_id][:_MOST_JOBS]
        found = await asyncio.gather(*(self._look_at_job(topic) for topic in topics))
        return {topic: job for topic, job in zip(topics, found, strict=True) if job is not None}

    async def _look_at_job(self, topic: Topic) -> tuple[str, Any] | None:
        home = await self._store.home(topic.prefix)
        try:
            reader = Reader(home.pipeline, Keys(topic.prefix, topic.queue_name))
            state = await reader.job_state(topic.job_id, max_bytes=_LONGEST_RECORD)
        except (RedisRefused, JobUnreadable):
            return None  # only this job's page gets no numbers
        if state is None:
            return "gone", None
        return state.state, None if state.record is None else state.record.progress


def _counts_of(counts: QueueCounts) -> dict[str, Any]:
    return {
        "prefix": counts.prefix,
        "name": counts.name,
        "segment": segment(counts.name),
        "isPaused": counts.pause is not None,
        **{name: getattr(counts.stats, name) for name in _COUNTS},
    }
