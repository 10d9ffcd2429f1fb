"""The mirror of the four built-in queues, as one thing to start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

from beeq.client.closing import within
from beeq.client.events.own_events import OwnEvents
from beeq.errors import RedisError
from beeq.jobs import JOB_TYPES
from beeq.mirror.collection import MirrorUnavailable, StatusCollection
from beeq.mirror.documents import revision_of
from beeq.mirror.heard_results import HeardResults, succeeded_id
from beeq.mirror.outbox import Outbox
from beeq.mirror.reconciler import Difference, Reconciler
from beeq.mirror.writer import MirrorWriter
from beeq.process import process_name
from beeq.protocol.keys import Keys
from beeq.redis.connector import Connector
from beeq.redis.pubsub import Subscriber
from beeq.settings import Settings
from beeq.supervision.duties import Duties
from beeq.supervision.duty import Duty, DutyHealth

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

#: Between two looks at the lag.
_FLUSH_POLL_S = 0.05
#: Time limits of the parts of a stop: MongoDB's current call, the tasks, the connections.
_IDLE_S = 1.0
_END_S = 0.5
_CLOSE_S = 0.5

#: A failure that did not occur for so long is logged again; so many are remembered.
_FORGOTTEN_S = 60.0
_MAX_FAILURES = 50

#: The writer and the reconciler may be silent for so long: a write of many jobs may take half of it.
MOST_SILENCE_S = 60.0


async def _always() -> bool:
    """Each call to Redis and MongoDB has a bound that is shorter than ``MOST_SILENCE_S``."""
    return True


class Mirror:
    """Copies changes of jobs in Redis to MongoDB, from ``start`` until ``stop``.

    ``redis`` and ``prefix`` are as for ``Queue``. With ``is_alone`` no jobs run in this process, so the
    writer need not leave them time. ``project_id_type`` is that of ``beeq.mirror.project_ids``. Raises
    ValueError if a URL (the message does not repeat it) or the type is invalid, and ImportError if PyMongo
    is missing.
    """

    def __init__(
        self,
        mongo_url: str,
        *,
        redis: str | Redis | None = None,
        prefix: str = "bq",
        is_alone: bool = False,
        project_id_type: str = "auto",
    ) -> None:
        self.collection = StatusCollection(mongo_url, id_type=project_id_type)
        settings = Settings(prefix=prefix)
        keys = {name: Keys(settings.prefix, name) for name in JOB_TYPES}
        slot_key = next(iter(keys.values())).id
        connector = Connector(redis, timeout_ms=settings.redis_timeout, slot_key=slot_key)
        self._outbox = Outbox(connector, keys, timeout_ms=settings.redis_timeout, consumer=process_name())
        self._heard = HeardResults({keys.events: name for name, keys in keys.items()})
        self.writer = MirrorWriter(
            self._outbox, self.collection, heard=self._heard, on_error=self._failed, is_alone=is_alone
        )
        self.reconciler = Reconciler(self._outbox, self.collection, on_error=self._failed)
        self._own_events = {keys.events: self._own_events_of(keys) for keys in keys.values()}
        self._steps: set[asyncio.Task[None]] = set()
        self._connector = connector
        self._timeout_ms = settings.redis_timeout
        self._duties: Duties | None = None  # while it runs
        self._subscriber: Subscriber | None = None  # likewise
        self._met_at: OrderedDict[str, float] = OrderedDict()  # by a failure's text, the latest at the end

    def _own_events_of(self, keys: Keys) -> OwnEvents:
        """Return a filter for events of the queue's own database: the mirror covers one database."""
        return OwnEvents(
            self._outbox.pipeline,
            keys,
            deliver=lambda message: self._heard.hear(keys.events, message, time.monotonic()),
            is_known=lambda _job_id: False,
            has_ended=lambda _job_id: False,
            spawn=self._spawn,
            on_lost=lambda: None,
            report_error=self._failed,
        )

    def _spawn(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(step, name="beeq mirror's step")
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)

    def _hear(self, channel: str, message: bytes) -> None:
        if succeeded_id(message) is not None:
            self._own_events[channel].hear(message)

    def _subscribed(self, channel: str) -> None:
        self._own_events[channel].doubt()

    def _failed(self, error: BaseException) -> None:
        """Log a failure: each text once in an outage, from any part, however often."""
        text, now = f"{type(error).__name__}: {error}", time.monotonic()
        if now - self._met_at.pop(text, -math.inf) > _FORGOTTEN_S:
            logger.warning("the mirror waits: %s", text)
            if isinstance(error, MirrorUnavailable):
                self._spawn(self._note_failure(str(error)))
        self._met_at[text] = now
        if len(self._met_at) > _MAX_FAILURES:
            self._met_at.popitem(last=False)

    async def _note_failure(self, text: str) -> None:
        """Write the failure to Redis for readers; if Redis is away too, only the log has it."""
        with contextlib.suppress(RedisError):
            await self._outbox.note_failure(text)

    def start(self) -> None:
        """Start the writer and the reconciler; neither MongoDB nor Redis need be reachable yet."""
        self._duties = Duties(on_error=self._duty_broke, patience_s=MOST_SILENCE_S, is_redis_there=_always)
        self._subscriber = Subscriber(
            self._connector,
            on_message=self._hear,
            on_subscribed=self._subscribed,
            on_error=self._failed,
            duties=self._duties,
        )
        self._duties.start("mirror writer", self.writer.run)
        self._duties.start("mirror reconciler", self.reconciler.run)
        self._duties.start("mirror subscription", self._listen, may_end=lambda: True)

    @staticmethod
    def _duty_broke(error: BaseException) -> None:
        logger.error("a part of the mirror broke, and is begun again", exc_info=error)

    async def _listen(self, _duty: Duty) -> None:
        """Subscribe to results; without the right to the channels all but Node's results is mirrored."""
        for channel in self._own_events:
            try:
                if self._subscriber is not None:
                    await self._subscriber.add(channel, timeout_ms=self._timeout_ms)
            except RedisError as error:
                self._failed(error)

    @property
    def is_running(self) -> bool:
        """Whether the mirror was started and not stopped; a part that breaks is begun again."""
        return self._duties is not None

    def duties(self) -> tuple[DutyHealth, ...]:
        """Return the state of the mirror's parts; empty while it does not run."""
        return () if self._duties is None else self._duties.health()

    async def flush(self, timeout_s: float) -> bool:
        """Wait until every change noted so far is mirrored, for ``timeout_s`` at most, or MongoDB is away.

        Meanwhile the writer does not rest. Returns whether all are. Raises RedisError.
        """
        with self.writer.hurrying(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                newest = await self._outbox.newest()
                while not await self._outbox.has_written(newest):
                    if self.writer.is_failing or not self.is_running:
                        return False
                    await asyncio.sleep(_FLUSH_POLL_S)
                return True
        return False

    async def lag(self) -> dict[str, int]:
        """Return how many changes are not yet mirrored, by queue; raises RedisError."""
        return await self._outbox.lag()

    async def revisions(self) -> dict[str, int]:
        """Return the revision of the newest change so far, by queue; raises RedisError."""
        return {name: revision_of(newest) for name, newest in (await self._outbox.newest()).items()}

    def check(self) -> AsyncIterator[Difference]:
        """Compare everything once; see ``Reconciler.check``."""
        return self.reconciler.check()

    async def stop(self) -> None:
        """Stop the writer and the reconciler, and close all connections, in 2 s at most.

        What is not mirrored stays in Redis, for the next writer.
        """
        duties, self._duties = self._duties, None
        subscriber, self._subscriber = self._subscriber, None
        for step in self._steps:
            step.cancel()
        if duties is not None:
            await self.collection.wait_idle(_IDLE_S)
            hanging_up = [] if subscriber is None else [subscriber.close()]
            await within(_END_S, duties.close(timeout_s=_END_S), *hanging_up)
        await within(_CLOSE_S, self._outbox.close(), self.collection.close())
