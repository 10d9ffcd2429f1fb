"""The blocking face of queues and jobs, and plain functions as handlers."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from beeq import Health, Job, JobFailed, JobLost, Queue, QueueClosed, RedisUnavailable
from beeq.blocking import BlockingJob, Portal
from beeq.service import QueueService
from beeq.sync import Queue as SyncQueue
from beeq.sync import QueueService as SyncService

pytestmark = pytest.mark.fast


@pytest.fixture
def sync_queue(valkey, queue_name):
    with SyncQueue(queue_name, redis=valkey.url) as queue:
        yield queue


@pytest.fixture
async def worker(make_queue):
    """A worker that answers with its job's data, or raises what that asks for."""
    worker = make_queue()

    @worker.process(concurrency=5)
    async def handler(job):
        await job.report_progress(50)
        if isinstance(job.data, dict) and "error" in job.data:
            raise ValueError(job.data["error"])
        return job.data

    return worker


def test_a_context_manager_connects_and_closes(valkey, queue_name):
    with SyncQueue(queue_name, redis=valkey.url) as queue:
        assert queue.is_running()
        assert queue.enqueue({"x": 1}).id == "1"
    assert not queue.is_running()
    with pytest.raises(QueueClosed, match="^closed$"):
        queue.enqueue({})
    queue.close()


def test_every_producer_method_has_its_blocking_twin(sync_queue):
    queue = sync_queue
    assert queue.connect() is True
    assert queue.ready() is queue
    job = queue.create_job({"n": 1}).set_id("mine").retries(2).backoff("fixed", 10).timeout(100).save()
    assert (job.id, job.status, job.data) == ("mine", "created", {"n": 1})
    bad = queue.create_job(object())
    errors = queue.save_all([queue.create_job({"n": 2}), bad])
    assert list(errors) == [bad]
    assert isinstance(errors[bad], TypeError)
    assert queue.get_job("mine").options == job.options
    assert queue.get_job("nobody") is None
    assert [found.id for found in queue.get_jobs("waiting")] == ["1", "mine"]
    assert job.is_in_set("waiting") is True
    assert job.retry() is False
    assert job.report_progress(5) >= 0
    late = queue.enqueue({}, id="late", delay_until=job.options["timestamp"] + 600_000)
    assert queue.check_health() == Health(2, 0, 0, 0, 1, 1)
    assert queue.stats().workers == 0
    assert queue.check_stalled_jobs() == 0
    assert queue.clean("succeeded", older_than=0) == 0
    assert late.remove() is late
    assert queue.remove_job("mine") is queue
    assert queue.check_health().waiting == 1
    assert queue.name in repr(queue)
    assert queue.to_key("jobs").endswith(f"{queue.name}:jobs")
    assert queue.destroy() > 0
    assert queue.check_health() == Health(0, 0, 0, 0, 0, 0)


#: Methods of an async class that its blocking twin leaves out: work on jobs, and the queue's part in a job's methods.
NOT_BLOCKING = {
    Job: set(),
    Queue: {
        "run",
        "retry_job",
        "report_progress",
        "remember",
        "is_in_set",
        "job_state",
        "result_of",
        "save_or_find",
    },
    QueueService: set(),
}


@pytest.mark.parametrize(
    ("cls", "twin"), [(Job, BlockingJob), (Queue, SyncQueue), (QueueService, SyncService)]
)
def test_a_blocking_twin_has_each_async_method_and_signature(cls, twin):
    methods = dict(inspect.getmembers(cls, inspect.iscoroutinefunction))
    wanted = {name for name in methods if not name.startswith("_")} - NOT_BLOCKING[cls]
    wanted |= {"on", "once", "off"} & set(dir(cls))
    assert [name for name in sorted(wanted) if not hasattr(twin, name)] == []
    for name in wanted - {"save_all", "duplicate_job"}:  # their jobs are the blocking ones
        method = getattr(twin, name)
        assert not inspect.iscoroutinefunction(method)
        twins = [inspect.signature(one, eval_str=True) for one in (method, getattr(cls, name))]
        assert twins[0] == twins[1], name
        assert method.__doc__, name


