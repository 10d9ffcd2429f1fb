"""What a worker logs of strangers' jobs: one line, escaped and bounded; a traceback for surprises only."""

from __future__ import annotations

import json
import os
import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from beeq.logs.records import HANDED_BACK
from beeq.protocol.keys import Keys
from beeq.sync import Queue
from beeq.workers import STARTED
from tests.cli.command import TIME_AND_LEVEL, Beeq, Running, eventually, said
from tests.support.server import Server
from tests.support.warm_start import WarmStart

#: Handlers that fail in each of the expected ways, and in others.
APP = """
import os
from beeq import BeeqError, Discard, Queue
from beeq.jobs import InvalidJob
from beeq.media.errors import MediaFailed, MediaRefused
from beeq.http_client.guard import WebhookRefused
from tests.logs.log_handlers import says

class Own(BeeqError):
    pass

class Quiet(Discard):
    pass

KINDS = {kind.__name__: kind for kind in (Discard, MediaFailed, MediaRefused, WebhookRefused, Own, Quiet)}

def handle(job):
    kind = job.data["do"]
    if kind == "InvalidJob":
        raise InvalidJob(["expected"])
    if kind in KINDS:
        raise KINDS[kind]("expected")
    return says(job)

queues = []
for executor in ("thread", "process"):
    queue = Queue(os.environ["TEST_QUEUES"] + "-" + executor)
    queue.process(handle, executor=executor)
    queues.append(queue)
"""
EXPECTED = ("Discard", "MediaFailed", "MediaRefused", "WebhookRefused", "Own", "Quiet", "InvalidJob")
OTHERS = ("retry", "surprise", "long", "say", "thread")
EXECUTORS = ("thread", "process")


class Worked:
    """What a worker has logged that ran a job of each kind, in threads and in child processes."""

    def __init__(self, folder: Path, warm: WarmStart, url: str, *options: str) -> None:
        self.name = f"test-{uuid.uuid4().hex[:12]}"
        folder.mkdir()
        self._beeq = Beeq(folder, warm, BEEQ_REDIS_URL=url)
        self._beeq.app(APP)
        for executor in EXECUTORS:
            with Queue(f"{self.name}-{executor}", redis=url) as queue:
                kinds = (*EXPECTED, *OTHERS, *(("die",) if executor == "process" else ()))
                queue.save_all([queue.create_job({"do": kind}).set_id(kind) for kind in kinds])
        arguments = ("worker", "--app", "app:queues", "--burst", *options)
        self._worker = self._beeq.start(*arguments, TEST_QUEUES=self.name)
        self.lines: list[str] = []

    def end(self) -> None:
        """Wait for the worker's end."""
        assert self._worker.ended() == 0, self._worker.stderr
        self.lines = self._worker.seen
        self._beeq.end()

    def of(self, executor: str, kind: str) -> list[str]:
        """Return the lines of a job, without time and level, and without the names."""
        begin = f"queue {self.name}-{executor}: job {kind}: "
        return [text.removeprefix(begin) for line in self.lines if (text := said(line)).startswith(begin)]

    def entries(self, executor: str, kind: str) -> list[dict[str, Any]]:
        """Return a job's lines of JSON."""
        entries = [json.loads(line) for line in self.lines]
        name = f"{self.name}-{executor}"
        return [entry for entry in entries if (entry.get("queue"), entry.get("job")) == (name, kind)]

    def delete(self, client: redis.Redis) -> None:
        client.delete(*client.scan_iter(f"bq:{self.name}*"))


@pytest.fixture(scope="module")
def logs(
    valkey: Server, tmp_path_factory: pytest.TempPathFactory, warm_start: WarmStart
) -> Iterator[dict[str, Worked]]:
    """The logs of three workers: as text, with ``-v``, and as JSON."""
    folder = tmp_path_factory.mktemp("logs")
    options = {"text": (), "verbose": ("-v",), "json": ("--log-format", "json")}
    made = {name: Worked(folder / name, warm_start, valkey.url, *given) for name, given in options.items()}
    for worked in made.values():
        worked.end()
    yield made
    with valkey.sync_client() as client:
        for worked in made.values():
            worked.delete(client)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_expected_failures_are_one_line_each(logs: dict[str, Worked], executor: str) -> None:
    for kind in EXPECTED:
        (line,) = logs["text"].of(executor, kind)
        assert line.startswith(f"attempt 1 failed, for good: {kind}: ")
        assert line.endswith("expected")
    assert logs["text"].of(executor, "retry") == ["attempt 1 failed, for good: Retry: as expected"]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_surprise_has_its_traceback_indented(logs: dict[str, Worked], executor: str) -> None:
    lines = logs["text"].lines
    error = "ValueError: redis://***@host\\n\\x1b[2Jforged: line\\u202e"
    assert logs["text"].of(executor, "surprise") == [f"attempt 1 failed, for good: {error}"]
    at = next(n for n, line in enumerate(lines) if f"-{executor}: job surprise: " in line) + 1
    trace = []
    while lines[at].startswith("    "):
        trace.append(lines[at])
        at += 1
    assert any("in says" in line for line in trace)


