"""``beeq worker``: what it works on, what it logs, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from beeq.protocol.keys import Keys
from tests.cli.command import Beeq, Running, eventually, said
from tests.support.server import Server

#: Jobs write down which process runs them, and wait for a file if their data says so.
APP = """
import asyncio, os
from pathlib import Path
from beeq import Queue
queue = Queue(os.environ["TEST_QUEUE"], stall_interval=1000)

@queue.process()
async def handle(job):
    if job.data.get("fail"):
        raise ValueError("evil\\x1b[2J\\nline")
    if job.data.get("until"):
        Path(f"started-{job.id}").write_text(str(os.getpid()))
        while not Path(job.data["until"]).exists():
            await asyncio.sleep(0.01)
    return os.getpid()

silent = Queue("silent")
both = [queue, Queue("other", redis=os.environ.get("OTHER_URL", "redis://127.0.0.1:1"))]
both[1].process(handle)
nested = both[:1], "no queue"
import beeq.sync
blocking = beeq.sync.Queue("blocking")
"""
STARTED = "Queue worker started"


@pytest.fixture
def start(beeq: Beeq, queue_name: str) -> Callable[..., Running]:
    """Start a worker on the test's queue."""
    beeq.app(APP)

    def start(*arguments: str, **environment: str) -> Running:
        names = ("worker", queue_name, "--app", "app:queue")
        return beeq.start(*names, *arguments, TEST_QUEUE=queue_name, **environment)

    return start


def started(folder: Path, job_id: str) -> int:
    """Wait until the job runs, and return the process that runs it."""
    file = folder / f"started-{job_id}"
    return int(eventually(lambda: file.exists() and file.read_text()))


def is_gone(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.returncode != 0 or state.stdout.startswith("Z")


# Starting.


def test_it_says_on_stderr_that_it_started_and_nothing_else(
    start: Callable[..., Running], queue_name: str
) -> None:
    worker = start()
    assert said(worker.until(STARTED)).startswith(f"{STARTED}: {queue_name} (1 place) on redis://")
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    assert worker.stdout == ""
    _, signalled, stopped = worker.said
    assert signalled == "SIGTERM: no more jobs are taken; none runs"
    assert re.fullmatch(r"Queue worker stopped after [0-9.]+ s", stopped)


def test_with_q_it_says_nothing(beeq: Beeq, start: Callable[..., Running], queue_name: str) -> None:
    beeq.ok("enqueue", queue_name, "fail:=true")
    worker = start("-q", "--burst")
    assert worker.ended() == 0
    assert (worker.stdout, worker.stderr) == ("", "")
    assert beeq.stats(queue_name)["failed"] == 1


def test_burst_ends_when_the_queue_is_empty(
    beeq: Beeq, start: Callable[..., Running], queue_name: str
) -> None:
    beeq.run("enqueue", queue_name, "--bulk", "-", stdin="{}\n" * 50)
    beeq.ok("enqueue", queue_name, "--delay", "1h")
    assert start("--burst", "-c", "5").ended() == 0
    numbers = beeq.stats(queue_name)
    assert (numbers["succeeded"], numbers["waiting"], numbers["delayed"]) == (50, 0, 1)


def test_c_is_the_number_of_jobs_at_once(beeq: Beeq, start: Callable[..., Running], queue_name: str) -> None:
    beeq.run("enqueue", queue_name, "--bulk", "-", stdin='{"until": "go"}\n' * 3)
    worker = start("-c", "2", "--burst")
    started(beeq.folder, "1")
    started(beeq.folder, "2")
    assert beeq.stats(queue_name)["active"] == 2
    (beeq.folder / "go").touch()
    assert worker.ended() == 0
    assert beeq.stats(queue_name)["succeeded"] == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nope",), "'nope'"),
        (("queue", "--app", "app:queue"), "'queue'"),
        (("--app", "app"), "module:attr, such as jobs:queue"),
        (("--app", "missing:queue"), "cannot be imported"),
        (("--app", "app:missing"), "no attribute 'missing'; there is app:queue, app:silent"),
        (("--app", "app:APP"), "no attribute 'APP'"),
        (("--app", "app:nested"), "not a beeq.Queue"),
        (("--app", "app:blocking"), "a beeq.sync.Queue, which works on no jobs"),
        (("--app", "app:silent"), "has no handler"),
    ],
)
def test_what_it_cannot_work_on_exits_with_2(beeq: Beeq, arguments: tuple[str, ...], complaint: str) -> None:
    beeq.app(APP)
    ran = beeq.run("worker", *arguments, TEST_QUEUE="addition")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert complaint in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_bad_processor_setting_exits_2_and_is_not_shown(beeq: Beeq) -> None:
    ran = beeq.run("worker", "webhook-processing", BEEQ_WEBHOOK_SECRET="hush!")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "BEEQ_WEBHOOK_SECRET" in ran.stderr
    assert "hush" not in ran.stderr