async def test_results_and_failures_arrive(worker, sync_queue):
    def produce():
        job = sync_queue.enqueue({"x": 1})
        assert job.result(timeout=5000) == {"x": 1}
        assert job.progress == 50
        failing = sync_queue.enqueue({"error": "no"})
        with pytest.raises(JobFailed, match="^no$"):
            failing.result(timeout=5000)
        assert failing.retry() is True
        with pytest.raises(JobFailed, match="^no$"):
            failing.result(timeout=5000)

    await asyncio.to_thread(produce)


async def test_listeners_are_called(worker, sync_queue):
    heard = threading.Event()
    calls = []

    def produce():
        sync_queue.on("job succeeded", lambda job_id, result: calls.append((job_id, result)))
        job = sync_queue.create_job("value")
        job.on("succeeded", calls.append).on("succeeded", lambda _result: heard.set())
        job.save()
        assert heard.wait(5)

    await asyncio.to_thread(produce)
    assert calls == [("1", "value"), "value"]


async def test_one_queue_serves_many_threads(worker, sync_queue):
    def produce(n):
        return sync_queue.enqueue({"n": n}).result(timeout=10_000)["n"]

    def all_threads():
        with ThreadPoolExecutor(20) as threads:
            return list(threads.map(produce, range(200)))

    assert await asyncio.to_thread(all_threads) == list(range(200))


def test_a_job_that_nobody_runs_is_a_timeout(sync_queue):
    with pytest.raises(TimeoutError, match="Job 1"):
        sync_queue.enqueue({}).result(timeout=20)


def test_redis_away_is_an_error_within_bounds(own_valkey):
    queue = SyncQueue("addition", redis=own_valkey.url)
    own_valkey.stop()
    started = time.monotonic()
    with pytest.raises(RedisUnavailable):
        queue.enqueue({})
    assert time.monotonic() - started < 10
    queue.close()


def test_bad_settings_raise_as_they_do_in_the_async_queue():
    with pytest.raises(TypeError, match="stallInterval"):
        SyncQueue("addition", stallInterval=5)
    with pytest.raises(ValueError, match="URL"):
        SyncQueue("addition", redis="")


def test_closing_a_blocking_queue_leaves_no_connection(valkey, queue_name, sync_redis):
    before = len(sync_redis.client_list())
    with SyncQueue(queue_name, redis=valkey.url) as queue:
        queue.enqueue({})
        assert len(sync_redis.client_list()) > before
    over = time.monotonic() + 5
    while len(sync_redis.client_list()) > before:
        assert time.monotonic() < over, "connections are left"


# Plain functions as handlers.


async def test_a_plain_function_runs_in_a_thread_on_the_blocking_face(make_queue, recorder):
    queue = make_queue()
    record = recorder(queue, "job progress")

    @queue.process
    def handler(job):
        heard = job.report_progress(50)
        job.data["seen"] = True
        return [
            threading.current_thread() is threading.main_thread(),
            heard >= 1,
            job.id,
            job.options["retries"],
        ]

    job = await queue.enqueue({"x": 1}, retries=3)
    assert await job.result(timeout=5000) == [False, True, "1", 3]
    await record.until("job progress")
    assert record.calls == [("job progress", "1", 50)]
    assert (await queue.get_job("1")).data == {"x": 1, "seen": True}


async def test_plain_functions_run_side_by_side_up_to_the_concurrency(make_queue):
    queue = make_queue()
    barrier = threading.Barrier(3)

    @queue.process(concurrency=3)
    def handler(_job):
        return barrier.wait(5) >= 0

    jobs = [await queue.enqueue({}) for _ in range(6)]
    assert await asyncio.gather(*(job.result(timeout=5000) for job in jobs)) == [True] * 6


