"""``beeq enqueue``."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from beeq.protocol.keys import Keys
from tests.cli.command import Beeq, Running, said
from tests.support.server import Server

APP = """
import asyncio, os
from beeq import Queue
queue = Queue(os.environ["TEST_QUEUE"])

@queue.process()
async def handle(job):
    if job.data.get("fail"):
        raise ValueError(job.data["fail"])
    return job.data.get("answer")
"""
MEDIA = ("media-processing", "type=frame-extract", 'inputFiles:=["clip.mp4"]', "outputPath=last.png")


@pytest.fixture
def record(sync_redis: redis.Redis, queue_name: str) -> Callable[..., dict[str, Any]]:
    """Return a job's record as it is in Redis."""

    def read(job_id: str = "1", queue: str = queue_name, prefix: str = "bq") -> dict[str, Any]:
        raw = sync_redis.hget(Keys(prefix, queue).jobs, job_id)
        assert raw is not None, "no such job"
        record: dict[str, Any] = json.loads(str(raw))
        return record

    return read


@pytest.fixture
def prefix(sync_redis: redis.Redis) -> Iterator[str]:
    """A prefix of this test's own, for the built-in queues."""
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    yield prefix
    for key in sync_redis.scan_iter(f"{prefix}:*"):
        sync_redis.delete(key)


@pytest.fixture
def worker(beeq: Beeq, queue_name: str) -> Running:
    """A worker on the test's queue."""
    beeq.app(APP)
    running = beeq.start("worker", queue_name, "--app", "app:queue", TEST_QUEUE=queue_name)
    running.until("Queue worker started")
    return running


# One job.


def test_the_id_is_printed_and_nothing_else(beeq: Beeq, queue_name: str, record: Callable[..., Any]) -> None:
    assert beeq.ok("enqueue", queue_name, "a=1", "b:=2") == "1\n"
    assert record()["data"] == {"a": "1", "b": 2}


def test_no_field_is_an_empty_object(beeq: Beeq, queue_name: str, record: Callable[..., Any]) -> None:
    beeq.ok("enqueue", queue_name)
    assert record()["data"] == {}


def test_fields_come_from_files_and_standard_input_too(
    beeq: Beeq, queue_name: str, record: Callable[..., Any]
) -> None:
    (beeq.folder / "job.json").write_text('{"a": 1, "b": 1}')
    ran = beeq.run("enqueue", queue_name, "@job.json", "-", "c:=3", stdin='{"b": 2, "c": 2}')
    assert ran.returncode == 0
    assert record()["data"] == {"a": 1, "b": 2, "c": 3}


def test_json_prints_id_and_queue(beeq: Beeq, queue_name: str) -> None:
    assert json.loads(beeq.ok("enqueue", queue_name, "--json")) == {"id": "1", "queue": queue_name}


def test_an_id_may_be_chosen_and_one_that_exists_is_success(
    beeq: Beeq, queue_name: str, record: Callable[..., Any]
) -> None:
    assert beeq.ok("enqueue", queue_name, "n:=1", "--id", "mine") == "mine\n"
    again = beeq.run("enqueue", queue_name, "n:=2", "--id", "mine")
    assert (again.returncode, again.stdout) == (0, "mine\n")
    assert again.stderr == f"job mine exists already in {queue_name}, and is left as it is\n"
    assert beeq.ok("enqueue", queue_name, "n:=2", "--id", "mine", "-q") == "mine\n"
    assert record("mine")["data"] == {"n": 1}


def test_the_options_are_in_the_record(beeq: Beeq, queue_name: str, record: Callable[..., Any]) -> None:
    beeq.ok("enqueue", queue_name, "--retries", "3", "--backoff", "exponential:2s", "--timeout", "30m")
    options = record()["options"]
    assert options["retries"] == 3
    assert options["backoff"] == {"strategy": "exponential", "delay": 2000}
    assert options["timeout"] == 1_800_000


