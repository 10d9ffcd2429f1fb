"""Whose context variables are seen: a listener's, those of who listens; a handler's, those of who runs the worker.

A queue that is opened by the first request keeps nothing of it.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

import pytest

from beeq import JobFailed
from beeq.supervision.duty import contained
from beeq.sync import Queue as SyncQueue
from tests.support.waiting import eventually

user: ContextVar[Any] = ContextVar("user", default=None)


class Request:
    """What a web framework keeps of one request in a context variable."""


def set_user(value: Any) -> None:
    user.set(value)


async def as_user(value: Any, do: Callable[[], Awaitable[Any]]) -> Any:
    """Await ``do`` in a task with a context of its own."""
    context = copy_context()
    context.run(set_user, value)
    return await asyncio.get_running_loop().create_task(_awaited(do), context=context)


async def _awaited(do: Callable[[], Awaitable[Any]]) -> Any:
    return await do()


async def in_request(do: Callable[[], Awaitable[Any]]) -> weakref.ref[Request]:
    """Await ``do`` as a request does, and return a reference to what it had."""
    request = Request()
    kept = weakref.ref(request)
    await as_user(request, do)
    return kept


async def is_freed(kept: weakref.ref[Any]) -> bool:
    def is_gone() -> bool:
        gc.collect()
        return kept() is None

    await eventually(is_gone, within_s=5, every_s=0.05)
    return True


async def handler(job: Any) -> Any:
    return job.data


async def _result(queue: Any, timeout_ms: int = 50) -> None:
    job = await queue.enqueue({})
    asyncio.get_running_loop().call_later(0.3, Context().run, asyncio.create_task, job.remove())
    with pytest.raises((TimeoutError, JobFailed)):
        await job.result(timeout_ms)


async def _cancelled_result(queue: Any) -> None:
    job = await queue.enqueue({})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(job.result(), 0.05)


#: What a first request may do with a queue that other code has made.
FIRST: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "connect": lambda queue: queue.connect(),
    "ready": lambda queue: queue.ready(),
    "enqueue": lambda queue: queue.enqueue({}),
    "save_all": lambda queue: queue.save_all([queue.create_job({}) for _ in range(1200)]),
    "stats": lambda queue: queue.stats(),
    "get_jobs": lambda queue: queue.get_jobs("waiting"),
    "check_stalled_jobs": lambda queue: queue.check_stalled_jobs(50),
    "a result": _result,
    "a cancelled result": _cancelled_result,
    "a result within an hour": lambda queue: _result(queue, 3_600_000),
    "a large record": lambda queue: queue.enqueue("x" * 3_000_000),
    "many at once": lambda queue: asyncio.gather(*(queue.enqueue({}) for _ in range(300))),
}


@pytest.mark.parametrize("first", FIRST)
async def test_the_first_request_is_freed(make_queue, first):
    queue = make_queue()
    kept = await in_request(lambda: FIRST[first](queue))
    assert await is_freed(kept)
    await queue.enqueue({})
    await asyncio.sleep(0.1)  # duties go on


async def test_the_request_that_opens_a_worker_is_freed(make_queue):
    queue = make_queue(auto_connect=False, stall_interval=300)
    seen: list[Any] = []

    async def handle(_job: Any) -> None:
        seen.append(user.get())

    await as_user("who works", lambda: _process(queue, handle))
    kept = await in_request(queue.connect)
    assert await is_freed(kept)
    await as_user("who enqueues", lambda: queue.enqueue({}))
    await eventually(lambda: seen)
    assert seen == ["who works"]


async def _process(queue: Any, handle: Any) -> None:
    queue.process(handle)


async def test_a_request_whose_job_ran_first_is_freed(make_queue):
    """A handler's own variables are not kept either: not by a fetch, a timer, a call to Redis."""
    queue = make_queue(stall_interval=300)
    kept: list[weakref.ref[Request]] = []

    @queue.process(concurrency=3)
    async def handle(_job: Any) -> None:
        request = Request()
        kept.append(weakref.ref(request))
        user.set(request)
        await asyncio.sleep(0)

    for _ in range(3):
        await (await queue.enqueue({}, timeout=60_000)).result(10_000)
    for each in kept:
        assert await is_freed(each)


async def test_after_a_lost_connection_nothing_is_kept(own_valkey, make_queue, expect_errors):
    queue = make_queue(redis=own_valkey.url, initial_redis_failure_retry_delay=50)
    queue.process(handler)
    await queue.connect()

    async def saves_though_it_is_cut() -> None:
        with own_valkey.sync_client() as client:  # whose timers are no part of this
            for kind in ("normal", "pubsub"):
                client.client_kill_filter(_type=kind, skipme=True)
        await eventually(lambda: expect_errors)
        await (await queue.enqueue({})).result(10_000)

    assert await is_freed(await in_request(saves_though_it_is_cut))


