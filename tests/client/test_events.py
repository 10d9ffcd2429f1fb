"""What a queue and its jobs tell: local events, and those that travel through Redis."""

from __future__ import annotations

import asyncio

import pytest

from beeq import JobFailed

pytestmark = pytest.mark.fast

EVENTS = ("succeeded", "retrying", "failed", "progress")


def heard_by(emitter, events=EVENTS, prefix=""):
    """Note each event of ``emitter`` as (name, *arguments)."""
    heard = []
    for event in events:
        emitter.on(prefix + event, lambda *args, event=event: heard.append((event, *args)))
    return heard


async def test_jobs_saved_before_the_worker_started_run_in_order(make_queue):
    producer = make_queue(is_worker=False)
    jobs = [await producer.enqueue({"n": n}) for n in range(5)]
    ran = []
    worker = make_queue()

    @worker.process
    async def handler(job):
        ran.append(job.data["n"])

    await jobs[-1].result(timeout=5000)
    assert ran == [0, 1, 2, 3, 4]


async def test_a_second_worker_does_not_take_a_job_in_progress(make_queue, eventually):
    first, second = make_queue(stall_interval=100), make_queue(stall_interval=100)
    started, end = asyncio.Event(), asyncio.Event()
    ran = []

    @first.process
    async def begin(job):
        ran.append(("first", job.id))
        started.set()
        await end.wait()
        return "mine"

    job = await first.enqueue({})
    await asyncio.wait_for(started.wait(), 30)

    @second.process
    async def take(job):
        ran.append(("second", job.id))

    other = await second.enqueue({})
    await other.result(timeout=5000)
    checks = [await second.check_stalled_jobs() for _ in range(3)]
    end.set()
    assert await job.result(timeout=5000) == "mine"
    assert checks == [0, 0, 0]
    assert ran == [("first", "1"), ("second", "2")]


@pytest.mark.parametrize("value", ["value", None, 0, False, "", {"x": [1, None]}])
async def test_success_is_told_on_job_and_queue_with_the_value(make_queue, recorder, value):
    producer, worker = make_queue(is_worker=False), make_queue()
    record = recorder(producer, "job succeeded")
    job = producer.create_job({"foo": "bar"})
    heard = heard_by(job)
    await job.save()

    @worker.process
    async def handler(_job):
        return value

    assert await record.until("job succeeded") == [(job.id, value)]
    assert heard == [("succeeded", value)]
    assert job.status == "succeeded"


async def test_failure_is_told_on_job_and_queue_as_an_exception(make_queue, recorder):
    producer, worker = make_queue(is_worker=False), make_queue()
    record = recorder(producer, "job failed")
    job = producer.create_job({})
    heard = heard_by(job)
    await job.save()

    @worker.process
    async def handler(_job):
        raise ValueError("fail!")

    ((job_id, error),) = await record.until("job failed")
    assert (job_id, str(error)) == (job.id, "fail!")
    assert isinstance(error, JobFailed)
    assert [(name, str(failure)) for name, failure in heard] == [("failed", "fail!")]


async def test_progress_is_told_before_success(make_queue, recorder):
    producer, worker = make_queue(is_worker=False), make_queue()
    record = recorder(producer, "job progress", "job succeeded")
    job = producer.create_job({})
    heard = heard_by(job)
    await job.save()

    @worker.process
    async def handler(job):
        await job.report_progress(20)
        return "done"

    await record.until("job succeeded")
    assert record.calls == [("job progress", job.id, 20), ("job succeeded", job.id, "done")]
    assert heard == [("progress", 20), ("succeeded", "done")]
    assert job.progress == 20


async def test_a_retry_is_told_and_the_producers_copy_counts_it(make_queue, recorder):
    producer, worker = make_queue(is_worker=False), make_queue()
    record = recorder(producer, "job retrying", "job succeeded", "job failed")
    job = producer.create_job({}).retries(1)
    heard = heard_by(job)
    await job.save()
    runs = []

    @worker.process
    async def handler(_job):
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("failing to retry")

    await record.until("job succeeded")
    assert [call[0] for call in record.calls] == ["job retrying", "job succeeded"]
    assert str(record.of("job retrying")[0][1]) == "failing to retry"
    assert [name for name, _ in heard] == ["retrying", "succeeded"]
    assert job.options["retries"] == 0


