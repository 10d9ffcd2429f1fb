"""How a queue closes: what it waits for, what it gives back, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from beeq import Queue, QueueClosed
from tests.support.waiting import pause

pytestmark = pytest.mark.fast


async def busy_worker(make_queue, handler, **settings):
    """Return a worker whose handler has begun with a job."""
    worker = make_queue(**settings)
    started = asyncio.Event()

    @worker.process
    async def run(job):
        started.set()
        return await handler(job)

    job = await worker.enqueue({"foo": "bar"})
    await asyncio.wait_for(started.wait(), 30)
    return worker, job


async def hang(_job):
    await asyncio.Event().wait()


@pytest.mark.real_redis("fakeredis's CLIENT LIST names no command and no database")
async def test_close_ends_every_connection(make_queue, redis, eventually):
    """Commands, blocking move, events; and the heartbeat's."""
    before = {client["id"] for client in await redis.client_list()}
    worker = make_queue()
    worker.on("job succeeded", lambda _id, _result: None)
    worker.process(hang)
    await worker.ready()

    async def connections():
        return [c for c in await redis.client_list() if c["id"] not in before]

    async def has_all_four():
        return {c["cmd"] for c in await connections()} >= {"blmove", "subscribe"}

    await eventually(has_all_four)
    await worker.close()

    async def has_none():
        return not await connections()

    await eventually(has_none)


async def test_close_leaves_no_task_and_no_thread(make_queue):
    """Nor a periodic stall check."""
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    worker = make_queue(stall_interval=100)
    worker.on("job succeeded", lambda _id, _result: None)

    @worker.process(concurrency=2)
    def handler(_job):
        return threading.current_thread().name

    await worker.check_stalled_jobs(interval=50)
    job = await worker.enqueue({})
    assert "beeq" in await job.result(timeout=5000)
    await worker.close()
    assert asyncio.all_tasks() == tasks
    for thread in set(threading.enumerate()) - threads:
        await asyncio.to_thread(thread.join, 5) if "beeq" in thread.name else None
        assert not thread.is_alive() or "beeq" not in thread.name


async def test_closing_again_is_fine_and_ends_with_the_first(make_queue):
    queue = await make_queue().ready()
    await asyncio.gather(queue.close(), queue.close(), queue.close(100))
    await queue.close()


async def test_close_resolves_to_nothing_when_awaited(make_queue):
    """bee-queue's callback form is the awaitable form."""
    queue = await make_queue().ready()
    assert await queue.close() is None


async def test_an_error_of_closing_the_clients_connection_is_raised(valkey, queue_name):
    client = valkey.client()
    hang_up = client.aclose

    async def fail():
        await hang_up()
        raise OSError("quit failed")

    client.aclose = fail
    queue = Queue(queue_name, redis=client, quit_command_client=True)
    await queue.ready()
    with pytest.raises(OSError, match="quit failed"):
        await queue.close()


async def test_a_closed_worker_takes_no_job_and_another_one_gets_it(make_queue, redis):
    ran = []

    async def first(job):
        ran.append(("first", job.id))

    async def second(job):
        ran.append(("second", job.id))

    closed, open_worker, producer = make_queue(), make_queue(), make_queue()
    closed.process(first)
    await (await producer.enqueue({})).result(timeout=5000)
    await closed.close()
    job = await producer.enqueue({})
    assert await redis.lrange(producer.keys.waiting, 0, -1) == [job.id]
    open_worker.process(second)
    await job.result(timeout=5000)
    assert ran == [("first", "1"), ("second", "2")]


async def test_close_waits_for_the_running_job_and_tells_of_it_first(make_queue, eventually):
    end = asyncio.Event()
    order = []

    async def wait(_job):
        await end.wait()
        return "done"

    worker, job = await busy_worker(make_queue, wait)
    worker.on("succeeded", lambda done, result: order.append((done.id, result)))
    closing = asyncio.ensure_future(worker.close())
    await eventually(lambda: not worker.is_running())
    assert not closing.done()
    end.set()
    await closing
    assert order == [(job.id, "done")]


