"""Workers with child processes leave no descriptor, child or thread behind; no other worker runs meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from beeq import JobFailed, Queue
from tests.support.waiting import Recorder, eventually
from tests.worker import process_handlers as handlers
from tests.worker.test_process_lives import (
    PATIENCE_MS,
    act_in_processes,
    begun,
    children,
    gone,
    pid_of,
    started,
)

pytestmark = pytest.mark.external  # it starts many child processes


def belongings() -> dict[str, Any]:
    """Return what this process would be found to leak."""
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "children": started(),
        "threads": set(threading.enumerate()),
    }


async def test_nothing_is_left_after_results_deaths_kills_and_close(make_queue):
    first = act_in_processes(make_queue)
    await pid_of(first)
    await first.close()  # what is only made once has been made
    before = belongings()
    queue = act_in_processes(make_queue, 2)
    heard = Recorder(queue, "succeeded", "failed")
    for _ in range(2):
        await queue.enqueue({"do": "who"})
        await queue.enqueue({"do": "fail", "error": "ValueError"})
        await queue.enqueue({"do": "die", "code": 1})
        await queue.enqueue({"do": "hang_with_family"}, timeout=300)
        await queue.enqueue({"do": "close_descriptors"})
    await heard.until("failed", count=8, within_s=60)
    await heard.until("succeeded", count=2, within_s=60)
    assert len(children() - before["children"]) <= 2
    await queue.close()
    assert started() == before["children"]
    await eventually(lambda: belongings() == before)


def on_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_all_this_works_under_uvloop(valkey, queue_name):
    async def begin() -> None:
        async with Queue(queue_name, redis=valkey.url) as queue:
            queue.process(handlers.act, executor="process")
            await pid_of(queue)

    async def work() -> None:
        async with Queue(queue_name, redis=valkey.url) as queue:
            queue.process(handlers.act, executor="process")
            pid = await pid_of(queue)
            value = "x" * 3_000_000
            job = await queue.enqueue({"do": "echo", "value": value})
            assert await job.result(timeout=PATIENCE_MS) == value
            job, pids = await begun(queue, "hang_with_family")
            assert await job.cancel() is True
            await gone(*pids.values())
            assert await pid_of(queue) != pid
            with pytest.raises(JobFailed, match="exit code 3"):
                await (await queue.enqueue({"do": "die", "code": 3})).result(timeout=PATIENCE_MS)
            with pytest.raises(JobFailed, match="timed out"):
                await (await queue.enqueue({"do": "hang"}, timeout=300)).result(timeout=PATIENCE_MS)
            await queue.destroy()

    async def main() -> None:
        await begin()  # what is only made once has been made
        before = belongings()
        await work()
        assert started() == before["children"]
        await eventually(lambda: belongings() == before)

    on_uvloop(main)
