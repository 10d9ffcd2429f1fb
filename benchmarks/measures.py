"""The measurements: each starts its processes, waits for them and returns numbers. Prints nothing.

The harness takes no part in the work. It fills the queue with plain Redis commands, starts the processes, and
polls Redis for the worker's progress.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import redis

from benchmarks.servers import Server

_HERE = Path(__file__).resolve().parent
_QUEUE = "bench"
#: The cache between runs: in the checkout, and ignored by git.
CACHE = _HERE.parent / ".benchmarks"
#: No measurement takes longer; a process that hangs ends the run.
_PATIENCE_S = 120.0
#: How often the harness polls Redis: often enough for half a percent, seldom enough not to disturb.
_LOOK_S = 0.004
#: Linux's name of a process's CPU clock, beside its id.
_CPU_CLOCK = 2

T = TypeVar("T")


@dataclass(frozen=True)
class Library:
    """A measured library: how its processes are started."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    uvloop: bool = False
    #: Its queues' settings, by the library's own names; the rest are defaults.
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Jobs:
    """The jobs that the harness puts into a queue."""

    count: int
    #: Further data and options of a record: JSON, with a comma in front.
    more_data: str = ""
    more_options: str = ""


@dataclass(frozen=True)
class Handler:
    """What a worker does with each job, the same in each library."""

    #: ``do nothing``, ``read``: return two fields of the data; ``sleep``; ``tell the time``.
    name: str = "do nothing"
    #: For how long it sleeps.
    sleep_ms: float = 0.0


_NOTHING = Handler()


def beeq(*, uvloop: bool, settings: Mapping[str, Any] | None = None) -> Library:
    """Return beeq, of this checkout, on this interpreter."""
    command = (sys.executable, str(_HERE / "workers" / "beeq_worker.py"))
    return Library("beeq", command, _this_checkout(), uvloop, settings or {})


def exchange_alone() -> Library:
    """Return the smallest client that works off jobs by ``lua/exchange.lua``: a bound for any engine."""
    command = (sys.executable, str(_HERE / "workers" / "exchange_alone.py"))
    return Library("exchange alone", command, _this_checkout())


def bee_queue(place: Path, settings: Mapping[str, Any] | None = None) -> Library:
    """Return npm's bee-queue, installed in the folder ``place``."""
    command = ("node", str(_HERE / "workers" / "bee_queue.js"))
    return Library("bee-queue", command, {"NODE_PATH": str(place / "node_modules")}, settings=settings or {})


