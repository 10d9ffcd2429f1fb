"""Node and Python workers on one queue at once: each job is done once, and dead workers are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from beeq import Job, Queue
from tests.support.node_bee import NodeBee
from tests.support.server import Server
from tests.support.waiting import eventually
from tests.support.warm_start import WarmStart

MakeQueue = Callable[..., Queue]
MakeNode = Callable[..., Awaitable[NodeBee]]
StartPython = Callable[[int], Awaitable[asyncio.subprocess.Process]]

_ROOT = Path(__file__).resolve().parents[2]
#: Small, so that orphans are found soon, and the same on all peers.
STALL_MS = 300
IN_FLIGHT = 5


@pytest.fixture
async def start_python(valkey: Server, queue_name: str, warm_start: WarmStart) -> AsyncIterator[StartPython]:
    """``await start_python(concurrency)``: a Python worker in a process of its own, killed at the end."""
    started: list[asyncio.subprocess.Process] = []

    async def start(concurrency: int) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *warm_start.python,
            str(Path(__file__).with_name("python_worker.py")),
            *(valkey.url, queue_name, str(concurrency), str(STALL_MS)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait_for(process.communicate(), 30)


async def begun_by(process: asyncio.subprocess.Process, count: int) -> set[str]:
    """Return the ids of the first jobs that the Python process has begun with."""
    assert process.stdout is not None
    return {(await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip() for _ in range(count)}


async def test_two_thousand_jobs_on_node_and_python_run_once_each(
    make_queue: MakeQueue,
    make_node: MakeNode,
    redis: redis.asyncio.Redis,
    eventually: Callable[..., Any],
) -> None:
    count = 2000
    producer = make_queue(is_worker=False, get_events=False)
    assert await producer.save_all([producer.create_job({"n": n}) for n in range(count)]) == {}
    every = {str(n) for n in range(1, count + 1)}

    done: Counter[str] = Counter()
    finished = asyncio.Event()
    watcher = make_queue(is_worker=False)

    def note(job_id: str, _result: object) -> None:
        done[job_id] += 1
        if done.total() >= count:
            finished.set()

    watcher.on("job succeeded", note)
    await watcher.ready()
    worker = make_queue()
    ours: Counter[str] = Counter()
    both_work = asyncio.Event()  # neither side drains the queue before the other has begun

    @worker.process(concurrency=10)
    async def handler(job: Job) -> None:
        ours[job.saved_id()] += 1
        await both_work.wait()

    node = await make_node(concurrency=10)
    await node.until("handling")
    both_work.set()
    await asyncio.wait_for(finished.wait(), 60)
    # The events have come; what Node has written down of its jobs may still be on its way.
    await eventually(lambda: ours.total() + len(node.of("handling")) >= count)
    theirs = Counter(job["id"] for (job,) in node.of("handling"))
    await worker.close()

    assert ours + theirs == Counter(every)
    assert done == Counter(every)
    assert ours
    assert theirs
    assert await redis.smembers(producer.keys.succeeded) == every
    health = await producer.check_health()
    assert (health.waiting, health.active, health.failed, health.succeeded) == (0, 0, 0, count)


async def test_what_runs_on_each_side_is_told_apart(
    make_queue: MakeQueue, make_node: MakeNode, eventually: Callable[..., Any]
) -> None:
    producer = make_queue(is_worker=False)
    node = await make_node(concurrency=1)
    theirs = await producer.enqueue({"act": "hang"}, timeout=60_000)
    await node.until("handling")
    worker, end = make_queue(), asyncio.Event()

    @worker.process
    async def handler(_job: Job) -> None:
        await end.wait()

    ours = await producer.enqueue({})

    async def is_noted() -> bool:
        return [job.id for seen in await producer.workers() for job in seen.jobs] == [ours.id]

    await eventually(is_noted)
    activity = await producer.activity()
    assert (activity.others.node, activity.others.claimed) == ((theirs.id,), 0)
    end.set()
    await ours.result(timeout=5000)
    await node.kill()
    await producer.destroy()


async def test_a_killed_node_workers_jobs_are_done_by_python(
    make_queue: MakeQueue, make_node: MakeNode, eventually: Callable[..., Any]
) -> None:
    producer = make_queue(is_worker=False)
    jobs = [await producer.enqueue({"act": "hang", "n": n}) for n in range(IN_FLIGHT)]
    node = await make_node(concurrency=IN_FLIGHT, stallInterval=STALL_MS)
    await node.until("handling", IN_FLIGHT)
    await node.kill()
    assert (await producer.check_health()).active == IN_FLIGHT

    rescuer = make_queue(stall_interval=STALL_MS)
    stalled: set[str] = set()
    rescuer.on("stalled", stalled.add)

    @rescuer.process(concurrency=2)
    async def handler(job: Job) -> int:
        return int(job.data["n"])

    assert [await job.result(timeout=20_000) for job in jobs] == list(range(IN_FLIGHT))
    await eventually(lambda: stalled == {job.id for job in jobs})  # jobs may be faster than the check's reply


async def test_a_killed_python_workers_jobs_go_to_python_beside_node(
    make_queue: MakeQueue, make_node: MakeNode, start_python: StartPython
) -> None:
    producer = make_queue(is_worker=False)
    jobs = [await producer.enqueue({"act": "return", "value": n}) for n in range(IN_FLIGHT)]
    python = await start_python(IN_FLIGHT)
    assert await begun_by(python, IN_FLIGHT) == {job.id for job in jobs}
    python.kill()
    await asyncio.wait_for(python.wait(), 30)

    node = await make_node(concurrency=2, stallInterval=STALL_MS)
    idle = make_queue(stall_interval=STALL_MS)

    @idle.process
    async def handler(job: Job) -> object:
        return job.data["value"]

    assert [await job.result(timeout=20_000) for job in jobs] == list(range(IN_FLIGHT))
    assert node.is_alive


async def test_a_killed_python_workers_jobs_are_done_by_node_alone(
    make_queue: MakeQueue, make_node: MakeNode, start_python: StartPython
) -> None:
    """With Node's own stall checks: what beeq keeps beside the protocol is in nobody's way."""
    producer = make_queue(is_worker=False)
    jobs = [await producer.enqueue({"act": "return", "value": n}) for n in range(IN_FLIGHT)]
    python = await start_python(IN_FLIGHT)
    await begun_by(python, IN_FLIGHT)
    python.kill()
    await asyncio.wait_for(python.wait(), 30)

    node = await make_node(concurrency=2, stallInterval=STALL_MS)
    await node.call("checkStalledJobs", interval=STALL_MS)
    assert [await job.result(timeout=20_000) for job in jobs] == list(range(IN_FLIGHT))
    assert {job_id for (job_id,) in await node.until("stalled", IN_FLIGHT)} == {job.id for job in jobs}


async def test_a_busy_python_worker_survives_nodes_stall_checks(
    make_queue: MakeQueue, make_node: MakeNode
) -> None:
    """Heartbeats are read by Node as its own."""
    worker = make_queue(stall_interval=STALL_MS)
    release = asyncio.Event()
    runs: Counter[str] = Counter()

    @worker.process(concurrency=IN_FLIGHT)
    async def handler(job: Job) -> None:
        runs[job.saved_id()] += 1
        await release.wait()

    jobs = [await worker.enqueue({}) for _ in range(IN_FLIGHT)]
    node = await make_node(isWorker=False, stallInterval=STALL_MS)
    await node.call("checkStalledJobs", interval=STALL_MS // 2)
    loop = asyncio.get_running_loop()
    until = loop.time() + 6 * STALL_MS / 1000
    while loop.time() < until:
        assert await node.call("checkStalledJobs") == 0
    release.set()
    for job in jobs:
        await job.result(timeout=10_000)
    assert runs == Counter({job.saved_id(): 1 for job in jobs})
    assert node.of("stalled") == []


async def test_an_idle_python_worker_runs_what_node_has_recovered(
    make_queue: MakeQueue,
    make_node: MakeNode,
    redis: redis.asyncio.Redis,
    eventually: Callable[..., Any],
) -> None:
    """bee-queue leaves the dead worker's claim where it is, and nobody but Node checks here."""
    queue = make_queue(stall_interval=60_000)
    job = await queue.enqueue({"n": 1})
    await redis.lmove(queue.keys.waiting, queue.keys.active, "RIGHT", "LEFT")
    await redis.hset(queue.keys.claims, job.saved_id(), "dead.0:1")
    runs: Counter[str] = Counter()

    @queue.process
    async def handler(job: Job) -> str:
        runs[job.saved_id()] += 1
        return "done"

    await eventually(lambda: redis.sismember(queue.keys.stalling, job.saved_id()))  # its first check
    await redis.delete(queue.keys.stall_block)
    node = await make_node(isWorker=False, stallInterval=STALL_MS)
    assert await node.call("checkStalledJobs") == 1
    assert await job.result(timeout=10_000) == "done"
    assert runs == Counter({job.saved_id(): 1})


