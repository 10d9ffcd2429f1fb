"""Puts jobs into a queue: saves that happen together share one script call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from beeq.codec import encode_record
from beeq.errors import BeeqError, RedisUnavailable
from beeq.options import check_job_id
from beeq.scripts import ADD_JOBS

if TYPE_CHECKING:
    from beeq.events import JobEvent
    from beeq.hub import Hub
    from beeq.job import Job
    from beeq.keys import Keys
    from beeq.shared_line import SharedLine

#: One script call adds at most this many jobs, and not much more than this many bytes (flaw C4).
MAX_JOBS = 500
MAX_BYTES = 1_000_000


class Producer:
    """Adds jobs. A save waits for nobody: the first goes out at once, the next ones with each other."""

    def __init__(self, line: SharedLine, keys: Keys, hub: Hub | None) -> None:
        self._line = line
        self._hub = hub  # hears of the saved jobs; None: nobody wants to
        self._keys = (keys.id, keys.jobs, keys.waiting, keys.delayed, keys.claims, keys.results)
        self._channel = keys.earlier_delayed
        self._waiting: list[_Save] = []  # added by callers, taken by the flusher
        self._flusher: asyncio.Task[None] | None = None  # runs while anything waits

    async def save(self, job: Job) -> None:
        """Add the job; its ``id`` is set, or None if the id exists.

        Raises:
            TypeError: it cannot be written as JSON; nothing was sent.
            RedisError: Redis did not add it, or never said whether it did.
        """
        save = self._expect(job)
        self._waiting.append(save)
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        try:
            job_id = await save.done
        except BaseException:
            self._failed(save)
            raise
        self._saved(save, job_id)

    def _expect(self, job: Job) -> _Save:
        """Register a job that knows its id before it is sent: its events may overtake the reply."""
        save = _Save(job)
        if save.job_id and self._hub is not None:
            save.heard_before = self._hub.heard(save.job_id)
            self._hub.register(job)
        return save

    def _failed(self, save: _Save) -> None:
        if save.job_id and self._hub is not None:
            self._hub.unregister(save.job)

    def _saved(self, save: _Save, job_id: str | None) -> None:
        job = save.job
        if job_id is None:
            self._failed(save)
            job.id = None
            return
        job.id = job_id
        if self._hub is None:
            return
        if save.heard_before is not None and self._hub.heard(job_id) is save.heard_before:
            self._hub.forget(job_id)  # it told of an earlier job of this id
        self._hub.register(job)
        self._hub.replay(job)

    async def _flush(self) -> None:
        saves: list[_Save] = []
        try:
            while self._waiting:
                saves, self._waiting = self._waiting[:MAX_JOBS], self._waiting[MAX_JOBS:]
                await self._send(saves)
        finally:
            left, self._waiting = [*saves, *self._waiting], []
            for save in left:
                save.fail(BeeqError("the queue was closed before the job was saved"))
            self._flusher = None

    async def _send(self, saves: Sequence[_Save]) -> None:
        for batch in _bounded(saves):
            arguments: list[Any] = [self._channel]
            for save in batch:
                arguments += (save.job_id, save.record, save.due_ms)
            try:
                ids = await self._line.run(ADD_JOBS, self._keys, arguments)
            except BeeqError as error:
                for save in batch:
                    save.fail(error)
            else:
                for save, job_id in zip(batch, ids, strict=True):
                    save.succeed(job_id.decode() if job_id is not None else None)

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
        await self._send(saves)
        away: RedisUnavailable | None = None
        for save in saves:
            failure = save.done.exception()
            if failure is None:
                self._saved(save, save.done.result())
                continue
            self._failed(save)
            errors[save.job] = failure if isinstance(failure, Exception) else BeeqError(str(failure))
            away = failure if isinstance(failure, RedisUnavailable) else away
        if away is not None and len(errors) == len(dict.fromkeys(jobs)):
            raise away
        return errors

    async def close(self) -> None:
        """Fail what has not been sent."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.wait([self._flusher], timeout=1)


class _Save:
    """One job on its way, and the future of its id."""

    __slots__ = ("done", "due_ms", "heard_before", "job", "job_id", "record")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.job_id = check_job_id(job.id) or ""
        self.record = encode_record(job)
        due_ms = job.options.get("delay")
        self.due_ms = int(due_ms) if due_ms else ""
        #: What had been heard of an earlier job of the same id.
        self.heard_before: JobEvent | None = None
        self.done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def succeed(self, job_id: str | None) -> None:
        if not self.done.done():
            self.done.set_result(job_id)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


def _bounded(saves: Sequence[_Save]) -> list[list[_Save]]:
    """Cut into script calls of bounded size; one large record goes alone."""
    batches: list[list[_Save]] = []
    room_bytes = 0
    for save in saves:
        size_bytes = len(save.record)
        if not batches or len(batches[-1]) >= MAX_JOBS or size_bytes > room_bytes:
            batches.append([])
            room_bytes = MAX_BYTES
        batches[-1].append(save)
        room_bytes -= size_bytes
    return batches
