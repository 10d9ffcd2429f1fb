"""Many who wait for large jobs: what they read while nothing happens, and at the end."""

from __future__ import annotations

import asyncio
import json

import pytest

from beeq import JobFailed, Queue

#: Jobs of a megabyte, and who waits for each.
JOBS, WAITERS = 20, 10


@pytest.fixture
async def read_bytes(own_valkey):
    """``await read_bytes()``: how much the server has sent to anyone."""
    async with own_valkey.client(decode_responses=True) as client:

        async def read_bytes() -> int:
            return int((await client.info("stats"))["total_net_output_bytes"])

        yield read_bytes


@pytest.mark.parametrize("get_events", [True, False])
async def test_two_hundred_who_wait_for_large_jobs_read_little(own_valkey, read_bytes, get_events):
    async with Queue("q", redis=own_valkey.url, is_worker=False, get_events=get_events) as queue:
        jobs = [queue.create_job({"text": "x" * 1_000_000}) for _ in range(JOBS)]
        assert await queue.save_all(jobs) == {}
        before = await read_bytes()
        waiting = [job.result(timeout=1500) for job in jobs for _ in range(WAITERS)]
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(end, TimeoutError) for end in ends)
        assert await read_bytes() - before < 1_000_000


async def test_the_counts_are_read_without_the_oldest_record(own_valkey, read_bytes):
    async with Queue("q", redis=own_valkey.url, is_worker=False) as queue:
        await queue.enqueue({"text": "x" * 1_000_000})
        before = await read_bytes()
        for _ in range(10):
            assert (await queue.check_health()).waiting == 1
        assert await read_bytes() - before < 100_000


async def test_the_end_of_a_large_job_costs_what_was_kept_of_it(own_valkey, read_bytes, eventually):
    async with Queue("q", redis=own_valkey.url, get_events=False) as queue:
        jobs = [queue.create_job({"text": "x" * 1_000_000, "n": n}) for n in range(JOBS)]
        assert await queue.save_all(jobs) == {}
        has_begun = asyncio.Event()

        async def handler(job):
            has_begun.set()
            if job.data["n"] % 2:
                raise ValueError(f"no {job.data['n']}")
            return job.data["n"] or None

        queue.process(handler, concurrency=JOBS)
        await has_begun.wait()

        async def have_ended():
            return not (await queue.check_health()).active

        await eventually(have_ended)
        before = await read_bytes()
        waiting = [job.result(timeout=10_000) for job in jobs for _ in range(WAITERS)]
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert await read_bytes() - before < 1_000_000
        reported = [str(end) if isinstance(end, JobFailed) else end for end in ends[::WAITERS]]
        assert reported == [f"no {n}" if n % 2 else n or None for n in range(JOBS)]


async def test_a_failure_that_node_recorded_costs_one_record_each(own_valkey, read_bytes):
    """Its trace is in the record, and nowhere else."""
    async with Queue("q", redis=own_valkey.url, is_worker=False, get_events=False) as queue:
        job = await queue.enqueue({"text": "x" * 1_000_000})
        waiting = [asyncio.ensure_future(job.result(timeout=10_000)) for _ in range(WAITERS)]
        await asyncio.sleep(0)
        before = await read_bytes()
        async with own_valkey.client(decode_responses=True) as node, node.pipeline() as transaction:
            record = json.loads(await node.hget(queue.keys.jobs, job.id))
            own_bytes = await read_bytes() - before
            record["status"], record["options"]["stacktraces"] = "failed", ["Error: from Node"]
            transaction.lrem(queue.keys.waiting, 0, job.id)
            transaction.hset(queue.keys.jobs, job.id, json.dumps(record))
            transaction.sadd(queue.keys.failed, job.id)
            await transaction.execute()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(end) for end in ends] == ["Error: from Node"] * WAITERS
        assert await read_bytes() - before - own_bytes < (WAITERS + 1) * 1_001_000


async def test_many_large_jobs_are_read_in_bounded_replies(own_valkey):
    """A reply of hundreds of megabytes holds up Redis, and everyone else on the connection."""
    async with Queue("q", redis=own_valkey.url, is_worker=False) as queue:
        jobs = [queue.create_job({"text": "x" * 700_000, "n": n}) for n in range(40)]
        assert await queue.save_all(jobs) == {}
        async with own_valkey.client(decode_responses=True) as client:
            await client.config_resetstat()
            found = await queue.get_jobs("waiting")
            stats = await client.info("commandstats")
        assert [job.data["n"] for job in found] == list(range(39, -1, -1))
        assert stats["cmdstat_hget"]["calls"] == 40
        assert stats["cmdstat_evalsha"]["calls"] >= 40
        assert "cmdstat_hmget" not in stats
