"""The mirror against a real server: whatever happens to jobs, their documents end up right."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from beeq import Discard, JobFailed, Queue
from beeq.mirror import outbox as outbox_module
from beeq.mirror.mirror import Mirror
from beeq.service import QueueService
from tests.mirror.conftest import Scene
from tests.support.waiting import pause

WEBHOOK = {"webhookUrl": "https://example.com/", "projectId": "p-1"}
MEDIA = {"type": "frame-extract", "inputFiles": ["a.mp4"], "outputPath": "a.png"}


def webhook(n, **more):
    return {**WEBHOOK, "payload": {"n": n}, **more}


async def handler(job):
    n = job.data["payload"]["n"]
    if n % 10 == 3:
        raise Discard(f"never: {n}")
    if n % 10 == 7 and not job.options["stacktraces"]:
        raise ValueError("once more")
    return {"n": n}


async def reported(service: QueueService, job_id: str) -> dict[str, Any]:
    """Return the job's status; there is one."""
    status = await service.get_job_status(job_id)
    assert status is not None
    return status


def right(n):
    """Return status, result and error that the document of job ``n`` ends with."""
    return ("failed", None, f"never: {n}") if n % 10 == 3 else ("completed", {"n": n}, None)


async def enqueue(scene: Scene, numbers) -> dict[str, int]:
    """Enqueue webhook jobs; return their numbers by id."""
    orders = [
        scene.service.add_webhook_job(webhook(n), {"retries": 1, "backoff": ("fixed", 50)}) for n in numbers
    ]
    jobs = await asyncio.gather(*orders)
    return {job.saved_id(): job.data["payload"]["n"] for job in jobs}


async def until_all_ran(scene: Scene, count: int, eventually) -> None:
    """Wait until that many jobs have ended, whatever the mirror says."""

    async def all_ran() -> bool:
        stats = (await scene.service.queue_stats())["webhook-processing"]
        return stats.succeeded + stats.failed == count

    await eventually(all_ran, 120, every_s=0.1)


async def until_right(scene: Scene, numbers: dict[str, int], eventually, within_s=180) -> None:
    """Wait until all jobs' documents are final, and check each."""

    def all_final():
        documents = scene.documents()
        return len(documents) >= len(numbers) and all(
            document["status"] in ("completed", "failed") for document in documents.values()
        )

    await eventually(all_final, within_s, every_s=0.3)
    documents = scene.documents()
    assert documents.keys() == numbers.keys()
    for job_id, n in numbers.items():
        document = documents[job_id]
        assert (document["status"], document["result"], document["error"]) == right(n)
        assert (document["queueName"], document["projectId"]) == ("webhook", "p-1")
        assert document["jobData"]["payload"] == {"n": n}
        assert document["createdAt"] <= document["updatedAt"]


async def test_many_jobs_enqueued_and_run_at_once_end_right(scene, eventually):
    scene.mirror()
    scene.worker("webhook-processing", handler)
    numbers = await enqueue(scene, range(150))
    await until_right(scene, numbers, eventually)


async def test_a_document_has_its_fields_and_leaves_others_alone(scene, eventually):
    mirror = scene.mirror()
    job = await scene.service.add_webhook_job(webhook(1))
    await eventually(lambda: job.id in scene.documents())
    document = scene.documents()[job.id]
    assert set(document) == {
        *("_id", "__v", "beeq", "jobId", "queueName", "status", "jobData", "result", "error"),
        *("projectId", "createdAt", "updatedAt"),
    }
    assert document["status"] == "queued"
    with scene.mongo.client() as client:
        documents = client[scene.database]["queue-jobs"]
        documents.update_one({"jobId": job.id}, {"$set": {"note": "the platform's own"}})
        indexes = documents.index_information()
    assert any(index["key"] == [("jobId", 1)] and index.get("unique") for index in indexes.values())
    assert await job.cancel()
    await eventually(lambda: scene.documents()[job.id]["status"] == "cancelled")
    assert scene.documents()[job.id]["note"] == "the platform's own"
    assert await mirror.flush(120)


async def test_mongodb_may_come_late_and_nothing_is_missing(make_scene, own_mongo, eventually):
    scene = make_scene(own_mongo)
    scene.mirror()
    scene.worker("webhook-processing", handler)
    numbers = await enqueue(scene, range(100))

    await until_all_ran(scene, 100, eventually)  # nothing waited for MongoDB
    assert (await scene.service.queue_stats())["webhook-processing"].owed > 0
    own_mongo.start()
    await until_right(scene, numbers, eventually)


