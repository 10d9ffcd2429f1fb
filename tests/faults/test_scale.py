"""Much at once: what has to hold whatever the number. The figures are ``benchmarks/scale.py``'s."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from beeq import Job
from beeq.redis.scripts import ALL
from beeq.worker.heartbeat import Heartbeat
from tests.support import audit
from tests.support.server import Server
from tests.support.waiting import eventually

_ROOT = Path(__file__).resolve().parents[2]

#: No script call has more arguments: 500 outcomes of seven each are the most.
MOST_ARGUMENTS = 3600
_NAMES = {script.sha: script.name for script in ALL}
#: What Redis writes into its log for the arguments that it leaves out.
_MORE = re.compile(r"\.\.\. \((\d+) more arguments\)$")


class Calls:
    """The script calls that a server has executed, as its own log has them."""

    def __init__(self, server: Server) -> None:
        self._client = server.sync_client()
        self._client.config_set("slowlog-max-len", 100_000)
        self._client.config_set("slowlog-log-slower-than", 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._client.close()

    def of(self, name: str) -> list[list[str]]:
        """Return the words of each call of one script, as far as the log has them."""
        return [words for script, words in self._all() if script == name]

    def _all(self) -> Iterator[tuple[str, list[str]]]:
        for entry in self._client.slowlog_get(100_000):
            words = entry["command"].decode(errors="replace").split(" ")
            if words[0] == "EVALSHA":
                yield _NAMES[words[1]], words

    def assert_bounded(self) -> None:
        """Each call has carried a bounded number of jobs."""
        sizes: dict[str, int] = {}
        for name, words in self._all():
            more = _MORE.search(" ".join(words))
            # "... (n more arguments)" is four words in place of n.
            size = len(words) + (int(more[1]) - 4 if more else 0)
            sizes[name] = max(size, sizes.get(name, 0))
        assert sizes
        assert {name: size for name, size in sizes.items() if size > MOST_ARGUMENTS} == {}


@pytest.fixture
def calls(own_valkey: Server) -> Iterator[Calls]:
    with Calls(own_valkey) as calls:
        yield calls


def assert_ended(server: Server, queue: Any, *, succeeded: int) -> None:
    """Every job has succeeded, and nothing else is left of any."""
    with server.sync_client() as client:
        keys = queue.keys
        assert client.scard(keys.succeeded) == succeeded
        left = [client.exists(key) for key in (keys.waiting, keys.active, keys.delayed, keys.claims)]
        assert left == [0, 0, 0, 0]
        assert audit.faults(client, keys) == []


def beating_threads() -> int:
    return sum(thread.name == "beeq-heartbeat" for thread in threading.enumerate())


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


class Seen:
    """Notes which jobs have begun, or their results, and signals when there are as many as expected."""

    def __init__(self, expected: int) -> None:
        self.order: list[Any] = []
        self._expected = expected
        self._over = asyncio.Event()

    def note(self, mark: Any) -> None:
        self.order.append(mark)
        if len(self.order) == self._expected:
            self._over.set()

    def note_result(self, _job: Job, result: Any) -> None:
        self.note(result)

    async def all(self) -> list[Any]:
        async with asyncio.timeout(180):
            await self._over.wait()
        return self.order


async def save(queue: Any, count: int, *, at_once: int = 5000) -> None:
    for first in range(0, count, at_once):
        jobs = [queue.create_job({"n": n}) for n in range(first, min(first + at_once, count))]
        assert await queue.save_all(jobs) == {}


async def test_a_long_queue_is_taken_from_its_front_job_by_job(own_valkey, make_queue, calls):
    queue = make_queue(redis=own_valkey.url)
    await save(queue, 50_000)
    begun = Seen(5000)

    @queue.process(concurrency=100)
    async def handler(job):
        begun.note(job.data["n"])

    await begun.all()
    await queue.close()
    assert begun.order == list(range(len(begun.order)))
    with own_valkey.sync_client() as client:
        keys = queue.keys
        assert client.scard(keys.succeeded) == len(begun.order)
        assert client.llen(keys.waiting) == 50_000 - len(begun.order)
        assert client.lindex(keys.waiting, -1) == str(len(begun.order) + 1)  # ids count from 1
        assert (client.exists(keys.active), client.exists(keys.claims)) == (0, 0)
    calls.assert_bounded()


async def test_a_worker_that_emptied_its_queue_holds_no_job(own_valkey, make_queue):
    producer = make_queue(
        redis=own_valkey.url, is_worker=False, get_events=False
    )  # it gets no events of ends
    await save(producer, 10_000, at_once=500)
    queue = make_queue(redis=own_valkey.url, remove_on_success=True)
    succeeded = Seen(10_000)
    queue.on("succeeded", succeeded.note_result)

    @queue.process(concurrency=100)
    async def handler(job):
        return job.id

    assert len(set(await succeeded.all())) == 10_000
    worker = queue._consumer.worker
    await eventually(lambda: not worker.pump.scheduler.claimed)
    assert (worker.active_jobs, worker.pump.scheduler.calls_in_flight, queue.event_hub.jobs) == ([], 0, {})
    assert producer.event_hub.jobs == {}
    assert len(queue.event_hub._jobs) <= 2000  # references to what is gone are swept out
    assert len(producer.event_hub._jobs) <= 2000

    owners = (queue._actions, producer._actions)

    def alive() -> int:
        gc.collect()
        return sum(type(thing) is Job and thing.owner in owners for thing in gc.get_objects())

    await eventually(lambda: alive() == 0)


async def test_jobs_due_at_once_are_raised_in_pages_and_run_once(own_valkey, make_queue, calls):
    producer = make_queue(redis=own_valkey.url, is_worker=False, activate_delayed_jobs=False)
    jobs = [
        producer.create_job({"n": n}).delay_until(timedelta(milliseconds=10_000 + n % 7)) for n in range(6000)
    ]
    assert await producer.save_all(jobs) == {}
    with own_valkey.sync_client() as client:
        ids = client.zrange(producer.keys.delayed, 0, -1)
        client.zadd(producer.keys.delayed, dict.fromkeys(ids, 1))  # due since 1970, all of them
    begun = Seen(6000)
    raised: list[int] = []
    workers = [make_queue(redis=own_valkey.url) for _ in range(2)]  # two share the raising
    for queue in workers:
        queue.on("raised jobs", raised.append)

        @queue.process(concurrency=50)
        async def handler(job):
            begun.note(job.data["n"])

    assert Counter(await begun.all()) == Counter(range(6000))
    for queue in workers:
        await queue.close()
    assert sum(raised) == 6000
    assert len(calls.of("raise_delayed")) >= 6  # 1000 each
    calls.assert_bounded()
    assert_ended(own_valkey, producer, succeeded=6000)


async def test_thousands_of_active_jobs_live_through_stall_checks(own_valkey, make_queue, calls):
    queue = make_queue(redis=own_valkey.url, stall_interval=2000)
    stalled: list[str] = []
    queue.on("stalled", stalled.append)
    await save(queue, 2500)
    gates: dict[int, asyncio.Event] = {}
    begun, succeeded = Seen(2500), Seen(2500)
    queue.on("succeeded", succeeded.note_result)

    @queue.process(concurrency=2500)
    async def handler(job):
        gate = gates[job.data["n"]] = asyncio.Event()
        begun.note(job.data["n"])
        await gate.wait()
        return job.data["n"]

    await begun.all()
    with own_valkey.sync_client() as client:
        assert client.llen(queue.keys.active) == 2500
        await eventually(lambda: client.scard(queue.keys.stalling) == 2500)  # the next check asks
        await eventually(lambda: client.scard(queue.keys.stalling) == 0)  # beaten for, one and all
    order = list(gates)
    random.Random(1).shuffle(order)
    for n in order:
        gates[n].set()
    assert Counter(await succeeded.all()) == Counter(range(2500))
    await queue.close()
    assert stalled == []
    assert {words[-2] for words in calls.of("mark_stalling")} >= {"0", "1000", "2000"}  # 1000 each
    calls.assert_bounded()
    assert_ended(own_valkey, queue, succeeded=2500)


async def test_thousands_of_running_jobs_are_given_back_in_order(
    own_valkey, make_queue, calls, expect_errors
):
    queue = make_queue(redis=own_valkey.url)
    await save(queue, 2500)
    begun = Seen(2500)

    @queue.process(concurrency=2500)
    async def handler(job):
        begun.note(job.data["n"])
        await asyncio.Event().wait()

    await begun.all()
    with pytest.raises(TimeoutError):
        await queue.close(1)
    with own_valkey.sync_client() as client:
        assert client.exists(queue.keys.active, queue.keys.claims) == 0
        waiting = [int(job_id) for job_id in client.lrange(queue.keys.waiting, 0, -1)]
        assert waiting == list(range(2500, 0, -1))
    assert len(calls.of("give_back")) >= 5  # 500 each
    calls.assert_bounded()


async def test_a_save_of_many_megabytes_is_cut_into_timed_batches(own_valkey, make_queue):
    """The line's bound is for one answer: one batch of all of it could take longer than that."""
    queue = make_queue(redis=own_valkey.url, is_worker=False)
    await queue.ready()
    sizes: list[int] = []
    ask = queue.pipeline._connection.ask_each

    def ask_and_note(packed, on_end):
        sizes.append(sum(map(len, packed)))
        ask(packed, on_end)

    queue.pipeline._connection.ask_each = ask_and_note
    jobs = [queue.create_job({"n": n, "text": "x" * 500_000}) for n in range(40)]
    assert await queue.save_all(jobs) == {}
    assert [job.id for job in jobs] == [str(n) for n in range(1, 41)]
    assert len(sizes) >= 4
    assert max(sizes) < 6_000_000


