"""A Node fleet's history is the fleet's: a beeq worker drops none of it unless somebody says so."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.waiting import eventually

_ROOT = Path(__file__).resolve().parents[2]
#: More than a worker keeps by default.
HISTORY = 10_100
STALL_MS = 300
APP = """
import os
from beeq import Queue

queue = Queue(os.environ["TEST_QUEUE"], stall_interval=300)

@queue.process(concurrency=50)
async def handle(job):
    return "python"
"""


@asynccontextmanager
async def worker(folder: Path, url: str, queue_name: str, *options: str) -> AsyncIterator[None]:
    """Let ``beeq worker`` work on the queue."""
    (folder / "app.py").write_text(APP)
    working = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "beeq_cli", "worker", "--app", "app:queue", "-u", url, *options),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{_ROOT}:{_ROOT / 'cli'}", "TEST_QUEUE": queue_name},
    )
    try:
        yield
    finally:
        working.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(working.wait(), 30)
    assert code == 0


@pytest.mark.external  # takes long
async def test_nothing_of_a_node_fleets_history_is_dropped(
    make_node, make_queue, valkey, queue_name, tmp_path
):
    node = await make_node(concurrency=100, stallInterval=STALL_MS)
    reader = await make_queue(is_worker=False, stall_interval=STALL_MS).ready()
    for start in range(0, HISTORY, 1000):
        ids = [f"order-{n}" for n in range(start, min(start + 1000, HISTORY))]
        await node.call("saveAll", jobs=[{"data": {"act": "return"}, "id": job_id} for job_id in ids])

    async def all_are_done():
        return (await reader.check_health()).succeeded == HISTORY

    await eventually(all_are_done, within_s=60)
    await node.end()

    # The defaults: looks are made, and go by nothing but what the worker itself has run.
    keys = reader.keys
    async with worker(tmp_path, valkey.url, queue_name):
        jobs = [await reader.enqueue({}) for _ in range(5)]
        assert {await job.result(timeout="30s") for job in jobs} == {"python"}
        assert await reader.pipeline.call("ZCARD", keys.succeeded_at) == 5

        async def has_looked():
            return await reader.pipeline.call("EXISTS", keys.retention)

        for _ in range(2):  # the first look has ended when the second begins
            await reader.pipeline.call("DEL", keys.retention)
            await eventually(has_looked)
        assert (await reader.check_health()).succeeded == HISTORY + 5
        assert await reader.pipeline.call("EXISTS", keys.seen_success) == 0
        for job_id in ("order-0", "order-77", f"order-{HISTORY - 1}"):
            assert (await reader.enqueue({}, id=job_id)).is_new is False

    # Said explicitly, it holds for everybody's.
    async with worker(tmp_path, valkey.url, queue_name, "--keep-succeeded", "1000"):

        async def are_few():
            return (await reader.check_health()).succeeded == 1000

        await eventually(are_few, within_s=60)
    assert await reader.pipeline.call("HLEN", keys.jobs) == 1000
