"""A worker ends with the event loop that it works in, however that ends; nobody has called ``close``.

``asyncio.run`` cancels all tasks at its end: the jobs go back. A loop that just stops leaves them to the stall
check, for nobody beats for them any more. No thread is left.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from beeq import Queue
from beeq.supervision import loop_watch
from tests.support.waiting import pause

PATIENCE_S = 30
STALL_INTERVAL_MS = 400
#: The programs of these tests leave connections open; uvloop's close never ends where that is an error.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
#: A loop may stop for ever between a task's creation and its first step.
stops_midway = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
loops = pytest.mark.parametrize("kind", ["asyncio", "uvloop"])


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    return uvloop.new_event_loop() if kind == "uvloop" else asyncio.new_event_loop()


def until(holds: Callable[[], Any], within_s: float = PATIENCE_S) -> None:
    over_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < over_s, f"{holds} did not hold in time"
        time.sleep(0.01)


#: Threads of beeq that there were before the test: another test's, which has a queue of ``beeq.sync``, say.
_before: set[threading.Thread] = set()


def beeq_threads() -> set[threading.Thread]:
    """Return this test's."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("beeq")} - _before


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    _before.clear()
    _before.update(beeq_threads())
    yield
    until(lambda: not beeq_threads())


class World:
    """A worker with one running job, and the job's state in Redis."""

    def __init__(self, redis: Any, name: str, url: str) -> None:
        self.redis, self.name, self.url = redis, name, url
        self.runs = 0

    def key(self, suffix: str) -> str:
        return f"bq:{self.name}:{suffix}"

    def places(self) -> tuple[int, int, int]:
        redis = self.redis
        waiting, active = redis.llen(self.key("waiting")), redis.llen(self.key("active"))
        return waiting, active, redis.scard(self.key("failed"))

    def queue(self, **settings: Any) -> Queue:
        return Queue(self.name, redis=self.url, stall_interval=STALL_INTERVAL_MS, **settings)

    async def begin(self, handle: Callable[[Any], Any] | None = None, **options: Any) -> Queue:
        """Return a worker whose handler has begun with a job."""
        queue, begun = self.queue(), asyncio.Event()

        async def handler(job: Any) -> None:
            self.runs += 1
            begun.set()
            await (asyncio.Event().wait() if handle is None else handle(job))

        queue.process(handler)
        await queue.enqueue({}, **options)
        await begun.wait()
        return queue

    def is_run_elsewhere(self) -> bool:
        """Run what is left in another worker, which finds what has stalled."""
        done: list[str] = []

        async def main() -> None:
            async with self.queue() as queue:
                queue.process(lambda job: done.append(job.id))
                while not done:
                    await pause(0.01)

        asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
        return done == ["1"]


@pytest.fixture
def world(sync_redis: Any, queue_name: str, valkey: Any) -> World:
    return World(sync_redis, queue_name, valkey.url)


async def takes_its_time(_job: Any) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.2)


async def makes_another_error_of_it(_job: Any) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ValueError from None


async def waits_for_a_task(_job: Any) -> None:
    await asyncio.create_task(asyncio.sleep(60))


async def is_deaf(_job: Any) -> None:
    for _ in range(2):
        try:
            await asyncio.sleep(1.5)
        except asyncio.CancelledError:
            continue


HANDLERS = [None, takes_its_time, makes_another_error_of_it, waits_for_a_task]


@loops
@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("handle", HANDLERS)
def test_asyncio_run_ends_and_the_job_goes_back(world, kind, handle, retries, caplog):
    with asyncio.Runner(loop_factory=lambda: new_loop(kind)) as runner:
        runner.run(world.begin(handle, retries=retries))
    assert world.places() == (1, 0, 0)
    assert world.redis.hget(world.key("claims"), "1") is None, "no delivery is counted"
    assert world.runs == 1
    assert [record.getMessage() for record in caplog.records if record.name == "beeq"] == []


def test_the_job_of_a_deaf_handler_goes_back_in_time(world, caplog):
    """Before its handler ends, which is one line of the log."""
    asyncio.run(world.begin(is_deaf))
    assert world.places() == (1, 0, 0)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "beeq"]
    assert "unable to update the status" in line


def test_asyncio_run_raises_and_the_job_goes_back(world):
    async def main() -> None:
        await world.begin()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    assert world.places() == (1, 0, 0)


@pytest.mark.parametrize("burst", [False, True])
def test_asyncio_run_ends_while_a_task_runs_the_queue(world, burst):
    async def main() -> None:
        queue = await world.begin()
        running = asyncio.create_task(queue.run(burst, catch_signals=False))
        await pause(0.05)
        assert not running.done()

    asyncio.run(main())
    assert world.places() == (1, 0, 0)


def test_asyncio_run_ends_while_the_queue_closes(world):
    async def main() -> None:
        queue = await world.begin()
        closing = asyncio.create_task(queue.close(60_000))
        await pause(0.05)
        assert not closing.done()

    asyncio.run(main())
    assert world.places() == (1, 0, 0)


