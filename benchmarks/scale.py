"""Measures many jobs, queues or events at once: ``python benchmarks/scale.py``. See the scenes below.

Each scene runs in a process of its own, beside a server of its own, and prints a line for each of its
steps: what was done, how fast, the longest script call, and how much memory the step has added, and not
given back by its end, in the process and in Redis. The lines go to ``results/scale.txt`` as well.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib.util
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent))

import redis  # noqa: E402 - like the next ones, after the path is set

from beeq import Job, Queue  # noqa: E402 - found by the line above
from beeq.operations.queue_names import find_queue_names  # noqa: E402 - found by the line above
from beeq.redis.scripts import ALL  # noqa: E402 - found by the line above
from benchmarks import page_scene  # noqa: E402 - found by the line above
from benchmarks.servers import Server  # noqa: E402 - found by the line above

#: Redis does not log shorter calls: its log would slow the scene.
_SHOWN_FROM_US = 1000
_PING_EVERY_S = 0.005
_PATIENCE_S = 300.0
_MB = 1_000_000
_SCRIPTS = {script.sha.encode(): script.name for script in ALL}
#: A quick run divides the counts by this; its numbers mean nothing.
_QUICK = 100


def _rss_bytes() -> int:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # the peak is better than nothing


def _spaced(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def _descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


class Stage:
    """The stage of a scene: one server, seen from the process that does the work."""

    def __init__(self, url: str, *, divisor: int) -> None:
        self.url = url
        self._divisor = divisor
        self.is_full = divisor == 1
        self._faults: list[object] = []
        self.client = redis.Redis.from_url(url)
        self.client.config_set("slowlog-max-len", 100_000)
        self.client.config_set("slowlog-log-slower-than", _SHOWN_FROM_US)

    def count(self, number: int) -> int:
        """Return how many are meant by ``number`` in this run."""
        return max(2, number // self._divisor)

    def queue(self, name: str = "scale", **settings: Any) -> Queue:
        """Return a queue; any error that it reports ends the scene, and so does a stall."""
        queue = Queue(name, redis=self.url, **settings)
        queue.on("error", self._faults.append)
        queue.on("stalled", lambda job_id: self._faults.append(f"job {job_id} stalled"))
        return queue

    async def step(self, title: str, action: Callable[[], Awaitable[str | None]]) -> None:
        """Take one step and print its line; it returns what to say instead of its seconds."""
        self.client.slowlog_reset()
        rss, used = _rss_bytes(), self._used_bytes()
        began = time.perf_counter()
        async with asyncio.timeout(_PATIENCE_S):
            said = await action()
        seconds = time.perf_counter() - began
        if self._faults:
            raise AssertionError(f"{title}: {self._faults[:3]}")
        grown = (_rss_bytes() - rss) / _MB, (self._used_bytes() - used) / _MB
        value = said or (f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms")
        memory = "".join(
            f"  {who} {size:>+7.1f} MB" for who, size in zip(("here", "Redis"), grown, strict=True)
        )
        print(f"{title:<52} {value:>20}  {self._longest_call():<28}{memory}", flush=True)

    def _used_bytes(self) -> int:
        return int(self.client.info("memory")["used_memory"])

    def _longest_call(self) -> str:
        calls = []
        for entry in self.client.slowlog_get(100_000):
            command, sha = [*entry["command"].split(b" "), b""][:2]
            if command.upper() == b"EVALSHA":
                calls.append((entry["duration"] / 1000, _SCRIPTS.get(sha, "?")))
        if not calls:
            return "scripts below 1 ms"
        longest_ms, name = max(calls)
        return f"{name} {longest_ms:.1f} ms"


class Counter:
    """Counts outcomes, and signals when there are as many as expected."""

    def __init__(self, expected: int) -> None:
        self._left = expected
        self._over = asyncio.Event()
        self._began = time.perf_counter()
        self._expected = expected

    def count(self, *_event: object) -> None:
        """Count one."""
        self.count_all(1)

    def count_all(self, number: int) -> None:
        """Count several."""
        self._left -= number
        if self._left == 0:
            self._over.set()

    async def rate(self) -> str:
        """Wait for the last one; return how many there were in a second."""
        await self._over.wait()
        return f"{_spaced(self._expected / (time.perf_counter() - self._began))} jobs/s"


async def _save(queue: Queue, count: int, **options: Any) -> str:
    """Save many jobs, 1000 at a time."""
    began = time.perf_counter()
    for first in range(0, count, 1000):
        jobs = [queue.create_job({"i": i}) for i in range(first, min(first + 1000, count))]
        if options:
            jobs = [job.delay_until(options["delay_until"]) for job in jobs]
        if await queue.save_all(jobs):
            raise AssertionError("not every job was saved")
    return f"{_spaced(count / (time.perf_counter() - began))} jobs/s"


async def _do_nothing(_job: Job) -> None:
    return None


async def waiting(stage: Stage) -> None:
    """The first jobs of a long queue beside all jobs of a short one."""
    few = stage.count(20_000)
    for many in (few, stage.count(1_000_000)):
        await _wait_and_drain(stage, many, few)


async def _wait_and_drain(stage: Stage, many: int, few: int) -> None:
    queue = stage.queue()
    await queue.destroy()
    await stage.step(f"{_spaced(many)} jobs saved, 1000 at a time", lambda: _save(queue, many))
    if many > few:
        await stage.step(
            f"{_spaced(many)} waiting: one in the middle cancelled", lambda: _cancel(queue, many)
        )
    counter = Counter(few)
    queue.on("succeeded", counter.count)

    async def drain() -> str:
        queue.process(_do_nothing, concurrency=100)
        return await counter.rate()

    await stage.step(f"{_spaced(many)} waiting: the first {_spaced(few)} done", drain)
    await queue.close()


async def _cancel(queue: Queue, many: int) -> None:
    if not await queue.cancel_job(many // 2):
        raise AssertionError("there was no job to cancel")


async def due(stage: Stage) -> None:
    """Very many delayed jobs, all due at once."""
    many = stage.count(200_000)
    producer = stage.queue(activate_delayed_jobs=False)
    await stage.step(
        f"{_spaced(many)} delayed jobs saved",
        lambda: _save(producer, many, delay_until=timedelta(milliseconds=100)),
    )
    await asyncio.sleep(0.1)
    queue = stage.queue()
    raised = Counter(many)
    queue.on("raised jobs", raised.count_all)
    waits: list[str] = []

    async def raise_all() -> None:
        await queue.ready()
        await raised.rate()

    with _pinging(stage.url, waits):
        await stage.step(f"{_spaced(many)} due at once: all waiting", raise_all)
    print(f"{'… the longest wait of a PING meanwhile':<52} {waits[0]:>20}", flush=True)
    counter = Counter(many)
    queue.on("succeeded", counter.count)

    async def drain() -> str:
        queue.process(_do_nothing, concurrency=100)
        return await counter.rate()

    await stage.step(f"{_spaced(many)} that were due: all done", drain)
    await queue.close()
    await producer.close()


@contextmanager
def _pinging(url: str, waits: list[str]) -> Iterator[None]:
    """Send a PING every few ms, from another process; in the end add the longest wait."""
    process = _pinger(url)
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    for to_come in (True, False):
        process.stdin.write("\n")
        process.stdin.flush()
        said = process.stdout.readline().strip()  # at first: that it has begun
        if to_come:
            yield
    waits.append(said)


@functools.cache
def _pinger(url: str) -> subprocess.Popen[str]:
    """Start the other process: one for all steps, since its imports take time. It ends with this one."""
    return subprocess.Popen(
        [sys.executable, __file__, "--ping", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _ping(url: str) -> None:
    """Begin at a line, print the longest wait at the next, and so on."""
    client = redis.Redis.from_url(url)
    while sys.stdin.readline():
        over = threading.Event()
        threading.Thread(target=_set_at_a_line, args=(over,), daemon=True).start()
        client.ping()
        print("begun", flush=True)
        longest_s = 0.0
        while not over.wait(_PING_EVERY_S):
            began = time.perf_counter()
            client.ping()
            longest_s = max(longest_s, time.perf_counter() - began)
        print(f"{longest_s * 1000:.1f} ms", flush=True)


def _set_at_a_line(over: threading.Event) -> None:
    sys.stdin.readline()
    over.set()


async def active(stage: Stage) -> None:
    """Very many jobs that run at the same time, and end in any order."""
    many = stage.count(10_000)
    queue = stage.queue()
    await queue.ready()
    gates: dict[str, asyncio.Event] = {}
    running = asyncio.Event()

    @queue.process(concurrency=many)
    async def handler(job: Job) -> None:
        gate = gates[job.saved_id()] = asyncio.Event()
        if len(gates) == many:
            running.set()
        await gate.wait()

    async def fill() -> None:
        await _save(queue, many)
        await running.wait()

    async def finish() -> str:
        counter = Counter(many)
        queue.on("succeeded", counter.count)
        shuffled = list(gates.values())
        random.Random(1).shuffle(shuffled)
        for gate in shuffled:
            gate.set()
        return await counter.rate()

    async def give_up() -> None:
        try:
            await queue.close(1)
        except TimeoutError:
            return
        raise AssertionError("the jobs that still ran were not given back")

    await stage.step(f"{_spaced(many)} active: saved and begun", fill)
    await stage.step(
        f"{_spaced(many)} active: beats and stall checks for a while",
        lambda: asyncio.sleep(6 if stage.is_full else 1),
    )
    await stage.step(f"{_spaced(many)} active: ended in random order", finish)
    gates.clear()
    running.clear()
    await fill()
    await stage.step(f"{_spaced(many)} active: given back by close", give_up)


async def large(stage: Stage) -> None:
    """Large records, saved many at once and worked on ten at a time."""
    many = stage.count(200)
    queue = stage.queue(remove_on_success=True)
    text = "x" * _MB

    async def save() -> str:
        began = time.perf_counter()
        if await queue.save_all([queue.create_job({"text": text}) for _ in range(many)]):
            raise AssertionError("not every job was saved")
        return f"{_spaced(many / (time.perf_counter() - began))} jobs/s"

    async def work() -> str:
        counter = Counter(many)
        queue.on("succeeded", counter.count)

        @queue.process(concurrency=10)
        async def handler(job: Job) -> int:
            return len(job.data["text"])

        return await counter.rate()

    await stage.step(f"{_spaced(many)} records of 1 MB saved by one save_all", save)
    await stage.step(f"{_spaced(many)} records of 1 MB: done, concurrency 10", work)
    await queue.close()


async def operator(stage: Stage) -> None:
    """An operator who looks, retries, cancels and purges in a long queue, beside a client that pings."""
    many, failed, running = stage.count(1_000_000), stage.count(200_000), stage.count(5000)
    queue = stage.queue(is_worker=False, activate_delayed_jobs=False)

    async def fill() -> None:
        for first in range(0, many, 1000):
            jobs = [queue.create_job({"user": i % 1000}) for i in range(first, min(first + 1000, many))]
            await queue.save_all(jobs)
        _put_failed(stage, queue, failed)
        _put_running(stage, queue, running)

    async def first_page(state: Any) -> None:
        shown = [found async for found in queue.find_jobs(state=state, limit=100)]
        _expect(len(shown) == min(100, failed), "the first page is full")

    async def search() -> None:
        counts = await queue.retry_many(error="no such text", dry_run=True)
        _expect(
            (counts.seen, counts.matched) == (failed, 0), f"every failed job was looked at once: {counts}"
        )

    async def cancel() -> None:
        counts = await queue.cancel_many(state="waiting", where={"data.user": 7})
        _expect(counts.done == len(range(7, many, 1000)), f"every job was cancelled: {counts}")

    async def retry() -> None:
        counts = await queue.retry_many()
        _expect(counts.done == failed, f"every job was retried: {counts}")

    async def purge() -> None:
        counts = await queue.purge("waiting")
        left = (await queue.check_health()).waiting
        _expect(not (counts.moved or left), f"every job was purged: {counts}, {left} left")

    size = f"{_spaced(many)} waiting, {_spaced(failed)} failed"
    await stage.step(f"{size}: saved", fill)
    for title, action in (
        ("the queues found, and their jobs counted", lambda: _look_at_counts(queue, many, failed)),
        (f"the workers, and {_spaced(2 * running)} jobs that run", lambda: _look_at_workers(queue, running)),
        ("the first 100 that wait", lambda: first_page("waiting")),
        ("the first 100 that failed", lambda: first_page("failed")),
        ("a text looked for in all that failed", search),
        ("the last that waits explained", lambda: _explain(queue, many)),
        ("every id looked at by the doctor", lambda: _diagnose(queue)),
        ("one in a thousand that wait cancelled", cancel),
        ("all that failed retried", retry),
        ("all that wait purged", purge),
    ):
        waits: list[str] = []
        with _pinging(stage.url, waits):
            await stage.step(title, action)
        print(f"{'… the longest wait of a PING meanwhile':<52} {waits[0]:>20}", flush=True)
    await queue.close()


async def _explain(queue: Queue, many: int) -> None:
    explanation = await queue.explain(many)
    _expect(f"{many - 1} jobs run before it" in str(explanation.sentences), f"{explanation}")


async def _diagnose(queue: Queue) -> None:
    kinds = {finding.kind for finding in await queue.diagnose()}
    _expect(not kinds & {"ghosts", "strays", "doubles", "not-looked-at"}, f"all is in order: {kinds}")


def _expect(is_so: bool, what: str) -> None:
    if not is_so:
        raise AssertionError(f"it is not so that {what}")


def _put_failed(stage: Stage, queue: Queue, count: int) -> None:
    """Put failed jobs into the queue, as a worker has left them."""
    trace = "ValueError: no such town\n" + "  at some line\n" * 20
    for first in range(0, count, 1000):
        records: Any = {
            f"f{i}": json.dumps(
                {
                    "data": {"user": i % 1000},
                    "options": {"timestamp": 1, "stacktraces": [trace]},
                    "status": "failed",
                    "progress": 0,
                }
            )
            for i in range(first, min(first + 1000, count))
        }
        stage.client.hset(queue.keys.jobs, mapping=records)
        stage.client.sadd(queue.keys.failed, *records)


async def _look_at_counts(queue: Queue, waiting: int, failed: int) -> None:
    found = await find_queue_names(queue.pipeline, queue.settings.prefix)
    _expect(found == ([queue.name], True), f"every queue was found: {found}")
    stats = await queue.stats()
    _expect((stats.waiting, stats.failed) == (waiting, failed), f"every job was counted: {stats}")


async def _look_at_workers(queue: Queue, running: int) -> None:
    seen = await queue.activity()
    noted = sum(len(worker.jobs) for worker in seen.workers)
    _expect(noted == running, f"every running job was noted: {noted}")
    _expect(seen.others.node_count == running, f"and every job of Node's: {seen.others.node_count}")


def _put_running(stage: Stage, queue: Queue, count: int) -> None:
    """Let so many jobs run on a hundred workers, and as many on Node's, as these leave them."""
    now_ms = int(time.time() * 1000)
    for first in range(0, count, 50):
        worker = f"host:{first}:ab"
        ids = [f"r{i}" for i in range(first, min(first + 50, count))]
        noted: Any = {f"job:{job_id}": now_ms for job_id in ids}
        stage.client.hset(replace(queue.keys, worker=worker).running, mapping=noted)
        stage.client.zadd(queue.keys.workers, {worker: now_ms + 15_000})
        every = [*ids, *(f"n{job_id}" for job_id in ids)]
        record = '{"data":{},"options":{"timestamp":1,"stacktraces":[]},"status":"created","progress":0}'
        stage.client.hset(queue.keys.jobs, mapping=dict.fromkeys(every, record))
        stage.client.lpush(queue.keys.active, *every)
        claims: Any = dict.fromkeys(ids, "token.0:1")
        stage.client.hset(queue.keys.claims, mapping=claims)


