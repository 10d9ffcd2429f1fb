"""How a service with a mirror closes, and what a status written by hand is later than."""

from __future__ import annotations

import time
from typing import Any

import pytest

from beeq.service import QueueService
from tests.mirror.conftest import Scene
from tests.support.proxy import proxy_to

#: The most that a close takes beside its queues' own, and what a busy machine may add.
BOUND_S = 3 + 4


def webhook(n: int) -> dict[str, Any]:
    return {"webhookUrl": "https://example.com/", "payload": {}, "id": f"job-{n}"}


def service_of(scene: Scene, mongo_url: str | None = None) -> QueueService:
    return QueueService(redis=scene.redis_url, prefix=scene.prefix, mongo_url=mongo_url or scene.mongo_url)


@pytest.mark.parametrize("connects", [True, False])
async def test_a_close_mirrors_what_was_just_noted(scene: Scene, connects):
    service = service_of(scene)
    if connects:
        await service.connect()
    for n in range(20):
        await service.add_webhook_job(webhook(n))
    await service.cancel_job("job-3")
    await service.close()
    statuses = {job_id: document["status"] for job_id, document in scene.documents().items()}
    assert statuses == {f"job-{n}": "cancelled" if n == 3 else "queued" for n in range(20)}
    await service.close()


async def test_a_close_beside_a_silent_mongodb_ends_in_time(scene: Scene):
    async with proxy_to(scene.mongo.port) as proxy:
        url = f"mongodb://127.0.0.1:{proxy.port}/{scene.database}"
        service = service_of(scene, url)
        await service.connect()
        await service.add_webhook_job(webhook(1))
        assert await service.get_job_status("job-1")  # connected
        proxy.freeze()
        await service.add_webhook_job(webhook(2))
        began = time.monotonic()
        await service.close()
        assert time.monotonic() - began < BOUND_S
    mirror = scene.mirror()
    await mirror.flush(30)
    assert scene.documents().keys() >= {"job-2"}


async def test_a_close_without_mongodb_ends_in_time(scene: Scene):
    service = service_of(scene, "mongodb://127.0.0.1:1/nowhere")
    await service.connect()
    await service.add_webhook_job(webhook(1))
    began = time.monotonic()
    await service.close()
    assert time.monotonic() - began < BOUND_S


async def test_a_status_by_hand_is_later_than_what_was_noted_before(scene: Scene, eventually):
    """Neither the entry that waits in the outbox nor the reconciler's look takes it back."""
    service = service_of(scene)
    try:
        await scene.service.add_webhook_job(webhook(1))
        await service.update_job_status("job-1", "failed", error="by hand")
        mirror = scene.mirror()
        assert await mirror.flush(30)
        await mirror.reconciler.run_once("webhook-processing")
        assert await mirror.flush(30)
        document = scene.documents()["job-1"]
        assert (document["status"], document["error"]) == ("failed", "by hand")

        async def handler(_job: Any) -> str:
            return "done"

        scene.worker("webhook-processing", handler)
        await eventually(lambda: scene.documents()["job-1"]["status"] == "completed")
        assert scene.documents()["job-1"]["result"] == "done"
    finally:
        await service.close()


async def test_a_status_by_hand_outlives_a_removed_jobs_entry(scene: Scene):
    service = service_of(scene)
    try:
        await scene.service.add_webhook_job(webhook(1))
        await scene.service.cancel_job("job-1")
        await service.update_job_status("job-1", "completed", result={"by": "hand"})
        mirror = scene.mirror()
        assert await mirror.flush(30)
        await mirror.reconciler.run_once("webhook-processing")
        assert await mirror.flush(30)
        document = scene.documents()["job-1"]
        assert (document["status"], document["result"]) == ("completed", {"by": "hand"})
    finally:
        await service.close()