def test_a_plain_function_goes_back_too(world):
    begun, end = threading.Event(), threading.Event()

    def handler(_job: Any) -> None:
        begun.set()
        end.wait(PATIENCE_S)

    async def main() -> None:
        queue = world.queue()
        queue.process(handler)
        await queue.enqueue({})
        await asyncio.to_thread(begun.wait, PATIENCE_S)

    asyncio.run(main())
    assert world.places() == (1, 0, 0)
    end.set()


def test_an_idle_worker_ends_with_its_loop(world):
    async def main() -> None:
        queue = world.queue()
        queue.process(lambda _job: None, concurrency=3)
        await (await queue.enqueue({})).result(timeout=PATIENCE_S * 1000)

    asyncio.run(main())


@pytest.mark.no_audit("the loop has stopped in the middle of it")
@loops
@stops_midway
def test_a_loop_that_is_closed_leaves_the_job_to_the_stall_check(world, kind):
    loop = new_loop(kind)
    queue = loop.run_until_complete(world.begin())
    loop.close()
    assert world.is_run_elsewhere()
    del queue


@pytest.mark.no_audit("the loop has stopped in the middle of it")
@loops
@stops_midway
def test_a_loop_whose_thread_has_ended_is_over(world, kind):
    loop = new_loop(kind)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    queue = asyncio.run_coroutine_threadsafe(world.begin(), loop).result(PATIENCE_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE_S)
    assert world.is_run_elsewhere()
    loop.close()
    del queue


@pytest.mark.no_audit("the loop has stopped in the middle of it")
@loops
@stops_midway
def test_a_loop_that_has_stopped_for_good_is_over(world, kind, monkeypatch):
    monkeypatch.setattr(loop_watch, "_LONGEST_PAUSE_S", 1.0)
    loop = new_loop(kind)
    queue = loop.run_until_complete(world.begin())
    until(lambda: not beeq_threads())
    assert world.is_run_elsewhere()
    loop.close()
    del queue


@pytest.mark.no_audit("the loop is gone in the middle of it")
@stops_midway
def test_a_loop_that_nobody_holds_is_over(world, monkeypatch):
    """As soon as it is collected, or has not run for long."""
    monkeypatch.setattr(loop_watch, "_LONGEST_PAUSE_S", 1.0)
    loop = asyncio.new_event_loop()
    queue = loop.run_until_complete(world.begin())
    del loop, queue

    def is_over() -> bool:
        gc.collect()
        return not beeq_threads()

    until(is_over)
    assert world.is_run_elsewhere()


@loops
def test_a_loop_that_pauses_is_alive(world, kind):
    """For several stall intervals; its job goes on with the next run, and nobody else has taken it."""
    loop = new_loop(kind)
    end = asyncio.Event()

    async def begin() -> Queue:
        queue: Queue = await world.begin(lambda _job: end.wait())
        await queue.enqueue({})
        return queue

    async def finish() -> None:
        end.set()
        job = await queue.get_job("1")
        assert job is not None
        await job.result(timeout=PATIENCE_S * 1000)
        await queue.close()

    queue = loop.run_until_complete(begin())
    time.sleep(3 * STALL_INTERVAL_MS / 1000)
    asyncio.run(_look_for_stalls(world))
    assert world.redis.llen(world.key("active")) == 1
    loop.run_until_complete(finish())
    assert world.runs == 2
    loop.close()


async def _look_for_stalls(world: World) -> None:
    async with world.queue(is_worker=False) as other:
        for _ in range(3):
            assert await other.check_stalled_jobs() == 0
            await pause(STALL_INTERVAL_MS / 1000)


def test_a_loop_that_was_taken_for_over_may_run_again(world, monkeypatch):
    """Its worker hears that its job is another's by now, stops that, and beats for the next."""
    monkeypatch.setattr(loop_watch, "_LONGEST_PAUSE_S", 0.5)
    loop = asyncio.new_event_loop()
    errors: list[BaseException] = []
    end = asyncio.Event()

    async def go_on() -> None:
        while not errors:
            await pause(0.01)
        end.set()
        assert (await queue.get_job("1")).status == "succeeded"
        second = await queue.enqueue({})
        await second.result(timeout=PATIENCE_S * 1000)
        await queue.close()

    queue = loop.run_until_complete(world.begin(lambda _job: end.wait()))
    queue.on("error", errors.append)
    until(lambda: not beeq_threads())
    assert world.is_run_elsewhere()
    loop.run_until_complete(go_on())
    assert [type(error).__name__ for error in errors] == ["JobLost"]
    loop.close()


async def test_a_loop_that_outlives_the_end_of_all_its_tasks_works_on(make_queue, eventually, recorder):
    """Somebody cancels every task, and goes on. The job goes back once; a second time it stalls, and counts."""
    queue = make_queue(stall_interval=STALL_INTERVAL_MS)
    record = recorder(queue, "error", "failed:fatal")
    runs: list[int] = []

    async def handler(job: Any) -> None:
        runs.append(len(runs))
        me, test = asyncio.current_task(), keep
        for task in asyncio.all_tasks() - {test, me}:
            task.cancel()
        assert me is not None
        me.cancel()
        await asyncio.Event().wait()

    keep = asyncio.current_task()
    queue.process(handler)
    await queue.create_job({}).save()
    await record.until("failed:fatal", within_s=20)
    assert len(runs) <= queue.settings.max_stalls + 2
    await queue.close()
