"""The measurements: each starts its processes, waits for them and returns numbers. Prints nothing.

The harness plays no part in the work. It fills the queue with plain Redis commands, gives the word, and
looks at Redis to see how far the worker is.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import redis

from benchmarks.servers import Server

_HERE = Path(__file__).resolve().parent
_QUEUE = "bench"
#: No measurement takes longer; a process that hangs ends the run.
_PATIENCE_S = 120.0
#: How often the harness looks at Redis: often enough for half a percent, seldom enough not to be felt.
_LOOK_S = 0.004

T = TypeVar("T")


@dataclass(frozen=True)
class Library:
    """One of the two: how its processes are started."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    uvloop: bool = False


def beeq(*, uvloop: bool) -> Library:
    """Return beeq, of this checkout, on this interpreter."""
    paths = [str(_HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = (sys.executable, str(_HERE / "workers" / "beeq_worker.py"))
    return Library("beeq", command, {"PYTHONPATH": os.pathsep.join(paths)}, uvloop)


def bee_queue(place: Path) -> Library:
    """Return npm's bee-queue, installed in the folder ``place``."""
    command = ("node", str(_HERE / "workers" / "bee_queue.js"))
    return Library("bee-queue", command, {"NODE_PATH": str(place / "node_modules")})


class Process:
    """One process of a benchmark: ready once made, at work after ``go``."""

    def __init__(
        self, library: Library, url: str, mode: str, *, concurrency: int = 1, count: int = 0
    ) -> None:
        ask = {
            "mode": mode,
            "url": url,
            "queue": _QUEUE,
            "concurrency": concurrency,
            "count": count,
            "uvloop": library.uvloop,
        }
        self._process = subprocess.Popen(
            [*library.command, json.dumps(ask)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **library.environment},
            text=True,
        )
        self.listen()

    def go(self) -> None:
        """Give the word."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def listen(self) -> dict[str, Any]:
        """Return what the process says next.

        Raises:
            RuntimeError: it ended instead.
        """
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait(10)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def check(self) -> None:
        """Raise RuntimeError if the process has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.returncode}")

    def cpu_us(self) -> float | None:
        """Return the CPU time the process has used so far, in µs; ``None`` on systems without /proc."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return None
        # After the program's name, which may hold blanks: the fields from the third on.
        fields = stat.rpartition(")")[2].split()
        user_ticks, system_ticks = int(fields[11]), int(fields[12])
        return (user_ticks + system_ticks) / os.sysconf("SC_CLK_TCK") * 1e6

    def end(self) -> None:
        """Let the process end, and wait for it."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process.stdout.close()


@contextmanager
def process(*args: Any, **kwargs: Any) -> Iterator[Process]:
    """Start a process, and end it in the end."""
    started = Process(*args, **kwargs)
    try:
        yield started
    finally:
        started.end()


def fill(client: redis.Redis, count: int) -> None:
    """Put jobs into the queue, as both libraries write them."""
    now_ms = time.time_ns() // 1_000_000
    for first in range(1, count + 1, 1000):
        ids = [str(n) for n in range(first, min(first + 1000, count + 1))]
        options = f'{{"timestamp":{now_ms},"stacktraces":[]}}'
        records: dict[Any, Any] = {
            n: f'{{"data":{{"i":{n}}},"options":{options},"status":"created","progress":0}}' for n in ids
        }
        client.hset(f"bq:{_QUEUE}:jobs", mapping=records)
        client.lpush(f"bq:{_QUEUE}:waiting", *ids)
    client.set(f"bq:{_QUEUE}:id", count)


@dataclass(frozen=True)
class Drain:
    """What a drain was like, from when the harness first sees finished jobs until it sees the last."""

    #: Jobs a second.
    rate: float
    #: CPU time of the worker processes a job, in µs; ``None`` where the system does not tell.
    worker_cpu_us: float | None
    #: CPU time of the server a job, in µs.
    server_cpu_us: float


def drain(
    library: Library, client: redis.Redis, url: str, *, concurrency: int, count: int, workers: int = 1
) -> Drain:
    """Let ``workers`` processes work off ``count`` jobs which do nothing, and return what it was like."""
    clear(client)
    fill(client, count)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(process(library, url, "work", concurrency=concurrency))
            for _ in range(workers)
        ]
        for worker in processes:
            worker.go()

        def check() -> None:
            for worker in processes:
                worker.check()

        def cpu_us() -> tuple[float | None, float]:
            each = [worker.cpu_us() for worker in processes]
            return None if None in each else sum(filter(None, each)), _server_cpu_us(client)

        jobs, seconds, before, after = watch(
            lambda: int(client.scard(f"bq:{_QUEUE}:succeeded")), count, check=check, note=cpu_us
        )
    worker_us = None if before[0] is None or after[0] is None else (after[0] - before[0]) / jobs
    return Drain(jobs / seconds, worker_us, (after[1] - before[1]) / jobs)


