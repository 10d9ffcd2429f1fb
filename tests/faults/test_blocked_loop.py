"""A handler, or anything else, that blocks the event loop: the log has for how long, where, and which jobs ran."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beeq.supervision.loop_watch import BLOCKED_S, is_watched

_ROOT = Path(__file__).resolve().parents[2]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "the event loop" in record.getMessage()]


def seconds_in(text: str) -> float:
    found = re.search(r"([0-9.]+) s\b", text)
    assert found is not None
    return float(found[1])


async def test_a_handler_that_blocks_the_loop_is_named(make_queue, recorder, eventually, caplog):
    queue = make_queue()
    ended = recorder(queue, "succeeded")

    @queue.process(concurrency=3)
    async def handler(job: Any) -> None:
        if job.data == "blocks":
            time.sleep(2)  # noqa: ASYNC251 - that is the fault
        else:
            await asyncio.sleep(0.1)

    blocks, waits = queue.create_job("blocks"), queue.create_job("waits")
    await queue.save_all([waits, blocks])
    await ended.until("succeeded", 2)
    while_blocked, afterwards = await eventually(lambda: len(said(caplog)) == 2 and said(caplog))
    assert f"{Path(__file__)}:" in while_blocked
    assert "(handler)" in while_blocked
    assert f" of queue {queue.name}" in while_blocked
    assert {blocks.id, waits.id} == set(
        while_blocked.split("jobs that run: ")[1].split(" of ")[0].split(", ")
    )
    assert BLOCKED_S <= seconds_in(while_blocked) < seconds_in(afterwards)
    assert seconds_in(afterwards) > 1.5


@pytest.mark.external  # takes long
async def test_one_that_holds_the_interpreter_is_named_as_well(make_queue, recorder, eventually, caplog):
    """Then the watching thread is blocked, too: it reports that when it can."""
    queue = make_queue()
    ended = recorder(queue, "succeeded")

    @queue.process
    async def handler(_job: Any) -> None:
        count = 24
        began = time.process_time()
        while time.process_time() - began < 1.8:
            count += 1
            re.match(r"(a|a)*b", "a" * count)  # without a break, twice as long each time

    await queue.enqueue()
    await ended.until("succeeded")
    await eventually(lambda: "the event loop was blocked for" in caplog.text)


async def test_a_listener_that_blocks_is_reported_once_an_episode(
    make_queue, queue_name, recorder, eventually, caplog
):
    queue, other = make_queue(), make_queue(name=f"{queue_name}-other")
    other.process(lambda _job: None)
    queue.on("succeeded", lambda _job, _result: time.sleep(1.6))
    ended = recorder(queue, "succeeded")
    queue.process(lambda _job: None)
    for episode in (1, 2):
        await queue.enqueue()
        await ended.until("succeeded", episode)
        await eventually(lambda: len(said(caplog)) == 2 * episode)  # noqa: B023 - it is called in this turn
    assert all("jobs that run: none" in text for text in said(caplog))


async def test_a_log_that_is_blocked_itself_stops_no_beats(make_queue, sync_redis, recorder):
    """The handler holds the log's lock, and blocks the loop: the thread that beats must not wait for it."""
    queue = make_queue(stall_interval=500)
    ended = recorder(queue, "succeeded")
    log = logging.StreamHandler(io.StringIO())

    def last_beat_ms() -> float:
        beats = sync_redis.zrange(queue.keys.workers, 0, -1, withscores=True)
        return float(max(score for _worker, score in beats))

    def block_until(holds: Callable[[], bool]) -> None:
        over_s = time.monotonic() + 20
        while not holds() and time.monotonic() < over_s:
            time.sleep(0.02)

    @queue.process
    async def handler(_job: Any) -> bool:
        log.acquire()
        try:
            block_until(lambda: any(thread.name == "beeq-log" for thread in threading.enumerate()))
            before_ms = last_beat_ms()
            block_until(lambda: last_beat_ms() > before_ms)
            return last_beat_ms() > before_ms
        finally:
            log.release()

    logging.getLogger("beeq").addHandler(log)
    try:
        await queue.enqueue()
        ((_job, has_beaten),) = await ended.until("succeeded")
        assert has_beaten
    finally:
        logging.getLogger("beeq").removeHandler(log)


async def test_short_blocks_are_let_be(make_queue, recorder, caplog):
    queue = make_queue()
    ended = recorder(queue, "succeeded")

    @queue.process
    async def handler(_job: Any) -> None:
        time.sleep(0.5)  # noqa: ASYNC251 - it is short

    await queue.save_all([queue.create_job() for _ in range(4)])
    await ended.until("succeeded", 4)
    assert said(caplog) == []


async def test_a_queue_that_has_closed_is_watched_no_more(make_queue):
    queue = make_queue()
    queue.process(lambda _job: None)
    assert is_watched(asyncio.get_running_loop())
    await queue.close()
    assert not is_watched(asyncio.get_running_loop())


STOPPED = """
import asyncio, logging, sys
from beeq import Queue

async def main():
    async with Queue(sys.argv[2], redis=sys.argv[1]) as queue:
        @queue.process
        async def handler(job):
            await asyncio.sleep(0)
        await (await queue.enqueue()).result(timeout=30_000)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print("goes on", flush=True)
        await asyncio.sleep(1)

logging.basicConfig(stream=sys.stdout, format="%(message)s")
asyncio.run(main())
"""


def test_a_process_that_was_stopped_blocked_no_loop(valkey, queue_name):
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, valkey.url, queue_name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGSTOP)
            time.sleep(2.5)
            process.send_signal(signal.SIGCONT)
            output, _ = process.communicate("\n", timeout=60)
        finally:
            process.kill()
    assert output == "goes on\n"
