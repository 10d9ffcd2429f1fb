"""Python makes the jobs and listens; npm's bee-queue works."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio

from beeq import Job, JobFailed, Queue
from tests.support.node_bee import NodeBee
from tests.support.waiting import Recorder

MakeQueue = Callable[..., Queue]
MakeNode = Callable[..., Awaitable[NodeBee]]
Redis = redis.asyncio.Redis


@pytest.fixture
async def queue(make_queue: MakeQueue) -> Queue:
    """A producer; it raises delayed jobs, which a Node worker does not do by itself."""
    return make_queue(is_worker=False, delayed_debounce=1)


@pytest.fixture
async def worker(make_node: MakeNode, queue: Queue) -> NodeBee:
    """A Node worker, at work once the producer listens."""
    await queue.ready()
    return await make_node(concurrency=5)


async def record(redis: Redis, job: Job) -> Any:
    return json.loads(await redis.hget(job.queue.keys.jobs, job.saved_id()) or "null")


async def test_the_result_of_a_node_handler_is_returned(queue: Queue, worker: NodeBee) -> None:
    job = await queue.enqueue({"act": "return", "value": {"sum": [1, 2.5, "größe", None, True]}})
    assert await job.result(timeout=10_000) == {"sum": [1, 2.5, "größe", None, True]}
    assert await job.is_in_set("succeeded")
    assert [args[0]["data"] for args in await worker.until("handling")] == [job.data]


async def test_undefined_and_null_are_none(queue: Queue, worker: NodeBee) -> None:
    nothing = await queue.enqueue({"act": "return"})
    null = await queue.enqueue({"act": "return", "value": None})
    assert [await nothing.result(timeout=10_000), await null.result(timeout=10_000)] == [None, None]
    assert [args[1] for args in await worker.until("succeeded", 2)] == [{"$undefined": True}, None]


async def test_a_node_handlers_failure_is_raised_with_its_message(
    queue: Queue, worker: NodeBee, redis: Redis
) -> None:
    job = await queue.enqueue({"act": "throw", "value": "no such file: größe"})
    heard = Recorder(job, "failed", "retrying")
    with pytest.raises(JobFailed, match=r"^no such file: größe$"):
        await job.result(timeout=10_000)
    await heard.until("failed")
    assert [str(error) for (error,) in heard.of("failed")] == ["no such file: größe"]
    assert heard.of("retrying") == []
    assert (await record(redis, job))["options"]["stacktraces"][0].startswith("Error: no such file: größe\n")
    assert len(await worker.until("failed:fatal")) == 1


async def test_a_failure_nobody_heard_is_raised_from_the_trace(
    make_queue: MakeQueue, queue: Queue, worker: NodeBee
) -> None:
    job = await queue.enqueue({"act": "throw", "value": "too late"})
    await worker.until("failed:fatal")
    latecomer = make_queue(is_worker=False)
    found = await latecomer.get_job(job.saved_id())
    assert found is not None
    with pytest.raises(JobFailed, match="too late"):
        await found.result(timeout=10_000)


async def test_a_success_nobody_heard_is_none(make_queue: MakeQueue, queue: Queue, worker: NodeBee) -> None:
    job = await queue.enqueue({"act": "return", "value": 5})
    await worker.until("succeeded")
    latecomer = make_queue(is_worker=False)
    found = await latecomer.get_job(job.saved_id())
    assert found is not None
    assert await found.result(timeout=10_000) is None


async def test_a_thrown_text_is_a_failure_without_a_message(
    queue: Queue, worker: NodeBee, redis: Redis
) -> None:
    job = await queue.enqueue({"act": "throw text", "value": "just text"})
    with pytest.raises(JobFailed):
        await job.result(timeout=10_000)
    assert (await record(redis, job))["options"]["stacktraces"] == ["just text"]
    assert len(await worker.until("failed")) == 1


@pytest.mark.parametrize(
    ("backoff", "left", "least_ms"),
    [
        (None, None, 0),
        ("immediate", {"strategy": "immediate"}, 0),
        (("fixed", 40), {"strategy": "fixed", "delay": 40}, 80),
        (("exponential", 20), {"strategy": "exponential", "delay": 80}, 60),
    ],
)
async def test_node_retries_by_the_policy_that_python_asked_for(
    queue: Queue, worker: NodeBee, backoff: Any, left: dict[str, Any] | None, least_ms: int
) -> None:
    began = asyncio.get_running_loop().time()
    heard = Recorder(queue, "job retrying", "job failed", "job succeeded")
    # A chosen id is known before it is sent, so the object misses nothing, however fast Node is.
    job = await queue.enqueue(
        {"act": "flaky", "times": 2, "value": "at last"}, retries=3, backoff=backoff, id="x"
    )
    assert await job.result(timeout=10_000) == "at last"
    assert (asyncio.get_running_loop().time() - began) * 1000 >= least_ms
    await heard.until("job succeeded")
    reported = [(job_id, str(error)) for job_id, error in heard.of("job retrying")]
    assert reported == [(job.id, "attempt 1"), (job.id, "attempt 2")]
    assert heard.of("job failed") == []
    stored = await queue.get_job("x")
    assert stored is not None
    assert (stored.options["retries"], stored.options.get("backoff")) == (1, left)
    assert job.options["retries"] == 1
    assert len(await worker.until("retrying", 2)) == 2


async def test_when_the_retries_are_used_up_the_job_fails(queue: Queue, worker: NodeBee) -> None:
    job = await queue.enqueue({"act": "throw", "value": "never"}, retries=2)
    with pytest.raises(JobFailed, match=r"^never$"):
        await job.result(timeout=10_000)
    assert len(await worker.until("failed:fatal")) == 1
    assert (len(worker.of("retrying")), len(worker.of("failed"))) == (2, 3)
    assert (await queue.check_health()).failed == 1


async def test_node_keeps_the_timeout_that_python_asked_for(queue: Queue, worker: NodeBee) -> None:
    job = await queue.enqueue({"act": "hang"}, timeout=30)
    with pytest.raises(JobFailed, match=rf"^Job {job.id} timed out \(30 ms\)$"):
        await job.result(timeout=10_000)
    assert len(await worker.until("failed:fatal")) == 1


async def test_progress_of_a_node_handler_is_heard_before_the_end(queue: Queue, worker: NodeBee) -> None:
    heard = Recorder(queue, "job progress", "job succeeded")
    # A chosen id is known before it is sent, so the object misses nothing, however fast Node is.
    job = await queue.enqueue(
        {"act": "progress", "steps": [10, {"frames": [1, 2]}, "nearly"], "value": "done"}, id="x"
    )
    assert await job.result(timeout=10_000) == "done"
    await heard.until("job succeeded")
    assert heard.calls == [
        ("job progress", job.id, 10),
        ("job progress", job.id, {"frames": [1, 2]}),
        ("job progress", job.id, "nearly"),
        ("job succeeded", job.id, "done"),
    ]
    assert job.progress == "nearly"
    assert len(await worker.until("handling")) == 1


async def test_a_delayed_job_that_python_raises_runs_in_node(queue: Queue, worker: NodeBee) -> None:
    due_ms = queue.now_ms() + 300
    job = await queue.enqueue({"act": "return", "value": 1}, delay_until=due_ms)
    assert (await queue.check_health()).delayed == 1
    assert await job.result(timeout=10_000) == 1
    assert queue.now_ms() >= due_ms
    assert len(await worker.until("handling")) == 1


async def test_a_delayed_job_of_pythons_wakes_a_node_activator(
    make_queue: MakeQueue, make_node: MakeNode
) -> None:
    """Node looks again in 20 minutes unless the new head is announced."""
    queue = make_queue(is_worker=False, activate_delayed_jobs=False)
    node = await make_node(concurrency=1, activateDelayedJobs=True)
    await queue.ready()
    job = await queue.enqueue({"act": "return", "value": 1}, delay_until=queue.now_ms() + 200)
    assert await job.result(timeout=10_000) == 1
    assert await node.until("raised jobs") == [(1,)]


async def test_a_delayed_retry_of_pythons_wakes_a_node_activator(
    make_queue: MakeQueue, make_node: MakeNode
) -> None:
    worker = make_queue(activate_delayed_jobs=False)
    node = await make_node(isWorker=False, activateDelayedJobs=True)

    @worker.process
    async def flaky(job: Job) -> str:
        if not job.options["stacktraces"]:
            raise ValueError("not yet")
        return "second time"

    job = await worker.enqueue({}, retries=1, backoff=("fixed", 100))
    assert await job.result(timeout=10_000) == "second time"
    assert await node.until("raised jobs") == [(1,)]


async def test_jobs_saved_together_run_in_node_in_their_order(
    make_queue: MakeQueue, make_node: MakeNode
) -> None:
    queue = make_queue(is_worker=False)
    jobs = [queue.create_job({"act": "return", "value": n}) for n in range(50)]
    assert await queue.save_all(jobs) == {}
    node = await make_node(concurrency=1)
    assert [await job.result(timeout=10_000) for job in jobs] == list(range(50))
    assert [job["id"] for (job,) in await node.until("handling", 50)] == [job.id for job in jobs]


async def test_a_job_that_python_removed_never_runs_in_node(
    make_queue: MakeQueue, make_node: MakeNode
) -> None:
    queue = make_queue(is_worker=False)
    first, second = [await queue.enqueue({"act": "return", "value": n}) for n in range(2)]
    await first.remove()
    node = await make_node(concurrency=1)
    assert await second.result(timeout=10_000) == 1
    assert [job["id"] for (job,) in await node.until("handling")] == [second.id]
    assert await node.job(first.saved_id()) is None


async def test_a_job_that_failed_in_node_can_be_retried_by_hand(
    queue: Queue, worker: NodeBee, redis: Redis
) -> None:
    job = await queue.enqueue({"act": "flaky", "times": 1, "value": "second time"})
    with pytest.raises(JobFailed):
        await job.result(timeout=10_000)
    assert await job.retry()
    assert await job.result(timeout=10_000) == "second time"
    assert not await job.retry()
    health = await queue.check_health()
    assert (health.failed, health.succeeded) == (0, 1)
    assert (await record(redis, job))["status"] == "succeeded"
    assert len(await worker.until("handling", 2)) == 2


async def test_data_changed_by_a_node_handler_is_read_by_python(queue: Queue, worker: NodeBee) -> None:
    job = await queue.enqueue({"act": "amend", "value": {"seen": ["by Node", 1.5]}})
    await job.result(timeout=10_000)
    found = await queue.get_job(job.saved_id())
    assert found is not None
    assert found.data == {"act": "amend", "value": {"seen": ["by Node", 1.5]}, "seen": ["by Node", 1.5]}
    assert found.status == "succeeded"
    assert len(await worker.until("succeeded")) == 1


async def test_progress_that_python_reports_is_heard_in_node(queue: Queue, make_node: MakeNode) -> None:
    node = await make_node(isWorker=False)
    job = await queue.enqueue({})
    await node.call("listen", id=job.id)
    assert await job.report_progress({"p": 1}) == 2
    assert await node.until("its progress") == [(job.id, {"p": 1})]
    assert node.of("job progress") == [(job.id, {"p": 1})]


async def test_jobs_in_every_state_look_the_same_from_both_sides(
    queue: Queue, make_node: MakeNode, worker: NodeBee
) -> None:
    done = await queue.enqueue({"act": "return", "value": 1})
    broken = await queue.enqueue({"act": "throw", "value": "x"})
    later = await queue.enqueue({}, delay_until=queue.now_ms() + 3_600_000)
    running = await queue.enqueue({"act": "hang"}, timeout=60_000)
    await worker.until("handling", 3)
    await worker.until("failed:fatal")
    await worker.until("succeeded")
    node = await make_node(isWorker=False)
    for kind, job in {"succeeded": done, "failed": broken, "delayed": later, "active": running}.items():
        [found] = await queue.get_jobs(kind)
        [seen] = await node.call("getJobs", type=kind)
        assert found.id == seen["id"] == job.id
        assert {"data": found.data, "options": found.options, "status": found.status} == {
            key: seen[key] for key in ("data", "options", "status")
        }
    health = await queue.check_health()
    assert await node.call("checkHealth") == {
        "waiting": health.waiting,
        "active": health.active,
        "succeeded": health.succeeded,
        "failed": health.failed,
        "delayed": health.delayed,
        "newestJob": health.newest_job,
    }
    await worker.kill()


async def test_a_record_dropped_by_node_still_gives_its_result(queue: Queue, make_node: MakeNode) -> None:
    await queue.ready()
    node = await make_node(concurrency=1, removeOnSuccess=True)
    job = await queue.enqueue({"act": "return", "value": 7})
    assert await job.result(timeout=10_000) == 7
    assert await queue.get_job(job.saved_id()) is None
    assert len(await node.until("succeeded")) == 1
