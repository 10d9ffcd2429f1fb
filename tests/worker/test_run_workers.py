"""``run_workers``: several worker processes from Python, as scripts of their own would have them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beeq import Queue, run_workers
from tests.support.server import Server

PATIENCE_S = 60
SCRIPT = """
import asyncio, logging, os, signal, sys, time
from beeq import Queue, run_workers

URL, NAME = sys.argv[1:3]

def make():
    queue = Queue(NAME, redis=URL, stall_interval=500, max_hung=1)

    @queue.process(concurrency=2)
    async def handler(job):
        while job.data.get("hang"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue
        while job.data.get("blocks"):
            time.sleep(60)
        await asyncio.sleep(job.data.get("seconds", 0))
        return os.getpid()

    return {made}

def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]

def newest_fd():
    newest = os.dup(0)
    os.close(newest)
    return newest

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    before = handlers(), newest_fd()
    run_workers(make, {options})
    print("as it was:", handlers() == before[0], newest_fd() == before[1])
    print("all ended", os.getpid(), flush=True)
"""


@pytest.fixture
def start(tmp_path: Path, valkey: Server, queue_name: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a script that calls ``run_workers`` with these options."""
    started: list[subprocess.Popen[str]] = []

    def start(options: str, *, made: str = "queue", url: str = valkey.url) -> subprocess.Popen[str]:
        script = tmp_path / "workers.py"
        script.write_text(SCRIPT.replace("{options}", options).replace("{made}", made))
        process = subprocess.Popen(
            [sys.executable, str(script), url, queue_name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE_S)


@pytest.fixture
async def queue(valkey: Server, queue_name: str) -> Any:
    async with Queue(queue_name, redis=valkey.url, is_worker=False) as queue:
        yield queue
        await queue.destroy()


async def line_with(process: subprocess.Popen[str], words: str) -> str:
    """Return the next line of the script that has the words."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        while line := await asyncio.to_thread(process.stdout.readline):
            if words in line:
                return line
    raise AssertionError(f"the script ended without {words!r}")


async def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = await asyncio.to_thread(process.communicate, None, PATIENCE_S)
    return process.returncode, output


async def test_the_processes_share_the_jobs_and_end_with_a_signal(start, queue):
    script = start("processes=3")
    await line_with(script, "; 3 processes")
    jobs = [await queue.enqueue({"seconds": 0.5}) for _ in range(6)]
    pids = {await job.result(timeout=PATIENCE_S * 1000) for job in jobs}
    assert len(pids) == 3
    assert script.pid not in pids
    script.send_signal(signal.SIGTERM)
    code, output = await ended(script)
    assert (code, output.splitlines()[-1]) == (0, f"all ended {script.pid}")


async def test_with_burst_they_end_when_nothing_is_left(start, queue):
    jobs = [await queue.enqueue({}) for _ in range(20)]
    assert (await ended(start("processes=2, burst=True", made="[queue]")))[0] == 0
    assert len({await job.result(timeout=1000) for job in jobs}) in (1, 2)


async def test_a_process_that_dies_is_replaced_and_its_job_runs_again(start, queue):
    script = start("processes=2")
    await line_with(script, "started")
    victim = await (await queue.enqueue({})).result(timeout=PATIENCE_S * 1000)
    job = await queue.enqueue({"seconds": 0.2})
    os.kill(victim, signal.SIGKILL)
    assert "was killed by signal 9" in await line_with(script, f"worker process {victim}")
    assert await job.result(timeout=PATIENCE_S * 1000) != victim
    script.send_signal(signal.SIGINT)
    assert (await ended(script))[0] == 0


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_process_in_which_handlers_hang_is_replaced(start, queue, processes):
    script = start(f"processes={processes}")
    await line_with(script, "started")
    for _ in range(2):
        await queue.enqueue({"hang": True}, timeout=10)
        line = await line_with(script, "starting another one")
        assert line.startswith("too many handlers hung in worker process ")
    job = await queue.enqueue({})
    assert str(await job.result(timeout=PATIENCE_S * 1000)) not in line
    script.send_signal(signal.SIGTERM)
    assert (await ended(script))[0] == 0


async def test_the_first_signal_lets_a_job_end_within_its_time(start, queue, eventually):
    script = start("processes=2, shutdown_timeout=100")
    await line_with(script, "started")
    short, long = await queue.enqueue({"seconds": 0.05}), await queue.enqueue({"seconds": 60})

    async def both_have_begun():
        return (await queue.check_health()).waiting == 0

    await eventually(both_have_begun)
    script.send_signal(signal.SIGTERM)
    assert (await ended(script))[0] == 0
    assert isinstance(await short.result(timeout=1000), int)
    assert await long.is_in_set("waiting")


@pytest.mark.external
async def test_a_blocked_process_ends_in_its_time_and_says_so(start, queue, eventually):
    script = start("processes=2, shutdown_timeout=100")
    await line_with(script, "started")
    job = await queue.enqueue({"blocks": True})
    await line_with(script, "the event loop is blocked")
    script.send_signal(signal.SIGTERM)
    code, output = await ended(script)
    assert (code, output.splitlines()[-1]) == (0, f"all ended {script.pid}")
    assert f"handed back of queue {queue.name}: {job.id}" in output
    assert await job.is_in_set("waiting")


@pytest.mark.parametrize(
    ("made", "url", "complaint"),
    [
        ("1 / 0", None, "ZeroDivisionError"),
        ("queue", "redis://127.0.0.1:1", "RedisUnavailable"),
    ],
)
async def test_what_keeps_all_from_beginning_is_said_once_and_raised(start, made, url, complaint):
    code, output = await ended(start("processes=4", made=made, **({} if url is None else {"url": url})))
    assert code == 1
    assert output.count("a worker process ended") == 1
    assert complaint in output
    assert "RuntimeError: the first worker process could not begin; the log says why" in output


async def test_afterwards_the_process_is_as_it_was(start):
    """The script says so itself: it ends with what was handled, and open, before."""
    code, output = await ended(start("processes=2, burst=True"))
    assert code == 0
    assert "as it was: True True" in output


async def test_inside_a_running_loop_it_is_refused():
    with pytest.raises(RuntimeError, match="while no event loop runs"):
        run_workers(list, processes=2)


def test_in_another_thread_it_is_refused():
    refused = []

    def call() -> None:
        with pytest.raises(RuntimeError, match="main thread") as caught:
            run_workers(list, processes=2)
        refused.append(caught)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(PATIENCE_S)
    assert len(refused) == 1


@pytest.mark.parametrize("processes", [0, -1, 1.5, True, "2"])
def test_a_number_of_processes_that_is_none_is_refused(processes):
    with pytest.raises((TypeError, ValueError), match="processes"):
        run_workers(list, processes=processes)