def test_a_delay_is_from_now(
    beeq: Beeq, queue_name: str, record: Callable[..., Any], sync_redis: redis.Redis
) -> None:
    before = datetime.now(UTC).timestamp() * 1000
    beeq.ok("enqueue", queue_name, "--delay", "5m")
    due_ms = record()["options"]["delay"]
    assert before + 300_000 <= due_ms <= before + 360_000
    assert sync_redis.zscore(Keys("bq", queue_name).delayed, "1") == due_ms


def test_at_is_a_moment_and_one_that_has_passed_is_now(
    beeq: Beeq, queue_name: str, record: Callable[..., Any]
) -> None:
    moment = datetime.now(UTC) + timedelta(days=1)
    beeq.ok("enqueue", queue_name, "--at", moment.isoformat())
    assert record("1")["options"]["delay"] == pytest.approx(moment.timestamp() * 1000, abs=1)
    beeq.ok("enqueue", queue_name, "--at", "2001-01-01T00:00:00Z")
    assert "delay" not in record("2")["options"]
    assert beeq.stats(queue_name)["waiting"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("word",),
        ("n:=NaN",),
        ("n:={",),
        ("@missing.json",),
        ("-",),
        ("--delay", "soon"),
        ("--at", "soon"),
        ("--delay", "1s", "--at", "2030-01-01"),
        ("--retries", "-1"),
        ("--retries", "many"),
        ("--backoff", "fixed"),
        ("--timeout", "25d"),
        ("--wait=soon",),
        ("--wait=30",),
        ("--wait", "30"),
        ("--delay", "30"),
        ("--timeout", "30"),
        ("--backoff", "fixed:30"),
        ("--bulk", "missing.jsonl"),
        ("--bulk", "-", "a=1"),
        ("--bulk", "-", "--id", "x"),
        ("--bulk", "-", "--wait"),
    ],
)
def test_wrong_words_exit_with_2_and_nothing_is_enqueued(
    beeq: Beeq, queue_name: str, arguments: tuple[str, ...]
) -> None:
    ran = beeq.run("enqueue", queue_name, *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Error: " in ran.stderr
    assert beeq.stats(queue_name)["newestJob"] == 0


# The built-in queues.


def test_a_built_in_job_gets_id_moment_and_policy(
    beeq: Beeq, prefix: str, record: Callable[..., Any]
) -> None:
    job_id = beeq.ok("enqueue", *MEDIA, "-p", prefix, "note=kept").strip()
    assert str(uuid.UUID(job_id)) == job_id
    job = record(job_id, queue="media-processing", prefix=prefix)
    assert job["data"]["id"] == job_id
    assert datetime.fromisoformat(job["data"]["createdAt"]).tzinfo is not None
    assert job["data"]["inputFiles"] == ["clip.mp4"]
    assert job["data"]["note"] == "kept"
    assert job["options"]["timeout"] == 3_600_000
    assert job["options"]["retries"] == 2
    assert job["options"]["backoff"] == {"strategy": "exponential", "delay": 5000}


def test_options_override_the_policy(beeq: Beeq, prefix: str, record: Callable[..., Any]) -> None:
    options = ("--id", "mine", "--retries", "0", "--backoff", "immediate", "--timeout", "1s", "-p", prefix)
    assert beeq.ok("enqueue", *MEDIA, *options) == "mine\n"
    job = record("mine", queue="media-processing", prefix=prefix)
    assert job["data"]["id"] == "mine"
    assert job["options"]["timeout"] == 1000
    assert job["options"]["retries"] == 0
    assert job["options"]["backoff"] == {"strategy": "immediate"}


def test_the_jobs_own_id_becomes_the_queues(beeq: Beeq, prefix: str) -> None:
    assert beeq.ok("enqueue", *MEDIA, "id=theirs", "-p", prefix) == "theirs\n"
    assert beeq.ok("enqueue", *MEDIA, "id=theirs", "-p", prefix, "-q") == "theirs\n"


def test_python_names_are_written_as_the_wire_has_them(
    beeq: Beeq, prefix: str, record: Callable[..., Any]
) -> None:
    words = ("media-processing", "type=frame-extract", 'input_files:=["a.mp4"]', "output_path=b.png")
    job_id = beeq.ok("enqueue", *words, "-p", prefix).strip()
    data = record(job_id, queue="media-processing", prefix=prefix)["data"]
    assert data["inputFiles"] == ["a.mp4"]
    assert "input_files" not in data


def test_wrong_fields_exit_with_2_and_every_fault_is_named(beeq: Beeq, prefix: str) -> None:
    ran = beeq.run("enqueue", "webhook-processing", "webhookUrl=nonsense", "-p", prefix)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "webhookUrl" in ran.stderr
    assert "payload" in ran.stderr


def test_two_ids_exit_with_2(beeq: Beeq, prefix: str) -> None:
    assert beeq.run("enqueue", *MEDIA, "id=one", "--id", "other", "-p", prefix).returncode == 2


# Waiting.


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("wait", [("--wait",), ("--wait=30s",), ("--wait", "30s")], ids=" ".join)
def test_wait_prints_the_result_as_json(beeq: Beeq, queue_name: str, wait: tuple[str, ...]) -> None:
    ran = beeq.run("enqueue", queue_name, *wait, 'answer:={"x":[1,null]}')
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, '{"x":[1,null]}\n', "job 1\n")


