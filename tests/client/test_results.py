"""``Job.result``: the value or the failure, from any worker, at any time."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from beeq import JobFailed
from beeq.client.reader import Reader

pytestmark = pytest.mark.fast


def answering(queue):
    """Make the queue's handler return its data, or raise what the data asks for."""

    @queue.process
    async def handler(job):
        if isinstance(job.data, dict) and "error" in job.data:
            raise ValueError(job.data["error"])
        return job.data

    return queue


async def test_a_result_that_is_awaited_before_the_job_runs(make_queue):
    producer = make_queue(is_worker=False)
    job = await producer.enqueue({"x": 1})
    waiting = asyncio.ensure_future(job.result(timeout=5000))
    answering(make_queue())
    assert await waiting == {"x": 1}


@pytest.mark.parametrize("value", [{"x": 1}, [1, None], "text", 1.5, True, 10**30])
async def test_a_result_is_found_later_by_a_queue_that_heard_nothing(make_queue, value):
    """bee-queue's result is gone with its event."""
    worker = answering(make_queue())
    job = await worker.enqueue(value)
    await job.result(timeout=5000)
    await worker.close()
    late = make_queue(is_worker=False)
    found = await late.get_job(job.id)
    assert await found.result(timeout=1000) == value
    assert await found.result(timeout=1000) == value


async def test_a_failure_asked_for_later_has_the_errors_message(make_queue):
    worker = answering(make_queue())
    job = await worker.enqueue({"error": "größe"})
    with pytest.raises(JobFailed, match="^größe$") as failure:
        await job.result(timeout=5000)
    assert failure.value.job_id == job.id
    await worker.close()
    found = await make_queue(is_worker=False).get_job(job.id)
    with pytest.raises(JobFailed, match="^größe$"):
        await found.result(timeout=1000)


async def test_a_result_outlives_a_record_that_is_dropped_for_a_while(make_queue):
    producer = make_queue(is_worker=False, get_events=False)
    worker = answering(make_queue(remove_on_success=True, remove_on_failure=True))
    good, bad = await producer.enqueue("good"), await producer.enqueue({"error": "bad"})
    assert await good.result(timeout=5000) == "good"
    with pytest.raises(JobFailed, match="^bad$"):
        await bad.result(timeout=5000)
    await worker.close()
    assert await good.result(timeout=1000) == "good"
    assert await producer.get_job(good.id) is None


async def test_without_keep_results_a_record_stays_alone(make_queue, redis):
    """Who hears the end has the result; who comes later has what a Node worker would have left."""
    producer = make_queue(is_worker=False)
    worker = answering(make_queue(keep_results=False))
    good, bad = producer.create_job("good"), producer.create_job({"error": "bad"})
    waiting = [
        asyncio.ensure_future(job.result(timeout=5000)) for job in (await good.save(), await bad.save())
    ]
    assert await waiting[0] in ("good", None)  # None: it had ended before the wait began
    with pytest.raises(JobFailed, match="bad"):
        await waiting[1]
    later = make_queue(is_worker=False, get_events=False)
    assert await (await later.get_job(good.id)).result(timeout=1000) is None
    with pytest.raises(JobFailed, match="bad"):
        await (await later.get_job(bad.id)).result(timeout=1000)
    assert await redis.exists(worker.keys.results) == 0
    health = await producer.check_health()
    assert (health.succeeded, health.failed) == (1, 1)


async def test_keep_results_is_about_records_that_stay(make_queue):
    producer = make_queue(is_worker=False, get_events=False)
    answering(make_queue(keep_results=False, remove_on_success=True))
    assert await (await producer.enqueue("good")).result(timeout=5000) == "good"


@pytest.mark.real_redis("the many scripts take seconds there")
async def test_after_its_time_the_result_of_a_dropped_record_is_gone(make_queue, redis, recorder, eventually):
    producer = make_queue(is_worker=False, get_events=False)
    worker = answering(make_queue(remove_on_success=True, result_ttl=20, stall_interval=50))
    record = recorder(worker, "succeeded")
    job = await producer.enqueue("good")
    await record.until("succeeded")

    async def is_gone():
        return not await redis.exists(producer.keys.even_results, producer.keys.odd_results)

    await eventually(is_gone)
    with pytest.raises(JobFailed, match="gone"):
        await job.result(timeout=10_000)