async def test_a_busy_node_worker_survives_pythons_stall_checks(
    make_queue: MakeQueue, make_node: MakeNode
) -> None:
    producer = make_queue(is_worker=False, stall_interval=STALL_MS)
    node = await make_node(concurrency=IN_FLIGHT, stallInterval=STALL_MS)
    jobs = [await producer.enqueue({"act": "slow", "ms": 6 * STALL_MS, "value": n}) for n in range(IN_FLIGHT)]
    await node.until("handling", IN_FLIGHT)
    watcher = make_queue(stall_interval=STALL_MS)
    watcher.process(lambda _job: None)  # an idle worker, with its stall checks
    stalled: list[str] = []
    watcher.on("stalled", stalled.append)
    results = [await job.result(timeout=20_000) for job in jobs]
    assert results == list(range(IN_FLIGHT))
    assert stalled == []
    assert len(node.of("handling")) == IN_FLIGHT


async def test_a_finished_job_that_node_took_over_keeps_nodes_outcome(
    make_queue: MakeQueue, make_node: MakeNode, expect_errors: list[BaseException]
) -> None:
    """The Python worker had lost the job, so its late outcome is dropped."""
    worker = make_queue()
    release = asyncio.Event()
    begun = asyncio.Event()

    @worker.process
    async def handler(_job: Job) -> str:
        begun.set()
        await release.wait()
        return "Python's"

    job = await worker.enqueue({"act": "return", "value": "Node's"})
    await asyncio.wait_for(begun.wait(), 30)
    claimed = ("HEXISTS", worker.keys.claims, job.saved_id())
    await eventually(lambda: worker.pipeline.call(*claimed))  # the handler starts before its claim is granted
    # As a stall check would: the job is taken from the worker and queued again.
    await worker.pipeline.call("LREM", worker.keys.active, 0, job.saved_id())
    await worker.pipeline.call("LPUSH", worker.keys.waiting, job.saved_id())
    node = await make_node(concurrency=1)
    await node.until("succeeded")
    release.set()
    assert await job.result(timeout=10_000) == "Node's"
    await worker.close()
    assert [str(error) for error in expect_errors] == [
        f"Job {job.id} was no longer owned by this worker; its outcome was dropped"
    ]
    assert (await node.call("checkHealth"))["succeeded"] == 1
