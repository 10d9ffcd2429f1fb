"""A heartbeat renews claims, not ids: who has lost a job does not keep it alive, and stops it at once."""

from __future__ import annotations

import asyncio
import signal

STALL_MS = 300


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()


async def test_a_woken_worker_does_not_keep_a_dead_ones_job_alive(make_queue, start_worker):
    """It slept while its job stalled; the second owner took the job, and died. Then the first one woke."""
    producer = make_queue(is_worker=False, stall_interval=STALL_MS)
    job = await producer.enqueue({})
    first = await start_worker(stall_interval=STALL_MS)
    assert await line_of(first) == f"started {job.id}"
    first.send_signal(signal.SIGSTOP)
    second = await start_worker(stall_interval=STALL_MS)
    assert await line_of(second) == f"started {job.id}"
    second.kill()
    await second.wait()
    first.send_signal(signal.SIGCONT)
    # Its own handler is stopped, and once the job has stalled again it takes it like anybody else. What it had
    # asked of Redis before it slept may have taken too long.
    lines: list[str] = []
    while len(lines) < 3:
        lines += [line for line in [await line_of(first)] if not line.startswith("error RedisUnavailable ")]
    assert sorted(lines) == [f"error JobLost {job.id}", f"started {job.id}", f"stopped {job.id}"]
    await job.cancel()
    assert await line_of(first) == f"stopped {job.id}"
