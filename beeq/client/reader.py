"""Reads a queue: jobs by id and by state, counts, outcomes. Writes nothing."""

from dataclasses import dataclass, field
from typing import Any

from beeq.errors import JobFailed, JobUnreadable
from beeq.protocol.codec import Record, decode_record, loads
from beeq.protocol.keys import Keys
from beeq.protocol.options import SAFE_INTEGER, created_ms_of
from beeq.redis import scripts
from beeq.redis.pipeline import Pipeline

#: A worker process without a heartbeat for this long is gone.
WORKER_LIFETIME_MS = 30_000
#: One call reads at most this many records, and not much more than this many bytes of them.
_READ_AT_ONCE = 500
_READ_BYTES = 1_000_000
#: No limit: records and results of any length are read.
UNBOUNDED = SAFE_INTEGER
_LISTS = ("waiting", "active")
_SETS = ("succeeded", "failed")


@dataclass(frozen=True, slots=True)
class Health:
    """A queue's counts. ``newest_job`` is the last automatic id, or 0."""

    waiting: int
    active: int
    succeeded: int
    failed: int
    delayed: int
    newest_job: int

    @property
    def total(self) -> int:
        """How many jobs there are, in all states together."""
        return self.waiting + self.active + self.succeeded + self.failed + self.delayed


@dataclass(frozen=True, slots=True)
class Stats(Health):
    """A queue's counts, and facts that only beeq keeps.

    Attributes:
        workers: living beeq worker processes. Node workers leave no trace to count.
        oldest_waiting_ms: how long ago the next job to run was created; None if none waits, or it is unknown.
        owed: changes not yet mirrored; None if the queue has no mirror.
    """

    workers: int
    oldest_waiting_ms: int | None
    owed: int | None = None

    def shown(self) -> dict[str, Any]:
        """Return the numbers under the names that commands and HTTP show; ``owed`` only with a mirror."""
        mirror = {} if self.owed is None else {"owed": self.owed}
        return {
            "waiting": self.waiting,
            "active": self.active,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "delayed": self.delayed,
            "newestJob": self.newest_job,
            "workers": self.workers,
            "oldestWaiting": self.oldest_waiting_ms,
            **mirror,
        }

    def health(self) -> Health:
        """Return the counts that bee-queue has, too."""
        return Health(self.waiting, self.active, self.succeeded, self.failed, self.delayed, self.newest_job)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended: with a value, or with an error.

    Attributes:
        is_whole: whether this is complete. False: a Node worker ended it, and only its event has the value,
            or the error's own message.
    """

    value: Any = None
    error: JobFailed | None = None
    is_cancelled: bool = False
    is_whole: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class JobState:
    """A job's state at one moment.

    Attributes:
        state: ``queued`` (waiting, delayed, or between two attempts), ``active``, ``succeeded``,
            ``failed`` or ``cancelled``.
        record: None if it is gone, or cannot be read.
        ended: how it ended, if it has.
    """

    state: str
    record: Record | None
    ended: Ended | None


class Reader:
    """Reads one queue."""

    def __init__(self, pipeline: Pipeline, keys: Keys, *, scan_count: int = 100) -> None:
        self._pipeline = pipeline
        self._keys = keys
        self._scan_count = scan_count

    async def record(self, job_id: str) -> bytes | None:
        """Return the job's record as Redis has it, or None."""
        raw: bytes | None = await self._pipeline.call("HGET", self._keys.jobs, job_id, repeatable=True)
        return raw

    async def records(self, ids: list[bytes]) -> list[tuple[str, bytes]]:
        """Return id and record of those that have one, in the order asked for."""
        found: list[tuple[str, bytes]] = []
        start = 0
        while start < len(ids):
            page = ids[start : start + _READ_AT_ONCE]
            raws = await scripts.read_records(
                self._pipeline, self._keys, max_bytes=_READ_BYTES, ids=((job_id,) for job_id in page)
            )
            found += [
                (job_id.decode(errors="replace"), raw)
                for job_id, raw in zip(page, raws, strict=False)  # those that fit
                if raw is not None
            ]
            start += len(raws)
        return found

    async def sizes(self, ids: list[str]) -> list[int]:
        """Return how many bytes Redis has of each job: of its record, and its results."""
        found: list[int] = await scripts.measure_jobs(
            self._pipeline, self._keys, ids=((job_id,) for job_id in ids)
        )
        return found

    async def ids(self, kind: str, *, start: int, end: int, size: int) -> list[bytes]:
        """Return ids in a state; lists by inclusive ``start`` and ``end``, sets by ``size``."""
        key = self._keys.to_key(kind)
        if kind in _SETS:
            return await self._scan(key, size)
        if kind not in (*_LISTS, "delayed"):
            raise ValueError("Improper queue type")
        if kind == "waiting":  # some of it may be hidden from Node peers
            return list(await scripts.waiting_ids(self._pipeline, self._keys, first=start, last=end))
        command = "ZRANGE" if kind == "delayed" else "LRANGE"
        return list(await self._pipeline.call(command, key, start, end, repeatable=True))

    async def _scan(self, key: str, size: int) -> list[bytes]:
        """Collect distinct members until there are ``size`` of them; SSCAN may repeat itself."""
        if size <= 0:
            return []
        found: dict[bytes, None] = {}
        cursor = b"0"
        while True:
            count = min(size, self._scan_count)
            cursor, members = await self._pipeline.call("SSCAN", key, cursor, "COUNT", count, repeatable=True)
            found.update(dict.fromkeys(members))
            if len(found) >= size or cursor == b"0":
                return list(found)[:size]

    async def is_in(self, job_id: str, name: str) -> bool:
        """Return whether the id is in the named set or list."""
        key = self._keys.to_key(name)
        if name in (*_SETS, "stalling"):
            return bool(await self._pipeline.call("SISMEMBER", key, job_id, repeatable=True))
        if name == "delayed":
            return await self._pipeline.call("ZSCORE", key, job_id, repeatable=True) is not None
        if name in _LISTS:
            # Between two reads a pause, or its end, may move the id to the list that was read before.
            lists = (key, self._keys.hidden, key) if name == "waiting" else (key,)
            for each in lists:
                if await self._pipeline.call("LPOS", each, job_id, repeatable=True) is not None:
                    return True
            return False
        raise ValueError("Improper queue type")

    async def stats(self, *, with_age: bool = True) -> Stats:
        """Return the counts, all of one moment; only the age of the oldest job needs a record."""
        reply = await scripts.count_jobs(
            self._pipeline,
            self._keys,
            lifetime_ms=WORKER_LIFETIME_MS,
            with_oldest="1" if with_age else "",
        )
        waiting, active, succeeded, failed, delayed, newest_job, workers, oldest, owed, now_ms = reply
        by_state = (waiting, active, succeeded, failed, delayed)
        oldest_ms = _age_ms(oldest, int(now_ms))
        return Stats(*by_state, _number(newest_job), workers, oldest_ms, None if owed < 0 else owed)

    async def look(self, job_id: str, *, created_ms: int) -> tuple[bool, Ended | None]:
        """Return whether Redis has anything of the job, and its end, if it has ended.

        ``created_ms`` is the job's creation time, or 0 if unknown: a result with another time belongs to
        another job of that id. The record is read only where no other key says how the job ended.
        """
        exists, kept, has_succeeded, has_failed, _raw, _is_active = await scripts.read_outcome(
            self._pipeline, self._keys, job_id=job_id, longest=UNBOUNDED, with_record=""
        )
        if not exists:
            is_own = kept is not None and (not created_ms or kept.startswith((b"0:", b"%d:" % created_ms)))
            ended = kept_outcome(job_id, kept, created_ms=None) if is_own else None
            return ended is not None, ended
        if not (has_succeeded or has_failed):
            return True, None
        ended = Ended(is_whole=False) if kept is None else kept_outcome(job_id, kept, created_ms=created_ms)
        if ended is not None and (ended.error is None) == bool(has_succeeded):
            return True, ended
        job_state = await self.job_state(job_id)
        return job_state is not None, None if job_state is None else job_state.ended

    async def job_state(self, job_id: str, *, max_bytes: int = UNBOUNDED) -> JobState | None:
        """Return the job's state, or None if Redis has nothing of it.

        A record, or a result, of more than ``max_bytes`` is not read.

        A success without a stored result (a Node worker's) ends in None; a Node worker's failure has the
        text of its trace.
        """
        exists, kept, has_succeeded, has_failed, raw, is_active = await scripts.read_outcome(
            self._pipeline, self._keys, job_id=job_id, longest=max_bytes, with_record="1"
        )
        if raw is None:
            if exists:  # its record is too long
                known = "succeeded" if has_succeeded else "failed" if has_failed else ""
                return JobState(known or ("active" if is_active else "queued"), None, None)
            ended = None if kept is None else kept_outcome(job_id, kept, created_ms=None)
            return JobState(_state_of(ended), None, ended) if ended is not None else None
        try:
            record = decode_record(job_id, raw, now_ms=0)
        except JobUnreadable as error:
            unreadable = Ended(error=JobFailed(job_id, str(error)))
            return JobState("failed", None, unreadable if has_succeeded or has_failed else None)
        if not (has_succeeded or has_failed):
            return JobState("active" if is_active else "queued", record, None)
        if kept is not None:
            ended = kept_outcome(job_id, kept, created_ms=created_ms_of(record.options))
            if ended is not None and (ended.error is None) == bool(has_succeeded):
                return JobState(_state_of(ended), record, ended)
        failed = None if has_succeeded else JobFailed(job_id, trace_text(record))
        ended = Ended(error=failed, is_whole=False)
        return JobState(_state_of(ended), record, ended)