def test_uvloop_is_used_when_it_is_there(beeq: Beeq, queue_name: str) -> None:
    beeq.app(APP.replace("return os.getpid()", "return type(asyncio.get_running_loop()).__module__"))
    beeq.ok("enqueue", queue_name)
    beeq.run("worker", "--burst", queue_name, "--app", "app:queue", TEST_QUEUE=queue_name)
    shown = beeq.ok("enqueue", queue_name, "--id", "1", "--wait", "-q")
    assert json.loads(shown) == "uvloop"


# The log.


def test_a_failed_job_is_logged_without_control_characters(
    beeq: Beeq, start: Callable[..., Running], queue_name: str
) -> None:
    beeq.ok("enqueue", queue_name, "fail:=true", "--id", "bad\x1b]0;id")
    worker = start("--burst")
    assert worker.ended() == 0
    assert (
        f"{queue_name}: job bad\\x1b]0;id: attempt 1 failed, for good: ValueError: evil\\x1b[2J\\nline"
        in worker.stderr
    )
    assert "\x1b" not in worker.stderr
    assert worker.stdout == ""


def test_a_retry_is_logged_as_such(beeq: Beeq, start: Callable[..., Running], queue_name: str) -> None:
    beeq.ok("enqueue", queue_name, "fail:=true", "--retries", "1")
    worker = start("--burst")
    assert worker.ended() == 0
    lines = [line[25:].partition(": ValueError")[0] for line in worker.seen if "job 1" in line]
    assert lines == [
        f"WARNING queue {queue_name}: job 1: attempt 1 failed, and is tried again now",
        f"ERROR   queue {queue_name}: job 1: attempt 2 failed, for good",
    ]


def test_the_log_may_be_json_one_object_a_line(
    beeq: Beeq, start: Callable[..., Running], queue_name: str
) -> None:
    beeq.ok("enqueue", queue_name, "fail:=true")
    worker = start("--burst", "--log-format", "json")
    assert worker.ended() == 0
    first, second, last = (json.loads(line) for line in worker.seen)
    assert (first["level"], first["message"].partition(":")[0]) == ("info", STARTED)
    assert (second["level"], second["queue"], second["job"]) == ("error", queue_name, "1")
    assert (second["error_type"], second["error"]) == ("ValueError", "evil\\x1b[2J\\nline")
    assert second["attempt"] == 1
    assert last["message"].startswith("Queue worker stopped")


def test_with_v_successes_and_traces_are_logged(
    beeq: Beeq, start: Callable[..., Running], queue_name: str
) -> None:
    beeq.ok("enqueue", queue_name)
    beeq.ok("enqueue", queue_name, "fail:=true")
    worker = start("--burst", "-v")
    assert worker.ended() == 0
    assert f"queue {queue_name}: job 1: succeeded in " in worker.stderr
    assert "Traceback" in worker.stderr


# Ending.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_running_jobs_end(
    beeq: Beeq, start: Callable[..., Running], sync_redis: redis.Redis, queue_name: str, number: int
) -> None:
    beeq.ok("enqueue", queue_name, "until=go")
    worker = start("-c", "2")
    started(beeq.folder, "1")
    eventually(lambda: _waits_for_jobs(sync_redis))
    worker.signal(number)
    eventually(lambda: not _waits_for_jobs(sync_redis))
    beeq.ok("enqueue", queue_name)
    (beeq.folder / "go").touch()
    assert worker.ended() == 0
    allowed = "1 job that runs may take up to 30 s to end"
    name = signal.Signals(number).name
    assert worker.said[1:-1] == [f"{name}: no more jobs are taken; {allowed}"]
    numbers = beeq.stats(queue_name)
    assert (numbers["succeeded"], numbers["waiting"], numbers["active"]) == (1, 1, 0)


