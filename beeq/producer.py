"""Puts jobs into a queue: saves that happen together share one script call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from beeq.codec import encode_record
from beeq.errors import RedisUnavailable
from beeq.options import check_job_id
from beeq.scripts import ADD_JOBS
from beeq.wire import Beginning

if TYPE_CHECKING:
    from beeq.hub import Hub
    from beeq.job import Job
    from beeq.keys import Keys
    from beeq.shared_line import SharedLine

#: One script call adds at most this many jobs, and not much more than this many bytes (flaw C4).
MAX_JOBS = 500
MAX_BYTES = 1_000_000


class Producer:
    """Adds jobs. A save waits for nobody: the first goes out at once, the next ones with each other.

    A batch has its place among the queue's other commands from its first save on, and takes further
    saves only while nothing else was asked: commands are executed in the order they were given.

    Args:
        line: the queue's.
        keys: the queue's.
        hub: hears of jobs that know their id before they are sent; None: nobody wants to.
        on_saved: called with each job that ``save_all`` has added, as with what ``save`` returns.
        outbox_limit: the queue's.
    """

    def __init__(
        self,
        line: SharedLine,
        keys: Keys,
        *,
        hub: Hub | None,
        on_saved: Callable[[Job, int], None],
        outbox_limit: int,
    ) -> None:
        self._line = line
        self._hub = hub
        self._on_saved = on_saved
        script_keys = (
            keys.id,
            keys.jobs,
            keys.waiting,
            keys.delayed,
            keys.claims,
            keys.results,
            keys.expiries,
            keys.outbox,
        )
        self._beginning = Beginning(
            "EVALSHA", ADD_JOBS.sha, len(script_keys), *script_keys, keys.earlier_delayed, outbox_limit
        )
        self._batch: _Batch | None = None  # the latest; further saves may join until it is sent

    def save(self, job: Job) -> asyncio.Future[int]:
        """Add the job; its ``id`` is set, or None if the id exists, when the returned future is done.

        The future returns the moment since which what is heard of the id is about this job (see ``Hub``). It
        raises ``RedisError``: Redis did not add it, or never said whether it did.

        Raises:
            TypeError: it cannot be written as JSON; nothing was sent.
        """
        save = self._expect(job)
        save.waiter = asyncio.get_running_loop().create_future()
        self._put(save)
        return save.waiter

    def _put(self, save: _Save) -> _Batch:
        batch = self._batch
        if batch is None or not batch.has_room(save) or not self._line.is_last(batch.call):
            batch = self._batch = _Batch(self._line, self._beginning, self._ended)
        batch.add(save)
        return batch

    def _expect(self, job: Job) -> _Save:
        """Register a job that knows its id before it is sent: its events may overtake the reply."""
        hub = self._hub
        save = _Save(job, moment=0 if hub is None else hub.moment)
        if save.job_id and hub is not None:
            hub.register(job)
        return save

    def _ended(self, save: _Save, job_id: bytes | None, error: Exception | None) -> None:
        """Finish one save: it has an error, or the id that was added, or None as its id exists."""
        job, save.error = save.job, error
        if (error is not None or job_id is None) and save.job_id and self._hub is not None:
            self._hub.unregister(job)
        if error is None:
            job.id = None if job_id is None else job_id.decode()
        waiter = save.waiter
        if waiter is not None and not waiter.done():
            if error is None:
                waiter.set_result(save.moment)
            else:
                waiter.set_exception(error)

    async def save_all(self, jobs: Sequence[Job]) -> dict[Job, Exception]:
        """Add many jobs in as few calls as the bounds allow; return those that failed, and why.

        Raises:
            RuntimeError: one of them is running here; none was sent.
            RedisUnavailable: Redis is away, and none of them was added.
        """
        if any(job.claim for job in jobs):
            raise RuntimeError("a running job cannot be saved again; enqueue a new one")
        errors: dict[Job, Exception] = {}
        saves: list[_Save] = []
        distinct = dict.fromkeys(jobs)
        for job in distinct:
            try:
                saves.append(self._expect(job))
            except (TypeError, ValueError) as error:
                errors[job] = error
        await self._add_all(saves)
        for save in saves:
            if save.error is not None:
                errors[save.job] = save.error
            elif save.job.id is not None:
                self._on_saved(save.job, save.moment)
        if len(errors) == len(distinct):
            for failure in errors.values():
                if isinstance(failure, RedisUnavailable):
                    raise failure
        return errors

    async def _add_all(self, saves: list[_Save]) -> None:
        batches = {self._put(save) for save in saves}
        if batches:
            await asyncio.wait([batch.until_done() for batch in batches])


class _Batch:
    """Saves that share one script call."""

    def __init__(
        self,
        line: SharedLine,
        beginning: Beginning,
        on_end: Callable[[_Save, bytes | None, Exception | None], None],
    ) -> None:
        self._beginning = beginning
        self._on_end = on_end
        self._saves: list[_Save] = []
        self._size_bytes = 0
        self._done: asyncio.Future[None] | None = None
        self.call = line.defer(ADD_JOBS, self._packed, self._settle)

    def has_room(self, save: _Save) -> bool:
        """Return whether the call stays bounded with ``save`` in it."""
        return len(self._saves) < MAX_JOBS and self._size_bytes + len(save.record) <= MAX_BYTES

    def add(self, save: _Save) -> None:
        """Take ``save`` along."""
        self._saves.append(save)
        self._size_bytes += len(save.record)

    def until_done(self) -> asyncio.Future[None]:
        """Return a future that is done once each save has its id or its error. Asked for before that."""
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        return self._done

    def _packed(self) -> bytes:
        arguments: list[Any] = []
        for save in self._saves:
            arguments += (save.job_id, save.record, save.due_ms)
        return self._beginning.pack(*arguments)

    def _settle(self, ids: list[bytes | None] | None, error: Exception | None) -> None:
        saves, self._saves = self._saves, []  # whoever still knows this batch holds no jobs by it
        for save, job_id in zip(saves, ids or [None] * len(saves), strict=True):
            self._on_end(save, job_id, error)
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


class _Save:
    """One job on its way."""

    __slots__ = ("due_ms", "error", "job", "job_id", "moment", "record", "waiter")

    def __init__(self, job: Job, *, moment: int) -> None:
        self.job = job
        self.job_id = "" if job.id is None else check_job_id(job.id) or ""
        self.record = encode_record(job)
        due_ms = job.options.get("delay")
        self.due_ms = int(due_ms) if due_ms else ""
        #: What was heard of this id before told of an earlier job.
        self.moment = moment
        self.error: Exception | None = None
        self.waiter: asyncio.Future[int] | None = None