def test_each_line_begins_with_its_time_and_level_or_is_indented(logs: dict[str, Worked]) -> None:
    for name in ("text", "verbose"):
        for line in logs[name].lines:
            assert TIME_AND_LEVEL.match(line) or line.startswith("    "), line
            assert line.isprintable()
            assert "hush" not in line


def test_a_long_error_and_its_traceback_are_shortened(logs: dict[str, Worked]) -> None:
    for name in ("text", "json"):
        lines = logs[name].lines
        assert max(map(len, lines)) < 40_000
        assert any(" characters)" in line for line in lines)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_programs_own_lines_name_queue_and_job(logs: dict[str, Worked], executor: str) -> None:
    assert logs["text"].of(executor, "say") == ["said by the program"]
    (entry,) = logs["json"].entries(executor, "say")
    assert (entry["level"], entry["logger"], entry["attempt"]) == ("info", "program.mail", 1)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_thread_that_a_handler_leaves_is_a_line_too(logs: dict[str, Worked], executor: str) -> None:
    ended = "the thread own has ended: LookupError: in a thread"
    assert [said(line) for line in logs["text"].lines].count(ended) == len(EXECUTORS)


def test_a_child_process_that_dies_is_said(logs: dict[str, Worked]) -> None:
    (line,) = logs["text"].of("process", "die")
    assert line == "attempt 1 failed, for good: ChildDied: the child process ended with exit code 3"


def test_with_v_each_failure_has_its_trace(logs: dict[str, Worked]) -> None:
    lines = logs["verbose"].lines
    for kind in ("Discard", "surprise"):
        at = next(n for n, line in enumerate(lines) if f"-thread: job {kind}: attempt" in line)
        assert lines[at + 1] == "    Traceback (most recent call last):"
    assert logs["verbose"].of("thread", "say")[-1].startswith("succeeded in ")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_json_tells_all_that_is_known_of_a_failure(logs: dict[str, Worked], executor: str) -> None:
    (failed,) = logs["json"].entries(executor, "surprise")
    error = "redis://***@host\\n\\x1b[2Jforged: line\\u202e"
    assert (failed["level"], failed["error_type"], failed["error"]) == ("error", "ValueError", error)
    assert failed["attempt"] == 1
    assert re.fullmatch(r"[^:]+:\d+:[0-9a-f]{8}", failed["worker"])
    assert failed["duration_ms"] >= 0
    assert "in says" in failed["traceback"]
    assert "hush" not in failed["traceback"]
    (expected,) = logs["json"].entries(executor, "Discard")
    assert "traceback" not in expected


def test_json_is_one_object_a_line_from_start_to_stop(logs: dict[str, Worked]) -> None:
    entries = [json.loads(line) for line in logs["json"].lines]
    assert all(entry.keys() >= {"time", "level", "logger", "message", "worker"} for entry in entries)
    first, last = entries[0], entries[-1]
    assert first["message"].startswith(STARTED)
    assert last["message"].startswith("Queue worker stopped after ")
    assert last["duration_ms"] > 0


# What happens to the worker.

#: Handlers that block the loop, and that hang; places are taken for long soon.
EVENTS_APP = """
import asyncio, os, time
from pathlib import Path
from beeq import Queue
from beeq.worker import watch

watch.FULL_S = 0.2
queue = Queue(os.environ["TEST_QUEUE"])

@queue.process
async def handle(job):
    if job.data == "blocks":
        time.sleep(1.6)
    elif job.data == "hangs":
        Path("hangs").touch()
        await asyncio.Event().wait()
"""


def fields(line: str, log_format: str) -> dict[str, Any]:
    if log_format == "json":
        found: dict[str, Any] = json.loads(line)
        return found
    return {"level": line[25:32].strip().lower(), "message": said(line)}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_happens_to_a_worker_is_a_line_each(beeq: Beeq, own_valkey: Server, log_format: str) -> None:
    beeq.app(EVENTS_APP)
    url = own_valkey.url
    worker = beeq.start("worker", "--app", "app:queue", "-u", url, "--log-format", log_format, TEST_QUEUE="q")

    def until(text: str) -> dict[str, Any]:
        return fields(worker.until(text), log_format)

    started = until(STARTED)
    assert started["level"] == "info"
    assert started["message"].startswith(f"{STARTED}: q (1 place) on {url}, prefix bq; 1 process; ")
    with Queue("q", redis=url) as queue:
        queue.enqueue("blocks", id="b")
        blocked = until("the event loop was blocked")
        assert re.search(
            r"blocked for [12]\.\d s, at .*app\.py:\d+ \(handle\); jobs.*: b of", blocked["message"]
        )
        own_valkey.stop()
        away = until("queue q: Redis")
        assert away["level"] == "error"
        own_valkey.start()
        back = until("Redis is back after ")
        assert back["level"] == "warning"
        queue.enqueue("hangs", id="h")
        queue.enqueue("hangs", id="waits")
    full = until("all places have been taken")
    assert full["level"] == "warning"
    assert ", 1 jobs wait; none of the jobs that run has ended meanwhile; job h runs for " in full["message"]
    eventually((beeq.folder / "hangs").exists)
    worker.signal(signal.SIGTERM)
    first = until("SIGTERM: no more jobs are taken")
    assert first["message"].endswith("; 1 job that runs may take up to 30 s to end")
    worker.signal(signal.SIGINT)
    assert until("the second signal")["message"].startswith("SIGINT, the second signal: 1 job that runs")
    assert until(HANDED_BACK)["level"] == "warning"
    stopped = until("Queue worker stopped after ")
    assert worker.ended() == 0
    if log_format == "json":
        assert all(entry["duration_ms"] > 0 for entry in (blocked, back, full, stopped))
        assert (away["queue"], away["error_type"]) == ("q", "RedisUnavailable")


