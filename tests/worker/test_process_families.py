"""What a handler has started in its child process ends with it: at a stop, and when the worker is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from beeq import Queue
from tests.support.waiting import Recorder, eventually
from tests.worker import family_handlers as handlers
from tests.worker.test_process_lives import is_alive, is_keeper, started

pytestmark = pytest.mark.external  # each starts child processes

ROOT = Path(__file__).resolve().parents[2]
#: In each way, but for those who left the session.
REACHED = sorted(handlers.STARTS.keys() - {"nobody", "program in its own session"})
WORKER = """
import asyncio, os, sys, threading
from beeq import Queue
from tests.worker import family_handlers as handlers

async def main():
    name, url, copies = sys.argv[1:]
    queue = Queue(name, redis=url, stall_interval=60_000)
    queue.process(handlers.act, 4, executor="process")
    if copies == "copies":
        def copied(_job_id, _family):
            copy = os.fork()  # of the worker, with all that it has open
            if not copy:
                threading.Event().wait(60)
                os._exit(0)
            print("copied", copy, flush=True)
        queue.on("job progress", copied)
    await queue.run()

asyncio.run(main())
"""


class Worker:
    """A worker in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, queue: Queue) -> None:
        self._process = process
        self._queue = queue
        self.families: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    async def line(self) -> str:
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), 30)).decode()

    async def runs(self, start: str, **facts: Any) -> list[int]:
        """Run a job; return its child and those that it started."""
        await self._queue.enqueue({"start": start, **facts})
        self.families.append(json.loads(await self.line()))
        return [self.families[-1]["child"], *self.families[-1]["family"]]

    def keeper(self) -> int:
        (found,) = [pid for pid in started(self.pid) if is_keeper(pid) and is_alive(pid)]
        return found

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await eventually(lambda: self._process.returncode is not None)

    async def ended(self) -> None:
        """Wait until nobody can write to its output any more."""
        await asyncio.wait_for(self._process.communicate(), 30)


@pytest.fixture
async def start(valkey: Any, queue_name: str) -> AsyncIterator[Callable[..., Any]]:
    """``await start()``: a worker; what it leaves behind is killed at the end."""
    workers: list[Worker] = []
    async with Queue(queue_name, redis=valkey.url, is_worker=False) as queue:

        async def start(copies: str = "") -> Worker:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", WORKER, queue_name, valkey.url, copies),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=asyncio.subprocess.PIPE,
            )
            workers.append(Worker(process, queue))
            return workers[-1]

        yield start
        for worker in workers:
            await worker.kill()
            for family in worker.families:
                for pid in (family["child"], *family["family"]):
                    if is_alive(pid):
                        os.kill(pid, signal.SIGKILL)
            await worker.ended()
        await queue.destroy()


async def gone(pids: list[int]) -> None:
    await eventually(lambda: not [pid for pid in pids if is_alive(pid)], within_s=10)


# The worker is killed.


@pytest.mark.no_audit("the worker is killed")
async def test_who_was_started_ends_with_a_killed_worker(start):
    worker = await start()
    pids = [pid for kind in REACHED[:4] for pid in await worker.runs(kind)]
    keeper = worker.keeper()
    await worker.kill()
    await gone([*pids, keeper])


@pytest.mark.no_audit("the worker is killed")
async def test_processes_of_multiprocessing_do_too(start):
    worker = await start()
    pids = [pid for kind in REACHED[4:8] for pid in await worker.runs(kind)]
    await worker.kill()
    await gone(pids)


@pytest.mark.no_audit("the worker is killed")
async def test_who_is_stopped_or_detached_in_the_session_does(start):
    worker = await start()
    pids = [pid for kind in REACHED[8:] for pid in await worker.runs(kind)]
    await worker.kill()
    await gone(pids)


@pytest.mark.no_audit("the worker is killed")
async def test_they_end_too_where_the_child_is_killed_along(start):
    worker = await start()
    pids = await worker.runs("program") + await worker.runs("shell with jobs")
    os.kill(worker.pid, signal.SIGSTOP)  # so that it cannot act
    for family in worker.families:
        os.kill(family["child"], signal.SIGKILL)
    await worker.kill()
    await gone(pids)


@pytest.mark.no_audit("the worker is killed")
async def test_they_end_with_a_handler_that_holds_the_interpreter(start):
    worker = await start()
    pids = await worker.runs("program", in_c=True)
    await worker.kill()
    await gone(pids)


@pytest.mark.no_audit("the worker is killed")
async def test_a_copy_of_the_worker_keeps_nobody_alive(start):
    worker = await start("copies")
    pids = await worker.runs("program in its own group")
    word, copy = (await worker.line()).split()
    assert word == "copied"
    try:
        await worker.kill()
        await gone(pids)
        assert is_alive(int(copy))
    finally:
        os.kill(int(copy), signal.SIGKILL)


@pytest.mark.no_audit("the worker is killed")
async def test_a_keeper_that_was_killed_is_replaced(start):
    worker = await start()
    pids = await worker.runs("program")
    first = worker.keeper()
    os.kill(first, signal.SIGTERM)
    os.kill(first, signal.SIGINT)
    os.kill(first, signal.SIGKILL)
    await gone([first])

    def is_replaced() -> bool:
        return any(is_keeper(pid) and is_alive(pid) for pid in started(worker.pid))

    await eventually(is_replaced)
    await worker.kill()
    await gone(pids)


@pytest.mark.no_audit("the worker is killed")
async def test_who_leads_a_session_of_its_own_is_not_reached(start):
    worker = await start()
    child, program = await worker.runs("program in its own session")
    keeper = worker.keeper()
    await worker.kill()
    await gone([child, keeper])
    assert is_alive(program)


# An attempt is stopped.


@pytest.mark.parametrize("end", ["timed out", "cancelled", "closed"])
async def test_who_was_started_ends_with_a_stopped_attempt(make_queue, end):
    queue = make_queue()
    queue.process(handlers.act, 4, executor="process")
    heard = Recorder(queue, "job progress", "failed", "cancelled")
    for start in ("program in its own group", "shell with jobs", "orphan", "deaf program"):
        await queue.enqueue({"start": start}, **({"timeout": 3000} if end == "timed out" else {}))
    families = [family for _, family in await heard.until("job progress", count=4)]
    pids = [pid for family in families for pid in (family["child"], *family["family"])]
    if end == "timed out":
        await heard.until("failed", count=4)
    elif end == "cancelled":
        for job_id in "1234":
            assert await queue.cancel_job(job_id) is True
    else:
        with pytest.raises(TimeoutError):
            await queue.close(100)
    await gone(pids)