async def test_a_dead_workers_jobs_are_queued_again_page_by_page(own_valkey, make_queue, calls):
    queue = make_queue(redis=own_valkey.url, stall_interval=1)
    await save(queue, 1000)
    with own_valkey.sync_client() as client:
        keys = queue.keys
        ids = client.lrange(keys.waiting, 0, -1)
        client.rename(keys.waiting, keys.active)  # taken by somebody who never beat
        client.sadd(keys.stalling, *ids)

        async def check() -> bool:
            await queue.check_stalled_jobs()
            return not client.exists(keys.active)

        await eventually(check)
        assert sorted(client.lrange(keys.waiting, 0, -1)) == sorted(ids)
        assert client.exists(keys.stalling) == 0
    assert len(calls.of("requeue_stalled")) >= 4  # 250 each


async def test_records_of_a_megabyte_go_alone_and_come_back_whole(own_valkey, make_queue, calls):
    queue = make_queue(redis=own_valkey.url)
    texts = [f"{n}" * 1_000_000 for n in range(8)]
    jobs = [queue.create_job({"text": text}) for text in texts]
    assert await queue.save_all(jobs) == {}
    assert len(calls.of("add_jobs")) == 8

    @queue.process(concurrency=10)
    async def handler(job):
        return job.data["text"].replace(job.data["text"][0], "x", 1)

    results = await asyncio.gather(*(job.result(timeout=30_000) for job in jobs))
    assert results == [f"x{text[1:]}" for text in texts]
    await queue.close()
    assert_ended(own_valkey, queue, succeeded=8)


