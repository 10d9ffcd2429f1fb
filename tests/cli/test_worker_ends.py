"""``beeq worker`` ends soon after its jobs went back, whatever their handlers have left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.command import Beeq, eventually, is_pending

ROOT = Path(__file__).resolve().parents[2]
APP = """
import asyncio, contextlib, hashlib, os, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from beeq import Queue

queue = Queue(os.environ["TEST_QUEUE"])
never = threading.Event()
pool = ThreadPoolExecutor()

@queue.process()
async def handle(job):
    Path("started").touch()
    match job.data["kind"]:
        case "loop's pool":
            await asyncio.to_thread(never.wait)
        case "own pool":
            await asyncio.wrap_future(pool.submit(never.wait))
        case "thread":
            threading.Thread(target=never.wait).start()
            await asyncio.Event().wait()
        case "task":
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        case "blocked":
            never.wait()
        case "computes":
            hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)  # C code, which sees no signal meanwhile
            await asyncio.Event().wait()
"""
#: What a close may take, the end of the process, and a busy machine.
BOUND_S = 3 + 2 * 2 + 8


@pytest.mark.parametrize("kind", ["loop's pool", "own pool", "thread", "task"])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_hangs_does_not_keep_the_command(beeq: Beeq, queue_name: str, kind, processes):
    beeq.app(APP)
    beeq.ok("enqueue", queue_name, f"kind={kind}")
    worker = beeq.start(
        *("worker", queue_name, "--app", "app:queue", "--shutdown-timeout", "100ms", "-w", processes),
        TEST_QUEUE=queue_name,
    )
    eventually((beeq.folder / "started").exists)
    began = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ended() == 0
    assert time.monotonic() - began < BOUND_S
    stats = beeq.stats(queue_name)
    assert (stats["waiting"], stats["active"]) == (1, 0)


def test_two_signals_during_one_call_hand_jobs_back(beeq: Beeq, queue_name: str):
    """The main thread's handler is called once for both; a thread hears each."""
    beeq.app(APP)
    beeq.ok("enqueue", queue_name, "kind=computes")
    worker = beeq.start("worker", queue_name, "--app", "app:queue", TEST_QUEUE=queue_name)
    eventually((beeq.folder / "started").exists)
    worker.signal(signal.SIGTERM)
    eventually(lambda: not is_pending(worker.pid, signal.SIGTERM))  # two that are pending are one
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0, worker.stderr
    stats = beeq.stats(queue_name)
    assert (stats["waiting"], stats["active"]) == (1, 0)


def test_the_third_signal_ends_a_worker_whose_loop_is_blocked(beeq: Beeq, queue_name: str):
    beeq.app(APP)
    beeq.ok("enqueue", queue_name, "kind=blocked")
    worker = beeq.start("worker", queue_name, "--app", "app:queue", TEST_QUEUE=queue_name)
    eventually((beeq.folder / "started").exists)

    def has_ended() -> bool:
        worker.process.send_signal(signal.SIGTERM)
        return worker.process.poll() is not None

    eventually(has_ended)
    assert worker.ended() == -signal.SIGTERM


LAST_RESORT = """
import asyncio, time
from beeq.process import LastResort, stop_signals

async def main():
    with stop_signals(lambda number: None, at_once=LastResort(0.1, code=7, last_words="that was it").begin):
        print("blocked", flush=True)
        while True:
            time.sleep(60)

asyncio.run(main())
"""


def test_the_last_resort_ends_a_process_whose_loop_is_blocked():
    with subprocess.Popen(
        [sys.executable, "-c", LAST_RESORT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"blocked\n"
        process.terminate()
        _, last_words = process.communicate(timeout=60)
        assert (process.returncode, last_words) == (7, b"that was it\n")
