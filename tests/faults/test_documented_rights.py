"""A user with exactly the documented rights of one queue, on every server; and with one right too few."""

from __future__ import annotations

import asyncio
import shlex
from datetime import timedelta
from pathlib import Path

import pytest

import beeq
from beeq import JobFailed, RedisRefused
from beeq.redis.rights import RIGHTS, acl_lines, acl_rules, needed_by, optional

pytestmark = pytest.mark.more_rights("users of its own")
SOON_S = 5.0
OPTIONAL = optional()


@pytest.fixture
def user_url(each_server, queue_name):
    """``user_url("queue", without="zadd")``: a URL whose user has the documented rights of the test's queue."""

    def make(*parts: str, without: str = "", prefix: str = "bq", extra=OPTIONAL) -> str:
        name = "-".join(("user", *parts, without))
        rules = [
            rule
            for rule in acl_rules(prefix, queue_name, *needed_by(*parts), *extra)
            if rule != f"+{without}"
        ]
        with each_server.sync_client() as admin:
            admin.execute_command("ACL", "SETUSER", name, "reset", "resetchannels", "on", ">pw", *rules)
        return f"redis://{name}:pw@127.0.0.1:{each_server.port}"

    return make


async def produce(queue) -> None:
    """Call what a program calls that has no handler."""
    await queue.ready()
    job = await queue.enqueue("x", retries=1)
    await queue.enqueue("x", id="own")
    await queue.save_all([queue.create_job(n) for n in range(3)])
    await queue.enqueue("x", id="later", delay_until=timedelta(hours=1))
    for kind in ("waiting", "active", "delayed"):
        await queue.get_jobs(kind, start=0, end=9)
    for kind in ("succeeded", "failed"):
        await queue.get_jobs(kind, size=9)
    assert (await queue.get_job(job.id)).data == "x"
    for name in ("waiting", "active", "succeeded", "failed", "delayed"):
        await job.is_in_set(name)
    await job.report_progress(10)
    await queue.check_health()
    assert await queue.cancel_job("own")
    await queue.remove_job("later")
    await job.retry()
    await queue.clean("failed", 0)
    await queue.enqueue("x", id="later", delay_until=timedelta(hours=1))
    assert [found.job.id async for found in queue.find_jobs(state="delayed")] == ["later"]
    await queue.retry_many()
    await queue.run_many(limit=1)
    await queue.cancel_many(limit=1)
    await queue.remove_many(state=("waiting", "active", "delayed", "succeeded", "failed"), limit=1)


async def work(queue, producer) -> None:
    """Let jobs of all kinds run."""

    @queue.process(concurrency=3)
    async def handler(job):
        await job.report_progress(1)
        await job.remember(seen=True)
        if job.data == "bad":
            raise ValueError("no")
        return job.data

    jobs = [await producer.enqueue(n) for n in range(1, 10)]
    assert [await job.result(timeout=10_000) for job in jobs] == list(range(1, 10))
    with pytest.raises(JobFailed):
        await (await producer.enqueue("bad", retries=1, backoff=("fixed", 10))).result(timeout=10_000)
    later = await producer.enqueue("later", delay_until=timedelta(milliseconds=50))
    assert await later.result(timeout=10_000) == "later"
    await queue.check_stalled_jobs()
    assert await (await producer.enqueue("at last")).result(timeout=10_000) == "at last"


async def test_a_producer_with_the_documented_rights_lacks_nothing(user_url, make_queue):
    await produce(make_queue(redis=user_url("queue"), is_worker=False))


@pytest.mark.parametrize("settings", [{}, {"remove_on_success": True, "remove_on_failure": True}])
async def test_a_worker_with_the_documented_rights_lacks_nothing(user_url, make_queue, settings):
    producer = make_queue(redis=user_url("queue"), is_worker=False)
    worker = make_queue(redis=user_url("worker"), stall_interval=500, **settings)
    await work(worker, producer)
    await worker.close(2000)
    await producer.destroy()


async def test_a_worker_without_any_optional_right_says_so_and_works(user_url, make_queue, recorder):
    producer = make_queue(redis=user_url("queue", extra=()), is_worker=False)
    worker = make_queue(redis=user_url("worker", extra=()), stall_interval=500)
    record = recorder(worker, "error")
    await work(worker, producer)
    await worker.close(2000)
    said = [str(error) for (error,) in record.of("error")]
    assert len(said) == 2
    assert "+client" in said[0]
    assert "+blmove" in said[1]


