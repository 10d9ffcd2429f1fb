"""``beeq worker`` stops in its time where a handler keeps the loop, or the interpreter, and says what is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command import Beeq, Running, eventually
from tests.worker.test_process_lives import started

APP = """
import asyncio, ctypes, os, re, threading, time
from pathlib import Path
from beeq import Queue

queue = Queue(os.environ["TEST_QUEUE"])
processes = Queue(os.environ["TEST_QUEUE"])

def tick():
    while True:
        Path("ticks").touch()
        time.sleep(0.01)

def hold():
    Path("ticks").touch()  # the thread may not come to it
    threading.Thread(target=tick, daemon=True).start()
    hang(ctypes.PyDLL(None))

def hang(libc):
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):  # the second call never returns, and no signal interrupts it
        libc.pthread_mutex_lock(mutex)

@queue.process(concurrency=2)
async def handle(job):
    Path(f"started-{os.getpid()}").touch()
    match job.data["kind"]:
        case "sleeps":
            while True:
                time.sleep(60)
        case "waits":
            threading.Lock().acquire() and threading.Event().wait()
        case "waits in C":
            hang(ctypes.CDLL(None))
        case "matches":
            re.match("(a+)+$", "a" * 60 + "b")
        case "holds":
            hold()
        case "holds in a thread":
            await asyncio.to_thread(hold)
        case "family":
            await asyncio.Event().wait()

@processes.process(executor="process")
def handle_in_process(job):
    Path(f"started-{os.getppid()}").touch()
    Path("child.tmp").write_text(str(os.getpid()))
    Path("child.tmp").rename("child")
    threading.Event().wait()
"""
#: The parent's limit, which comes last; and a busy machine.
BOUND_S = 9 + 12
OVERDUE = "the process did not stop in time and is ended: its event loop is blocked"
KILLED = "did not stop in time and was killed; its jobs are left to a stall check"


@pytest.fixture
def start(beeq: Beeq, queue_name: str) -> Callable[..., tuple[Running, int]]:
    """``start(kind, *arguments)``: a worker in which such a job runs, and the process that runs it."""
    beeq.app(APP)

    def start(kind: str, *arguments: str, queue: str = "queue") -> tuple[Running, int]:
        beeq.ok("enqueue", queue_name, f"kind={kind}")
        names = ("worker", queue_name, "--app", f"app:{queue}", *arguments)
        worker = beeq.start(*names, TEST_QUEUE=queue_name)
        started = eventually(lambda: list(beeq.folder.glob("started-*")))
        return worker, int(started[0].name.split("-")[1])

    return start


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def is_held(folder: Path) -> bool:
    """Return whether no thread of the worker's program has run for a while."""
    ticks = folder / "ticks"
    return ticks.exists() and time.time() - ticks.stat().st_mtime > 0.5


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def ended_in_time(worker: Running, number: int = signal.SIGTERM) -> int:
    began = time.monotonic()
    worker.signal(number)
    code = worker.ended()
    assert time.monotonic() - began < BOUND_S
    return code


@pytest.mark.parametrize(
    ("kind", "processes"),
    [
        ("sleeps", "1"),
        pytest.param("sleeps", "2", marks=pytest.mark.external),
        pytest.param("waits", "1", marks=pytest.mark.external),
        pytest.param("waits in C", "1", marks=pytest.mark.external),
    ],
)
def test_a_blocked_loops_jobs_go_back_and_the_worker_ends(beeq: Beeq, start, queue_name, kind, processes):
    worker, _ = start(kind, "--shutdown-timeout", "100ms", "-w", processes)
    assert ended_in_time(worker) == 1
    assert f"{OVERDUE}; handed back of queue {queue_name}: 1" in worker.stderr
    assert "Traceback" not in worker.stderr
    stats = beeq.stats(queue_name)
    assert (stats["waiting"], stats["active"]) == (1, 0)


@pytest.mark.external
@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_second_signal_shortens_the_time(beeq: Beeq, start, queue_name, processes):
    worker, _ = start("sleeps", "--shutdown-timeout", "1h", "-w", processes)
    worker.signal(signal.SIGTERM)
    assert ended_in_time(worker, signal.SIGINT) == 1
    assert beeq.stats(queue_name)["waiting"] == 1


@pytest.mark.external
def test_who_holds_the_interpreter_is_killed_by_the_parent(beeq: Beeq, start, queue_name):
    worker, pid = start("holds", "--shutdown-timeout", "100ms", "-w", "2")
    assert ended_in_time(worker) == 1
    assert is_gone(pid)
    assert f"worker process {pid} {KILLED}" in worker.stderr
    assert beeq.stats(queue_name)["active"] == 1


@pytest.mark.external
@pytest.mark.parametrize("kind", ["holds", "holds in a thread"])
def test_who_holds_the_interpreter_is_killed_by_the_guard(beeq: Beeq, start, queue_name, kind):
    worker, _ = start(kind, "--shutdown-timeout", "100ms")
    eventually(lambda: is_held(beeq.folder))
    assert ended_in_time(worker) == -signal.SIGKILL
    assert "did not stop in time and was killed: C code holds the interpreter" in worker.stderr
    assert beeq.stats(queue_name)["active"] == 1


@pytest.mark.external
def test_the_guard_hears_of_the_second_signal(beeq: Beeq, start):
    worker, _ = start("holds", "--shutdown-timeout", "1h")
    eventually(lambda: is_held(beeq.folder))
    worker.signal(signal.SIGTERM)
    assert ended_in_time(worker, signal.SIGINT) == -signal.SIGKILL


def test_the_guard_ends_with_its_worker(beeq: Beeq, start, queue_name):
    worker, pid = start("ends")
    (guard,) = [child for child in started(pid) if "end_guard_main.py" in command_of(child)]
    os.kill(guard, signal.SIGTERM)
    assert not is_gone(guard)
    assert ended_in_time(worker) == 0
    eventually(lambda: is_gone(guard))


@pytest.mark.external
def test_the_third_signal_kills_all_at_once(start):
    worker, pid = start("holds", "--shutdown-timeout", "1h", "-w", "2")
    for _ in range(2):
        worker.signal(signal.SIGTERM)
        time.sleep(0.1)  # two that come together count once
    assert ended_in_time(worker) == 1
    assert is_gone(pid)


@pytest.mark.external
def test_an_endless_match_ends_a_worker_without_a_parent(beeq: Beeq, start, queue_name):
    """It holds the interpreter, but lets signals be handled."""
    worker, _ = start("matches", "--shutdown-timeout", "100ms")
    assert ended_in_time(worker) == 1
    assert "Timeout" in worker.stderr
    assert "app.py" in worker.stderr


@pytest.mark.external
@pytest.mark.parametrize("kind", ["sleeps", "family"])
def test_no_worker_outlives_a_parent_that_was_killed(beeq: Beeq, start, queue_name, kind):
    arguments = ("--shutdown-timeout", "100ms", "-w", "2")
    worker, pid = start(kind, *arguments, queue="processes" if kind == "family" else "queue")
    pids = [pid]
    if kind == "family":
        eventually((beeq.folder / "child").exists)
        pids.append(int((beeq.folder / "child").read_text()))
    os.kill(worker.pid, signal.SIGKILL)
    began = time.monotonic()
    eventually(lambda: all(map(is_gone, pids)))
    assert time.monotonic() - began < BOUND_S
    eventually(lambda: beeq.stats(queue_name)["waiting"] == 1)