async def test_a_job_saved_during_the_drain_is_accepted_and_not_run(make_queue, redis, eventually):
    end = asyncio.Event()
    ran = []

    async def wait(job):
        ran.append(job.id)
        await end.wait()

    worker, job = await busy_worker(make_queue, wait)
    closing = asyncio.ensure_future(worker.close())
    await eventually(lambda: not worker.is_running())
    late = await worker.enqueue({"late": True})
    health = await worker.check_health()
    assert (health.waiting, health.active) == (1, 1)
    end.set()
    await closing
    assert ran == [job.id]
    assert await redis.lrange(worker.keys.waiting, 0, -1) == [late.id]


async def test_a_job_that_ends_as_the_close_begins_makes_room_for_none(make_queue, redis, eventually):
    worker = make_queue()
    ran = []

    async def look(job):
        ran.append(job.id)
        while worker.is_running():
            await pause(0)

    producer = make_queue(is_worker=False)
    await producer.save_all([producer.create_job(), producer.create_job()])
    worker.process(look)
    await eventually(lambda: ran)
    await worker.close()
    assert ran == ["1"]
    assert await redis.lrange(worker.keys.waiting, 0, -1) == ["2"]


async def test_close_succeeds_when_the_running_job_fails_in_time(make_queue, eventually):
    end = asyncio.Event()
    failed = []

    async def fail(_job):
        await end.wait()
        raise ValueError("no")

    worker, _job = await busy_worker(make_queue, fail)
    worker.on("failed", lambda _job, error: failed.append(str(error)))
    closing = asyncio.ensure_future(worker.close())
    await eventually(lambda: not worker.is_running())
    end.set()
    await closing
    assert failed == ["no"]


async def test_closing_right_after_construction_is_no_error(make_queue, eventually):
    queue = make_queue()
    errors: list[Any] = []
    queue.on("error", errors.append)
    await queue.close()
    opening = make_queue("another")
    opening.on("error", errors.append)
    ready = asyncio.ensure_future(opening.ready())
    await pause(0)  # the opening begins
    await opening.close()
    with pytest.raises(QueueClosed):
        await ready
    assert errors == []


async def test_a_close_during_opening_tells_those_who_wait_for_it(make_queue):
    """A cancellation that nobody asked for would pass as success in a task group."""
    queue = make_queue()
    waiting = [asyncio.ensure_future(call) for call in (queue.enqueue({}), queue.connect(), queue.stats())]
    await pause(0)  # the opening begins
    await asyncio.wait_for(queue.close(), 5)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [QueueClosed] * 3


@pytest.mark.parametrize(
    "close",
    [
        lambda queue: queue.close(),
        lambda queue: asyncio.wait_for(queue.close(), 5),
        lambda queue: asyncio.gather(queue.close(), queue.close()),
    ],
    ids=["itself", "with a bound", "with others"],
)
async def test_a_listener_that_closes_its_queue_goes_on_to_its_end(make_queue, close):
    queue = make_queue()
    outcomes: dict[str, str] = {}
    has_ended, is_waiting = asyncio.Event(), asyncio.Event()

    async def wait():
        is_waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcomes["other"] = "cancelled"
            raise

    async def end():
        try:
            await is_waiting.wait()
            await close(queue)
            outcomes["closer"] = "went on"
        except asyncio.CancelledError:
            outcomes["closer"] = "cancelled"
            raise
        finally:
            has_ended.set()

    queue.on("ready", wait).on("ready", end)
    await queue.connect()
    await asyncio.wait_for(has_ended.wait(), 30)
    assert outcomes == {"other": "cancelled", "closer": "went on"}
    assert not queue.is_running()


async def test_a_jobs_listener_may_close_the_queue_too(make_queue):
    queue = make_queue()
    outcome = asyncio.get_running_loop().create_future()

    async def end(value):
        try:
            await queue.close()
            outcome.set_result(value)
        except asyncio.CancelledError:
            outcome.set_result("cancelled")

    @queue.process
    async def handler(job):
        return job.data

    await queue.create_job("value").on("succeeded", end).save()
    assert await asyncio.wait_for(outcome, 30) == "value"


