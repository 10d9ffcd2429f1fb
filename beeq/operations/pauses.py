"""Pauses a queue, resumes it, and tells whether it is paused."""

from beeq.client.context import QueueContext
from beeq.client.session import Session
from beeq.errors import RedisRefused
from beeq.protocol.keys import Keys
from beeq.protocol.pauses import Pause, decode_pause
from beeq.redis.pipeline import Pipeline


async def read_pause(pipeline: Pipeline, keys: Keys) -> Pause | None:
    """Return the queue's pause, or None. One GET, which writes nothing.

    Raises RedisError, QueueClosed.
    """
    try:
        raw = await pipeline.call("GET", keys.paused, repeatable=True)
    except RedisRefused as refused:
        if refused.code != "WRONGTYPE":
            raise
        return None  # a stranger's key, which pauses nobody
    return None if raw is None else decode_pause(raw)


class Pauses:
    """The pauses of one queue. ``Queue`` documents what each method promises."""

    def __init__(self, context: QueueContext, session: Session) -> None:
        self._context = context
        self._session = session

    async def now(self) -> Pause | None:
        """Return the pause, or None."""
        await self._session.ensure()
        return await read_pause(self._context.pipeline, self._context.keys)