@pytest.mark.external  # it takes long
async def test_many_queues_share_one_heartbeat_thread_and_leave_none(own_valkey, make_queue):
    with own_valkey.sync_client() as client:
        connections, threads = len(client.client_list()), beating_threads()
        tasks, files = len(asyncio.all_tasks()), descriptors()
        queues = [make_queue(f"many-{n}", redis=own_valkey.url, redis_timeout=60_000) for n in range(60)]
        done = Seen(60 * 3)
        for queue in queues:
            queue.on("succeeded", done.note_result)

            @queue.process
            async def handler(job):
                return job.queue.name, job.data["n"]

        await asyncio.gather(*(save(queue, 3) for queue in queues))
        assert Counter(await done.all()) == Counter((queue.name, n) for queue in queues for n in range(3))
        await eventually(lambda: all(client.zcard(queue.keys.workers) == 1 for queue in queues))
        assert beating_threads() == threads + 1
        # On a busy machine the watchdog asks over one more whether Redis answers.
        usual = [each for each in client.client_list() if each["cmd"] != "llen"]
        assert len(usual) - connections <= 5 * 60
        await asyncio.gather(*(queue.close() for queue in queues))
        assert beating_threads() == threads
        assert len(asyncio.all_tasks()) == tasks
        assert descriptors() == files
        await eventually(lambda: len(client.client_list()) == connections)
        assert [name for name in (queue.keys.workers for queue in queues) if client.exists(name)] == []
        for queue in queues:
            assert_ended(own_valkey, queue, succeeded=3)


