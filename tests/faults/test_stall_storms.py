"""Stall checks in foul weather: more orphans than an interval has time for, checkers that stop and wake, odd ids."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from beeq.errors import RedisUnavailable
from beeq.redis import scripts
from tests.faults.test_scale import Calls
from tests.support import audit
from tests.support.proxy import proxy_to
from tests.support.waiting import eventually as wait_until
from tests.support.waiting import pause

_ROOT = Path(__file__).parents[2]
RECORD = '{"data":{},"options":{"timestamp":1,"stacktraces":[]},"status":"created","progress":0}'
HEALTHY = '{"data":"healthy","options":{"timestamp":1,"stacktraces":[]},"status":"created","progress":0}'

#: Works: a healthy job runs until a line comes, any other ends at once. Tells, in the end, how often each ran.
WORKER = """
import asyncio, json, sys
from collections import Counter
from beeq import Queue

async def main():
    name, url, stall_interval = sys.argv[1:]
    queue = Queue(name, redis=url, stall_interval=int(stall_interval))
    release, runs, stalled = asyncio.Event(), Counter(), []
    queue.on("stalled", stalled.append)
    loop = asyncio.get_running_loop()

    def on_line():
        loop.remove_reader(sys.stdin)
        release.set()

    loop.add_reader(sys.stdin, on_line)

    @queue.process(concurrency=300)
    async def handler(job):
        runs[job.id] += 1
        if job.data == "healthy":
            await release.wait()

    await queue.run()
    print(json.dumps({"runs": runs, "stalled": stalled}))

asyncio.run(main())
"""

#: Checks once, each id that went back on a line; then says so.
CHECKER = """
import asyncio, sys
from beeq import Queue

async def main():
    name, url, stall_interval = sys.argv[1:]
    queue = Queue(name, redis=url, stall_interval=int(stall_interval), redis_timeout=60_000, is_worker=False)
    await queue.ready()
    print("requeued", await queue.check_stalled_jobs(), flush=True)
    await queue.close()

asyncio.run(main())
"""


async def start(source: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", source, *arguments),
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def end(processes: list[asyncio.subprocess.Process]) -> None:
    """Kill what still runs."""
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.wait()


def leave_orphans(client: Any, keys: Any, ids: list[Any], *, is_marked: bool = True) -> None:
    """Leave jobs as workers do that died more than an interval ago."""
    for start in range(0, len(ids), 5000):
        page = ids[start : start + 5000]
        client.hset(keys.jobs, mapping=dict.fromkeys(page, RECORD))
        client.lpush(keys.active, *page)
        if is_marked:
            client.sadd(keys.stalling, *page)


async def eventually_new_line(proxy: Any, queue: Any) -> None:
    """Cut the queue's lines, and wait until it calls over a new one: its subscriber may have dialled first."""
    connection = queue.pipeline._connection
    was_made_at = connection.again_at
    proxy.hang_up()
    await wait_until(lambda: not connection.is_connected or connection.again_at > was_made_at)


class Fleet:
    """Workers whose healthy jobs run until ``release``; any other job ends at once. ``runs`` counts the starts."""

    def __init__(self, workers: list[Any], *, concurrency: int) -> None:
        self.workers = workers
        self.runs = Counter[str]()
        self.stalled: list[str] = []
        self.release = asyncio.Event()
        for queue in workers:
            queue.on("stalled", self.stalled.append)
            queue.process(self._run, concurrency=concurrency)

    async def _run(self, job: Any) -> None:
        self.runs[job.id] += 1
        if job.data == "healthy":
            await self.release.wait()

    async def begin(self, client: Any, healthy: list[str], eventually: Any) -> None:
        """Let the healthy jobs begin."""
        keys = self.workers[0].keys
        client.hset(keys.jobs, mapping=dict.fromkeys(healthy, HEALTHY))
        client.lpush(keys.waiting, *healthy)
        await eventually(lambda: sum(self.runs.values()) == len(healthy))

    async def end(self, client: Any, eventually: Any) -> None:
        """Let the healthy jobs end, and close."""
        keys = self.workers[0].keys
        self.release.set()
        await eventually(lambda: not client.exists(keys.active, keys.waiting))
        for queue in self.workers:
            await queue.close()