def _waits_for_jobs(client: redis.Redis) -> bool:
    """Return whether a worker blocks for the next job."""
    return any(entry["cmd"] == "blmove" and "b" in entry["flags"] for entry in client.client_list())


def assert_handed_back(beeq: Beeq, sync_redis: redis.Redis, queue_name: str, worker: Running) -> None:
    numbers = beeq.stats(queue_name)
    assert (numbers["waiting"], numbers["active"], numbers["failed"]) == (1, 0, 0)
    record: dict[str, Any] = json.loads(str(sync_redis.hget(Keys("bq", queue_name).jobs, "1")))
    assert record["options"]["retries"] == 1
    assert record["options"]["stacktraces"] == []
    assert "Traceback" not in worker.stderr


def test_the_second_signal_hands_running_jobs_back(
    beeq: Beeq, start: Callable[..., Running], sync_redis: redis.Redis, queue_name: str
) -> None:
    beeq.ok("enqueue", queue_name, "until=never", "--retries", "1")
    worker = start()
    started(beeq.folder, "1")
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    assert worker.ended(within_s=10) == 0
    assert_handed_back(beeq, sync_redis, queue_name, worker)


def test_jobs_beyond_the_shutdown_timeout_are_handed_back(
    beeq: Beeq, start: Callable[..., Running], sync_redis: redis.Redis, queue_name: str
) -> None:
    beeq.ok("enqueue", queue_name, "until=never", "--retries", "1")
    worker = start("--shutdown-timeout", "200ms")
    started(beeq.folder, "1")
    worker.signal(signal.SIGTERM)
    assert worker.ended(within_s=10) == 0
    assert_handed_back(beeq, sync_redis, queue_name, worker)
    assert f"{queue_name}: running jobs were handed back" in worker.stderr


def test_a_signal_ends_a_burst_as_well(
    beeq: Beeq, start: Callable[..., Running], sync_redis: redis.Redis, queue_name: str
) -> None:
    beeq.ok("enqueue", queue_name, "until=never", "--retries", "1")
    worker = start("--burst", "--shutdown-timeout", "200ms")
    started(beeq.folder, "1")
    worker.signal(signal.SIGTERM)
    assert worker.ended(within_s=10) == 0
    assert_handed_back(beeq, sync_redis, queue_name, worker)


def test_a_started_worker_waits_for_a_redis_that_went_away(beeq: Beeq, own_valkey: Server) -> None:
    beeq.app(APP)
    beeq.environment["BEEQ_REDIS_URL"] = own_valkey.url
    worker = beeq.start("worker", "addition", "--app", "app:queue", TEST_QUEUE="addition")
    worker.until(STARTED)
    own_valkey.stop()
    worker.until("addition: ")  # it says so
    assert worker.process.poll() is None
    own_valkey.start()
    beeq.ok("enqueue", "addition", "--wait=20s", "-q")
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0


# Several processes.


def test_w_runs_children_under_a_parent_that_works_on_nothing(
    beeq: Beeq, start: Callable[..., Running], queue_name: str
) -> None:
    beeq.run("enqueue", queue_name, "--bulk", "-", stdin='{"until": "go"}\n' * 3)
    worker = start("-w", "3")
    worker.until(STARTED)
    pids = {started(beeq.folder, str(n)) for n in (1, 2, 3)}
    assert len(pids) == 3
    assert worker.pid not in pids
    assert beeq.stats(queue_name)["workers"] == 3
    worker.signal(signal.SIGTERM)
    (beeq.folder / "go").touch()
    assert worker.ended() == 0
    started_, signalled, stopped = worker.said
    assert "; 3 processes; " in started_
    allowed = "3 worker processes may take up to 30 s to end"
    assert signalled == f"SIGTERM: no more jobs are taken; {allowed}"
    assert stopped.startswith("Queue worker stopped after ")
    assert all(map(is_gone, pids))
    assert beeq.stats(queue_name)["succeeded"] == 3


