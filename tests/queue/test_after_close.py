"""Nothing comes back to life after ``close``: who waits, or calls later, hears QueueClosed, and nobody dials.

``connect`` opens another session: ``test_reopening.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from beeq import Queue, QueueClosed, sync
from beeq.service import QueueService
from tests.support.proxy import proxy_to

Call = Callable[[Any, Any], Coroutine[Any, Any, Any]]

#: Every awaitable of a queue or of a job of it.
CALLS: dict[str, Call] = {
    "ready": lambda queue, _job: queue.ready(),
    "enqueue": lambda queue, _job: queue.enqueue("late"),
    "enqueue, own id": lambda queue, _job: queue.enqueue("late", id="late"),
    "enqueue, delayed": lambda queue, _job: queue.enqueue("late", delay_until=queue.now_ms() + 60_000),
    "save": lambda queue, _job: queue.create_job("late").save(),
    "save_all": lambda queue, _job: queue.save_all([queue.create_job(n) for n in range(1200)]),
    "get_job": lambda queue, job: queue.get_job(job.id),
    "get_jobs": lambda queue, _job: queue.get_jobs("waiting"),
    "get_jobs, set": lambda queue, _job: queue.get_jobs("failed"),
    "check_health": lambda queue, _job: queue.check_health(),
    "stats": lambda queue, _job: queue.stats(),
    "queue.is_in_set": lambda queue, job: queue.is_in_set(job.id, "waiting"),
    "job_state": lambda queue, job: queue.job_state(job.id),
    "remove_job": lambda queue, _job: queue.remove_job("none"),
    "cancel_job": lambda queue, job: queue.cancel_job(job.id),
    "check_stalled_jobs": lambda queue, _job: queue.check_stalled_jobs(),
    "check_stalled_jobs, repeated": lambda queue, _job: queue.check_stalled_jobs(50),
    "clean": lambda queue, _job: queue.clean("failed", 0),
    "destroy": lambda queue, _job: queue.destroy(),
    "result": lambda _queue, job: job.result(),
    "result, with a limit": lambda _queue, job: job.result(timeout=60_000),
    "report_progress": lambda _queue, job: job.report_progress(5),
    "remove": lambda _queue, job: job.remove(),
    "cancel": lambda _queue, job: job.cancel(),
    "retry": lambda _queue, job: job.retry(),
    "is_in_set": lambda _queue, job: job.is_in_set("waiting"),
}
ENDS_S = 5.0


@pytest.fixture
async def line(valkey):
    async with proxy_to(valkey.port) as proxy:
        yield proxy


async def connections(redis, name: str) -> int:
    return sum(client["name"] == name for client in await redis.client_list())


def named(line, queue_name: str) -> str:
    return f"{line.url}?client_name={queue_name}"


async def outcome(task: asyncio.Future[Any]) -> Any:
    done, _ = await asyncio.wait([task], timeout=ENDS_S)
    assert done, "it waits for ever"
    return task.exception() or task.result()


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_after_close_is_refused_at_once(make_queue, redis, line, queue_name, name, eventually):
    queue = make_queue(redis=named(line, queue_name), is_worker=False)
    job = await queue.enqueue("job")
    await queue.close()
    for _ in range(2):
        refused = await outcome(asyncio.ensure_future(CALLS[name](queue, job)))
        assert isinstance(refused, QueueClosed)

    async def is_gone() -> bool:
        return await connections(redis, queue_name) == 0

    await eventually(is_gone)


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("connect", "ready")])
async def test_a_call_under_way_at_close_is_refused(make_queue, redis, line, queue_name, name, eventually):
    """Its request was sent, and Redis does not answer."""
    queue = make_queue(redis=named(line, queue_name), is_worker=False)
    job = await queue.enqueue("job")
    await job.is_in_set("waiting")
    line.mute = lambda _request: True
    call = asyncio.ensure_future(CALLS[name](queue, job))
    for _ in range(20):
        await asyncio.sleep(0)
    if name == "result":
        await asyncio.sleep(0.3)  # it has begun to look into Redis
    await asyncio.wait_for(queue.close(), ENDS_S)
    assert isinstance(await outcome(call), QueueClosed)

    async def is_gone() -> bool:
        return await connections(redis, queue_name) == 0

    await eventually(is_gone)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("turns", [0, 1, 3, 10])
async def test_a_call_that_opens_the_queue_at_close_is_refused(
    make_queue, redis, line, queue_name, name, turns
):
    queue = make_queue(redis=named(line, queue_name), is_worker=False)
    job = queue.create_job("job").set_id("x")
    line.freeze()
    call = asyncio.ensure_future(CALLS[name](queue, job))
    for _ in range(turns):
        await asyncio.sleep(0)
    await asyncio.wait_for(queue.close(), ENDS_S)
    assert isinstance(await outcome(call), QueueClosed)
    line.thaw()


async def test_who_waits_for_a_result_hears_of_the_close(make_queue, redis, line, queue_name, eventually):
    """In each stage of the wait: for the event, in the look into Redis, between two looks."""
    queue = make_queue(redis=named(line, queue_name), is_worker=False)
    job = await queue.enqueue("never run")
    waits = []
    for pause_s in (0.6, 0.2, 0.15, 0.05, 0):
        waits += [asyncio.ensure_future(job.result()) for _ in range(20)]
        await asyncio.sleep(pause_s)
    await queue.close()
    for wait in waits:
        assert isinstance(await outcome(wait), QueueClosed)
    assert await connections(redis, queue_name) == 0
    assert not queue.event_hub._waiters


async def test_who_waits_while_redis_is_away_hears_of_the_close(own_valkey, make_queue, expect_errors):
    queue = make_queue(redis=own_valkey.url, is_worker=False)
    job = await queue.enqueue("never run")
    own_valkey.stop()
    calls = [asyncio.ensure_future(call(queue, job)) for call in (CALLS["result"], CALLS["get_job"])]
    await asyncio.sleep(0.15)
    await asyncio.wait_for(queue.close(), ENDS_S)
    for call in calls:
        assert isinstance(await outcome(call), QueueClosed)


async def test_a_worker_that_waits_for_a_job_hears_of_the_close(make_queue):
    """A result is waited for until the drain is over, and by a listener, too."""
    queue = make_queue()
    started, heard = asyncio.Event(), []

    @queue.process
    async def handler(job):
        started.set()
        await asyncio.sleep(0.2)
        return job.data

    first = await queue.enqueue("runs")
    second = await queue.enqueue("waits")
    await started.wait()
    results = [asyncio.ensure_future(job.result()) for job in (first, second)]
    queue.once("succeeded", lambda *_: heard.append(True))
    await queue.close()
    assert await outcome(results[0]) == "runs"
    assert isinstance(await outcome(results[1]), QueueClosed)


async def test_listeners_hear_of_the_last_job_before_the_end_of_close(make_queue):
    """Its event comes by another connection than the reply to its outcome, and later."""
    queue = make_queue()
    started, heard = asyncio.Event(), []
    queue.on("job succeeded", lambda job_id, value: heard.append((job_id, value)))

    @queue.process
    async def handler(job):
        started.set()
        await asyncio.sleep(0.2)
        return job.data

    job = await queue.enqueue("runs")
    job.on("succeeded", heard.append)
    await started.wait()
    await queue.close()
    assert sorted(heard, key=str) == sorted([(job.id, "runs"), "runs"], key=str)


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


async def test_no_thread_of_the_blocking_queue_outlives_close(valkey, queue_name, redis, eventually):
    queue = sync.Queue(queue_name, redis=f"{valkey.url}?client_name={queue_name}")
    job = await asyncio.to_thread(queue.enqueue, "never run")
    ends: list[BaseException] = []

    def wait(call: Callable[[], Any]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - what it is, is looked at
            ends.append(error)

    waits = [threading.Thread(target=wait, args=[job.result], daemon=True) for _ in range(5)]
    for thread in waits:
        thread.start()
    await asyncio.sleep(0.4)
    await asyncio.to_thread(queue.close)
    await eventually(lambda: len(ends) == 5, ENDS_S)
    assert {type(error) for error in ends} == {QueueClosed}
    late = (
        queue.ready,
        lambda: queue.enqueue("late"),
        lambda: queue.save_all([queue.create_job(1)]),
        lambda: queue.get_job(1),
        queue.check_health,
        lambda: queue.create_job(1).save(),
        job.result,
        job.cancel,
        job.remove,
        job.retry,
        lambda: job.report_progress(1),
        lambda: job.is_in_set("waiting"),
    )
    for call in late:
        with pytest.raises(QueueClosed):
            await asyncio.wait_for(asyncio.to_thread(call), ENDS_S)
    await asyncio.to_thread(queue.close)
    assert await connections(redis, queue_name) == 0


async def test_a_service_refuses_every_call_after_close(valkey, queue_name):
    service = QueueService(redis=valkey.url, prefix=queue_name)
    await service.connect()
    await service.close()
    for call in (
        service.get_job_status("x"),
        service.cancel_job("x"),
        service.queue_stats(),
        service.active_counts(),
    ):
        with pytest.raises(QueueClosed):
            await asyncio.wait_for(call, ENDS_S)
    with contextlib.suppress(QueueClosed):
        await service.close()


async def test_listeners_after_close_start_nothing(make_queue):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue("x")
    await queue.close()
    before = asyncio.all_tasks()
    queue.on("job succeeded", print)
    job.on("succeeded", print)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert queue.event_hub._kept == {}


async def test_a_queue_in_its_block_is_closed_with_it(make_queue, queue_name, valkey):
    async with Queue(queue_name, redis=valkey.url, is_worker=False) as queue:
        job = await queue.enqueue("x")
        result = asyncio.ensure_future(job.result())
        await asyncio.sleep(0.2)
    assert isinstance(await outcome(result), QueueClosed)
