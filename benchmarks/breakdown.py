"""Where a worker's time goes for one job: ``python benchmarks/breakdown.py``. Times the steps one by one.

No Redis in it: the script's own time is in ``INFO commandstats`` of the server.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from beeq import Job, Queue
from beeq.job import JobOwner
from beeq.protocol.outcome import succeed
from beeq.redis.resp import CommandPrefix
from beeq.telemetry.attempt_report import AttemptReport
from beeq.telemetry.hooks import Telemetry
from beeq.worker.attempts.runner import Attempt, Runner

_RECORD = (
    b'{"data":{"i":1},"options":{"timestamp":1795488864455,"stacktraces":[]},"status":"created","progress":0}'
)
_COUNT = 20_000


def per_call_us(step: Callable[[], Any]) -> float:
    """Return what one call of ``step`` takes, in µs: the best of five rounds."""
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(_COUNT):
            step()
        rounds.append((time.perf_counter() - began) / _COUNT * 1e6)
    return min(rounds)


def claimed_job(owner: JobOwner) -> Job:
    """Return a job as a worker makes it of what a call has brought."""
    return Job.claimed(owner, "1", _RECORD, b"token:1", now_ms=0)


async def per_attempt_us(owner: JobOwner) -> float:
    """Return what an attempt takes whose handler does nothing: its task, its end."""

    async def handler(_job: Job) -> None:
        return None

    ended = 0

    def on_end(_attempt: Attempt, _result: Any, _error: BaseException | None) -> None:
        nonlocal ended
        ended += 1

    runner = Runner(
        handler,
        executor="auto",
        concurrency=100,
        on_end=on_end,
        on_late=lambda _job, _error: None,
        report=AttemptReport(Telemetry()),
    )
    job = claimed_job(owner)
    rounds = []
    for _ in range(5):
        ended = 0
        began = time.perf_counter()
        for _ in range(_COUNT // 100):
            for _ in range(100):
                runner.start(Attempt(job, b"1", b"token:1"))
            await asyncio.sleep(0)  # the tasks run in the next turn of the loop
        rounds.append((time.perf_counter() - began) / _COUNT * 1e6)
        if ended != _COUNT:
            raise RuntimeError(f"{ended} of {_COUNT} attempts ended")
    return min(rounds)


async def main() -> None:
    """Print the table."""
    queue = Queue("breakdown")
    owner = queue.create_job().owner
    job = claimed_job(owner)
    outcome = (b"1", b"token:1", b"succeeded", _RECORD, b'{"id":"1","event":"succeeded"}', b"0", b"")
    prefix = CommandPrefix("EVALSHA")
    rows = {
        "make the job of its record": per_call_us(lambda: claimed_job(owner)),
        "run the handler as a task": await per_attempt_us(owner),
        "decide and write the outcome": per_call_us(lambda: succeed(job, None)),
        "pack it, one of a hundred": per_call_us(lambda: prefix.pack(outcome * 100)) / 100,
    }
    for name, microseconds in rows.items():
        print(f"{name:32}{microseconds:6.2f} µs")
    print(f"{'together':32}{sum(rows.values()):6.2f} µs")
    await queue.close()


if __name__ == "__main__":
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(main())
    else:
        uvloop.run(main())
