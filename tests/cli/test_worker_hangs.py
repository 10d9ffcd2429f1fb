"""``beeq worker`` where handlers go on after their time: at the ceiling the process is replaced, or ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.command import Beeq, Running, eventually

APP = """
import asyncio, contextlib, os, threading
from pathlib import Path
from beeq import Queue

queue = Queue(os.environ["TEST_QUEUE"], stall_interval=1000, max_hung=int(os.environ.get("CEILING", 100)))
never = threading.Event()

@queue.process(concurrency=3)
async def handle(job):
    kind = job.data["kind"]
    Path(f"{kind}-{os.getpid()}").touch()
    if kind == "stubborn":
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
    if kind == "waits":
        while not Path("go").exists():
            await asyncio.sleep(0.01)
    return os.getpid()

threads = Queue(os.environ["TEST_QUEUE"], stall_interval=1000)

@threads.process(concurrency=3)
def handle_in_thread(job):
    if job.data["kind"] == "stubborn":
        never.wait()
    return os.getpid()
"""
REPLACED = "too many handlers hung in worker process"


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def pids(beeq: Beeq, kind: str) -> set[int]:
    """Return the processes that have run such jobs."""
    return {int(file.name.split("-")[1]) for file in beeq.folder.glob(f"{kind}-*")}


@pytest.fixture
def enqueue(beeq: Beeq, queue_name: str) -> Callable[..., None]:
    def enqueue(kind: str, count: int = 1, **options: str) -> None:
        jobs = "".join(json.dumps({"kind": kind}) + "\n" for _ in range(count))
        given = [word for name, value in options.items() for word in (f"--{name}", value)]
        beeq.run("enqueue", queue_name, "--bulk", "-", *given, stdin=jobs)

    return enqueue


@pytest.fixture
def start(beeq: Beeq, queue_name: str) -> Callable[..., Running]:
    beeq.app(APP)

    def start(*arguments: str, queue: str = "queue", **environment: Any) -> Running:
        names = ("worker", queue_name, "--app", f"app:{queue}")
        return beeq.start(*names, *arguments, TEST_QUEUE=queue_name, **environment)

    return start


@pytest.mark.parametrize("queue", ["queue", "threads"])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_process_at_its_ceiling_is_replaced(beeq: Beeq, start, enqueue, queue_name, queue, processes):
    enqueue("stubborn", 3, timeout="20ms")
    worker = start("--max-hung", "3", "-w", processes, queue=queue)
    if processes == "2":
        enqueue("stubborn", 6, timeout="20ms")
    pid = int(worker.until(REPLACED).split("worker process ")[1].split(";")[0])
    assert is_gone(pid)
    enqueue("well")
    eventually(lambda: beeq.stats(queue_name)["succeeded"] == 1)
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    assert "ended with code" not in worker.stderr
    assert "was killed" not in worker.stderr


def test_what_runs_in_a_process_at_its_ceiling_may_end(beeq: Beeq, start, enqueue, queue_name):
    enqueue("waits")
    worker = start("--max-hung", "1")
    eventually(lambda: pids(beeq, "waits"))
    enqueue("stubborn", timeout="20ms")
    worker.until("no job is taken")
    enqueue("well")
    assert beeq.stats(queue_name)["active"] == 1
    (beeq.folder / "go").touch()
    worker.until(REPLACED)
    eventually(lambda: beeq.stats(queue_name)["succeeded"] == 2)
    assert pids(beeq, "waits") == pids(beeq, "stubborn")
    assert len(pids(beeq, "waits") | pids(beeq, "well")) == 2


def test_what_does_not_end_runs_again_in_the_next_process(beeq: Beeq, start, enqueue, queue_name):
    enqueue("waits")
    worker = start("--max-hung", "1", "--shutdown-timeout", "100ms")
    eventually(lambda: pids(beeq, "waits"))
    enqueue("stubborn", timeout="20ms")
    worker.until(REPLACED)
    eventually(lambda: len(pids(beeq, "waits")) == 2)
    (beeq.folder / "go").touch()
    eventually(lambda: beeq.stats(queue_name)["succeeded"] == 1)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_burst_goes_on_in_the_next_process(beeq: Beeq, start, enqueue, queue_name, processes):
    enqueue("stubborn", 6, timeout="20ms")
    enqueue("well", 5)
    worker = start("--burst", "--max-hung", "2", "-w", processes)
    assert worker.ended() == 0
    stats = beeq.stats(queue_name)
    assert (stats["failed"], stats["succeeded"], stats["waiting"], stats["active"]) == (6, 5, 0, 0)
    assert REPLACED in worker.stderr


def test_a_burst_with_nobody_to_replace_it_ends(beeq: Beeq, start, enqueue, queue_name):
    enqueue("stubborn", 3, timeout="20ms")
    enqueue("well", 5)
    worker = start("--burst", CEILING="3")
    assert worker.ended() == 4
    stats = beeq.stats(queue_name)
    assert (stats["failed"], stats["waiting"] + stats["succeeded"], stats["active"]) == (3, 5, 0)


@pytest.mark.parametrize("max_hung", ["0", "-1", "many"])
def test_a_ceiling_is_a_number_of_handlers(beeq: Beeq, max_hung):
    ran = beeq.run("worker", "--max-hung", max_hung)
    assert ran.returncode == 2
    assert "--max-hung" in ran.stderr
