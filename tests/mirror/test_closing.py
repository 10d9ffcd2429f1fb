"""How a service with a mirror closes, and what a status written by hand is later than."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from beeq.mirror.collection import StatusCollection
from beeq.service import QueueService
from tests.mirror.conftest import Scene
from tests.support.proxy import Proxy, proxy_to

#: The most that a close takes beside its queues' own, and what a busy machine may add.
BOUND_S = 3 + 4


def webhook(n: int) -> dict[str, Any]:
    return {"webhookUrl": "https://example.com/", "payload": {}, "id": f"job-{n}"}


def service_of(scene: Scene, mongo_url: str | None = None) -> QueueService:
    return QueueService(redis=scene.redis_url, prefix=scene.prefix, mongo_url=mongo_url or scene.mongo_url)


def url_over(proxy: Proxy, scene: Scene) -> str:
    """Else the driver would go where the server says that it is."""
    return f"mongodb://127.0.0.1:{proxy.port}/{scene.database}?directConnection=true"


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


async def test_a_close_beside_a_silent_mongodb_ends_in_time(scene: Scene, monkeypatch):
    async with proxy_to(scene.mongo.port) as proxy:
        service = service_of(scene, url_over(proxy, scene))
        await service.connect()
        await service.add_webhook_job(webhook(1))
        assert await service.get_job_status("job-1")  # connected
        proxy.freeze()
        await service.add_webhook_job(webhook(2))
        began = time.monotonic()
        await service.close()
        assert time.monotonic() - began < BOUND_S
    # What the writer that was cut short had taken is taken over from it.
    monkeypatch.setattr("beeq.mirror.outbox._ABANDONED_MS", 100)
    monkeypatch.setattr("beeq.mirror.writer._CLAIM_ABANDONED_S", 0.1)
    assert await scene.mirror().flush(30)
    assert scene.documents().keys() >= {"job-2"}


async def test_a_close_cut_short_leaves_no_task_of_pymongos(scene: Scene, eventually):
    before = asyncio.all_tasks()
    async with proxy_to(scene.mongo.port) as proxy:
        collection = StatusCollection(url_over(proxy, scene))
        await collection.ensure_index()  # there is a session, whose end must be sent to MongoDB
        proxy.freeze()
        closing = asyncio.ensure_future(collection.close())
        await asyncio.sleep(0.1)
        assert not closing.done()
        closing.cancel()
        await asyncio.wait([closing])
    await eventually(lambda: asyncio.all_tasks() <= before)


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
