"""Large jobs in the mirror: few are read at once, and the loop goes on between them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beeq.client.reader import JobState
from beeq.mirror import documents
from beeq.mirror import outbox as outbox_module
from beeq.mirror.documents import Change
from beeq.mirror.outbox import Outbox
from tests.mirror.conftest import Scene


async def enqueue(scene: Scene, count: int, characters: int) -> list[str]:
    queue = scene.service.queues["webhook-processing"]
    data = {"webhookUrl": "https://example.com/", "payload": {"text": "x" * characters}}
    jobs = [await queue.create_job(data).save() for _ in range(count)]
    return [job.saved_id() for job in jobs]


async def test_large_jobs_are_written_in_small_portions(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr(outbox_module, "_PORTION_BYTES", 100_000)
    mirror = scene.mirror(starts=False)
    await mirror._outbox.open()
    ids = await enqueue(scene, 12, 30_000)
    ids += await enqueue(scene, 1, 200_000)
    ids += await enqueue(scene, 20, 10)
    written: list[list[str]] = []
    write = mirror.collection.write

    async def noted(changes: list[Change]) -> None:
        written.append([change.job_id for change in changes])
        await write(changes)

    monkeypatch.setattr(mirror.collection, "write", noted)
    mirror.start()
    await eventually(lambda: scene.documents().keys() == set(ids))
    assert [len(portion) for portion in written] == [3, 3, 3, 3, 1, 20]
    assert [job_id for portion in written for job_id in portion] == ids  # in their order


async def test_the_reconciler_reads_few_large_jobs_at_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "_PORTION_BYTES", 100_000)
    mirror = scene.mirror(starts=False)
    ids = await enqueue(scene, 10, 30_000)
    reading = most = 0
    job_state = Outbox.job_state

    async def noted(outbox: Outbox, name: str, job_id: str) -> JobState | None:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        try:
            return await job_state(outbox, name, job_id)
        finally:
            reading -= 1

    monkeypatch.setattr(Outbox, "job_state", noted)
    differences = await mirror.reconciler.compare("webhook-processing", ids)
    assert {difference.job_id for difference in differences} == set(ids)
    assert most == 3


async def test_the_loop_has_a_turn_between_changes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = scene.mirror(starts=False)
    await mirror._outbox.open()
    ids = await enqueue(scene, 5, 10)
    (batch,) = await mirror._outbox.read()
    turns = 0
    seen: list[int] = []

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def noted(*arguments: Any) -> Change:
        seen.append(turns)
        return documents.change_of(*arguments)

    monkeypatch.setattr("beeq.mirror.writer._TURN_S", -1, raising=False)  # as if each took long
    monkeypatch.setattr("beeq.mirror.writer.change_of", noted)
    ticking = asyncio.create_task(tick())
    changes = await mirror.writer.changes_of(batch, ids)
    ticking.cancel()
    assert [change.job_id for change in changes] == ids
    assert len(set(seen)) == 5
