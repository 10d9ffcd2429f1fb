"""The mirror in somebody else's program: a client with a provider of its own, requests with context variables."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextvars import ContextVar, copy_context
from typing import Any

from redis.credentials import CredentialProvider

from beeq.mirror.mirror import Mirror
from beeq.service import QueueService
from tests.mirror.conftest import Scene

request: ContextVar[Any] = ContextVar("request")


class Provider(CredentialProvider):
    """Has no credentials for a while."""

    is_out = False
    asked = 0

    async def get_credentials_async(self) -> Any:
        self.asked += 1
        if self.is_out:
            raise LookupError("no credentials for now")
        return "default", ""


async def test_the_mirror_survives_what_a_provider_raises(scene: Scene, own_valkey, eventually, caplog):
    provider = Provider()
    client = own_valkey.client(credential_provider=provider)
    service = QueueService(redis=own_valkey.url, prefix=scene.prefix, mirrored=True)
    mirror = Mirror(scene.mongo_url, redis=client, prefix=scene.prefix)
    mirror.start()
    try:
        queue = service.queues["webhook-processing"]
        await queue.create_job({"n": 1}).set_id("first").save()
        await eventually(lambda: "first" in scene.documents())
        provider.is_out, asked = True, provider.asked
        with own_valkey.sync_client() as admin:
            for kind in ("normal", "pubsub"):
                admin.client_kill_filter(_type=kind, skipme=True)
        await eventually(lambda: provider.asked > asked + 4)
        provider.is_out = False
        assert any("LookupError: no credentials" in text for text in caplog.messages)
        await queue.create_job({"n": 2}).set_id("second").save()
        await eventually(lambda: "second" in scene.documents())
        ends = {duty.name: (duty.restarts, duty.error) for duty in mirror.duties() if duty.restarts}
        assert ends == {}
    finally:
        await mirror.stop()
        await service.close()
        await client.aclose()


async def test_the_request_that_asks_mongodb_first_is_freed(scene: Scene, valkey, eventually):
    class Request:
        pass

    service = QueueService(redis=valkey.url, prefix=scene.prefix, mongo_url=scene.mongo_url)
    kept: list[weakref.ref[Request]] = []

    async def first() -> None:
        await service.update_job_status("nobody", "queued")
        assert (await service.get_job_status("nobody") or {})["status"] == "queued"

    def begin() -> asyncio.Task[None]:
        made = Request()
        kept.append(weakref.ref(made))
        request.set(made)
        return asyncio.get_running_loop().create_task(first())

    await copy_context().run(begin)

    def is_freed() -> bool:
        gc.collect()
        return kept[0]() is None

    try:
        await eventually(is_freed, within_s=15, every_s=0.1)
    finally:
        await service.close()
