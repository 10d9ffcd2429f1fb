"""``beeq worker --keep-…``: what is kept, by which setting, and the line in the log."""

from __future__ import annotations

import re
import signal

import pytest

from tests.cli.command import Beeq, eventually
from tests.cli.test_recipes import chapter, programs

APP = """
import asyncio
import os
from datetime import timedelta
from beeq import Keep, Queue

async def handle(job):
    if job.data.get("slow"):
        await asyncio.sleep(60)
    return "done"

plain = Queue(os.environ["TEST_QUEUE"], stall_interval=100)
plain.process(handle)
own = Queue("own", keep_succeeded=5, keep_failed=Keep(age=timedelta(days=2), own=True), job_timeout="9s")
own.process(handle)
both = [plain, own]
"""
DEFAULT = "keeps 10000 succeeded jobs for 7d (its own) and 10000 failed jobs for 30d (its own)"


@pytest.fixture
def app(beeq: Beeq, queue_name: str) -> Beeq:
    """The command in a folder with an app."""
    beeq.app(APP)
    beeq.environment["TEST_QUEUE"] = queue_name
    return beeq


@pytest.mark.parametrize(
    ("target", "options", "environment", "says"),
    [
        ("own", (), {}, "keeps 5 succeeded jobs and failed jobs for 2d (its own), job timeout 9s"),
        (
            "plain",
            ("--keep-failed", "all"),
            {},
            "keeps 10000 succeeded jobs for 7d (its own) and all failed jobs",
        ),
        (
            "own",
            ("--keep-succeeded", "7,1h", "--job-timeout", "0"),
            {"BEEQ_KEEP_FAILED": "1m", "BEEQ_JOB_TIMEOUT": "1s"},
            "keeps 7 succeeded jobs for 1h and failed jobs for 2d (its own)",
        ),
        (
            "plain",
            (),
            {"BEEQ_KEEP_FAILED": "1m", "BEEQ_JOB_TIMEOUT": "1s"},
            "keeps 10000 succeeded jobs for 7d (its own) and failed jobs for 1m, job timeout 1s",
        ),
        (
            "both",
            (),
            {},
            f"QUEUE: {DEFAULT}; own: keeps 5 succeeded jobs and failed jobs for 2d (its own), job timeout 9s",
        ),
    ],
    ids=["app", "option", "option over app", "environment", "two queues"],
)
def test_the_first_line_says_what_is_kept(app: Beeq, queue_name, target, options, environment, says):
    ran = app.run("worker", "--app", f"app:{target}", "--burst", *options, **environment)
    assert ran.returncode == 0, ran.stderr
    end = f"; 1 process; {says.replace('QUEUE', queue_name)}"
    assert any(line.endswith(end) for line in ran.stderr.splitlines()), ran.stderr


@pytest.mark.parametrize(
    ("option", "text", "says"),
    [
        (
            "--keep-succeeded",
            "soon",
            "'soon' is neither an age nor a count; write 7d, 10000, 7d,10000 or all",
        ),
        ("--keep-failed", "7d,8d", "'7d,8d' names two ages"),
        ("--job-timeout", "5", "the duration '5' has no unit"),
    ],
)
def test_what_is_kept_is_an_age_or_a_number(app: Beeq, option, text, says):
    ran = app.run("worker", "--app", "app:plain", "--burst", option, text)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert says in " ".join(ran.stderr.replace("│", "").split())


def test_a_running_worker_drops_what_is_too_many(app: Beeq, queue_name: str):
    app.run("enqueue", queue_name, "--bulk", "-", stdin="{}\n" * 30)
    worker = app.start("worker", "--app", "app:plain", "--keep-succeeded", "2", "-c", "5", "-w", "2")
    line = worker.until("Queue worker started")
    assert line.endswith("; 2 processes; keeps 2 succeeded jobs and 10000 failed jobs for 30d (its own)")
    eventually(lambda: app.stats(queue_name)["succeeded"] == 2 and app.stats(queue_name)["waiting"] == 0)
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0


def test_a_default_timeout_ends_an_attempt(app: Beeq, queue_name: str):
    app.ok("enqueue", queue_name, "slow:=true")
    ran = app.run("worker", "--app", "app:plain", "--burst", "--job-timeout", "200ms")
    assert "Job 1 timed out (200 ms)" in ran.stderr
    assert app.stats(queue_name)["failed"] == 1


def test_a_queue_that_its_module_has_opened_is_refused(beeq: Beeq):
    made = "queue = Queue('q', redis=os.environ['BEEQ_REDIS_URL'])\nqueue.process(print)\n"
    beeq.app(f"import asyncio, os\nfrom beeq import Queue\n\n{made}asyncio.run(queue.connect())\n")
    ran = beeq.run("worker", "--app", "app:queue", "--burst")
    assert (ran.returncode, "queue q is open already" in ran.stderr) == (2, True)


def test_the_readmes_commands_work_and_say_what_they_keep(bare_beeq: Beeq):
    (bare_beeq.folder / "jobs.py").write_text(programs("## Quick start")[0])
    (block,) = re.findall(r"```sh\n(.*?)```", chapter("### What stays"), re.DOTALL)
    said = []
    for line in block.splitlines():
        words = line.split()
        environment = dict(word.split("=", 1) for word in words if "=" in word)
        ran = bare_beeq.run(*(word for word in words[words.index("beeq") + 1 :]), **environment)
        assert ran.returncode == 0, ran.stderr
        said += re.findall(r"; (keeps .*)$", ran.stderr, re.MULTILINE)
    assert said == [
        "keeps 5000 succeeded jobs for 1d and all failed jobs",
        "keeps succeeded jobs for 12h (its own) and 10000 failed jobs for 30d (its own), job timeout 5m",
    ]
