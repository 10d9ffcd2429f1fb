"""Delayed jobs: when they are raised, and where; a lost message or an error delays none for long."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from tests.support.waiting import eventually


async def run_times(queue):
    """Make the queue note when each job runs, by the clock of the wall."""
    ran = {}

    @queue.process
    async def handler(job):
        ran[job.id] = queue.now_ms()

    await queue.ready()
    return ran


async def test_a_job_runs_when_it_is_due_and_not_before(make_queue, eventually):
    queue = make_queue(delayed_debounce=1)
    raised: list[Any] = []
    queue.on("raised jobs", raised.append)
    ran = await run_times(queue)
    due_ms = queue.now_ms() + 200
    job = await queue.create_job({}).delay_until(due_ms).save()
    assert (await queue.check_health()).delayed == 1
    await job.result(timeout=5000)
    assert due_ms <= ran[job.id] < due_ms + 500
    await eventually(lambda: raised == [1])  # the job may have ended before the activator's reply came


async def test_jobs_due_close_together_are_raised_together(make_queue):
    queue = make_queue(delayed_debounce=150)
    order = []

    @queue.process
    async def handler(job):
        order.append((job.id, queue.now_ms()))

    await queue.ready()
    start_ms = queue.now_ms()
    jobs = [
        await queue.create_job({}).set_id(name).delay_until(start_ms + due_ms).save()
        for name, due_ms in (("early", 20), ("late", 1000), ("later", 1090))
    ]
    await asyncio.gather(*(job.result(timeout=5000) for job in jobs))
    assert [job_id for job_id, _ in order] == ["early", "late", "later"]
    assert order[0][1] < start_ms + 1000
    assert order[1][1] >= start_ms + 1000
    assert order[2][1] >= start_ms + 1090


async def test_a_distant_job_stays_and_is_announced(make_queue, redis):
    """The due time of a new head is published as text."""
    queue = make_queue(is_worker=False)
    async with redis.pubsub() as channel:
        await channel.subscribe(queue.keys.earlier_delayed)
        await channel.get_message(timeout=5)
        due_ms = queue.now_ms() + 600_000
        job = await queue.enqueue({}, delay_until=due_ms)
        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
        assert message["data"] == str(due_ms)
        await queue.enqueue({}, delay_until=due_ms + 1000)
        await queue.enqueue({}, delay_until=due_ms - 1000)
        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
        assert message["data"] == str(due_ms - 1000)  # the later one was not the head
    assert await redis.zscore(queue.keys.delayed, job.id) == due_ms


async def test_a_worker_without_activation_runs_what_another_raises(make_queue):
    activator = make_queue(is_worker=False, delayed_debounce=1)
    worker = make_queue(activate_delayed_jobs=False)
    ran = await run_times(worker)
    await activator.ready()
    producer = make_queue(is_worker=False, activate_delayed_jobs=False)
    due_ms = producer.now_ms() + 100
    job = await producer.enqueue({}, delay_until=due_ms)
    await job.result(timeout=5000)
    assert ran[job.id] >= due_ms


async def test_a_second_delayed_save_of_an_id_changes_nothing(make_queue, redis):
    queue = make_queue(is_worker=False)
    due_ms = queue.now_ms() + 60_000
    await queue.create_job({"n": 1}).set_id("awesomejob").delay_until(due_ms).save()
    again = await queue.create_job({"n": 2}).set_id("awesomejob").delay_until(due_ms + 5000).save()
    assert again.id is None
    assert await redis.zscore(queue.keys.delayed, "awesomejob") == due_ms
    record = json.loads(await redis.hget(queue.keys.jobs, "awesomejob"))
    assert (record["data"], record["options"]["delay"]) == ({"n": 1}, due_ms)


async def test_a_connected_producer_raises_what_was_there_before(make_queue, eventually):
    """bee-queue's never looks."""
    producer = make_queue(is_worker=False, activate_delayed_jobs=False)
    job = await producer.enqueue({}, delay_until=producer.now_ms() + 30)
    activator = make_queue(is_worker=False)
    await activator.ready()

    async def is_raised():
        return await job.is_in_set("waiting")

    await eventually(is_raised, 5)


