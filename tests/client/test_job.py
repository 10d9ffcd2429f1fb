"""A job object: what it has, what may be asked of it, and what it asks of its owner."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from beeq import Job, JobFailed
from beeq.protocol.codec import Record

pytestmark = pytest.mark.fast


async def stored(redis, queue, job):
    return json.loads(await redis.hget(queue.keys.jobs, job.id))


async def test_a_saved_job_has_an_id_and_its_data(make_queue):
    """bee-queue's callback form is the awaitable form."""
    job = make_queue(is_worker=False).create_job({"foo": "bar"})
    assert (job.id, job.status, job.progress) == (None, "created", 0)
    assert await job.save() is job
    assert (job.id, job.data) == ("1", {"foo": "bar"})


@pytest.mark.parametrize("data", [None, False, 0, 0.0, -0.0, math.nan, "", {}])
async def test_a_payload_javascript_calls_falsy_is_an_empty_object(make_queue, redis, data):
    queue = make_queue(is_worker=False)
    job = await queue.create_job(data).save()
    assert job.data == {}
    assert (await stored(redis, queue, job))["data"] == {}


@pytest.mark.parametrize("data", [False, 0, 0.0, ""])
async def test_enqueue_keeps_a_falsy_value_and_its_handler_gets_it(make_queue, redis, data):
    queue, seen = make_queue(), []

    @queue.process
    async def handler(job):
        seen.append(job.data)
        if len(seen) == 1:
            raise ValueError("again")

    job = await queue.enqueue(data, retries=1)
    await job.result(timeout=5000)
    assert seen == [data, data]
    assert [type(value) for value in seen] == [type(data)] * 2
    assert (await stored(redis, queue, job))["data"] == data
    assert (await queue.get_job(job.id)).data == data


async def test_enqueue_without_data_gives_an_empty_object(make_queue, redis):
    queue = make_queue(is_worker=False)
    for job in (await queue.enqueue(), await queue.enqueue(None)):
        assert job.data == {}
        assert (await stored(redis, queue, job))["data"] == {}


@pytest.mark.parametrize("data", [[], [None], True, 1, "text", {"a": []}, [[[]]], -1.5])
async def test_any_other_payload_is_kept(make_queue, redis, data):
    """An empty list is one of them."""
    queue = make_queue(is_worker=False)
    job = await queue.create_job(data).save()
    assert (await stored(redis, queue, job))["data"] == data


async def test_options_are_stored_in_the_order_they_were_asked_in(make_queue, redis):
    queue = make_queue(is_worker=False)
    due_ms = queue.now_ms() + 60_000
    job = (
        await queue.create_job().retries(2).backoff("exponential", 100).timeout(50).delay_until(due_ms).save()
    )
    options = (await stored(redis, queue, job))["options"]
    assert list(options) == ["timestamp", "stacktraces", "retries", "backoff", "timeout", "delay"]
    assert options["retries"] == 2
    assert options["backoff"] == {"strategy": "exponential", "delay": 100}
    assert options["timeout"] == 50
    assert options["delay"] == due_ms


