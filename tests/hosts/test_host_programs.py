"""A worker as a task in somebody else's program: it ends with its host, its job goes back, no thread is left."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beeq import Queue
from tests.support.server import Server
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60

APP = """
import asyncio, contextlib, os, signal, threading
from beeq import Queue

queue = Queue(os.environ["NAME"], redis=os.environ["URL"])

async def handler(job):
    print("begun", flush=True)
    await asyncio.Event().wait()

def say(line):
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("beeq")]
    for thread in threads:
        thread.join(1)  # one that has just said its result is about to end
    left = [thread.name for thread in threads if thread.is_alive()]
    print(line, left, flush=True)

@contextlib.asynccontextmanager
async def lifespan(app):
    queue.process(handler)
    running = asyncio.create_task(queue.run())
    yield
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    say("left")

async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    async with lifespan(app):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
"""

SERVED_FIRST = """
import uvicorn
from app import *

async def main():
    queue.process(handler)
    running = asyncio.create_task(queue.run())
    await asyncio.sleep(0)  # its signals are taken first
    async def nothing(scope, receive, send): ...
    server = uvicorn.Server(uvicorn.Config(nothing, port=0, lifespan="off", log_config=None))
    await server.serve()
    await asyncio.wait_for(running, 20)
    say("left")

signal.signal(signal.SIGTERM, signal.SIG_DFL)
asyncio.run(main())
"""

SCRIPT = """
from app import *

async def main():
    queue.process(handler)
    await queue.run()
    say("left")

asyncio.run(main())
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, valkey: Server, queue_name: str) -> Iterator[Start]:
    """Start a program beside the module ``app``, which works on the test's queue."""
    (tmp_path / "app.py").write_text(APP)
    started: list[subprocess.Popen[str]] = []

    def start(*command: str, url: str = valkey.url) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "NAME": queue_name, "URL": url},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=5)
        process.kill()
        process.communicate(timeout=PATIENCE_S)


async def begun(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), PATIENCE_S)
    assert line == "begun\n"


async def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = await asyncio.to_thread(process.communicate, None, PATIENCE_S)
    return process.returncode, output, errors


async def places(queue: Any) -> tuple[int, int, int]:
    health = await queue.check_health()
    return health.waiting, health.active, health.failed


@pytest.mark.external
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_uvicorn_stops_at_the_first_signal(start, make_queue, loop, number):
    queue = make_queue(is_worker=False)
    await queue.enqueue({})
    process = start("-m", "uvicorn", "app:app", "--port", "0", "--loop", loop)
    await begun(process)
    process.send_signal(number)
    _, output, errors = await ended(process)
    assert output == "left []\n"
    assert await places(queue) == (1, 0, 0)
    assert "Application shutdown complete" in errors


@pytest.mark.external
async def test_gunicorn_stops_its_uvicorn_workers(start, make_queue):
    queue = make_queue(is_worker=False)
    await queue.enqueue({})
    worker = "uvicorn.workers.UvicornWorker"
    process = start("-m", "gunicorn", "app:app", "-k", worker, "-w", "1", "-b", "127.0.0.1:0")
    await begun(process)
    process.terminate()
    code, output, _ = await ended(process)
    assert (code, output) == (0, "left []\n")
    assert await places(queue) == (1, 0, 0)


@pytest.mark.external
async def test_a_queue_that_ran_before_uvicorn_stops_after_it(start, make_queue, tmp_path):
    """uvicorn raises the signal again for the handler that it found; the second hands the job back."""
    (tmp_path / "first.py").write_text(SERVED_FIRST)
    queue = make_queue(is_worker=False)
    await queue.enqueue({})
    process = start("first.py")
    await begun(process)
    while process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, 1.5)
    _, _, errors = await ended(process)
    assert "Traceback" not in errors
    assert await places(queue) == (1, 0, 0)


async def test_a_script_returns_after_two_signals(start, make_queue, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    queue = make_queue(is_worker=False)
    await queue.enqueue({})
    process = start("script.py")
    await begun(process)
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        await asyncio.to_thread(process.wait, 0.5)
    process.terminate()
    code, output, errors = await ended(process)
    assert (code, output) == (0, "left []\n")
    assert errors == f"queue {queue.name}: running jobs were handed back\n"
    assert await places(queue) == (1, 0, 0)


@pytest.mark.no_audit("its server is away when it ends")
async def test_a_script_whose_redis_is_away_ends_without_a_trace(start, own_valkey, tmp_path, queue_name):
    """Its job cannot go back, and stalls."""
    (tmp_path / "script.py").write_text(SCRIPT)
    async with Queue(queue_name, redis=own_valkey.url, is_worker=False) as queue:
        await queue.enqueue({})
        process = start("script.py", url=own_valkey.url)
        await begun(process)
        own_valkey.stop()
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, 0.5)
        process.terminate()
        code, output, errors = await ended(process)
    assert (code, output) == (0, "left []\n")
    assert "Traceback" not in errors


