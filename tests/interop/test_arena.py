"""Arena, the web page that bee-queue's users have, on beeq's queues: it shows, retries and removes their jobs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from beeq import Queue
from beeq.client.reader import Ended
from beeq.errors import JobFailed
from tests.support.node_bee import NodeBee
from tests.support.server import Server, free_port
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.external

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
(PROGRAM,) = re.findall(
    r"```js\n(.*?)```", README.partition("### Arena\n")[2].partition("\n##")[0], re.DOTALL
)
WITHOUT_INFO = re.sub(r"// Arena awaits.*?\n};\n", "", PROGRAM, flags=re.DOTALL)


class Arena:
    """One Arena process, and a client of its pages."""

    def __init__(self, process: asyncio.subprocess.Process, client: httpx.AsyncClient) -> None:
        self.process = process
        self.client = client

    async def ids(self, name: str, state: str) -> list[str]:
        """Return the jobs of a list, as its page has them and as its download has them: the same."""
        page = await self.client.get(f"/here/{name}/{state}")
        assert page.status_code == 200
        jobs = (await self.client.get(f"/here/{name}/{state}.json")).json()
        for job in jobs:
            assert f"/{job['id']}" in page.text
        return sorted(job["id"] for job in jobs)


@contextlib.asynccontextmanager
async def arena(
    modules: Path, folder: Path, url: str, name: str, program: str = PROGRAM
) -> AsyncIterator[Arena]:
    (folder / "arena.js").write_text(program.replace("'greetings'", f"'{name}'"))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *("node", "arena.js"),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "NODE_PATH": str(modules), "REDIS_URL": url, "PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        assert b"Arena is running" in line
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield Arena(process, client)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.no_audit("what beeq keeps beside a job that Node removes goes by the next sweeps")
async def test_arena_shows_retries_and_removes_jobs_of_beeq(
    make_queue: Callable[..., Queue], arena_modules: Path, valkey: Server, tmp_path: Path
) -> None:
    queue = make_queue()
    is_repaired = False

    @queue.process
    async def halve(job: Any) -> int:
        if job.data["n"] % 2 and not is_repaired:
            raise ValueError(f"odd: {job.data['n']}")
        return int(job.data["n"] // 2)

    good = await queue.enqueue({"n": 42}, id="good")
    bad = [await queue.enqueue({"n": n}, id=f"bad-{n}") for n in (3, 5)]
    assert await good.result() == 21
    for job in bad:
        with pytest.raises(JobFailed, match="odd"):
            await job.result()
    await queue.enqueue({"n": 7}, id="later", delay_until="1h")
    async with arena(arena_modules, tmp_path, valkey.url, queue.name) as page:
        assert await page.ids(queue.name, "succeeded") == ["good"]
        assert await page.ids(queue.name, "failed") == ["bad-3", "bad-5"]
        assert await page.ids(queue.name, "delayed") == ["later"]
        assert await page.ids(queue.name, "waiting") == await page.ids(queue.name, "active") == []

        shown = (await page.client.get(f"/here/{queue.name}/bad-3")).text
        assert "ValueError: odd: 3" in shown
        assert "halve" in shown, "the traceback is there"
        overview = await page.client.get(f"/here/{queue.name}")
        assert (overview.status_code, "used_memory" in overview.text) == (200, True)

        is_repaired = True
        api = f"/api/queue/here/{queue.name}/job"
        assert (await page.client.patch(f"{api}/bad-3")).status_code == 200
        await eventually(lambda: _is_in(page, queue.name, "succeeded", ["bad-3", "good"]))
        retried = await queue.inspect_job("bad-3")
        assert retried is not None
        assert retried.ended == Ended(value=1)
        for job_id in ("bad-5", "later"):
            assert (await page.client.delete(f"{api}/{job_id}")).status_code == 200
            assert await queue.get_job(job_id) is None
        assert await page.ids(queue.name, "failed") == await page.ids(queue.name, "delayed") == []


async def _is_in(page: Arena, name: str, state: str, ids: list[str]) -> bool:
    return await page.ids(name, state) == ids


@pytest.mark.parametrize("maker", ["beeq", "Node"])
async def test_arenas_overview_alone_ends_it_whoever_made_the_queue(
    maker: str,
    make_queue: Callable[..., Queue],
    node_modules: Path,
    arena_modules: Path,
    valkey: Server,
    queue_name: str,
    tmp_path: Path,
) -> None:
    if maker == "Node":
        node = await NodeBee.start(node_modules, url=valkey.url, name=queue_name, isWorker=False)
        job_id = await node.save({"n": 1})
        await node.end()
    else:
        job_id = (await make_queue(is_worker=False).enqueue({"n": 1})).id
    assert "info" not in WITHOUT_INFO
    async with arena(arena_modules, tmp_path, valkey.url, queue_name, WITHOUT_INFO) as page:
        assert await page.ids(queue_name, "waiting") == [job_id]
        with pytest.raises(httpx.TransportError):
            await page.client.get(f"/here/{queue_name}")
        assert await asyncio.wait_for(page.process.wait(), PATIENCE_S) == 1
