"""Ctrl-C stops a program, whatever its handlers and listeners are at; so does what they raise in their own tasks."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.server import Server
from tests.support.warm_start import WarmStart

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60
SCRIPT = """
import asyncio, sys, threading, time
from beeq import Queue

URL, NAME, KIND, RUNS = sys.argv[1:]

def say_and_block(*_arguments):
    print("blocks", flush=True)
    time.sleep(1)

async def raise_in_task(error):
    raise error

def handle_in_thread(job):
    print("hangs", flush=True)
    threading.Event().wait()

async def handle(job):
    match job.data:
        case "waits":
            print("waits", flush=True)
            await asyncio.Event().wait()
        case "blocks":
            say_and_block()
        case "task raises":
            task = asyncio.create_task(raise_in_task(KeyboardInterrupt("in a task")))
            await asyncio.wait([task])

async def main():
    queue = Queue(NAME, redis=URL)
    queue.process(handle_in_thread if KIND == "thread" else handle, 2)
    if KIND == "listener":
        queue.on("succeeded", say_and_block)
    jobs = [queue.create_job(KIND).timeout(30_000) for _ in range(2)]
    saving = asyncio.create_task(queue.save_all(jobs))  # once interrupts are caught
    if RUNS == "runs":
        await queue.run()
    else:
        await asyncio.Event().wait()

try:
    asyncio.run(main())
    print("ended")
except KeyboardInterrupt as error:
    print("interrupted", error)
"""


@pytest.fixture
def start(
    tmp_path: Path, valkey: Server, queue_name: str, warm_start: WarmStart
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the script: with a handler or listener of this kind, in ``queue.run()`` or in a ``main`` of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(kind: str, runs: str) -> subprocess.Popen[str]:
        script = tmp_path / "works.py"
        script.write_text(SCRIPT)
        process = subprocess.Popen(
            [*warm_start.python, str(script), valkey.url, queue_name, kind, runs],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize("kind", ["waits", "blocks", "listener", "thread"])
def test_an_interrupt_stops_a_main_of_the_programs_own(start, sync_redis, queue_name, kind):
    script = start(kind, "waits")
    assert script.stdout.readline()
    script.send_signal(signal.SIGINT)
    output, errors = script.communicate(timeout=PATIENCE_S)
    assert (script.returncode, output.splitlines()[-1].strip()) == (0, "interrupted")
    assert "Traceback" not in errors
    assert sync_redis.scard(f"bq:{queue_name}:failed") == 0, "it was interrupted, and is to run again"


@pytest.mark.parametrize("kind", ["waits", "blocks", "listener", "thread"])
def test_interrupts_stop_a_queue_that_runs(start, kind):
    """The first lets jobs end, the second hands back those that do not."""
    script = start(kind, "runs")
    assert script.stdout.readline()
    script.send_signal(signal.SIGINT)
    if kind in {"waits", "thread"}:
        with pytest.raises(subprocess.TimeoutExpired):
            script.wait(0.5)
        script.send_signal(signal.SIGINT)
    _, errors = script.communicate(timeout=PATIENCE_S)
    assert script.returncode == 0
    # A listener that blocks for a second may be logged as well.
    lines = [line.split(": ")[1] for line in errors.splitlines() if "the event loop" not in line]
    assert lines == ["running jobs were handed back"] * (kind in {"waits", "thread"})


def test_what_a_handlers_own_task_raises_ends_the_program(start, sync_redis, queue_name):
    """So asyncio has it for these two exceptions. The jobs stall, and run again elsewhere."""
    script = start("task raises", "runs")
    output, _ = script.communicate(timeout=PATIENCE_S)
    assert output == "interrupted in a task\n"
    assert sum(sync_redis.llen(f"bq:{queue_name}:{suffix}") for suffix in ("waiting", "active")) == 2