@pytest.mark.usefixtures("worker")
def test_wait_and_json_print_result_and_id(beeq: Beeq, queue_name: str) -> None:
    printed = json.loads(beeq.ok("enqueue", queue_name, "--wait", "--json", "answer=x", "-q"))
    assert printed == {"id": "1", "queue": queue_name, "result": "x"}


@pytest.mark.usefixtures("worker")
def test_wait_for_a_job_that_fails_exits_with_1(beeq: Beeq, queue_name: str) -> None:
    ran = beeq.run("enqueue", queue_name, "fail=two\nlines", "--wait")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "job 1\nError: job 1 failed: two\\nlines\n"


@pytest.mark.usefixtures("worker")
def test_wait_for_an_id_that_exists_prints_the_result_it_had(beeq: Beeq, queue_name: str) -> None:
    assert beeq.ok("enqueue", queue_name, "answer=first", "--id", "x", "--wait", "-q") == '"first"\n'
    again = beeq.run("enqueue", queue_name, "answer=second", "--id", "x", "--wait")
    assert (again.returncode, again.stdout) == (0, '"first"\n')
    assert again.stderr == f"job x exists already in {queue_name}, and is left as it is\n"


def test_wait_that_takes_too_long_exits_with_1(beeq: Beeq, queue_name: str) -> None:
    ran = beeq.run("enqueue", queue_name, "--wait=200ms")
    assert (ran.returncode, ran.stdout) == (1, "")
    first, last = ran.stderr.splitlines()
    assert first == "job 1"
    assert "200 ms" in last


# Many.


def test_bulk_prints_ids_in_the_order_of_the_lines(
    beeq: Beeq, queue_name: str, record: Callable[..., Any]
) -> None:
    (beeq.folder / "jobs").write_text("".join(f'{{"n": {n}}}\n' for n in range(2500)))
    ids = beeq.ok("enqueue", queue_name, "--bulk", "jobs", "--retries", "1").split()
    assert ids == [str(n + 1) for n in range(2500)]
    assert record("2500")["data"] == {"n": 2499}
    assert record("1")["options"]["retries"] == 1


def test_a_bad_line_is_reported_and_the_others_go_on(
    beeq: Beeq, queue_name: str, record: Callable[..., Any]
) -> None:
    lines = '{"n": 1}\nnot json\n\n[1]\n{"n": NaN}\n{"n": 2}'
    ran = beeq.run("enqueue", queue_name, "--bulk", "-", stdin=lines)
    assert (ran.returncode, ran.stdout) == (1, "1\n2\n")
    assert [line.split(": ")[0] for line in ran.stderr.splitlines()] == ["line 2", "line 4", "line 5"]
    assert record("2")["data"] == {"n": 2}


