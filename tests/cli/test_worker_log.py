"""What a worker logs of strangers' jobs: one line, escaped and bounded; a traceback for surprises only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import redis

from beeq.protocol.keys import Keys
from tests.cli.command import Beeq, Running

#: Handlers that fail in each of the ways that are no surprise, and in one that is.
APP = """
import os
from beeq import BeeqError, Discard, JobFailed, Queue, Retry
from beeq.jobs import InvalidJob
from beeq.media.errors import MediaFailed, MediaRefused
from beeq.webhooks.guard import WebhookRefused

class Own(BeeqError):
    pass

class Quiet(Discard):
    pass

KINDS = {kind.__name__: kind for kind in (Discard, MediaFailed, MediaRefused, WebhookRefused, Own, Quiet)}

def handle(job):
    kind = job.data["kind"]
    if kind == "Retry":
        raise Retry(after=1, reason="expected")
    if kind == "InvalidJob":
        raise InvalidJob(["expected"])
    if kind in KINDS:
        raise KINDS[kind]("expected")
    if kind == "long":
        raise ValueError("x" * 1_000_000 + "\\nsurprise: forged")
    raise ValueError("surprise\\n\\x1b[2Jforged: line\\u202e")

queue = Queue(os.environ["TEST_QUEUE"])
queue.process(handle, executor=os.environ["EXECUTOR"])
"""
EXPECTED = ("Discard", "MediaFailed", "MediaRefused", "WebhookRefused", "Own", "Quiet", "Retry", "InvalidJob")


def worked(beeq: Beeq, queue_name: str, *options: str, executor: str = "thread") -> Running:
    """Run a worker until the queue is empty."""
    beeq.app(APP)
    worker = beeq.start(
        "worker",
        queue_name,
        "--app",
        "app:queue",
        "--burst",
        *options,
        TEST_QUEUE=queue_name,
        EXECUTOR=executor,
    )
    assert worker.ended() == 0
    return worker


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("options", [(), ("-v",)])
def test_expected_failures_are_one_line_each(
    beeq: Beeq, queue_name: str, executor: str, options: tuple[str, ...]
) -> None:
    for kind in EXPECTED:
        beeq.ok("enqueue", queue_name, f"kind={kind}", "--id", kind)
    worker = worked(beeq, queue_name, *options, executor=executor)
    for kind in EXPECTED:
        lines = [line for line in worker.seen if f"job {kind} " in line]
        assert lines == [f"{queue_name}: job {kind} failed: expected"]
    assert "Traceback" not in worker.stderr


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_surprise_has_its_traceback_indented(beeq: Beeq, queue_name: str, executor: str) -> None:
    beeq.ok("enqueue", queue_name, "kind=surprise")
    worker = worked(beeq, queue_name, executor=executor)
    at = worker.seen.index(f"{queue_name}: job 1 failed: surprise\\n\\x1b[2Jforged: line\\u202e")
    trace = worker.seen[at + 1 :]
    assert any("in handle" in line for line in trace)
    assert all(line.startswith("    ") for line in trace)
    assert "\x1b" not in worker.stderr
    assert "\u202e" not in worker.stderr


def test_a_long_error_and_its_traceback_are_shortened(beeq: Beeq, queue_name: str) -> None:
    beeq.ok("enqueue", queue_name, "kind=long")
    for options in ((), ("--log-format", "json")):
        worker = worked(beeq, queue_name, *options)
        assert sum(map(len, worker.seen)) < 50_000
        assert " characters)" in worker.stderr
        beeq.ok("enqueue", queue_name, "kind=long")


def test_an_expected_failure_in_json_has_no_trace(beeq: Beeq, queue_name: str) -> None:
    for kind in ("Discard", "surprise"):
        beeq.ok("enqueue", queue_name, f"kind={kind}", "--id", kind)
    worker = worked(beeq, queue_name, "--log-format", "json")
    entries: dict[str, Any] = {
        entry["job"]: entry for entry in map(json.loads, worker.seen) if "job" in entry
    }
    assert "trace" not in entries["Discard"]
    assert "in handle" in entries["surprise"]["trace"]


#: Records of a megabyte whose entries are all wrong.
BOMBS = [
    ("media-processing", {"type": "video-stitch", "outputPath": "o.mp4", "inputFiles": [0] * 500_000}),
    ("video-assembly", {"sceneVideos": [0] * 500_000, "masterAudio": "a", "outputFormats": ["mp4"]}),
    ("video-assembly", {"sceneVideos": ["a"], "masterAudio": "a", "outputFormats": [[]] * 300_000}),
    ("video-assembly", {"sceneVideos": ["a"], "masterAudio": "a", "outputFormats": ["f" * 500] * 2000}),
]


@pytest.mark.parametrize(("queue_name", "data"), BOMBS)
def test_a_job_of_many_wrong_entries_is_one_short_line(
    beeq: Beeq, sync_redis: redis.Redis, tmp_path: Path, queue_name: str, data: dict[str, Any]
) -> None:
    prefix = f"bombs{os.getpid()}"
    keys = Keys(prefix, queue_name)
    record = {
        "data": data,
        "options": {"timestamp": 1, "stacktraces": []},
        "status": "created",
        "progress": 0,
    }
    sync_redis.hset(keys.jobs, "bomb", json.dumps(record))
    sync_redis.lpush(keys.waiting, "bomb")
    try:
        worker = beeq.start("worker", queue_name, "--burst", "-p", prefix, BEEQ_MEDIA_ROOT=str(tmp_path))
        assert worker.ended() == 0
        (line,) = [line for line in worker.seen if "job bomb " in line]
        assert line.startswith(f"{queue_name}: job bomb failed: bad job: ")
        assert len(line) < 300
        stored = json.loads(str(sync_redis.hget(keys.jobs, "bomb")))
        assert len(stored["options"]["stacktraces"][0]) < 1000
    finally:
        sync_redis.delete(*sync_redis.scan_iter(f"{prefix}:*"))
