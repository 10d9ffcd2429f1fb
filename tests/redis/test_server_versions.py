"""The engine's life on each server that can be had: Redis 6.2 to 8, Valkey 8 and 9."""

from __future__ import annotations

import asyncio

import pytest

from beeq import JobFailed, Queue, RedisUnavailable
from beeq.redis.masters.roles import Role, role_in
from tests.support.topologies import Pair, role, until
from tests.support.waiting import pause


async def test_jobs_of_each_kind_live_and_end(each_server):
    async with Queue("life", redis=each_server.url) as queue:
        release = asyncio.Event()

        @queue.process(concurrency=3)
        async def handler(job):
            if job.data == "fails" or (job.data == "twice" and job.options.get("retries") == 1):
                raise ValueError(job.data)
            await job.report_progress(50)
            await release.wait()
            return job.data

        jobs = [
            queue.create_job("plain"),
            queue.create_job("own id").set_id("mine"),
            queue.create_job("twice").retries(1),
            queue.create_job("later").delay_until(1),
        ]
        assert await queue.save_all(jobs) == {}
        failing = await queue.enqueue("fails")
        failed = asyncio.create_task(failing.result(timeout=20_000))
        release.set()
        assert [await job.result(timeout=20_000) for job in jobs] == ["plain", "own id", "twice", "later"]
        with pytest.raises(JobFailed, match="fails"):
            await failed


@pytest.mark.external
@pytest.mark.parametrize("kind", ["redis-6.2", "system", "redis-8.2"])
async def test_a_demoted_master_is_left(kind, tmp_path):
    """It answers READONLY, each version in its own form, to what a script wanted to write."""
    with Pair(tmp_path, kind=kind) as pair:
        async with Queue("moved", redis=pair.url) as queue:
            queue.on("error", lambda _error: None)

            @queue.process
            async def handler(job):
                return job.data

            assert await (await queue.enqueue(1)).result(timeout=5000) == 1
            old = pair.primary
            await asyncio.to_thread(pair.fail_over)
            await asyncio.to_thread(pair.change_places)
            await asyncio.to_thread(until, lambda: role(old) == "slave")
            async with asyncio.timeout(15):
                while True:
                    try:
                        job = await queue.enqueue(2)
                    except RedisUnavailable:
                        await pause(0.05)
                    else:
                        break
                assert await job.result(timeout=10_000) == 2


async def test_each_question_after_its_role_is_understood(each_server):
    """HELLO and INFO say it in RESP2; ROLE says ``slave`` where HELLO says ``replica``."""
    roles = []
    async with each_server.client(protocol=2) as client:
        client.response_callbacks.clear()
        for _ in range(2):
            roles += [role_in(await client.execute_command(question)) for question in ("HELLO", "ROLE")]
            roles.append(role_in(await client.execute_command("INFO", "replication")))
            await client.execute_command("REPLICAOF", "127.0.0.1", "1")
    assert roles == [Role.MASTER] * 3 + [Role.REPLICA] * 3
