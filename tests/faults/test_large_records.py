"""Jobs and results of a megabyte: over a slow line, and against a server that takes less. All go on."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from beeq import JobFailed, Queue, RedisError, RedisRefused
from beeq.client.producer import SaveBatch
from tests.support.proxy import proxy_to
from tests.support.waiting import Recorder

MEGABYTE = "x" * 1_000_000
#: What a line carries, in bytes a second: all of a test's records take longer than Redis may be silent.
SLOW = 10_000_000
EAGER = {"initial_redis_failure_retry_delay": 10, "redis_timeout": 500}


@pytest.mark.parametrize("count", [30, pytest.param(100, marks=pytest.mark.external)])
async def test_large_records_come_over_a_slow_line_and_run_once(own_valkey, make_queue, count):
    producer = make_queue(redis=own_valkey.url, is_worker=False)
    await producer.save_all([producer.create_job([n, MEGABYTE]) for n in range(count)])
    runs: Counter[int] = Counter()
    async with proxy_to(own_valkey.port) as proxy:
        proxy.limit(SLOW)
        worker = make_queue(redis=proxy.url, redis_timeout=1000)
        done = Recorder(worker, "succeeded")

        @worker.process(concurrency=count)
        async def handler(job):
            runs[job.data[0]] += 1

        await done.until("succeeded", count=count, within_s=count)
        await worker.close()
    assert runs == Counter(range(count))


@pytest.mark.parametrize("count", [20, pytest.param(40, marks=pytest.mark.external)])
async def test_large_results_go_over_a_slow_line_and_run_once(own_valkey, make_queue, count):
    producer = make_queue(redis=own_valkey.url, is_worker=False)
    jobs = [await producer.enqueue(n) for n in range(1, count + 1)]
    runs: Counter[int] = Counter()
    async with proxy_to(own_valkey.port) as proxy:
        proxy.limit(SLOW)
        worker = make_queue(redis=proxy.url, get_events=False, redis_timeout=2000)
        done = Recorder(worker, "succeeded")
        all_run = asyncio.Event()

        @worker.process(concurrency=count)
        async def handler(job):
            runs[job.data] += 1
            if len(runs) == count:
                all_run.set()
            await all_run.wait()  # so that all results are to be sent at once
            return MEGABYTE

        await done.until("succeeded", count=count, within_s=2 * count)
        await worker.close()
    assert runs == Counter(range(1, count + 1))
    assert [len(await job.result(timeout=5000)) for job in jobs] == [1_000_000] * count


@pytest.fixture
async def small_server(own_valkey):
    """A server that takes no argument of more than a megabyte."""
    async with own_valkey.client() as client:
        await client.config_set("proto-max-bulk-len", 1024 * 1024)
    return own_valkey


@pytest.mark.parametrize("concurrency", [1, 5, 51])
async def test_a_result_that_redis_does_not_take_fails_its_job_only(small_server, make_queue, concurrency):
    worker = make_queue(redis=small_server.url, **EAGER)
    ends = Recorder(worker, "succeeded", "failed", "error")
    runs: Counter[str] = Counter()
    jobs = [await worker.enqueue(n, retries=2) for n in range(51)]

    @worker.process(concurrency=concurrency)
    async def handler(job):
        runs[job.id] += 1
        await asyncio.sleep(0)
        return MEGABYTE * 2 if job.data == 7 else job.data

    await ends.until("succeeded", count=50)
    ((failed, error),) = await ends.until("failed")
    assert (failed.id, type(error)) == (jobs[7].id, RedisRefused)
    assert str(error).startswith("Redis did not take the job's outcome of 4000")
    assert runs == Counter(job.id for job in jobs)
    with pytest.raises(JobFailed, match="did not take the job's outcome"):
        await jobs[7].result(timeout=5000)
    kept = await worker.get_job(jobs[7].id)
    assert (kept.status, kept.data) == ("failed", 7)
    assert "did not take" in kept.options["stacktraces"][0]
    assert (await worker.check_health()).active == 0


async def test_data_that_a_handler_made_too_large_fails_its_job_only(small_server, make_queue, expect_errors):
    worker = make_queue(redis=small_server.url, **EAGER)
    ends = Recorder(worker, "succeeded", "failed")
    jobs = [await worker.enqueue([n]) for n in range(5)]

    @worker.process(concurrency=5)
    async def handler(job):
        if job.data == [2]:
            job.data.append(MEGABYTE * 2)

    await ends.until("succeeded", count=4)
    await ends.until("failed")
    kept = await worker.get_job(jobs[2].id)
    assert (kept.status, kept.data) == ("failed", [2])


async def test_a_record_that_no_longer_fits_stays_as_it_is(own_valkey, make_queue, expect_errors):
    worker = make_queue(redis=own_valkey.url, **EAGER)
    job = await worker.enqueue(MEGABYTE * 2)
    async with own_valkey.client() as client:
        await client.config_set("proto-max-bulk-len", 1024 * 1024)
        before = await client.hget(worker.keys.jobs, job.id)
        failed = Recorder(worker, "failed")

        @worker.process
        async def handler(_job):
            return None

        await failed.until("failed")
        assert await client.hget(worker.keys.jobs, job.id) == before
        assert await client.sismember(worker.keys.failed, job.id)


async def test_a_long_result_that_ends_the_connection_fails_its_job(own_valkey, make_queue, expect_errors):
    """Beyond its buffer a server hangs up without a word."""
    async with own_valkey.client() as client:
        await client.config_set("client-query-buffer-limit", 1024 * 1024)
    worker = make_queue(redis=own_valkey.url, **EAGER)
    ends = Recorder(worker, "succeeded", "failed")

    @worker.process(concurrency=5)
    async def handler(job):
        return MEGABYTE * 4 if job.data == 2 else job.data

    jobs = [await worker.enqueue(n) for n in range(20)]
    await ends.until("succeeded", count=19)
    ((failed, _error),) = await ends.until("failed")
    assert failed.id == jobs[2].id


async def test_of_many_saves_only_the_one_that_is_too_large_fails(small_server, make_queue):
    producer = make_queue(redis=small_server.url, is_worker=False)
    await producer.ready()
    saves = [producer.enqueue(MEGABYTE * 2 if n in (3, 11) else n) for n in range(20)]
    saved = await asyncio.gather(*saves, return_exceptions=True)
    assert [n for n, job in enumerate(saved) if isinstance(job, RedisError)] == [3, 11]
    assert (await producer.check_health()).waiting == 18


async def test_of_jobs_saved_together_only_those_too_large_fail(small_server, make_queue):
    producer = make_queue(redis=small_server.url, is_worker=False)
    jobs = [producer.create_job(MEGABYTE * 2 if n in (3, 11) else n) for n in range(20)]
    errors = await producer.save_all(jobs)
    assert [jobs.index(job) for job in errors] == [3, 11]
    assert (await producer.check_health()).waiting == 18


async def test_of_jobs_saved_together_only_too_long_an_id_fails(small_server, make_queue):
    producer = make_queue(redis=small_server.url, is_worker=False)
    jobs = [producer.create_job(n).set_id(MEGABYTE * 2 if n == 11 else f"id{n}") for n in range(20)]
    errors = await producer.save_all(jobs)
    assert [jobs.index(job) for job in errors] == [11]
    saves = [producer.enqueue(n, id=MEGABYTE * 2 if n == 3 else None) for n in range(20)]
    saved = await asyncio.gather(*saves, return_exceptions=True)
    assert [n for n, job in enumerate(saved) if isinstance(job, RedisError)] == [3]
    assert (await producer.check_health()).waiting == 38


async def test_long_ids_go_in_bounded_calls(make_queue, monkeypatch):
    producer = make_queue(is_worker=False)
    await producer.ready()
    lengths: list[int] = []
    real = SaveBatch._packed

    def packed(self: SaveBatch) -> bytes:
        call = real(self)
        lengths.append(len(call))
        return call

    monkeypatch.setattr(SaveBatch, "_packed", packed)
    jobs = [producer.create_job({}).set_id(f"ä{n}" + MEGABYTE[:100_000]) for n in range(30)]
    assert not await producer.save_all(jobs)
    assert len(lengths) >= 3
    assert max(lengths) < 1_100_000


async def test_what_cannot_be_written_holds_up_nothing_else(make_queue, redis):
    """Delayed retries cannot be written, and successes can."""
    worker: Queue = make_queue(**EAGER)
    await redis.set(worker.keys.delayed, "of the wrong type")
    ends = Recorder(worker, "succeeded", "retrying", "error")

    @worker.process(concurrency=4)
    async def handler(job):
        if job.data in (3, 7):
            raise ValueError("again")

    for n in range(1, 31):
        await worker.enqueue(n, retries=1, backoff=("fixed", 60_000))
    await ends.until("succeeded", count=28)
    await redis.delete(worker.keys.delayed)
    assert {job.data for job, _ in await ends.until("retrying", count=2)} == {3, 7}
    assert all("WRONGTYPE" in str(error) for (error,) in ends.of("error"))


async def test_a_result_that_takes_longer_than_the_timeout_is_recorded(own_valkey, make_queue):
    """What is in the buffers of the kernel and of a proxy cannot be seen moving."""
    producer = make_queue(redis=own_valkey.url, is_worker=False)
    job = await producer.enqueue({})
    async with proxy_to(own_valkey.port) as proxy:
        proxy.limit(1_000_000)
        worker = make_queue(redis=proxy.url, get_events=False, redis_timeout=1000)
        ends = Recorder(worker, "succeeded", "failed", "error")

        @worker.process
        async def handler(_job):
            return MEGABYTE * 2

        await ends.until("succeeded")
        await worker.close()
    assert (ends.of("failed"), ends.of("error")) == ([], [])
    assert len(await job.result(timeout=5000)) == 2_000_000
