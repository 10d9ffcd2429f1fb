"""Actions on many jobs, which take longer than a request: counted, confirmed, carried out, reported.

Each runs as a task of this process; its address shows how far it is. The last of them are remembered.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from beeq.client.closing import end_tasks
from beeq.errors import BeeqError, line_of, one_line
from beeq.operations.job_filter import Filters
from beeq.operations.many import BulkCounts
from beeq.queue import Queue
from beeq.redis.urls import redact
from beeq.web.page.store import QueueStore
from beeq.web.responses import Refusal

logger = logging.getLogger("beeq.web")

Verb = Literal["retry", "remove", "run", "cancel"]
#: The verb of the report for each action.
DONE: dict[Verb, str] = {
    "retry": "retried",
    "remove": "removed",
    "run": "queued to run now",
    "cancel": "cancelled",
}
MANY: dict[Verb, Callable[..., Awaitable[BulkCounts]]] = {
    "retry": Queue.retry_many,
    "remove": Queue.remove_many,
    "run": Queue.run_many,
    "cancel": Queue.cancel_many,
}
_MOST_REMEMBERED = 50
_MOST_AT_ONCE = 4
#: How long a request waits for a run; most take less.
_PATIENCE_S = 0.7


@dataclass(slots=True)
class BulkRun:
    """One action on many jobs of a queue.

    Attributes:
        of: how many jobs there are to look at.
        phase: ``counting`` the matching jobs, it ``asks``, is ``acting``, ``done`` or ``failed``.
        meant: how many match, once they are counted.
        counts: of the pass that goes on, or has ended.
        error: why it failed.
    """

    id: str
    prefix: str
    queue_name: str
    verb: Verb
    filters: Filters
    of: int
    phase: Literal["counting", "asks", "acting", "done", "failed"] = "counting"
    meant: int = 0
    counts: BulkCounts = field(default_factory=BulkCounts)
    error: str = ""

    @property
    def goes_on(self) -> bool:
        """Whether something is being done."""
        return self.phase in ("counting", "acting")

    @property
    def done(self) -> str:
        """The verb of the report."""
        return DONE[self.verb]


class BulkRuns:
    """The runs of this process."""

    def __init__(self, store: QueueStore) -> None:
        self._store = store
        self._runs: OrderedDict[str, BulkRun] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Stop the runs under way; finished steps stay done."""
        await end_tasks(*self._tasks.values())

    def get(self, run_id: str) -> BulkRun | None:
        """Return a run that is remembered."""
        return self._runs.get(run_id)

    async def begin(
        self, prefix: str, queue_name: str, verb: Verb, filters: Filters, *, of: int, is_counted: bool
    ) -> BulkRun:
        """Count the matching jobs, unless all ``of`` them match. Raises Refusal: too many runs."""
        run = BulkRun(secrets.token_urlsafe(12), prefix, queue_name, verb, filters, of)
        if is_counted:
            run.phase, run.meant = "asks", of
        else:
            await self._start(run, self._count(run))
        self._runs[run.id] = run
        for old in [each for each in self._runs.values() if not each.goes_on]:
            if len(self._runs) > _MOST_REMEMBERED:
                del self._runs[old.id]
        return run

    async def go_on(self, run: BulkRun, who: str) -> None:
        """Carry out a run that was confirmed; raises Refusal: too many runs."""
        if run.phase == "asks":
            run.phase, run.counts = "acting", BulkCounts()
            try:
                await self._start(run, self._act(run, who))
            except Refusal:
                run.phase = "asks"
                raise

    async def _start(self, run: BulkRun, work: Awaitable[None]) -> None:
        if len(self._tasks) >= _MOST_AT_ONCE:
            asyncio.ensure_future(work).cancel()
            raise Refusal(
                503, "Several actions go on already: try again in a moment", headers={"retry-after": "5"}
            )
        task = asyncio.ensure_future(self._told(run, work))
        self._tasks[run.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(run.id, None))
        await asyncio.wait({task}, timeout=_PATIENCE_S)

    async def _told(self, run: BulkRun, work: Awaitable[None]) -> None:
        try:
            await work
        except BeeqError as error:
            run.phase, run.error = "failed", redact(line_of(error))
            logger.warning("%s of many jobs of %s failed: %s", run.verb, one_line(run.queue_name), run.error)
        except Exception:
            logger.exception("%s of many jobs failed", run.verb)
            run.phase, run.error = "failed", "Internal error"

    async def _count(self, run: BulkRun) -> None:
        await self._pass(run, dry_run=True)
        run.phase, run.meant = "asks", run.counts.matched

    async def _act(self, run: BulkRun, who: str) -> None:
        try:
            await self._pass(run, dry_run=False)
            run.phase = "done"
        finally:
            meant = one_line(str(run.filters))
            logger.info(
                "%s: %s of many jobs of %s by %s: %d %s",
                who, run.verb, one_line(run.queue_name), meant, run.counts.done, run.done,
            )  # fmt: skip

    async def _pass(self, run: BulkRun, *, dry_run: bool) -> None:
        def report(counts: BulkCounts) -> None:
            run.counts = counts

        async with self._store.queue(run.prefix, run.queue_name) as queue:
            run.counts = await MANY[run.verb](queue, dry_run=dry_run, on_progress=report, **run.filters)
