"""The queue service: four kinds of jobs on their own terms, followed and cancelled by their ids."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime

import pytest

from beeq import Discard, JobFailed, Queue, RedisUnavailable
from beeq.jobs import InvalidJob, WebhookJob
from beeq.service import QueueService
from beeq.sync import QueueService as BlockingService

pytestmark = pytest.mark.fast

SCRIPT = {"type": "script", "parameters": {"topic": "bees"}, "projectId": "p-1", "userId": 7}
MEDIA = {"type": "frame-extract", "inputFiles": ["a.mp4"], "outputPath": "a.png"}
ASSEMBLY = {"sceneVideos": ["a.mp4"], "masterAudio": "a.mp3", "outputFormats": ["mp4"]}
WEBHOOK = {"webhookUrl": "https://example.com/", "payload": {"a": 1}}
KINDS = [
    # method, queue, job, timeout in ms, retries, backoff
    ("add_ai_generation_job", "ai-generation", SCRIPT, 1_800_000, 3, ("exponential", 2000)),
    ("add_media_processing_job", "media-processing", MEDIA, 3_600_000, 2, ("exponential", 5000)),
    ("add_video_assembly_job", "video-assembly", ASSEMBLY, 7_200_000, 1, ("immediate", 0)),
    ("add_webhook_job", "webhook-processing", WEBHOOK, 30_000, 5, ("exponential", 1000)),
]


@pytest.fixture
async def service(valkey, queue_name):
    async with QueueService(redis=valkey.url, prefix=queue_name) as service:
        yield service
        for queue in service.queues.values():
            await queue.destroy()


def worker_of(service, valkey, queue_name, handler):
    """Return a worker on one of the service's queues."""
    queue = Queue(queue_name, redis=valkey.url, prefix=service.queues[queue_name].settings.prefix)
    queue.process(handler)
    return queue


@pytest.mark.parametrize(("method", "queue_name_", "job", "timeout_ms", "retries", "backoff"), KINDS)
async def test_each_kind_of_job_goes_to_its_queue_on_its_terms(
    service, redis, method, queue_name_, job, timeout_ms, retries, backoff
):
    saved = await getattr(service, method)(job)
    record = json.loads(await redis.hget(service.queues[queue_name_].keys.jobs, saved.id))
    assert {name: record["data"][name] for name in job} == job
    assert uuid.UUID(record["data"]["id"]) == uuid.UUID(saved.id)
    assert datetime.fromisoformat(record["data"]["createdAt"]).tzinfo is not None
    options = record["options"]
    assert (options["timeout"], options["retries"]) == (timeout_ms, retries)
    assert options["backoff"] == dict(zip(("strategy", "delay"), backoff, strict=True))
    assert (await service.queue_stats())[queue_name_].waiting == 1


async def test_options_override_the_policy(service, redis):
    options = {
        "retries": 0,
        "timeout": 1000,
        "backoff": {"strategy": "fixed", "delay": 5},
        "delayUntil": 2**45,
    }
    saved = await service.add_webhook_job(WEBHOOK, options)
    stored = json.loads(await redis.hget(service.queues["webhook-processing"].keys.jobs, saved.id))["options"]
    assert (stored["retries"], stored["timeout"], stored["delay"]) == (0, 1000, 2**45)
    assert stored["backoff"] == {"strategy": "fixed", "delay": 5}