async def test_a_mirrored_queue_needs_its_parts_rights_too(user_url, make_queue, each_server):
    url = user_url("queue", "worker", "mirrored")
    queue = make_queue(redis=url, mirrored=True)
    await work(queue, queue)
    async with each_server.client() as admin:
        assert await admin.xlen(queue.keys.outbox) > 0


#: Of a worker's rights some that are needed late: for two jobs at once, a clean up, a delayed job.
@pytest.mark.parametrize("without", ["lmove", "hrandfield", "zadd", "sismember"])
async def test_a_right_too_few_is_said_when_a_worker_begins(
    user_url, make_queue, recorder, eventually, without
):
    queue = make_queue(redis=user_url("queue", "worker", without=without))
    record = recorder(queue, "error")
    queue.process(lambda job: job.data)

    def said() -> list[str]:
        texts = [str(error) for (error,) in record.of("error")]
        return [
            text for text in texts if f"may not run {without.upper()} (" in text and f"+{without} " in text
        ]

    await eventually(said, SOON_S)
    assert len(said()) == 1


async def test_a_right_too_few_is_said_when_a_queue_opens(user_url, make_queue, recorder):
    queue = make_queue(redis=user_url("queue", without="zadd"), is_worker=False)
    record = recorder(queue, "error")
    await queue.enqueue("x")
    ((error,),) = record.of("error")
    assert isinstance(error, RedisRefused)
    assert error.code == "NOPERM"
    assert "ZADD (delayed jobs)" in str(error)
    # Redis 6.2 and 7.0 do not say which command it was, where the script goes on after it.
    with pytest.raises(RedisRefused, match=r"needs (\+zadd|more commands) ") as refused:
        await queue.enqueue("x", delay_until=timedelta(hours=1))
    assert refused.value.code == "NOPERM"


async def test_the_wrong_keys_are_said_when_a_queue_opens(user_url, make_queue, recorder, queue_name):
    url = user_url("queue", prefix="other")
    queue = make_queue(redis=url, is_worker=False, get_events=False, activate_delayed_jobs=False)
    record = recorder(queue, "error")
    with pytest.raises(RedisRefused, match=r"~<prefix>:<queue>:\*"):
        await asyncio.wait_for(queue.enqueue("x"), SOON_S)
    assert f"~bq:{queue_name}:*" in str(record.of("error")[0][0])


@pytest.mark.parametrize("command", ["evalsha", "script|load", "subscribe", "ping"])
async def test_a_call_names_the_right_that_it_needs(user_url, make_queue, expect_errors, command):
    queue = make_queue(redis=user_url("queue", without=command), is_worker=False)
    with pytest.raises(RedisRefused) as refused:
        await asyncio.wait_for(queue.enqueue("x"), SOON_S)
    name = command.partition("|")[0]  # Redis 6.2 names no subcommand
    assert f"+{name}" in str(refused.value)


async def test_the_readmes_lines_make_a_user_who_lacks_nothing(each_server, make_queue, queue_name):
    """They are copied word for word, but for the names; it needs no ``prefix`` of its own."""
    with each_server.sync_client() as admin:
        for words in readme_calls():
            assert words[:4] == ["redis-cli", "ACL", "SETUSER", "beeq"]
            admin.execute_command(*(word.replace("mail", queue_name) for word in words[1:]))
    url = f"redis://beeq:PASSWORD@127.0.0.1:{each_server.port}"
    worker = make_queue(redis=url, mirrored=True)
    await work(worker, worker)


def readme_calls() -> list[list[str]]:
    readme = (Path(beeq.__file__).parents[1] / "README.md").read_text()
    block = readme.partition("### Rights")[2].partition("```sh\n")[2].partition("```")[0]
    return [shlex.split(line, comments=True) for line in block.splitlines() if not line.startswith("#")]


def test_the_readmes_lines_are_those_of_the_table():
    rules = [words[4:] for words in readme_calls()]
    assert rules == [line.split() for _about, line in acl_lines("bq", "mail")]


def test_what_is_optional_says_what_happens_without_it():
    for right in RIGHTS:
        assert right.parts or "without" in right.why, right