async def _is_beaten_for(server: Server, queue: Any) -> None:
    """Ask the queue's one active job for a sign of life, and wait for it."""
    with server.sync_client() as client:
        (job_id,) = client.lrange(queue.keys.active, 0, -1)
        client.sadd(queue.keys.stalling, job_id)
        await eventually(lambda: not client.sismember(queue.keys.stalling, job_id))


async def test_a_queue_is_beaten_for_whoever_else_has_closed_before(own_valkey, make_queue):
    release = asyncio.Event()

    async def begin(name: str) -> Any:
        queue = make_queue(name, redis=own_valkey.url, stall_interval=2000)
        begun = asyncio.Event()

        @queue.process
        async def handler(job):
            begun.set()
            await release.wait()

        await queue.enqueue({})
        await asyncio.wait_for(begun.wait(), 30)
        return queue

    first, second = await begin("first"), await begin("second")
    release.set()
    await first.close()
    release.clear()
    third = await begin("third")  # while another one beats
    await _is_beaten_for(own_valkey, third)
    release.set()
    await second.close()
    await third.close()
    assert beating_threads() == 0
    release.clear()
    fourth = await begin("fourth")  # when nobody beats any more
    await _is_beaten_for(own_valkey, fourth)
    release.set()
    await fourth.close()
    assert beating_threads() == 0


async def test_a_heartbeat_that_ends_by_a_defect_says_so(own_valkey, make_queue, monkeypatch, recorder):
    async def fail(_self):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Heartbeat, "once", fail)
    queue = make_queue(redis=own_valkey.url)
    record = recorder(queue, "error")

    @queue.process
    async def handler(job):
        return None

    ((error,),) = await record.until("error")
    assert isinstance(error, ZeroDivisionError)
    await queue.close()
    assert beating_threads() == 0


def test_a_forked_child_beats_by_itself(own_valkey: Server, tmp_path: Path) -> None:
    script = tmp_path / "forks.py"
    script.write_text(
        """
import asyncio, os, sys, threading
from beeq import Queue

def work(url, is_started, may_end):
    async def main():
        async with Queue("forks", redis=url) as queue:
            @queue.process
            async def handler(job):
                return None
            while (await queue.stats()).workers < is_started:
                await asyncio.sleep(0.01)
            started.set()
            await asyncio.to_thread(may_end)
    asyncio.run(main())

url, started, end = sys.argv[1], threading.Event(), threading.Event()
thread = threading.Thread(target=work, args=(url, 1, end.wait))
thread.start()
started.wait()
child = os.fork()
if not child:
    work(url, 2, lambda: None)
    os._exit(0)
_, status = os.waitpid(child, 0)
end.set()
thread.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), own_valkey.url],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.external
def test_a_quick_run_of_the_scale_benchmark_plays_every_scene(tmp_path: Path) -> None:
    out = tmp_path / "scale.txt"
    command = [sys.executable, str(_ROOT / "benchmarks" / "scale.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=250, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert out.read_text() == done.stdout
    conditions, *lines = done.stdout.splitlines()
    assert "valkey" in conditions
    for scene in ("waiting", "due at once", "active", "records of 1 MB", "queues"):
        assert any(scene in line for line in lines), scene
    screens = [line for line in lines if "PING waits" in line]
    assert len(screens) >= 15
    steps = [line for line in lines if not line.startswith("…") and line not in screens]
    assert len(steps) >= 15
    assert all("MB" in line and ("scripts below" in line or " ms " in line) for line in steps)
