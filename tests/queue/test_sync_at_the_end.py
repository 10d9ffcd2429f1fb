"""The blocking queue where its loop's thread has ended: each call is an error within its bound, and never hangs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from beeq import sync
from beeq.blocking import Portal
from beeq.sync import Queue

pytestmark = pytest.mark.external  # each starts a program

ROOT = Path(__file__).parents[2]

#: A program that has a blocking queue; how it ends follows.
PROGRAM = """
import atexit, os, sys, threading, time
from beeq.sync import Queue

queue = Queue(sys.argv[2], redis=sys.argv[1])

class Last:
    def __init__(self, queue=queue):
        self.queue = queue

    def __del__(self):
        try:
            self.queue.enqueue("at the end")
        except Exception as error:
            os.write(1, f"{type(error).__name__}: {error}\\n".encode())
        else:
            os.write(1, b"enqueued\\n")
"""
#: How a program ends → the rest of it, and what it prints.
ENDS = {
    "a finaliser": ("queue.enqueue(0); last = Last()", "RuntimeError: the interpreter is ending"),
    "a finaliser, and it was never opened": ("last = Last()", "RuntimeError: the interpreter is ending"),
    "a finaliser of another queue": (
        "queue.enqueue(0); last = Last(Queue('other', redis=sys.argv[1]))",
        "RuntimeError: the interpreter is ending",
    ),
    "a finaliser that makes its queue": (
        """
class Late:
    def __del__(self, Queue=Queue, url=sys.argv[1], write=os.write):
        try:
            Queue("late", redis=url).enqueue(1)
        except Exception as error:
            write(1, f"{type(error).__name__}: {error}\\n".encode())
late = Late()
""",
        "RuntimeError: the interpreter is ending",
    ),
    "atexit": ("queue.enqueue(0); atexit.register(Last)", "enqueued"),
    "a thread of the program's": (
        """
def later():
    threading.main_thread().join()
    Last()
threading.Thread(target=later).start()
""",
        "enqueued",
    ),
    "a daemon thread": (
        """
def often():
    while True:
        queue.enqueue(1)
threading.Thread(target=often, daemon=True).start()
time.sleep(0.1)
""",
        "",
    ),
    "a fork's child": (
        """
queue.enqueue(0)
if os.fork():
    os.wait()
    queue.close()
else:
    last = Last()
""",
        "RuntimeError: the interpreter is ending",
    ),
    "a closed queue's finaliser": (
        "queue.enqueue(0); queue.close(); last = Last()",
        "RuntimeError: the interpreter is ending",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_whatever_it_enqueues_at_the_end(valkey, queue_name, end):
    rest, said = ENDS[end]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM + rest, valkey.url, queue_name],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(said)
    assert len(done.stdout.splitlines()) == bool(said)


@pytest.fixture
def background(monkeypatch):
    """A background loop of this test's own."""
    own = sync._Background()
    monkeypatch.setattr(sync, "_background", own)
    return own


def stop_loop(background: Any) -> Any:
    loop, thread = background._running
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    return loop


def test_a_queue_whose_thread_has_ended_says_so(valkey, queue_name, background):
    queue = Queue(queue_name, redis=valkey.url)
    queue.enqueue({})
    loop = stop_loop(background)
    for call in (lambda: queue.enqueue({}), queue.stats, queue.close):
        with pytest.raises(RuntimeError, match="event loop"):
            call()
    with Queue(queue_name, redis=valkey.url) as another:
        assert another.enqueue({}).id == "2"
    loop.run_until_complete(queue._twin.close())
    loop.close()
    stop_loop(background).close()


def test_a_call_under_way_ends_with_its_thread(valkey, queue_name, background):
    """The loop is stopped, and not closed: nothing that runs there is notified."""
    queue = Queue(queue_name, redis=valkey.url)
    job = queue.enqueue({})
    loop, thread = background._running
    threading.Timer(0.2, loop.call_soon_threadsafe, (loop.stop,)).start()
    with pytest.raises(RuntimeError, match="does not run any more"):
        job.result()
    thread.join()
    loop.run_until_complete(queue._twin.close())
    loop.close()


def test_a_loop_that_was_never_run_is_waited_for_within_a_bound(monkeypatch):
    monkeypatch.setattr("beeq.blocking._LOOK_AT_LOOP_S", 0.05)
    loop = asyncio.new_event_loop()

    async def nothing() -> None:
        pass

    began = time.monotonic()
    with pytest.raises(RuntimeError, match="does not run any more"):
        Portal(loop).run(nothing())
    assert time.monotonic() - began < 5
    loop.run_until_complete(nothing())
    loop.close()


def test_a_loop_that_pauses_shortly_answers_afterwards():
    loop = asyncio.new_event_loop()

    async def value() -> int:
        return 7

    found: list[int] = []
    calling = threading.Thread(target=lambda: found.append(Portal(loop).run(value())))
    calling.start()
    threading.Event().wait(0.1)
    loop.run_until_complete(asyncio.sleep(0.05))
    calling.join(10)
    loop.close()
    assert found == [7]
