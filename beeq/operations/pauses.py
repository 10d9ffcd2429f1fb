"""Pauses a queue, resumes it, and reads whether it is paused."""

from beeq.client.context import QueueContext
from beeq.client.reader import WORKER_LIFETIME_MS
from beeq.client.session import Session
from beeq.errors import BeeqError, NoWorkerLives, RedisRefused
from beeq.maintenance.pause_watch import PauseKeeper
from beeq.protocol.codec import dumps
from beeq.protocol.keys import Keys
from beeq.protocol.pauses import MAX_BY_CHARACTERS, MAX_PAUSE_MS, MAX_REASON_CHARACTERS, Pause, decode_pause
from beeq.redis import scripts
from beeq.redis.pipeline import Pipeline
from beeq.settings import Duration, milliseconds


class QueuePaused(BeeqError):
    """A burst ended though jobs wait: the queue is paused."""

    def __init__(self, queue_name: str, waiting: int, pause: Pause) -> None:
        #: How many jobs wait, as text.
        self.left = "1 job waits" if waiting == 1 else f"{waiting} jobs wait"
        super().__init__(f"queue {queue_name} is paused {pause}; {self.left}")
        self.queue_name = queue_name
        self.waiting = waiting
        self.pause = pause


async def read_pause(pipeline: Pipeline, keys: Keys) -> Pause | None:
    """Return the queue's pause, or None. One GET, which writes nothing.

    Raises RedisError, QueueClosed.
    """
    try:
        raw = await pipeline.call("GET", keys.paused, repeatable=True)
    except RedisRefused as refused:
        if "WRONGTYPE" not in str(refused):  # fakeredis writes another word before it
            raise
        return None  # a foreign key, which pauses nothing
    return None if raw is None else decode_pause(raw)


class Pauses:
    """The pauses of one queue. ``Queue`` documents what each method promises."""

    def __init__(self, context: QueueContext, session: Session) -> None:
        self._context = context
        self._session = session
        self._keeper = PauseKeeper(context)

    async def now(self) -> Pause | None:
        """Return the pause, or None."""
        await self._session.ensure()
        return await read_pause(self._context.pipeline, self._context.keys)

    async def begin(self, reason: str, *, lasting: Duration | None, everyone: bool, by: str) -> Pause:
        """Pause the queue; with ``everyone`` hide the waiting jobs."""
        _check_text("reason", reason, MAX_REASON_CHARACTERS)
        _check_text("by", by, MAX_BY_CHARACTERS)
        if not isinstance(everyone, bool):
            raise TypeError(f"everyone must be a bool, not {type(everyone).__name__}")
        lasts_ms = 0 if lasting is None else milliseconds("for_", lasting, at_least=1)
        if lasts_ms > MAX_PAUSE_MS:
            raise ValueError("for_ must be at most 3650d; without it, the pause lasts until somebody ends it")
        await self._session.ensure()
        raw = await scripts.pause(
            self._context.pipeline,
            self._context.keys,
            everyone="1" if everyone else "",
            lasts_ms=lasts_ms,
            by=dumps(by),
            reason=dumps(reason),
            lifetime_ms=WORKER_LIFETIME_MS,
        )
        if not raw:
            raise NoWorkerLives(self._context.name)
        await self._keeper.settle()
        return decode_pause(raw)

    async def end(self) -> Pause | None:
        """End the pause, once hidden jobs are back; return it."""
        await self._session.ensure()
        return await self._keeper.settle(ends=True)


def _check_text(name: str, text: str, most: int) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, not {type(text).__name__}")
    if len(text) > most:
        raise ValueError(f"{name} must have at most {most} characters, not {len(text)}")
