"""The doctor's full check of all queues: in the background, in bounded steps, shared by all visitors."""

import asyncio
import logging
import time
from dataclasses import dataclass, field

from beeq.client.closing import end_tasks
from beeq.errors import BeeqError, RedisUnavailable, line_of
from beeq.operations.diagnosis.findings import Finding
from beeq.redis.urls import redact
from beeq.web.page.store import QueueCounts, QueueStore

logger = logging.getLogger("beeq.web")

#: The most ids of each list and set of a queue; and the longest check-up.
MOST_IDS = 200_000
LONGEST_S = 120.0
#: Another one begins no sooner than this after the last one's end.
_REST_S = 10.0
_WAIT_S = 0.2
_MOST_FINDINGS = 500


@dataclass(frozen=True, slots=True)
class QueueFinding:
    """A finding, and its queue; "" is Redis itself."""

    prefix: str
    queue_name: str
    finding: Finding


@dataclass(slots=True)
class CheckUp:
    """One look at all queues.

    Attributes:
        of: how many queues are looked at. known: how many there are.
        done: how many have been looked at.
        at: the queue that is looked at now.
        looked_at: how many ids, of all of them.
        unlooked: queues for which there was no time.
        problem: why it stopped.
        begun_ms: when it began.
    """

    of: int
    known: int
    done: int = 0
    at: str = ""
    looked_at: int = 0
    found: list[QueueFinding] = field(default_factory=list)
    unlooked: list[str] = field(default_factory=list)
    problem: str = ""
    has_ended: bool = False
    begun_ms: float = field(default_factory=lambda: time.time() * 1000)

    @property
    def problems(self) -> list[QueueFinding]:
        """The problems among the findings."""
        return [each for each in self.found if each.finding.is_problem]


class CheckUps:
    """The newest check-up; one at a time."""

    def __init__(self, store: QueueStore) -> None:
        self._store = store
        self._newest: CheckUp | None = None
        self._ended_s = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def newest(self) -> CheckUp | None:
        """The newest one; None before the first."""
        return self._newest

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            await end_tasks(self._task)

    async def begin(self) -> CheckUp:
        """Begin one, unless one goes on or has just ended; return it after a short wait."""
        if self._task is None and (self._newest is None or time.monotonic() - self._ended_s >= _REST_S):
            overview = await self._store.overview()
            if self._task is None:  # none has begun meanwhile
                self._newest = CheckUp(len(overview.queues), overview.known)
                self._task = asyncio.create_task(self._run(self._newest, overview.queues))
                self._task.add_done_callback(self._ended)
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_WAIT_S)
        assert self._newest is not None  # noqa: S101 - it began above, or before
        return self._newest

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._task, self._ended_s = None, time.monotonic()

    async def _run(self, check_up: CheckUp, queues: list[QueueCounts]) -> None:
        ends_s = asyncio.get_running_loop().time() + LONGEST_S
        left = list(queues)
        try:
            async with asyncio.timeout_at(ends_s):
                while left:
                    await self._look_into(check_up, left[0])
                    check_up.done += 1
                    del left[0]
        except TimeoutError:
            check_up.unlooked = [each.name for each in left]
        except BeeqError as error:
            check_up.problem = redact(line_of(error))
        except Exception:
            logger.exception("a check-up of the queues failed")
            check_up.problem = "Internal error"
        finally:
            check_up.at, check_up.has_ended = "", True

    async def _look_into(self, check_up: CheckUp, counts: QueueCounts) -> None:
        check_up.at, before = counts.name, check_up.looked_at

        def looked(count: int) -> None:
            check_up.looked_at = before + count

        try:
            async with self._store.queue(counts.prefix, counts.name) as queue:
                found = await queue.diagnose(on_looked=looked, most_ids=MOST_IDS)
        except RedisUnavailable:
            raise
        except BeeqError as error:
            text = f"it could not be looked at: {redact(line_of(error))}"
            found = [Finding("not-looked-at", text, is_problem=False)]
        room = _MOST_FINDINGS - len(check_up.found)
        check_up.found += [QueueFinding(counts.prefix, counts.name, each) for each in found[: max(0, room)]]