@pytest.mark.external  # takes long
async def test_tens_of_thousands_of_orphans_beside_healthy_jobs(own_valkey, make_queue, eventually):
    """The check outlasts the interval; the healthy run once, the orphans are all done, no call is long."""
    queue = make_queue(redis=own_valkey.url, stall_interval=1000, is_worker=False)
    keys = queue.keys
    healthy, orphans = [f"healthy {n}" for n in range(600)], [f"orphan {n}" for n in range(30_000)]
    with own_valkey.sync_client() as client, Calls(own_valkey) as calls:
        client.hset(keys.jobs, mapping=dict.fromkeys(healthy, HEALTHY))
        client.lpush(keys.waiting, *healthy)
        workers = [await start(WORKER, queue.name, own_valkey.url, "1000") for _ in range(3)]
        try:
            await eventually(lambda: client.llen(keys.active) == len(healthy))
            leave_orphans(client, keys, orphans)
            await eventually(lambda: client.scard(keys.succeeded) == len(orphans), 60, every_s=0.2)
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write(b"release\n")
            await eventually(lambda: client.scard(keys.succeeded) == len(orphans) + len(healthy))
            for worker in workers:
                worker.terminate()
            answers = [
                json.loads((await asyncio.wait_for(worker.communicate(), 30))[0]) for worker in workers
            ]
        finally:
            await end(workers)
        runs = sum((Counter(answer["runs"]) for answer in answers), Counter[str]())
        assert runs == Counter([*healthy, *orphans])
        stalled = [job_id for answer in answers for job_id in answer["stalled"]]
        assert Counter(stalled) == Counter(orphans)
        assert audit.faults(client, keys) == []
        assert {int(words[-2]) for words in calls.of("requeue_stalled")} <= set(range(251))


async def test_each_stalled_job_is_told_though_the_check_breaks_off(own_valkey, make_queue, recorder):
    """The ids of the calls before have gone back, and only this check can report them."""
    async with proxy_to(own_valkey.port) as proxy:
        queue = make_queue(redis=proxy.url, is_worker=False, stall_interval=60_000, redis_timeout=300)
        await queue.ready()
        stalled = recorder(queue, "stalled")
        sha, seen = scripts.requeue_stalled.sha.encode(), 0

        def is_third(request: bytes) -> bool:
            nonlocal seen
            seen += request.count(sha)
            return seen >= 3

        proxy.hold = is_third
        with own_valkey.sync_client() as client:
            leave_orphans(client, queue.keys, [f"{n}" for n in range(1000)])
            with pytest.raises(RedisUnavailable):
                await queue.check_stalled_jobs()
            reported = {job_id for (job_id,) in stalled.of("stalled")}
            assert len(reported) == 500
            assert reported == set(client.lrange(queue.keys.waiting, 0, -1))
        proxy.hold = lambda _request: False
        await queue.close()


@pytest.mark.parametrize("last_calls", ["requeue_stalled", "mark_stalling"])
async def test_a_check_that_was_frozen_leaves_fresh_marks_alone(
    own_valkey, make_queue, eventually, last_calls
):
    """SIGSTOP in the midst of a check, SIGCONT once another one has marked the healthy jobs."""
    name = f"frozen-{last_calls}"
    fleet = Fleet([make_queue(name, redis=own_valkey.url, stall_interval=60_000)], concurrency=100)
    (worker,), keys = fleet.workers, fleet.workers[0].keys
    healthy, orphans = [f"healthy {n}" for n in range(60)], [f"orphan {n}" for n in range(3000)]
    sha, seen = getattr(scripts, last_calls).sha.encode(), 0

    def is_second(request: bytes) -> bool:
        nonlocal seen
        seen += request.count(sha)
        return seen >= 2

    with own_valkey.sync_client() as client:
        await eventually(lambda: client.get(keys.stall_block) == "1")  # the worker's first check is over
        await fleet.begin(client, healthy, eventually)
        leave_orphans(client, keys, orphans, is_marked=last_calls == "requeue_stalled")
        client.delete(keys.stall_block)
        async with proxy_to(own_valkey.port) as proxy:
            proxy.hold = is_second
            checker = await start(CHECKER, name, proxy.url, "60000")
            try:
                await eventually(lambda: seen >= 2)
                checker.send_signal(signal.SIGSTOP)
                left = client.llen(keys.active)
                assert left > len(healthy), "it is in the midst"
                client.delete(keys.stall_block)  # its time is over,
                client.srem(keys.stalling, *healthy)  # and the worker has beaten
                await worker.check_stalled_jobs()
                assert client.smismember(keys.stalling, healthy) == [1] * len(healthy)
                proxy.released.set()
                checker.send_signal(signal.SIGCONT)
                answer, _ = await asyncio.wait_for(checker.communicate(), 30)
            finally:
                await end([checker])
        before = 250 - len(healthy) if last_calls == "requeue_stalled" else 0
        assert int(answer.split()[1]) == before, "what it did before, and no more"
        assert client.smismember(keys.stalling, healthy) == [1] * len(healthy)
        for _ in range(2):  # who is dead is found all the same
            client.srem(keys.stalling, *healthy)  # as the worker's beats do
            client.delete(keys.stall_block)
            await worker.check_stalled_jobs()
        await eventually(lambda: client.scard(keys.succeeded) == len(orphans))
        await fleet.end(client, eventually)
        assert fleet.runs == Counter([*healthy, *orphans])
        assert audit.faults(client, keys) == []


