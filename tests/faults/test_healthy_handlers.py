"""The heartbeat that stops handlers whose job is lost never stops one whose job is not: thousands of times.

What makes it hard: a job that is started early is held before Redis has its claim, and one that was recorded is
held until that reply has come. Here beats follow one another all the time, each overtaking other replies.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from beeq import JobLost
from beeq.maintenance.stall_check import StallCheck
from beeq.worker import heartbeat
from beeq.worker.scheduling.claims import HeldClaims
from beeq.worker.worker import Worker
from tests.support.proxy import proxy_to
from tests.support.waiting import pause

QUEUES = 12
#: As bee-queue writes it.
RECORD = b'{"data":0,"options":{"timestamp":1,"stacktraces":[]},"status":"created","progress":0}'


class Idlers:
    """Workers of one place, each at an empty queue of its own; a queue gets its next job when one has ended."""

    def __init__(self, make_queue: Callable[..., Any], client: Any, **options: Any) -> None:
        self._redis = client
        self.workers = [
            make_queue(f"healthy-{n}-{random.randrange(10**9)}", stall_interval=60_000, **options)
            for n in range(QUEUES)
        ]
        self.errors: list[BaseException] = []
        self.stopped: list[str] = []
        self.runs = 0
        self._recorded: Counter[Any] = Counter()
        self._to_come = self._count = 0
        self._due: list[Any] = []
        self._has_due = asyncio.Event()
        self.is_over = False
        for worker in self.workers:
            worker.on("error", self._failed)
            worker.on("succeeded", lambda job, _result: self._succeeded(job))

    async def run(self, count: int) -> None:
        """Have so many jobs run, one by one in each queue; return at the first error, too."""
        self._to_come = self._count = count
        for worker in self.workers:
            worker.process(self._handle)
            self._add_next(worker.keys)
        await asyncio.wait_for(self._feed(), 120)

    def _failed(self, error: BaseException) -> None:
        self.errors.append(error)
        self._end()

    def _end(self) -> None:
        self.is_over = True
        self._has_due.set()

    def _succeeded(self, job: Any) -> None:
        self._recorded[job.queue.name, job.id] += 1
        self._add_next(job.queue.keys)

    @property
    def recorded(self) -> int:
        """How many jobs were recorded once."""
        return sum(times == 1 for times in self._recorded.values())

    async def _handle(self, job: Any) -> None:
        self.runs += 1
        try:
            if self.runs % 3:  # the others do not wait at all
                await pause(random.uniform(0, 0.01))
        except asyncio.CancelledError:
            self.stopped.append(job.id)
            raise

    def _add_next(self, keys: Any) -> None:
        if self._to_come:
            self._due.append((keys, self._to_come))
            self._to_come -= 1
            self._has_due.set()
        elif self._recorded.total() >= self._count:
            self._end()

    async def _feed(self) -> None:
        while not self.is_over:
            await self._has_due.wait()
            self._has_due.clear()
            due, self._due = self._due, []
            async with self._redis.pipeline(transaction=False) as pipeline:
                for keys, number in due:
                    pipeline.hset(keys.jobs, number, RECORD).lpush(keys.waiting, number)
                await pipeline.execute()


class NodesChecks:
    """Node's stall checks, one after the other, each as soon as every job has given its sign of life.

    They find nobody silent, for they give each the time that a stall interval gives it.
    """

    def __init__(self, redis: Any, script: str, idlers: Idlers) -> None:
        self._redis = redis
        self._script = script
        self._idlers = idlers
        self.marked = 0
        self.requeued: list[Any] = []

    async def go_on(self) -> None:
        all_keys = [worker.keys for worker in self._idlers.workers]
        while not self._idlers.is_over:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for keys in all_keys:
                    pipeline.delete(keys.stall_block)
                    names = (keys.stall_block, keys.stalling, keys.waiting, keys.active)
                    pipeline.eval(self._script, 4, *names, 60_000)
                    pipeline.scard(keys.stalling)
                replies = await pipeline.execute()
            self.requeued += [job_id for requeued in replies[1::3] for job_id in requeued]
            self.marked += sum(replies[2::3])
            while not self._idlers.is_over and await self._redis.exists(
                *(keys.stalling for keys in all_keys)
            ):
                await pause(0.001)


@pytest.fixture
def unjudged(monkeypatch):
    """Beats follow one another; return which claims Redis did not know and whose handlers were left alone."""
    monkeypatch.setattr(heartbeat, "_LONGEST_INTERVAL_MS", 1)

    async def no_check(_check):
        return 0

    monkeypatch.setattr(StallCheck, "once", no_check)  # Node's checks only
    left_alone: list[bytes] = []
    lose_all = Worker._lose_all

    def note(worker, claims):
        left_alone.extend(claims)
        lose_all(worker, claims)

    monkeypatch.setattr(Worker, "_lose_all", note)
    return left_alone


@pytest.fixture
async def idlers(valkey, make_queue, redis, node_modules, lag_ms):
    async with proxy_to(valkey.port) as proxy:
        # The pump's calls most of all, so that beats overtake them.
        proxy.lag_s = lambda data: random.uniform(0, lag_ms / (1000 if b"earlierDelayed" in data else 10_000))
        idlers = Idlers(make_queue, redis, **({"redis": proxy.url} if lag_ms else {}))
        yield idlers
        await asyncio.gather(*(worker.close(5000) for worker in idlers.workers))


@pytest.fixture
def checks(redis, node_modules, idlers):
    script = (node_modules / "bee-queue/lib/lua/checkStalledJobs.lua").read_text()
    return NodesChecks(redis, script, idlers)


@pytest.mark.parametrize(
    ("lag_ms", "count"), [(0, 800), (15, 500), pytest.param(0, 8700, marks=pytest.mark.external)]
)
async def test_no_healthy_handler_is_stopped(idlers, checks, unjudged, count):
    await asyncio.gather(idlers.run(count), checks.go_on())
    assert (idlers.errors, idlers.stopped, checks.requeued) == ([], [], [])
    assert (idlers.recorded, idlers.runs) == (count, count)
    assert unjudged, "no beat came between a job's record and the reply"
    assert checks.marked, "no job was asked for a sign of life"


@pytest.mark.parametrize("lag_ms", [15])
@pytest.mark.no_audit("a job whose handler was stopped for nothing runs nowhere")
async def test_a_heartbeat_that_judges_early_starts_is_found(idlers, checks, unjudged, monkeypatch):
    """The same, with a heartbeat that takes a claim that Redis does not have yet for a lost one.

    It is mostly found within 24 to 146 jobs, a fifth of the 800 that run above; they end when it is.
    """
    monkeypatch.setattr(HeldClaims, "snapshot", lambda held: (dict(held), b""))
    await asyncio.gather(idlers.run(8000), checks.go_on())
    assert isinstance(idlers.errors[0], JobLost)