async def test_mongodb_may_go_and_come_back_in_the_middle(make_scene, own_mongo, eventually):
    own_mongo.start()
    scene = make_scene(own_mongo)
    mirror = scene.mirror()
    scene.worker("webhook-processing", handler)
    first = await enqueue(scene, range(50))
    own_mongo.stop()
    second = await enqueue(scene, range(50, 100))

    await until_all_ran(scene, 100, eventually)
    assert not await mirror.flush(30)  # it gives up waiting: MongoDB is away
    own_mongo.start()
    await until_right(scene, first | second, eventually)
    assert await mirror.flush(120)


async def test_a_slow_mongodb_delays_no_job_and_ends_right(scene, eventually, monkeypatch):
    mirror = scene.mirror(starts=False)
    write = mirror.collection._write

    async def write_slowly(pending):
        await pause(0.5)  # the slowness is what is being played
        return await write(pending)

    monkeypatch.setattr(mirror.collection, "_write", write_slowly)
    mirror.start()
    scene.worker("webhook-processing", handler)
    numbers = await enqueue(scene, range(100))

    await until_all_ran(scene, 100, eventually)
    assert not await mirror.flush(0), "the jobs were done before the mirror was"
    await until_right(scene, numbers, eventually)


async def test_two_writers_share_the_work_and_claim_what_one_abandoned(scene, eventually, monkeypatch):
    monkeypatch.setattr(outbox_module, "_ABANDONED_MS", 100)
    monkeypatch.setattr("beeq.mirror.writer._CLAIM_ABANDONED_S", 0.1)
    dying = scene.mirror(starts=False)
    await dying._outbox.open()
    numbers = await enqueue(scene, range(50))
    (taken,) = await dying._outbox.read()  # and never acknowledges it
    assert len(taken.revisions) == 50
    scene.mirror()
    scene.mirror()
    scene.worker("webhook-processing", handler)
    numbers |= await enqueue(scene, range(50, 150))
    await until_right(scene, numbers, eventually)


async def test_older_writes_never_win_in_any_order_or_repetition(scene, eventually):
    mirror = scene.mirror(starts=False)
    outbox, collection = mirror._outbox, mirror.collection
    await outbox.open()
    job = await scene.service.add_webhook_job(webhook(1))
    batches = [await mirror.writer.changes_of(batch, [job.id]) for batch in await outbox.read()]
    worker = scene.worker("webhook-processing", handler)
    await job.result(timeout=5000)
    batches += [await mirror.writer.changes_of(batch, [job.id]) for batch in await outbox.read()]
    for batch in (*reversed(batches), *batches, *reversed(batches)):
        await collection.write(batch)
    assert scene.documents()[job.id]["status"] == "completed"
    await worker.close()


async def test_ids_that_two_queues_share_each_get_a_document(scene, eventually):
    mirror = scene.mirror()
    await scene.service.add_webhook_job(webhook(1, id="7"))
    await scene.service.add_media_processing_job({**MEDIA, "id": "7"})
    await eventually(lambda: len(scene.documents()) == 2)
    by_queue = {document["queueName"]: document for document in scene.documents().values()}
    assert by_queue.keys() == {"webhook", "media-processing"}
    assert await scene.service.cancel_job("7", queue_name="media-processing")
    assert await mirror.flush(120)
    by_queue = {document["queueName"]: document["status"] for document in scene.documents().values()}
    assert by_queue == {"webhook": "queued", "media-processing": "cancelled"}
    assert [difference async for difference in mirror.check()] == []
    await mirror.collection.set_status("7", "media-processing", status="failed", result=None, error="by hand")
    by_queue = {document["queueName"]: document["status"] for document in scene.documents().values()}
    assert by_queue == {"webhook": "queued", "media-processing": "failed"}


async def test_removal_cancels_an_unfinished_job_only(scene, eventually):
    mirror = scene.mirror()
    queue = scene.service.queues["webhook-processing"]
    finished, waiting = [await scene.service.add_webhook_job(webhook(n)) for n in (1, 2)]
    await queue.remove_job(waiting.id)
    worker = scene.worker("webhook-processing", handler)
    await finished.result(timeout=5000)
    await worker.close()
    await queue.remove_job(finished.id)
    assert await mirror.flush(120)
    assert scene.documents()[finished.id]["result"] == {"n": 1}
    assert {job_id: d["status"] for job_id, d in scene.documents().items()} == {
        finished.id: "completed",
        waiting.id: "cancelled",
    }
    assert scene.documents()[waiting.id]["jobData"]["payload"] == {"n": 2}