async def test_a_listener_past_its_wait_for_close_ends_with_the_queue(make_queue, eventually):
    end = asyncio.Event()

    async def work(_job):
        await end.wait()

    worker, _job = await busy_worker(make_queue, work)
    has_given_up, is_cancelled = asyncio.Event(), asyncio.Event()

    async def close_for_a_moment():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.close(), 0.01)
        has_given_up.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            is_cancelled.set()
            raise

    worker.on("now", close_for_a_moment)
    worker.emit("now")
    await asyncio.wait_for(has_given_up.wait(), 30)
    end.set()
    await asyncio.wait_for(worker.close(), 5)
    assert is_cancelled.is_set()


async def test_closing_after_a_periodic_stall_check_is_no_error(make_queue):
    queue = make_queue(stall_interval=10)
    errors: list[Any] = []
    queue.on("error", errors.append)
    await queue.check_stalled_jobs(interval=10)
    await queue.close()
    assert errors == []


@pytest.mark.parametrize("timeout_ms", [None, 0, -5, True])
async def test_a_timeout_of_none_zero_or_less_means_the_default(make_queue, timeout_ms):
    end = asyncio.Event()

    async def wait(_job):
        await end.wait()

    worker, _job = await busy_worker(make_queue, wait)
    closing = asyncio.ensure_future(worker.close(timeout_ms))
    done, _ = await asyncio.wait([closing], timeout=0.05)
    assert not done
    end.set()
    await closing


async def test_a_second_close_with_a_shorter_timeout_shortens_the_wait(make_queue, eventually):
    worker, _job = await busy_worker(make_queue, hang)
    closing = asyncio.ensure_future(worker.close(60_000))
    await eventually(lambda: not worker.is_running())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(worker.close(10), 5)
    with pytest.raises(TimeoutError, match="Operation timed out"):
        await closing


async def test_each_close_with_a_shorter_timeout_shortens_the_wait(make_queue, eventually):
    worker, _job = await busy_worker(make_queue, hang)
    closings = [asyncio.ensure_future(worker.close(60_000))]
    await eventually(lambda: not worker.is_running())
    for timeout_ms in (50_000, 10, 40_000):
        closings.append(asyncio.ensure_future(worker.close(timeout_ms)))
        await pause(0)  # it is asked
    outcomes = await asyncio.wait_for(asyncio.gather(*closings, return_exceptions=True), 5)
    assert [str(outcome) for outcome in outcomes] == ["Operation timed out."] * 4


async def test_a_client_that_was_passed_in_stays_usable(valkey, queue_name):
    async with valkey.client() as client:
        queue = Queue(queue_name, redis=client)
        await queue.enqueue({})
        await queue.close()
        assert await client.ping()
        assert await client.delete(*queue.keys.every()) > 0


async def test_a_client_that_was_passed_in_is_closed_on_request(valkey, queue_name, redis, eventually):
    client = valkey.client(client_name="passed-in")
    await client.ping()
    queue = Queue(queue_name, redis=client, quit_command_client=True)
    await queue.ready()
    await queue.close()

    async def is_gone():
        return all(c["name"] != "passed-in" for c in await redis.client_list())

    await eventually(is_gone)


async def test_commands_after_close_are_refused(make_queue):
    """In bee-queue's words: closed."""
    queue = make_queue()
    job = await queue.enqueue({})
    await queue.close()
    for call in (
        queue.enqueue({}),
        queue.get_job(job.id),
        queue.get_jobs("waiting"),
        queue.check_health(),
        queue.remove_job(job.id),
        queue.check_stalled_jobs(),
        queue.save_all([queue.create_job({})]),
        job.report_progress(1),
        job.retry(),
        job.is_in_set("failed"),
        job.result(timeout=10),
        queue.run(),
    ):
        with pytest.raises(QueueClosed, match="^closed$"):
            await call
