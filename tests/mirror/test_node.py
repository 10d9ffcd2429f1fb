"""The mirror beside npm's bee-queue, which notes nothing: its jobs appear all the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.mirror.conftest import Scene
from tests.support.node_bee import NodeBee

NAME = "webhook-processing"


async def test_what_node_enqueued_ran_failed_and_removed_appears(
    scene: Scene, node_modules: Path, eventually, monkeypatch
):
    monkeypatch.setattr("beeq.mirror.reconciler.INTERVAL_S", 0.2)
    node = await NodeBee.start(
        node_modules, url=scene.redis_url, name=NAME, prefix=scene.prefix, activateDelayedJobs=True
    )
    try:
        scene.mirror()
        data = {"webhookUrl": "https://example.com/", "projectId": "p-1"}
        saved = await node.call("saveAll", jobs=[{"data": {**data, "n": n}} for n in range(20)])
        assert saved

        def statuses() -> Counter[str]:
            return Counter(document["status"] for document in scene.documents().values())

        await eventually(lambda: statuses() == {"queued": 20}, 30)
        await node.call("removeJob", id="20")
        await node.call("process", concurrency=5)
        await eventually(lambda: statuses() == {"completed": 19, "cancelled": 1}, 30)
        document = scene.documents()["1"]
        assert (document["queueName"], document["projectId"]) == ("webhook", "p-1")
        assert document["jobData"]["n"] == 0
    finally:
        await node.end()