def beeq_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("beeq")}


class Worker:
    """A queue of a host's, and how far its job is."""

    def __init__(self, name: str, url: str) -> None:
        self.queue = Queue(name, redis=url)
        self.begun = threading.Event()
        self.queue.process(self._handle)

    async def _handle(self, _job: Any) -> None:
        self.begun.set()
        await asyncio.Event().wait()

    async def run(self) -> None:
        await self.queue.run()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_loop_in_a_thread_ends_with_its_worker(make_queue, valkey, queue_name):
    producer = make_queue(is_worker=False)
    await producer.enqueue({})
    before = beeq_threads()
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    hosts: list[Worker] = []
    stop: list[Callable[[], object]] = []

    async def main() -> None:
        worker = Worker(queue_name, valkey.url)
        hosts.append(worker)
        stopped, here = asyncio.Event(), asyncio.get_running_loop()
        running = asyncio.create_task(worker.run())
        stop.append(lambda: here.call_soon_threadsafe(stopped.set))
        await stopped.wait()
        assert not running.done()

    def host() -> None:
        asyncio.run(main())
        loop.call_soon_threadsafe(over.set)

    thread = threading.Thread(target=host)
    thread.start()
    await eventually(lambda: hosts and hosts[0].begun.is_set())
    stop[0]()
    await asyncio.wait_for(over.wait(), PATIENCE_S)
    thread.join(PATIENCE_S)
    assert await places(producer) == (1, 0, 0)
    await eventually(lambda: beeq_threads() <= before)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_cells_of_a_notebook_share_a_loop_that_runs(sync_redis, valkey, queue_name):
    """As ipykernel has it: the loop runs all the time, a cell is a task; an interrupt is the cell's."""
    loop = asyncio.new_event_loop()

    async def cell_that_starts() -> tuple[Worker, asyncio.Task[None]]:
        worker = Worker(queue_name, valkey.url)
        return worker, asyncio.create_task(worker.run())

    async def cell_that_is_interrupted(worker: Worker) -> None:
        await worker.queue.enqueue({})
        await eventually(worker.begun.is_set)
        signal.raise_signal(signal.SIGINT)  # ignored by the kernel between cells
        await asyncio.sleep(0.1)

    async def kernel() -> None:
        worker, running = await asyncio.create_task(cell_that_starts())
        await asyncio.create_task(cell_that_is_interrupted(worker))
        assert not running.done()
        assert worker.queue.is_running()
        running.cancel()  # a cell stops it
        await asyncio.wait([running], timeout=PATIENCE_S)
        assert running.cancelled()
        worker.begun.clear()
        again = asyncio.create_task(worker.run())
        await eventually(worker.begun.is_set)
        assert not again.done()  # and the kernel ends

    before, found = beeq_threads(), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(kernel())
    finally:
        signal.signal(signal.SIGINT, found)
    assert sync_redis.llen(f"bq:{queue_name}:waiting") == 1
    assert sync_redis.llen(f"bq:{queue_name}:active") == 0
    over = threading.Event()
    for _ in range(200):
        if beeq_threads() <= before:
            break
        over.wait(0.05)
    assert beeq_threads() <= before


PYTEST = """
import asyncio, os, threading
from beeq import Queue

async def work():
    queue, begun = Queue(os.environ["NAME"], redis=os.environ["URL"]), asyncio.Event()

    @queue.process
    async def handler(job):
        begun.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(queue.run())
    await begun.wait()
    assert not running.done()

async def test_one():
    await work()

async def test_two():
    await work()

def test_no_thread_is_left():
    wait = threading.Event()
    for _ in range(200):
        if not [thread for thread in threading.enumerate() if thread.name.startswith("beeq")]:
            return
        wait.wait(0.05)
    raise AssertionError(threading.enumerate())
"""


@pytest.mark.external  # takes long
async def test_each_test_of_pytest_has_a_loop_of_its_own(start, make_queue, tmp_path):
    """The second test's worker gets at once what the first one's loop has handed back."""
    (tmp_path / "test_works.py").write_text(PYTEST)
    queue = make_queue(is_worker=False)
    await queue.enqueue({})
    options = ("-o", "asyncio_mode=auto", "-p", "no:cacheprovider", "-p", "no:randomly")
    process = start("-m", "pytest", "-q", *options, "test_works.py")
    code, output, _ = await ended(process)
    assert code == 0, output
    assert await places(queue) == (1, 0, 0)
