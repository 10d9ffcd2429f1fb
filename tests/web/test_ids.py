"""Ids that clients choose: UUIDs, and none that another job has; bee-queue's counters stay theirs."""

from __future__ import annotations

import json
import uuid

import pytest

from beeq.protocol.codec import dumps
from tests.web.app import MINE, SCRIPT, WANTED, ask, error_of

OTHER_QUEUES = ("media-processing", "video-assembly", "webhook-processing")


async def test_ids_of_a_queues_counter_are_not_taken(client, make_queue, prefix):
    """bee-queue's own saves would get them next, and write nothing."""
    for number in range(1, 6):
        answer = await client.post(SCRIPT, json={**WANTED, "id": str(number)})
        assert answer.status_code == 400
        assert answer.json()["faults"] == ["id: must be a UUID, or not given"]
    queue = make_queue("ai-generation", prefix=prefix, is_worker=False)
    saved = [await queue.create_job({"n": number}).save() for number in range(5)]
    assert [job.id for job in saved] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    "job_id",
    [
        "mine",
        "0",
        "-1",
        " 1",
        "a/b",
        "constructor",
        MINE.replace("-", ""),
        f"{{{MINE}}}",
        f"urn:uuid:{MINE}",
        f"{MINE}\n",
        f" {MINE}",
        MINE + "0",
        MINE.replace("0", "٠", 1),
        MINE.replace("-", "−", 1),  # a minus sign
    ],
)
async def test_what_is_no_uuid_is_no_id(client, job_id):
    answer = await ask(client, {**WANTED, "id": job_id})
    assert answer.status_code == 400
    assert answer.json()["faults"] == ["id: must be a UUID, or not given"]


@pytest.mark.parametrize("name", ["jobId", "job_id", "ID", "_id", "setId"])
async def test_no_other_field_is_the_id(client, name):
    answer = await client.post(SCRIPT, json={**WANTED, name: "1"})
    assert answer.status_code == 200
    assert uuid.UUID(answer.json()["jobId"]).version == 4


@pytest.mark.parametrize("queue_name", OTHER_QUEUES)
async def test_an_id_of_another_queues_job_is_refused(client, make_queue, prefix, queue_name):
    queue = make_queue(queue_name, prefix=prefix, is_worker=False)
    await queue.enqueue({"projectId": "theirs", "secret": "hush"}, id=MINE)
    answer = await client.post(SCRIPT, json={**WANTED, "id": MINE})
    assert (answer.status_code, error_of(answer)) == (409, "The id is that of another job")
    status = (await client.get(f"/v1/jobs/{MINE}/status")).json()
    assert status["projectId"] == "theirs"
    assert (await client.get("/v1/stats")).json()["ai-generation"]["waiting"] == 0


async def test_an_id_of_a_finished_job_stays_taken(client, make_queue, prefix, redis):
    queue = make_queue("webhook-processing", prefix=prefix, is_worker=False)
    await queue.enqueue({}, id=MINE)
    await redis.lrem(f"{prefix}:webhook-processing:waiting", 1, MINE)
    await redis.sadd(f"{prefix}:webhook-processing:succeeded", MINE)
    assert (await client.post(SCRIPT, json={**WANTED, "id": MINE})).status_code == 409


@pytest.mark.parametrize(
    "change", [{"projectId": "theirs"}, {"userId": 8}, {"type": "image"}, {"projectId": None, "userId": None}]
)
async def test_an_id_of_another_job_of_the_queue_is_refused(client, make_queue, prefix, change):
    queue = make_queue("ai-generation", prefix=prefix, is_worker=False)
    await queue.enqueue({**WANTED, "type": "script", **change}, id=MINE)
    answer = await client.post(SCRIPT, json={**WANTED, "id": MINE})
    assert answer.status_code == 409
    assert "theirs" not in answer.text


async def test_an_id_whose_record_cannot_be_read_is_taken(client, redis, prefix):
    await redis.hset(f"{prefix}:ai-generation:jobs", MINE, "nonsense")
    await redis.lpush(f"{prefix}:ai-generation:waiting", MINE)
    assert (await client.post(SCRIPT, json={**WANTED, "id": MINE})).status_code == 409


async def test_data_that_are_no_object_are_another_job(client, redis, prefix):
    record = {"options": {}, "status": "created", "progress": 0, "data": [1]}
    await redis.hset(f"{prefix}:ai-generation:jobs", MINE, dumps(record))
    await redis.lpush(f"{prefix}:ai-generation:waiting", MINE)
    answer = await client.post(
        SCRIPT, content=json.dumps({**WANTED, "id": MINE}), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 409