async def test_redis_that_stood_still_hears_beats_before_a_check(own_valkey, make_queue, eventually):
    """It was stopped for longer than the interval: beats and checks are waiting in its sockets."""
    settings = {"redis": own_valkey.url, "stall_interval": 1000, "redis_timeout": 20_000}
    fleet = Fleet([make_queue(**settings) for _ in range(3)], concurrency=50)
    for queue in fleet.workers:
        queue.on("error", lambda _error: None)  # beats that came to nothing
    keys = fleet.workers[0].keys
    healthy = [f"healthy {n}" for n in range(150)]
    with own_valkey.sync_client(socket_timeout=60) as client:
        await fleet.begin(client, healthy, eventually)
        for _ in range(2):
            await eventually(lambda: client.scard(keys.stalling) == len(healthy), every_s=0.001)
            own_valkey.pause()
            await pause(2.5)
            own_valkey.resume()
            await eventually(lambda: client.get(keys.stall_block) == "1")
        assert fleet.stalled == []
        await fleet.end(client, eventually)
        assert fleet.runs == Counter(healthy)


async def test_marks_from_before_an_outage_are_void_once(own_valkey, make_queue):
    """Living workers could not beat meanwhile, and may be back later than the check."""
    async with proxy_to(own_valkey.port) as proxy:
        queue = make_queue(redis=proxy.url, is_worker=False, stall_interval=60_000)
        queue.on("error", lambda _error: None)
        await queue.ready()
        with own_valkey.sync_client() as client:
            leave_orphans(client, queue.keys, ["1", "2"])
            found = []
            for _ in range(2):
                await eventually_new_line(proxy, queue)
                found.append(await queue.check_stalled_jobs())
                assert client.get(queue.keys.stall_block) == "1"
                client.delete(queue.keys.stall_block)
            assert found == [0, 2], "a line that breaks again and again holds up no orphan"
        await queue.close()


async def test_a_process_that_starts_in_an_outage_voids_marks_too(own_valkey, make_queue):
    async with proxy_to(own_valkey.port) as proxy:
        queue = make_queue(redis=proxy.url, is_worker=False, stall_interval=60_000, redis_timeout=300)
        proxy.is_silent = True
        with pytest.raises(RedisUnavailable):
            await queue.connect()
        proxy.is_silent = False
        await queue.connect()
        with own_valkey.sync_client() as client:
            leave_orphans(client, queue.keys, ["1", "2"])
            found = []
            for _ in range(2):
                found.append(await queue.check_stalled_jobs())
                client.delete(queue.keys.stall_block)
            assert found == [0, 2]
        await queue.close()


async def test_odd_ids_in_each_key_of_the_check_hold_up_nobody(own_valkey, make_queue, eventually):
    """Binary, empty and long ids, ids without a record, ids that are active three times, marks of nobody."""
    queue = make_queue(redis=own_valkey.url, stall_interval=200)
    keys = queue.keys
    odd = [b"\xff\xfe\x00", b"", b"a b\r\n*1", "é ☃".encode(), b"-1", b"0", b"1e3", b"%d", b"x" * 100_000]
    ghosts = [b"ghost \x80", b"ghost"]
    runs: Counter[bytes] = Counter()
    with own_valkey.sync_client(decode_responses=False) as client:
        for job_id in odd:
            client.hset(keys.jobs, job_id, RECORD)
            client.lpush(keys.active, job_id, job_id, "between", job_id)
        client.hset(keys.jobs, "between", RECORD)
        client.lpush(keys.active, *ghosts, *ghosts)
        client.sadd(keys.stalling, *odd, *ghosts, b"mark of nobody \xff", b"")
        client.hset(keys.claims, mapping={b"\xff\xfe\x00": b"nonsense", b"-1": b"\xff:x", b"ghost": b"::1"})

        @queue.process(concurrency=5)
        async def handler(job):
            runs[job.id.encode(errors="replace")] += 1

        expected = {*odd, b"between"}
        await eventually(lambda: client.scard(keys.succeeded) == len(expected))
        await eventually(lambda: not client.exists(keys.active, keys.waiting, keys.stalling))
        await queue.close()
        assert client.smembers(keys.succeeded) == expected
        assert sum(runs.values()) == len(expected)
        assert client.exists(keys.claims, keys.requeued, keys.swept) == 0
        assert client.hlen(keys.jobs) == len(expected)
