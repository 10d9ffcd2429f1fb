"""In which type ``projectId`` is written, read and converted; and which index serves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from bson import ObjectId

from beeq import sync
from beeq.environment import mongo_project_id
from beeq.mirror.mirror import Mirror
from beeq.service import QueueService
from tests.mirror.conftest import Scene

HEX = "0123456789abcdef01234567"
OTHER = "fedcba987654321001234567"
UPPER = HEX.upper()
#: What looks like an ObjectId's text and is none.
NEARLY = ("p-1", HEX + "\n", HEX[:-1], HEX + "0", f" {HEX[1:]}", "g" + HEX[1:], "०" * 24, "")


def webhook(project_id: Any) -> dict[str, Any]:
    return {"webhookUrl": "https://example.com/", "projectId": project_id, "payload": {}}


async def mirrored(scene: Scene, mirror: Mirror, values: Any) -> list[Any]:
    """Enqueue a job for each project id; return what their documents have."""
    queue = scene.service.queues["webhook-processing"]
    jobs = [await queue.enqueue(webhook(value)) for value in values]
    assert await mirror.flush(60)
    documents = scene.documents()
    return [documents[job.saved_id()]["projectId"] for job in jobs]


@pytest.mark.parametrize(
    ("id_type", "of_hex", "of_others"),
    [
        ("auto", ObjectId, lambda value: value),
        ("text", str, lambda value: value),
        ("objectid", ObjectId, lambda _: None),
    ],
)
async def test_each_project_id_is_written_in_the_wanted_type(
    scene: Scene, id_type: str, of_hex: Callable[[str], Any], of_others: Callable[[Any], Any]
):
    mirror = scene.mirror(project_id_type=id_type)
    others = [*NEARLY, 7, None, 1.5, [HEX], {"value": HEX}]
    found = await mirrored(scene, mirror, [HEX, UPPER, *others])
    assert found == [of_hex(HEX), of_hex(UPPER), *map(of_others, others)]


@pytest.mark.parametrize("id_type", ["auto", "text", "objectid"])
async def test_readers_get_text_as_the_job_has_it(scene: Scene, id_type: str):
    async with QueueService(
        redis=scene.redis_url, prefix=scene.prefix, mongo_url=scene.mongo_url, mongo_project_id=id_type
    ) as service:
        queue = service.queues["webhook-processing"]
        jobs = [await queue.enqueue(webhook(value)) for value in (HEX, UPPER, *NEARLY, 7)]
        assert service._mirror is not None
        assert await service._mirror.flush(60)
        assert len(scene.documents()) == len(jobs)
        for job in jobs:
            status = await service.get_job_status(job.saved_id())
            assert status is not None
            assert status["projectId"] == status["jobData"]["projectId"] == job.data["projectId"]


async def test_other_references_of_a_document_are_text_too(scene: Scene):
    await mirrored(scene, scene.mirror(), [HEX])
    with scene.mongo.client() as client:
        change = {"reviewer": ObjectId(OTHER), "projectId": ObjectId(OTHER), "seen": [{"by": ObjectId(HEX)}]}
        client[scene.database]["queue-jobs"].update_one({}, {"$set": change})
    service = QueueService(redis=scene.redis_url, prefix=scene.prefix, mongo_url=scene.mongo_url)
    (job_id,) = scene.documents()
    status = await service.get_job_status(job_id)
    await service.close()
    assert status is not None
    assert (status["reviewer"], status["projectId"], status["seen"]) == (OTHER, OTHER, [{"by": HEX}])


#: By type: what a document of a job of project HEX has, and what it has after its job's next change.
CONVERSIONS: dict[str, list[tuple[Any, Any]]] = {
    "auto": [
        (HEX, ObjectId(HEX)),
        (OTHER, ObjectId(OTHER)),
        (ObjectId(OTHER), ObjectId(OTHER)),
        ("p-1", "p-1"),
        (HEX + "\n", HEX + "\n"),
        (7, 7),
        ({"relationTo": "projects", "value": HEX}, {"relationTo": "projects", "value": HEX}),
        (None, ObjectId(HEX)),
    ],
    "objectid": [(HEX, ObjectId(HEX)), ("p-1", "p-1"), (None, ObjectId(HEX))],
    "text": [(HEX, HEX), (ObjectId(HEX), HEX), (ObjectId(OTHER), OTHER), (7, 7), (None, HEX)],
}


@pytest.mark.parametrize("id_type", CONVERSIONS)
async def test_a_documents_project_stays_and_gets_the_type(scene: Scene, id_type: str):
    mirror = scene.mirror(project_id_type=id_type)
    await mirrored(scene, mirror, [HEX] * len(CONVERSIONS[id_type]))
    wanted = {}
    with scene.mongo.client() as client:
        for job_id, (present, after) in zip(scene.documents(), CONVERSIONS[id_type], strict=True):
            change = {"$set": {"projectId": present}}
            client[scene.database]["queue-jobs"].update_one({"jobId": job_id}, change)
            wanted[job_id] = after
    for job_id in wanted:
        assert await scene.service.cancel_job(job_id)
    assert await mirror.flush(60)
    documents = scene.documents()
    assert {one["status"] for one in documents.values()} == {"cancelled"}
    assert {job_id: one["projectId"] for job_id, one in documents.items()} == wanted


@pytest.mark.parametrize(
    ("id_type", "wanted"),
    [
        ("auto", [ObjectId(HEX), ObjectId(OTHER), ObjectId(HEX), "p-1", "p-2", 7, None]),
        ("objectid", [ObjectId(HEX), ObjectId(OTHER), ObjectId(HEX), None, "p-2", None, None]),
        ("text", [UPPER, OTHER, HEX, "p-1", "p-2", 7, None]),
    ],
)
async def test_a_repair_gives_the_type_and_changes_nothing_else(scene: Scene, monkeypatch, id_type, wanted):
    monkeypatch.setattr("beeq.mirror.collection._REPAIR_PAGE", 2)
    of_jobs = [UPPER, HEX, HEX, "p-1", "p-1", 7, None]
    present = [ObjectId(HEX), OTHER, HEX, "p-1", "p-2", 7, None]
    mirror = scene.mirror(project_id_type=id_type)
    with scene.mongo.client() as client:
        documents = client[scene.database]["queue-jobs"]
        for n, (of_job, value) in enumerate(zip(of_jobs, present, strict=True)):
            job_data = None if n == 6 else webhook(of_job)
            documents.insert_one(
                {
                    "_id": n if n % 2 else str(n),
                    "jobId": str(n),
                    "queueName": "webhook",
                    "status": "completed",
                }
                | {"jobData": job_data, "projectId": value, "updatedAt": n}
            )
        documents.insert_one({"jobId": "foreign", "queueName": "other", "projectId": ObjectId(HEX)})
    before = scene.documents()
    changed = sum(type(old) is not type(new) for old, new in zip(present, wanted, strict=True))
    assert await mirror.collection.repair_project_ids() == changed
    expected = {str(n): {**before[str(n)], "projectId": value} for n, value in enumerate(wanted)}
    assert scene.documents() == expected | {"foreign": before["foreign"]}
    assert await mirror.collection.repair_project_ids() == 0


# The setting.


def test_the_option_wins_over_the_environment():
    assert mongo_project_id(None, {}) == "auto"
    assert mongo_project_id(None, {"BEEQ_MONGO_PROJECT_ID": "text"}) == "text"
    assert mongo_project_id("objectid", {"BEEQ_MONGO_PROJECT_ID": "text"}) == "objectid"


@pytest.mark.parametrize("bad", ["", "Auto", "ObjectId", "uuid"])
@pytest.mark.parametrize("service", [QueueService, sync.QueueService])
def test_another_type_is_refused(service, bad: str):
    with pytest.raises(ValueError, match="BEEQ_MONGO_PROJECT_ID: .* auto, text, objectid"):
        mongo_project_id(None, {"BEEQ_MONGO_PROJECT_ID": bad})
    with pytest.raises(ValueError, match="auto, text, objectid"):
        service(mongo_project_id=bad)


# The index.


@pytest.mark.parametrize(
    "options",
    [
        {"background": True},
        {"name": "by id"},
        {"sparse": True},
        {"name": "jobId_1", "partialFilterExpression": {"jobId": {"$exists": True}}},
    ],
)
async def test_any_unique_index_on_the_id_serves(scene: Scene, caplog, options: dict[str, Any]):
    caplog.set_level(logging.WARNING, "beeq.mirror")
    with scene.mongo.client() as client:
        documents = client[scene.database]["queue-jobs"]
        documents.create_index([("jobId", -1 if "name" in options else 1)], unique=True, **options)
        assert await mirrored(scene, scene.mirror(), [HEX]) == [ObjectId(HEX)]
    assert not caplog.messages


@pytest.mark.parametrize("has_other_index", [True, False])
async def test_without_a_unique_index_the_log_says_so(scene: Scene, caplog, has_other_index):
    caplog.set_level(logging.WARNING, "beeq.mirror")
    with scene.mongo.client() as client:
        documents = client[scene.database]["queue-jobs"]
        documents.insert_many([{"jobId": "old"}, {"jobId": "old"}])
        if has_other_index:
            documents.create_index([("jobId", 1), ("status", 1)])
            documents.create_index([("jobId", 1)], name="not unique")
    queue = scene.service.queues["webhook-processing"]
    await queue.enqueue(webhook(HEX))
    assert await scene.mirror().flush(60)
    (message,) = caplog.messages
    assert message.startswith("no index on jobId of queue-jobs: ")