def _state_of(ended: Ended) -> str:
    if ended.is_cancelled:
        return "cancelled"
    return "succeeded" if ended.error is None else "failed"


def kept_outcome(job_id: str, kept: bytes, *, created_ms: int | None) -> Ended | None:
    """Read an entry of ``beeq:results``.

    None if it belongs to an earlier job of the same id, or was not written by beeq.
    """
    created, _, text = kept.partition(b":")
    if created_ms is not None and created != b"%d" % created_ms:
        return None
    try:
        value = loads(text[1:])
    except ValueError:
        return None
    if text[:1] == b"s":
        return Ended(value)
    if text[:1] not in (b"f", b"c") or not isinstance(value, str):
        return None
    return Ended(error=JobFailed(job_id, value), is_cancelled=text[:1] == b"c")


def trace_text(record: Record) -> str:
    """Return the newest trace in a record, by a worker of any kind, if it is a text."""
    traces = record.options["stacktraces"]
    newest = traces[0] if traces else "the job failed"
    return newest if isinstance(newest, str) else "the job failed"


def _number(counter: bytes) -> int:
    """Return the counter of automatic ids; 0 for a text that is not a number."""
    try:
        return int(counter)
    except ValueError:
        return 0


def _age_ms(record: bytes, now_ms: int) -> int | None:
    """Return how long ago the record was made; None if there is none, or it does not say so."""
    if not record:
        return None
    try:
        created_ms = created_ms_of(decode_record("", record, now_ms=0).options)
    except JobUnreadable:
        return None
    return max(0, now_ms - created_ms) if created_ms else None
