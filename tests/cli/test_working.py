"""``beeq worker`` from start to end: bursts, signals, own queues, many processes. And ``beeq demo``."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.cli.command import Beeq, eventually, is_pending

APP = """
import asyncio, os
from pathlib import Path
from beeq import Queue

queue = Queue({name!r})

@queue.process(concurrency=2)
async def handler(job):
    Path(f"started-{{job.id}}").write_text(str(os.getpid()))
    while not Path("go").exists():
        await asyncio.sleep(0.02)
    if job.data.get("fail"):
        raise ValueError("as asked\\x1b[31m")
    return {{"doubled": job.data["n"] * 2}}
"""


@pytest.fixture
def app(beeq: Beeq, queue_name: str) -> Beeq:
    """A queue of the user's own, whose handler waits for a file named ``go``."""
    beeq.app(APP.format(name=queue_name))
    return beeq


def started(beeq: Beeq, job_id: str) -> int:
    """Wait until the job's handler runs; return its process."""
    return int(
        eventually(
            lambda: (
                (beeq.folder / f"started-{job_id}").exists()
                and (beeq.folder / f"started-{job_id}").read_text()
            )
        )
    )


def test_a_burst_works_everything_off_and_ends(app, queue_name):
    (app.folder / "go").touch()
    for n in range(3):
        app.ok("enqueue", queue_name, f"n:={n}")
    ran = app.run("worker", queue_name, "--app", "app:queue", "--burst")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    assert "Queue worker started" in ran.stderr
    assert app.stats(queue_name)["succeeded"] == 3


def test_a_quiet_worker_says_nothing(app, queue_name):
    (app.folder / "go").touch()
    app.ok("enqueue", queue_name, "n:=1", "fail:=true")
    ran = app.run("worker", queue_name, "--app", "app:queue", "--burst", "-q")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_failed_job_is_logged_without_control_characters(app, queue_name):
    (app.folder / "go").touch()
    app.ok("enqueue", queue_name, "n:=1", "fail:=true", "--id", "letter-7")
    ran = app.run("worker", queue_name, "--app", "app:queue", "--burst")
    assert ran.returncode == 0
    assert "letter-7" in ran.stderr
    assert "as asked" in ran.stderr
    assert "\x1b" not in ran.stderr


def test_json_logs_are_one_object_a_line(app, queue_name):
    (app.folder / "go").touch()
    app.ok("enqueue", queue_name, "n:=1", "fail:=true")
    ran = app.run("worker", queue_name, "--app", "app:queue", "--burst", "--log-format", "json")
    assert ran.returncode == 0
    assert len([json.loads(line) for line in ran.stderr.splitlines()]) >= 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_running_jobs_end(app, queue_name, number):
    worker = app.start("worker", queue_name, "--app", "app:queue")
    worker.until("Queue worker started")
    job_id = app.ok("enqueue", queue_name, "n:=21").strip()
    started(app, job_id)
    later = app.ok("enqueue", queue_name, "n:=1", "--delay", "1h").strip()
    worker.signal(number)
    (app.folder / "go").touch()
    assert worker.ended() == 0
    numbers = app.stats(queue_name)
    assert (numbers["succeeded"], numbers["active"], numbers["delayed"]) == (1, 0, 1)
    assert not (app.folder / f"started-{later}").exists()


def test_the_second_signal_hands_jobs_back_without_using_a_retry(app, queue_name, sync_redis):
    worker = app.start("worker", queue_name, "--app", "app:queue")
    worker.until("Queue worker started")
    job_id = app.ok("enqueue", queue_name, "n:=1", "--retries", "2").strip()
    started(app, job_id)
    worker.signal(signal.SIGTERM)
    eventually(lambda: not is_pending(worker.pid, signal.SIGTERM))  # two that are pending are one
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0, worker.stderr
    assert sync_redis.lrange(f"bq:{queue_name}:waiting", 0, -1) == [job_id]
    options = json.loads(sync_redis.hget(f"bq:{queue_name}:jobs", job_id))["options"]
    assert (options["retries"], options["stacktraces"]) == (2, [])


def test_over_the_shutdown_timeout_jobs_are_handed_back(app, queue_name):
    worker = app.start("worker", queue_name, "--app", "app:queue", "--shutdown-timeout", "100ms")
    worker.until("Queue worker started")
    started(app, app.ok("enqueue", queue_name, "n:=1").strip())
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    numbers = app.stats(queue_name)
    assert (numbers["waiting"], numbers["active"]) == (1, 0)


def test_processes_share_the_work_and_a_dead_one_is_replaced(app, queue_name):
    worker = app.start("worker", queue_name, "--app", "app:queue", "-w", "2", "-c", "1")
    worker.until("Queue worker started")
    eventually(lambda: app.stats(queue_name)["workers"] == 2)
    pids = {started(app, app.ok("enqueue", queue_name, f"n:={n}").strip()) for n in range(2)}
    assert len(pids) == 2
    assert worker.pid not in pids
    dead = pids.pop()
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: dead not in (left := _children(worker.pid)) and len(left) == 2)
    (app.folder / "go").touch()
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0


def test_the_death_of_the_parent_ends_its_children(app, queue_name):
    worker = app.start("worker", queue_name, "--app", "app:queue", "-w", "2")
    worker.until("Queue worker started")
    children = eventually(lambda: len(found := _children(worker.pid)) == 2 and found)
    os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}/cmdline") and _command(pid) for pid in children))  # noqa: PTH110 - a process, no file


def _children(pid: int) -> set[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 - a process, no file
        return {int(child) for child in file.read().split()}


def _command(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - a process, no file
            return file.read()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("worker", "no-such-queue"), "no-such-queue"),
        (("worker", "--app", "no_such_module:queue"), "no_such_module"),
        (("worker", "--app", "nonsense"), "module:attr"),
        (("worker", "-c", "0"), "0"),
    ],
)
def test_what_a_worker_cannot_do_is_a_usage_error(beeq, arguments, complaint):
    ran = beeq.run(*arguments)
    assert ran.returncode == 2, ran.stderr
    assert complaint in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_bad_webhook_secret_is_a_usage_error_and_is_not_shown(beeq):
    ran = beeq.run("worker", "webhook-processing", BEEQ_WEBHOOK_SECRET="tops3cret")
    assert ran.returncode == 2
    assert "BEEQ_WEBHOOK_SECRET" in ran.stderr
    assert "tops3cret" not in ran.stderr


def test_without_redis_a_worker_does_not_start(beeq):
    ran = beeq.run("worker", "media-processing", "-u", "redis://:hush@127.0.0.1:1")
    assert ran.returncode == 3
    assert "hush" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


@pytest.mark.ffmpeg
def test_the_demo_works_twice_in_one_folder(bare_beeq):
    for _ in range(2):
        ran = bare_beeq.run("demo", timeout_s=110)
        assert ran.returncode == 0, ran.stderr
        assert "last.png" in ran.stdout
        assert "film.mp4" in ran.stdout
        assert "signature checked" in ran.stdout
    assert not list(bare_beeq.folder.iterdir())