async def queues(stage: Stage) -> None:
    """Very many queues in one process."""
    many, each = stage.count(500), 5
    descriptors, threads = _descriptors(), threading.active_count()
    connections = len(stage.client.client_list())
    every = [stage.queue(f"scale-{n}") for n in range(many)]
    counter = Counter(many * each)
    for queue in every:
        queue.on("succeeded", counter.count)

    async def open_all() -> None:
        for queue in every:
            queue.process(_do_nothing)
        await asyncio.gather(*(queue.ready() for queue in every))

    async def work() -> None:
        await asyncio.gather(*(_save(queue, each) for queue in every))
        await counter.rate()

    async def close_all() -> None:
        await asyncio.gather(*(queue.close() for queue in every))

    await stage.step(f"{_spaced(many)} queues in one process: opened", open_all)
    await stage.step(f"{_spaced(many)} queues: {each} jobs in each, done", work)
    for what, number in (
        ("connections", len(stage.client.client_list()) - connections),
        ("file descriptors", _descriptors() - descriptors),
        ("threads", threading.active_count() - threads),
    ):
        print(f"{f'… {what} of all queues':<52} {_spaced(number):>20}", flush=True)
    await stage.step(f"{_spaced(many)} queues: closed", close_all)


async def page(stage: Stage) -> None:
    """The page of very many jobs in fifty queues, beside a client that pings."""
    await page_scene.play(stage, _pinging)


