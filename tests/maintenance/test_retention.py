"""Workers drop ended jobs in time: theirs, or everybody's, and nothing that lives."""

from __future__ import annotations

import asyncio
import time

import pytest

from beeq import Keep, sync

#: A look is made each 200 ms.
QUICK = {"stall_interval": 100}


async def finish(queue, *ids: str) -> None:
    """Save jobs of these ids, and wait until they have ended."""
    jobs = [await queue.enqueue({"fails": job_id.startswith("f")}, id=job_id) for job_id in ids]
    await asyncio.gather(*(job.result(timeout=5000) for job in jobs), return_exceptions=True)


async def handle(job):
    if job.data["fails"]:
        raise ValueError(job.id)
    return job.id


def work(make_queue, **settings):
    queue = make_queue(**QUICK, **settings)
    queue.process(handle, 5)
    return queue


async def ids_of(queue, state: str) -> set[str]:
    return {job.id for job in await queue.get_jobs(state)}


async def put_ended(queue, state: str, *ids: str) -> None:
    """Put jobs where a Node worker has recorded their end."""
    record = f'{{"data":{{}},"options":{{"timestamp":1,"stacktraces":[]}},"status":"{state}"}}'
    await queue.pipeline.call("HSET", queue.keys.jobs, *(x for id_ in ids for x in (id_, record)))
    await queue.pipeline.call("SADD", queue.keys.to_key(state), *ids)


async def test_nothing_is_dropped_and_noted_by_default(make_queue, valkey):
    queue = work(make_queue)
    await finish(queue, "1", "f1")
    assert await ids_of(queue, "succeeded") == {"1"}
    assert not [key for key in await valkey_keys(queue) if "At" in key or "retention" in key]


async def valkey_keys(queue) -> list[str]:
    found = [await queue.pipeline.call("EXISTS", key) for key in queue.keys.every()]
    return [key for key, there in zip(queue.keys.every(), found, strict=True) if there]


async def test_what_is_too_old_goes_and_its_id_is_free(make_queue, eventually):
    queue = work(make_queue, keep_succeeded="300ms", keep_failed="1h")
    await finish(queue, "1", "2", "f1")
    assert (await queue.enqueue({"fails": False}, id="1")).is_new is False

    async def is_dropped():
        return not await ids_of(queue, "succeeded")

    await eventually(is_dropped)
    assert await ids_of(queue, "failed") == {"f1"}
    assert await queue.inspect_job("1") is None
    assert (await queue.enqueue({"fails": False}, id="1")).is_new
    failed = await queue.get_job("f1")
    assert failed.options["stacktraces"]


async def test_of_too_many_the_newest_stay(make_queue, eventually):
    queue = work(make_queue, keep_succeeded=3, keep_failed=Keep(count=1))
    await finish(queue, *map(str, range(1, 10)))
    await finish(queue, "f1")
    await finish(queue, "f2")
    await finish(queue, "a", "b", "c")

    async def are_few():
        found = await ids_of(queue, "succeeded"), await ids_of(queue, "failed")
        return found == ({"a", "b", "c"}, {"f2"})

    await eventually(are_few)
    assert await queue.pipeline.call("ZCARD", queue.keys.succeeded_at) == 3
    assert await queue.pipeline.call("HLEN", queue.keys.results) == 4


async def test_what_others_have_finished_goes_by_when_it_was_seen(make_queue, eventually):
    producer = make_queue(is_worker=False)
    await put_ended(await producer.ready(), "succeeded", *map(str, range(600)))
    work(make_queue, keep_succeeded="400ms")

    async def are_seen():
        return await producer.pipeline.call("ZCARD", producer.keys.seen_success) == 600

    await eventually(are_seen)
    seen_at_s = time.monotonic()

    async def are_gone():
        return (await producer.check_health()).succeeded == 0

    await eventually(are_gone)
    assert time.monotonic() - seen_at_s > 0.1
    assert await producer.pipeline.call("HLEN", producer.keys.jobs) == 0


async def test_own_retention_leaves_what_others_have_finished(make_queue, eventually):
    queue = work(make_queue, keep_succeeded="0,own", keep_failed="0s,own")
    await put_ended(await queue.ready(), "succeeded", "node")
    plain = work(make_queue)
    await finish(plain, "x")  # either worker may have run it
    await plain.close()
    await finish(queue, "1", "2", "f3")

    async def are_gone():
        return not {"1", "2"} & await ids_of(queue, "succeeded") and not await ids_of(queue, "failed")

    await eventually(are_gone)
    assert "node" in await ids_of(queue, "succeeded")
    assert (await queue.enqueue({"fails": False}, id="node")).is_new is False


async def test_workers_that_differ_drop_each_what_it_may(make_queue, eventually):
    patient = work(make_queue, keep_succeeded="1h,own", keep_failed="all")
    await finish(patient, "1", "f1")
    await put_ended(patient, "succeeded", "node")
    strict = work(make_queue, keep_succeeded="0s,own")

    async def is_dropped():
        return await ids_of(patient, "succeeded") == {"node"}

    await eventually(is_dropped)
    await strict.close()
    assert await ids_of(patient, "failed") == {"f1"}
    work(make_queue, keep_succeeded="0s")

    async def is_empty():
        return not await ids_of(patient, "succeeded")

    await eventually(is_empty)


