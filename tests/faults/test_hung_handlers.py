"""Handlers that go on after their time: so many and no more, then the worker takes no jobs until some end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from beeq import Queue
from beeq.errors import HandlersHang
from beeq.worker.attempts import runner
from beeq.worker.attempts.thread_pool import ThreadPool


def hung_threads() -> int:
    return sum(thread.name.startswith("beeq-handler") for thread in threading.enumerate())


async def test_hung_threads_have_a_ceiling(make_queue, recorder, eventually, expect_errors):
    queue = make_queue(max_hung=20)
    ended = recorder(queue, "succeeded", "failed", "hung")
    go_on = threading.Event()

    def handler(job: Any) -> None:
        if job.data == "hang":
            go_on.wait(60)

    before = hung_threads()
    queue.process(handler, 10)
    await queue.save_all([queue.create_job("hang").timeout(20) for _ in range(1000)])
    try:
        assert await ended.until("hung") == [(20,)]
        await eventually(lambda: not queue.worker_health().places_taken)
        health = queue.worker_health()
        assert health.hung >= 20
        assert (health.is_taking, health.is_healthy, health.places_taken) == (False, False, 0)
        failed = len(ended.of("failed"))
        assert failed <= 30  # those that ran when the ceiling was reached
        assert hung_threads() - before <= 30
        assert await queue.is_in_set((await queue.enqueue("more")).id, "waiting")
        assert [type(error).__name__ for error in expect_errors] == ["HandlersHang"]
        assert (await queue.check_health()).waiting == 1001 - failed
    finally:
        go_on.set()
    # A busy machine may need longer than their timeout for some of the rest, too.
    await eventually(lambda: len(ended.of("succeeded") + ended.of("failed")) == 1001)
    assert len(ended.of("succeeded")) > 500
    await eventually(lambda: queue.worker_health().hung == 0)
    assert queue.worker_health().is_taking


async def test_coroutines_that_ignore_their_end_count_too(make_queue, recorder, eventually, expect_errors):
    queue = make_queue(max_hung=1)
    ended = recorder(queue, "succeeded", "hung")
    go_on = asyncio.Event()

    @queue.process
    async def handler(job: Any) -> None:
        while job.data == "hang" and not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue

    await queue.enqueue("hang", timeout=20)
    await ended.until("hung")
    await queue.enqueue("well")
    assert not queue.worker_health().is_taking
    go_on.set()
    await ended.until("succeeded")
    assert queue.worker_health().hung == 0


async def test_a_paused_worker_closes_in_time(make_queue, recorder, expect_errors):
    queue = make_queue(max_hung=1)
    ended = recorder(queue, "hung")
    go_on = threading.Event()
    queue.process(lambda _job: go_on.wait(60), 2)
    await queue.enqueue(timeout=20)
    await ended.until("hung")
    await queue.enqueue()
    try:
        await asyncio.wait_for(queue.close(timeout=2000), 10)
    finally:
        go_on.set()


async def test_a_burst_ends_where_too_many_handlers_hang(make_queue, expect_errors):
    queue = make_queue(max_hung=2)
    go_on = threading.Event()
    queue.process(lambda _job: go_on.wait(60), 2)
    await queue.save_all([queue.create_job().timeout(50) for _ in range(6)])
    try:
        with pytest.raises(HandlersHang, match="2 handlers"):
            await asyncio.wait_for(queue.run(burst=True, catch_signals=False), 30)
        counts = await queue.check_health()
        assert (counts.active, counts.waiting + counts.failed) == (0, 6)
        assert counts.waiting >= 2
        assert not queue.worker_health().is_taking
    finally:
        go_on.set()


async def test_a_burst_in_which_what_hung_has_ended_goes_on(make_queue, monkeypatch, recorder, expect_errors):
    """The pause has begun and is over before the burst looks."""
    queue = make_queue(max_hung=1)
    ends = recorder(queue, "failed", "succeeded")
    hangs = asyncio.Event()

    @queue.process
    async def handler(job: Any) -> None:
        if job.data == "hang":
            hangs.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    await queue.save_all([queue.create_job("hang")])
    running = asyncio.create_task(queue.run(burst=True, catch_signals=False))
    await hangs.wait()
    await queue.enqueue("well")
    worker = queue._consumer.worker
    worker._runner.hung += 1
    worker._hung_changed()
    worker._runner.hung -= 1
    worker._hung_changed()
    (attempt,) = worker._attempts
    attempt.task.cancel()
    await asyncio.wait_for(running, 30)
    assert len(ends.of("succeeded")) + len(ends.of("failed")) == 2


@pytest.mark.parametrize("max_hung", [0, -1])
def test_a_ceiling_is_at_least_one(make_queue, max_hung):
    with pytest.raises(ValueError, match=f"max_hung must be at least 1, not {max_hung}"):
        make_queue(max_hung=max_hung)


async def test_a_handler_stopped_before_it_began_does_not_hang(monkeypatch, eventually):
    """Its cancellation may come in the very turn of the loop in which it was started."""
    monkeypatch.setattr(runner, "GRACE_S", 0.01)
    ended: list[Any] = []

    async def handler(_job: Any) -> None:
        await asyncio.Event().wait()

    runs = runner.Runner(
        handler,
        executor="auto",
        concurrency=1,
        on_end=lambda attempt, *_end: ended.append(attempt),
        on_late=lambda *_end: None,
    )
    attempt = runner.Attempt(Queue("addition").create_job(), b"1", b"claim")
    runs.start(attempt)
    runs.stop(attempt)
    await eventually(lambda: ended == [attempt])
    assert runs.hung == 0


async def test_a_thread_that_ends_as_it_is_cancelled_does_not_hang(monkeypatch, eventually):
    """Its end may come between the cancellation and the turn of the task that waits for it."""
    ended: list[Any] = []
    calls: list[Any] = []
    monkeypatch.setattr(ThreadPool, "run", lambda _pool, _function, on_end: calls.append(on_end))
    runs = runner.Runner(
        lambda _job: None,
        executor="auto",
        concurrency=1,
        on_end=lambda attempt, *_end: ended.append(attempt),
        on_late=lambda *_end: None,
    )
    attempt = runner.Attempt(Queue("addition").create_job(), b"1", b"claim")
    runs.start(attempt)
    await eventually(lambda: calls)
    runs.stop(attempt)
    calls[0](None, None)
    await eventually(lambda: ended == [attempt])
    assert runs.hung == 0