async def test_a_result_is_found_although_its_event_was_missed(make_queue, redis):
    """bee-queue's caller waits for ever."""
    producer = make_queue(is_worker=False)
    job = await producer.enqueue("value")
    waiting = asyncio.ensure_future(job.result(timeout=10_000))
    answering(make_queue(send_events=False))
    assert await waiting == "value"


async def test_a_result_too_large_to_be_remembered_is_found_anyway(make_queue, recorder):
    """Its event came before anyone waited, and more large ones after it."""
    producer = make_queue(is_worker=False)
    record = recorder(producer, "job succeeded")
    worker = answering(make_queue())
    await producer.ready()
    jobs = [producer.create_job({"n": n, "text": "x" * 1_000_000}) for n in range(20)]
    assert await producer.save_all(jobs) == {}
    await record.until("job succeeded", count=20)
    await worker.close()
    assert not all(producer.event_hub.heard(job.id) for job in jobs)
    assert [(await job.result(timeout=5000))["n"] for job in jobs] == list(range(20))


async def finish_as_node_does(redis, keys, job_id, status, *traces):
    """Write what bee-queue's finish transaction writes, and publish nothing."""
    record = json.loads(await redis.hget(keys.jobs, job_id))
    record["status"] = status
    record["options"]["stacktraces"] = list(traces)
    await redis.lmove(keys.waiting, keys.active, "RIGHT", "LEFT")
    async with redis.pipeline() as transaction:
        transaction.lrem(keys.active, 0, job_id)
        transaction.srem(keys.stalling, job_id)
        transaction.hset(keys.jobs, job_id, json.dumps(record))
        transaction.sadd(keys.to_key(status), job_id)
        await transaction.execute()


async def test_a_success_by_a_node_peer_that_nobody_heard_is_none(make_queue, redis):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({})
    await finish_as_node_does(redis, queue.keys, job.id, "succeeded")
    assert await job.result(timeout=5000) is None


async def test_an_unheard_failure_by_node_has_the_traces_text(make_queue, redis):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({})
    await finish_as_node_does(
        redis, queue.keys, job.id, "failed", "Error: from Node\n    at handler", "Error: older"
    )
    with pytest.raises(JobFailed, match="from Node") as failure:
        await job.result(timeout=5000)
    assert "older" not in str(failure.value)


async def test_an_event_of_a_node_peer_brings_its_value(make_queue, redis):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({})
    waiting = asyncio.ensure_future(job.result(timeout=5000))
    await finish_as_node_does(redis, queue.keys, job.id, "succeeded")
    await redis.publish(queue.keys.events, json.dumps({"id": job.id, "event": "succeeded", "data": {"y": 2}}))
    assert await waiting in ({"y": 2}, None)
    assert await (await queue.get_job(job.id)).result(timeout=5000) == {"y": 2}


async def test_an_event_read_just_after_a_look_brings_its_value_too(make_queue, redis, monkeypatch):
    """What a Node worker has written and what it has published come over two connections."""
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({"x": 1})
    await finish_as_node_does(redis, queue.keys, job.id, "succeeded")
    look = Reader.look

    async def look_first(*arguments, **options):
        found = await look(*arguments, **options)
        await redis.publish(queue.keys.events, '{"id":"1","event":"succeeded","data":{"y":2}}')
        return found

    monkeypatch.setattr(Reader, "look", look_first)
    assert await job.result(timeout=5000) == {"y": 2}


async def test_an_event_heard_before_the_call_wins(make_queue, redis, recorder):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({})
    record = recorder(queue, "job succeeded")
    await finish_as_node_does(redis, queue.keys, job.id, "succeeded")
    await redis.publish(queue.keys.events, json.dumps({"id": job.id, "event": "succeeded", "data": 5}))
    await record.until("job succeeded")
    assert await job.result(timeout=1000) == 5


@pytest.mark.parametrize("limit", [20, timedelta(milliseconds=20)])
async def test_a_job_that_does_not_end_in_time_is_a_timeout(make_queue, limit):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({})
    with pytest.raises(TimeoutError, match=f"Job {job.id}"):
        await job.result(timeout=limit)
    assert (await queue.check_health()).waiting == 1


