"""``give_back_all``: jobs go back to their queue from outside the loop that they run in, which is blocked."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

from beeq.protocol.keys import Keys
from beeq.redis.connector import Connector
from beeq.settings import Settings
from beeq.worker.heartbeat import Heartbeat, LeftJobs, give_back_all
from beeq.worker.scheduling.ahead import AheadJobs

KEYS = Keys("bq", "beaten")
#: More than one call takes.
MANY = 600


async def test_jobs_of_a_blocked_loop_go_back_in_their_order(make_queue, redis):
    """To the front, where the next job to run is at the right."""
    queue = make_queue()
    begun = asyncio.Semaphore(0)

    @queue.process(concurrency=MANY)
    async def handler(_job: Any) -> None:
        begun.release()
        await asyncio.Event().wait()

    jobs = [queue.create_job({}) for _ in range(MANY)]
    await queue.save_all(jobs)
    async with asyncio.timeout(30):
        for _ in range(MANY):
            await begun.acquire()
    left: list[LeftJobs] = []
    thread = threading.Thread(target=lambda: left.extend(give_back_all(20)))
    thread.start()
    thread.join()  # the loop is blocked until they are back
    ids = [job.id for job in jobs]
    (found,) = [jobs for jobs in left if jobs.queue_name == queue.name]
    assert (sorted(found.given_back), found.ids) == (sorted(ids), [])
    assert await redis.lrange(queue.keys.waiting, 0, -1) == ids[::-1]
    assert await redis.lrange(queue.keys.active, 0, -1) == []
    with contextlib.suppress(TimeoutError):
        await queue.close(1)


async def test_jobs_that_cannot_go_back_are_named():
    """Here nobody answers, and the connector works in the blocked loop only."""
    beating = [
        Heartbeat(
            Connector("redis://127.0.0.1:1", timeout_ms=100, slot_key=KEYS.jobs),
            KEYS,
            Settings(),
            worker="somebody",
            held=lambda: ({b"7": b"claim"}, b""),
            look=lambda: None,
            ahead=AheadJobs(),
            on_returned=lambda _returned: None,
            on_living=lambda _count: None,
            take_counts=str,
            on_cancelled=lambda _claims: None,
            on_lost=lambda _claims: None,
            on_error=lambda _error: None,
            patience_s=60,
            loop=loop,
        )
        for loop in (None, asyncio.get_running_loop())
    ]
    left: list[LeftJobs] = []
    thread = threading.Thread(target=lambda: left.extend(give_back_all(0.3)))
    thread.start()
    thread.join()
    assert left == [LeftJobs(KEYS.queue_name, [], ["7"])] * 2
    for heartbeat in beating:
        heartbeat.stop()
    for heartbeat in beating:
        await asyncio.to_thread(heartbeat.join, 10)
