"""What SIGINT and SIGTERM do to ``Queue.run``, with ``burst`` and without, in a script of its own."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server
from tests.support.waiting import pause
from tests.support.warm_start import WarmStart

_ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60
SCRIPT = """
import asyncio, sys
from beeq import Queue

async def main(url, name, is_burst):
    queue = Queue(name, redis=url)

    @queue.process
    async def handler(job):
        print("started", job.id, flush=True)
        while queue.is_running():
            await asyncio.sleep(0.01)
        print("asked to stop", flush=True)
        if job.data == "hang":
            await asyncio.Event().wait()

    await queue.run(is_burst == "True")
    print("ended", queue.is_running())

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def start(
    tmp_path: Path, valkey: Server, queue_name: str, warm_start: WarmStart
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a script that runs the queue, with ``burst`` or without."""
    started: list[subprocess.Popen[str]] = []

    def start(*, is_burst: bool, url: str = valkey.url) -> subprocess.Popen[str]:
        script = tmp_path / "works.py"
        script.write_text(SCRIPT)
        process = subprocess.Popen(
            [*warm_start.python, str(script), url, queue_name, str(is_burst)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={"PYTHONPATH": str(_ROOT)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


async def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), PATIENCE_S)).strip()


async def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    output, _ = await asyncio.to_thread(process.communicate, None, PATIENCE_S)
    return process.returncode, output.splitlines()


async def counts(queue: Any) -> tuple[int, int, int]:
    health = await queue.check_health()
    return health.waiting, health.active, health.succeeded


@pytest.mark.parametrize("is_burst", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_lets_the_job_end_and_takes_no_more(start, make_queue, is_burst, number):
    queue = make_queue(is_worker=False)
    await queue.save_all([queue.create_job("end"), queue.create_job("end")])
    script = start(is_burst=is_burst)
    assert await line_of(script) == "started 1"
    script.send_signal(number)
    assert await ended(script) == (0, ["asked to stop", "ended False"])
    assert await counts(queue) == (1, 0, 1)


@pytest.mark.parametrize("is_burst", [True, False])
async def test_the_second_signal_hands_the_job_back_and_run_returns(start, make_queue, is_burst):
    queue = make_queue(is_worker=False)
    await queue.enqueue("hang")
    script = start(is_burst=is_burst)
    assert await line_of(script) == "started 1"
    script.send_signal(signal.SIGTERM)
    assert await line_of(script) == "asked to stop"
    script.send_signal(signal.SIGTERM)
    assert await ended(script) == (0, ["ended False"])
    assert await counts(queue) == (1, 0, 0)


async def test_a_burst_closed_while_it_opens_ends_without_an_error(make_queue):
    queue = make_queue(auto_connect=False)

    @queue.process
    async def handler(_job):
        """Do nothing."""

    running = asyncio.ensure_future(queue.run(burst=True, catch_signals=False))
    await pause(0)  # the opening begins
    await queue.close()
    assert await asyncio.wait_for(running, 5) is None