def test_a_dead_child_is_replaced_and_its_job_runs_again(
    beeq: Beeq, start: Callable[..., Running], queue_name: str
) -> None:
    beeq.ok("enqueue", queue_name, "until=go")
    worker = start("-w", "2")
    worker.until(STARTED)
    first = started(beeq.folder, "1")
    (beeq.folder / "started-1").unlink()
    os.kill(first, signal.SIGKILL)
    worker.until(f"worker process {first} was killed by signal 9; starting another one")
    assert started(beeq.folder, "1") != first
    (beeq.folder / "go").touch()
    eventually(lambda: beeq.stats(queue_name)["succeeded"] == 1)
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0


def test_the_death_of_the_parent_ends_its_children(
    beeq: Beeq, start: Callable[..., Running], queue_name: str
) -> None:
    beeq.run("enqueue", queue_name, "--bulk", "-", stdin='{"until": "go"}\n' * 2)
    worker = start("-w", "2")
    worker.until(STARTED)
    pids = [started(beeq.folder, str(n)) for n in (1, 2)]
    os.kill(worker.pid, signal.SIGKILL)
    (beeq.folder / "go").touch()
    eventually(lambda: all(map(is_gone, pids)))
    assert beeq.stats(queue_name)["succeeded"] == 2


def test_one_interrupt_of_the_whole_group_counts_once(
    beeq: Beeq, start: Callable[..., Running], queue_name: str
) -> None:
    beeq.ok("enqueue", queue_name, "until=go")
    worker = start("-w", "2")
    worker.until(STARTED)
    started(beeq.folder, "1")
    os.killpg(worker.pid, signal.SIGINT)
    os.killpg(worker.pid, 0)  # all are there still
    (beeq.folder / "go").touch()
    assert worker.ended() == 0
    assert beeq.stats(queue_name)["succeeded"] == 1


def test_the_second_signal_to_the_parent_hands_all_jobs_back(
    beeq: Beeq, start: Callable[..., Running], sync_redis: redis.Redis, queue_name: str
) -> None:
    beeq.ok("enqueue", queue_name, "until=never", "--retries", "1")
    worker = start("-w", "2")
    worker.until(STARTED)
    started(beeq.folder, "1")
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)  # another one: the system merges signals of one number
    assert worker.ended(within_s=10) == 0
    assert_handed_back(beeq, sync_redis, queue_name, worker)


def test_processes_of_a_burst_end_together(
    beeq: Beeq, start: Callable[..., Running], queue_name: str
) -> None:
    beeq.run("enqueue", queue_name, "--bulk", "-", stdin="{}\n" * 20)
    worker = start("-w", "2", "--burst")
    assert worker.ended() == 0
    assert beeq.stats(queue_name)["succeeded"] == 20


def test_a_faulty_command_is_reported_once_for_all_processes(beeq: Beeq) -> None:
    ran = beeq.run("worker", "nope", "-w", "4")
    assert ran.returncode == 2
    assert ran.stderr.count("Error: ") == 1


# Real jobs.


@pytest.mark.ffmpeg
def test_a_picture_passes_three_commands_in_an_empty_folder(bare_beeq: Beeq) -> None:
    clip = bare_beeq.folder / "clip.mp4"
    from beeq.media.ffmpeg import find_ffmpeg

    source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=5:d=1", "-pix_fmt", "yuv420p")
    subprocess.run([find_ffmpeg(), "-v", "error", *source, str(clip)], check=True, stdin=subprocess.DEVNULL)
    fields = ("type=frame-extract", 'inputFiles:=["clip.mp4"]', "outputPath=last.png")
    job_id = bare_beeq.ok("enqueue", "media-processing", *fields).strip()
    assert bare_beeq.stats("media-processing")["waiting"] == 1
    ran = bare_beeq.run("worker", "--burst")
    started, held, _ = map(said, ran.stderr.splitlines())
    assert (ran.returncode, ran.stdout) == (0, "")
    assert started.startswith(f"{STARTED}: ai-generation (1 place), media-processing (1 place), ")
    assert held.startswith(f"queue media-processing: job {job_id}: ffmpeg ")
    assert (bare_beeq.folder / "last.png").read_bytes().startswith(b"\x89PNG")
    assert bare_beeq.stats("media-processing")["succeeded"] == 1
    shown = bare_beeq.ok("enqueue", "media-processing", *fields, "--id", job_id, "--wait", "-q")
    assert json.loads(shown)["path"] == "last.png"