def test_a_child_that_crashes_and_its_successor_are_a_line_each(beeq: Beeq, queue_name: str) -> None:
    beeq.app(EVENTS_APP)
    worker = beeq.start(
        *("worker", "--app", "app:queue", "-w", "2", "--log-format", "json"), TEST_QUEUE=queue_name
    )
    assert json.loads(worker.until(STARTED))["message"].count("; 2 processes; ") == 1
    victim = children_of(worker)[0]
    os.kill(victim, signal.SIGKILL)
    died = json.loads(worker.until("was killed by signal 9"))
    assert (died["level"], died["message"]) == (
        "error",
        f"worker process {victim} was killed by signal 9; starting another one",
    )
    assert re.fullmatch(r"worker process \d+ works now", json.loads(worker.until("works now"))["message"])
    worker.signal(signal.SIGTERM)
    worker.until("SIGTERM: no more jobs are taken; 2 worker processes may take up to 30 s to end")
    assert worker.ended() == 0
    assert json.loads(worker.seen[-1])["message"].startswith("Queue worker stopped after ")


def children_of(worker: Running) -> list[int]:
    text = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def test_a_log_of_json_says_in_json_that_redis_is_not_there(beeq: Beeq) -> None:
    ran = beeq.run("worker", "--log-format", "json", "-u", "redis://:hush@127.0.0.1:1")
    (line,) = ran.stderr.splitlines()
    assert (ran.returncode, json.loads(line)["level"]) == (3, "error")
    assert "cannot connect to Redis" in line
    assert "hush" not in line


def test_an_app_with_a_log_of_its_own_silences_nobody(beeq: Beeq, queue_name: str) -> None:
    beeq.app(
        "import logging.config\nlogging.config.dictConfig({'version': 1})  # disables what loggers there are\n"
        + EVENTS_APP
    )
    worker = beeq.start("worker", "--app", "app:queue", "--burst", TEST_QUEUE=queue_name)
    assert worker.ended() == 0
    assert worker.said[0].startswith(STARTED)


#: Records of a megabyte whose entries are all wrong.
BOMBS: list[tuple[str, dict[str, Any]]] = [
    ("media-processing", {"type": "video-stitch", "outputPath": "o.mp4", "inputFiles": [0] * 500_000}),
    ("video-assembly", {"sceneVideos": [0] * 500_000, "masterAudio": "a", "outputFormats": ["mp4"]}),
    ("video-assembly", {"sceneVideos": ["a"], "masterAudio": "a", "outputFormats": [[]] * 300_000}),
    ("video-assembly", {"sceneVideos": ["a"], "masterAudio": "a", "outputFormats": ["f" * 500] * 2000}),
]


def test_a_job_of_many_wrong_entries_is_one_short_line(
    beeq: Beeq, sync_redis: redis.Redis, tmp_path: Path
) -> None:
    prefix = f"bombs{os.getpid()}"
    for n, (queue_name, data) in enumerate(BOMBS):
        keys = Keys(prefix, queue_name)
        record = {
            "data": data,
            "options": {"timestamp": 1, "stacktraces": []},
            "status": "created",
            "progress": 0,
        }
        sync_redis.hset(keys.jobs, f"bomb{n}", json.dumps(record))
        sync_redis.lpush(keys.waiting, f"bomb{n}")
    try:
        names = ("media-processing", "video-assembly")
        worker = beeq.start("worker", *names, "--burst", "-p", prefix, BEEQ_MEDIA_ROOT=str(tmp_path))
        assert worker.ended() == 0
        for n, (queue_name, _) in enumerate(BOMBS):
            begin = f"queue {queue_name}: job bomb{n}: "
            (line,) = [line for line in worker.said if line.startswith(begin)]
            assert line.removeprefix(begin).startswith("attempt 1 failed, for good: Discard: bad job: ")
            assert len(line) < 400
            stored = json.loads(str(sync_redis.hget(Keys(prefix, queue_name).jobs, f"bomb{n}")))
            assert len(stored["options"]["stacktraces"][0]) < 1000
    finally:
        sync_redis.delete(*sync_redis.scan_iter(f"{prefix}:*"))
