"""``beeq cancel``: jobs that wait and jobs that run."""

from __future__ import annotations

import json
import signal

import pytest

from tests.cli.command import Beeq, eventually

APP = """
import asyncio
from pathlib import Path
from beeq import Queue
queue = Queue({name!r}, stall_interval=1000)

@queue.process
async def handle(job):
    Path("started").touch()
    try:
        await asyncio.Event().wait()
    finally:
        Path("stopped").touch()
"""


def test_a_job_that_waits_is_ended_and_its_id_printed(beeq: Beeq, queue_name: str) -> None:
    job_id = beeq.ok("enqueue", queue_name, "--delay", "1h").strip()
    assert beeq.ok("cancel", job_id, "--queue", queue_name) == f"{job_id}\n"
    assert beeq.stats(queue_name)["delayed"] == 0
    again = beeq.run("cancel", job_id, "--queue", queue_name)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == f"Error: no job {job_id} waits or runs\n"


def test_a_job_of_a_built_in_queue_is_found_by_its_id(beeq: Beeq, queue_name: str) -> None:
    fields = ("webhookUrl=https://example.com", "payload:={}", "--id", queue_name, "--delay", "1h")
    beeq.ok("enqueue", "webhook-processing", *fields, "-p", queue_name)
    cancelled = json.loads(beeq.ok("cancel", queue_name, "--json", "-p", queue_name))
    assert cancelled == {"id": queue_name, "queue": "webhook-processing"}


def test_a_job_that_runs_is_stopped_and_its_worker_says_so(beeq: Beeq, queue_name: str) -> None:
    beeq.app(APP.format(name=queue_name))
    worker = beeq.start("worker", queue_name, "--app", "app:queue")
    waiting = beeq.start("enqueue", queue_name, "--id", "7", "--wait")
    eventually((beeq.folder / "started").exists)
    beeq.ok("cancel", "7", "--queue", queue_name)
    eventually((beeq.folder / "stopped").exists)
    assert worker.until("job 7: was cancelled")
    assert waiting.ended() == 1
    assert waiting.seen == ["job 7", "Error: job 7 failed: Job 7 was cancelled"]
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    started, cancelled, _signalled, _stopped = worker.said
    assert started.startswith("Queue worker started: ")
    assert cancelled.endswith("job 7: was cancelled")
    numbers = beeq.stats(queue_name)
    assert [numbers[state] for state in ("waiting", "active", "failed", "delayed")] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "complaint"), [(("",), "ID is empty"), (("7", "--queue", ""), "QUEUE is")]
)
def test_an_empty_name_is_a_usage_error(beeq: Beeq, arguments: tuple[str, ...], complaint: str) -> None:
    ran = beeq.run("cancel", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert complaint in ran.stderr


def test_an_id_that_several_queues_have_needs_its_queue(beeq: Beeq, queue_name: str) -> None:
    prefix = ("-p", queue_name)
    media = ("type=frame-extract", 'inputFiles:=["a.mp4"]', "outputPath=a.png")
    beeq.ok("enqueue", "media-processing", *media, "--id", "7", "--delay", "1h", *prefix)
    webhook = ("webhookUrl=https://example.com", "payload:={}")
    beeq.ok("enqueue", "webhook-processing", *webhook, "--id", "7", "--delay", "1h", *prefix)
    ran = beeq.run("cancel", "7", *prefix)
    assert ran.returncode == 2
    assert "media-processing, webhook-processing" in ran.stderr
    assert beeq.ok("cancel", "7", "--queue", "media-processing", *prefix) == "7\n"
    assert beeq.ok("cancel", "7", *prefix) == "7\n"
