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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

_HERE = Path(__file__).resolve().parent
_QUEUE = "bench"
#: No measurement takes longer; a process that hangs ends the run.
_PATIENCE_S = 120.0
#: How often the harness looks at Redis: often enough for half a percent, seldom enough not to be felt.
_LOOK_S = 0.004


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


def bee_queue(modules: Path) -> Library:
    """Return npm's bee-queue, out of ``modules``."""
    return Library(
        "bee-queue", ("node", str(_HERE / "workers" / "bee_queue.js")), {"NODE_PATH": str(modules)}
    )


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


def drain(library: Library, client: redis.Redis, url: str, *, concurrency: int, count: int) -> float:
    """Return the jobs a second of one worker that finds ``count`` jobs which do nothing.

    From the moment the harness first sees finished jobs until it sees the last.
    """
    client.flushall()
    fill(client, count)
    with process(library, url, "work", concurrency=concurrency) as worker:
        worker.go()
        over = time.monotonic() + _PATIENCE_S
        began, before = time.monotonic(), 0
        while True:
            done = int(client.scard(f"bq:{_QUEUE}:succeeded"))
            at = time.monotonic()
            if done >= count:
                return (count - before) / (at - began)
            if before == 0:
                began, before = at, done
            if at > over:
                raise RuntimeError(f"{library.name} finished {done} of {count} jobs in {_PATIENCE_S} s")
            worker.check()
            time.sleep(_LOOK_S)


def enqueue(library: Library, client: redis.Redis, url: str, *, mode: str, count: int) -> float:
    """Return the jobs a second that one producer saves, by its own clock, with nobody working."""
    client.flushall()
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
    client.flushall()
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