async def test_a_job_removed_before_any_write_still_has_its_end(scene):
    queue = scene.service.queues["webhook-processing"]
    done, broken = [await scene.service.add_webhook_job(webhook(n), {"retries": 0}) for n in (1, 3)]
    worker = scene.worker("webhook-processing", handler)
    await done.result(timeout=5000)
    with pytest.raises(JobFailed):
        await broken.result(timeout=5000)
    await worker.close()
    for job in (done, broken):
        await queue.remove_job(job.id)
    assert await scene.mirror().flush(120)
    reported = {job_id: (d["status"], d["result"], d["error"]) for job_id, d in scene.documents().items()}
    assert reported == {done.id: right(1), broken.id: right(3)}


@pytest.mark.parametrize("is_removed", [True, False])
async def test_a_record_dropped_on_finish_is_mirrored_anyway(scene, is_removed):
    mirror = scene.mirror()
    job = await scene.service.add_webhook_job(webhook(1))
    worker = scene.worker("webhook-processing", handler, remove_on_success=is_removed)
    await job.result(timeout=5000)
    await worker.close()
    assert await mirror.flush(120)
    document = scene.documents()[job.id]
    assert (document["status"], document["result"]) == ("completed", {"n": 1})
    assert document["jobData"]["payload"] == {"n": 1}


async def test_what_bson_cannot_hold_holds_nothing_up(scene, monkeypatch):
    monkeypatch.setattr("pymongo.hello.Hello.max_message_size", 2 * 2**20)  # a server's is 48 MB
    mirror = scene.mirror()
    odd: dict[str, Any] = {"a\0b": 2**70, "$set": {"x.y": "$jobId"}, "deep": None}
    deep = odd
    for _ in range(150):
        deep["deep"] = {"deep": None}
        deep = deep["deep"]
    job = await scene.service.add_webhook_job({**WEBHOOK, "payload": odd})
    large = await scene.service.add_webhook_job({**WEBHOOK, "payload": {"text": "x" * 7_500_000}})
    wide = await scene.service.add_webhook_job({**WEBHOOK, "payload": {"n": [0] * 200_000}})
    plain = await scene.service.add_webhook_job(webhook(1))
    assert await mirror.flush(120)
    documents = scene.documents()
    assert documents[job.id]["jobData"]["payload"]["a\\u0000b"] == str(2**70)
    assert documents[job.id]["jobData"]["payload"]["$set"] == {"x.y": "$jobId"}
    assert documents[large.id]["jobData"]["tooLarge"] > 7_500_000
    # 0.4 MB of JSON, 2.4 MB of BSON: it cannot be sent, and is kept as text.
    assert json.loads(documents[wide.id]["jobData"])["payload"]["n"][:3] == [0, 0, 0]
    assert documents[plain.id]["status"] == "queued"


@pytest.mark.external
async def test_what_a_server_refuses_as_too_large_is_kept_as_text(scene):
    mirror = scene.mirror()
    wide = await scene.service.add_webhook_job({**WEBHOOK, "payload": {"n": [0] * 1_500_000}})
    plain = await scene.service.add_webhook_job(webhook(1))
    assert await mirror.flush(240)
    documents = scene.documents()
    # 3 MB of JSON, 19 MB of BSON.
    assert json.loads(documents[wide.id]["jobData"])["payload"]["n"][:3] == [0, 0, 0]
    assert documents[plain.id]["status"] == "queued"


async def test_a_hand_written_status_outlives_a_finished_jobs_removal(scene, eventually, monkeypatch):
    async with QueueService(redis=scene.redis_url, prefix=scene.prefix, mongo_url=scene.mongo_url) as service:
        assert service._mirror is not None
        job = await service.add_webhook_job(webhook(1))
        worker = scene.worker("webhook-processing", handler)
        await job.result(timeout=5000)
        await worker.close()
        await job.remove()
        assert await service._mirror.flush(120)
        await service.update_job_status(job.saved_id(), "queued")
        await service._mirror.reconciler.run_once("webhook-processing")
        assert await service._mirror.flush(120)
        assert (await reported(service, job.saved_id()))["status"] == "queued"


async def test_what_nobody_noted_is_found_by_looking(scene, eventually, monkeypatch):
    """As with Node peers, which note nothing: enqueued, run, finished and removed."""
    monkeypatch.setattr("beeq.mirror.reconciler.INTERVAL_S", 0.1)
    silent = Queue("webhook-processing", redis=scene.redis_url, prefix=scene.prefix, is_worker=False)
    jobs = [await silent.enqueue(webhook(n), delay_until=2**45) for n in range(4)]
    jobs.append(await silent.enqueue(webhook(4)))
    scene.mirror()

    def statuses():
        return Counter(document["status"] for document in scene.documents().values())

    await eventually(lambda: statuses() == {"queued": 5}, 30)
    worker = scene.worker("webhook-processing", handler, mirrored=False)
    assert await jobs[4].result(timeout=5000) == {"n": 4}
    await silent.remove_job(jobs[0].id)
    await eventually(lambda: statuses() == {"queued": 3, "completed": 1, "cancelled": 1}, 30)
    await worker.close()
    await silent.close()


