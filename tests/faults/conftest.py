"""Fixtures of the fault tests: a worker in a process of its own, to be killed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.server import Server

ROOT = Path(__file__).parents[2]

#: The handler's behaviour is chosen by the job's data. It prints when it starts a job, when it is stopped, and
#: what it emits as an error.
WORKER = """
import asyncio, os, signal, sys
from beeq import Queue

async def main():
    name, url, stall_interval, max_stalls = sys.argv[1:]
    queue = Queue(name, redis=url, stall_interval=int(stall_interval), max_stalls=int(max_stalls))
    queue.on("error", lambda e: print("error", type(e).__name__, getattr(e, "job_id", e), flush=True))

    @queue.process(concurrency=5)
    async def handler(job):
        print("started", job.id, flush=True)
        if job.data == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            await asyncio.Event().wait()
        finally:
            print("stopped", job.id, flush=True)

    await queue.run()

asyncio.run(main())
"""

StartWorker = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start_worker(valkey: Server, queue_name: str) -> AsyncIterator[StartWorker]:
    """``await start_worker(stall_interval=…, max_stalls=3)``: a worker process; killed at the end."""
    processes: list[asyncio.subprocess.Process] = []

    async def start(*, stall_interval: int, max_stalls: int = 3) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WORKER,
            *(queue_name, valkey.url, str(stall_interval), str(max_stalls)),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await asyncio.wait_for(process.communicate(), 30)
