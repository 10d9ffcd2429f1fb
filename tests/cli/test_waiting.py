"""``beeq enqueue --wait``: what a person sees until the result is there."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Callable

import pytest

from tests.cli.command import Beeq, Running, eventually

APP = """
import asyncio
from pathlib import Path
from beeq import Queue
queue = Queue("NAME")

@queue.process
async def handle(job):
    await job.report_progress(40)
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    await job.report_progress("[bold]nearly\\x1b[2J")
    await asyncio.sleep(job.data.get("seconds", 0))
    return "made"
"""


@pytest.fixture
def work(beeq: Beeq, queue_name: str) -> Callable[[], Running]:
    """Start a worker whose handler goes on once there is a file "go"."""
    beeq.app(APP.replace("NAME", queue_name))

    def start() -> Running:
        worker = beeq.start("worker", "--app", "app:queue")
        worker.until("Queue worker started")
        return worker

    return start


def test_the_id_is_told_at_once_and_then_that_nobody_works(
    beeq: Beeq, work: Callable[[], Running], queue_name: str
) -> None:
    waiting = beeq.start("enqueue", queue_name, "--wait")
    assert waiting.until("job ") == "job 1"
    assert waiting.until("no worker") == f"no worker is taking jobs from {queue_name}"
    (beeq.folder / "go").touch()
    work()
    assert waiting.ended() == 0
    assert waiting.stdout == '"made"\n'
    assert waiting.seen == ["job 1", f"no worker is taking jobs from {queue_name}"]


def test_a_wait_reports_a_pause(beeq: Beeq, work: Callable[[], Running], queue_name: str) -> None:
    work()
    # The worker may register after it has said that it started.
    eventually(lambda: beeq.run("pause", queue_name, "--reason", "deploy").returncode == 0)
    waiting = beeq.start("enqueue", queue_name, "--wait")
    assert waiting.until("paused").endswith(", until somebody resumes it: deploy")
    (beeq.folder / "go").touch()
    beeq.ok("resume", queue_name)
    assert waiting.ended() == 0
    assert len(waiting.seen) == 2, "a paused worker is a worker"


def test_a_busy_worker_is_a_worker(beeq: Beeq, work: Callable[[], Running], queue_name: str) -> None:
    work()
    running = beeq.start("enqueue", queue_name, "--wait")
    running.until("job 1")
    ran = beeq.run("enqueue", queue_name, "--wait=2s")
    assert ran.returncode == 1
    assert ran.stderr.startswith("job 2\nError: ")
    (beeq.folder / "go").touch()
    assert running.ended() == 0


def test_an_interrupt_leaves_the_job_and_tells_its_id(beeq: Beeq, queue_name: str) -> None:
    waiting = beeq.start("enqueue", queue_name, "--wait", "--id", "mine")
    waiting.until("job mine")
    waiting.signal(signal.SIGINT)
    assert waiting.ended() == 1
    assert waiting.stdout == ""
    assert waiting.seen[-1] == f"job mine is left in {queue_name}; no longer waiting for it"
    assert beeq.stats(queue_name)["waiting"] == 1


def test_with_q_only_the_result_is_told(beeq: Beeq, work: Callable[[], Running], queue_name: str) -> None:
    (beeq.folder / "go").touch()
    work()
    assert beeq.ok("enqueue", queue_name, "--wait", "-q") == '"made"\n'


def test_a_terminal_sees_the_progress(beeq: Beeq, work: Callable[[], Running], queue_name: str) -> None:
    """What a job says of itself cannot move the cursor."""
    work()
    person, terminal = pty.openpty()
    command = [*beeq.python, "-m", "beeq_cli", "enqueue", queue_name, "--wait", "seconds:=0.5"]
    environment = {**beeq.environment, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        command, cwd=beeq.folder, env=environment, stdout=subprocess.PIPE, stderr=terminal, stdin=terminal
    )
    os.close(terminal)
    seen = b""

    def has(text: bytes) -> bool:
        nonlocal seen
        try:
            seen += os.read(person, 4096)
        except OSError:  # the command has ended
            return text in seen
        return text in seen

    eventually(lambda: has(b"40 %"))
    (beeq.folder / "go").touch()
    eventually(lambda: has(b"[bold]nearly\\x1b[2J"))
    assert process.stdout is not None
    assert process.stdout.read() == b'"made"\n'
    assert process.wait(30) == 0
    process.stdout.close()
    os.close(person)


def test_with_the_folders_own_server_another_folder_is_named(bare_beeq: Beeq) -> None:
    waiting = bare_beeq.start("enqueue", "greetings", "--wait")
    line = waiting.until("no worker")
    assert line == "no worker is taking jobs from greetings; a worker of another folder has another server"
    waiting.signal(signal.SIGINT)
    assert waiting.ended() == 1