EVENTS = ("succeeded", "job succeeded", "job progress")


@pytest.mark.parametrize("is_coroutine", [False, True])
async def test_a_listener_sees_the_variables_of_who_listens(make_queue, is_coroutine):
    queue = make_queue()
    seen: dict[str, Any] = {}

    def listener(event: str) -> Callable[..., Any]:
        def listen(*_: Any) -> None:
            seen[event] = user.get()
            user.set("a listener")

        async def listen_later(*_: Any) -> None:
            await asyncio.sleep(0)
            listen()

        return listen_later if is_coroutine else listen

    async def listen_all() -> None:
        for event in EVENTS:
            queue.on(event, listener(event))

    async def handle(job: Any) -> None:
        await job.report_progress(1)

    await as_user("who opens", queue.connect)
    await as_user("who listens", listen_all)
    await as_user("who works", lambda: _process(queue, handle))

    async def save() -> None:
        job = queue.create_job({})
        job.on("succeeded", listener("succeeded of the job"))
        await as_user("somebody else", job.save)

    await as_user("who saves", save)
    await eventually(lambda: len(seen) == 4)
    assert seen == {**dict.fromkeys(EVENTS, "who listens"), "succeeded of the job": "who saves"}


async def test_a_listener_may_cause_its_own_event(make_queue):
    queue = make_queue()
    seen: list[int] = []

    def count_down(left: int) -> None:
        seen.append(left)
        if left:
            queue.emit("counted", left - 1)

    queue.on("counted", count_down)
    queue.emit("counted", 2)
    assert seen == [2, 1, 0]


async def test_an_error_listener_sees_its_own_variables(make_queue):
    queue = make_queue()
    seen: list[Any] = []

    async def listen() -> None:
        queue.on("error", lambda _error: seen.append(user.get()))

    await as_user("who listens", listen)
    await as_user("somebody else", queue.connect)
    queue.report_error(ValueError("odd"))
    assert seen == ["who listens"]


@pytest.mark.parametrize("is_coroutine", [False, True])
async def test_each_attempt_has_a_copy_of_the_worker_s_context(make_queue, is_coroutine):
    queue = make_queue()
    seen: list[Any] = []

    def handle(_job: Any) -> None:
        seen.append(user.get())
        user.set("an earlier attempt")

    async def handle_in_loop(job: Any) -> None:
        handle(job)

    await as_user("who opens", queue.connect)
    await as_user("who works", lambda: _process(queue, handle_in_loop if is_coroutine else handle))
    for _ in range(2):
        job = await as_user("who saves", lambda: queue.enqueue({}))
        await job.result(10_000)
    assert seen == ["who works", "who works"]


async def test_run_gives_the_handler_its_own_variables(make_queue):
    """Where ``process`` came before, at import, say, or in the same program."""
    queue = make_queue()
    seen: list[Any] = []

    async def handle(_job: Any) -> None:
        seen.append(user.get())

    await as_user("who registers", lambda: _process(queue, handle))
    running = asyncio.create_task(as_user("who runs", queue.run))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await (await queue.enqueue({})).result(10_000)
    await queue.close()
    await running
    assert seen == ["who runs"]


async def test_duties_live_in_an_empty_context(make_queue, monkeypatch):
    contexts: dict[str, list[Any]] = {}

    async def written_down(function: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        contexts[task.get_name()] = list(copy_context())
        return await contained(function)

    monkeypatch.setattr("beeq.supervision.supervised_task.contained", written_down)
    queue = make_queue()
    await as_user("who works", lambda: _process(queue, handler))
    await as_user("who opens", queue.connect)
    await as_user("who saves", lambda: queue.enqueue({}))
    await eventually(lambda: len(contexts) == 7)
    assert {name: found for name, found in contexts.items() if found} == {}


def test_the_blocking_queue_s_first_thread_is_freed(valkey, queue_name):
    queue = SyncQueue(queue_name, redis=valkey.url)
    kept: list[weakref.ref[Request]] = []

    def first() -> None:
        request = Request()
        kept.append(weakref.ref(request))
        context = Context()
        context.run(set_user, request)
        context.run(queue.enqueue, {})

    thread = threading.Thread(target=first)
    thread.start()
    thread.join()
    queue.enqueue({})
    gc.collect()
    assert kept[0]() is None
    queue.close()
