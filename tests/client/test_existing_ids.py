"""Enqueueing under an id that is taken answers with the job that has it."""

from __future__ import annotations

import asyncio

import pytest

from beeq import JobFailed, JobUnreadable, RedisRefused
from beeq.job_spec import JobOptions, JobSpec
from beeq.service import QueueService
from beeq.sync import Queue as BlockingQueue
from beeq.sync import QueueService as BlockingService

pytestmark = pytest.mark.fast


async def test_a_new_job_says_that_it_is_new(make_queue):
    queue = make_queue(is_worker=False)
    job = queue.create_job({})
    assert not job.is_new
    assert (await job.save()).is_new
    assert (await queue.enqueue({}, id="own")).is_new
    jobs = [queue.create_job({}), queue.create_job({}).set_id("own")]
    await queue.save_all(jobs)
    assert [job.is_new for job in jobs] == [True, False]
    assert not (await queue.get_job("own")).is_new


async def test_enqueue_answers_with_the_job_that_has_the_id(make_queue):
    queue = make_queue(is_worker=False)
    first = await queue.enqueue({"n": 1}, id="same", retries=4)
    again = await queue.enqueue({"n": 2}, id="same", retries=1)
    assert (again.id, again.is_new, again.data, again.options) == ("same", False, {"n": 1}, first.options)
    assert (await queue.check_health()).waiting == 1


async def test_a_job_saved_again_is_not_new_and_has_no_id(make_queue):
    queue = make_queue(is_worker=False)
    job = await queue.enqueue({}, id="same")
    await job.save()
    assert (job.id, job.is_new) == (None, False)


async def test_the_existing_job_tells_its_result_and_its_events(make_queue):
    queue = make_queue()
    await queue.enqueue({"n": 1}, id="good")
    await queue.enqueue({"n": 0}, id="bad")
    again = [await queue.enqueue({"n": 5}, id=job_id) for job_id in ("good", "bad")]
    reported: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    again[0].on("succeeded", reported.set_result)

    @queue.process
    async def divide(job):
        return 6 // job.data["n"]

    assert await again[0].result(timeout=5000) == 6
    assert await asyncio.wait_for(reported, 5) == 6
    with pytest.raises(JobFailed, match="zero"):
        await again[1].result(timeout=5000)
    assert await (await queue.enqueue({"n": 7}, id="good")).result(timeout=5000) == 6


async def test_an_id_that_falls_free_between_two_calls_is_used(make_queue, monkeypatch):
    queue = make_queue(is_worker=False)
    await queue.enqueue({"n": 1}, id="same")
    get_job = queue._actions.get_job

    async def removed(job_id):
        await queue.remove_job(job_id)
        return await get_job(job_id)

    monkeypatch.setattr(queue._actions, "get_job", removed)
    job = await queue.enqueue({"n": 2}, id="same")
    assert (job.id, job.is_new, job.data) == ("same", True, {"n": 2})


async def test_an_id_that_is_never_there_when_looked_at_is_an_error(make_queue, monkeypatch):
    queue = make_queue(is_worker=False)
    await queue.enqueue({}, id="same")

    async def nothing(_job_id):
        return None

    monkeypatch.setattr(queue._actions, "get_job", nothing)
    with pytest.raises(RedisRefused, match="the id same was taken"):
        await queue.enqueue({}, id="same")


@pytest.mark.no_audit("the record is broken on purpose")
async def test_an_existing_job_that_cannot_be_read_is_said(make_queue, redis):
    queue = make_queue(is_worker=False)
    await redis.hset(queue.keys.jobs, "same", "not a record")
    with pytest.raises(JobUnreadable):
        await queue.enqueue({}, id="same")


async def test_a_spec_answers_with_the_job_that_has_the_id(make_queue):
    queue = make_queue(is_worker=False)
    spec = JobSpec(queue.name, JobOptions(job_id="same"))
    assert (await spec.save(queue, {"n": 1})).is_new
    again = await spec.save(queue, {"n": 2})
    assert (again.id, again.is_new, again.data) == ("same", False, {"n": 1})


async def test_the_service_answers_with_the_existing_job(valkey, queue_name):
    async with QueueService(redis=valkey.url, prefix=queue_name) as service:
        webhook = {"id": "same", "webhookUrl": "https://example.com/", "payload": {"a": 1}}
        assert (await service.add_webhook_job(webhook)).is_new
        again = await service.add_webhook_job({**webhook, "payload": {"a": 2}})
        assert (again.id, again.is_new, again.data["payload"]) == ("same", False, {"a": 1})
        for queue in service.queues.values():
            await queue.destroy()


def test_the_blocking_twins_answer_with_the_existing_job(valkey, queue_name):
    with BlockingQueue(queue_name, redis=valkey.url) as queue:
        assert queue.enqueue({"n": 1}, id="same").is_new
        again = queue.enqueue({"n": 2}, id="same")
        assert (again.id, again.is_new, again.data) == ("same", False, {"n": 1})
        job = queue.create_job({}).set_id("same").save()
        assert (job.id, job.is_new) == (None, False)
    with BlockingService(redis=valkey.url, prefix=queue_name) as service:
        media = {"id": "same", "type": "frame-extract", "inputFiles": ["a.mp4"], "outputPath": "a.png"}
        assert [service.add_media_processing_job(media).is_new for _ in range(2)] == [True, False]
    for name in ("ai-generation", "media-processing", "video-assembly", "webhook-processing"):
        with BlockingQueue(name, redis=valkey.url, prefix=queue_name) as queue:
            queue.destroy()