async def test_who_looks_sees_jobs_that_a_pause_hides(scene):
    queue = Queue("webhook-processing", redis=scene.redis_url, prefix=scene.prefix, is_worker=False)
    async with queue:
        jobs = [await queue.enqueue(webhook(n)) for n in range(2)]
        await queue.pipeline.call("LMOVE", queue.keys.waiting, queue.keys.hidden, "RIGHT", "LEFT")
        outbox = scene.mirror()._outbox
        assert set(await outbox.in_flight("webhook-processing", 10)) == {job.id for job in jobs}


async def test_the_outbox_may_overflow_and_nothing_is_missing(scene, eventually, monkeypatch):
    monkeypatch.setattr("beeq.settings.OUTBOX_LIMIT", 50)
    monkeypatch.setattr("beeq.mirror.reconciler.INTERVAL_S", 0.1)
    scene.worker("webhook-processing", handler)
    numbers = await enqueue(scene, range(200))

    async def all_ran():
        return (await scene.service.queue_stats())["webhook-processing"].waiting == 0

    await eventually(all_ran)
    scene.mirror()
    await until_right(scene, numbers, eventually)


async def test_a_status_written_by_hand_stands_until_something_happens(scene, eventually):
    async with QueueService(redis=scene.redis_url, prefix=scene.prefix, mongo_url=scene.mongo_url) as service:
        job = await service.add_webhook_job(webhook(1))
        await eventually(lambda: job.id in scene.documents())
        await service.update_job_status(job.id, "failed", result={"x": 1}, error="by hand")
        status = await reported(service, job.id)
        assert (status["status"], status["result"], status["error"]) == ("failed", {"x": 1}, "by hand")
        assert "_id" not in status
        assert service._mirror is not None
        assert await service._mirror.flush(120)
        await service._mirror.reconciler.run_once("webhook-processing")
        assert await service._mirror.flush(120)
        assert (await reported(service, job.id))["status"] == "failed"
        scene.worker("webhook-processing", handler)

        async def is_completed():
            status = await reported(service, job.id)
            return (status["status"], status["error"]) == ("completed", None)

        await eventually(is_completed)
        with pytest.raises(ValueError, match="'done' is not a valid status"):
            await service.update_job_status(job.id, "done")


async def test_while_the_mirror_is_away_or_behind_redis_answers(make_scene, own_mongo, caplog):
    scene = make_scene(own_mongo)
    async with QueueService(redis=scene.redis_url, prefix=scene.prefix, mongo_url=scene.mongo_url) as service:
        job = await service.add_webhook_job(webhook(1))
        status = await reported(service, job.id)
        assert (status["jobId"], status["status"]) == (job.id, "queued")
        assert await service.get_job_status("unknown") is None


async def test_without_a_mirror_there_is_nothing_to_write_to(scene):
    with pytest.raises(RuntimeError, match="mongo_url"):
        await scene.service.update_job_status("7", "failed")


@pytest.mark.parametrize("url", ["", "http://h/x", "mongodb://", "mongodb://u:hunter2@h:port/x"])
def test_a_bad_url_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match="Mongo URL") as refused:
        Mirror(url)
    assert "hunter2" not in str(refused.value)


async def test_check_tells_what_differs_and_writes_nothing(scene, eventually):
    mirror = scene.mirror(starts=False)
    job = await scene.service.add_webhook_job(webhook(1))
    (difference,) = [difference async for difference in mirror.check()]
    assert (difference.job_id, difference.in_mirror) == (job.id, None)
    assert scene.documents() == {}
    scene.mirror()
    await eventually(lambda: job.id in scene.documents())
    assert [difference async for difference in mirror.check()] == []
    with scene.mongo.client() as client:
        client[scene.database]["queue-jobs"].update_one(
            {"jobId": job.id}, {"$set": {"beeq.fingerprint": "active-0"}}
        )
    (difference,) = [difference async for difference in mirror.check()]
    assert difference.in_mirror == "active-0"


async def test_a_job_dropped_in_time_keeps_its_document(scene: Scene, eventually):
    """Also one that the mirror had not written when it went."""
    numbers = await enqueue(scene, range(20))
    settings = {"keep_succeeded": 0, "keep_failed": "0s", "stall_interval": 200}
    scene.worker("webhook-processing", handler, **settings)

    async def all_gone() -> bool:
        stats = (await scene.service.queue_stats())["webhook-processing"]
        return not any((stats.waiting, stats.active, stats.delayed, stats.succeeded, stats.failed))

    await eventually(all_gone, 60)
    assert not scene.documents()
    scene.mirror()
    await until_right(scene, numbers, eventually)
