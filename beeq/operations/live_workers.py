"""The workers of a queue and their jobs: beeq's processes by their notes, the others by the jobs they run.

Looking writes nothing. Every list is read in pages.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from beeq.client.context import QueueContext
from beeq.client.reader import WORKER_LIFETIME_MS
from beeq.client.session import Session
from beeq.errors import RedisRefused
from beeq.operations.scans import Scan
from beeq.protocol.keys import Keys
from beeq.protocol.running import decode_running
from beeq.redis.pipeline import Pipeline

#: How many worker processes are read: those with the latest heartbeats.
MOST_WORKERS = 10_000
_ASKED_AT_ONCE = 50
_FIELDS_AT_ONCE = 250
#: How many active jobs are read: those that were taken first.
MOST_ACTIVE = 10_000
#: How many jobs on Node's workers are listed.
MOST_TOLD = 100
#: The most digits of a process id.
_MOST_DIGITS = 10
#: A job that an idle worker of beeq has just fetched is claimed within this time.
_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job that runs. ``since_ms`` is in ms since the epoch, by Redis's clock; ``ran_ms`` for how long."""

    id: str
    since_ms: int
    ran_ms: int


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A beeq worker process of one queue at its last heartbeat. Times are Redis's, unless stated otherwise.

    What a process of an earlier beeq does not note is None, "" or empty.

    Attributes:
        id: its name: ``<host>:<pid>:<8 hexadecimal digits>``.
        host: the machine.
        pid: the process.
        beat_ms: its last heartbeat, in ms since the epoch; after 30 s without one it counts as gone.
        beat_age_ms: how long ago that was.
        version: beeq's.
        started_ms: when it began to work on the queue, by its own clock.
        up_ms: how long ago that was.
        clock_skew_ms: by how much its own clock is ahead of Redis's; some ms of it are the network's.
        places: how many jobs may run there at once.
        busy: how many ran.
        is_taking: whether it takes jobs, or would if the queue were not paused.
        stall_interval_ms: the setting.
        jobs: those that have run for half a second, the oldest first; not all of them, if they are very many.
        ahead: how many jobs it had claimed ahead, which did not run yet.
    """

    id: str
    host: str
    pid: int | None
    beat_ms: int
    beat_age_ms: int
    version: str = ""
    started_ms: int | None = None
    up_ms: int | None = None
    clock_skew_ms: int | None = None
    places: int | None = None
    busy: int | None = None
    is_taking: bool | None = None
    stall_interval_ms: int | None = None
    jobs: tuple[ActiveJob, ...] = ()
    ahead: int | None = None

    @property
    def longest_ms(self) -> int:
        """For how long its oldest job has run; 0 without one."""
        return self.jobs[0].ran_ms if self.jobs else 0

    def shown(self) -> dict[str, Any]:
        """Return it under the names that commands show; durations and times in ms."""
        return {
            "worker": self.id,
            "host": self.host,
            "pid": self.pid,
            "version": self.version or None,
            "started": self.started_ms,
            "up": self.up_ms,
            "beat": self.beat_ms,
            "beatAge": self.beat_age_ms,
            "places": self.places,
            "busy": self.busy,
            "ahead": self.ahead,
            "taking": self.is_taking,
            "jobs": [{"id": job.id, "since": job.since_ms, "ran": job.ran_ms} for job in self.jobs],
        }


@dataclass(frozen=True, slots=True)
class OtherJobs:
    """Active jobs that no worker process has noted.

    Attributes:
        node: ids of jobs that no beeq worker has claimed, so Node's workers run them, the oldest claim first;
            a hundred at most.
        node_count: how many these are, of those that were read.
        silent: those of ``node`` whose worker has given no sign of life since the last stall check.
        claimed: how many a beeq worker has claimed. They have just begun, or their worker has died, or it
            runs an earlier beeq.
        is_complete: whether all active jobs were read.
    """

    node: tuple[str, ...] = ()
    node_count: int = 0
    silent: frozenset[str] = frozenset()
    claimed: int = 0
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class Activity:
    """A queue's activity: the workers, those with the longest jobs first, and the other active jobs."""

    workers: tuple[LiveWorker, ...]
    others: OtherJobs


async def live_workers(pipeline: Pipeline, keys: Keys) -> list[LiveWorker]:
    """Return a queue's beeq workers, those with the longest jobs first. Raises RedisError, QueueClosed."""
    (seconds, micros), beats = await asyncio.gather(
        pipeline.call("TIME", repeatable=True),
        pipeline.call("ZRANGE", keys.workers, -MOST_WORKERS, -1, "WITHSCORES", repeatable=True),
    )
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    living = [
        (name.decode(errors="replace"), int(float(beat)))
        for name, beat in zip(beats[::2], beats[1::2], strict=True)
        if abs(now_ms - float(beat)) <= WORKER_LIFETIME_MS
    ]
    found: list[LiveWorker] = []
    for start in range(0, len(living), _ASKED_AT_ONCE):
        some = living[start : start + _ASKED_AT_ONCE]
        notes = await asyncio.gather(*(_notes(pipeline, replace(keys, worker=name)) for name, _ in some))
        found += [
            _worker_of(name, beat_ms, fields, now_ms)
            for (name, beat_ms), fields in zip(some, notes, strict=True)
        ]
    return sorted(found, key=lambda worker: (-worker.longest_ms, worker.id))