def _this_checkout() -> dict[str, str]:
    """Return the environment of beeq's processes; they keep bytecode, wherever else it is not kept."""
    paths = [str(_HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(CACHE / "bytecode")}
    return {"PYTHONPATH": os.pathsep.join(paths), **bytecode}


class Process:
    """One process of a benchmark: ready once created, at work after ``go``."""

    def __init__(
        self,
        library: Library,
        url: str,
        mode: str,
        *,
        concurrency: int = 1,
        count: int = 0,
        handler: Handler = _NOTHING,
    ) -> None:
        ask = {
            "mode": mode,
            "url": url,
            "queue": _QUEUE,
            "concurrency": concurrency,
            "count": count,
            "handler": handler.name,
            "sleep_ms": handler.sleep_ms,
            "settings": dict(library.settings),
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
        """Start the work."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def listen(self) -> dict[str, Any]:
        """Return the process's next message.

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
        """Return the CPU time the process has used so far, in µs; ``None`` if the system has no figure."""
        try:
            return time.clock_gettime((~self._process.pid << 3) | _CPU_CLOCK) * 1e6
        except (AttributeError, OSError):
            return None

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


def fill(client: redis.Redis, jobs: Jobs) -> None:
    """Put jobs into the queue, as both libraries write them."""
    now_ms, count = time.time_ns() // 1_000_000, jobs.count
    options = f'{{"timestamp":{now_ms},"stacktraces":[]{jobs.more_options}}}'
    rest = f'{jobs.more_data}}},"options":{options},"status":"created","progress":0}}'
    for first in range(1, count + 1, 1000):
        ids = [str(n) for n in range(first, min(first + 1000, count + 1))]
        records: dict[Any, Any] = {n: f'{{"data":{{"i":{n}{rest}' for n in ids}
        client.hset(f"bq:{_QUEUE}:jobs", mapping=records)
        client.lpush(f"bq:{_QUEUE}:waiting", *ids)
    client.set(f"bq:{_QUEUE}:id", count)


@dataclass(frozen=True)
class Drain:
    """The numbers of a drain, from when the harness first sees finished jobs until it sees the last."""

    #: Jobs a second.
    rate: float
    #: CPU time of the worker processes a job, in µs; ``None`` where the system does not show it.
    worker_cpu_us: float | None
    #: CPU time of the server a job, in µs.
    server_cpu_us: float


def drain(
    library: Library,
    client: redis.Redis,
    url: str,
    *,
    concurrency: int,
    jobs: Jobs,
    handler: Handler = _NOTHING,
    workers: int = 1,
    is_dropped: bool = False,
) -> Drain:
    """Let ``workers`` processes work off jobs, and return the numbers.

    ``is_dropped``: succeeded jobs leave nothing behind.
    """
    clear(client)
    fill(client, jobs)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(process(library, url, "work", concurrency=concurrency, handler=handler))
            for _ in range(workers)
        ]
        for worker in processes:
            worker.go()

        def finished() -> int:
            if is_dropped:
                return jobs.count - int(client.hlen(f"bq:{_QUEUE}:jobs"))
            return _succeeded(client)

        return _watch_drain(client, processes, jobs.count, finished)


def _watch_drain(
    client: redis.Redis, processes: list[Process], count: int, finished: Callable[[], int]
) -> Drain:
    def check() -> None:
        for worker in processes:
            worker.check()

    def cpu_us() -> tuple[float | None, float]:
        each = [worker.cpu_us() for worker in processes]
        return None if None in each else sum(filter(None, each)), _server_cpu_us(client)

    done, seconds, before, after = watch(finished, count, check=check, note=cpu_us)
    worker_us = None if before[0] is None or after[0] is None else (after[0] - before[0]) / done
    return Drain(done / seconds, worker_us, (after[1] - before[1]) / done)


def drain_and_weigh(
    library: Library, client: redis.Redis, url: str, *, concurrency: int, jobs: Jobs
) -> tuple[Drain, float]:
    """Drain with one worker, and also return the server's memory a finished job, in bytes.

    That is what all keys take once the worker has gone, divided by the jobs; see ``_memory_of_keys``.
    """
    drained = drain(library, client, url, concurrency=concurrency, jobs=jobs)
    return drained, _memory_of_keys(url) / jobs.count


def drain_heard(
    library: Library, client: redis.Redis, url: str, *, concurrency: int, jobs: Jobs, handler: Handler
) -> float:
    """Return the ends of jobs a second that a listener in a process of its own hears, by its clock."""
    clear(client)
    fill(client, jobs)
    with (
        process(library, url, "listen", count=jobs.count) as listener,
        process(library, url, "work", concurrency=concurrency, handler=handler) as worker,
    ):
        listener.go()
        listener.listen()  # it listens
        worker.go()
        worker.listen()  # it works
        return (jobs.count - 1) / float(listener.listen()["seconds"])


def await_results(
    library: Library, client: redis.Redis, url: str, *, concurrency: int, count: int, handler: Handler
) -> float:
    """Return the results a second that a producer gets which saves jobs and waits for each, many at once."""
    clear(client)
    with (
        process(library, url, "work", concurrency=concurrency, handler=handler) as worker,
        process(library, url, "await results", count=count) as producer,
    ):
        worker.go()
        worker.listen()  # it works
        producer.go()
        return count / float(producer.listen()["seconds"])


def drain_while_produced(
    library: Library, client: redis.Redis, url: str, *, concurrency: int, count: int
) -> float:
    """Return the jobs a second of one worker while a producer saves them, many at once."""
    clear(client)
    with (
        process(library, url, "work", concurrency=concurrency) as worker,
        process(library, url, "save in lanes", count=count) as producer,
    ):
        worker.go()
        worker.listen()  # it works
        producer.go()
        return _watch_drain(client, [worker], count, lambda: _succeeded(client)).rate


def _succeeded(client: redis.Redis) -> int:
    return int(client.scard(f"bq:{_QUEUE}:succeeded"))


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

    In the server where they grew, a table in the middle of its growth exists twice, and members take any free
    piece of memory: a random difference of some percent.
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
        process(library, url, "work", handler=Handler("tell the time")) as worker,
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
