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


async def test_the_result_of_a_job_that_node_ran_is_mirrored(
    scene: Scene, node_modules: Path, eventually, monkeypatch
):
    """Node keeps it nowhere: it is heard on the channel. Several mirrors write, and each hears all of them."""
    monkeypatch.setattr("beeq.mirror.reconciler.INTERVAL_S", 0.2)
    node = await NodeBee.start(node_modules, url=scene.redis_url, name=NAME, prefix=scene.prefix)
    try:
        scene.mirror()
        scene.mirror()
        for n in range(20):
            data = {"webhookUrl": "https://example.com/", "act": "return", "value": {"n": n}}
            await scene.service.queues[NAME].enqueue(data, id=f"job-{n}")
        flaky = {"act": "flaky", "times": 1, "value": "at last"}
        await scene.service.queues[NAME].enqueue(flaky, id="flaky", retries=1)
        await scene.service.queues[NAME].enqueue({"act": "return", "value": "x" * 300_000}, id="large")
        await eventually(lambda: len(scene.documents()) == 22, 30)
        await node.call("process", concurrency=5)

        def results() -> dict[str, object]:
            documents = scene.documents().items()
            return {
                job_id: document["result"]
                for job_id, document in documents
                if document["status"] == "completed"
            }

        await eventually(lambda: len(results()) == 22, 30)
        by_number = {f"job-{n}": {"n": n} for n in range(20)}
        assert results() == {**by_number, "flaky": "at last", "large": "x" * 300_000}
    finally:
        await node.end()
