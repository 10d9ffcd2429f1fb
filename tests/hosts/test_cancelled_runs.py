"""Who cancels ``run``, or leaves a queue's block by an exception, has left: jobs go back, and that is raised on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from beeq import Queue
from beeq.client.closing import CLOSE_GRACE_S
from beeq.service import QueueService
from beeq.workers import WorkerProcess

#: The bounds of a close, and what a loaded machine adds.
SOON_S = CLOSE_GRACE_S + 5.0


class Handler:
    """A handler that goes on until it is cancelled, and then waits until it may end."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self, _job: Any) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await self.may_end.wait()
            self.ended.set()


async def begin(make_queue: Any, **settings: Any) -> tuple[Any, Handler]:
    queue, handler = make_queue(**settings), Handler()
    queue.process(handler)
    await queue.enqueue("hangs", retries=1)
    return queue, handler


async def places(redis: Any, queue: Any) -> tuple[int, int, int]:
    keys = queue.keys
    return (
        await redis.llen(keys.waiting),
        await redis.llen(keys.active),
        await redis.scard(keys.failed),
    )


async def when_begun(handler: Handler, running: asyncio.Future[Any]) -> None:
    begun = asyncio.ensure_future(handler.begun.wait())
    await asyncio.wait([begun, running], return_when=asyncio.FIRST_COMPLETED)
    assert begun.done()


async def by_a_timeout(handler: Handler, run: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(None) as timeout:
        running = asyncio.ensure_future(handler.begun.wait())
        running.add_done_callback(lambda _begun: timeout.reschedule(0))
        await run()


async def by_cancelling(handler: Handler, run: Callable[[], Awaitable[None]]) -> None:
    running = asyncio.ensure_future(run())
    await when_begun(handler, running)
    running.cancel()
    await running


async def by_a_failing_group(handler: Handler, run: Callable[[], Awaitable[None]]) -> None:
    async def fail() -> None:
        await handler.begun.wait()
        raise ZeroDivisionError

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        group.create_task(run())


LEFT = {
    by_a_timeout: TimeoutError,
    by_cancelling: asyncio.CancelledError,
    by_a_failing_group: ExceptionGroup,
}


@pytest.mark.parametrize("burst", [False, True])
@pytest.mark.parametrize("leave", LEFT)
async def test_who_cancels_a_run_has_stopped_its_worker(make_queue, redis, leave, burst):
    queue, handler = await begin(make_queue)
    with pytest.raises(LEFT[leave]):
        async with asyncio.timeout(SOON_S):
            await leave(handler, lambda: queue.run(burst, catch_signals=False))
    assert handler.ended.is_set()
    assert await places(redis, queue) == (1, 0, 0)
    health = queue.worker_health()
    assert (health.is_taking, health.running) == (False, 0)
    record = await queue.get_job("1")
    assert record.options["retries"] == 1


async def test_a_queue_whose_run_was_cancelled_may_run_again(make_queue, redis):
    queue, handler = await begin(make_queue)
    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            await by_cancelling(handler, lambda: queue.run(catch_signals=False))
        handler.begun.clear()
    assert await places(redis, queue) == (1, 0, 0)
    assert queue.is_running()


async def test_a_second_cancellation_changes_nothing(make_queue, redis):
    queue, handler = await begin(make_queue)
    handler.may_end.clear()
    running = asyncio.ensure_future(queue.run(catch_signals=False))
    await when_begun(handler, running)
    for _ in range(10):
        running.cancel()
        await asyncio.sleep(0.01)
        assert not running.done(), "its handler still cleans up"
    handler.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, SOON_S)
    assert handler.ended.is_set()
    assert await places(redis, queue) == (1, 0, 0)


async def test_a_run_cancelled_while_its_queue_closes_hurries_that(make_queue, redis):
    queue, handler = await begin(make_queue)
    running = asyncio.ensure_future(queue.run(catch_signals=False))
    await when_begun(handler, running)
    closing = asyncio.ensure_future(queue.close(60_000))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, SOON_S)
    assert await places(redis, queue) == (1, 0, 0)
    with pytest.raises(TimeoutError, match="Operation timed out"):
        await closing


async def test_one_of_two_runs_that_is_cancelled_leaves_the_other(make_queue, redis, queue_name):
    queue, handler = await begin(make_queue)
    runs = [asyncio.ensure_future(queue.run(catch_signals=False)) for _ in range(2)]
    await when_begun(handler, runs[0])
    runs[0].cancel()
    await asyncio.wait([runs[0]])
    assert not handler.ended.is_set()
    runs[1].cancel()
    await asyncio.wait([runs[1]], timeout=SOON_S)
    assert handler.ended.is_set()
    assert await places(redis, queue) == (1, 0, 0)


@pytest.mark.parametrize("leave", LEFT)
async def test_who_cancels_a_block_hands_back_and_raises_on(valkey, queue_name, redis, leave):
    handler = Handler()
    queue = Queue(queue_name, redis=valkey.url)

    async def run() -> None:
        async with queue:
            queue.process(handler)
            await queue.enqueue("hangs")
            await asyncio.Event().wait()

    with pytest.raises(LEFT[leave]):
        async with asyncio.timeout(SOON_S):
            await leave(handler, run)
    assert await places(redis, queue) == (1, 0, 0)
    assert not queue.is_running()