async def test_the_failure_of_an_attempt_is_not_the_jobs(make_queue):
    queue = make_queue()
    runs = []

    @queue.process
    async def handler(_job):
        runs.append(1)
        if len(runs) < 3:
            raise ValueError("not yet")
        return "at last"

    job = await queue.enqueue({}, retries=2)
    assert await job.result(timeout=5000) == "at last"


@pytest.mark.parametrize("find", ["one by its id", "all that wait"])
async def test_a_job_with_a_used_id_has_its_own_result(make_queue, recorder, find):
    watcher, producer = make_queue(is_worker=False), make_queue(is_worker=False)
    worker = make_queue(remove_on_success=True)
    heard = recorder(watcher, "job succeeded")
    await watcher.ready()
    let_go, is_busy = asyncio.Event(), asyncio.Event()

    @worker.process
    async def handler(job):
        if job.data["day"] == 0:
            is_busy.set()
            await let_go.wait()
        return job.data["day"]

    await (await producer.enqueue({"day": 1}, id="daily")).result(timeout=5000)
    await heard.until("job succeeded")
    await producer.enqueue({"day": 0}, id="keeps the worker busy")
    await is_busy.wait()
    await producer.enqueue({"day": 2}, id="daily")
    if find == "one by its id":
        job = await watcher.get_job("daily")
    else:
        (job,) = await watcher.get_jobs("waiting")
    waiting = asyncio.ensure_future(job.result(timeout=5000))
    let_go.set()
    assert await waiting == 2


async def test_after_a_retry_by_hand_the_result_is_the_new_runs(make_queue):
    queue = make_queue()
    runs = []

    @queue.process
    async def handler(_job):
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("first")
        return "second"

    job = await queue.enqueue({})
    with pytest.raises(JobFailed, match="first"):
        await job.result(timeout=5000)
    assert await job.retry()
    assert await job.result(timeout=5000) == "second"


async def test_many_may_wait_for_one_job(make_queue):
    queues = [make_queue(is_worker=False) for _ in range(3)]
    job = await queues[0].enqueue("value")
    copies = [await queue.get_job(job.id) for queue in queues for _ in range(3)]
    waiting = [asyncio.ensure_future(copy.result(timeout=5000)) for copy in copies]
    answering(make_queue())
    assert await asyncio.gather(*waiting) == ["value"] * 9


async def test_an_unsaved_job_has_no_result(make_queue):
    with pytest.raises(ValueError, match="no id"):
        await make_queue(is_worker=False).create_job({}).result(timeout=10)


async def test_the_result_of_an_earlier_job_of_the_id_is_not_told(make_queue, redis, recorder):
    """Node knows nothing of results: the id that it saves again, and lets go, still has the earlier one."""
    worker = answering(make_queue(remove_on_success=True))
    ended = recorder(worker, "succeeded")
    first = await worker.enqueue("first", id="daily")
    await ended.until("succeeded")
    await worker.close()
    queue = make_queue(is_worker=False, get_events=False)
    copy = queue.create_job("first").set_id("daily")
    copy.options = dict(first.options)
    assert await copy.result(timeout=5000) == "first"
    again = queue.create_job("second").set_id("daily")
    again.options["timestamp"] += 1
    record = again.encoded()[0]
    await redis.hset(queue.keys.jobs, "daily", record)
    assert (await queue.job_state("daily")).state == "queued"
    await redis.hdel(queue.keys.jobs, "daily")  # Node's removeOnSuccess
    with pytest.raises(JobFailed, match="gone"):
        await again.result(timeout=10_000)


@pytest.mark.parametrize("switch", [{"get_events": False}, {}], ids=["no events", "asked much later"])
async def test_none_is_the_result_though_the_record_is_dropped(make_queue, recorder, switch):
    worker = make_queue(remove_on_success=True)
    done = recorder(worker, "succeeded")

    @worker.process
    async def handler(_job):
        return None

    producer = make_queue(is_worker=False, **switch)
    job = await producer.enqueue({})
    await done.until("succeeded")
    producer.event_hub.forget_all()
    assert await job.result(timeout=5000) is None
