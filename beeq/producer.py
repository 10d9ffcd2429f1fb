"""Puts jobs into a queue: saves that happen together share one script call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from beeq.codec import encode_record
from beeq.errors import RedisUnavailable
from beeq.options import check_job_id
from beeq.scripts import ADD_JOBS

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
    """

    def __init__(self, line: SharedLine, keys: Keys, hub: Hub | None, *, outbox_limit: int) -> None:
        self._line = line
        self._hub = hub  # hears of the saved jobs; None: nobody wants to
        self._keys = (
            keys.id,
            keys.jobs,
            keys.waiting,
            keys.delayed,
            keys.claims,
            keys.results,
            keys.expiries,
            keys.outbox,
        )
        self._fixed_arguments = (keys.earlier_delayed, outbox_limit)
        self._batch: _Batch | None = None  # the latest; further saves may join until it is sent

    async def save(self, job: Job) -> None:
        """Add the job; its ``id`` is set, or None if the id exists.

        Raises:
            TypeError: it cannot be written as JSON; nothing was sent.
            RedisError: Redis did not add it, or never said whether it did.
        """
        save = self._expect(job)
        self._put(save)
        try:
            await save.until_done()
        except BaseException:
            self._failed(save)
            raise
        self._saved(save)

    def _put(self, save: _Save) -> _Batch:
        batch = self._batch
        if batch is None or not batch.has_room(save) or not self._line.is_last(batch.call):
            batch = self._batch = _Batch(self._line, self._keys, self._fixed_arguments)
        batch.add(save)
        return batch

    def _expect(self, job: Job) -> _Save:
        """Register a job that knows its id before it is sent: its events may overtake the reply."""
        save = _Save(job, moment=0 if self._hub is None else self._hub.moment)
        if save.job_id and self._hub is not None:
            self._hub.register(job)
        return save

    def _failed(self, save: _Save) -> None:
        if save.job_id and self._hub is not None:
            self._hub.unregister(save.job)

    def _saved(self, save: _Save) -> None:
        job, job_id = save.job, save.added_id
        if job_id is None:
            self._failed(save)
            job.id = None
            return
        job.id = job_id
        if self._hub is not None:
            self._hub.welcome(job, since=save.moment)

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
        for job in dict.fromkeys(jobs):
            try:
                saves.append(self._expect(job))
            except (TypeError, ValueError) as error:
                errors[job] = error
        batches = {self._put(save) for save in saves}
        if batches:
            await asyncio.wait([batch.until_done() for batch in batches])
        away: RedisUnavailable | None = None
        for save in saves:
            failure = save.error
            if failure is None:
                self._saved(save)
                continue
            self._failed(save)
            errors[save.job] = failure
            away = failure if isinstance(failure, RedisUnavailable) else away
        if away is not None and len(errors) == len(dict.fromkeys(jobs)):
            raise away
        return errors


class _Batch:
    """Saves that share one script call."""

    def __init__(self, line: SharedLine, keys: Sequence[str], fixed_arguments: Sequence[Any]) -> None:
        self._fixed_arguments = fixed_arguments
        self._saves: list[_Save] = []
        self._size_bytes = 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call = line.defer(ADD_JOBS, keys, self._arguments, self._settle)

    def has_room(self, save: _Save) -> bool:
        """Return whether the call stays bounded with ``save`` in it."""
        return len(self._saves) < MAX_JOBS and self._size_bytes + len(save.record) <= MAX_BYTES

    def add(self, save: _Save) -> None:
        """Take ``save`` along."""
        self._saves.append(save)
        self._size_bytes += len(save.record)

    def until_done(self) -> asyncio.Future[None]:
        """Return a future that is done once each save has its id or its error."""
        return self._done

    def _arguments(self) -> list[Any]:
        arguments: list[Any] = [*self._fixed_arguments]
        for save in self._saves:
            arguments += (save.job_id, save.record, save.due_ms)
        return arguments

    def _settle(self, ids: list[bytes | None], error: Exception | None) -> None:
        saves, self._saves = self._saves, []  # whoever still knows this batch holds no jobs by it
        if error is not None:
            for save in saves:
                save.end(None, error)
        else:
            for save, job_id in zip(saves, ids, strict=True):
                save.end(None if job_id is None else job_id.decode(), None)
        if not self._done.done():
            self._done.set_result(None)


class _Save:
    """One job on its way, and how it fared: the id that was added, None if it existed, or an error."""

    __slots__ = ("_waiter", "added_id", "due_ms", "error", "job", "job_id", "moment", "record")

    def __init__(self, job: Job, *, moment: int) -> None:
        self.job = job
        self.job_id = "" if job.id is None else check_job_id(job.id) or ""
        self.record = encode_record(job)
        due_ms = job.options.get("delay")
        self.due_ms = int(due_ms) if due_ms else ""
        #: What was heard of this id before told of an earlier job.
        self.moment = moment
        self.added_id: str | None = None
        self.error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def until_done(self) -> asyncio.Future[None]:
        """Return a future of the end; it raises the error. Asked for once, before the end."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def end(self, added_id: str | None, error: Exception | None) -> None:
        self.added_id, self.error = added_id, error
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
