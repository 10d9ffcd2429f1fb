"""An idle worker starts a job while the call that claims it is on its way; whatever becomes of that call."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from beeq import JobLost, RedisUnavailable
from beeq.worker.pump.blocking_fetch import MAX_RECORD_BYTES
from tests.support.proxy import FirstExchange, Proxy, proxy_to
from tests.support.waiting import eventually

#: No stall check comes while a test runs, and a failure costs little.
SETTINGS = {"stall_interval": 60_000, "initial_redis_failure_retry_delay": 10}


class Idler:
    """A worker behind a proxy, which waits at its empty queue; and a producer that needs no proxy."""

    def __init__(self, proxy: Proxy, make_queue: Callable[..., Any], redis: Any, **settings: Any) -> None:
        self.proxy = proxy
        self.producer = make_queue(is_worker=False)
        self.worker = make_queue(redis=proxy.url, **SETTINGS, **settings)
        self.keys = self.worker.keys
        self.runs: Counter[str] = Counter()
        self.cancelled: list[str] = []
        self.worker.on("cancelled", lambda job: self.cancelled.append(job.id))
        self._redis = redis

    async def work(self, handler: Callable[[Any], Awaitable[Any]], concurrency: int) -> None:
        async def counted(job: Any) -> Any:
            self.runs[job.id] += 1
            return await handler(job)

        self.worker.process(counted, concurrency=concurrency)
        await self.waits()

    @property
    def pump(self) -> Any:
        return self.worker._consumer.worker.pump

    async def waits(self) -> None:
        pump = await eventually(lambda: self.pump)

        async def is_blocked() -> bool:
            blocked = {client["id"] for client in await self._redis.client_list() if "b" in client["flags"]}
            return str(pump.fetch.client_id) in blocked

        await eventually(is_blocked)

    async def is_claimed(self) -> bool:
        return bool(await self._redis.hlen(self.keys.claims))

    async def begins(self, job: Any) -> None:
        await eventually(lambda: self.runs[job.id])

    async def leaves_nothing(self) -> None:
        async def is_clean() -> bool:
            return not await self._redis.exists(self.keys.active, self.keys.claims, self.keys.waiting)

        await eventually(is_clean)


@pytest.fixture
async def idler(valkey, make_queue, redis) -> AsyncIterator[Idler]:
    async with proxy_to(valkey.port) as proxy:
        idler = Idler(proxy, make_queue, redis)
        yield idler
        proxy.released.set()
        with contextlib.suppress(TimeoutError):  # the test has closed it, and knows
            await idler.worker.close()


@pytest.fixture
async def hasty_idler(valkey, make_queue, redis) -> AsyncIterator[Idler]:
    """Waits a second for Redis."""
    async with proxy_to(valkey.port) as proxy:
        idler = Idler(proxy, make_queue, redis, redis_timeout=1000)
        yield idler
        proxy.released.set()
        await idler.worker.close()


@pytest.fixture(params=[1, 10])
def concurrency(request: pytest.FixtureRequest) -> int:
    return int(request.param)


class Endless:
    """A handler that ends when it is cancelled."""

    def __init__(self) -> None:
        self.has_ended = asyncio.Event()

    async def __call__(self, _job: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.has_ended.set()


async def returns_its_data(job: Any) -> Any:
    return job.data


async def test_a_job_starts_before_its_claim_and_is_recorded_after_it(idler, concurrency):
    await idler.work(returns_its_data, concurrency)
    idler.proxy.hold = FirstExchange()
    job = await idler.producer.enqueue("value")
    await idler.begins(job)
    await idler.proxy.hold.has_come.wait()
    assert not await idler.is_claimed()
    assert await job.is_in_set("active")
    idler.proxy.released.set()
    assert await job.result(timeout=5000) == "value"
    assert idler.runs == Counter({job.id: 1})
    await idler.leaves_nothing()


async def test_job_after_job_begins_so(idler, concurrency):
    """Not only the first one: the worker goes back to its waiting."""
    await idler.work(returns_its_data, concurrency)
    for number in range(1, 6):
        job = await idler.producer.enqueue(number)
        assert await job.result(timeout=5000) == number
    await idler.leaves_nothing()
    assert idler.runs == Counter({str(n): 1 for n in range(1, 6)})


async def test_a_job_runs_on_when_the_reply_to_its_claim_was_lost(idler, concurrency, expect_errors):
    go_on = asyncio.Event()

    async def handler(job):
        await go_on.wait()
        return job.data

    await idler.work(handler, concurrency)
    idler.proxy.swallow = FirstExchange()
    job = await idler.producer.enqueue("value")
    await idler.begins(job)
    await eventually(lambda: expect_errors)
    await eventually(lambda: idler.pump.scheduler.is_ready)
    assert await idler.is_claimed()
    go_on.set()
    assert await job.result(timeout=5000) == "value"
    assert idler.runs == Counter({job.id: 1})
    assert not [error for error in expect_errors if isinstance(error, JobLost)]
    await idler.leaves_nothing()


async def test_a_job_runs_on_when_its_claim_never_arrived(idler, concurrency, expect_errors):
    go_on = asyncio.Event()

    async def handler(job):
        await go_on.wait()
        return job.data

    await idler.work(handler, concurrency)
    idler.proxy.hold = FirstExchange()
    job = await idler.producer.enqueue("value")
    await idler.begins(job)
    await idler.proxy.hold.has_come.wait()
    idler.proxy.hang_up()
    await eventually(idler.is_claimed)
    go_on.set()
    assert await job.result(timeout=5000) == "value"
    assert idler.runs == Counter({job.id: 1})
    assert not [error for error in expect_errors if isinstance(error, JobLost)]
    await idler.leaves_nothing()


@pytest.mark.parametrize("retries", [0, 1])
async def test_an_ended_job_is_recorded_once_if_neither_call_arrived(
    idler, concurrency, retries, expect_errors
):
    """Nothing waits for a stall check: what was not claimed is claimed again, and recorded then."""

    async def handler(job):
        if job.options["retries"]:
            raise ValueError("again")
        return job.data

    await idler.work(handler, concurrency)
    idler.proxy.hold = FirstExchange()
    job = await idler.producer.create_job("value").retries(retries).save()
    await idler.begins(job)
    await idler.proxy.hold.has_come.wait()
    await eventually(lambda: idler.pump.scheduler.calls_in_flight == 2)
    idler.proxy.hang_up()
    assert await job.result(timeout=5000) == "value"
    assert idler.runs == Counter({job.id: 1 + retries})
    assert not [error for error in expect_errors if isinstance(error, JobLost)]
    await idler.leaves_nothing()


@pytest.mark.parametrize("retries", [0, 1])
async def test_an_ended_job_is_recorded_once_if_both_replies_were_lost(
    idler, concurrency, retries, redis, expect_errors
):
    """Then it is finished already, or waits for its next attempt."""
    heard: list[str] = []
    idler.producer.on("job succeeded", lambda job_id, _result: heard.append(job_id))
    idler.producer.on("job retrying", lambda job_id, _error: heard.append(job_id))
    await idler.producer.ready()

    async def handler(job):
        if job.options["retries"]:
            raise ValueError("again")
        return job.data

    await idler.work(handler, concurrency)
    idler.proxy.mute = FirstExchange()
    job = await idler.producer.create_job("value").retries(retries).save()
    await eventually(lambda: heard)
    idler.proxy.hang_up()
    assert await job.result(timeout=5000) == "value"
    assert idler.runs == Counter({job.id: 1 + retries})
    await eventually(lambda: len(heard) > retries)  # the result may have been looked up before
    assert heard == [job.id] * (1 + retries)
    assert not [error for error in expect_errors if isinstance(error, JobLost)]
    await idler.leaves_nothing()


async def test_a_retried_job_is_not_taken_from_its_new_owner(idler, concurrency, redis, expect_errors):
    """Both replies were lost, and a Node worker took it, who claims nothing."""

    async def handler(job):
        if job.options["retries"]:
            raise ValueError("again")
        return job.data

    await idler.work(handler, concurrency)
    await idler.producer.ready()
    is_retrying = asyncio.Event()
    idler.producer.on("job retrying", lambda *_: is_retrying.set())
    idler.proxy.mute = FirstExchange()
    job = await idler.producer.create_job("value").retries(1).save()
    await is_retrying.wait()
    # The call that recorded the first attempt has taken it again; let it have been a Node worker.
    assert await redis.hdel(idler.keys.claims, job.id) == 1
    idler.proxy.hang_up()
    await idler.waits()
    assert not await idler.is_claimed()
    assert idler.runs == Counter({job.id: 1})
    assert await redis.lmove(idler.keys.active, idler.keys.waiting, "LEFT", "RIGHT") == job.id
    assert await job.result(timeout=5000) == "value"
    await idler.leaves_nothing()


async def test_a_job_that_was_removed_meanwhile_is_stopped(idler, concurrency, expect_errors):
    handler = Endless()
    await idler.work(handler, concurrency)
    idler.proxy.hold = FirstExchange()
    job = await idler.producer.enqueue("value")
    await idler.begins(job)
    await job.remove()
    idler.proxy.released.set()
    await asyncio.wait_for(handler.has_ended.wait(), 5)
    await idler.leaves_nothing()
    (lost,) = [error for error in expect_errors if isinstance(error, JobLost)]
    assert str(lost) == f"Job {job.id} was no longer owned by this worker; its handler was stopped"
    next_job = await idler.producer.enqueue("next")
    await idler.begins(next_job)  # its place is free again
    await next_job.cancel()
    await eventually(lambda: idler.cancelled == [next_job.id])


async def test_progress_and_memory_wait_for_the_claim(idler, concurrency, redis):
    """They need it, and take another connection."""
    steps: list[str] = []

    async def handler(job):
        steps.append("began")
        await job.report_progress(50)
        steps.append("reported")
        await job.remember(order="7")
        steps.append("remembered")
        return await redis.hget(job.queue.keys.jobs, job.id)

    await idler.work(handler, concurrency)
    idler.proxy.hold = FirstExchange()
    job = await idler.producer.enqueue("value")
    await idler.begins(job)
    await idler.proxy.hold.has_come.wait()
    await idler.worker.check_health()  # goes the way that they would go
    assert steps == ["began"]
    idler.proxy.released.set()
    record = await job.result(timeout=5000)
    assert steps == ["began", "reported", "remembered"]
    assert '"progress":50' in record
    assert '"order":"7"' in record


@pytest.mark.parametrize("end", ["remove", "cancel"])
async def test_a_handler_that_ends_its_own_job_has_its_claim_first(idler, concurrency, end, expect_errors):
    """It is not stopped for a claim that was refused because of what it did itself."""
    following = []

    async def handler(job):
        if job.data == "next":
            return
        try:
            await getattr(job, end)()
        finally:
            following.append(await idler.worker.enqueue("next"))

    await idler.work(handler, concurrency)
    idler.proxy.hold = FirstExchange()
    job = await idler.producer.enqueue("value")
    await idler.begins(job)
    await idler.proxy.hold.has_come.wait()
    await idler.worker.check_health()  # goes the way that the removal would go
    assert await job.is_in_set("active")
    idler.proxy.released.set()
    await eventually(lambda: following)
    await following[0].result(timeout=5000)
    await eventually(lambda: expect_errors if end == "remove" else idler.cancelled == [job.id])
    await idler.leaves_nothing()


async def test_they_wait_for_a_second_claim_when_the_first_went_astray(hasty_idler, expect_errors):
    async def handler(job):
        await job.remember(order="7")
        await job.report_progress(50)
        return job.memory

    await hasty_idler.work(handler, 1)
    hasty_idler.proxy.hold = FirstExchange()
    job = await hasty_idler.producer.enqueue("value")
    assert await job.result(timeout=9000) == {"order": "7"}
    assert hasty_idler.runs == Counter({job.id: 1})
    assert not [error for error in expect_errors if isinstance(error, JobLost)]


async def test_they_say_that_redis_is_not_there_when_no_claim_arrives(hasty_idler, expect_errors):
    caught: list[str] = []

    async def handler(job):
        try:
            await job.report_progress(50)
        except RedisUnavailable as error:
            caught.append(str(error))
        return job.data

    await hasty_idler.work(handler, 1)
    hasty_idler.proxy.hold = lambda request: b"EVALSHA" in request and b"earlierDelayed" in request
    job = await hasty_idler.producer.enqueue("value")
    await eventually(lambda: caught, 9)
    assert caught == ["Redis has not confirmed yet that the job is this worker's"]
    hasty_idler.proxy.hold = lambda _request: False
    hasty_idler.proxy.released.set()
    assert await job.result(timeout=5000) == "value"
    assert hasty_idler.runs == Counter({job.id: 1})


@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_worker_that_gives_up_meanwhile_gives_the_job_back(
    idler, concurrency, is_cut, redis, expect_errors
):
    handler = Endless()
    await idler.work(handler, concurrency)
    idler.proxy.hold = FirstExchange()
    job = await idler.producer.enqueue("value")
    await idler.begins(job)
    closing = asyncio.create_task(idler.worker.close(1))
    await asyncio.wait_for(handler.has_ended.wait(), 5)
    if is_cut:
        idler.proxy.hang_up()
    else:
        idler.proxy.released.set()
    with pytest.raises(TimeoutError):
        await closing
    assert await redis.lrange(idler.keys.waiting, 0, -1) == [job.id]
    assert not await redis.exists(idler.keys.active, idler.keys.claims)


@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_worker_that_stops_meanwhile_lets_the_job_end(idler, concurrency, is_cut, expect_errors):
    go_on = asyncio.Event()

    async def handler(job):
        await go_on.wait()
        return job.data

    await idler.work(handler, concurrency)
    idler.proxy.hold = FirstExchange()
    job = await idler.producer.enqueue("value")
    await idler.begins(job)
    closing = asyncio.create_task(idler.worker.close())
    await eventually(idler.pump.scheduler.is_stopping)
    if is_cut:
        idler.proxy.hang_up()
    else:
        idler.proxy.released.set()
    await eventually(idler.is_claimed)
    go_on.set()
    await closing
    assert await job.result(timeout=5000) == "value"
    assert idler.runs == Counter({job.id: 1})
    assert bool(expect_errors) == is_cut
    await idler.leaves_nothing()


async def test_a_claim_that_is_refused_for_a_while_costs_no_second_run(
    idler, concurrency, redis, expect_errors
):
    """The handler has ended by then; its outcome waits."""
    await idler.work(returns_its_data, concurrency)
    await redis.set(idler.keys.stalling, "of the wrong type")
    job = await idler.producer.enqueue("value")
    await eventually(lambda: len(expect_errors) > 2)
    await redis.delete(idler.keys.stalling)
    assert await job.result(timeout=5000) == "value"
    assert idler.runs == Counter({job.id: 1})
    assert not [error for error in expect_errors if isinstance(error, JobLost)]
    await idler.leaves_nothing()


async def test_a_worker_reloads_the_scripts_that_redis_forgot(idler, concurrency, redis):
    await idler.work(returns_its_data, concurrency)
    await idler.producer.ready()  # which loads them all
    await redis.script_flush()
    first = await idler.producer.enqueue("first")
    assert await first.result(timeout=5000) == "first"
    await idler.leaves_nothing()

    await idler.waits()
    idler.proxy.hold = FirstExchange()
    second = await idler.producer.enqueue("second")
    await idler.begins(second)
    idler.proxy.released.set()
    assert await second.result(timeout=5000) == "second"


async def test_a_job_with_a_long_record_begins_once_it_is_claimed(idler, concurrency):
    await idler.work(returns_its_data, concurrency)
    idler.proxy.hold = FirstExchange()
    job = await idler.producer.enqueue("x" * MAX_RECORD_BYTES)
    await idler.proxy.hold.has_come.wait()
    assert not idler.runs
    idler.proxy.released.set()
    assert len(await job.result(timeout=5000)) == MAX_RECORD_BYTES