@pytest.mark.parametrize(
    ("job", "options", "complaint"),
    [
        ({**WEBHOOK, "payload": 1, "webhookUrl": "ftp://x"}, None, "webhookUrl.*payload"),
        ("text", None, "must be an object"),
        (WEBHOOK, {"retry": 1}, "unknown option: retry"),
        (WEBHOOK, {"backoff": 7}, "backoff"),
        (WEBHOOK, {"retries": -1}, "negative"),
        ({**WEBHOOK, "id": "a"}, {"id": "b"}, "another id"),
    ],
)
async def test_a_bad_job_or_option_is_refused_and_nothing_is_written(service, job, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        await service.add_webhook_job(job, options)
    assert (await service.queue_stats())["webhook-processing"].waiting == 0


async def test_every_fault_of_a_job_is_named(service):
    with pytest.raises(InvalidJob) as refused:
        await service.add_media_processing_job({"type": "nope"})
    assert [fault.split(":")[0] for fault in refused.value.faults] == ["type", "inputFiles", "outputPath"]


async def test_models_and_snake_case_are_jobs_as_well(service, redis):
    model = WebhookJob(webhook_url="https://example.com/", payload={"a": 1}, id="model")
    snake = {"webhook_url": "https://example.com/", "payload": {"a": 1}, "id": "snake", "own_field": 1}
    for job in (model, snake):
        saved = await service.add_webhook_job(job)
        data = json.loads(await redis.hget(service.queues["webhook-processing"].keys.jobs, saved.id))["data"]
        assert data["webhookUrl"] == "https://example.com/"
        assert data["retryCount"] == 0


async def test_putting_a_job_twice_does_it_once(service):
    first = await service.add_webhook_job({**WEBHOOK, "id": "once"})
    second = await service.add_webhook_job({**WEBHOOK, "id": "once"})
    assert (first.id, second.id) == ("once", "once")
    assert (await service.queue_stats())["webhook-processing"].waiting == 1


async def test_a_jobs_status_is_told_from_its_beginning_to_its_end(service, valkey, eventually):
    go_on, retried = asyncio.Event(), asyncio.Event()

    async def handler(job):
        if "attempt" not in job.memory:
            await job.remember(attempt=1)
            await go_on.wait()
            raise ValueError("try again")
        await retried.wait()
        return {"title": "Bees"}

    options = {"backoff": ("fixed", 200)}
    job = await service.add_ai_generation_job(SCRIPT, options)

    async def status():
        return await service.get_job_status(job.id)

    document = await status()
    created_at = document.pop("createdAt")
    assert abs((datetime.now(UTC) - created_at).total_seconds()) < 60
    assert document.pop("updatedAt") == created_at
    assert document.pop("jobData")["parameters"] == {"topic": "bees"}
    assert document == {
        "jobId": job.id,
        "queueName": "ai-generation",
        "status": "queued",
        "result": None,
        "error": None,
        "projectId": "p-1",
    }
    worker = worker_of(service, valkey, "ai-generation", handler)

    async def is_processing():
        return (await status())["status"] == "processing"

    await eventually(is_processing)
    assert (await service.active_counts())["ai-generation"] == 1
    go_on.set()

    async def will_be_retried():
        document = await status()
        return document["error"] == "try again" and document["status"] in ("queued", "processing")

    await eventually(will_be_retried)
    retried.set()
    await job.result(timeout=5000)
    document = await status()
    assert (document["status"], document["result"], document["error"]) == (
        "completed",
        {"title": "Bees"},
        None,
    )
    await worker.close()


async def test_a_failed_job_has_its_message_without_the_trace(service, valkey):
    async def handler(job):
        raise Discard("no: never")

    job = await service.add_webhook_job(WEBHOOK)
    worker = worker_of(service, valkey, "webhook-processing", handler)

    with pytest.raises(JobFailed):
        await job.result(timeout=5000)
    document = await service.get_job_status(job.id)
    assert (document["queueName"], document["error"]) == ("webhook", "no: never")
    await worker.close()


async def test_jobs_are_cancelled_by_id_wherever_they_are(service, valkey):
    started, stopped = asyncio.Event(), asyncio.Event()

    async def handler(job):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    waiting = await service.add_video_assembly_job(ASSEMBLY)
    delayed = await service.add_media_processing_job(MEDIA, {"delay_until": 2**45})
    running = await service.add_ai_generation_job(SCRIPT)
    worker = worker_of(service, valkey, "ai-generation", handler)
    await started.wait()
    for job in (waiting, delayed, running):
        assert await service.cancel_job(job.id) is True
        document = await service.get_job_status(job.id)
        assert (document["status"], document["error"]) == ("cancelled", f"Job {job.id} was cancelled")
        assert await service.cancel_job(job.id) is False
    await asyncio.wait_for(stopped.wait(), 30)
    await worker.close()


async def test_an_id_of_two_queues_is_not_cancelled_by_guess(service):
    await service.add_webhook_job({**WEBHOOK, "id": "7"})
    await service.add_media_processing_job({**MEDIA, "id": "7"})
    with pytest.raises(ValueError, match="media-processing, webhook-processing"):
        await service.cancel_job("7")
    assert await service.cancel_job("7", queue_name="media-processing") is True
    assert (await service.get_job_status("7", queue_name="webhook-processing"))["status"] == "queued"
    with pytest.raises(ValueError, match="built-in"):
        await service.cancel_job("7", queue_name="nope")


async def test_of_an_unknown_job_nothing_is_known(service):
    assert await service.get_job_status("unknown") is None
    assert await service.cancel_job("unknown") is False


def test_the_blocking_service_does_the_same(valkey, queue_name):
    with BlockingService(redis=valkey.url, prefix=queue_name) as service:
        added = [
            service.add_ai_generation_job(SCRIPT),
            service.add_media_processing_job(MEDIA),
            service.add_video_assembly_job(ASSEMBLY),
            service.add_webhook_job(WEBHOOK, {"retries": 0}),
        ]
        assert [stats.waiting for stats in service.queue_stats().values()] == [1, 1, 1, 1]
        assert set(service.active_counts().values()) == {0}
        for job in added:
            status = service.get_job_status(job.id)
            assert status is not None
            assert status["status"] == "queued"
            assert service.cancel_job(job.id) is True


async def test_without_redis_the_service_raises_and_leaves_none_open(own_valkey):
    url = own_valkey.url
    own_valkey.stop()
    with pytest.raises(RedisUnavailable):
        async with QueueService(redis=url):
            raise AssertionError("not reached")
