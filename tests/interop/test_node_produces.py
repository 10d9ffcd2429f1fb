"""npm's bee-queue makes the jobs and listens; Python works."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from beeq import Queue
from beeq.errors import Discard, Retry
from tests.interop.handlers import handle
from tests.support.node_bee import NodeBee, NodeError

MakeQueue = Callable[..., Queue]


@pytest.fixture
async def worker(make_queue: MakeQueue) -> Queue:
    """A worker that begins with ``process``: after Node has saved, so that Node knows the job by then.

    An event that overtakes the reply to ``save`` is lost to the job object in Node.
    """
    return make_queue(delayed_debounce=1)


async def record(redis: redis.asyncio.Redis, queue: Queue, job_id: str) -> Any:
    return json.loads(await redis.hget(queue.keys.jobs, job_id) or "null")


async def test_a_result_reaches_the_node_job_and_the_node_queue(worker: Queue, node: NodeBee) -> None:
    job_id = await node.save({"act": "return", "value": {"sum": [1, 2.5, "größe", None, True]}})
    worker.process(handle)
    expected = (job_id, {"sum": [1, 2.5, "größe", None, True]})
    assert await node.until("its succeeded") == [expected]
    assert await node.until("job succeeded") == [expected]
    assert (await node.call("checkHealth"))["succeeded"] == 1
    assert await node.call("isInSet", id=job_id, set="succeeded") is True


async def test_returning_nothing_is_undefined_in_node(worker: Queue, node: NodeBee) -> None:
    job_id = await node.save({"act": "return"})
    worker.process(handle)
    assert await node.until("job succeeded") == [(job_id, {"$undefined": True})]


@pytest.mark.parametrize("value", [0, False, "", [], {}])
async def test_a_falsy_result_stays_what_it_is(worker: Queue, node: NodeBee, value: Any) -> None:
    job_id = await node.save({"act": "return", "value": value})
    worker.process(handle)
    assert await node.until("job succeeded") == [(job_id, value)]


async def test_a_failure_is_an_error_with_its_message_in_node(
    worker: Queue, node: NodeBee, redis: redis.asyncio.Redis
) -> None:
    job_id = await node.save({"act": "throw", "value": "no such file: größe"})
    worker.process(handle)
    assert await node.until("its failed") == [(job_id, {"$error": "no such file: größe"})]
    assert await node.until("job failed") == [(job_id, {"$error": "no such file: größe"})]
    assert node.of("its retrying") == []
    stored = await record(redis, worker, job_id)
    assert stored["status"] == "failed"
    assert len(stored["options"]["stacktraces"]) == 1
    assert "no such file: größe" in stored["options"]["stacktraces"][0]
    assert await node.call("isInSet", id=job_id, set="failed") is True


@pytest.mark.parametrize(
    ("backoff", "left", "least_ms"),
    [
        (None, None, 0),
        (["immediate"], {"strategy": "immediate"}, 0),
        (["fixed", 40], {"strategy": "fixed", "delay": 40}, 80),
        (["exponential", 20], {"strategy": "exponential", "delay": 80}, 60),
    ],
)
async def test_retries_follow_the_policy_that_node_asked_for(
    worker: Queue, node: NodeBee, backoff: list[Any] | None, left: dict[str, Any] | None, least_ms: int
) -> None:
    ask = {"backoff": backoff} if backoff else {}
    began = asyncio.get_running_loop().time()
    job_id = await node.save({"act": "flaky", "times": 2, "value": "at last"}, retries=3, **ask)
    worker.process(handle)
    assert await node.until("its succeeded") == [(job_id, "at last")]
    assert (asyncio.get_running_loop().time() - began) * 1000 >= least_ms
    expected = [(job_id, {"$error": "attempt 1"}), (job_id, {"$error": "attempt 2"})]
    assert node.of("its retrying") == expected
    assert node.of("job retrying") == expected
    assert node.of("job failed") == []
    stored = await worker.get_job(job_id)
    assert stored is not None
    options = stored.options
    assert options["retries"] == 1
    assert options.get("backoff") == left
    assert ["attempt 2" in options["stacktraces"][0], "attempt 1" in options["stacktraces"][1]] == [
        True,
        True,
    ]


async def test_when_the_retries_are_used_up_the_job_fails_in_node(worker: Queue, node: NodeBee) -> None:
    job_id = await node.save({"act": "throw", "value": "never"}, retries=2)
    worker.process(handle)
    assert await node.until("its failed") == [(job_id, {"$error": "never"})]
    assert len(node.of("its retrying")) == 2
    assert (await node.call("checkHealth"))["failed"] == 1


async def test_retry_and_discard_look_like_retry_and_failure_to_node(
    make_queue: MakeQueue, node: NodeBee
) -> None:
    worker = make_queue(delayed_debounce=1)

    @worker.process
    async def choose(job: Any) -> None:
        if not job.options["stacktraces"]:
            raise Retry(after=20, reason="the other side is busy")
        raise Discard("it will never work")

    job_id = await node.save({}, retries=5, backoff=["fixed", 600_000])
    assert await node.until("its failed") == [(job_id, {"$error": "it will never work"})]
    assert node.of("its retrying") == [(job_id, {"$error": "the other side is busy"})]


async def test_nodes_timeout_fails_the_job_with_nodes_words(worker: Queue, node: NodeBee) -> None:
    job_id = await node.save({"act": "hang"}, timeout=30)
    worker.process(handle)
    assert await node.until("its failed") == [(job_id, {"$error": f"Job {job_id} timed out (30 ms)"})]


async def test_progress_reaches_the_node_job_before_the_end(worker: Queue, node: NodeBee) -> None:
    job_id = await node.save(
        {"act": "progress", "steps": [10, {"frames": [1, 2]}, "nearly"], "value": "done"}
    )
    worker.process(handle)
    await node.until("its succeeded")
    assert [news[0] for news in node.news if news[0].startswith("its ")] == ["its progress"] * 3 + [
        "its succeeded"
    ]
    assert node.of("its progress") == [(job_id, 10), (job_id, {"frames": [1, 2]}), (job_id, "nearly")]
    assert node.of("job progress") == node.of("its progress")


async def test_a_job_that_node_delayed_runs_when_due_and_not_before(worker: Queue, node: NodeBee) -> None:
    due_ms = worker.now_ms() + 300
    ran_ms = asyncio.get_running_loop().create_future()
    worker.on("succeeded", lambda _job, _result: ran_ms.set_result(worker.now_ms()))
    await worker.ready()
    job_id = await node.save({"act": "return", "value": 1}, delayUntil=due_ms)
    worker.process(handle)
    assert (await worker.check_health()).delayed == 1
    assert [job.id for job in await worker.get_jobs("delayed")] == [job_id]
    assert await asyncio.wait_for(ran_ms, 30) >= due_ms
    assert await node.until("its succeeded") == [(job_id, 1)]


async def test_many_jobs_saved_at_once_by_node_run_in_their_order(
    make_queue: MakeQueue, node: NodeBee
) -> None:
    worker = make_queue(is_worker=True)
    saved = await node.call("saveAll", jobs=[{"data": {"n": n}} for n in range(50)])
    assert saved == {"ids": [str(n) for n in range(1, 51)], "errors": []}
    order = []

    @worker.process
    async def note(job: Any) -> None:
        order.append(job.data["n"])

    await node.until("its succeeded", 50)
    assert order == list(range(50))


async def test_a_job_that_node_removed_never_runs(make_queue: MakeQueue, node: NodeBee) -> None:
    first, second = [await node.save({"act": "return", "value": n}) for n in range(2)]
    await node.call("removeJob", id=first)
    worker = make_queue()
    assert await worker.get_job(first) is None
    worker.process(handle)
    assert await node.until("job succeeded") == [(second, 1)]
    assert (await worker.check_health()).succeeded == 1


async def test_a_failed_job_that_node_retries_by_hand_runs_again(worker: Queue, node: NodeBee) -> None:
    job_id = await node.save({"act": "flaky", "times": 1, "value": "second time"})
    worker.process(handle)
    await node.until("its failed")
    await node.call("retry", id=job_id)
    assert await node.until("job succeeded") == [(job_id, "second time")]
    health = await worker.check_health()
    assert (health.failed, health.succeeded) == (0, 1)


async def test_data_changed_by_a_python_handler_is_read_by_node(
    worker: Queue, node: NodeBee, make_node: Any
) -> None:
    job_id = await node.save({"act": "amend", "value": {"seen": ["by Python", 1.5]}})
    worker.process(handle)
    await node.until("its succeeded")
    other = await make_node(isWorker=False)
    job = await other.job(job_id)
    assert job["data"] == {"act": "amend", "value": {"seen": ["by Python", 1.5]}, "seen": ["by Python", 1.5]}
    assert job["status"] == "succeeded"


async def test_progress_that_node_reports_is_heard_in_python(make_queue: MakeQueue, node: NodeBee) -> None:
    queue = make_queue(is_worker=False)
    heard = asyncio.get_running_loop().create_future()
    queue.on("job progress", lambda job_id, value: heard.set_result((job_id, value)))
    await queue.ready()
    job_id = await node.save({})
    assert await node.call("reportProgress", id=job_id, value={"p": 1}) == 2
    assert await asyncio.wait_for(heard, 30) == (job_id, {"p": 1})


async def test_jobs_that_python_finished_are_listed_by_node(worker: Queue, node: NodeBee) -> None:
    done = await node.save({"act": "return", "value": 1})
    broken = await node.save({"act": "throw", "value": "x"})
    worker.process(handle)
    await node.until("job succeeded")
    await node.until("job failed")
    assert [job["id"] for job in await node.call("getJobs", type="succeeded", page={"size": 10})] == [done]
    assert [job["id"] for job in await node.call("getJobs", type="failed", page={"size": 10})] == [broken]
    health = await worker.check_health()
    assert await node.call("checkHealth") == {
        "waiting": health.waiting,
        "active": health.active,
        "succeeded": health.succeeded,
        "failed": health.failed,
        "delayed": health.delayed,
        "newestJob": health.newest_job,
    }


async def test_a_record_dropped_by_the_python_worker_is_gone_for_node(
    make_queue: MakeQueue, make_node: Any
) -> None:
    worker = make_queue(remove_on_success=True, remove_on_failure=True)
    worker.process(handle)
    node = await make_node(isWorker=False, storeJobs=False)
    done = await node.save({"act": "return", "value": 1})
    broken = await node.save({"act": "throw", "value": "x"})
    await node.until("job succeeded")
    await node.until("job failed")
    assert [await node.job(done), await node.job(broken)] == [None, None]
    assert await node.save({}, id=done) == done


async def test_the_error_of_a_closed_node_queue_is_nodes_own(node: NodeBee) -> None:
    """The driver passes on what bee-queue says."""
    await node.call("close", timeout=1000)
    with pytest.raises(NodeError, match=r"^closed$"):
        await node.call("checkHealth")
