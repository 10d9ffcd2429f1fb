"""Looks at active jobs: for how long each has run, and whether its worker is gone. Writes nothing."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from beeq.operations.explanation.reasons import (
    LATE_BEAT_MS,
    JobFacts,
    Owner,
    Reason,
    owner_of,
    reason_of_loss,
)
from beeq.operations.live_workers import LiveWorker, is_held, live_workers
from beeq.protocol.keys import Keys
from beeq.redis.pipeline import Pipeline

#: Broken UTF-8 is read as this; another id may have the same text.
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
#: One command asks for so many ids.
_ASKED_AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class SeenJob:
    """One active job.

    Attributes:
        ran_ms: for how long it has run; None if unknown, or its worker is gone.
        worker: the process that runs it; "" if unknown.
        loss: why no worker runs it, if that is sure.
    """

    ran_ms: int | None = None
    worker: str = ""
    loss: Reason | None = None


@dataclass(frozen=True, slots=True)
class ActiveLook:
    """A look at active jobs.

    Attributes:
        jobs: by id, those of which anything is known; without jobs of Node's workers and those whose ids
            are not UTF-8.
        has_checkers: whether a beeq worker lives that makes stall checks.
    """

    jobs: dict[str, SeenJob]
    has_checkers: bool = False


def facts_of_workers(workers: Sequence[LiveWorker]) -> dict[str, Any]:
    """Return the living worker processes' notes on themselves, as arguments of ``JobFacts``."""
    known: dict[str, Any] = {
        "workers": len(workers),
        "checkers": sum(worker.beat_age_ms <= LATE_BEAT_MS for worker in workers),
    }
    intervals = [worker.stall_interval_ms for worker in workers if worker.stall_interval_ms]
    if intervals:
        known["stall_interval"] = min(intervals)
    return known


def owners_in(workers: Iterable[LiveWorker]) -> dict[str, Owner]:
    """Return the owner of each job that the workers have noted; of several, the one that took it last."""
    owners: dict[str, Owner] = {}
    for worker in workers:
        for job in worker.jobs:
            before = owners.get(job.id)
            if before is None or (before.since_ms or 0) <= job.since_ms:
                owners[job.id] = Owner(worker.id, job.since_ms, worker.beat_ms)
    return owners


async def look_at_active(
    pipeline: Pipeline, keys: Keys, ids: Sequence[bytes], *, stall_interval_ms: int
) -> ActiveLook:
    """Look at these active jobs; ``stall_interval_ms`` applies where no worker has noted its own.

    Raises RedisError, QueueClosed.
    """
    ids = [each for each in ids if _UNKNOWN not in each.decode(errors="replace")]
    if not ids:
        return ActiveLook({})
    claims = await _claims_of(pipeline, keys, ids)
    if not claims:
        return ActiveLook({})
    marks, check_ms = await asyncio.gather(
        asyncio.gather(
            *(pipeline.call("SISMEMBER", keys.stalling, each, repeatable=True) for each in claims)
        ),
        pipeline.call("PTTL", keys.stall_block, repeatable=True),
    )
    # The workers come last: a worker sends a heartbeat before it claims a job.
    workers, (seconds, micros) = await asyncio.gather(
        live_workers(pipeline, keys), pipeline.call("TIME", repeatable=True)
    )
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    known: dict[str, Any] = {
        "now_ms": now_ms,
        "stall_interval": stall_interval_ms,
        "check_ms": max(0, check_ms),
        **facts_of_workers(workers),
    }
    owners = owners_in(workers)
    jobs: dict[str, SeenJob] = {}
    for (raw_id, claim), is_marked in zip(claims.items(), marks, strict=True):
        job_id = raw_id.decode(errors="replace")
        facts = JobFacts(
            **known,
            claim=claim.decode(errors="replace"),
            is_marked=bool(is_marked),
            owner=owners.get(job_id),
        )
        seen = _seen(facts)
        if seen is not None:
            jobs[job_id] = seen
    return ActiveLook(jobs, bool(known["checkers"]))


def _seen(facts: JobFacts) -> SeenJob | None:
    loss, owner = reason_of_loss(facts), owner_of(facts)
    if loss is not None:
        return SeenJob(loss=loss)
    if owner is None or owner.since_ms is None:
        return None
    return SeenJob(max(0, facts.now_ms - owner.since_ms), owner.name)


async def _claims_of(pipeline: Pipeline, keys: Keys, ids: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the beeq workers' claims on these jobs."""
    calls = [
        pipeline.call("HMGET", keys.claims, *ids[start : start + _ASKED_AT_ONCE], repeatable=True)
        for start in range(0, len(ids), _ASKED_AT_ONCE)
    ]
    found = [claim for claims in await asyncio.gather(*calls) for claim in claims]
    return {raw_id: claim for raw_id, claim in zip(ids, found, strict=True) if is_held(claim)}