async def test_a_retried_job_is_not_dropped_by_its_old_note(make_queue, eventually):
    queue = work(make_queue, keep_failed="1h")
    await finish(queue, "f1")
    keys = queue.keys
    noted_at = await queue.pipeline.call("ZSCORE", keys.failed_at, "f1")
    await queue.close()
    producer = await make_queue(is_worker=False).ready()
    # As Node retries: the note stays.
    await producer.pipeline.call("SREM", keys.failed, "f1")
    await producer.pipeline.call("LPUSH", keys.waiting, "f1")
    plain = work(make_queue)  # keeps all

    async def has_failed():
        return (await producer.check_health()).failed == 1

    await eventually(has_failed)
    await plain.close()
    assert await producer.pipeline.call("ZSCORE", keys.failed_at, "f1") == noted_at
    work(make_queue, keep_failed="0s,own")

    async def is_outdated():
        return not await producer.pipeline.call("EXISTS", keys.failed_at)

    await eventually(is_outdated)
    assert len((await producer.get_job("f1")).options["stacktraces"]) == 2


async def test_twenty_thousand_jobs_go_and_others_hardly_wait(make_queue, eventually):
    producer = await make_queue(is_worker=False).ready()
    for start in range(0, 20_000, 1000):
        await put_ended(producer, "succeeded", *(f"n-{n}" for n in range(start, start + 1000)))
    queue = make_queue(keep_succeeded=100, stall_interval=5000)
    queue.process(handle)
    slowest_s = 0.0
    async with asyncio.timeout(30):
        while (await producer.check_health()).succeeded > 100:
            began_s = time.perf_counter()
            await producer.pipeline.call("PING")
            slowest_s = max(slowest_s, time.perf_counter() - began_s)
    assert slowest_s < 0.5


async def test_a_key_of_the_wrong_type_stops_its_own_state_only(make_queue, eventually):
    queue = work(make_queue, keep_succeeded=0, keep_failed=0)
    errors = []
    queue.on("error", errors.append)
    await queue.ready()
    await queue.pipeline.call("SET", queue.keys.succeeded_at, "odd")
    await eventually(lambda: any("WRONGTYPE" in str(error) for error in errors))
    await finish(queue, "f1")

    async def has_gone():
        return not await ids_of(queue, "failed")

    await eventually(has_gone)
    await queue.pipeline.call("DEL", queue.keys.succeeded_at)
    await finish(queue, "1")

    async def is_dropped():
        return not await ids_of(queue, "succeeded")

    await eventually(is_dropped)


async def test_a_burst_drops_before_it_ends(make_queue):
    producer = await make_queue(is_worker=False).ready()
    await producer.save_all([producer.create_job({"fails": n % 10 == 0}) for n in range(500)])
    for _ in range(2):  # nor does the second burst wait for a turn
        await producer.enqueue({"fails": False})
        queue = make_queue(keep_succeeded=3, keep_failed="0s,own")
        queue.process(handle, 10)
        await queue.run(burst=True)
        await queue.close()
        health = await producer.check_health()
        assert (health.succeeded, health.failed, health.waiting) == (3, 0, 0)


async def test_what_a_burst_notes_has_a_ttl(make_queue):
    producer = await make_queue(is_worker=False).ready()
    for _ in range(2):
        await producer.enqueue({"fails": False})
        queue = make_queue(keep_succeeded="1h,own")
        queue.process(handle)
        await queue.run(burst=True)
        await queue.close()
        left_ms = await producer.pipeline.call("PTTL", queue.keys.succeeded_at)
        assert 0 < left_ms <= 31 * 24 * 3_600_000


async def test_destroy_deletes_the_notes_too(make_queue):
    queue = work(make_queue, keep_succeeded="1h", keep_failed="1h")
    await finish(queue, "1", "f1")
    assert queue.keys.succeeded_at in await valkey_keys(queue)
    await queue.close()
    again = make_queue(is_worker=False)
    await again.destroy()
    assert await valkey_keys(again) == []


def test_the_blocking_queue_takes_the_same_settings(valkey, queue_name):
    with sync.Queue(queue_name, redis=valkey.url, keep_succeeded="7d,10000", job_timeout="5m") as queue:
        assert str(queue.settings.keep_succeeded) == "7d,10000"
        assert queue.settings.job_timeout == 300_000


# The default timeout.


@pytest.mark.parametrize("executor", ["auto", "thread"])
async def test_a_job_that_sets_no_timeout_has_the_queues(make_queue, executor):
    queue = make_queue(job_timeout="100ms")
    release = asyncio.Event()
    if executor == "auto":

        async def slow(_job):
            await release.wait()

        queue.process(slow, 3)
    else:
        queue.process(lambda _job: time.sleep(0.3), 3, executor="thread")
    job = await queue.enqueue({})
    with pytest.raises(Exception, match=rf"Job {job.id} timed out \(100 ms\)"):
        await job.result(timeout=5000)
    assert "timeout" not in (await queue.get_job(job.id)).options


def sleep_long(_job):
    time.sleep(30)


async def test_a_child_process_is_ended_by_the_queues_timeout(make_queue):
    queue = make_queue(job_timeout="200ms")
    queue.process(sleep_long, executor="process")
    job = await queue.enqueue({})
    with pytest.raises(Exception, match=r"timed out \(200 ms\)"):
        await job.result(timeout=15_000)


async def test_a_jobs_own_timeout_wins_also_no_limit(make_queue):
    queue = make_queue(job_timeout=60)
    release = asyncio.Event()

    @queue.process(concurrency=3)
    async def slow(_job):
        await release.wait()
        return "done"

    unlimited = await queue.enqueue({}, timeout=0)
    longer = await queue.enqueue({}, timeout="1m")
    default = await queue.enqueue({})
    with pytest.raises(Exception, match=r"timed out \(60 ms\)"):
        await default.result(timeout=5000)
    release.set()
    assert await unlimited.result(timeout=5000) == "done"
    assert await longer.result(timeout=5000) == "done"