@pytest.mark.parametrize(
    ("ask", "error", "text"),
    [
        (lambda job: job.retries(-1), ValueError, "^Retries cannot be negative$"),
        (lambda job: job.retries("3"), TypeError, "retries"),
        (lambda job: job.retries(1.5), TypeError, "retries"),
        (lambda job: job.retries(None), TypeError, "retries"),
        (lambda job: job.retries(math.nan), TypeError, "retries"),
        (lambda job: job.timeout(-1), ValueError, "^Timeout cannot be negative$"),
        (lambda job: job.timeout(math.nan), TypeError, "timeout"),
        (lambda job: job.timeout("5"), ValueError, "^timeout: the duration '5' has no unit"),
        (lambda job: job.timeout(2**31), ValueError, "timeout"),
        (lambda job: job.delay_until(None), ValueError, "^invalid delay timestamp$"),
        (lambda job: job.delay_until(math.nan), ValueError, "^invalid delay timestamp$"),
        (lambda job: job.delay_until("wobble"), ValueError, "^invalid delay timestamp$"),
        (lambda job: job.delay_until(-1), ValueError, "^invalid delay timestamp$"),
        (lambda job: job.delay_until(math.inf), ValueError, "^invalid delay timestamp$"),
        (lambda job: job.delay_until(True), ValueError, "^invalid delay timestamp$"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_changes_nothing(make_queue, ask, error, text):
    """A timeout above 2^31 - 1 fires at once in Node."""
    job = make_queue(is_worker=False).create_job({})
    before = dict(job.options)
    with pytest.raises(error, match=text):
        ask(job)
    assert job.options == before


async def test_a_due_time_is_a_datetime_milliseconds_or_a_timedelta(make_queue):
    queue = make_queue(is_worker=False)
    when = datetime(2099, 1, 1, tzinfo=UTC)
    due_ms = int(when.timestamp() * 1000)
    assert queue.create_job().delay_until(when).options["delay"] == due_ms
    assert queue.create_job().delay_until(due_ms).options["delay"] == due_ms
    assert queue.create_job().delay_until(due_ms + 0.7).options["delay"] == due_ms
    naive = datetime.fromtimestamp(when.timestamp())  # noqa: DTZ006 - local time is what naive means
    assert queue.create_job().delay_until(naive).options["delay"] == due_ms
    soon = queue.create_job().delay_until(timedelta(minutes=1)).options["delay"]
    assert soon == pytest.approx(queue.now_ms() + 60_000, abs=5000)


async def test_a_due_time_that_has_passed_is_not_stored(make_queue, redis):
    queue = make_queue(is_worker=False)
    job = await queue.create_job().delay_until(queue.now_ms() - 1000).save()
    assert "delay" not in (await stored(redis, queue, job))["options"]
    assert await redis.lrange(queue.keys.waiting, 0, -1) == [job.id]


async def test_a_duration_may_be_a_timedelta(make_queue):
    job = make_queue(is_worker=False).create_job()
    job.timeout(timedelta(seconds=2)).backoff("fixed", timedelta(seconds=1))
    assert job.options["timeout"] == 2000
    assert job.options["backoff"] == {"strategy": "fixed", "delay": 1000}


async def test_a_duration_may_be_text_with_a_unit(make_queue, redis):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({}, timeout="30s", backoff=("exponential", "1.5s"), delay_until="5m")
    options = (await stored(redis, queue, job))["options"]
    assert options["timeout"] == 30_000
    assert options["backoff"] == {"strategy": "exponential", "delay": 1500}
    assert options["delay"] == pytest.approx(queue.now_ms() + 300_000, abs=5000)


@pytest.mark.parametrize("text", ["30", "soon", ""])
async def test_text_that_is_no_duration_is_refused(make_queue, text):
    queue = make_queue(is_worker=False)
    with pytest.raises(ValueError, match="^timeout: .*; write 500ms"):
        queue.create_job().timeout(text)
    with pytest.raises(ValueError, match="^delay must be a positive integer$"):
        queue.create_job().backoff("fixed", text)
    with pytest.raises(ValueError, match="^invalid delay timestamp$"):
        queue.create_job().delay_until(text)
    for name, wait in (
        ("timeout", lambda: queue.create_job().set_id("x").result(text)),
        ("older_than", lambda: queue.clean("failed", text)),
    ):
        with pytest.raises(ValueError, match=f"^{name}: .*; write 500ms"):
            await wait()


async def test_a_record_read_back_has_options_nobody_here_knows(make_queue, redis):
    """bee-queue's callback form is the awaitable form."""
    queue = make_queue()
    job = queue.create_job({"foo": "bar"})
    job.options["some"] = {"extension": [1, 2]}
    await job.save()
    found = await queue.get_job(job.id)
    assert (found.id, found.data) == (job.id, {"foo": "bar"})
    assert found.options["some"] == {"extension": [1, 2]}

    @queue.process
    async def handler(_job):
        return None

    await job.result(timeout=5000)
    assert (await stored(redis, queue, job))["options"]["some"] == {"extension": [1, 2]}


async def test_progress_cannot_be_empty(make_queue):
    job = await make_queue(is_worker=False).enqueue({})
    with pytest.raises(ValueError, match="^Progress cannot be empty$"):
        await job.report_progress(None)


async def test_an_unsaved_job_has_no_progress_to_report(make_queue):
    with pytest.raises(ValueError, match="no id"):
        await make_queue(is_worker=False).create_job({}).report_progress(1)


@pytest.mark.real_redis(
    "fakeredis does not list its databases: each event is checked, and this job has not begun"
)
@pytest.mark.parametrize("value", [{"a": "value"}, 0, False, "", [], 50, 0.5])
async def test_progress_of_any_kind_reaches_the_jobs_listeners(make_queue, recorder, value):
    """bee-queue's callback form is the awaitable form."""
    producer, worker = make_queue(is_worker=False), make_queue(is_worker=False)
    job = await producer.enqueue({})
    record = recorder(job, "progress")
    elsewhere = await worker.get_job(job.id)
    assert await elsewhere.report_progress(value) >= 1
    assert await record.until("progress") == [(value,)]
    assert job.progress == value


async def test_progress_that_is_not_json_is_refused_and_the_old_stays(make_queue):
    job = await make_queue(is_worker=False).enqueue({})
    await job.report_progress(10)
    with pytest.raises(TypeError):
        await job.report_progress(object())
    assert job.progress == 10


@pytest.mark.real_redis(
    "fakeredis does not list its databases: each event is checked, and this job has not begun"
)
async def test_progress_that_is_no_number_is_published_as_null(make_queue, recorder):
    """NaN on the channel ends every Node process that listens."""
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({})
    record = recorder(queue, "job progress")
    await job.report_progress(math.nan)
    await job.report_progress([math.inf])
    assert await record.until("job progress", count=2) == [(job.id, None), (job.id, [None])]


async def test_the_progress_of_a_running_job_can_be_read_meanwhile(make_queue):
    """bee-queue writes it at the end only."""
    queue = make_queue()
    seen = []

    @queue.process
    async def handler(job):
        await job.report_progress({"percent": 30})
        seen.append((await queue.get_job(job.id)).progress)

    job = await queue.enqueue({})
    await job.result(timeout=5000)
    assert seen == [{"percent": 30}]
    assert (await queue.get_job(job.id)).progress == {"percent": 30}


async def test_membership_is_told_for_every_set_and_list(make_queue):
    """bee-queue answers for three of them only."""
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({})
    assert await job.is_in_set("stalling") is False
    answers = {
        name: await job.is_in_set(name) for name in ("waiting", "active", "delayed", "succeeded", "failed")
    }
    assert answers == {
        "waiting": True,
        "active": False,
        "delayed": False,
        "succeeded": False,
        "failed": False,
    }
    with pytest.raises(ValueError, match="Improper queue type"):
        await job.is_in_set("jobs")


async def test_a_running_job_cannot_be_saved_again(make_queue):
    """In bee-queue this wrecks the job."""
    queue = make_queue()
    raised = []

    @queue.process
    async def handler(job):
        for attempt in (job.save, lambda: queue.save_all([job])):
            with pytest.raises(RuntimeError, match="running job"):
                await attempt()
            raised.append(job.id)
        return "fine"

    job = await queue.enqueue({})
    assert await job.result(timeout=5000) == "fine"
    assert raised == ["1", "1"]


async def test_what_a_handler_changes_in_its_data_is_kept(make_queue, redis):
    queue = make_queue()

    @queue.process
    async def handler(job):
        job.data["seen"] = True

    job = await queue.enqueue({"x": 1})
    await job.result(timeout=5000)
    assert (await stored(redis, queue, job))["data"] == {"x": 1, "seen": True}


@pytest.mark.parametrize("state", ["waiting", "active", "succeeded", "removed", "delayed"])
async def test_a_job_that_has_not_failed_cannot_be_retried(make_queue, redis, eventually, state):
    """In bee-queue the job is then there twice."""
    queue = make_queue()
    end = asyncio.Event()
    if state in ("active", "succeeded"):

        @queue.process
        async def handler(_job):
            await end.wait()

    job = await queue.enqueue({}, delay_until=queue.now_ms() + 60_000 if state == "delayed" else None)
    if state == "active":

        async def runs():
            return await redis.llen(queue.keys.active) == 1

        await eventually(runs)
    if state == "succeeded":
        end.set()
        await job.result(timeout=5000)
    if state == "removed":
        await job.remove()
    before = await queue.check_health()
    assert await job.retry() is False
    assert await queue.check_health() == before
    end.set()


async def test_of_many_retries_of_one_failed_job_one_counts(make_queue, redis):
    """And its record no longer says that it failed."""
    queue = make_queue()

    @queue.process
    async def handler(_job):
        raise ValueError("no")

    job = await queue.enqueue({})
    with pytest.raises(JobFailed):
        await job.result(timeout=5000)
    await queue.close()
    others = [make_queue(is_worker=False) for _ in range(3)]
    copies = [await other.get_job(job.id) for other in others]
    answers = await asyncio.gather(*(copy.retry() for copy in copies))
    assert sorted(answers) == [False, False, True]
    assert await redis.lrange(queue.keys.waiting, 0, -1) == [job.id]
    assert (await stored(redis, queue, job))["status"] == "retrying"
    assert await redis.exists(queue.keys.failed) == 0


async def test_a_jobs_queue_is_the_queue_it_was_made_or_found_by(make_queue):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue(1)
    assert job.queue is queue
    found = await queue.get_job(job.id)
    assert found is not None
    assert found.queue is queue


class RecordingOwner:
    """Writes down what a job asks of it."""

    name = "q"
    queue = None

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        async def method(*_arguments: Any) -> None:
            self.calls.append(name)

        return method


@pytest.mark.fast
@pytest.mark.parametrize(
    ("ask", "call"),
    [
        (lambda job: job.save(), "save"),
        (lambda job: job.remove(), "remove"),
        (lambda job: job.cancel(), "cancel"),
        (lambda job: job.retry(), "retry"),
        (lambda job: job.report_progress(1), "report_progress"),
        (lambda job: job.remember(a=1), "remember"),
        (lambda job: job.is_in_set("waiting"), "is_in_set"),
        (lambda job: job.result(), "result"),
    ],
)
async def test_each_verb_of_a_job_is_one_call_to_its_owner(ask, call):
    owner: Any = RecordingOwner()
    await ask(Job(owner, Record({}, {}), "1"))
    assert owner.calls == [call]