async def test_the_error_that_ends_a_block_is_raised(valkey, queue_name, redis, monkeypatch, caplog):
    monkeypatch.setattr("beeq.client.session.CLOSE_TIMEOUT_MS", 50)
    handler = Handler()
    queue = Queue(queue_name, redis=valkey.url)

    async def fail() -> None:
        async with queue:
            queue.process(handler)
            await queue.enqueue("hangs")
            await handler.begun.wait()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await places(redis, queue) == (1, 0, 0)
    (record,) = [record for record in caplog.records if record.name == "beeq"]
    assert "Operation timed out" in record.getMessage()
    assert record.exc_info is None


async def test_a_block_cancelled_as_it_closes_closes_at_once(valkey, queue_name, redis):
    handler = Handler()

    async def run() -> None:
        async with Queue(queue_name, redis=valkey.url, stall_interval=60_000) as queue:
            queue.process(handler)
            await queue.enqueue("hangs")
            await handler.begun.wait()

    running = asyncio.ensure_future(run())
    await when_begun(handler, running)
    for _ in range(10):  # each closes no later
        await asyncio.sleep(0.01)
        running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, SOON_S)
    keys = Queue(queue_name, redis=valkey.url)
    assert await places(redis, keys) == (1, 0, 0)


async def test_a_block_that_is_not_entered_leaves_no_worker(valkey, queue_name, monkeypatch):
    queue = Queue(queue_name, redis=valkey.url)

    async def refuse() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(queue, "connect", refuse)
    queue.process(Handler())
    with pytest.raises(ZeroDivisionError):
        await queue.__aenter__()
    assert not queue.is_running()
    assert queue.worker_health().duties == ()


@pytest.mark.no_audit("the queues are the service's")
@pytest.mark.parametrize("leave", LEFT)
async def test_who_cancels_a_services_block_hands_back(valkey, redis, queue_name, leave):
    handler = Handler()
    prefix = f"{queue_name}-service"

    async def run() -> None:
        async with QueueService(redis=valkey.url, prefix=prefix, is_worker=True) as service:
            queue = service.queues["webhook-processing"]
            queue.process(handler)
            await queue.enqueue({"id": "1"})
            await asyncio.Event().wait()

    with pytest.raises(LEFT[leave]):
        async with asyncio.timeout(SOON_S):
            await leave(handler, run)
    assert await redis.llen(f"{prefix}:webhook-processing:waiting") == 1
    assert await redis.llen(f"{prefix}:webhook-processing:active") == 0
    await redis.delete(*await redis.keys(f"{prefix}:*"))


@pytest.mark.parametrize("leave", LEFT)
async def test_who_cancels_a_worker_process_hands_back(make_queue, redis, leave):
    queue, handler = await begin(make_queue)
    process = WorkerProcess([queue])

    async def work() -> None:
        await process.work(burst=False, shutdown_timeout_ms=60_000, on_started=lambda: None)

    with pytest.raises(LEFT[leave]):
        async with asyncio.timeout(SOON_S):
            await leave(handler, work)
    assert await places(redis, queue) == (1, 0, 0)


async def test_a_cancelled_run_takes_no_more_time_than_a_close(make_queue, redis, recorder):
    """Its handler is deaf."""
    queue = make_queue()
    begun, end = asyncio.Event(), asyncio.Event()

    @queue.process
    async def deaf(_job: Any) -> None:
        begun.set()
        while not end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await end.wait()

    await queue.enqueue({})
    running = asyncio.ensure_future(queue.run(catch_signals=False))
    await begun.wait()
    await asyncio.sleep(0)  # ``run`` begins
    running.cancel()
    await asyncio.wait([running], timeout=SOON_S)
    late = recorder(queue, "error")
    end.set()
    assert running.cancelled()
    assert await places(redis, queue) == (1, 0, 0)
    await late.until("error")


async def test_a_handlers_cancellation_is_its_own_while_nobody_leaves(make_queue, recorder):
    """Its own task's, a task's that it awaits, a future's: each attempt has failed."""
    queue = make_queue()
    record = recorder(queue, "failed:fatal")

    @queue.process(concurrency=3)
    async def handler(job: Any) -> None:
        match job.data:
            case "own":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.Event().wait()
            case "task":
                inner = asyncio.ensure_future(asyncio.sleep(60))
                asyncio.get_running_loop().call_soon(inner.cancel)
                await inner
            case _:
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future

    running = asyncio.ensure_future(queue.run(catch_signals=False))
    await queue.save_all([queue.create_job(kind) for kind in ("own", "task", "future")])
    failures = await record.until("failed:fatal", 3)
    assert {type(error) for _, error in failures} == {asyncio.CancelledError}
    await queue.close()
    await running


async def test_an_old_cancellation_of_the_runner_is_none_of_the_jobs(make_queue, recorder):
    """The task that runs the queue was cancelled once, and has gone on."""
    queue = make_queue()
    record = recorder(queue, "failed:fatal")

    @queue.process
    async def handler(_job: Any) -> None:
        raise asyncio.CancelledError

    async def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await queue.run(catch_signals=False)

    running = asyncio.ensure_future(run())
    await asyncio.sleep(0)  # it begins
    running.cancel()
    await asyncio.sleep(0)
    await queue.enqueue({})
    await record.until("failed:fatal")
    await queue.close()
    await running
