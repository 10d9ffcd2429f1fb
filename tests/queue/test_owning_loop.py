"""A queue belongs to one event loop of one process; elsewhere it says so instead of waiting for ever."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beeq import Queue, QueueClosed, RedisUnavailable

_ROOT = Path(__file__).resolve().parents[2]
IN_ANOTHER_LOOP = "opened in another event loop"
FORKS = """
import asyncio, os, sys, threading, traceback
from beeq import Queue
from beeq.sync import Queue as SyncQueue

URL, NAME = sys.argv[1:]

def in_child(*calls):
    "Call each in a fork, and print what it returns or raises."
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        for call in calls:
            try:
                print(call())
            except RuntimeError as error:
                print("RuntimeError:", error)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(0)
"""


@pytest.fixture
def forking(tmp_path: Path, valkey: Any, queue_name: str) -> Callable[[str], list[str]]:
    """Run a script that has ``in_child``, ``URL`` and ``NAME``; return the lines that it prints."""

    def run(text: str) -> list[str]:
        script = tmp_path / "forks.py"
        script.write_text(FORKS + text)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(script), valkey.url, queue_name],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
            env={"PYTHONPATH": str(_ROOT)},
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run


# Another process.


def test_a_blocking_queue_used_before_a_fork_refuses_the_child(forking):
    lines = forking(
        """
queue = SyncQueue(NAME, redis=URL)
job = queue.enqueue({})
in_child(
    lambda: queue.enqueue({}),
    queue.check_health,
    queue.connect,
    queue.close,
    lambda: queue.on("job succeeded", print),
    queue.create_job({}).save,
    lambda: job.result(timeout=20),
    lambda: job.on("succeeded", print),
)
print(queue.enqueue({}).id)
queue.close()
"""
    )
    assert lines[-1] == "2"  # the parent's goes on
    assert len(lines) == 9
    for line in lines[:-1]:
        assert "opened before a fork" in line
        assert "make the queue in the child" in line


def test_an_unused_blocking_queue_works_on_both_sides_of_a_fork(forking):
    lines = forking(
        """
queue = SyncQueue(NAME, redis=URL)
job = queue.create_job({})
in_child(lambda: job.save().id, lambda: queue.enqueue({}).id, queue.close)
print(queue.enqueue({}).id)
queue.close()
"""
    )
    assert lines == ["1", "2", "None", "3"]


def test_a_child_makes_a_blocking_queue_beside_its_parents(forking):
    lines = forking(
        """
def work():
    with SyncQueue(NAME, redis=URL) as own:
        return own.enqueue({}).id

with SyncQueue(NAME, redis=URL) as queue:
    queue.enqueue({})
    in_child(work)
"""
    )
    assert lines == ["2"]


def test_the_job_of_a_handler_that_forks_says_so_in_the_child(forking):
    lines = forking(
        """
def handler(job):
    in_child(lambda: job.report_progress(50), lambda: job.on("progress", print))
    return job.report_progress(60) >= 0

async def main():
    async with Queue(NAME, redis=URL) as queue:
        queue.process(handler)
        print(await (await queue.enqueue({})).result(timeout=10_000))

asyncio.run(main())
"""
    )
    assert [line.split(":")[0] for line in lines] == ["RuntimeError", "RuntimeError", "True"]
    assert all("before a fork" in line for line in lines[:2])


def test_an_async_queue_opened_before_a_fork_refuses_the_child(forking):
    lines = forking(
        """
queue = Queue(NAME, redis=URL)
asyncio.run(queue.connect())  # and the loop is gone
in_child(lambda: asyncio.run(queue.check_health()))
"""
    )
    assert len(lines) == 1
    assert "opened before a fork" in lines[0]


# Another loop.


@pytest.fixture
def first_loop() -> Iterator[asyncio.Runner]:
    """A loop that is still there when another one runs, so that what it opened can be closed in it."""
    with asyncio.Runner() as runner:
        yield runner


def test_a_queue_that_was_opened_in_one_loop_says_so_in_another(valkey, queue_name, first_loop):
    queue = Queue(queue_name, redis=valkey.url)
    job = first_loop.run(queue.enqueue({}))

    async def handler(_job):
        """Do nothing."""

    async def ask(call: Callable[[], Any]) -> None:
        outcome = call()
        if asyncio.iscoroutine(outcome):
            await outcome

    for call in (
        lambda: queue.enqueue({}),
        lambda: queue.save_all([queue.create_job({})]),
        lambda: job.result(timeout=20),
        queue.connect,
        queue.ready,
        queue.check_health,
        queue.check_stalled_jobs,
        lambda: queue.process(handler),
        lambda: queue.on("job succeeded", print),
        lambda: job.on("succeeded", print),
        queue.close,
    ):
        with pytest.raises(RuntimeError, match=IN_ANOTHER_LOOP):
            asyncio.run(asyncio.wait_for(ask(call), 10))
    assert queue.handler is None
    first_loop.run(queue.close())


def test_a_worker_that_worked_in_one_loop_says_so_in_another(valkey, queue_name, first_loop):
    queue = Queue(queue_name, redis=valkey.url)

    @queue.process
    async def handler(_job):
        """Do nothing."""

    first_loop.run(queue.run(burst=True, catch_signals=False))
    for is_burst in (True, False):
        with pytest.raises(RuntimeError, match=IN_ANOTHER_LOOP):
            asyncio.run(asyncio.wait_for(queue.run(is_burst, catch_signals=False), 10))
    first_loop.run(queue.close())


async def test_a_queue_open_in_one_loop_refuses_another_thread(make_queue):
    queue = make_queue()
    await queue.ready()

    def ask():
        with pytest.raises(RuntimeError, match=IN_ANOTHER_LOOP):
            asyncio.run(queue.enqueue({}))

    await asyncio.to_thread(ask)
    assert (await queue.enqueue({})).id == "1"


def test_a_queue_made_outside_a_loop_works_in_its_first_user(valkey, queue_name):
    queue = Queue(queue_name, redis=valkey.url)

    @queue.process
    async def handler(job):
        return job.data

    async def work():
        job = await queue.enqueue("value")
        await queue.run(burst=True, catch_signals=False)
        result = await job.result(timeout=5000)
        await queue.close()
        return result

    assert asyncio.run(work()) == "value"


def test_a_closed_queue_is_closed_in_every_loop(valkey, queue_name):
    queue = Queue(queue_name, redis=valkey.url)

    async def use():
        async with queue:
            await queue.enqueue({})

    asyncio.run(use())
    asyncio.run(queue.close())
    with pytest.raises(QueueClosed):
        asyncio.run(queue.enqueue({}))


def test_a_queue_that_failed_to_open_opens_in_the_next_loop(own_valkey):
    queue = Queue("late", redis=own_valkey.url)
    own_valkey.stop()
    with pytest.raises(RedisUnavailable):
        asyncio.run(queue.ready())
    own_valkey.start()

    async def use():
        async with queue:
            return (await queue.enqueue({})).id

    assert asyncio.run(use()) == "1"


def test_queues_in_several_threads_have_a_loop_each(valkey, queue_name):
    ids: list[Any] = []
    meeting = threading.Barrier(4)

    def work():
        async def main():
            async with Queue(queue_name, redis=valkey.url) as queue:
                meeting.wait(10)
                ids.append((await queue.enqueue({})).id)
                meeting.wait(10)

        asyncio.run(main())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(ids) == ["1", "2", "3", "4"]