async def test_by_default_a_worker_raises_delayed_jobs_and_retries(make_queue):
    """In bee-queue they hang, and nobody says so."""
    queue = make_queue()
    runs = []

    @queue.process
    async def handler(_job):
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("once")

    job = await queue.enqueue({}, retries=1, backoff=("fixed", 20), delay_until=queue.now_ms() + 20)
    await job.result(timeout=5000)
    assert len(runs) == 2


async def test_an_error_while_raising_delays_the_next_look_by_moments(make_queue, redis, eventually):
    """bee-queue waits for 20 minutes, or for ever."""
    producer = make_queue(is_worker=False, activate_delayed_jobs=False)
    await redis.set(producer.keys.delayed, "of the wrong type")
    worker = make_queue()
    errors: list[Any] = []
    worker.on("error", errors.append)
    ran = await run_times(worker)
    await eventually(lambda: any("WRONGTYPE" in str(error) for error in errors))
    await redis.delete(producer.keys.delayed)
    job = await producer.enqueue({}, delay_until=producer.now_ms() + 10)
    await job.result(timeout=5000)
    assert job.id in ran


@pytest.mark.real_redis("fakeredis knows no CLIENT LIST TYPE")
async def test_a_due_time_announced_while_unsubscribed_is_not_missed(make_queue, redis, eventually):
    """In bee-queue the job is up to 20 minutes late."""
    producer = make_queue(is_worker=False, activate_delayed_jobs=False, get_events=False)
    await producer.ready()
    worker = make_queue()
    worker.on("error", lambda _error: None)
    ran = await run_times(worker)

    async def subscribers():
        return [c["id"] for c in await redis.client_list(_type="pubsub")]

    ids = await eventually(subscribers)
    for client_id in ids:
        await redis.client_kill_filter(_id=client_id)
    job = await producer.enqueue({}, delay_until=producer.now_ms() + 20)

    await eventually(lambda: job.id in ran, 5)


async def test_many_due_jobs_are_raised_in_order_and_in_steps(make_queue, redis):
    """bee-queue moves them in one long script call."""
    producer = make_queue(is_worker=False, activate_delayed_jobs=False)
    start_ms = producer.now_ms()
    await redis.set(producer.keys.id, 0)
    jobs: list[Any] = []
    for _ in range(2500):
        job = producer.create_job({})
        job.options["delay"] = start_ms - 10_000 + len(jobs)
        jobs.append(job)
    await producer.save_all(jobs)
    assert (await producer.check_health()).delayed == 2500
    activator = make_queue(is_worker=False)
    raised: asyncio.Future[Any] = asyncio.Future()
    activator.on("raised jobs", raised.set_result)
    await activator.ready()
    assert await asyncio.wait_for(raised, 30) == 2500
    assert await redis.lrange(producer.keys.waiting, 0, -1) == [job.id for job in reversed(jobs)]


async def test_two_activators_raise_each_job_once(make_queue, redis, eventually):
    queues = [make_queue(is_worker=False) for _ in range(3)]
    for queue in queues:
        await queue.ready()
    due_ms = queues[0].now_ms() + 50
    for _ in range(20):
        await queues[0].enqueue({}, delay_until=due_ms)

    async def all_wait():
        return (await queues[0].check_health()).waiting >= 20

    await eventually(all_wait, 5)
    waiting = await redis.lrange(queues[0].keys.waiting, 0, -1)
    assert sorted(waiting, key=int) == [str(n) for n in range(1, 21)]


