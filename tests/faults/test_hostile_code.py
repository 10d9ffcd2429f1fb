"""Code of handlers, listeners and strategies at its oddest: an attempt ends once, and nobody else notices."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from beeq.client.events import listeners
from beeq.errors import JobFailed
from tests.support import hostile
from tests.support.waiting import Recorder, eventually

EXECUTORS = {"a coroutine": hostile.handle_in_loop, "a thread": hostile.handle}
BEHAVIOURS = [
    *(("error", name) for name in hostile.ERRORS),
    *(("result", name) for name in hostile.RESULTS),
    *(("awaitable", name) for name in hostile.AWAITABLES),
]


async def works_on(queue: Any, redis: Any, ended: Recorder) -> None:
    """Expect that two places run five more jobs, and that nothing is held then."""
    before = len(ended.of("succeeded"))
    for _ in range(5):
        await queue.enqueue(["nothing", ""])
    await ended.until("succeeded", before + 5)
    await eventually(lambda: queue.worker_health().places_taken == 0)
    assert queue.worker_health().running == 0
    assert not await redis.lrange(queue.keys.active, 0, -1)
    assert not await redis.hgetall(queue.keys.claims)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("kind", ["error", "result", "awaitable"])
async def test_a_worker_outlives_whatever_a_handler_does(
    make_queue, redis, recorder, expect_errors, kind, executor
):
    queue = make_queue()
    ended = recorder(queue, "succeeded", "failed:fatal")
    queue.process(EXECUTORS[executor], 2)
    behaviours = [behaviour for behaviour in BEHAVIOURS if behaviour[0] == kind]
    texts = {}
    for behaviour in behaviours:
        job = await queue.enqueue(behaviour)
        try:
            await job.result(timeout=20_000)
        except JobFailed as failure:
            texts[behaviour] = str(failure)
        else:
            pytest.fail(f"{behaviour} was taken for a success")
    assert len(await ended.until("failed:fatal", len(behaviours))) == len(behaviours)
    assert all(texts.values())
    await works_on(queue, redis, ended)


async def test_a_child_process_outlives_whatever_a_handler_does(make_queue, redis, recorder, expect_errors):
    queue = make_queue()
    ended = recorder(queue, "succeeded", "failed:fatal")
    queue.process(hostile.handle, 2, executor="process")
    behaviours = [behaviour for behaviour in BEHAVIOURS if behaviour[0] != "awaitable"]
    for behaviour in behaviours:
        await queue.enqueue(behaviour)
    failed = await ended.until("failed:fatal", len(behaviours))
    assert not [job.data for job, error in failed if "child process" in str(error)]
    await works_on(queue, redis, ended)


async def test_an_unprintable_error_is_named_by_its_class(make_queue, recorder):
    queue = make_queue()
    ended = recorder(queue, "failed:fatal")
    queue.process(hostile.handle_in_loop)
    await queue.enqueue(["error", "__str__ raises CancelledError"])
    await ended.until("failed:fatal")
    (job,) = await queue.get_jobs("failed")
    assert job.options["stacktraces"][0].startswith("Odd: Odd\n")


async def test_a_result_that_another_thread_changes_is_recorded(make_queue, recorder):
    queue = make_queue()
    ended = recorder(queue, "succeeded", "failed")
    over = threading.Event()
    shared: dict[Any, Any] = dict.fromkeys(range(20_000))

    def change() -> None:
        n = len(shared)
        while not over.is_set():
            n += 1
            shared[n] = None
            shared.pop(n - 1000, None)

    async def handler(_job: Any) -> Any:
        return shared

    changer = threading.Thread(target=change)
    changer.start()
    try:
        queue.process(handler, 2)
        for _ in range(5):
            await queue.enqueue()
        await ended.until("succeeded", 5)
    finally:
        over.set()
        changer.join()


BROKEN_JOBS: dict[str, dict[str, Any]] = {
    "options is None": {"options": None},
    "options is a list": {"options": []},
    "options cannot be read": {"options": hostile.OddDict(asyncio.CancelledError)},
    "data cannot be read": {"data": hostile.OddDict(asyncio.CancelledError)},
    "data is an object": {"data": object()},
    "progress is an object": {"progress": hostile.OddList(KeyboardInterrupt)},
    "status is an object": {"status": object()},
}


@pytest.mark.parametrize("fails", [False, True], ids=["and returns", "and raises"])
async def test_a_handler_may_break_its_job(make_queue, redis, recorder, expect_errors, fails):
    queue = make_queue()
    ended = recorder(queue, "succeeded", "failed:fatal")

    @queue.process(concurrency=2)
    async def handler(job: Any) -> Any:
        name = job.data[1]
        for attribute, value in BROKEN_JOBS.get(name, {}).items():
            setattr(job, attribute, value)
        if fails and name:
            raise ValueError("odd")

    for name in BROKEN_JOBS:
        await queue.enqueue(["break", name])
    await eventually(lambda: len(ended.calls) == len(BROKEN_JOBS))
    await works_on(queue, redis, ended)


class OddNumber:
    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __ge__(self, _other: Any) -> bool:
        raise self.kind("from inside")


class OddCeiling(OddNumber):
    def __ge__(self, _other: Any) -> bool:
        return True

    def __ceil__(self) -> Any:
        return "soon"


async def test_a_strategy_may_do_anything(make_queue, redis, recorder):
    queue = make_queue()
    ended = recorder(queue, "succeeded", "failed:fatal")
    answers = [float("nan"), float("inf"), -1, None, "soon", object(), OddCeiling(ValueError)]
    answers += [OddNumber(kind) for kind in hostile.KINDS]
    for n, answer in enumerate(answers):
        queue.backoff_strategies[f"answers {n}"] = lambda _job, answer=answer: answer
    for kind in hostile.KINDS:
        queue.backoff_strategies[f"raises {kind.__name__}"] = hostile._raiser(kind)
    names = [name for name in queue.backoff_strategies if name.startswith(("answers", "raises"))]
    queue.process(hostile.handle_in_loop, 2)
    for name in names:
        await queue.enqueue(["error", "ValueError"], retries=3, backoff=(name, 10))
    await ended.until("failed:fatal", len(names))
    await works_on(queue, redis, ended)


@pytest.mark.parametrize("how", ["a function", "a coroutine"])
@pytest.mark.parametrize("event", ["succeeded", "failed", "failed:fatal", "job succeeded", "job failed"])
async def test_a_listener_may_raise_anything(make_queue, redis, recorder, expect_errors, event, how):
    queue = make_queue()
    errors = list(hostile.ERRORS)
    calls: list[str] = []

    def odd(*_: Any) -> None:
        calls.append(event)
        hostile.raise_error(errors[len(calls) % len(errors)])

    async def odd_later(*_: Any) -> None:
        await asyncio.sleep(0)
        odd()

    queue.on(event, odd if how == "a function" else odd_later)
    ended = recorder(queue, event, "succeeded")
    await queue.ready()
    queue.process(hostile.handle_in_loop, 2)
    is_failing = "fail" in event
    for _ in range(200):
        await queue.enqueue(["error", "ValueError"] if is_failing else ["nothing", ""])
    await ended.until(event, 200)
    await eventually(lambda: len(calls) >= 200)
    await eventually(lambda: len(expect_errors) >= 200)
    await works_on(queue, redis, ended)


async def test_a_jobs_listener_may_raise_anything(make_queue, redis, recorder, expect_errors):
    queue = make_queue()
    ended = recorder(queue, "succeeded")
    queue.process(hostile.handle_in_loop, 2)
    heard: list[str] = []
    for name in hostile.ERRORS:

        def odd(_result: Any, name: str = name) -> None:
            hostile.raise_error(name)

        job = queue.create_job(["nothing", ""])
        job.on("succeeded", odd).once("succeeded", odd).on("succeeded", heard.append)
        await job.save()
    await eventually(lambda: len(heard) == len(hostile.ERRORS))
    assert len(expect_errors) == 2 * len(hostile.ERRORS)
    await works_on(queue, redis, ended)


@pytest.mark.parametrize("name", hostile.ERRORS)
async def test_an_error_listener_may_raise_anything(make_queue, redis, recorder, caplog, name):
    queue = make_queue()
    ended = recorder(queue, "succeeded")

    def odd(*_: Any) -> None:
        hostile.raise_error(name)

    queue.on("error", odd)
    queue.on("succeeded", odd)
    queue.process(hostile.handle_in_loop, 2)
    await works_on(queue, redis, ended)
    assert sum(": an error listener failed: " in record.getMessage() for record in caplog.records) == 5


def test_an_error_nobody_listens_to_is_logged_however_odd(caplog):
    from beeq.client.owning_loop import OwningLoop

    own = listeners.Listeners("mail", OwningLoop("mail"))
    for make_error in hostile.ERRORS.values():
        own.report_error(make_error())
    assert len(caplog.records) == len(hostile.ERRORS)
    assert all(record.levelno == logging.ERROR for record in caplog.records)


async def test_a_handler_that_cannot_be_cancelled_frees_its_place(make_queue, redis, recorder):
    queue = make_queue()
    ended = recorder(queue, "succeeded", "failed:fatal")
    left: list[asyncio.Future[None]] = []

    @queue.process(concurrency=2)
    async def handler(job: Any) -> None:
        if job.data[0] == "hang":
            left.append(hostile.UncancellableFuture(loop=asyncio.get_running_loop()))
            await left[-1]

    await queue.enqueue(["hang", ""], timeout=50)
    await queue.enqueue(["hang", ""], timeout=50)
    await ended.until("failed:fatal", 2)
    assert queue.worker_health().hung == 2
    await works_on(queue, redis, ended)
    for future in left:
        future.set_result(None)
    await eventually(lambda: queue.worker_health().hung == 0)


async def test_a_handler_may_cancel_its_own_task(make_queue, redis, recorder):
    queue = make_queue()
    ended = recorder(queue, "succeeded", "failed:fatal")

    @queue.process(concurrency=2)
    async def handler(job: Any) -> None:
        if job.data[0] != "nothing":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if job.data[0] == "wait":
                await asyncio.sleep(0)

    await queue.enqueue(["wait", ""])
    await queue.enqueue(["return", ""])
    await ended.until("failed:fatal")
    await ended.until("succeeded")
    await works_on(queue, redis, ended)


async def test_a_slow_listener_gets_a_bounded_line(
    make_queue, eventually, expect_errors, caplog, monkeypatch
):
    monkeypatch.setattr(listeners, "MAX_RUNNING", 100)
    monkeypatch.setattr(listeners, "MAX_WAITING", 1000)
    queue = make_queue()
    go_on = asyncio.Event()
    heard: list[int] = []

    async def slow(n: int) -> None:
        await go_on.wait()
        heard.append(n)

    queue.on("news", slow)
    before = len(asyncio.all_tasks())
    for n in range(20_000):
        queue.emit("news", n)
    assert len(asyncio.all_tasks()) <= before + 100
    assert [type(error).__name__ for error in expect_errors] == ["ListenerTooSlow"]
    go_on.set()
    await eventually(lambda: len(heard) == 1100)
    assert heard == list(range(1100))
    await eventually(lambda: "18900 events dropped" in caplog.text)
    queue.emit("news", 7)
    await eventually(lambda: heard[-1] == 7)
    await queue.close()


async def test_a_listener_that_keeps_up_misses_nothing(make_queue, eventually):
    queue = make_queue()
    heard: list[int] = []

    async def quick(n: int) -> None:
        heard.append(n)

    queue.on("news", quick)
    for n in range(10_000):
        queue.emit("news", n)
    await eventually(lambda: len(heard) == 10_000)
    assert heard == list(range(10_000))
    await queue.close()


async def test_closing_ends_the_line_of_a_listener(make_queue, monkeypatch, recwarn):
    monkeypatch.setattr(listeners, "MAX_RUNNING", 2)
    queue = make_queue()
    await queue.ready()
    never = asyncio.Event()

    async def slow(_n: int) -> None:
        await never.wait()

    queue.on("news", slow)
    for n in range(10):
        queue.emit("news", n)
    await asyncio.sleep(0)
    await queue.close()
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]