async def test_a_blocking_function_holds_up_nobody_else(make_queue):
    queue = make_queue(stall_interval=100)
    end = threading.Event()

    @queue.process
    def handler(_job):
        assert end.wait(5)

    job = await queue.enqueue({})
    for _ in range(20):
        await queue.check_health()
    end.set()
    await job.result(timeout=5000)


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(1), StopIteration("stop"), KeyboardInterrupt()]
)
async def test_an_exception_of_a_plain_function_fails_its_job_only(make_queue, error):
    queue = make_queue()

    @queue.process
    def handler(job):
        if job.id == "1":
            raise error
        return "fine"

    with pytest.raises(JobFailed):
        await (await queue.enqueue({})).result(timeout=5000)
    assert await (await queue.enqueue({})).result(timeout=5000) == "fine"


async def test_a_timeout_frees_the_place_of_a_thread_that_goes_on(make_queue, expect_errors):
    """The thread cannot be stopped, but it holds up nobody, and its job's moves raise."""
    queue = make_queue()
    end, refused = threading.Event(), []
    over = threading.Event()

    @queue.process
    def handler(job):
        if job.id != "1":
            return "next"
        assert end.wait(10)
        for move in (lambda: job.report_progress(99), job.remove, job.retry):
            try:
                move()
            except JobLost as error:
                refused.append(error.job_id)
        over.set()
        return "too late"

    hanging = await queue.enqueue({}, timeout=30)
    with pytest.raises(JobFailed, match=r"^Job 1 timed out \(30 ms\)$"):
        await hanging.result(timeout=5000)
    assert await (await queue.enqueue({})).result(timeout=5000) == "next"
    end.set()
    assert await asyncio.to_thread(over.wait, 5)
    assert refused == ["1", "1", "1"]
    assert (await queue.get_job("1")).status == "failed"


async def test_a_function_that_gives_a_coroutine_is_awaited(make_queue):
    queue = make_queue()

    async def work(data):
        return data

    @queue.process
    def handler(job):
        return work(job.data)

    assert await (await queue.enqueue("value")).result(timeout=5000) == "value"


async def test_a_callable_object_may_be_a_handler(make_queue):
    class Handler:
        async def __call__(self, job):
            return job.data

    queue = make_queue()
    queue.process(Handler())
    assert await (await queue.enqueue("value")).result(timeout=5000) == "value"


@pytest.mark.parametrize("handler", ["text", 5, object()])
def test_a_handler_that_cannot_be_called_is_refused(handler):
    with pytest.raises(TypeError, match="callable"):
        Queue("addition").process(handler)


async def test_a_plain_function_saves_jobs_through_a_blocking_queue(make_queue, valkey, queue_name):
    queue = make_queue()

    @queue.process
    def handler(job):
        if job.data == "child":
            return "done"
        with SyncQueue(queue_name, redis=valkey.url) as producer:
            return producer.enqueue("child").id

    job = await queue.enqueue("parent")
    assert await job.result(timeout=5000) == "2"
    assert await (await queue.get_job("2")).result(timeout=5000) == "done"


class LateFuture(Future[str]):
    """Has its result just as the time to wait for it is over."""

    def result(self, timeout: float | None = None) -> str:
        if not self.done():
            self.set_result("late")
            raise TimeoutError
        return super().result(timeout)


async def test_a_result_that_comes_as_a_wait_ends_is_no_timeout(monkeypatch):
    future = LateFuture()

    def submit(coroutine, _loop):
        coroutine.close()
        return future

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", submit)

    async def command() -> str:
        return "never run"

    portal = Portal(asyncio.get_running_loop())
    assert await asyncio.to_thread(portal.run, command()) == "late"


def test_a_blocking_queue_says_that_it_works_on_no_jobs():
    queue: Any = SyncQueue("mail", redis="redis://127.0.0.1:1")
    with pytest.raises(AttributeError, match=r"it works on no jobs. beeq.Queue does"):
        queue.process  # noqa: B018 - asking is all it takes
    with pytest.raises(AttributeError, match="has no attribute 'proces'"):
        queue.proces  # noqa: B018
