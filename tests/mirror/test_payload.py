"""The mirror as its real reader sees it: Payload, by its own ``find`` and ``update``."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from tests.mirror.conftest import Scene
from tests.support.payload import Payload, PayloadError

pytestmark = pytest.mark.external


def webhook(project_id: str, n: int = 0) -> dict[str, Any]:
    return {"webhookUrl": "https://example.com/", "projectId": project_id, "payload": {"n": n}}


async def handler(job):
    if job.data["payload"]["n"] == 1:
        raise ValueError("it broke")
    return {"n": job.data["payload"]["n"]}


async def a_project(payload: Payload, title: str) -> str:
    created: dict[str, str] = await payload.call("create", collection="projects", data={"title": title})
    return created["id"]


async def test_payload_finds_populates_and_edits_the_jobs(
    scene: Scene, payload_modules: Path, eventually, caplog
):
    caplog.set_level(logging.WARNING, "beeq.mirror")
    async with Payload(payload_modules, scene.mongo_url) as payload:  # it makes its indexes first
        ours, other = await a_project(payload, "Bees"), await a_project(payload, "Wasps")
        scene.mirror()
        fields: dict[str, Any] = {"retries": 0}
        for n in range(3):
            await scene.service.add_webhook_job({**webhook(ours, n), "id": f"job-{n}"}, fields)
        await scene.service.add_webhook_job({**webhook(other), "id": "theirs"})

        async def by_project(project_id: str, **more: Any) -> list[str]:
            return [job["jobId"] for job in await payload.jobs(projectId=project_id, **more)]

        async def ours_are_found() -> bool:
            return await by_project(ours) == ["job-0", "job-1", "job-2"]

        await eventually(ours_are_found, 30)
        await eventually(lambda: len(scene.documents()) == 4, 30)
        assert await by_project(other) == ["theirs"]
        titled = {"projectId.title": {"equals": "Bees"}, "status": {"equals": "queued"}}
        assert (await payload.call("find", collection="queue-jobs", where=titled))["totalDocs"] == 3

        # An editor moves a job to another project, and closes one.
        (moved,), (closed,) = await payload.jobs(jobId="job-0"), await payload.jobs(jobId="job-2")
        update = {"collection": "queue-jobs", "depth": 0}
        await payload.call("update", **update, id=moved["id"], data={"projectId": other})
        await payload.call(
            "update", **update, id=closed["id"], data={"status": "cancelled", "error": "no more"}
        )
        await scene.mirror().flush(30)
        assert await by_project(other) == ["job-0", "theirs"]
        (closed,) = await payload.jobs(jobId="job-2")
        assert (closed["status"], closed["error"]) == ("cancelled", "no more")

        # Something new happens: the jobs run.
        scene.worker("webhook-processing", handler)
        await eventually(
            lambda: {one["status"] for one in scene.documents().values()} == {"completed", "failed"}, 30
        )
        assert await by_project(ours, status="completed") == ["job-2"]
        assert await by_project(ours, status="failed") == ["job-1"]
        assert await by_project(other, status="completed") == ["job-0", "theirs"]
        (done,), (failed,) = await payload.jobs(jobId="job-2", depth=1), await payload.jobs(jobId="job-1")
        assert done["projectId"]["title"] == "Bees"
        assert (done["queueName"], done["result"], done["error"]) == ("webhook", {"n": 2}, None)
        assert (done["jobData"]["projectId"], done["jobData"]["payload"]) == (ours, {"n": 2})
        assert (failed["error"], failed["result"]) == ("it broke", None)
        for name in ("createdAt", "updatedAt"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", done[name])
        with pytest.raises(PayloadError, match="not allowed"):
            await payload.call("delete", collection="queue-jobs", id=done["id"])
    assert [message for message in caplog.messages if "job job-1: attempt 1 failed" not in message] == []


async def test_payload_reads_a_page_with_a_foreign_project_id(
    scene: Scene, payload_modules: Path, eventually
):
    """Only ObjectIds: with ``p-1`` in one document, Payload could not populate the others either."""
    async with Payload(payload_modules, scene.mongo_url) as payload:
        ours = await a_project(payload, "Bees")
        scene.mirror(project_id_type="objectid")
        for project_id in (ours, "p-1"):
            await scene.service.add_webhook_job({**webhook(project_id), "id": f"of {project_id}"})
        await eventually(lambda: len(scene.documents()) == 2, 30)
        found = await payload.jobs(status="queued", depth=1)
        assert [job["projectId"] and job["projectId"]["title"] for job in found] == ["Bees", None]
        assert found[1]["jobData"]["projectId"] == "p-1"