def test_bulk_checks_the_fields_of_built_in_jobs(beeq: Beeq, prefix: str) -> None:
    good = {"id": "a", "webhookUrl": "https://example.com/", "payload": {}}
    lines = [json.dumps(job) for job in (good, {"id": "b"}, good, {**good, "id": "c"})]
    ran = beeq.run("enqueue", "webhook-processing", "--bulk", "-", "-p", prefix, stdin="\n".join(lines))
    assert (ran.returncode, ran.stdout) == (1, "a\na\nc\n")
    first, last = ran.stderr.splitlines()
    assert first.startswith("line 2: webhookUrl: field required; payload: field required")
    assert last == "1 of the jobs existed already in webhook-processing, and are left as they are"


def test_bulk_with_json_prints_an_object_a_job(beeq: Beeq, queue_name: str) -> None:
    ran = beeq.run("enqueue", queue_name, "--bulk", "-", "--json", stdin="{}\n{}\n")
    assert [json.loads(line) for line in ran.stdout.splitlines()] == [
        {"id": "1", "queue": queue_name},
        {"id": "2", "queue": queue_name},
    ]


def test_bulk_enqueues_lines_as_they_come(beeq: Beeq, queue_name: str) -> None:
    running = beeq.start("enqueue", queue_name, "--bulk", "-")
    assert running.process.stdin is not None
    running.process.stdin.write("{}\n")
    running.process.stdin.flush()
    assert running.first_output() == "1\n"
    running.process.stdin.write("{}\n")
    running.process.stdin.close()
    assert running.ended() == 0
    assert running.stdout == "1\n2\n"


def test_bulk_that_redis_refuses_names_the_lines(beeq: Beeq, own_valkey: Server, queue_name: str) -> None:
    with own_valkey.sync_client() as client:
        client.config_set("maxmemory", "1")
    ran = beeq.run("enqueue", queue_name, "--bulk", "-", "-u", own_valkey.url, stdin="{}\n{}\n")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert [line[:7] for line in ran.stderr.splitlines()] == ["line 1:", "line 2:"]
    assert "OOM" in ran.stderr


# Embedded.


def test_a_printed_job_survives_all_processes_and_runs_later(bare_beeq: Beeq) -> None:
    bare_beeq.app(APP)
    assert bare_beeq.ok("enqueue", "addition", "answer:=7", "--id", "x") == "x\n"
    bare_beeq.end()
    assert bare_beeq.stats("addition")["waiting"] == 1
    ran = bare_beeq.run("worker", "--burst", "--app", "app:queue", "addition", TEST_QUEUE="addition")
    assert (ran.returncode, ran.stdout) == (0, "")
    first = "Queue worker started: addition (1 place) on embedded:, prefix bq; 1 process; keeps "
    assert said(ran.stderr.splitlines()[0]).startswith(first)
    assert bare_beeq.ok("enqueue", "addition", "--id", "x", "--wait", "-q") == "7\n"


def test_a_change_that_no_replica_confirms_is_no_success(beeq: Beeq, queue_name: str, record: Any) -> None:
    """The session's server has none. The job is there, and the message has its id; Redis was not away."""
    ran = beeq.run("enqueue", queue_name, "--id", "alone", BEEQ_WAIT_REPLICAS="1")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "0 of 1 replicas confirmed it in 2500 ms: whether job alone outlasts a failover" in ran.stderr
    assert "cannot connect" not in ran.stderr
    assert record("alone")
    ran = beeq.run("cancel", "alone", "--queue", queue_name, "--wait-replicas", "1")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "whether job alone outlasts a failover" in ran.stderr


def test_bulk_says_of_each_line_that_no_replica_confirmed_it(beeq: Beeq, queue_name: str) -> None:
    ran = beeq.run("enqueue", queue_name, "--bulk", "-", "--wait-replicas", "1", stdin="{}\n{}\n")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert [line.partition(":")[0] for line in ran.stderr.splitlines()] == ["line 1", "line 2"]