async def test_an_ungranted_retry_is_not_counted_below_none(make_queue, recorder):
    """bee-queue's copy says NaN."""
    producer, worker = make_queue(is_worker=False), make_queue()
    record = recorder(producer, "job succeeded")
    job = producer.create_job({})
    heard = heard_by(job)
    await job.save()
    runs = []

    @worker.process
    async def handler(job):
        runs.append(1)
        if len(runs) == 1:
            job.retries(1)
            raise ValueError("again")

    await record.until("job succeeded")
    assert [name for name, _ in heard] == ["retrying", "succeeded"]
    assert "retries" not in job.options


async def test_a_queue_that_wants_no_events_has_no_event_connection(make_queue, redis, recorder):
    before = {client["id"] for client in await redis.client_list()}
    producer = make_queue(is_worker=False, get_events=False, activate_delayed_jobs=False)
    record = recorder(producer, "job succeeded")
    job = producer.create_job({})
    heard = heard_by(job)
    await job.save()
    commands = {c["cmd"] for c in await redis.client_list() if c["id"] not in before}
    assert "subscribe" not in commands
    worker = make_queue()

    @worker.process
    async def handler(_job):
        return 1

    assert await job.result(timeout=5000) == 1  # looked up: nothing was heard
    assert record.calls == []
    assert heard == []


async def test_a_worker_that_sends_no_events_tells_nobody(make_queue, recorder):
    """Progress is still published."""
    producer, worker = make_queue(is_worker=False), make_queue(send_events=False)
    record = recorder(producer, "job succeeded", "job progress")
    local = recorder(worker, "succeeded")

    @worker.process
    async def handler(job):
        await job.report_progress(1)
        return "value"

    job = await producer.enqueue({})
    await local.until("succeeded")
    assert await job.result(timeout=5000) == "value"
    await record.until("job progress")
    assert record.calls == [("job progress", job.id, 1)]


async def test_each_job_object_hears_of_itself_and_the_queue_in_order(make_queue, recorder):
    producer, worker = make_queue(is_worker=False), make_queue()
    record = recorder(producer, "job succeeded")
    jobs = [producer.create_job({"n": n}) for n in range(2)]
    heard = [heard_by(job) for job in jobs]
    for job in jobs:
        await job.save()

    @worker.process
    async def handler(job):
        return job.data["n"]

    assert await record.until("job succeeded", count=2) == [("1", 0), ("2", 1)]
    assert heard == [[("succeeded", 0)], [("succeeded", 1)]]


async def test_a_listener_that_raises_is_an_error_event_only(make_queue, recorder):
    queue = make_queue()

    def broken(_job, _result):
        raise LookupError("broken listener")

    async def broken_too(_job, _result):
        raise LookupError("broken too")

    queue.on("succeeded", broken)
    queue.on("succeeded", broken_too)
    record = recorder(queue, "succeeded", "error")

    @queue.process
    async def handler(_job):
        return 1

    await queue.enqueue({})
    await record.until("succeeded")
    errors = await record.until("error", count=2)
    assert [str(error) for (error,) in errors] == ["broken listener", "broken too"]


async def test_an_error_nobody_listens_for_is_logged(valkey, queue_name, caplog, redis):
    from beeq import Queue

    async with Queue(queue_name, redis=valkey.url) as queue:
        queue.report_error(LookupError("something odd"))
    assert "something odd" in caplog.text
    assert queue_name in caplog.text


async def test_once_listens_once_and_off_ends_listening(make_queue, recorder):
    queue = make_queue()
    once, never = [], []
    queue.once("succeeded", lambda job, _result: once.append(job.id))
    queue.on("succeeded", lambda job, _result: never.append(job.id))
    listener = never.append
    queue.on("job succeeded", listener).off("job succeeded", listener)
    record = recorder(queue, "succeeded")

    @queue.process
    async def handler(_job):
        return None

    for _ in range(2):
        await queue.enqueue({})
    await record.until("succeeded", count=2)
    assert once == ["1"]
    assert never == ["1", "2"]


async def test_a_listener_added_to_a_worker_hears_of_jobs_elsewhere(make_queue, recorder, eventually):
    """A queue that only works has no event connection until someone wants one."""
    worker, other = make_queue(), make_queue()
    end = asyncio.Event()

    @worker.process
    async def handler(_job):
        await end.wait()

    await worker.ready()
    record = recorder(worker, "job progress")
    job = await other.enqueue({})

    async def is_heard():
        return await job.report_progress(5) and record.calls

    await eventually(is_heard)
    assert record.of("job progress")[0] == (job.id, 5)
    end.set()
