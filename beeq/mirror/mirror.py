"""The mirror of the four built-in queues, as one thing to start and stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from beeq.jobs import JOB_TYPES
from beeq.mirror.collection import StatusCollection
from beeq.mirror.outbox import Outbox
from beeq.mirror.reconciler import Difference, Reconciler
from beeq.mirror.writer import MirrorWriter
from beeq.process import process_name
from beeq.protocol.keys import Keys
from beeq.redis.connector import Connector
from beeq.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

#: Between two looks at the lag.
_FLUSH_POLL_S = 0.05
_STOP_S = 5.0
_IDLE_S = 2.0


class Mirror:
    """Writes to MongoDB what happens to jobs in Redis, from ``start`` until ``stop``.

    ``redis`` and ``prefix`` are as for ``Queue``. With ``is_alone`` no jobs run in this process, so the
    writer need not leave them time. Raises ValueError if a URL is invalid (the message does not repeat it),
    and ImportError if PyMongo is missing.
    """

    def __init__(
        self, mongo_url: str, *, redis: str | Redis | None = None, prefix: str = "bq", is_alone: bool = False
    ) -> None:
        self.collection = StatusCollection(mongo_url)
        settings = Settings(prefix=prefix)
        keys = {name: Keys(settings.prefix, name) for name in JOB_TYPES}
        slot_key = next(iter(keys.values())).id
        connector = Connector(redis, timeout_ms=settings.redis_timeout, slot_key=slot_key)
        self._outbox = Outbox(connector, keys, timeout_ms=settings.redis_timeout, consumer=process_name())
        self.writer = MirrorWriter(self._outbox, self.collection, on_error=self._failed, is_alone=is_alone)
        self.reconciler = Reconciler(self._outbox, self.collection, on_error=self._failed)
        self._tasks: list[asyncio.Task[None]] = []
        self._last_failure = ""

    def _failed(self, error: BaseException) -> None:
        text = f"{type(error).__name__}: {error}"
        if text != self._last_failure:  # one line for an outage, not one for each attempt
            logger.warning("the mirror waits: %s", text)
        self._last_failure = text

    def start(self) -> None:
        """Start the writer and the reconciler; neither MongoDB nor Redis need be reachable yet."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self.writer.run(), name="beeq mirror writer"),
            loop.create_task(self.reconciler.run(), name="beeq mirror reconciler"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    @staticmethod
    def _ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            logger.error("%s ended unexpectedly", task.get_name(), exc_info=task.exception())

    @property
    def is_running(self) -> bool:
        """Whether the writer and the reconciler are running."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def flush(self, timeout_s: float) -> bool:
        """Wait until every change is mirrored; stop waiting when MongoDB is away, or the time is over.

        Returns whether every change is mirrored; raises RedisError if Redis did not answer.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while any((await self._outbox.lag()).values()):
            if self.writer.is_failing or not self.is_running or loop.time() > deadline:
                return False
            await asyncio.sleep(_FLUSH_POLL_S)
        return True

    async def lag(self) -> dict[str, int]:
        """Return how many changes are not yet mirrored, by queue; raises RedisError."""
        return await self._outbox.lag()

    def check(self) -> AsyncIterator[Difference]:
        """Compare everything once; see ``Reconciler.check``."""
        return self.reconciler.check()

    async def stop(self) -> None:
        """Stop the writer and the reconciler, and close all connections. The lag stays in Redis."""
        tasks, self._tasks = self._tasks, []
        if tasks:
            await self.collection.wait_idle(_IDLE_S)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_STOP_S)
        await self._outbox.close()
        await self.collection.close()
