"""A close returns in its time, whatever hangs: handlers anywhere, listeners, the server, the client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beeq import Queue
from beeq.client.closing import CLOSE_GRACE_S
from tests.support.certificate import CERTIFICATE, server_context
from tests.support.proxy import proxy_to
from tests.support.server import Server
from tests.support.waiting import pause

TIMEOUT_MS = 200
#: What a busy machine may add.
SLACK_S = 3.0


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Fail if the block takes longer than a close may."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < TIMEOUT_MS / 1000 + CLOSE_GRACE_S + SLACK_S


async def close(queue: Queue) -> None:
    """Close a queue whose jobs do not end, in time."""
    with in_time(), pytest.raises(TimeoutError):
        await queue.close(TIMEOUT_MS)


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """What threads wait for until the test has ended."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def worker(hung: threading.Event, make_queue: Any) -> Any:
    """``await worker(handler, count)``: a worker in which so many jobs have begun.

    Queues are ended before ``hung`` is set: a handler that went on then would be reported.
    """

    async def start(handler: Any, count: int = 1, **options: Any) -> Queue:
        queue: Queue = make_queue()
        queue.process(handler, count, **options)
        await queue.save_all([queue.create_job({}) for _ in range(count)])
        return queue

    return start


async def test_handlers_that_fill_the_loops_threads_hold_up_no_close(worker, hung, redis, eventually):
    """``asyncio.to_thread`` shares a bounded pool with the whole loop."""
    count = 3 + min(32, (os.cpu_count() or 1) + 4)
    begun = []

    async def handler(job):
        begun.append(job)
        await asyncio.to_thread(hung.wait)

    queue = await worker(handler, count)
    await eventually(lambda: len(begun) == count)
    await close(queue)
    assert await redis.llen(queue.keys.waiting) == count
    hung.set()
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_handlers_in_threads_of_their_own_hold_up_no_close(worker, hung, redis, eventually):
    begun = []

    def handler(job):
        begun.append(job)
        hung.wait()

    queue = await worker(handler, 5)
    await eventually(lambda: len(begun) == 5)
    await close(queue)
    assert await redis.llen(queue.keys.waiting) == 5


async def test_a_handler_deaf_to_its_cancellation_holds_up_no_close(worker, redis, eventually, expect_errors):
    end, begun = asyncio.Event(), []

    async def handler(job):
        begun.append(job)
        while not end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await end.wait()

    queue = await worker(handler, 3)
    await eventually(lambda: len(begun) == 3)
    await close(queue)
    assert await redis.llen(queue.keys.waiting) == 3
    end.set()


def stubborn(job: Any) -> None:
    """Ignore what can be ignored, and start a process that does so, too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        while True:
            time.sleep(60)
    job.report_progress(os.getpid())
    while True:
        time.sleep(60)


async def test_child_processes_that_ignore_signals_hold_up_no_close(worker, redis, recorder):
    queue = await worker(stubborn, 2, executor="process")
    record = recorder(queue, "job progress")
    pids = [pid for _id, pid in await record.until("job progress", 2)]
    await close(queue)
    assert await redis.llen(queue.keys.waiting) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_listeners_that_never_return_hold_up_no_close(make_queue, eventually):
    end, begun = asyncio.Event(), []

    async def listener():
        begun.append(1)
        while not end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await end.wait()

    queue = make_queue().on("ready", listener)
    await queue.connect()
    await eventually(lambda: begun)
    with in_time():
        await queue.close(TIMEOUT_MS)
    end.set()


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
@pytest.mark.no_audit("what a frozen server holds stays active until a stall check")
async def test_a_server_that_freezes_holds_up_no_close(
    make_queue, valkey: Server, tmp_path: Path, eventually, expect_errors, is_encrypted
):
    begun = []
    context = server_context(tmp_path) if is_encrypted else None
    async with proxy_to(valkey.port, tls=context) as proxy:
        url = proxy.url
        if is_encrypted:
            authority = tmp_path / "authority.pem"
            authority.write_text(CERTIFICATE)
            url += f"?ssl_ca_certs={authority}&ssl_check_hostname=false"
        queue = make_queue(redis=url)

        @queue.process
        async def handler(job):
            begun.append(job)
            await asyncio.Event().wait()

        await queue.enqueue({})
        await eventually(lambda: begun)
        waiting = asyncio.ensure_future(queue.stats())
        proxy.freeze()
        await close(queue)
        assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], Exception)


async def test_a_server_that_never_answers_holds_up_no_close(make_queue, valkey: Server, expect_errors):
    async with proxy_to(valkey.port) as proxy:
        proxy.freeze()
        queue = make_queue(redis=proxy.url)

        @queue.process
        async def handler(_job):
            """Do nothing."""

        opening = asyncio.ensure_future(queue.connect())
        await pause(0)  # it begins
        with in_time(), contextlib.suppress(TimeoutError):
            await queue.close(TIMEOUT_MS)
        assert isinstance((await asyncio.gather(opening, return_exceptions=True))[0], Exception)


async def test_a_client_that_does_not_close_holds_up_no_close(valkey: Server, queue_name: str):
    client = valkey.client()
    hang_up, end = client.aclose, asyncio.Event()
    client.aclose = end.wait  # type: ignore[method-assign, assignment]  # it hangs
    queue = Queue(queue_name, redis=client, quit_command_client=True)
    await queue.ready()
    with in_time():
        await queue.close(TIMEOUT_MS)
    end.set()
    await hang_up()


async def test_a_run_ends_with_the_close_whatever_hangs(worker, hung, eventually):
    begun = []

    def handler(job):
        begun.append(job)
        hung.wait()

    queue = await worker(handler)
    running = asyncio.ensure_future(queue.run(catch_signals=False))
    await pause(0)  # it begins
    await eventually(lambda: begun)
    await close(queue)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running, SLACK_S)


BLOCKED = """
import sys, threading, time
from beeq.sync import Queue

blocked, never = threading.Event(), threading.Event()

def listener():
    blocked.set()
    never.wait()

queue = Queue(sys.argv[1], redis=sys.argv[2]).on("ready", listener)
threading.Thread(target=queue.connect, daemon=True).start()  # it waits for the loop, too
blocked.wait()
began = time.monotonic()
try:
    queue.close(200)
except TimeoutError as error:
    print(error, time.monotonic() - began < 3.2 + 3)
"""


async def test_a_listener_that_blocks_the_loop_ends_a_blocking_close(valkey: Server, queue_name: str):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BLOCKED, queue_name, valkey.url),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert output == b"the event loop is blocked: a listener has not returned True\n"