async def _notes(pipeline: Pipeline, keys: Keys) -> dict[bytes, bytes]:
    """Return a process's notes; nothing if the key is foreign, or gone."""
    fields: dict[bytes, bytes] = {}
    cursor = b"0"
    while True:
        try:
            cursor, found = await pipeline.call(
                "HSCAN", keys.running, cursor, "COUNT", _FIELDS_AT_ONCE, repeatable=True
            )
        except RedisRefused as refused:
            if refused.code != "WRONGTYPE":
                raise
            return {}
        fields.update(zip(found[::2], found[1::2], strict=True))
        if cursor == b"0" or len(fields) > MOST_ACTIVE:
            return fields


def _worker_of(name: str, beat_ms: int, fields: dict[bytes, bytes], now_ms: int) -> LiveWorker:
    facts, started = decode_running(fields)
    host, _, rest = name.rpartition(":")[0].rpartition(":")
    jobs = sorted((ActiveJob(each, since, max(0, now_ms - since)) for each, since in started), key=_age)
    skew_ms, up_ms = None, None
    if facts.clock_ms is not None and facts.noted_ms is not None:
        skew_ms = facts.clock_ms - facts.noted_ms
        up_ms = None if facts.started_ms is None else max(0, now_ms + skew_ms - facts.started_ms)
    return LiveWorker(
        name,
        host,
        int(rest) if rest.isdecimal() and len(rest) <= _MOST_DIGITS else None,
        beat_ms,
        max(0, now_ms - beat_ms),
        facts.version,
        facts.started_ms,
        up_ms,
        skew_ms,
        facts.places,
        facts.busy,
        facts.is_taking,
        facts.stall_interval_ms,
        tuple(jobs),
        facts.ahead,
    )


def _age(job: ActiveJob) -> tuple[int, str]:
    return job.since_ms, job.id


async def other_jobs(pipeline: Pipeline, keys: Keys, noted: Iterable[str]) -> OtherJobs:
    """Return the active jobs that workers have not ``noted``. Raises RedisError, QueueClosed."""
    known = set(noted)
    scan = Scan(pipeline, keys, "active")
    unclaimed: list[bytes] = []
    claimed = seen = 0
    while seen < MOST_ACTIVE and (page := await scan.page()) is not None:
        seen += len(page.ids)
        ids = [each for each in page.ids if each.decode(errors="replace") not in known]
        if not ids:
            continue
        claims = await pipeline.call("HMGET", keys.claims, *ids, repeatable=True)
        are_claimed = [is_held(claim) for claim in claims]
        claimed += are_claimed.count(True)
        unclaimed += [each for each, is_claimed in zip(ids, are_claimed, strict=True) if not is_claimed]
    node = unclaimed[:MOST_TOLD]
    silent: list[str] = []
    if node:
        await asyncio.sleep(_AGAIN_S)
        looks = await asyncio.gather(*(_look_again(pipeline, keys, each) for each in node))
        node = [each for each, (is_there, _) in zip(node, looks, strict=True) if is_there]
        silent = [_text(each) for each, (_, is_silent) in zip(unclaimed, looks, strict=False) if is_silent]
    return OtherJobs(
        tuple(map(_text, node)),
        len(node) + max(0, len(unclaimed) - MOST_TOLD),
        frozenset(silent),
        claimed,
        seen < MOST_ACTIVE,
    )


async def _look_again(pipeline: Pipeline, keys: Keys, job_id: bytes) -> tuple[bool, bool]:
    """Return whether the job still runs without a claim, and whether it gives no sign of life."""
    place, claim, is_silent = await asyncio.gather(
        pipeline.call("LPOS", keys.active, job_id, "RANK", -1, "MAXLEN", 2 * MOST_ACTIVE, repeatable=True),
        pipeline.call("HGET", keys.claims, job_id, repeatable=True),
        pipeline.call("SISMEMBER", keys.stalling, job_id, repeatable=True),
    )
    return place is not None and not is_held(claim), bool(is_silent)


def is_held(claim: bytes | None) -> bool:
    """Return whether a beeq worker has the job; without a token the claim only counts deliveries."""
    return claim is not None and not claim.startswith(b":")


def _text(raw_id: bytes) -> str:
    return raw_id.decode(errors="replace")


async def look_at(pipeline: Pipeline, keys: Keys) -> Activity:
    """Return a queue's activity. Raises RedisError, QueueClosed."""
    workers = await live_workers(pipeline, keys)
    others = await other_jobs(pipeline, keys, (job.id for worker in workers for job in worker.jobs))
    return Activity(tuple(workers), others)


class Workers:
    """The workers of one queue. ``Queue`` documents what each method promises."""

    def __init__(self, context: QueueContext, session: Session) -> None:
        self._context = context
        self._session = session

    async def now(self) -> list[LiveWorker]:
        """Return the live workers."""
        await self._session.ensure()
        return await live_workers(self._context.pipeline, self._context.keys)

    async def activity(self) -> Activity:
        """Return these, and the active jobs of others."""
        await self._session.ensure()
        return await look_at(self._context.pipeline, self._context.keys)
