"""Reads the facts that explain where a job is. Writes nothing; each call is short, in queues of any size."""

import asyncio
from collections.abc import Sequence
from typing import Any

from beeq.client.context import QueueContext
from beeq.client.reader import Reader, Stats
from beeq.client.session import Session
from beeq.job import Job
from beeq.operations.diagnosis.findings import PLACES
from beeq.operations.explanation.active_jobs import facts_of_workers, owners_in
from beeq.operations.explanation.reasons import Explanation, JobFacts, explain
from beeq.operations.inspection import Inspector, JobDetails
from beeq.operations.live_workers import LiveWorker
from beeq.operations.pauses import read_pause
from beeq.operations.signs import workers_seen
from beeq.redis import scripts
from beeq.settings import show_duration

#: A longer list is not searched for further copies of the id.
_SEARCHED = 250_000
#: Beyond one script's search, the list is read in pages: so many ids a page, so many in all.
_PAGE, _MOST_PAGED = 10_000, 5_000_000
#: How long, and how far ahead, the rate of taken jobs is measured.
_LOOK_S, _LOOKED_AHEAD = 0.4, 5000


class Explainer:
    """Explains single jobs of one queue."""

    def __init__(self, context: QueueContext, session: Session, inspector: Inspector) -> None:
        self._context = context
        self._pipeline = context.pipeline
        self._keys = context.keys
        self._session = session
        self._inspector = inspector
        self._reader = Reader(context.pipeline, context.keys)

    async def explain(
        self, job_id: str, *, is_quick: bool = False, details: JobDetails[Job] | None = None
    ) -> Explanation:
        """Return why the job is where it is; see ``Queue.explain``. Raises RedisError, QueueClosed."""
        await self._session.ensure()
        if details is None:
            details = await self._inspector.inspect(job_id)
        stats = await self._reader.stats(with_age=False)
        facts = await self._facts(job_id, details, stats, is_quick=is_quick)
        return explain(job_id, self._context.name, facts)

    async def _facts(
        self, job_id: str, details: JobDetails[Job] | None, stats: Stats, *, is_quick: bool
    ) -> JobFacts:
        entries = stats.waiting + stats.active
        claim, is_marked, check_ms, time, hidden, pause, seen, digits = await asyncio.gather(
            self._ask("HGET", self._keys.claims, job_id),
            self._ask("SISMEMBER", self._keys.stalling, job_id),
            self._ask("PTTL", self._keys.stall_block),
            self._ask("TIME"),
            self._ask("LPOS", self._keys.hidden, job_id, "RANK", -1, "MAXLEN", _SEARCHED),
            read_pause(self._pipeline, self._keys),
            workers_seen(self._pipeline, self._keys, stats, patience_s=0),
            scripts.find_places(
                self._pipeline,
                self._keys,
                with_lists="1" if entries <= _SEARCHED else "",
                ids=[(job_id,)],
            ),
        )
        known: dict[str, Any] = {
            "now_ms": int(time[0]) * 1000 + int(time[1]) // 1000,
            "stall_interval": self._context.settings.stall_interval,
            "counter": stats.newest_job,
            "pause": pause,
            "taking": seen.taking,
            "sees_node": bool(seen.node_jobs),
            "claim": b"" if claim is None else claim,
            "is_marked": bool(is_marked),
            "check_ms": max(0, check_ms),
            "is_hidden": hidden is not None,
        }
        known["claim"] = known["claim"].decode(errors="replace")
        known |= _of_workers(job_id, seen.living)
        if details is None:
            return JobFacts(**known)
        known |= _of(details)
        known["places"] = _places(digits[0], details.state)
        if details.state == "waiting" and is_quick:
            known["ahead"] = details.ahead
        elif details.state == "waiting":
            is_moving = bool(seen.is_any and pause is None)
            known["ahead"], known["rate"] = await asyncio.gather(
                self._ahead(job_id, details), self._rate() if is_moving and details.ahead != 0 else _nothing()
            )
        return JobFacts(**known)

    async def _ask(self, *command: Any) -> Any:
        return await self._pipeline.call(*command, repeatable=True)

    async def _ahead(self, job_id: str, details: JobDetails[Job]) -> int | None:
        """Return how many jobs run before a waiting one, also beyond one script's search."""
        if details.ahead is not None:
            return details.ahead
        wanted = job_id.encode()
        for start in range(0, _MOST_PAGED, _PAGE):
            page = await scripts.waiting_ids(
                self._pipeline, self._keys, first=-start - _PAGE, last=-start - 1
            )
            if wanted in page:
                return start + int(page[::-1].index(wanted))
            if len(page) < _PAGE:
                break
        return None

    async def _rate(self) -> float | None:
        """Return how many jobs are taken in a second; None if none was taken meanwhile."""
        waiting = self._keys.waiting
        depth = min(_LOOKED_AHEAD, await self._ask("LLEN", waiting))
        mark = await self._ask("LINDEX", waiting, -depth) if depth else None
        if mark is None:
            return None
        now_s = asyncio.get_running_loop().time
        began_s = now_s()
        await asyncio.sleep(_LOOK_S)
        place, length = await asyncio.gather(
            self._ask("LPOS", waiting, mark, "RANK", -1, "MAXLEN", depth), self._ask("LLEN", waiting)
        )
        moved = depth if place is None else depth - (length - place)
        return moved / (now_s() - began_s) if moved > 0 else None


async def _nothing() -> None:
    """Return None."""


def _of(details: JobDetails[Job]) -> dict[str, Any]:
    """Return the facts in a job's own record."""
    job, ended = details.job, details.ended
    options: Any = None if job is None else job.options
    options = options if isinstance(options, dict) else None
    traces = [] if options is None else options.get("stacktraces")
    from_record = [each for each in traces if isinstance(each, str)] if isinstance(traces, list) else []
    noted = [attempt.error for attempt in details.attempts]
    return {
        "state": details.state,
        "problem": "" if details.is_too_long else details.problem,
        "options": options,
        "status": "" if job is None else job.status,
        "errors": tuple(from_record if len(from_record) >= len(noted) else noted),
        "error": None if ended is None or ended.error is None else str(ended.error),
        "due_ms": details.due_ms,
        "deliveries": details.deliveries,
    }


def _of_workers(job_id: str, workers: Sequence[LiveWorker]) -> dict[str, Any]:
    """Return the living worker processes' notes on their places and on the job."""
    known: dict[str, Any] = {
        **facts_of_workers(workers),
        "slots": sum(worker.places or 0 for worker in workers),
        "taken": sum(min(worker.busy or 0, worker.places or 0) for worker in workers),
    }
    if any(worker.places is None for worker in workers):  # of an earlier beeq
        known["slots"] = 0
    jobs = [(worker, job) for worker in workers for job in worker.jobs]
    if jobs:
        oldest, job = max(jobs, key=lambda pair: pair[1].ran_ms)
        known["longest"] = f"job {job.id} on {oldest.id} for {show_duration(job.ran_ms)}"
    known["owner"] = owners_in(workers).get(job_id)
    return known


def _places(digits: bytes, state: str) -> tuple[str, ...]:
    """Return the lists and sets that have the id, where it was found among them."""
    found = [name for name, times in zip(PLACES, digits[1:], strict=True) if times != ord("0")]
    found += [f"{name} again" for name, times in zip(PLACES, digits[1:], strict=True) if times == ord("2")]
    if state in ("waiting", "active") and not any(name in ("waiting", "hidden", "active") for name in found):
        found.insert(0, state)  # in a list that was too long to be searched again
    return tuple(found)
