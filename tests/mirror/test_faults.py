"""Writers that die, batches that are repeated, Node's hand in between: the mirror equals the model in the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path

import pytest

from beeq import Discard, Queue
from beeq.mirror import outbox as outbox_module
from beeq.mirror.documents import Change
from tests.mirror.conftest import Scene
from tests.support.waiting import pause
from tests.support.warm_start import WarmStart

ROOT = Path(__file__).parents[2]
NAME = "webhook-processing"
WORKER = """
import asyncio, sys
from beeq import Queue
from beeq.mirror import outbox, writer
from beeq.mirror.mirror import Mirror
outbox._ABANDONED_MS = 500
writer._CLAIM_ABANDONED_S = 0.2

async def main():
    redis, prefix, mongo = sys.argv[1:]
    queue = Queue("webhook-processing", redis=redis, prefix=prefix, mirrored=True, stall_interval=500, max_stalls=50)

    @queue.process(concurrency=5)
    async def handler(job):
        await asyncio.sleep(0.04)
        return {"n": job.data["payload"]["n"]}

    mirror = Mirror(mongo, redis=redis, prefix=prefix)
    mirror.start()
    print("started", flush=True)
    await queue.run()

asyncio.run(main())
"""


def webhook(n):
    return {"webhookUrl": "https://example.com/", "payload": {"n": n}, "id": f"job-{n}"}


async def test_killed_mirroring_workers_lose_nothing_and_keep_order(
    scene: Scene, eventually, warm_start: WarmStart
):
    count = 150

    async def start() -> asyncio.subprocess.Process:
        arguments = (scene.redis_url, scene.prefix, scene.mongo_url)
        process = await asyncio.create_subprocess_exec(
            *(*warm_start.python, "-c", WORKER, *arguments),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"started\n"
        return process

    dice = random.Random(5)
    processes = [await start(), await start()]
    try:
        await asyncio.gather(*(scene.service.add_webhook_job(webhook(n)) for n in range(count)))
        for _ in range(3):
            await pause(dice.uniform(0.2, 0.6))
            doomed = processes.pop(dice.randrange(len(processes)))
            doomed.send_signal(signal.SIGKILL)
            await doomed.wait()
            processes.append(await start())

        def all_right():
            documents = scene.documents()
            return len(documents) == count and all(
                (document["status"], document["result"]) == ("completed", {"n": int(job_id[4:])})
                for job_id, document in documents.items()
            )

        await eventually(all_right, 180, every_s=0.3)
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def handler(job):
    kind = job.data["payload"]["kind"]
    if kind == "fails" and job.status != "retrying":
        raise Discard("never")
    if kind == "retries" and not job.options["stacktraces"]:
        raise ValueError("once more")
    return {"kind": kind}


class History:
    """A random life of some jobs, and what their documents must say in the end."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.dice = random.Random(seed)
        self.statuses: dict[str, str] = {}
        self.retried: set[str] = set()
        self.silent: set[str] = set()
        self.mirror = scene.mirror(starts=False)
        self.batches: list[list[Change]] = []
        common = {"redis": scene.redis_url, "prefix": scene.prefix, "is_worker": False}
        self.queues = [Queue(NAME, mirrored=mirrored, **common) for mirrored in (True, False)]

    def queue(self) -> Queue:
        """Return a queue that notes its changes, or one that does not, as Node."""
        return self.dice.choice(self.queues)

    async def enqueue(self) -> None:
        job_id = f"job-{len(self.statuses)}"
        kind = self.dice.choice(["succeeds", "fails", "retries", "delayed"])
        data = {"webhookUrl": "https://example.com/", "payload": {"kind": kind}}
        delay = 2**45 if kind == "delayed" else None
        queue = self.queue()
        await queue.enqueue(data, id=job_id, retries=1, delay_until=delay)
        if not queue.settings.mirrored:
            self.silent.add(job_id)
        self.statuses[job_id] = f"queued {kind}"

    async def work(self) -> None:
        worker = Queue(
            NAME,
            redis=self.scene.redis_url,
            prefix=self.scene.prefix,
            mirrored=self.dice.random() < 0.5,
        )
        worker.process(handler, concurrency=3)
        await worker.run(burst=True, catch_signals=False)
        await worker.close()
        for job_id, status in self.statuses.items():
            if status.startswith("queued") and status != "queued delayed":
                is_failure = status == "queued fails"
                self.statuses[job_id] = "failed" if is_failure else "completed"

    async def retry(self) -> None:
        failed = [job_id for job_id, status in self.statuses.items() if status == "failed"]
        if failed:
            job_id = self.dice.choice(failed)
            queue = self.queue()
            job = await queue.get_job(job_id)
            if job is not None and await job.retry():
                self.statuses[job_id] = "queued again"
                self.retried.add(job_id)

    async def remove(self) -> None:
        if self.statuses:
            job_id = self.dice.choice(list(self.statuses))
            queue = self.queue()
            if self.dice.random() < 0.5:
                await queue.cancel_job(job_id)
            elif self.statuses[job_id].startswith("queued"):
                await queue.remove_job(job_id)
            if self.statuses[job_id].startswith("queued"):
                self.statuses[job_id] = "cancelled"

    async def write(self) -> None:
        """Read the outboxes; write each batch, or die before the write, or before the acknowledgement."""
        outbox, writer = self.mirror._outbox, self.mirror.writer
        await outbox.open()
        for batch in [*await outbox.claim_abandoned(), *await outbox.read(wait=False)]:
            changes = await writer.changes_of(batch, list(batch.revisions))
            self.batches.append(changes)
            fate = self.dice.random()
            if fate > 0.3:
                await self.mirror.collection.write(changes)
            if fate > 0.6:
                await outbox.acknowledge(batch)

    async def repeat(self) -> None:
        """Write old batches once more, in any order."""
        for changes in self.dice.sample(self.batches, min(3, len(self.batches))):
            await self.mirror.collection.write(changes)

    async def look(self) -> None:
        await self.mirror.reconciler.run_once(NAME)

    async def finish(self) -> None:
        """Let the mirror catch up."""
        for _ in range(2):
            await self.look()
            outbox, writer = self.mirror._outbox, self.mirror.writer
            while any((await outbox.lag()).values()):
                for batch in [*await outbox.claim_abandoned(), *await outbox.read(wait=False)]:
                    await writer._write_batch(batch)
        await self.repeat()
        for queue in self.queues:
            await queue.close()


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.external) for seed in range(5, 12))]
)
async def test_whatever_happens_the_mirror_equals_the_model_in_the_end(scene: Scene, monkeypatch, seed):
    monkeypatch.setattr(outbox_module, "_ABANDONED_MS", 0)
    monkeypatch.setattr("beeq.mirror.writer._REST_S", 0)
    history = History(scene, seed)
    await history.mirror._outbox.open()
    steps = [
        *[history.enqueue] * 8,
        *[history.write] * 4,
        *(history.work, history.work, history.retry, history.remove, history.repeat, history.look),
    ]
    for _ in range(40):
        await history.dice.choice(steps)()
    await history.finish()
    reported = {job_id: document["status"] for job_id, document in scene.documents().items()}
    expected = {job_id: status.split()[0] for job_id, status in history.statuses.items()}
    for job_id in history.retried:
        # Of a failed job that was retried and removed before anybody looked, nobody can know.
        if (expected[job_id], reported[job_id]) == ("cancelled", "failed"):
            expected[job_id] = "failed"
    for job_id in history.silent - reported.keys():
        # Nor of one that was enqueued and removed before anybody looked.
        assert expected.pop(job_id) == "cancelled"
    assert reported == expected
