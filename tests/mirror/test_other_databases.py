"""The mirror is one database's: what another database's queue of the same name says is not its job's result."""

from __future__ import annotations

import json
from typing import Any

import redis.asyncio

from beeq.errors import RedisUnavailable
from beeq.mirror.mirror import Mirror
from beeq.protocol.events import encode_event
from tests.mirror.conftest import Scene
from tests.support.server import Server

NAME = "webhook-processing"


async def test_a_result_of_another_database_is_not_mirrored(
    scene: Scene, valkey: Server, redis: redis.asyncio.Redis, eventually: Any, monkeypatch: Any
) -> None:
    """A Node worker ends the job, and says nothing (sendEvents off); another database's worker does."""
    monkeypatch.setattr("beeq.mirror.reconciler.INTERVAL_S", 0.2)
    async with valkey.client(db=9) as other:
        await other.set("a key", "of another database")
        try:
            mirror = scene.mirror()
            keys = scene.service.queues[NAME].keys
            subscriber = await eventually(lambda: mirror._subscriber)
            await eventually(lambda: subscriber.has(keys.events))
            job = await scene.service.queues[NAME].enqueue({"webhookUrl": "https://example.com/"}, id="same")
            await redis.publish(keys.events, encode_event("same", "succeeded", "theirs"))
            await subscriber.catch_up()
            await mirror._own_events[keys.events].settled()  # it was looked at while the job waits here
            await eventually(lambda: "same" in scene.documents(), 30)
            record = json.loads(await redis.hget(keys.jobs, job.id) or "") | {"status": "succeeded"}
            async with redis.pipeline() as pipe:
                pipe.lrem(keys.waiting, 0, "same")
                pipe.hset(keys.jobs, "same", json.dumps(record))
                pipe.sadd(keys.succeeded, "same")
                await pipe.execute()
            await eventually(lambda: scene.documents()["same"]["status"] == "completed", 30)
            assert scene.documents()["same"]["result"] is None
        finally:
            await other.delete("a key")


async def test_failures_that_take_turns_are_logged_once(valkey: Server, caplog: Any) -> None:
    mirror = Mirror("mongodb://127.0.0.1:1/x", redis=valkey.url)
    for _ in range(5):
        mirror._failed(RedisUnavailable("away"))
        mirror._failed(RedisUnavailable("reset"))
    assert caplog.messages == [
        "the mirror waits: RedisUnavailable: away",
        "the mirror waits: RedisUnavailable: reset",
    ]
    for n in range(200):
        mirror._failed(RedisUnavailable(str(n)))
    assert len(mirror._met_at) <= 50
    await mirror.stop()