SCENES = {scene.__name__: scene for scene in (waiting, due, active, large, operator, queues, page)}


def _play(name: str, url: str, *, divisor: int) -> None:
    """Play one scene in this process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # many queues have many connections
    play = SCENES[name](Stage(url, divisor=divisor))
    if importlib.util.find_spec("uvloop") is None:
        asyncio.run(play)
    else:
        import uvloop  # noqa: PLC0415 - an extra

        uvloop.run(play)


def _conditions(client: redis.Redis) -> str:
    loop = "asyncio" if importlib.util.find_spec("uvloop") is None else f"uvloop {metadata.version('uvloop')}"
    return (
        f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}; "
        f"{platform.python_implementation()} {platform.python_version()}, {loop}, "
        f"hiredis {metadata.version('hiredis')}; valkey {client.info('server')['valkey_version']}, "
        f"TCP on loopback, server and worker on one machine; "
        f"load average at the start {os.getloadavg()[0]:.2f}; "
        f"{datetime.now(UTC).isoformat(timespec='seconds')}."
    )


def main() -> None:
    """Play every scene, print its lines, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "scenes", nargs="*", metavar="SCENE", help=f"of {', '.join(SCENES)}; all unless named"
    )
    parser.add_argument("--quick", action="store_true", help="small counts: only to see that it runs")
    parser.add_argument("--out", type=Path, default=_HERE / "results" / "scale.txt", help="the result file")
    parser.add_argument("--play", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--ping", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.ping:
        _ping(asked.ping)
        return
    if asked.play:
        name, url, divisor = asked.play
        _play(name, url, divisor=int(divisor))
        return
    unknown = set(asked.scenes) - SCENES.keys()
    if unknown:
        parser.error(f"no such scene: {', '.join(sorted(unknown))}")
    lines: list[str] = []
    for name in asked.scenes or SCENES:
        with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
            if not lines:
                with server.sync_client() as client:
                    lines.append(_conditions(client))
                print(lines[0], flush=True)
            play = [sys.executable, __file__, "--play", name, server.url, str(_QUICK if asked.quick else 1)]
            with subprocess.Popen(play, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None  # noqa: S101 - it is a pipe
                for line in process.stdout:
                    lines.append(line.rstrip())
                    print(lines[-1], flush=True)
            if process.returncode:
                sys.exit(f"the scene {name!r} ended with {process.returncode}")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