async def test_a_peer_whose_clock_is_fast_raises_nothing_early(make_queue, monkeypatch):
    """Due times follow Redis's clock."""
    producer = make_queue(is_worker=False, activate_delayed_jobs=False)
    due_ms = producer.now_ms() + 150
    job = await producer.enqueue({}, delay_until=due_ms)
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + 3600 * 10**9)
    worker = make_queue(delayed_debounce=1)
    ran_ms = []

    @worker.process
    async def handler(_job):
        ran_ms.append(now_ns() // 1_000_000)

    await job.result(timeout=5000)
    assert due_ms <= ran_ms[0] < due_ms + 1000


async def test_a_retry_of_a_worker_whose_clock_is_slow_waits_its_delay(make_queue, redis, monkeypatch):
    """Retry delays follow Redis's clock."""
    worker = make_queue()
    now_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() - 3600 * 10**9)
    retrying: asyncio.Future[Any] = asyncio.Future()
    worker.on("retrying", lambda job, _error: retrying.set_result(job.id))

    @worker.process
    async def handler(_job):
        raise ValueError("later")

    job = await worker.enqueue({}, retries=1, backoff=("fixed", 60_000))
    await asyncio.wait_for(retrying, 30)
    score = await redis.zscore(worker.keys.delayed, job.id)
    assert score == pytest.approx(now_ns() // 1_000_000 + 60_000, abs=5000)


async def test_a_retry_is_announced_only_if_it_is_due_next(make_queue, redis):
    """bee-queue wakes every activator at every retry."""
    worker = make_queue()
    await worker.enqueue({}, id="head", delay_until=worker.now_ms() + 30_000)
    retrying = asyncio.Event()
    worker.on("retrying", lambda _job, _error: retrying.set())
    async with redis.pubsub() as channel:
        await channel.subscribe(worker.keys.earlier_delayed)
        await channel.get_message(timeout=5)

        @worker.process
        async def handler(_job):
            raise ValueError("later")

        await worker.enqueue({}, retries=1, backoff=("fixed", 60_000))
        await asyncio.wait_for(retrying.wait(), 30)
        await redis.publish(worker.keys.earlier_delayed, "mark")
        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
        assert message["data"] == "mark"
        retrying.clear()
        await worker.enqueue({}, retries=1, backoff=("fixed", 10_000))
        await asyncio.wait_for(retrying.wait(), 30)
        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
        assert int(message["data"]) == await redis.zscore(worker.keys.delayed, "2")


ODD_MESSAGES = [
    "NaN",
    "",
    "soon",
    "-5",
    "1e400",
    '{"x":1}',
    "9" * 400,
    "9" * 100_000,
    "Infinity",
    b"\xff\x00",
    " 1",
    "1_0",
]


@pytest.mark.parametrize("message", ODD_MESSAGES, ids=lambda message: str(message)[:9])
async def test_a_malformed_due_time_harms_nobody(make_queue, redis, message):
    queue = make_queue(delayed_debounce=1)
    ran = await run_times(queue)
    await redis.publish(queue.keys.earlier_delayed, message)
    job = await queue.enqueue({}, delay_until=queue.now_ms() + 30)
    await job.result(timeout=5000)
    assert job.id in ran


async def test_a_due_time_with_a_fraction_is_heard(make_queue, redis):
    """JavaScript adds a delay of 30.5 ms to its clock, and publishes what comes out."""
    queue = make_queue(delayed_debounce=1)
    ran = await run_times(queue)
    await queue.create_job({}).set_id("fraction").save()
    await eventually(lambda: "fraction" in ran)
    ran.clear()
    await redis.srem(queue.keys.succeeded, "fraction")
    await redis.zadd(queue.keys.delayed, {"fraction": queue.now_ms() + 30.5})
    await redis.publish(queue.keys.earlier_delayed, f"{queue.now_ms() + 30}.5")
    await eventually(lambda: "fraction" in ran, 10)  # the next look without the message is 15 s away


@pytest.mark.parametrize("score", ["inf", "-inf", "1e308", "-1e308", "-5", "1e16", "0.5"])
async def test_whatever_the_score_the_other_jobs_are_raised(make_queue, redis, score):
    """A Node strategy that returns Infinity writes one; each process of beeq reads it."""
    queue = make_queue(delayed_debounce=1)
    await redis.zadd(queue.keys.delayed, {"odd": score})
    ran = await run_times(queue)
    first = await queue.enqueue({}, delay_until=queue.now_ms() + 30)
    await first.result(timeout=10_000)
    second = await queue.enqueue({}, delay_until=queue.now_ms() + 30)
    await second.result(timeout=10_000)
    assert {first.id, second.id} <= ran.keys()
    is_left = score != "0.5"
    assert (await queue.check_health()).delayed == is_left
    assert await queue.get_jobs("delayed") == []  # it has no record
    assert await queue.is_in_set("odd", "delayed") == is_left
    assert all(duty.restarts == 0 for duty in queue.worker_health().duties)
    await redis.delete(queue.keys.delayed)