def drain_and_weigh(
    library: Library, client: redis.Redis, url: str, *, concurrency: int, count: int
) -> tuple[Drain, float]:
    """Drain with one worker, and also return the server's memory a finished job, in bytes.

    That is what all keys take once the worker has gone, divided by the jobs; see ``_memory_of_keys``.
    """
    drained = drain(library, client, url, concurrency=concurrency, count=count)
    return drained, _memory_of_keys(url) / count


def watch(
    finished: Callable[[], int], count: int, *, check: Callable[[], None], note: Callable[[], T]
) -> tuple[int, float, T, T]:
    """Look at ``finished`` until all jobs are, from the first that are: a worker's start does not count.

    Returns:
        The jobs that finished in that time, the time in s, and what ``note`` said at both ends of it.

    Raises:
        RuntimeError: they did not finish in time; or ``check``, which is called at each look, raises.
    """
    over = time.monotonic() + _PATIENCE_S
    began, before, noted = time.monotonic(), 0, note()
    while True:
        done = finished()
        at = time.monotonic()
        if done >= count:
            return count - before, at - began, noted, note()
        if before == 0 and done > 0:
            began, before, noted = at, done, note()
        if at > over:
            raise RuntimeError(f"{done} of {count} jobs were finished in {_PATIENCE_S} s")
        check()
        time.sleep(_LOOK_S)


def clear(client: redis.Redis) -> None:
    """Delete everything, at once and not in the background of what is measured next."""
    # redis-py's flushall() cannot say SYNC.
    client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]


def _server_cpu_us(client: redis.Redis) -> float:
    used = client.info("cpu")
    return float(used["used_cpu_sys"] + used["used_cpu_user"]) * 1e6


def _memory_of_keys(url: str) -> int:
    """Return what all keys take in a server that has just been given them, to the byte.

    Where they grew up, a table in the middle of its growth is there twice, and a member sits in whatever
    piece of memory was free: some percent more or less, which tell of the moment and not of what is kept.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder)) as fresh,
        redis.Redis.from_url(url) as source,
        fresh.sync_client(decode_responses=False) as copy,
    ):
        for key in source.scan_iter(count=1000):
            if (dumped := source.dump(key)) is not None:  # else its time was over just now
                copy.restore(key, 0, dumped)
        # With SAMPLES 0 the server counts every entry.
        return sum(copy.memory_usage(key, samples=0) for key in copy.scan_iter(count=1000))


def enqueue(library: Library, client: redis.Redis, url: str, *, mode: str, count: int) -> float:
    """Return the jobs a second that one producer saves, by its own clock, with nobody working."""
    clear(client)
    with process(library, url, mode, count=count) as producer:
        producer.go()
        seconds = float(producer.listen()["seconds"])
    saved = int(client.llen(f"bq:{_QUEUE}:waiting"))
    if saved != count:
        raise RuntimeError(f"{library.name} saved {saved} of {count} jobs")
    return count / seconds


def latency(library: Library, client: redis.Redis, url: str, *, count: int) -> dict[str, float]:
    """Return what one job takes with an idle worker of the same library, in ms.

    From the call of ``save`` until the handler begins (``start``), and until the producer has the
    result (``result``): the median and the 99th percentile.
    """
    clear(client)
    with (
        process(library, url, "tell the time") as worker,
        process(library, url, "wait for each", count=count) as producer,
    ):
        worker.go()
        worker.listen()  # it works
        producer.go()
        answer = producer.listen()
    measured = {}
    for name in ("start", "result"):
        values = answer[f"{name}s"][count // 10 :]  # the first ones warm up
        measured[f"{name}_p50_ms"] = statistics.median(values)
        measured[f"{name}_p99_ms"] = statistics.quantiles(values, n=100, method="inclusive")[98]
    return measured
